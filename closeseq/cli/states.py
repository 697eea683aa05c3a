"""`closeseq states`: the socket table as netstat would have shown it at a moment of the capture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from closeseq.cli.options import CHOOSING, READING, WRITING, options

EPILOG = """\b
Examples:
  closeseq states web.pcap                              when the capture ended
  closeseq states web.pcap --at 12.5                    12.5 s after its first packet
  closeseq states web.pcap --at 2026-11-20T12:18:06.5Z
  closeseq states web.pcap --at end -p 8080 -f json
"""
FRACTION = re.compile(r"\.(\d{1,9})(?=$|Z|[+-]\d\d)")
NS = 1_000_000_000
FOREVER = 10**12  # seconds


@dataclass(frozen=True)
class Moment:
    """A moment of a capture: so long after its first packet, or a time, or (neither) its end."""

    offset_ns: int | None = None
    time_ns: int | None = None

    def within(self, first_ns: int, last_ns: int) -> int:
        """Return the moment since the Unix epoch, for a capture of these first and last packets."""
        if self.time_ns is not None:
            return self.time_ns
        return last_ns if self.offset_ns is None else first_ns + self.offset_ns


def moment(text: str) -> Moment:
    """Return the moment that seconds, an ISO 8601 time or `end` name. Raises BadParameter."""
    if text == "end":
        return Moment()
    try:
        return Moment(time_ns=absolute(text)) if "T" in text or " " in text else Moment(relative(text))
    except (ValueError, ArithmeticError) as error:
        what = "neither seconds since the first packet nor an ISO 8601 time nor 'end'"
        raise click.BadParameter(f"{text!r} is {what}") from error


def relative(text: str) -> int:
    """Return seconds as nanoseconds. Raises ValueError or ArithmeticError."""
    number = Decimal(text)
    if not 0 <= number < FOREVER:
        raise ValueError(text)
    return int(number * NS)


def absolute(text: str) -> int:
    """Return an ISO 8601 time as nanoseconds since the Unix epoch, all digits kept. Raises ValueError."""
    fraction = FRACTION.search(text)
    whole = datetime.fromisoformat(FRACTION.sub("", text))
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    since = whole - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS + (int(fraction[1].ljust(9, "0")) if fraction else 0)


@click.command(epilog=EPILOG)
@click.argument("capture", type=click.Path(allow_dash=True))
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
def states(ctx: click.Context, /, capture: str, at: Moment, form: str, **given: Any) -> None:
    """Show the socket table of both ends as netstat would have shown it at a moment of the capture.

    The state of an end is told from packets; the column Certainty says how surely.
    """
    from closeseq.cli.sockets import show

    ctx.exit(show(capture, at, form, given))
