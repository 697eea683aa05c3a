"""The known replays of one skeleton: a tree of the conditions that lead to each.

Two replays of a skeleton compare the same forms until a condition comes out otherwise. So a replay is a chain
of conditions, and where another one differs, its own chain begins. (Where the question was which value a
number has, it begins with its own answer to that.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.classes.evaluation import LEAST, MOST, OneRow, Sums, magnitude
from closeseq.classes.numbers import Question
from closeseq.connections.steps import FAR_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from closeseq.classes.evaluation import Columns
    from closeseq.classes.forms import Forms
    from closeseq.classes.numbers import Condition

FEW = 3  # connections that are followed one by one: columns cost more
NOTHING_KNOWN = (id(None), 0)  # where connections part of which no replay is known
WILD_NS = 1_000_000_000  # when to look again if it is not known when time changes the result


class Asked:
    """Conditions that are evaluated at once.

    Args:
        forms: all forms.
        conditions: in the order in which they were noted.
    """

    __slots__ = ("_at_most", "_bounds", "_outcomes", "sums", "timed")

    def __init__(self, forms: Forms, conditions: list[Condition]) -> None:
        fit = all(LEAST <= one.bound <= MOST for one in conditions)
        self.sums = Sums(forms, [(one.form, 0) for one in conditions]) if fit else None
        self.timed = [place for place, one in enumerate(conditions) if forms.holds_time(one.form)]
        if fit:
            self._bounds = np.array([one.bound for one in conditions], np.int64)
            self._at_most = np.array([one.kind is Question.AT_MOST for one in conditions])
            self._outcomes = np.array([one.outcome for one in conditions])

    def first(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which condition comes out otherwise first, for each connection; their number for none.

        Args:
            values: of the conditions' forms: a row a connection, a column a condition.
        """
        found = np.where(self._at_most, values <= self._bounds, values == self._bounds) != self._outcomes
        first: NDArray[np.int64] = np.where(found.any(axis=1), found.argmax(axis=1), found.shape[1])
        return first


@dataclass(slots=True)
class ConditionChain:
    """Conditions of one replay, from where it parted from others."""

    depth: int  # how many conditions lead to here
    conditions: list[Condition]  # in the order in which they were noted
    path: int  # the number of the replay
    partings: dict[int, ConditionChain] = field(default_factory=dict)  # where a condition came out otherwise
    _asked: Asked | None = None  # the same conditions, once they were asked of several connections

    def asked(self, forms: Forms) -> Asked:
        """Return its conditions as columns; `forms` are all there are."""
        if self._asked is None:
            self._asked = Asked(forms, self.conditions)
        return self._asked


