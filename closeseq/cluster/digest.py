"""What the summary can show of many connections: the worst and the most frequent, and how many more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.cluster.kinds import Foremost
from closeseq.report.problems import MOST_GROUPS, MOST_PLACES
from closeseq.report.summary import MOST_SHAPES, MOST_TOGETHER
from closeseq.verdict.fault import place
from closeseq.verdict.population.rules import forgotten, populations, warnings_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.cluster.spread import ProblemPlace, Spread
    from closeseq.connections.conversation import Address, End
    from closeseq.connections.strays import Stray
    from closeseq.settings import Settings
    from closeseq.verdict.population.rules import PopulationFinding


class WorstPlaces:
    """A cause of problems at its worst addresses, and how many there are in all.

    Args:
        places: its connections by address: none can be added to an address later.
        most: how many addresses are kept; None for all.
    """

    def __init__(self, places: dict[Address | None, ProblemPlace], most: int | None) -> None:
        self.places = len(places)
        self.number = sum(one.number for one in places.values())  # of connections
        self.first = min(one.first for one in places.values())  # the least number of one
        self._most = most
        self.worst = self._cut(places)  # the worst first

    def merge(self, other: WorstPlaces) -> None:
        """Add other addresses."""
        self.places += other.places
        self.number += other.number
        self.first = min(self.first, other.first)
        self.worst = self._cut({**self.worst, **other.worst})

    def _cut(self, places: dict[Address | None, ProblemPlace]) -> dict[Address | None, ProblemPlace]:
        found = sorted(places.items(), key=lambda one: (-one[1].number, one[1].first))
        return dict(found[: self._most])


@dataclass
class Digest:
    """What the summary can show of some parts; made by `of`."""

    close_waits: Foremost[tuple[End, Address]]
    shapes: Foremost[str]
    population: list[PopulationFinding] = field(default_factory=list)  # the first MOST_TOGETHER
    more: int = 0  # how many findings of many connections there are beside these
    together: set[str] = field(default_factory=set)  # the codes of all of them
    failed: str = ""  # where closeseq itself failed to find some, and what happened
    causes: dict[tuple[str, End | None], WorstPlaces] = field(default_factory=dict)

    @classmethod
    def of(cls, spread: Spread, settings: Settings, most: int | None) -> Digest:
        """Return what the summary can show of a part.

        Args:
            spread: the part, of all shards; its rows are taken from it.
            settings: ports, hosts, limits and timers of the run.
            most: how many connections with a problem the summary shows; None for all, and for all shapes.
        """
        shapes, places = (None, None) if most is None else (MOST_SHAPES, MOST_PLACES)
        made = cls(Foremost(spread.close_waits, MOST_GROUPS), Foremost(spread.shapes, shapes))
        if spread.closes:
            try:
                made._tell(populations(spread.take_closes(), settings))
            except Exception as fault:  # noqa: BLE001 - a fault in closeseq, which the summary tells
                made.failed = place(fault)
        causes: dict[tuple[str, End | None], dict[Address | None, ProblemPlace]] = {}
        for (code, end, address), problem in spread.problems.items():
            causes.setdefault((code, end), {})[address] = problem
        made.causes = {cause: WorstPlaces(one, places) for cause, one in causes.items()}
        return made

    def merge(self, other: Digest) -> None:
        """Add other parts: what they have any of, these have nothing of."""
        self.more += other.more
        self.together |= other.together
        self.failed = self.failed or other.failed
        self._tell(other.population)
        self.close_waits.merge(other.close_waits)
        self.shapes.merge(other.shapes)
        for cause, places in other.causes.items():
            if cause in self.causes:
                self.causes[cause].merge(places)
            else:
                self.causes[cause] = places

    def add_strays(self, strays: Iterable[Stray]) -> None:
        """Add what strays of the whole capture show.

        Args:
            strays: from all shards, in any order; of each connection the first that it may continue counts.
        """
        first: dict[int, Stray] = {}
        for one in sorted(strays, key=lambda one: (one.connection, one.continues)):
            first.setdefault(one.connection, one)
        self._tell(list(forgotten(first.values())))

    def _tell(self, found: list[PopulationFinding]) -> None:
        """Add findings of many connections: each part has all of a server's, in their order."""
        found = warnings_first([*self.population, *found])
        self.population, rest = found[:MOST_TOGETHER], found[MOST_TOGETHER:]
        self.more += len(rest)
        self.together |= {one.code for one in found}
