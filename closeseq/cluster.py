"""The report on a capture that a cluster's workers make, each a part of it, and one summary for all.

parts    a shard's records, written where they are to be, and what they come to
totals   what shards come to, added up, as the summary says it

What the connections of shards come to, added up: counts, and of each kind of problem the first ones.

Where something is found first decides the order of what is equally frequent, as in a summary of all at once.

A shard's records, written where they are to be; and what its connections come to.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from closeseq.analysis import Analysis
from closeseq.report.records import csv_header, csv_lines, jsonl
from closeseq.report.selection import Selection, Wanted
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
from closeseq.shards.keys import get, put, write_whole
from closeseq.shards.tasks import JUDGING
from closeseq.verdict.fault import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connections.conversation import Address, End
    from closeseq.reading import Reading
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.settings import Settings
    from closeseq.shards.keys import Held
    from closeseq.shards.tasks import Numbered


Key = TypeVar("Key", bound=Hashable)


class MergedCounts(Generic[Key]):
    """How many connections there are of each kind, and which was the first: its number, and a place in it."""

    def __init__(self) -> None:
        self.of: dict[Key, int] = {}
        self.first: dict[Key, tuple[int, int]] = {}

    def add(self, key: Key, number: int, first: tuple[int, int]) -> None:
        """Count connections of a kind."""
        self.of[key] = self.of.get(key, 0) + number
        self.first[key] = min(first, self.first.get(key, first))

    def merge(self, other: MergedCounts[Key]) -> None:
        """Add what another shard has."""
        for key, number in other.of.items():
            self.add(key, number, other.first[key])

    def ordered(self) -> dict[Key, int]:
        """Return the counts, the most frequent first."""
        return {
            key: self.of[key] for key in sorted(self.of, key=lambda key: (-self.of[key], self.first[key]))
        }


@dataclass
class ProblemPlace:
    """Connections with the same problem at the same address, as `Group`."""

    number: int
    first: int  # the least number of a connection
    advice: str
    shown: list[tuple[int, list[str]]]  # the first of them: number, and what is said of each

    def merge(self, other: ProblemPlace, most: int | None) -> None:
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
    verdicts: MergedCounts[str] = field(default_factory=MergedCounts)
    findings: MergedCounts[str] = field(default_factory=MergedCounts)
    shapes: MergedCounts[str] = field(default_factory=MergedCounts)
    notices: MergedCounts[tuple[str, str]] = field(default_factory=MergedCounts)
    troubles: dict[tuple[str, End | None, Address | None], ProblemPlace] = field(default_factory=dict)
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
            made.troubles[group.code, group.end, group.address] = ProblemPlace(
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


FORMS = ("summary", "jsonl", "csv")  # in which parts can stand side by side
SUMMARY = "summary.txt"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made of every shard."""

    settings: Settings
    reading: Reading
    wanted: Wanted
    style: Style
    most: int | None  # connections with a problem in the summary; None for all
    form: str  # of FORMS; of a summary nothing is written


def handed_on(order: Order, folder: str | None) -> Held:
    """Return an order as what every task is given: a list of many files need not go along with each."""
    return put(folder, "order", pickle.dumps(order))


@lru_cache(maxsize=1)
def _order(held: Held) -> Order:
    order: Order = pickle.loads(get(held))  # noqa: S301 - of our own run
    return order


def part(held: Held, numbered: Numbered, url: str | None) -> Totals:
    """Judge the connections of a shard, write their records to a URL, and return what they come to.

    Args:
        held: the order, as `handed_on` gave it.
        numbered: the shard.
        url: of the file to write; None for none.
    """
    order = _order(held)
    connections = numbered.connections(order.settings)
    analysis = Analysis.of_some(connections, order.reading, order.settings)
    wanted = order.wanted
    if wanted.ids:
        here = frozenset(at for at, number in enumerate(analysis.numbers, 1) if number in wanted.ids)
        if not here:
            return Totals(len(analysis), 0, analysis.losses)
        wanted = replace(wanted, ids=here)
    selection = Selection(analysis, wanted)
    with JUDGING:
        if url is not None and order.form != "summary" and len(selection):
            write_whole(url, _lines(order.form, selection))
        return Totals.of(selection, order.style, order.most)


def _lines(form: str, selection: Selection) -> Iterator[str]:
    if form == "csv":
        return chain([csv_header()], csv_lines(selection))
    return jsonl(selection)
