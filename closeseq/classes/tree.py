"""The known replays of one skeleton: a tree of the conditions that lead to each.

Two replays of a skeleton compare the same forms until a condition comes out otherwise. So a replay is a chain
of conditions, and where another one differs, its own chain begins. (Where the question was which value a
number has, it begins with its own answer to that.)

`Columns` evaluates forms for many connections at once, when they are first needed; `OneRow` for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.classes.forms import NOTHING, Derived
from closeseq.classes.numbers import Question
from closeseq.connections.steps import FAR_NS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from closeseq.classes.forms import Forms
    from closeseq.classes.numbers import Condition
    from closeseq.connections.skeleton import Leaf, Skeleton

LEAST, MOST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
FEW = 3  # connections that are followed one by one: columns cost more
NOTHING_KNOWN = (id(None), 0)  # where connections part of which no replay is known
WILD_NS = 1_000_000_000  # when to look again if it is not known when time changes the result


class Plan(NamedTuple):
    """How a form is computed."""

    parts: list[tuple[NDArray[Any], int]]  # columns, and their factors
    fits: bool  # whether 64 bits hold all on the way, in every row


class Columns:
    """The numbers of the connections of one skeleton; exact, also where 64 bits do not hold them.

    Args:
        forms: all forms that came up.
        skeleton: the connections; a *row* is a position among them.
        constants: leaves that are the same for all, such as the moment for which they are judged.
    """

    def __init__(self, forms: Forms, skeleton: Skeleton, constants: dict[Leaf, int]) -> None:
        self.forms = forms
        self._skeleton = skeleton
        self._constants = constants  # leaves that are the same for all
        self._leaves: dict[int, NDArray[Any]] = {}
        self._sizes: dict[int, int] = {}
        self._plans: dict[int, Plan] = {}

    def holds(self, condition: Condition, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Return a mask of the rows for which a condition comes out as noted, and the form's values.

        Args:
            condition: what was asked of a form, and how it came out.
            rows: int64, ascending: which connections.
        """
        form, kind, bound, outcome = condition
        values = self.form(form, rows)
        if not LEAST <= bound <= MOST and values.dtype != object:
            return np.full(len(rows), (kind is Question.AT_MOST and bound > 0) == outcome), values
        if kind is not Question.AT_MOST:
            mask = values == bound if outcome else values != bound
        else:
            mask = values <= bound if outcome else values > bound
        return mask if mask.dtype == np.bool_ else mask.astype(np.bool_), values

    def value(self, leaf: Leaf, row: int) -> int:
        """Return a number of one connection.

        Args:
            leaf: which number.
            row: the connection, by its position in the skeleton.
        """
        constant = self._constants.get(leaf)
        return self._skeleton.value(leaf, row) if constant is None else constant

    def form(self, form: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a form's values in these rows: int64, or Python's whole numbers where these do not fit."""
        plan = self._plans.get(form)
        if plan is None:
            plan = self._plans[form] = self._plan(form)
        everyone = len(rows) == len(self._skeleton)
        parts = [(column if everyone else column[rows], factor) for column, factor in plan.parts]
        if not plan.fits and sum(magnitude(part) * abs(factor) for part, factor in parts) > MOST:
            parts = [(part.astype(object), factor) for part, factor in parts]
        if not parts:
            return np.zeros(len(rows), np.int64)
        result, factor = parts[0]
        if factor != 1:
            result = result * factor
        for part, factor in parts[1:]:
            if factor == 1:
                result = result + part
            else:
                result = result - part if factor == -1 else result + part * factor
        return result

    def number(self, form: int, offset: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a form's values with a constant added, as `form` does.

        Args:
            form: by its number.
            offset: the constant.
            rows: int64, ascending: which connections.
        """
        values = self.form(form, rows)
        if values.dtype != object and magnitude(values) + abs(offset) > MOST:
            values = values.astype(object)
        return values + offset

    def _plan(self, form: int) -> Plan:
        terms = self.forms.terms[form]
        parts = [(self._leaf(leaf), factor) for leaf, factor in terms]
        fits = sum(self._sizes[leaf] * abs(factor) for leaf, factor in terms) <= MOST
        return Plan(parts, fits or (len(terms) == 1 and terms[0][1] == 1))

    def _leaf(self, number: int) -> NDArray[Any]:
        found = self._leaves.get(number)
        if found is None:
            leaf = self.forms.leaves[number]
            if isinstance(leaf, Derived):
                found = self._derived(leaf)
            elif leaf in self._constants:
                constant = self._constants[leaf]  # a capture may claim to have lost any number of packets
                fits = LEAST <= constant <= MOST
                found = np.full(len(self._skeleton), constant, np.int64 if fits else object)
            else:
                found = self._skeleton.column(leaf).astype(np.int64, copy=False)
            self._leaves[number] = found
            self._sizes[number] = magnitude(found)
        return found

    def _derived(self, leaf: Derived) -> NDArray[Any]:
        rows = np.arange(len(self._skeleton))
        parts = []
        for form, offset in leaf.parts:
            values = self.form(form, rows) if form else np.zeros(len(rows), np.int64)
            if magnitude(values) + abs(offset) > MOST or abs(leaf.constant) > MOST:
                values = values.astype(object)
            parts.append(values + offset)
        result: NDArray[Any] = OF_COLUMNS[leaf.name](leaf.constant, *parts)
        return result


class OneRow:
    """The numbers of one connection of a skeleton: for few connections this is faster than columns.

    Args:
        columns: the numbers of all of them.
        row: which one, by its position.
    """

    def __init__(self, columns: Columns, row: int) -> None:
        self._columns = columns
        self._row = row
        self._leaves: dict[int, int] = {}
        self._values: dict[int, int] = {NOTHING: 0}

    def form(self, form: int) -> int:
        """Return a form's value; the form is given by its number."""
        found = self._values.get(form)
        if found is None:
            found = 0
            leaves = self._leaves
            for leaf, factor in self._columns.forms.terms[form]:
                value = leaves.get(leaf)
                if value is None:
                    value = leaves[leaf] = self._leaf(leaf)
                found += value * factor
            self._values[form] = found
        return found

    def _leaf(self, number: int) -> int:
        leaf = self._columns.forms.leaves[number]
        if isinstance(leaf, Derived):
            return int(
                OF_ROWS[leaf.name](leaf.constant, *(self.form(form) + more for form, more in leaf.parts))
            )
        return self._columns.value(leaf, self._row)


# How derived leaves are made of their parts. The same for a column as for a number.
HOW: dict[str, Callable[..., Any]] = {
    "and": lambda constant, part: part & constant,
    "mod": lambda constant, part: part % constant,
    "div": lambda constant, part: part // constant,
}
OF_ROWS: dict[str, Callable[..., Any]] = {
    **HOW,
    "min": lambda _, a, b: min(a, b),
    "max": lambda _, a, b: max(a, b),
}
OF_COLUMNS: dict[str, Callable[..., Any]] = {
    **HOW,
    "min": lambda _, a, b: np.minimum(a, b),
    "max": lambda _, a, b: np.maximum(a, b),
}


def magnitude(values: NDArray[Any]) -> int:
    """Return the greatest distance of a number of a column from 0."""
    return max(abs(int(values.min())), abs(int(values.max()))) if len(values) else 0


@dataclass(slots=True)
class ConditionChain:
    """Conditions of one replay, from where it parted from others."""

    depth: int  # how many conditions lead to here
    conditions: list[Condition]  # in the order in which they were noted
    path: int  # the number of the replay
    partings: dict[int, ConditionChain] = field(default_factory=dict)  # where a condition came out otherwise


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
