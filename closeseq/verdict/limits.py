"""From when on a wait counts as a finding."""

from __future__ import annotations

from dataclasses import dataclass

from closeseq.tcp.timers import SECOND


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the timed rules, in nanoseconds. A wait counts from the threshold on (>=)."""

    stuck_after_ns: int = 60 * SECOND
    slow_close_ns: int = 1 * SECOND
