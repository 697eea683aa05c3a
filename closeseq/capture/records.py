"""What the walks along the records of a capture have in common.

A walker is handed a window (any buffer: a piece of a file or a stream), goes along the
record headers in it, and says how far it came. It keeps only what the format itself carries on from
record to record, so a file that still grows is walked by handing it the longer window.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

# The greatest limit that libpcap has for a packet of any link layer. A record that claims more is damaged,
# and believing it would let a small file ask for all memory.
MAXIMUM_RECORD = 128 * 1024 * 1024

DAMAGE_REMEDY = "what was read before it is good; if there is a sound original, copy it again"
CUT_REMEDY = "the rest is missing: let the capture finish, or copy the file again"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a capture cannot be read on, and where: the parts of a `CaptureError` that a walker knows.

    Args:
        problem: what is wrong, as a clause.
        at: where, in bytes from the start of the window.
        remedy: what to do about it, as a clause.
    """

    problem: str
    at: int
    remedy: str = DAMAGE_REMEDY


def _none(dtype: type[np.generic]) -> np.ndarray:
    return np.empty(0, dtype)


@dataclass(slots=True)
class Walked:
    """What one walk found: the columns of `Frames`, and where and why it stopped."""

    end: int  # the first byte of the window that was not used up
    wanted: int  # bytes that must follow from `end` for the next record to be whole, as far as is known
    trouble: Trouble | None = None  # why no walk can go on beyond `end`; None if more bytes may help
    offset: np.ndarray = field(default_factory=lambda: _none(np.int64))  # int64, into the window
    captured: np.ndarray = field(default_factory=lambda: _none(np.int64))  # int64, bytes
    wire: np.ndarray = field(default_factory=lambda: _none(np.int64))  # int64, bytes
    time_ns: np.ndarray = field(default_factory=lambda: _none(np.int64))  # int64, since the epoch
    link_type: np.ndarray = field(default_factory=lambda: _none(np.uint16))  # uint16, LINKTYPE_
    interface: np.ndarray = field(default_factory=lambda: _none(np.uint32))  # uint32; empty: there is one


class Walker(Protocol):
    """One format: `PcapWalker` or `PcapngWalker`."""

    @property
    def begins(self) -> int:
        """Where the first record begins, in bytes from the start of the file."""

    @property
    def dropped(self) -> int:
        """Packets that the capture itself says were lost."""

    @property
    def untimed(self) -> int:
        """Packets that carry no time of their own."""

    @property
    def ended_ns(self) -> int | None:
        """When the capture says that it ended, since the epoch; None if it does not, or nothing sound."""

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Go along at most `most` records of the window, from byte `at`, which begins a record.

        The walker remembers what it has walked: no record is to be shown to it twice, except the
        one at `Walked.end`.
        """

    def cut(self, window: memoryview, at: int) -> Trouble:
        """Say what it is that the file's end cuts short, where the walk came no further than `at`."""


def gather(window: memoryview, at: np.ndarray, layout: np.dtype[Any]) -> np.ndarray:
    """Copy the headers that begin at these bytes, each whole in the window, into one array.

    The window is seen as overlapping items of the header's width, one at every byte, so that numpy
    copies each header in one piece, wherever it lies: 20 ns a header.
    """
    if not len(at):
        return np.empty(0, layout)
    width = layout.itemsize
    everywhere = np.ndarray((len(window) - width + 1,), f"V{width}", window, strides=(1,))
    headers: np.ndarray = everywhere[at].view(layout)
    return headers


def numbers(window: memoryview, number: np.dtype[Any], begin: int, count: int) -> np.ndarray:
    """Return the window seen as numbers, one beginning at each of `count` bytes from `begin` on."""
    return np.ndarray((max(count, 0),), number, window, offset=begin if count > 0 else 0, strides=(1,))


def gather_runs(window: memoryview, at: np.ndarray, width: int, number: np.dtype[Any]) -> np.ndarray:
    """Read the numbers that begin at each of `width` bytes from these on, all whole in the window.

    Returns:
        One row for each of `at`, a column for each of the bytes.
    """
    length = width + number.itemsize - 1
    runs = gather(window, at, np.dtype(f"V{length}"))
    return np.ndarray((len(at), width), number, runs.data if len(at) else b"", strides=(length, 1))


def gather_in_order(
    window: memoryview, at: np.ndarray, big: np.ndarray, layout: np.dtype[np.void]
) -> np.ndarray:
    """Copy headers as `gather` does, each in its own byte order.

    Args:
        window: where they are.
        at: where each begins.
        big: bool, which of them are big-endian.
        layout: the fields, little-endian.
    """
    if not big.any():
        return gather(window, at, layout)
    swapped = layout.newbyteorder(">")
    if big.all():
        return gather(window, at, swapped)
    headers = np.empty(len(at), layout)
    headers[big] = gather(window, at[big], swapped)
    headers[~big] = gather(window, at[~big], layout)
    return headers


def first(where: np.ndarray) -> int:
    """Return the index of the first true row, or the number of rows if none is."""
    return int(np.argmax(where)) if where.any() else len(where)
