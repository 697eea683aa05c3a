"""One line on standard error that is drawn again and again, and never stands in the way of the report."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from closeseq.cli.screen import columns
from closeseq.tcp.states import State
from closeseq.verdict.text import count

if TYPE_CHECKING:
    from collections.abc import Mapping

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
