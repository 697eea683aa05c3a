"""The report on a capture that a cluster's workers make: each writes a part, and one summary is of all.

First the totals of shards: counts, and the first connections with each problem. Equally frequent things are
in the order of their first connections, as in a summary of all at once. Then `part`, a worker's task: it
writes the records of one shard, and returns its totals.
"""

from __future__ import annotations

import pickle
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from closeseq.analysis import Analysis
from closeseq.connections.idling import Closes
from closeseq.report.problems import (
    Group,
    ProblemCause,
    advice_of,
    blame,
    causes,
    detail,
    details,
    gather,
    shares,
    titled,
)
from closeseq.report.records import csv_header, csv_lines, jsonl
from closeseq.report.selection import Selection, Wanted
from closeseq.report.summary import (
    close_waits,
    grave,
    how_they_ended,
    noticed,
    notices_of,
    still_open,
    their_shapes,
    together,
    what_was_read,
)
from closeseq.shards.keys import get, put, write_whole
from closeseq.shards.tasks import JUDGING
from closeseq.verdict.fault import Faults
from closeseq.verdict.population.rules import populations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connections.conversation import Address, End
    from closeseq.reading import Reading
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.settings import Settings
    from closeseq.shards.keys import Held
    from closeseq.shards.tasks import Numbered
    from closeseq.verdict.population.rules import PopulationFinding


Key = TypeVar("Key", bound=Hashable)


class MergedCounts(Generic[Key]):
    """Counts of connections by kind, each with the first: the connection's number, and a place within it."""

    def __init__(self) -> None:
        self.of: dict[Key, int] = {}
        self.first: dict[Key, tuple[int, int]] = {}

    def add(self, key: Key, number: int, first: tuple[int, int]) -> None:
        """Count connections of a kind.

        Args:
            key: the kind, such as a verdict's code.
            number: how many they are.
            first: the least number of one of them, and the kind's place among those that this connection has.
        """
        self.of[key] = self.of.get(key, 0) + number
        self.first[key] = min(first, self.first.get(key, first))

    def merge(self, other: MergedCounts[Key]) -> None:
        """Add the counts of another shard."""
        for key, number in other.of.items():
            self.add(key, number, other.first[key])

    def ordered(self) -> dict[Key, int]:
        """Return the counts, the most frequent first."""
        return {
            key: self.of[key] for key in sorted(self.of, key=lambda key: (-self.of[key], self.first[key]))
        }


@dataclass
class ProblemPlace:
    """Connections with the same problem at the same address, as a `Group` that can be sent and merged."""

    number: int  # of connections
    first: int  # the least number of a connection
    advice: str  # of the first of them
    shown: list[tuple[int, list[str]]]  # the first of them: number, and lines of the summary

    def merge(self, other: ProblemPlace, most: int | None) -> None:
        """Add the connections of another shard.

        Args:
            other: of the same problem at the same address.
            most: how many connections are shown of both together; None for all.
        """
        self.number += other.number
        if other.first < self.first:
            self.first, self.advice = other.first, other.advice
        self.shown = sorted([*self.shown, *other.shown])[:most]


@dataclass(slots=True)
class Numerous(Group):
    """A group whose connections are elsewhere: only their number is known."""

    size: int = 0  # how many connections it has
    least: int = 0  # the number of its first connection

    @property
    def number(self) -> int:
        """How many connections it has."""
        return self.size

    @property
    def first(self) -> int:
        """The least number of one of them."""
        return self.least


