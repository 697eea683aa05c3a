"""The forms of many connections at once: columns of numbers, computed when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.classes.forms import NOTHING, Derived
from closeseq.classes.noting import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.classes.forms import Forms
    from closeseq.classes.noting import Condition
    from closeseq.connections.skeleton import Leaf, Skeleton

LEAST, MOST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


class Plan(NamedTuple):
    """How a form is computed."""

    parts: list[tuple[np.ndarray, int]]  # columns, and their factors
    fits: bool  # whether 64 bits hold all on the way, in every row


class Columns:
    """The numbers of the connections of one skeleton; exact, also where 64 bits do not hold them."""

    def __init__(self, forms: Forms, skeleton: Skeleton, constants: dict[Leaf, int]) -> None:
        self.forms = forms
        self._skeleton = skeleton
        self._constants = constants  # leaves that are the same for all
        self._leaves: dict[int, np.ndarray] = {}
        self._sizes: dict[int, int] = {}
        self._plans: dict[int, Plan] = {}

    def holds(self, condition: Condition, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask of the rows for which a condition comes out as noted, and the form's values.

        `rows` are ascending.
        """
        form, kind, bound, outcome = condition
        values = self.form(form, rows)
        if not LEAST <= bound <= MOST and values.dtype != object:
            return np.full(len(rows), (kind is Kind.AT_MOST and bound > 0) == outcome), values
        if kind is not Kind.AT_MOST:
            mask = values == bound if outcome else values != bound
        else:
            mask = values <= bound if outcome else values > bound
        return mask if mask.dtype == np.bool_ else mask.astype(np.bool_), values

    def value(self, leaf: Leaf, row: int) -> int:
        """Return a number of one connection."""
        constant = self._constants.get(leaf)
        return self._skeleton.value(leaf, row) if constant is None else constant

    def form(self, form: int, rows: np.ndarray) -> np.ndarray:
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

    def number(self, form: int, offset: int, rows: np.ndarray) -> np.ndarray:
        """Return a form's values with a constant added, as `form` does."""
        values = self.form(form, rows)
        if values.dtype != object and magnitude(values) + abs(offset) > MOST:
            values = values.astype(object)
        return values + offset

    def _plan(self, form: int) -> Plan:
        terms = self.forms.terms[form]
        parts = [(self._leaf(leaf), factor) for leaf, factor in terms]
        fits = sum(self._sizes[leaf] * abs(factor) for leaf, factor in terms) <= MOST
        return Plan(parts, fits or (len(terms) == 1 and terms[0][1] == 1))

    def _leaf(self, number: int) -> np.ndarray:
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

    def _derived(self, leaf: Derived) -> np.ndarray:
        rows = np.arange(len(self._skeleton))
        parts = []
        for form, offset in leaf.parts:
            values = self.form(form, rows) if form else np.zeros(len(rows), np.int64)
            if magnitude(values) + abs(offset) > MOST or abs(leaf.constant) > MOST:
                values = values.astype(object)
            parts.append(values + offset)
        result: np.ndarray = OF_COLUMNS[leaf.name](leaf.constant, *parts)
        return result


class Row:
    """The numbers of one connection of a skeleton: for so few that columns are not worth while."""

    def __init__(self, columns: Columns, row: int) -> None:
        self._columns = columns
        self._row = row
        self._leaves: dict[int, int] = {}
        self._values: dict[int, int] = {NOTHING: 0}

    def form(self, form: int) -> int:
        """Return a form's value."""
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


def magnitude(values: np.ndarray) -> int:
    """Return the greatest distance of a number of a column from 0."""
    return max(abs(int(values.min())), abs(int(values.max()))) if len(values) else 0
