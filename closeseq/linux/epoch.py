"""The clock of the kernel's traces, CLOCK_MONOTONIC, as the Unix time that packets are stamped with."""

from __future__ import annotations

import time

CLOCK_SET_NS = 500_000  # the clocks' distance changes by less, unless someone sets the time


class EpochOffset:
    """Unix time less CLOCK_MONOTONIC, and whether someone has set the time."""

    def __init__(self) -> None:
        self.ns = epoch_offset_ns()

    def renew(self) -> bool:
        """Measure it again; return whether someone has set the time since, so that `ns` is another now."""
        now_ns = epoch_offset_ns()
        was_set = abs(now_ns - self.ns) > CLOCK_SET_NS
        if was_set:
            self.ns = now_ns
        return was_set


def epoch_offset_ns() -> int:
    """Return Unix time less CLOCK_MONOTONIC in nanoseconds, to about a microsecond.

    Both clocks are slewed alike, so it holds until someone sets the time.
    """
    best_width, best_offset = 1 << 62, 0
    for _ in range(100):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        width = time.monotonic_ns() - before
        if width < best_width:
            best_width, best_offset = width, realtime - before - width // 2
    return best_offset
