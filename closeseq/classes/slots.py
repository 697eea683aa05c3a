"""Places for the numbers of a class's members.

A replay on noting numbers leaves results in which each number knows the form that it stands for. A *slot* is
a place for one of these forms: an index into the values that another connection of the class brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from closeseq.classes.evaluation import Sums
from closeseq.classes.numbers import Number
from closeseq.connections.conversation import End

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.classes.evaluation import Columns
    from closeseq.classes.forms import TextHole, Wording
    from closeseq.connections.conversation import Address

Values: TypeAlias = "list[Any]"  # a connection's values of all slots
Ends: TypeAlias = "tuple[Address, Address]"  # its client and its server
Get: TypeAlias = "Callable[[Values, Ends], Any]"


class Slots:
    """The slots of one class, and what is made of the values in them.

    Args:
        wording: the holes of the class's texts.
    """

    def __init__(self, wording: Wording) -> None:
        self._wording = wording
        self._slot_of: dict[tuple[int, int], int] = {}  # a form, and what is added to it
        self._sums: Sums | None = None  # all of these

    def slot(self, number: Number) -> int:
        """Return the slot of a number.

        Args:
            number: of the replay.
        """
        return self._slot_of.setdefault((number.form, number.offset), len(self._slot_of))

    def values(self, columns: Columns, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of some connections, to be put into the slots.

        Args:
            columns: the numbers of the connections of a skeleton.
            rows: int64, which of these, ascending.

        Returns:
            A row for each of these, a column a slot; int64, or Python's whole numbers where 64 bits do not
            hold them.
        """
        if self._sums is None or len(self._sums.parts) < len(self._slot_of):
            self._sums = Sums(columns.forms, [*self._slot_of])
        return columns.sums(self._sums, rows)

    def get(self, one: Any) -> Get:
        """Return what gets this from a connection's values: a number, a list, an address, or itself."""
        if one.__class__ is Number:
            slot = self.slot(one)
            return lambda values, _: values[slot]
        if isinstance(one, list):
            parts = [self.get(part) for part in one]
            return lambda values, ends: [part(values, ends) for part in parts]
        if isinstance(one, End):
            place = 0 if one is End.CLIENT else 1
            return lambda _, ends: ends[place]
        return lambda _, __: one

    def text(self, text: str) -> Get:
        """Return what makes this text with a connection's values."""
        pieces = self._wording.pieces(text)
        if all(isinstance(piece, str) for piece in pieces):
            return lambda _, __: text
        parts = [self.get(piece) if isinstance(piece, str) else self.hole(piece) for piece in pieces]
        return lambda values, ends: "".join([part(values, ends) for part in parts])

    def hole(self, hole: TextHole) -> Get:
        """Return what fills this hole with a connection's values."""
        how, given = hole.how, [self.get(one) for one in hole.given]
        if len(given) == 1:
            only = given[0]
            return lambda values, ends: how(only(values, ends))
        return lambda values, ends: how(*[one(values, ends) for one in given])