class Parted(NamedTuple):
    """Connections that no known replay fits, and where they part from the known ones."""

    chain: ConditionChain | None  # None: nothing is known yet
    place: int  # of the condition that came out otherwise
    rows: NDArray[np.int64]  # int64, of their skeleton

    @property
    def depth(self) -> int:
        """How many conditions lead to here."""
        if self.chain is None or self.last is None:
            return 0
        return self.chain.depth + self.place + (self.last.kind is not Question.VALUE)

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
        self._root: ConditionChain | None = None
        self._missed: dict[tuple[int, int], int] = {}  # connections that parted somewhere

    def follow(
        self, columns: Columns, result: ReplayResult, learn: Callable[[Parted], ConditionChain | None]
    ) -> None:
        """Find the replays of all connections of a skeleton.

        Args:
            columns: their numbers.
            result: is filled in; connections of which no replay is found keep -1.
            learn: is called with those that have none: it grows the tree and returns the new chain, or
                handles them itself and returns None.
        """
        waiting: list[tuple[ConditionChain, NDArray[np.int64]]] = []

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
            asked = chain.asked(columns.forms)
            values = None if asked.sums is None else columns.few(asked.sums, rows)
            if values is not None:
                self._follow_few(chain, rows, values, columns=columns, result=result, part=part)
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

    @staticmethod
    def _follow_few(
        chain: ConditionChain,
        rows: NDArray[np.int64],
        values: NDArray[np.int64],
        *,
        columns: Columns,
        result: ReplayResult,
        part: Callable[[Parted], None],
    ) -> None:
        """Follow a chain, all conditions at once: most connections that part do so in other places."""
        asked = chain.asked(columns.forms)
        first = asked.first(values)
        for place in asked.timed:
            held, ends = first > place, first == place
            condition = chain.conditions[place]
            result.limit(condition, rows[held], values[held, place], columns)
            parted = condition._replace(outcome=not condition.outcome)
            result.limit(parted, rows[ends], values[ends, place], columns)
        for place in np.unique(first).tolist():
            if place < len(chain.conditions):
                part(Parted(chain, place, rows[first == place]))
            else:
                result.path[rows[first == place]] = chain.path

    def _follow_one(
        self,
        start: ConditionChain,
        columns: Columns,
        row: int,
        result: ReplayResult,
        learn: Callable[[Parted], ConditionChain | None],
    ) -> None:
        """Find the replay of one connection."""
        value_of, rows = OneRow(columns, row).form, np.array([row])
        chain: ConditionChain | None = start
        while chain is not None:
            parted = None
            for place, condition in enumerate(chain.conditions):
                form, kind, bound, outcome = condition
                value = value_of(form)
                if (value <= bound if kind is Question.AT_MOST else value == bound) != outcome:
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

    def _known(self, parted: Parted) -> ConditionChain | None:
        return self._root if parted.chain is None else parted.chain.partings.get(parted.place)

    @staticmethod
    def fits(parted: Parted, conditions: list[Condition]) -> bool:
        """Whether a replay has the conditions that lead to those that parted here.

        Args:
            parted: connections, and where they parted.
            conditions: all that the replay noted, in order.
        """
        last = parted.last
        if last is None:
            return True
        place = parted.depth - (last.kind is not Question.VALUE)
        if place >= len(conditions):
            return False
        own = conditions[place]
        return own[:2] == last[:2] if last.kind is Question.VALUE else own == last

    def grow(self, parted: Parted, conditions: list[Condition], path: int) -> ConditionChain:
        """Add the replay of one of those that parted, if it `fits`; return its chain.

        Args:
            parted: connections, and where they parted.
            conditions: all that the replay noted, in order.
            path: the number of the replay.
        """
        chain = ConditionChain(parted.depth, conditions[parted.depth :], path)
        if parted.chain is None:
            self._root = chain
        else:
            parted.chain.partings[parted.place] = chain
        return chain

    def waits(self, connections: int, fewest: int) -> bool:
        """Whether no replay is known, and too few connections came so far to note one for.

        They are counted; the caller handles them.

        Args:
            connections: how many come now.
            fewest: from how many on, with those before, a replay is noted.
        """
        if self._root is not None:
            return False
        missed = self._missed.get(NOTHING_KNOWN, 0) + connections
        if missed >= fewest:
            return False
        self._missed[NOTHING_KNOWN] = missed
        return True

    def misses(self, parted: Parted) -> int:
        """Count those that parted here, and return how many there are so far."""
        where = (id(parted.chain), parted.place)
        self._missed[where] = self._missed.get(where, 0) + len(parted.rows)
        return self._missed[where]


class ReplayResult:
    """What was found for the connections of one skeleton.

    Args:
        connections: how many they are.
    """

    def __init__(self, connections: int) -> None:
        self.path = np.full(connections, -1)  # the number of each one's replay
        self.holds_ns = np.full(connections, FAR_NS)  # how much later it is another one, at the earliest

    def limit(
        self, condition: Condition | None, rows: NDArray[np.int64], values: NDArray[Any], columns: Columns
    ) -> None:
        """Note when a condition comes out otherwise, if time alone makes it do so.

        Args:
            condition: as it comes out for these connections.
            rows: int64, which ones.
            values: of the condition's form, one for each.
            columns: the numbers of the connections.
        """
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
        elif kind is not Question.AT_MOST:
            after = np.ones(len(rows), np.int64) if outcome else -((values - bound) // pace)
        elif (pace > 0) == outcome:
            after = (bound - values) // pace + 1 if pace > 0 else -((bound - values) // -pace)
        else:
            return
        after = np.minimum(np.where(after > 0, after, FAR_NS), FAR_NS).astype(np.int64)
        self.holds_ns[rows] = np.minimum(self.holds_ns[rows], after)
