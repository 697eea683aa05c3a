"""`closeseq states`: the socket table that netstat would have shown at a moment of the capture."""

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


@click.command(epilog=EPILOG, short_help="Show the socket table at a moment, as netstat.")
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
    help="Also show endpoints without a socket: CLOSED, or not yet reached by the SYN.",
)
@options(CHOOSING, READING, WRITING)
@click.pass_context
def states(ctx: click.Context, /, captures: tuple[str, ...], **given: Any) -> None:
    """Show the socket table that netstat would have shown at a moment of the capture.

    States are inferred from packets; the column Certainty shows how surely. In a capture of several files,
    the moment is counted from the beginning of the first file.
    """
    from closeseq.cli.requests import StatesRequest
    from closeseq.cli.states_run import show

    ctx.exit(show(StatesRequest.of(captures, given)))
