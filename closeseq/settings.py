"""What to look at in a capture, and when a wait or a timer counts as over."""

from __future__ import annotations

from dataclasses import dataclass, field

from closeseq.tcp.timers import Timers
from closeseq.verdict.limits import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """What to look at, and when a wait or a timer counts as over."""

    ports: frozenset[int] = frozenset()  # only connections with one of these ports; empty: all
    hosts: frozenset[str] = frozenset()  # only connections with one of these IP addresses; empty: all
    limits: Limits = field(default_factory=Limits)
    timers: Timers = field(default_factory=Timers)
