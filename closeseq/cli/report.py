"""`closeseq report`: one page of HTML about a capture."""

from __future__ import annotations

from typing import Any

import click

from closeseq.cli.options import CAPTURES, CHOOSING, FAILING, READING, SAVING, WORKING, options

EPILOG = """\b
Examples:
  closeseq report web.pcap -o report.html
  closeseq report web.pcap -p 8080 --stuck-after 10 -o report.html
  closeseq report ring/ -o report.html --ladders 1000
  closeseq report web.pcap --fail-on stuck-close-wait -o report.html
"""


@click.command(epilog=EPILOG, short_help="Write one page of HTML about a capture, to attach to a ticket.")
@CAPTURES
@click.option(
    "--ladders",
    type=click.IntRange(min=0),
    default=300,
    show_default=True,
    metavar="N",
    help="Show at most N connections whole: ladder, evidence and record. The page says which.",
)
@options(CHOOSING, READING, WORKING, FAILING, SAVING)
@click.pass_context
def report(ctx: click.Context, /, captures: tuple[str, ...], ladders: int, **given: Any) -> None:
    """Write one page of HTML about a capture: to attach to a ticket, and open in any browser.

    First which program to fix, how often, and since when; then how the connections ended, how many sockets
    were in which state over time, and a table of all connections that sorts and filters. Of each problem and
    each way to close, some connections are shown whole: packets, states, evidence, advice, and the record as
    JSON.

    The page is one file. It loads nothing from anywhere, and runs under a policy that forbids it. With -o,
    its first lines are printed too. Files that follow one another in time are one capture.
    """
    from closeseq.cli.report_run import write
    from closeseq.cli.requests import ReportRequest

    ctx.exit(write(ReportRequest.of(captures, ladders, given)))
