"""Exit statuses, and how anything is said on standard error: in one line."""

from __future__ import annotations

import contextlib
import sys
from enum import IntEnum
from typing import IO, TYPE_CHECKING, Any

import click

from closeseq.cli.screen import columns
from closeseq.report.text import NARROWEST, Style, printable
from closeseq.verdict.text import count

if TYPE_CHECKING:
    from closeseq.verdict.fault import Faults


class Status(IntEnum):
    """How the command ended."""

    DONE = 0
    FOUND = 1  # done, and something named with --fail-on was found
    USAGE = 2
    CAPTURE = 3  # a capture could not be read, or not to its end
    FILTER = 4  # a filter expression is wrong, or cannot be compiled here
    NOT_PERMITTED = 5
    BUG = 70  # ours; not 1, which would pass for FOUND
    WORKER = 71  # a process that did a part of the work was killed
    INTERRUPTED = 130


class Refusal(click.ClickException):
    """Wrong usage that is said in one line, without the command's synopsis."""

    exit_code = Status.USAGE

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - click's signature
        """Say it on standard error."""
        complain(self.message)


def complain(text: str, *, whole: bool = False) -> None:
    """Say one line on standard error, if anyone can hear it.

    On a terminal that is narrower it goes on under itself, unless it has to stay `whole` to be copied.
    """
    line = f"closeseq: {printable(text)}"
    if not whole and sys.stderr.isatty():
        line = "\n".join(Style(max(columns(sys.stderr), NARROWEST)).wrap(line, then="  "))
    remark(line)


def fault_in(faults: Faults) -> str:
    """Return what is said where closeseq itself failed at some connections."""
    from closeseq.verdict.fault import REPORT  # hardly ever needed

    number = len(faults)
    named = "; ".join([*faults.named, *(["others"] if number > len(faults.named) else [])])
    return (
        f"{count(number, 'connection')} could not be judged, a fault in closeseq ({named}); all others are. "
        f"{REPORT}"
    )


def remark(text: str) -> None:
    """Write lines for a person on standard error, as they are, if anyone can hear it."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
