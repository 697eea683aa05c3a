"""What is kept of pairs and connections from one batch to the next: tables of columns that grow at their end.

A table is a class with one declared column a line; its instances hold them as plain numpy arrays:

    class Pairs(ColumnTable):
        present: NDArray[np.int64] = column(np.int64, -1)  # index of the newest connection

Long columns may lie on disk (`DiskColumns`). A capture's tables grow with its length, while only the part
about open connections is in use. So a long column is a file without a name, mapped into memory. The system
keeps the pages that are in use, writes the others out when it needs the room, and removes the file when the
process ends, however it ends. Where no file can be made, or the disk is full, the column lies in memory.

The two endpoints of a pair are its ends 0 and 1: 0 is the one with the smaller address (then port). Which of
them is the client is decided on demand (orientation.py), for later packets can show it. A connection's ends
stand in `Sides` at 2 * connection and 2 * connection + 1, so that the peer's row is `side ^ 1`.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

LARGE_BYTES = 2 << 20  # of a column, from which on it lies in a file
RESERVED = 64  # times the bytes of a column: addresses, so that it can grow without being copied
FOLDER = "/var/tmp"  # noqa: S108 - for large files, where /tmp may be memory; TMPDIR comes before it

SMALLEST_ROOM = 256  # rows
ROOMY_BYTES = 1 << 20  # of a column that has more: memory counts only when it is written to
SMALL_BYTES = 1 << 22  # up to here four times as much room costs nothing either
PART = 1 << 13  # rows that are copied together where there is anything but zero in them

NONE = np.iinfo(np.int64).min  # "nothing yet" in a column of sequence numbers
NEVER_NS = np.iinfo(np.int64).max  # "not yet" in a column of lengths of time


class _Mapped(mmap.mmap):
    """A file without a name, mapped into memory; there is room on the disk for its first `provided` bytes."""

    file: int  # its descriptor
    provided: int


class DiskColumns:
    """Makes columns, long ones in files of their own, and releases their pages."""

    def __init__(self) -> None:
        self._maps: list[weakref.ref[_Mapped]] = []
        self._possible = hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a column of zeros, as `numpy.zeros` does, of this shape and dtype.

        From LARGE_BYTES on it lies in a file, if one can be made.
        """
        size = _bytes(shape, dtype)
        if self._possible and size >= LARGE_BYTES:
            try:
                return np.ndarray(shape, dtype, self._map(size))
            except OSError:
                self._possible = False  # no folder, no room, or too many files: the next ones neither
        return np.zeros(shape, dtype)

    def enlarged(self, column: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
        """Return a column with more rows behind, zero, in the same file; None if it cannot be had there.

        Nothing is copied. Who holds the old one still sees its rows.

        Args:
            column: from `zeros` or this.
            shape: of the result.
        """
        mapped: Any = column.base
        size = _bytes(shape, column.dtype)
        if not isinstance(mapped, _Mapped) or size > len(mapped):
            return None
        try:
            _provide(mapped.file, mapped.provided, size)
        except OSError:
            return None
        mapped.provided = max(mapped.provided, size)
        return np.ndarray(shape, column.dtype, mapped)

    def release(self, column: NDArray[Any] | None = None) -> None:
        """Give the pages of a column, or of all, back to the system, which writes them out."""
        if column is not None:
            mapped: Any = column.base
            if isinstance(mapped, _Mapped):
                mapped.madvise(mmap.MADV_DONTNEED, 0, mapped.provided)
            return
        self._maps = [one for one in self._maps if one() is not None]
        for each in self._maps:
            if (mapped := each()) is not None:
                mapped.madvise(mmap.MADV_DONTNEED, 0, mapped.provided)

    def _map(self, size: int) -> _Mapped:
        folder = os.environ.get("TMPDIR") or (FOLDER if Path(FOLDER).is_dir() else None)
        with tempfile.TemporaryFile(dir=folder) as file:
            _provide(file.fileno(), 0, size)
            try:
                file.truncate(RESERVED * size)  # of which nothing is on the disk
                mapped = _Mapped(file.fileno(), RESERVED * size)
            except (OSError, ValueError):  # a limit
                mapped = _Mapped(file.fileno(), size)
            mapped.file, mapped.provided = os.dup(file.fileno()), size
        weakref.finalize(mapped, os.close, mapped.file).atexit = False
        self._maps.append(weakref.ref(mapped))
        return mapped


def _provide(file: int, begin: int, end: int) -> None:
    """Make room on the disk: to find it full while a page is written would end the process."""
    if end > begin:
        os.posix_fallocate(file, begin, end - begin)


def _bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


class Declared(NamedTuple):
    """A column's type, what its new rows hold, and how many values stand in a row (0: the value itself)."""

    dtype: DTypeLike
    default: int
    width: int


def column(dtype: DTypeLike, default: int = 0, *, width: int = 0) -> Any:
    """Declare a column of a `ColumnTable`.

    Args:
        dtype: of its values.
        default: what new rows hold where nothing else is given.
        width: how many values stand in a row; 0 for one, the column having one dimension.

    Returns:
        A `Declared`, in whose place instances have the array.
    """
    return Declared(dtype, default, width)


class ColumnTable:
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

    def __init__(self, scratch: DiskColumns | None = None) -> None:
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
        """Return a row as plain Python values, by column; a wide column's as a list."""
        room = self._room
        return {
            name: room[name][index].tolist() if what.width else room[name].item(index)
            for name, what in self._declared.items()
        }

    def grow(self, count: int, **values: ArrayLike) -> int:
        """Append rows; return the index of the first.

        Args:
            count: how many, from 0.
            values: by column; the columns that are not named get their defaults.
        """
        first = self._length
        length = self._length = first + count
        for name, what in self._declared.items():
            room = self._room[name]
            if length > len(room):  # a factor keeps the cost of appending in proportion to the rows
                factor = 4 if room.nbytes < SMALL_BYTES and self._scratch is None else 2
                room = self._room[name] = self._larger(room, first, max(factor * len(room), length))
            if count:
                value = values.get(name, what.default)
                # Room is zero where nothing was written. Most values are a plain zero, which numpy takes
                # longer to look at than a small capture takes for all else.
                if value if isinstance(value, int) else np.any(value):
                    room[first:length] = value
            setattr(self, name, room[:length])
        return first

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these rows, given as ascending indices; the room of the others is given back."""
        for name in self._declared:
            self._room[name] = self._room[name][rows]
        self._length = len(rows)
        self.grow(0)

    def _larger(self, room: NDArray[Any], used: int, rows: int) -> NDArray[Any]:
        """Return room for more rows, with a copy of those that are used, and zero in all others.

        Most columns of most rows hold zero. The system gives memory that is zero for nothing, until someone
        writes to it, so zeros are not copied.
        """
        wide, least = room.shape[1:], SMALLEST_ROOM
        if self._scratch is not None and rows > SMALLEST_ROOM:  # a capture that may be a long one
            least = ROOMY_BYTES // _bytes(wide, room.dtype)
        shape = (max(rows, least), *wide)
        if self._scratch is not None and (enlarged := self._scratch.enlarged(room, shape)) is not None:
            return enlarged
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


class Pairs(ColumnTable):
    """One row a pair of endpoints, and one more for each VLAN in which it is another pair (vlans.py)."""

    version: NDArray[np.uint8] = column(np.uint8)  # 4 or 6
    high: NDArray[np.uint64] = column(np.uint64, width=2)  # addresses of end 0 and end 1
    low: NDArray[np.uint64] = column(np.uint64, width=2)
    port: NDArray[np.uint16] = column(np.uint16, width=2)
    present: NDArray[np.int64] = column(np.int64, -1)  # index of the newest connection of this pair
    further: NDArray[np.bool_] = column(np.bool_)  # another lane of a pair that is there already
    # the VLANs in which each end's packets were first seen
    vlan: NDArray[np.uint64] = column(np.uint64, width=2)
    near: NDArray[np.uint32] = column(np.uint32, width=2)  # a number near the newest that each end has sent
    known: NDArray[np.uint8] = column(np.uint8, width=2)  # how that is known (vlans.py); 0: it is not


class Histories(ColumnTable):
    """One row a connection, in the order of their first packets."""

    id: NDArray[np.int64] = column(np.int64)  # from 1, in the order of the first packets
    pair: NDArray[np.int64] = column(np.int64)  # index into Pairs
    incarnation: NDArray[np.int32] = column(np.int32)  # from 1, among the connections of the pair
    successor: NDArray[np.int64] = column(np.int64, -1)  # the next connection of the pair
    first_sender: NDArray[np.uint8] = column(np.uint8)  # 0 or 1
    first_ns: NDArray[np.int64] = column(np.int64)  # since the epoch
    last_ns: NDArray[np.int64] = column(np.int64)  # time of the latest packet
    copies: NDArray[np.int32] = column(np.int32)  # duplicates that were left out, of all kinds
    elsewhere: NDArray[np.int32] = column(np.int32)  # of these, captured at another place
    repeated_resets: NDArray[np.int32] = column(np.int32)  # of these, a RST like the one before it
    only_syns: NDArray[np.bool_] = column(np.bool_, True)  # nothing yet but SYNs without ACK
    closing: NDArray[np.bool_] = column(np.bool_)  # a FIN or RST went by
    last_sender: NDArray[np.uint8] = column(np.uint8)  # of the last segment, 0 or 1
    # the number after it; NONE if it calls for no answer
    asked_end: NDArray[np.int64] = column(np.int64, NONE)
    asked_ns: NDArray[np.int64] = column(np.int64)  # its time
    minor: NDArray[np.int32] = column(np.int32)  # minor events kept so far
    covers: NDArray[np.int32] = column(np.int32)  # ACKs kept so far that first cover a SYN or FIN
    last_event: NDArray[np.int64] = column(np.int64, -1)  # index into KeptEvents
    # index into Stretches, of traffic after that event
    open_stretch: NDArray[np.int64] = column(np.int64, -1)


class Sides(ColumnTable):
    """Two rows a connection: what each endpoint has sent, as far as captured."""

    known: NDArray[np.bool_] = column(np.bool_)  # whether the next column holds something
    origin: NDArray[np.uint32] = column(np.uint32)  # the number that is relative 0
    last_raw: NDArray[np.uint32] = column(np.uint32)  # of the last segment, as on the wire
    last_seq: NDArray[np.int64] = column(np.int64)  # the same, relative and unwrapped
    acked: NDArray[np.bool_] = column(np.bool_)  # has sent an ACK, so the next two columns hold something
    ack_raw: NDArray[np.uint32] = column(np.uint32)  # the last acknowledgement it sent
    last_ack: NDArray[np.int64] = column(np.int64)  # the same, relative to the peer's origin and unwrapped
    sent_end: NDArray[np.int64] = column(np.int64, NONE)  # highest number past any segment but RST
    # how far ahead of that a segment may lie (RFC 7323 2.3)
    reach: NDArray[np.int64] = column(np.int64, 1 << 30)
    fin_end: NDArray[np.int64] = column(np.int64, NONE)  # highest number past a segment with FIN
    fin_covered: NDArray[np.bool_] = column(np.bool_)  # the peer has acknowledged the newest FIN
    syn: NDArray[np.bool_] = column(np.bool_)  # a SYN was captured
    syn_raw: NDArray[np.uint32] = column(np.uint32)  # the first one's number
    syns: NDArray[np.int32] = column(np.int32)  # segments with SYN, and so on
    fins: NDArray[np.int32] = column(np.int32)
    resets: NDArray[np.int32] = column(np.int32)
    packets: NDArray[np.int64] = column(np.int64)  # captured, duplicates left out
    bytes: NDArray[np.int64] = column(np.int64)  # of payload, retransmissions included
    acked_end: NDArray[np.int64] = column(np.int64, NONE)  # highest acknowledgement it sent
    # least time in which it answered (traffic.py)
    response_ns: NDArray[np.int64] = column(np.int64, NEVER_NS)
    answers: NDArray[np.int32] = column(np.int32)  # how often it answered so that the time was measured
    place: NDArray[np.uint64] = column(np.uint64)  # of its last segment but RSTs (whereabouts.py)
    placed: NDArray[np.bool_] = column(np.bool_)  # whether there is one
    moves: NDArray[np.int32] = column(np.int32)  # how often that place changed
    # the longest silence that it ended with further data (traffic.py)
    resumed_ns: NDArray[np.int64] = column(np.int64)
    holes: NDArray[np.int32] = column(np.int32)  # open ones in what it sent (holes.py)
    hole_start: NDArray[np.int64] = column(np.int64)  # the lowest number in any of them
    hole_number: NDArray[np.int64] = column(np.int64)  # the packet that left the oldest of them
    hole_ns: NDArray[np.int64] = column(np.int64)  # and its time
    reordered: NDArray[np.int32] = column(np.int32)  # its segments that were overtaken
    lost: NDArray[np.int32] = column(np.int32)  # its segments that were lost before they were captured
    # its segments that were captured, and retransmitted before an ACK
    repeated: NDArray[np.int32] = column(np.int32)
    missed: NDArray[np.int32] = column(np.int32)  # holes in what it sent that the peer had acknowledged
    missed_number: NDArray[np.int64] = column(np.int64)  # the packet that showed the first of them
    missed_ns: NDArray[np.int64] = column(np.int64)  # and its time
    doubled: NDArray[np.int32] = column(np.int32)  # duplicates at the same place at once
    delivered: NDArray[np.int32] = column(np.int32)  # duplicates at the same place, later
    # packet number of the last duplicate of a FIN at the same place; 0 without one
    fin_again: NDArray[np.int64] = column(np.int64)
    fin_again_ns: NDArray[np.int64] = column(np.int64)  # its time
    fin_again_later: NDArray[np.bool_] = column(np.bool_)  # whether it is counted among those delivered
    dsacks: NDArray[np.int32] = column(np.int32)  # its reports that something arrived twice (RFC 2883)
