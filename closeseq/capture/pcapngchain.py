"""The blocks of a pcapng as a chain: where each begins, before anything in them is believed."""

from __future__ import annotations

import struct
from functools import cached_property

import numpy as np

from closeseq.capture.records import gather, gather_runs, numbers

SECTION = 0x0A0D0D0A  # reads the same in both byte orders
SHORTEST = 12  # bytes of a block with nothing in it: its kind, its length, its length again
LENGTH_AGAIN = 4  # bytes
HEAD = np.dtype([("kind", "<u4"), ("length", "<u4")])
HEADS = {order: struct.Struct(f"{order}II") for order in "<>"}


class Chain:
    """The blocks of one window in one byte order, up to a section header; see `lockstep.Chain`.

    Lengths are not yet checked here: what is found behind a false one is thrown away.
    """

    def __init__(self, window: memoryview, order: str) -> None:
        self.last = len(window) - HEAD.itemsize
        self._window = window
        self._order = order

    # Made when they are first needed: a section may be too small for that.

    @cached_property
    def _number(self) -> np.dtype[np.uint32]:
        return np.dtype(f"{self._order}u4")

    @cached_property
    def _head(self) -> np.dtype[np.void]:
        return np.dtype([("kind", self._number), ("length", self._number)])

    @cached_property
    def _kind(self) -> np.ndarray:
        """The kind of a block, wherever it begins."""
        return numbers(self._window, self._number, 0, self.last + 1)

    @cached_property
    def _length(self) -> np.ndarray:
        return numbers(self._window, self._number, 4, self.last + 1)

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from block to block, in a plain loop."""
        window, unpack = self._window, HEADS[self._order].unpack_from
        found = list[int]()
        before = min(before, self.last + 1)
        for _ in range(most):
            if at >= before:
                break
            kind, length = unpack(window, at)
            if kind == SECTION:
                break
            found.append(at)
            at += max(length, SHORTEST)
        return found, at

    def following(self, at: np.ndarray) -> np.ndarray:
        """Return where the blocks behind these begin; a section header is not passed."""
        within = np.minimum(at, self.last)
        length = np.maximum(self._length[within], SHORTEST)
        behind: np.ndarray = at + np.where(self._kind[within] == SECTION, 0, length)
        return behind

    def plausible(self, at: np.ndarray, width: int, sample: np.ndarray) -> np.ndarray:
        """Tell where blocks may begin: of the last sample's kind, with a sensible length at both ends."""
        window, number = self._window, self._number
        kind = gather(window, sample[-1:], self._head)["kind"]
        mask: np.ndarray = gather_runs(window, at, width, number) == kind
        row, column = np.nonzero(mask)
        start = at[row] + column
        length = gather(window, start, self._head)["length"].astype(np.int64)
        again_at = start + length - LENGTH_AGAIN
        aligned = (start - sample[-1]) % 4 == 0
        sensible = aligned & (length >= SHORTEST) & (again_at + LENGTH_AGAIN <= len(window))
        sensible[sensible] &= gather(window, again_at[sensible], number) == length[sensible]
        mask[row, column] = sensible
        return mask
