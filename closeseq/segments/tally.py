"""The count of what gave no row, and why."""

from __future__ import annotations

from collections import Counter

import numpy as np


class Tally:
    """Counts, for one batch, frames skipped by reason and rows by remark; it has no zero entries."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def skip(self, reason: str, frames: np.ndarray) -> None:
        """Count the frames that are true in the mask `frames` as skipped for `reason`."""
        if count := int(np.count_nonzero(frames)):
            self.skipped[reason] += count

    def note(self, remark: str, rows: np.ndarray) -> None:
        """Count the rows that are true in the mask `rows` under `remark`."""
        if count := int(np.count_nonzero(rows)):
            self.notes[remark] += count

    def passing(self, *checks: tuple[str, np.ndarray]) -> np.ndarray:
        """Return the mask of the frames that pass all checks; count each other one once.

        A check is a reason and the mask of the frames it does not apply to. A frame that fails several
        is counted under the first.
        """
        good = np.ones(len(checks[0][1]), dtype=np.bool_)
        for reason, passed in checks:
            self.skip(reason, good & ~passed)
            good &= passed
        return good
