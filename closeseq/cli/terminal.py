"""How wide the terminal is, and help that fits it.

Exit statuses, and how anything is said on standard error: in one line.

A progress bar on standard error, for reading that takes long enough to ask oneself.

One line on standard error that is drawn again and again, and never stands in the way of the report.
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
UNBROKEN = "\N{NON-BREAKING HYPHEN}"
EXAMPLE = re.compile(r"(?P<indent> *)(?P<command>\S.*?\S) {2,}(?P<comment>[^ #].*)")


def columns(stream: TextIO, otherwise: int = 80) -> int:
    """Return how wide the terminal is that a stream goes to; COLUMNS says it before the terminal does."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError, AttributeError):  # no terminal, or not even a descriptor
        return otherwise


def help_settings() -> dict[str, Any]:
    """Return click's settings for how help looks, also where it has to be narrower than click has it."""
    settings: dict[str, Any] = {
        "help_option_names": ["-h", "--help"],
        "max_content_width": WIDEST_HELP,
    }
    narrow = columns(sys.stdout) < USUAL_HELP + 2
    return settings | ({"terminal_width": columns(sys.stdout) - 2} if narrow else {})


class HelpFormatter(click.HelpFormatter):
    """Help whose columns are shared out by the terminal's width, and whose words stay whole."""

    def write_text(self, text: str) -> None:
        """Write a text; of examples, what is said of them goes below where it has no room."""
        super().write_text(_whole(fitted(text, self.width - self.current_indent)))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms with their definitions; a third of the width is enough for the terms."""
        whole = [(term, _whole(text)) for term, text in rows]
        super().write_dl(whole, min(col_max, self.width // 3), col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(UNBROKEN, "-")


class Context(click.Context):
    """click's, with our help."""

    formatter_class = HelpFormatter


def with_our_help(command: click.Command) -> None:
    """Let a command, and those below it, write their help so."""
    command.context_class = Context
    for below in getattr(command, "commands", {}).values():
        with_our_help(below)


def _whole(text: str) -> str:
    """Return the text with hyphens at which click breaks no line."""
    return text.replace("-", UNBROKEN)


def fitted(epilog: str, width: int) -> str:
    """Return examples so that what is said of a command stands under it where it has no room beside it.

    The commands themselves stay in one piece, to be copied.
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


PATIENCE = 0.5  # seconds before anything is shown
PROGRESS_INTERVAL = 0.1  # seconds between two pictures
BAR = 30


class Progress:
    """Call it with the position reached and the size, both in bytes; size None if it is not known.

    Draws only where standard error is a terminal.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else printable(PurePath(path).name)
        self.wanted = sys.stderr.isatty()
        self.due = time.monotonic() + PATIENCE
        self.drawn = 0

    def __call__(self, position: int, size: int | None) -> None:
        """Draw how far reading has come, if it is time to."""
        now = time.monotonic()
        if self.wanted and now >= self.due:
            self.due = now + PROGRESS_INTERVAL
            self._draw(progress_picture(self.name, position, size, columns(sys.stderr) - 1))

    def clear(self) -> None:
        """Remove the bar, so that nothing of it stands before the report."""
        if self.drawn:
            self._draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _draw(self, text: str) -> None:
        text = text[: columns(sys.stderr) - 1]
        sys.stderr.write("\r" + text.ljust(self.drawn))
        sys.stderr.flush()
        self.drawn = len(text)


def progress_picture(name: str, position: int, size: int | None, width: int = 80) -> str:
    """Return one line: `reading x.pcap [#####-----]  50 %`; where it has no room, the bar goes first."""
    if not size:
        whole, short = f"reading {name}  {position / 1e6:,.1f} MB", f"{position / 1e6:,.1f} MB read"
        return whole if len(whole) <= width else short
    share = min(position / size, 1.0)
    done = round(share * BAR)
    bar = f"[{'#' * done}{'-' * (BAR - done)}]"
    parts = (f"reading {name} {bar} {share:4.0%}", f"reading {name} {share:4.0%}", f"{share:.0%} read")
    return next((text for text in parts if len(text) <= width), parts[-1])


INTERVAL = 0.5  # seconds between two pictures


class StatusLine:
    """Draws only where standard error is a terminal. Clear it before anything else is written."""

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
        """Whether it is time for another picture."""
        return self.wanted and time.monotonic() >= self._due

    def draw(self, text: str) -> None:
        """Draw this text instead of what stood there."""
        if self.wanted:
            self._due = time.monotonic() + INTERVAL
            self._write(text[: self.width])

    def clear(self) -> None:
        """Remove the line; the next picture is due at once."""
        if self._drawn:
            self._write("")
            self._due = 0.0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            sys.stderr.write("\r" + text.ljust(self._drawn) + "\r" + text)
            sys.stderr.flush()
        self._drawn = len(text)


# What a person has to see of the sockets, first what is most likely wrong: CLOSE_WAIT is a program's fault,
# TIME_WAIT is nobody's, and there are thousands of it.
ORDER = (
    *(State.CLOSE_WAIT, State.FIN_WAIT_2, State.LAST_ACK, State.CLOSING, State.FIN_WAIT_1),
    *(State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.UNKNOWN, State.TIME_WAIT),
)
HARMLESS = frozenset({State.ESTABLISHED, State.UNKNOWN, State.TIME_WAIT})


def picture(
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
    have one in TIME_WAIT. What has no room is left out whole: first TIME_WAIT, then ESTABLISHED, then what is
    known anyway, and at last the other states.

    Args:
        name, clock: what is watched, and the time of day.
        packets, lost: seen so far, and those that the capture lost.
        open_: connections that are not over.
        sockets: how many are in which state.
        backlog: connections that are still to be written.
        width: columns there are.
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
