"""How much is written of many connections, so that a person can read it and what is grave stays in sight.

A busy server closes thousands of connections a second, nearly all alike. Of those that say the same, a few
are shown with their timelines and some more in a line each; the others are counted, and the counts written
now and then. What has a problem has room of its own.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from closeseq.report.news import others
from closeseq.watch.news import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.report.text import Style
    from closeseq.watch.labels import Label
    from closeseq.watch.news import News

SECONDS = 10.0  # in which there is so much room as follows, and after which counts are written
ALIKE = 3  # blocks that say the same
BLOCKS = {False: 12, True: 24}  # blocks of all kinds, without and with a problem
LINES = {False: 50, True: 100}
LAST_BLOCKS = {False: 8, True: 8}  # at the end, when somebody waits for the summary
LAST_LINES = {False: 16, True: 32}
CROWD = 16  # so many at once that say the same: one block has to do, and no lines
COUNTS = 8  # kinds of connections of which a count is written; the others are counted together
MOST_KINDS = 1000  # remembered


class Room:
    """How much may still be written within `SECONDS`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[float] = deque(maxlen=most)

    @property
    def used(self) -> bool:
        """Whether anything was ever written."""
        return bool(self._times)

    def left(self) -> int:
        """Return how much there is."""
        since = time.monotonic() - SECONDS
        while self._times and self._times[0] <= since and len(self._times) > 1:
            self._times.popleft()
        return self._most - sum(one > since for one in self._times)

    def take(self, number: int) -> None:
        """Use that much of it."""
        self._times.extend([time.monotonic()] * min(number, self._most))


class Crowd:
    """Shares out the room, and counts what has none."""

    def __init__(self) -> None:
        self._alike: dict[tuple[Kind, Label], Room] = {}
        self._rest: Counter[tuple[Kind, Label]] = Counter()
        self._next_counts = 0.0
        self._blocks = {grave: Room(most) for grave, most in BLOCKS.items()}
        self._lines = {grave: Room(most) for grave, most in LINES.items()}

    def share(self, news: News) -> tuple[int, int]:
        """Return how many of these connections to show in a block each, and then how many in a line each."""
        if len(self._alike) > MOST_KINDS:
            self._alike = {key: room for key, room in self._alike.items() if room.left() < ALIKE}
        key, number = (news.kind, news.label), len(news)
        grave = is_grave(news)
        alike = self._alike.setdefault(key, Room(ALIKE))
        blocks = min(alike.left(), self._blocks[grave].left(), 1 if number > CROWD else number)
        if news.kind is Kind.OPEN and self._was_shown(Kind.STUCK, news.label):
            blocks = 0  # it was shown, with its timeline, when it was found stuck
        lines = 0 if number > CROWD else min(number - blocks, self._lines[grave].left())
        alike.take(blocks)
        self._blocks[grave].take(blocks)
        self._lines[grave].take(lines)
        self._rest[key] += number - blocks - lines
        return blocks, lines

    def _was_shown(self, kind: Kind, label: Label) -> bool:
        room = self._alike.get((kind, label))
        return room is not None and room.used

    @property
    def due(self) -> bool:
        """Whether it is time to write how many were only counted."""
        return bool(+self._rest) and time.monotonic() >= self._next_counts

    def counts(self, style: Style) -> Iterator[str]:
        """Yield how many connections were only counted since the last time, what is grave first."""
        found = sorted((+self._rest).items(), key=lambda one: (not _is_grave(*one[0]), -one[1]))
        self._rest.clear()
        self._next_counts = time.monotonic() + SECONDS
        for (kind, label), number in found[:COUNTS]:
            yield from others(kind, label, number, style)
        if len(found) > COUNTS:
            number = sum(number for _, number in found[COUNTS:])
            text = f"and {number:,} more connections in {len(found) - COUNTS:,} other ways"
            yield from style.wrap(text, first="    ")

    def end(self) -> None:
        """Make room for what is said at the end, whatever was said before."""
        self._blocks = {grave: Room(most) for grave, most in LAST_BLOCKS.items()}
        self._lines = {grave: Room(most) for grave, most in LAST_LINES.items()}
        self._next_counts = 0.0


def is_grave(news: News) -> bool:
    """Return whether a person has to see this."""
    return _is_grave(news.kind, news.label)


def _is_grave(kind: Kind, label: Label) -> bool:
    return kind in {Kind.REVISED, Kind.STUCK} or bool(label.problems)
