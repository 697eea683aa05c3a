"""Sockets in TIME_WAIT whose connections are forgotten: all that is still known is how many, until when."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.extent import FAR_NS
from closeseq.tcp.timers import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ebbing:
    """Counts of forgotten connections by label, in which a clock still runs."""

    def __init__(self) -> None:
        self._until: Counter[tuple[int, int]] = Counter()  # (second since the epoch, label) -> connections

    def add(self, label: np.ndarray, until_ns: np.ndarray) -> None:
        """Take in connections that are being forgotten: their labels, and when their clocks run out."""
        runs = until_ns != FAR_NS
        pairs = np.stack([until_ns[runs] // SECOND, label[runs]], axis=1)
        rows, counts = np.unique(pairs, axis=0, return_counts=True)
        for (second, number), count in zip(rows.tolist(), counts.tolist(), strict=True):
            self._until[second, number] += count

    def labels(self) -> set[int]:
        """Return the numbers of the labels that are counted."""
        return {number for _, number in self._until}

    def renumber(self, new: np.ndarray) -> None:
        """Let labels have other numbers: by old number the new one."""
        self._until = Counter(
            {(second, int(new[number])): count for (second, number), count in self._until.items()}
        )

    def counts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield labels, with how many connections still have theirs; those that ran out are let go."""
        for key in [key for key in self._until if key[0] * SECOND <= now_ns]:
            del self._until[key]
        for (_, number), count in self._until.items():
            yield number, count
