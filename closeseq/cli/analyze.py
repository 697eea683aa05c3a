"""`closeseq analyze` and `closeseq timeline`: how the connections of some captures closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from closeseq.cli.options import (
    ASKING,
    CAPTURES,
    CHOOSING,
    FORMATS,
    OF_ALL,
    PARQUET,
    PCAPNG,
    PICTURES,
    READING,
    SHOWING,
    TOGETHER,
    WORKING,
    WRITING,
    options,
)

if TYPE_CHECKING:
    from closeseq.cli.analyze_run import Job
    from closeseq.cli.annotate_run import AnnotateJob
    from closeseq.cli.requests import AnalyzeRequest

ANALYZE_EPILOG = """\b
Examples:
  closeseq analyze web.pcap
  closeseq analyze web.pcap -p 8080 --stuck-after 10
  closeseq analyze web.pcap --verdict reset -f table
  closeseq analyze web.pcap --why ECONNRESET   in which connections a program got this error
  closeseq analyze web.pcap -f jsonl | jq 'select(.server.state == "CLOSE_WAIT")'
  closeseq analyze web.pcap -f parquet -o web  four tables in the directory web; see closeseq explain tables
  closeseq analyze ring/ -f table              a directory of files that continue each other
  closeseq analyze 'ring-*.pcap.gz'
  find /captures -name '*.pcap*' -mmin -60 | closeseq analyze -
  closeseq analyze --cluster tcp://scheduler:8786 's3://bucket/ring-*.pcap.gz' -f jsonl -o s3://bucket/out
  tcpdump -i any -w - tcp | closeseq analyze -
  closeseq analyze ci.pcap --fail-on stuck-close-wait || echo 'sockets leak'
  closeseq analyze web.pcap -f pcapng -o annotated.pcapng   comments on packets, for Wireshark
"""
TIMELINE_EPILOG = """\b
Examples:
  closeseq timeline web.pcap --connection 12
  closeseq timeline web.pcap --finding final-ack-lost
  closeseq timeline web.pcap -p 8080 --all --ascii | less
  closeseq timeline web.pcap --connection 12 -f svg -o 12.svg
  closeseq timeline web.pcap --finding stuck-close-wait -f svg -o pictures/   a file each
  closeseq timeline web.pcap --connection 12 -f mermaid    to paste into a ticket or README
  closeseq timeline web.pcap --connection 12 -f dot | dot -Tpdf > 12.pdf
"""


@click.command(epilog=ANALYZE_EPILOG, short_help="Show how each connection closed, and which program to fix.")
@CAPTURES
@click.option(
    *("-f", "--format", "form"),
    type=click.Choice((*FORMATS, PARQUET, PCAPNG)),
    default="summary",
    show_default=True,
    help="What to write; parquet: tables, to the directory -o; pcapng: the capture again, with comments on "
    "its packets, for Wireshark.",
)
@options(CHOOSING, ASKING, READING, TOGETHER, WORKING, OF_ALL, SHOWING, WRITING)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Use the workers of this Dask scheduler; -o is then a directory or URL, written in parts.",
)
@click.option("--timings", "timed", is_flag=True, help="Print on standard error how long each stage took.")
@click.pass_context
def analyze(
    ctx: click.Context,
    /,
    captures: tuple[str, ...],
    form: str,
    *,
    cluster: str | None,
    timed: bool,
    **given: Any,
) -> None:
    """Show how each connection in a capture closed, and which program to fix.

    CAPTURE is a pcap or pcapng file, also compressed; a directory of them or a pattern for their names; a URL
    such as s3://bucket/ring-*.pcap; or - for standard input: a capture, or a list of names.

    Files that follow one another in time are one capture, in the order of their times: #3:17 is then packet
    17 of the third file. Files that overlap in time are from different capture points, and each is analysed
    by itself.
    """
    from closeseq.cli.requests import AnalyzeRequest
    from closeseq.cli.timings import timings

    request = AnalyzeRequest.of(captures, form, given)
    if cluster is not None:
        from closeseq.cli.cluster_run import ClusterJob

        ctx.exit(ClusterJob(request).run_on(cluster))
    with timings(wanted=timed):
        status = _job(request).run()
    ctx.exit(status)


def _job(request: AnalyzeRequest) -> Job | AnnotateJob:
    """Return the run of a request on this machine."""
    if request.form == PARQUET:
        from closeseq.cli.parquet_run import ParquetJob

        return ParquetJob(request)
    if request.form == PCAPNG:
        from closeseq.cli.annotate_run import AnnotateJob

        return AnnotateJob(request)
    from closeseq.cli.analyze_run import Job

    return Job(request)


@click.command(epilog=TIMELINE_EPILOG, short_help="Show the close of each connection packet by packet.")
@CAPTURES
@click.option(
    *("-f", "--format", "form"),
    type=click.Choice(("text", *PICTURES)),
    default="text",
    show_default=True,
    help="What to print: text; the packets as svg, mermaid, plantuml or msc; or the connection's way through "
    "the state diagram, as svg (diagram) or for Graphviz (dot).",
)
@options(CHOOSING, READING, TOGETHER, WORKING, SHOWING, WRITING)
@click.pass_context
def timeline(ctx: click.Context, /, captures: tuple[str, ...], form: str, **given: Any) -> None:
    """Show the close of each connection packet by packet, with both endpoints' states.

    Of more connections than --limit, those with a problem come first. In a capture of several files,
    #3:17 is packet 17 of the third file.

    As a picture, the endpoint that closes first is green, the other one blue. What is dashed is assumed, and
    a lost packet ends in a cross. A file holds one picture as svg, diagram or msc; -o with a directory writes
    a file each.
    """
    from closeseq.cli.requests import AnalyzeRequest

    if form in PICTURES:
        from closeseq.cli.picture_run import PictureJob

        ctx.exit(PictureJob(AnalyzeRequest.of(captures, form, given)).run())
    from closeseq.cli.analyze_run import Job

    ctx.exit(Job(AnalyzeRequest.of(captures, "timeline", given)).run())
