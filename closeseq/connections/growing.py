"""Tables of columns that grow at their end: what is kept from batch to batch.

A table is a class with one declared column a line; its instances hold them as plain numpy arrays:

    class Pairs(Growing):
        present: np.ndarray = column(np.int64, -1)  # index of the newest connection
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from closeseq.connections.scratch import Scratch

SMALLEST_ROOM = 256
SMALL_BYTES = 1 << 22  # up to here room costs nothing: memory counts only when it is written to
PART = 1 << 13  # rows that are copied together where there is anything but zero in them


class Declared(NamedTuple):
    """A column's type, what its new rows hold, and how many values stand in a row (0: the value itself)."""

    dtype: npt.DTypeLike
    default: int
    width: int


def column(dtype: npt.DTypeLike, default: int = 0, *, width: int = 0) -> Any:
    """Declare a column of a `Growing` table."""
    return Declared(dtype, default, width)


class Growing:
    """Columns of equal length. The arrays may be written to; they are replaced when the table grows.

    Args:
        scratch: where long columns lie; None for memory, whatever their length.
    """

    _declared: ClassVar[dict[str, Declared]]

    def __init_subclass__(cls) -> None:
        cls._declared = {name: what for name, what in vars(cls).items() if isinstance(what, Declared)}

    @classmethod
    def declared(cls) -> dict[str, Declared]:
        """Return the columns' declarations, by name."""
        return cls._declared

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = scratch
        self._length = 0
        self._room = {
            name: np.empty((0, what.width) if what.width else 0, what.dtype)
            for name, what in self._declared.items()
        }
        self.grow(0)

    def __len__(self) -> int:
        return self._length

    def row(self, index: int) -> dict[str, Any]:
        """Return a row as plain Python values; a column that is wider as a list."""
        room = self._room
        return {
            name: room[name][index].tolist() if what.width else room[name].item(index)
            for name, what in self._declared.items()
        }

    def grow(self, count: int, **values: npt.ArrayLike) -> int:
        """Append `count` rows with these values, the others by default; return the index of the first."""
        first, self._length = self._length, self._length + count
        for name, what in self._declared.items():
            room = self._room[name]
            if self._length > len(room):  # a factor keeps the cost of appending in proportion to the rows
                factor = 4 if room.nbytes < SMALL_BYTES and self._scratch is None else 2
                room = self._room[name] = self._larger(room, first, max(factor * len(room), self._length))
            value = values.get(name, what.default)
            if np.any(value):  # room is zero where nothing was written
                room[first : self._length] = value
            setattr(self, name, room[: self._length])
        return first

    def keep(self, rows: np.ndarray) -> None:
        """Keep only these rows, given as ascending indices; the room of the others is given back."""
        for name in self._declared:
            self._room[name] = self._room[name][rows]
        self._length = len(rows)
        self.grow(0)

    def _larger(self, room: np.ndarray, used: int, rows: int) -> np.ndarray:
        """Return room for more rows, with a copy of those that are used, and zero in all others.

        Most columns of most rows hold zero. The system gives memory that is zero for nothing, until someone
        writes to it, so zeros are not copied.
        """
        shape = (max(rows, SMALLEST_ROOM), *room.shape[1:])
        larger = (
            np.zeros(shape, room.dtype) if self._scratch is None else self._scratch.zeros(shape, room.dtype)
        )
        for first in range(0, used, PART):
            part = room[first : min(first + PART, used)]
            if part.any():
                larger[first : first + len(part)] = part
        if self._scratch is not None:
            self._scratch.release(larger)
        return larger
