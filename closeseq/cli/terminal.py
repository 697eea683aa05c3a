"""The terminal: help that fits its width, and all that goes to standard error.

Top to bottom: width and help; exit statuses and one-line messages; the progress bar of a long read; the
status line of `live`, which is redrawn in place and cleared before anything else is written.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
import time
from enum import IntEnum
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, TextIO

import click

from closeseq.report.text import NARROWEST, Style, printable
from closeseq.tcp.states import State
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from closeseq.verdict.fault import Faults

USUAL_HELP = 50  # columns of click's narrowest help
WIDEST_HELP = 100
NARROWEST_HELP = 10  # below, click fails
UNBROKEN = "\N{NON-BREAKING HYPHEN}"
EXAMPLE = re.compile(r"(?P<indent> *)(?P<command>\S.*?\S) {2,}(?P<comment>[^ #].*)")


def columns(stream: TextIO, otherwise: int = 80) -> int:
    """Return the columns of the terminal that a stream goes to; COLUMNS takes precedence.

    Args:
        stream: such as standard output.
        otherwise: the answer if it goes to no terminal.
    """
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError, AttributeError):  # no terminal, or not even a descriptor
        return otherwise


def help_settings() -> dict[str, Any]:
    """Return click's settings for help, also for terminals narrower than click's minimum."""
    settings: dict[str, Any] = {
        "help_option_names": ["-h", "--help"],
        "max_content_width": WIDEST_HELP,
    }
    width = max(columns(sys.stdout), NARROWEST_HELP) - 2
    return settings | ({"terminal_width": width} if width < USUAL_HELP else {})


class HelpFormatter(click.HelpFormatter):
    """Help that fits the terminal's width, and breaks no word at a hyphen."""

    def write_text(self, text: str) -> None:
        """Write a text; the comments of examples go on lines of their own where they do not fit."""
        super().write_text(_whole(fitted(text, self.width - self.current_indent)))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms with their definitions.

        Args:
            rows: term and definition of each.
            col_max: columns of the terms, at most; and at most a third of the width.
            col_spacing: columns between the two.
        """
        whole = [(term, _whole(text)) for term, text in rows]
        super().write_dl(whole, min(col_max, self.width // 3), col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(UNBROKEN, "-")


class Context(click.Context):
    """click's context, with this module's help."""

    formatter_class = HelpFormatter


def use_help_formatter(command: click.Command) -> None:
    """Make a command and its subcommands write their help with `HelpFormatter`."""
    command.context_class = Context
    for below in getattr(command, "commands", {}).values():
        use_help_formatter(below)


def _whole(text: str) -> str:
    """Return the text with non-breaking hyphens."""
    return text.replace("-", UNBROKEN)


def fitted(epilog: str, width: int) -> str:
    """Return examples with each comment under its command where it does not fit beside it.

    Commands are not broken, so that they can be copied.

    Args:
        epilog: lines with a command, and its comment two or more blanks behind it; other lines are text.
        width: columns.
    """
    lines = []
    for line in epilog.split("\n"):
        found = EXAMPLE.fullmatch(line) if len(line) > width else None
        if found:
            deeper = found["indent"] + " " * 4
            lines.append(found["indent"] + found["command"])
            lines += textwrap.wrap(found["comment"], width, initial_indent=deeper, subsequent_indent=deeper)
        elif len(line) > width and not line.startswith("  "):
            lines += textwrap.wrap(line, width)
        else:
            lines.append(line)
    return "\n".join(lines)


class Status(IntEnum):
    """Exit statuses."""

    DONE = 0
    FOUND = 1  # done, and something named with --fail-on was found
    USAGE = 2
    CAPTURE = 3  # a capture could not be read, or not to its end
    FILTER = 4  # a filter expression is wrong, or cannot be compiled here
    NOT_PERMITTED = 5
    BUG = 70  # in closeseq; not 1, which would pass for FOUND
    WORKER = 71  # a worker process was killed
    INTERRUPTED = 130


class Refusal(click.ClickException):
    """Wrong usage that is reported in one line, without the command's synopsis."""

    exit_code = Status.USAGE

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - click's signature
        """Write it to standard error."""
        complain(self.message)


def complain(text: str, *, whole: bool = False) -> None:
    """Write one line to standard error, if that is open.

    On a narrow terminal it is wrapped.

    Args:
        text: without the name of the program, which is put before it; made printable here.
        whole: do not wrap it: it contains a command to be copied.
    """
    line = f"closeseq: {printable(text)}"
    if not whole and sys.stderr.isatty():
        line = "\n".join(Style(max(columns(sys.stderr), NARROWEST)).wrap(line, then="  "))
    remark(line)


def fault_in(faults: Faults) -> str:
    """Return the message about connections at which closeseq itself failed."""
    from closeseq.verdict.fault import REPORT  # hardly ever needed

    number = len(faults)
    named = "; ".join([*faults.named, *(["others"] if number > len(faults.named) else [])])
    return (
        f"{count(number, 'connection')} could not be judged, a fault in closeseq ({named}); all others were. "
        f"{REPORT}"
    )


