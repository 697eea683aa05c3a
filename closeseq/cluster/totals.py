"""What the connections of shards come to, added up: counts, and of each kind of problem the first ones.

Where something is found first decides the order of what is equally frequent, as in a summary of all at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from closeseq.report.summary import (
    Group,
    advice_of,
    allot,
    blame,
    detail,
    gather,
    how_they_ended,
    not_shown,
    noticed,
    notices_of,
    their_shapes,
    titled,
    what_was_read,
)
from closeseq.verdict.fault import Faults

if TYPE_CHECKING:
    from closeseq.connections.conversation import Address, End
    from closeseq.reading import Reading
    from closeseq.report.selection import Selection, Wanted
    from closeseq.report.text import Style
    from closeseq.settings import Settings

Key = TypeVar("Key", bound=Hashable)


class Counts(Generic[Key]):
    """How many connections there are of each kind, and which was the first: its number, and a place in it."""

    def __init__(self) -> None:
        self.of: dict[Key, int] = {}
        self.first: dict[Key, tuple[int, int]] = {}

    def add(self, key: Key, number: int, first: tuple[int, int]) -> None:
        """Count connections of a kind."""
        self.of[key] = self.of.get(key, 0) + number
        self.first[key] = min(first, self.first.get(key, first))

    def merge(self, other: Counts[Key]) -> None:
        """Add what another shard has."""
        for key, number in other.of.items():
            self.add(key, number, other.first[key])

    def ordered(self) -> dict[Key, int]:
        """Return the counts, the most frequent first."""
        return {
            key: self.of[key] for key in sorted(self.of, key=lambda key: (-self.of[key], self.first[key]))
        }


@dataclass
class Trouble:
    """Connections with the same problem at the same address, as `Group`."""

    number: int
    first: int  # the least number of a connection
    advice: str
    shown: list[tuple[int, list[str]]]  # the first of them: number, and what is said of each

    def merge(self, other: Trouble, most: int | None) -> None:
        """Add what another shard has."""
        self.number += other.number
        if other.first < self.first:
            self.first, self.advice = other.first, other.advice
        self.shown = sorted([*self.shown, *other.shown])[:most]


@dataclass(slots=True)
class Numerous(Group):
    """A group of which only the number is known here."""

    size: int = 0

    @property
    def number(self) -> int:
        return self.size


@dataclass
class Totals:
    """What the connections of some shards come to."""

    connections: int = 0
    selected: int = 0  # of these, those that are asked for
    losses: tuple[int, int, int] = (0, 0, 0)
    verdicts: Counts[str] = field(default_factory=Counts)
    findings: Counts[str] = field(default_factory=Counts)
    shapes: Counts[str] = field(default_factory=Counts)
    notices: Counts[tuple[str, str]] = field(default_factory=Counts)
    troubles: dict[tuple[str, End | None, Address | None], Trouble] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    @classmethod
    def of(cls, selection: Selection, style: Style, most: int | None) -> Totals:
        """Return what is selected of one shard comes to.

        Args:
            selection: of the shard.
            style: how text may look.
            most: how many connections with a problem may be shown; None for all.
        """
        analysis = selection.analysis
        made, numbers = cls(len(analysis), len(selection), analysis.losses), analysis.numbers
        for outcome, members in selection.classes:
            first, number = numbers[members[0]], len(members)
            made.verdicts.add(outcome.verdict, number, (first, 0))
            made.shapes.add(outcome.shape, number, (first, 0))
            for code in {finding.code for finding in outcome.findings}:
                made.findings.add(code, number, (first, 0))
            for place, notice in enumerate(notices_of(outcome)):
                made.notices.add(notice, number, (first, place))
        groups, _ = gather(selection, None)
        for group in groups:
            shown = group.connections[:most]
            made.troubles[group.code, group.end, group.address] = Trouble(
                group.number,
                group.connections[0].id,
                advice_of(group),
                [(one.id, detail(one, style)) for one in shown],
            )
        made.faults = analysis.faults
        return made

    def merge(self, other: Totals, most: int | None) -> None:
        """Add what another shard comes to."""
        self.connections += other.connections
        self.selected += other.selected
        one, two, three = (a + b for a, b in zip(self.losses, other.losses, strict=True))
        self.losses = one, two, three
        for name in ("verdicts", "findings", "shapes", "notices"):
            getattr(self, name).merge(getattr(other, name))
        for key, trouble in other.troubles.items():
            if key in self.troubles:
                self.troubles[key].merge(trouble, most)
            else:
                self.troubles[key] = trouble
        self.faults.merge(other.faults)

    def summary(
        self, reading: Reading, settings: Settings, wanted: Wanted, style: Style, most: int | None
    ) -> Iterator[str]:
        """Yield the lines of the summary, as `report.summary` would of all connections at once."""
        yield from what_was_read(_Stand(self, reading, settings, wanted).selection, style)
        if not self.selected:
            return
        found = sorted(self.troubles.items(), key=lambda item: (-item[1].number, item[1].first))
        groups = [Numerous(*key, size=trouble.number) for key, trouble in found]
        sizes = [trouble.number for _, trouble in found]
        shares = sizes if most is None else allot(sizes, most)
        yield ""
        yield from blame(groups, sum(sizes), style, _unnoted)
        yield ""
        yield from how_they_ended(self.verdicts.ordered(), style)
        yield from noticed(self.notices.ordered(), style)
        yield ""
        yield from their_shapes(self.shapes.ordered(), style, all_of_them=most is None)
        if not groups:
            return
        yield ""
        yield style.paint("Problems", "heading")
        for group, (_, trouble), share in zip(groups, found, shares, strict=True):
            if share:
                yield from titled(group, trouble.advice, style)
                for _, lines in trouble.shown[:share]:
                    yield from lines
        yield from not_shown(sum(sizes) - sum(shares), style)


def _unnoted(_indices: object, fault: Exception) -> None:
    raise fault


class _Stand:
    """Stands for an analysis whose connections are elsewhere, where the summary says what was read."""

    def __init__(self, totals: Totals, reading: Reading, settings: Settings, wanted: Wanted) -> None:
        self.reading, self.settings, self.losses = reading, settings, totals.losses
        self._length = totals.connections
        self.selection: Any = _Selected(self, wanted, totals.selected)

    def __len__(self) -> int:
        return self._length


class _Selected:
    """Stands for a selection of it."""

    instead = ""

    def __init__(self, analysis: _Stand, wanted: Wanted, length: int) -> None:
        self.analysis, self.wanted, self._length = analysis, wanted, length

    def __len__(self) -> int:
        return self._length
