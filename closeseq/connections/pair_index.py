"""From addresses and ports to the row of `Pairs` that has them: a hash table in one numpy column.

A dictionary would cost 200 bytes a pair and a Python step for each pair and batch; this costs 16 bytes or
less, and no step. It holds only row numbers. The addresses themselves are compared where they stand, in
`Pairs`, so a hash that two pairs share costs one more look and never merges them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import hashed, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.state import Pairs

FREE = -1  # in a slot; below it: taken by a row of the keys that are being looked up
FEWEST_SLOTS = 1024


class PairIndex:
    """Finds pairs by their key: five words of 64 bits, as `Table` packs them."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._used = 0
        self._slots = np.full(FEWEST_SLOTS, FREE)

    def find(self, words: Sequence[np.ndarray]) -> np.ndarray:
        """Return the row of each of these pairs, int64; new ones are added, in their order.

        Args:
            words: five uint64 columns, in which no key comes twice.
        """
        count = len(words[0])
        if 2 * (self._used + count) > len(self._slots):
            self._enlarge(2 * (self._used + count))
        row, slot = self._probe(words)
        new = np.flatnonzero(row == FREE)
        if len(new):
            high0, high1, low0, low1, rest = (word[new] for word in words)
            first = self._pairs.grow(
                len(new),
                high=np.stack([high0, high1], axis=1),
                low=np.stack([low0, low1], axis=1),
                port=np.stack([rest >> np.uint64(16), rest], axis=1).astype(np.uint16),
                version=rest >> np.uint64(32),
            )
            row[new] = self._slots[slot[new]] = first + np.arange(len(new))
            self._used += len(new)
        return row

    def renew(self) -> None:
        """Take in that the rows of `Pairs` have other numbers, or are fewer."""
        self._used = int(np.count_nonzero(~self._pairs.further))
        self._slots = np.full(FEWEST_SLOTS, FREE)
        self._enlarge(2 * self._used)

    def _enlarge(self, wanted: int) -> None:
        size = len(self._slots)
        while size < wanted:
            size *= 2
        self._slots = np.full(size, FREE)
        row = np.flatnonzero(~self._pairs.further)  # a further lane is found through its pair's own row
        _, slot = self._probe(self._words(row), known=True)
        self._slots[slot] = row

    def _probe(self, words: Sequence[np.ndarray], *, known: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of these pairs, FREE for a new one, and their slots, which are theirs from now on.

        `known`: none of them is in the table yet.
        """
        slots, mask = self._slots, np.uint64(len(self._slots) - 1)
        slot = (hashed(words) & mask).astype(np.int64)
        row = np.full(len(slot), FREE)
        waiting = np.arange(len(slot))
        while len(waiting):
            at = slot[waiting]
            held = slots[at]
            free = held == FREE
            # Several may want a free slot; the one that was written last has it.
            slots[at[free]] = FREE - 1 - waiting[free]
            settled = slots[at] == FREE - 1 - waiting
            if not known:
                candidates = np.flatnonzero(held >= 0)
                own = waiting[candidates]
                same = self._same(held[candidates], [word[own] for word in words])
                row[own[same]] = held[candidates[same]]
                settled[candidates[same]] = True
            waiting = waiting[~settled]
            slot[waiting] = (slot[waiting] + 1) & int(mask)
        return row, slot

    def _same(self, row: np.ndarray, words: Sequence[np.ndarray]) -> np.ndarray:
        result = np.ones(len(row), np.bool_)
        for own, other in zip(self._words(row), words, strict=True):
            result &= own == other
        return result

    def _words(self, row: np.ndarray) -> list[np.ndarray]:
        pairs = self._pairs
        high, low, port = pairs.high[row], pairs.low[row], pairs.port[row].astype(np.uint32)
        rest = packed(pairs.version[row], port[:, 0] << np.uint32(16) | port[:, 1])
        return [high[:, 0], high[:, 1], low[:, 0], low[:, 1], rest]