def remark(text: str) -> None:
    """Write lines for a person to standard error, as they are, if that is open."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


QUIET = 0.5  # seconds before a progress bar is shown
PROGRESS_INTERVAL = 0.1  # seconds between two drawings
BAR = 30


class Progress:
    """A progress bar on standard error, if that is a terminal.

    Called with the position and the size in bytes; size None if it is not known.

    Args:
        path: what is read; "-" for standard input.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else printable(PurePath(path).name)
        self.wanted = sys.stderr.isatty()
        self.due = time.monotonic() + QUIET
        self.drawn = 0

    def __call__(self, position: int, size: int | None) -> None:
        """Draw the bar, if it is time to."""
        now = time.monotonic()
        if self.wanted and now >= self.due:
            self.due = now + PROGRESS_INTERVAL
            self._draw(progress_text(self.name, position, size, columns(sys.stderr) - 1))

    def clear(self) -> None:
        """Remove the bar, so that nothing of it is left before the report."""
        if self.drawn:
            self._draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _draw(self, text: str) -> None:
        text = text[: columns(sys.stderr) - 1]
        sys.stderr.write("\r" + text.ljust(self.drawn))
        sys.stderr.flush()
        self.drawn = len(text)


def progress_text(name: str, position: int, size: int | None, width: int = 80) -> str:
    """Return one line: `reading x.pcap [#####-----]  50%`; without the bar where it does not fit.

    Args:
        name: of what is read.
        position: bytes read so far.
        size: bytes of all; None or 0 if that is not known.
        width: columns.
    """
    if not size:
        whole, short = f"reading {name}  {position / 1e6:,.1f} MB", f"{position / 1e6:,.1f} MB read"
        return whole if len(whole) <= width else short
    share = min(position / size, 1.0)
    done = round(share * BAR)
    bar = f"[{'#' * done}{'-' * (BAR - done)}]"
    parts = (f"reading {name} {bar} {share:4.0%}", f"reading {name} {share:4.0%}", f"{share:.0%} read")
    return next((text for text in parts if len(text) <= width), parts[-1])


INTERVAL = 0.5  # seconds between two drawings


class StatusLine:
    """A line on standard error, if that is a terminal. Clear it before anything else is written."""

    def __init__(self) -> None:
        self.wanted = sys.stderr.isatty()
        self._due = 0.0
        self._drawn = 0

    @property
    def width(self) -> int:
        """How many columns the line may take: one less than the terminal has, so that it does not scroll."""
        return max(0, columns(sys.stderr) - 1)

    @property
    def due(self) -> bool:
        """Whether it is time for another drawing."""
        return self.wanted and time.monotonic() >= self._due

    def draw(self, text: str) -> None:
        """Draw this text in place of the last one."""
        if self.wanted:
            self._due = time.monotonic() + INTERVAL
            self._write(text[: self.width])

    def clear(self) -> None:
        """Remove the line; the next drawing is due at once."""
        if self._drawn:
            self._write("")
            self._due = 0.0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            sys.stderr.write("\r" + text.ljust(self._drawn) + "\r" + text)
            sys.stderr.flush()
        self._drawn = len(text)


# The states in the status line, the most likely faulty first: CLOSE_WAIT is a program's fault, TIME_WAIT is
# nobody's, and occurs by the thousand.
ORDER = (
    *(State.CLOSE_WAIT, State.FIN_WAIT_2, State.LAST_ACK, State.CLOSING, State.FIN_WAIT_1),
    *(State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.UNKNOWN, State.TIME_WAIT),
)
HARMLESS = frozenset({State.ESTABLISHED, State.UNKNOWN, State.TIME_WAIT})


def status_text(
    name: str,
    clock: str,
    *,
    packets: int,
    lost: int,
    open_: int,
    sockets: Mapping[State, int],
    backlog: int,
    width: int,
) -> str:
    """Return the status line.

    `lo 12:18:06  84,012 packets, 0 lost  37 connections open  sockets: CLOSE_WAIT 3, TIME_WAIT 1,204`

    Connections and sockets are counted apart: a connection has two sockets, and one that is over may still
    have one in TIME_WAIT. What does not fit is left out whole: first TIME_WAIT, then ESTABLISHED, then what
    the user knows anyway, and at last the other states.

    Args:
        name, clock: of the interface or file, and the time of day.
        packets, lost: captured so far, and lost by the capture.
        open_: connections that are not over.
        sockets: their number in each state.
        backlog: connections that are still to be written.
        width: columns available.
    """
    waits = [f"{backlog:,} to be written"] if backlog else []
    seen = f"{count(packets, 'packet')}, {lost:,} lost"
    missed = [f"{lost:,} lost"] if lost else []
    heads = (
        [f"{name} {clock}", seen, *waits, f"{count(open_, 'connection')} open"],
        [f"{name} {clock}", seen, *waits, f"{open_:,} open"],
        [name, *missed, *waits, f"{open_:,} open"],
        [*missed, *waits, f"{open_:,} open"],
    )
    states = [f"{state} {sockets[state]:,}" for state in ORDER if sockets.get(state)]
    grave = sum(bool(sockets.get(state)) for state in ORDER if state not in HARMLESS)
    for head in heads:
        fewest = 0 if head is heads[-1] else grave
        for shown in range(len(states), fewest - 1, -1):
            listed = ", ".join([*states[:shown], *(["..."] if shown < len(states) else [])])
            text = "  ".join([*head, *([f"sockets: {listed}"] if shown else [])])
            if len(text) <= width:
                return text
    return ""
