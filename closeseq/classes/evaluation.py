"""The numbers of the connections of one skeleton, and forms of them.

`Columns` evaluates forms for many connections at once, when they are first needed; `OneRow` for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.classes.forms import NOTHING, Derived
from closeseq.classes.numbers import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from closeseq.classes.forms import Forms, Part
    from closeseq.classes.numbers import Condition
    from closeseq.connections.skeleton import Leaf, Skeleton

LEAST, MOST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
TOGETHER = 128  # connections of which many forms are computed at once; of more one by one takes less


class Plan(NamedTuple):
    """How a form is computed."""

    parts: list[tuple[NDArray[Any], int]]  # columns, and their factors
    fits: bool  # whether 64 bits hold all on the way, in every row


class Sums:
    """Several forms, each with a constant that is added to it, to be computed at once for a few connections.

    Args:
        forms: all forms.
        parts: those to be computed, by their numbers, and their constants.
    """

    __slots__ = ("_constants", "_factors", "_places", "leaves", "parts")

    def __init__(self, forms: Forms, parts: Sequence[Part]) -> None:
        self.parts = parts
        terms = [forms.terms[form] for form, _ in parts]
        self.leaves = sorted({leaf for one in terms for leaf, _ in one})
        place = {leaf: at for at, leaf in enumerate(self.leaves)}
        most = max(map(len, terms), default=0)
        # A row for the n-th term of each form: where its leaf stands, and its factor, 0 for none. Whether 64
        # bits hold all values is found by their sizes (`of`).
        self._places = np.zeros((most, len(parts)), np.int32)
        self._factors = np.zeros((most, len(parts)), np.int64)
        self._constants = np.array([limited(constant) for _, constant in parts], np.int64)
        for column, one in enumerate(terms):
            for row, (leaf, factor) in enumerate(one):
                self._places[row, column], self._factors[row, column] = place[leaf], limited(factor)

    def of(self, leaves: list[NDArray[Any]], sizes: Sequence[int]) -> NDArray[np.int64] | None:
        """Return the values, a row a connection, a column a form; None if 64 bits may not hold them.

        Args:
            leaves: the values of the connections, of each of `leaves`.
            sizes: what no value of each of these is further from 0 than.
        """
        bounds: NDArray[Any] = np.abs(self._constants.astype(np.float64))
        reach: NDArray[Any] = np.array(sizes, np.float64)
        for places, factors in zip(self._places, self._factors, strict=True):
            bounds += reach[places] * np.abs(factors.astype(np.float64))
        if bounds.max(initial=0) >= MOST / 2:
            return None
        values = np.stack(leaves, axis=1)
        result: NDArray[Any] = np.broadcast_to(self._constants, (len(values), len(self.parts)))
        for places, factors in zip(self._places, self._factors, strict=True):
            result = result + values[:, places] * factors
        return result


def limited(number: int) -> int:
    """Return a number, or the nearest one that 64 bits hold."""
    return min(max(number, LEAST), MOST)


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

    def sums(self, sums: Sums, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of several forms with their constants: a row a connection, a column a form.

        Args:
            sums: the forms.
            rows: int64, ascending: which connections.
        """
        found = self.few(sums, rows)
        if found is not None:
            return found
        columns = [self.number(form, constant, rows) for form, constant in sums.parts]
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), np.int64)

    def few(self, sums: Sums, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return what `sums` does; None if there are too many rows, or 64 bits may not hold the values.

        Args:
            sums: the forms.
            rows: int64, ascending: which connections.
        """
        if len(rows) > TOGETHER or not sums.leaves:
            return None
        columns = [self._leaf(leaf) for leaf in sums.leaves]
        return sums.of([column[rows] for column in columns], [self._sizes[leaf] for leaf in sums.leaves])

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
                found = self._skeleton.column(leaf)
                fits = found.dtype != np.uint64 or magnitude(found) <= MOST
                found = found.astype(np.int64 if fits else object, copy=False)
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
