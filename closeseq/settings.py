"""What to look at in a capture, and when a wait or a timer counts as over."""

from __future__ import annotations

from dataclasses import dataclass, field

from closeseq.tcp.fins import TELLING_TIMES_NS
from closeseq.tcp.timers import Timers
from closeseq.verdict.limits import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """What to look at, and when a wait or a timer counts as over."""

    ports: frozenset[int] = frozenset()  # only connections with one of these ports; empty: all
    hosts: frozenset[str] = frozenset()  # only connections with one of these IP addresses; empty: all
    limits: Limits = field(default_factory=Limits)
    timers: Timers = field(default_factory=Timers)

    @property
    def telling_times_ns(self) -> tuple[int, ...]:
        """Every length of time that anything is compared with on the way to a verdict, in nanoseconds."""
        limits, timers = self.limits, self.timers
        own = (limits.stuck_after_ns, limits.slow_close_ns, timers.time_wait_ns, timers.fin_timeout_ns)
        return tuple(sorted({*own, *TELLING_TIMES_NS}))
