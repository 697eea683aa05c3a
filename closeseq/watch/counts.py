"""Counts at one moment: sockets by state, and connections by how they closed.

A busy server has many more sockets in TIME_WAIT than connections that are worth keeping: of dropped
connections only the number of their sockets is kept, and until when (`TimeWaitCounts`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.steps import FAR_NS
from closeseq.settings import SECOND
from closeseq.tcp.states import NO_SOCKET, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from closeseq.watch.updates import Pattern


class TimeWaitCounts:
    """Dropped connections whose TIME_WAIT (or FIN_WAIT_2) timer still runs: their number by pattern."""

    def __init__(self) -> None:
        self._until: Counter[tuple[int, int]] = Counter()  # (second since the epoch, pattern) -> connections

    def add(self, pattern: NDArray[np.int32], until_ns: NDArray[np.int64]) -> None:
        """Add connections that are being dropped, one row each.

        Args:
            pattern: int32, the number of each one's pattern.
            until_ns: int64, when its timer expires, since the Unix epoch; FAR_NS if none runs: that one is
                not counted.
        """
        runs = until_ns != FAR_NS
        pairs = np.stack([until_ns[runs] // SECOND, pattern[runs]], axis=1)
        rows, counts = np.unique(pairs, axis=0, return_counts=True)
        for (second, number), count in zip(rows.tolist(), counts.tolist(), strict=True):
            self._until[second, number] += count

    def patterns(self) -> set[int]:
        """Return the patterns that are counted, by number."""
        return {number for _, number in self._until}

    def renumber(self, new: NDArray[np.int32]) -> None:
        """Give patterns new numbers: `new` holds them by old number."""
        self._until = Counter(
            {(second, int(new[number])): count for (second, number), count in self._until.items()}
        )

    def counts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield each pattern's number with its connections; those whose timer expired are dropped.

        Args:
            now_ns: since the Unix epoch.
        """
        for key in [key for key in self._until if key[0] * SECOND <= now_ns]:
            del self._until[key]
        for (_, number), count in self._until.items():
            yield number, count


MOST_SHAPES = 10_000  # of dropped connections, counted apart; a few dozen occur except in attacks
OTHER_SHAPES = "(other shapes)"


@dataclass
class SocketCounts:
    """Counts at one moment. A socket is an endpoint of a connection that is open, or is in TIME_WAIT."""

    seen: int = 0  # connections since monitoring began
    held: int = 0  # connections that are kept
    open: int = 0  # of these: not over
    evicted: int = 0  # dropped unfinished, to stay within --max-connections
    client: Counter[State] = field(default_factory=Counter)  # sockets of clients in each state
    server: Counter[State] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)  # of all connections seen
    shapes: Counter[str] = field(default_factory=Counter)  # likewise; rare ones together as OTHER_SHAPES
    problems: Counter[str] = field(default_factory=Counter)  # connections with each
    notices: Counter[str] = field(default_factory=Counter)  # likewise

    def copy_past(self, past: SocketCounts) -> None:
        """Add how connections closed that were counted before: verdicts, shapes, findings; no sockets."""
        self.seen += past.seen
        for name in ("verdicts", "shapes", "problems", "notices"):
            getattr(self, name).update(getattr(past, name))

    def shorten(self) -> None:
        """Count the rarer half of too many shapes together."""
        if len(self.shapes) > MOST_SHAPES:
            named = Counter({shape: n for shape, n in self.shapes.items() if shape != OTHER_SHAPES})
            kept = Counter(dict(named.most_common(MOST_SHAPES // 2)))
            kept[OTHER_SHAPES] = self.shapes.total() - kept.total()
            self.shapes = kept

    def add_held(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count connections that are kept, and their sockets.

        Args:
            numbers: pairs of a pattern and how many connections have it.
        """
        for pattern, number in numbers:
            self.held += number
            self.open += 0 if pattern.ended else number
            self._count(pattern, number)

    def add_time_wait(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count the sockets of dropped connections whose timer still runs.

        Args:
            numbers: pairs of a pattern and how many connections have it.
        """
        for pattern, number in numbers:
            self._count(pattern, number)

    def _count(self, pattern: Pattern, number: int) -> None:
        for counts, state in ((self.client, pattern.client), (self.server, pattern.server)):
            if state not in NO_SOCKET:
                counts[state] += number

    def add_closes(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count verdicts, shapes and findings of connections.

        Args:
            numbers: pairs of a pattern and how many connections have it.
        """
        for pattern, number in numbers:
            self.verdicts[pattern.verdict] += number
            self.shapes[pattern.shape] += number
            for codes, counts in ((pattern.problems, self.problems), (pattern.notices, self.notices)):
                for code in {code for code, _ in codes}:
                    counts[code] += number