@dataclass
class Totals:
    """All that the summary says about the connections of some shards."""

    connections: int = 0  # in the shards
    selected: int = 0  # of these, those that are asked for
    # near the clients, near the servers, out of order; see `Connections.losses`
    losses: tuple[int, int, int] = (0, 0, 0)
    verdicts: MergedCounts[str] = field(default_factory=MergedCounts)
    findings: MergedCounts[str] = field(default_factory=MergedCounts)
    shapes: MergedCounts[str] = field(default_factory=MergedCounts)
    notices: MergedCounts[tuple[str, str]] = field(default_factory=MergedCounts)
    # endpoints in CLOSE_WAIT
    close_waits: MergedCounts[tuple[End, Address]] = field(default_factory=MergedCounts)
    problems: dict[tuple[str, End | None, Address | None], ProblemPlace] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)  # at which connections closeseq itself failed
    # one a shard; empty where only some connections are asked for
    closes: list[Closes] = field(default_factory=list)

    @classmethod
    def of(cls, selection: Selection, style: Style, most: int | None) -> Totals:
        """Return the totals of one shard.

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
        for waiting, indices in close_waits(selection).items():
            made.close_waits.add(waiting, len(indices), (numbers[min(indices)], 0))
        for group in (group for cause in gather(selection, None) for group in cause.groups):
            shown = group.connections[:most]
            made.problems[group.code, group.end, group.address] = ProblemPlace(
                group.number,
                group.connections[0].id,
                advice_of(group),
                [(one.id, detail(one, style)) for one in shown],
            )
        made.faults = analysis.faults
        made.closes = [] if selection.wanted else [analysis.closes]
        return made

    def merge(self, other: Totals, most: int | None) -> None:
        """Add the totals of another shard.

        Args:
            other: its connections are none of these.
            most: how many connections are shown of each problem at each address; None for all.
        """
        self.connections += other.connections
        self.selected += other.selected
        one, two, three = (a + b for a, b in zip(self.losses, other.losses, strict=True))
        self.losses = one, two, three
        for name in ("verdicts", "findings", "shapes", "notices", "close_waits"):
            getattr(self, name).merge(getattr(other, name))
        for key, problem in other.problems.items():
            if key in self.problems:
                self.problems[key].merge(problem, most)
            else:
                self.problems[key] = problem
        self.faults.merge(other.faults)
        self.closes += other.closes

    def population(self, wanted: Wanted, settings: Settings) -> list[PopulationFinding]:
        """Return what all connections show together.

        Args:
            wanted: which connections are asked for. Of a choice nothing is said.
            settings: ports, hosts, limits and timers of the run.
        """
        return [] if wanted or not self.closes else populations(Closes.joined(self.closes), settings)

    def summary(
        self, reading: Reading, settings: Settings, wanted: Wanted, style: Style, most: int | None
    ) -> Iterator[str]:
        """Yield the lines of the summary, as `report.summary` would of all connections at once.

        Args:
            reading: what was read of the whole capture.
            settings: ports, hosts, limits and timers of the run.
            wanted: which connections are asked for.
            style: how text may look: width, colours, ASCII.
            most: how many connections with a problem are shown; None for all.
        """
        yield from what_was_read(_Stand(self, reading, settings, wanted).selection, style)
        if not self.selected:
            return
        found = causes(Numerous(*key, size=one.number, least=one.first) for key, one in self.problems.items())
        shown = shares(found, most)
        population = self.population(wanted, settings)
        yield from together(population, style)
        yield ""
        waits = {} if found else self.close_waits.ordered()
        yield from blame(found, style, _reraise, together=grave(population), waiting=bool(waits))
        yield from still_open(waits, style, settings.limits.stuck_after_ns)
        yield ""
        yield from how_they_ended(self.verdicts.ordered(), style)
        yield from noticed(self.notices.ordered(), style)
        yield ""
        yield from their_shapes(self.shapes.ordered(), style, all_of_them=most is None)
        if found:
            yield ""
            yield from self._details(found, shown, style)

    def _details(
        self, found: Sequence[ProblemCause], shown: Sequence[Sequence[int]], style: Style
    ) -> Iterator[str]:
        share = {
            (group.code, group.end, group.address): number
            for cause, numbers in zip(found, shown, strict=True)
            for group, number in zip(cause.groups, numbers, strict=True)
        }

        def title(group: Group) -> list[str]:
            return titled(group, self.problems[group.code, group.end, group.address].advice, style)

        def lines(group: Group) -> Iterator[str]:
            key = group.code, group.end, group.address
            for _, drawn in self.problems[key].shown[: share[key]]:
                yield from drawn

        yield from details(found, shown, title, lines, style)


def _reraise(_indices: object, fault: Exception) -> None:
    raise fault


class _Stand:
    """Stands for an analysis whose connections are elsewhere, for `what_was_read`."""

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


FORMS = ("summary", "jsonl", "csv")  # that can be written in parts
SUMMARY = "summary.txt"


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker has to make of a shard."""

    settings: Settings  # ports, hosts, limits and timers
    reading: Reading  # what was read of the whole capture
    wanted: Wanted  # which connections are asked for
    style: Style  # how text may look
    most: int | None  # connections with a problem in the summary; None for all
    form: str  # of FORMS; of a summary nothing is written


def handed_on(order: Order, folder: str | None) -> Held:
    """Store an order where every task can read it: it may list many files.

    Args:
        order: what the workers have to make.
        folder: where to store it, as `shards.keys.put` says; None to hand it on in memory.

    Returns:
        What finds it: the argument of `part`.
    """
    return put(folder, "order", pickle.dumps(order))


@lru_cache(maxsize=1)
def _order(held: Held) -> Order:
    order: Order = pickle.loads(get(held))  # noqa: S301 - of our own run
    return order


def part(held: Held, numbered: Numbered, url: str | None) -> Totals:
    """Judge the connections of a shard, write their records to a URL, and return their totals.

    Args:
        held: the order, from `handed_on`.
        numbered: the shard, with the numbers of its connections in the whole capture.
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
