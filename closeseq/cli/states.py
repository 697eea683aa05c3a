"""`closeseq states`: the socket table as netstat would have shown it at a moment of the capture."""

from __future__ import annotations

from typing import Any

import click

from closeseq.cli.options import CAPTURES, CHOOSING, READING, WRITING, moment, options

EPILOG = """\b
Examples:
  closeseq states web.pcap                              when the capture ended
  closeseq states web.pcap --at 12.5                    12.5 s after its first packet
  closeseq states web.pcap --at 2026-11-20T12:18:06.5Z
  closeseq states web.pcap --at end -p 8080 -f json
"""


@click.command(epilog=EPILOG)
@CAPTURES
@click.option(
    "--at",
    type=moment,
    default="end",
    show_default=True,
    metavar="T",
    help="Seconds since the first packet, an ISO 8601 time, or 'end'.",
)
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="What to print.",
)
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help="Also the ends that have no socket: CLOSED, or not yet reached by the SYN.",
)
@options(CHOOSING, READING, WRITING)
@click.pass_context
def states(ctx: click.Context, /, captures: tuple[str, ...], **given: Any) -> None:
    """Show the socket table of both ends as netstat would have shown it at a moment of the capture.

    The state of an end is told from packets; the column Certainty says how surely. Of several files that
    continue each other the moment is counted from the first one's beginning.
    """
    from closeseq.cli.requests import StatesRequest
    from closeseq.cli.states_run import show

    ctx.exit(show(StatesRequest.of(captures, given)))
