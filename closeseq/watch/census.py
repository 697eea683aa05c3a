"""How many sockets are in which state, and what became of all connections seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.tcp.states import NO_SOCKET, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.watch.labels import Label

MOST_SHAPES = (
    10_000  # of connections that are forgotten, counted apart; there are a few dozen but for attacks
)
OTHER_SHAPES = "(other shapes)"


@dataclass
class Census:
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

    def copy_past(self, past: Census) -> None:
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

    def stand(self, numbers: Iterable[tuple[Label, int]]) -> None:
        """Count connections that are still looked at: so many of each label."""
        for label, number in numbers:
            self.held += number
            self.open += 0 if label.ended else number
            self._count(label, number)

    def ebb(self, numbers: Iterable[tuple[Label, int]]) -> None:
        """Count sockets whose connections are no longer looked at: so many of each label."""
        for label, number in numbers:
            self._count(label, number)

    def _count(self, label: Label, number: int) -> None:
        for counts, state in ((self.client, label.client), (self.server, label.server)):
            if state not in NO_SOCKET:
                counts[state] += number

    def add(self, numbers: Iterable[tuple[Label, int]]) -> None:
        """Count what became of connections: so many of each label."""
        for label, number in numbers:
            self.verdicts[label.verdict] += number
            self.shapes[label.shape] += number
            for codes, counts in ((label.problems, self.problems), (label.notices, self.notices)):
                for code in {code for code, _ in codes}:
                    counts[code] += number
