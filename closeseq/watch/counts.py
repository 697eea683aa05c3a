"""Sockets in TIME_WAIT whose connections are forgotten: all that is still known is how many, until when.

How many sockets are in which state, and what became of all connections seen.
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

    from closeseq.watch.updates import Pattern


class TimeWaitCounts:
    """Counts of forgotten connections by label, in which a clock still runs."""

    def __init__(self) -> None:
        self._until: Counter[tuple[int, int]] = Counter()  # (second since the epoch, label) -> connections

    def add(self, label: np.ndarray, until_ns: np.ndarray) -> None:
        """Take in connections that are being forgotten: their labels, and when their clocks run out."""
        runs = until_ns != FAR_NS
        pairs = np.stack([until_ns[runs] // SECOND, label[runs]], axis=1)
        rows, counts = np.unique(pairs, axis=0, return_counts=True)
        for (second, number), count in zip(rows.tolist(), counts.tolist(), strict=True):
            self._until[second, number] += count

    def labels(self) -> set[int]:
        """Return the numbers of the labels that are counted."""
        return {number for _, number in self._until}

    def renumber(self, new: np.ndarray) -> None:
        """Let labels have other numbers: by old number the new one."""
        self._until = Counter(
            {(second, int(new[number])): count for (second, number), count in self._until.items()}
        )

    def counts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield labels, with how many connections still have theirs; those that ran out are let go."""
        for key in [key for key in self._until if key[0] * SECOND <= now_ns]:
            del self._until[key]
        for (_, number), count in self._until.items():
            yield number, count


MOST_SHAPES = (
    10_000  # of connections that are forgotten, counted apart; there are a few dozen but for attacks
)
OTHER_SHAPES = "(other shapes)"


@dataclass
class SocketCounts:
    """Counts at one moment. Sockets are the ends of connections that are not over, or in TIME_WAIT."""

    seen: int = 0  # connections since the watch began
    held: int = 0  # connections that are still looked at
    open: int = 0  # of these: not over
    evicted: int = 0  # given up unfinished, to stay within --max-connections
    client: Counter[State] = field(default_factory=Counter)  # sockets of clients in each state
    server: Counter[State] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)  # of all connections seen
    shapes: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)  # connections with each
    notices: Counter[str] = field(default_factory=Counter)

    def copy_past(self, past: SocketCounts) -> None:
        """Begin with what became of connections that were counted before."""
        self.seen += past.seen
        for name in ("verdicts", "shapes", "problems", "notices"):
            getattr(self, name).update(getattr(past, name))

    def shorten(self) -> None:
        """Keep the most frequent shapes apart, and count the others together."""
        if len(self.shapes) > MOST_SHAPES:
            named = Counter({shape: n for shape, n in self.shapes.items() if shape != OTHER_SHAPES})
            kept = Counter(dict(named.most_common(MOST_SHAPES // 2)))
            kept[OTHER_SHAPES] = self.shapes.total() - kept.total()
            self.shapes = kept

    def stand(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count connections that are still looked at: so many of each label."""
        for label, number in numbers:
            self.held += number
            self.open += 0 if label.ended else number
            self._count(label, number)

    def ebb(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count sockets whose connections are no longer looked at: so many of each label."""
        for label, number in numbers:
            self._count(label, number)

    def _count(self, label: Pattern, number: int) -> None:
        for counts, state in ((self.client, label.client), (self.server, label.server)):
            if state not in NO_SOCKET:
                counts[state] += number

    def add(self, numbers: Iterable[tuple[Pattern, int]]) -> None:
        """Count what became of connections: so many of each label."""
        for label, number in numbers:
            self.verdicts[label.verdict] += number
            self.shapes[label.shape] += number
            for codes, counts in ((label.problems, self.problems), (label.notices, self.notices)):
                for code in {code for code, _ in codes}:
                    counts[code] += number
