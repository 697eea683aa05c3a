"""The replays of one skeleton that are known: a tree of the conditions that lead to each.

Two replays of a skeleton ask the same until an answer differs. So what one asked is a chain of conditions,
and where another one parts from it, at a condition that came out otherwise, its own chain begins. (Where
the question was which value a number has, it begins with its own answer to that.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.classes.columns import MOST, Row, magnitude
from closeseq.classes.noting import Kind
from closeseq.connections.extent import FAR_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.classes.columns import Columns
    from closeseq.classes.noting import Condition

FEW = 3  # connections that are followed one by one: columns cost more
NOTHING_KNOWN = (id(None), 0)  # where connections part of which no replay is known
WILD_NS = 1_000_000_000  # when to look again where it is not known when time changes something


@dataclass(slots=True)
class Chain:
    """Conditions that one replay asked, from where it parted from others."""

    depth: int  # how many conditions lead to here
    conditions: list[Condition]
    path: int  # the number of the replay
    partings: dict[int, Chain] = field(default_factory=dict)  # where a condition came out otherwise


class Parted(NamedTuple):
    """Connections that no known replay fits, and where they part from the known ones."""

    chain: Chain | None  # None: nothing is known yet
    place: int  # of the condition that came out otherwise
    rows: np.ndarray  # int64, of their skeleton

    @property
    def depth(self) -> int:
        """How many conditions lead to here."""
        if self.chain is None or self.last is None:
            return 0
        return self.chain.depth + self.place + (self.last.kind is not Kind.VALUE)

    @property
    def last(self) -> Condition | None:
        """The condition at which they parted, as it came out for them."""
        if self.chain is None:
            return None
        condition = self.chain.conditions[self.place]
        return condition._replace(outcome=not condition.outcome)


class Tree:
    """All known replays of one skeleton."""

    __slots__ = ("_missed", "_root")  # strange traffic makes a tree for nearly every connection

    def __init__(self) -> None:
        self._root: Chain | None = None
        self._missed: dict[tuple[int, int], int] = {}  # connections that parted somewhere

    def follow(self, columns: Columns, result: Result, learn: Callable[[Parted], Chain | None]) -> None:
        """Find the replays of all connections of a skeleton.

        `learn` is called with those that have none: it grows the tree, or deals with them itself and
        returns None.
        """
        waiting: list[tuple[Chain, np.ndarray]] = []

        def part(parted: Parted) -> None:
            known = self._known(parted) or learn(parted)
            if known is not None:
                waiting.append((known, parted.rows))

        part(Parted(None, 0, np.arange(len(result.path))))
        while waiting:
            chain, rows = waiting.pop()
            if len(rows) <= FEW:
                for row in rows.tolist():
                    self._follow_one(chain, columns, row, result, learn)
                continue
            for place, condition in enumerate(chain.conditions):
                holds, values = columns.holds(condition, rows)
                if not holds.all():
                    parted = Parted(chain, place, rows[~holds])
                    result.limit(parted.last, parted.rows, values[~holds], columns)
                    part(parted)
                    rows, values = rows[holds], values[holds]
                    if not len(rows):
                        break
                result.limit(condition, rows, values, columns)
            result.path[rows] = chain.path

    def _follow_one(
        self,
        start: Chain,
        columns: Columns,
        row: int,
        result: Result,
        learn: Callable[[Parted], Chain | None],
    ) -> None:
        """Do the same for one connection."""
        value_of, rows = Row(columns, row).form, np.array([row])
        chain: Chain | None = start
        while chain is not None:
            parted = None
            for place, condition in enumerate(chain.conditions):
                form, kind, bound, outcome = condition
                value = value_of(form)
                if (value <= bound if kind is Kind.AT_MOST else value == bound) != outcome:
                    parted = Parted(chain, place, rows)
                if columns.forms.holds_time(form):
                    asked = condition if parted is None else parted.last
                    result.limit(asked, rows, np.array([value], object), columns)
                if parted is not None:
                    break
            if parted is None:
                result.path[row] = chain.path
                return
            chain = self._known(parted) or learn(parted)

    def _known(self, parted: Parted) -> Chain | None:
        return self._root if parted.chain is None else parted.chain.partings.get(parted.place)

    @staticmethod
    def fits(parted: Parted, conditions: list[Condition]) -> bool:
        """Whether a replay asked what those that parted here were asked."""
        last = parted.last
        if last is None:
            return True
        place = parted.depth - (last.kind is not Kind.VALUE)
        if place >= len(conditions):
            return False
        own = conditions[place]
        return own[:2] == last[:2] if last.kind is Kind.VALUE else own == last

    def grow(self, parted: Parted, conditions: list[Condition], path: int) -> Chain:
        """Add the replay of one of those that parted, which `fits`."""
        chain = Chain(parted.depth, conditions[parted.depth :], path)
        if parted.chain is None:
            self._root = chain
        else:
            parted.chain.partings[parted.place] = chain
        return chain

    def waits(self, connections: int, fewest: int) -> bool:
        """Whether no replay is known, and with so many connections more, too few came to note one for.

        They are counted; whoever asks deals with them.
        """
        if self._root is not None:
            return False
        missed = self._missed.get(NOTHING_KNOWN, 0) + connections
        if missed >= fewest:
            return False
        self._missed[NOTHING_KNOWN] = missed
        return True

    def misses(self, parted: Parted) -> int:
        """Count those that parted here, and return how many it were by now."""
        where = (id(parted.chain), parted.place)
        self._missed[where] = self._missed.get(where, 0) + len(parted.rows)
        return self._missed[where]


class Result:
    """What was found for the connections of one skeleton."""

    def __init__(self, connections: int) -> None:
        self.path = np.full(connections, -1)  # the number of each one's replay
        self.holds_ns = np.full(connections, FAR_NS)  # how much later it is another one, at the earliest

    def limit(
        self, condition: Condition | None, rows: np.ndarray, values: np.ndarray, columns: Columns
    ) -> None:
        """Note when a condition comes out otherwise, if time alone makes it do so."""
        assert condition is not None
        forms = columns.forms
        if not forms.holds_time(condition.form):
            return
        _, kind, bound, outcome = condition
        if values.dtype != object and magnitude(values) + abs(bound) >= MOST:
            values = values.astype(object)  # 64 bits would not hold how far it is to the bound
        pace = forms.timed[condition.form]
        if forms.wild[condition.form]:
            after = np.full(len(rows), WILD_NS)
        elif kind is not Kind.AT_MOST:
            after = np.ones(len(rows), np.int64) if outcome else -((values - bound) // pace)
        elif (pace > 0) == outcome:
            after = (bound - values) // pace + 1 if pace > 0 else -((bound - values) // -pace)
        else:
            return
        after = np.minimum(np.where(after > 0, after, FAR_NS), FAR_NS).astype(np.int64)
        self.holds_ns[rows] = np.minimum(self.holds_ns[rows], after)
