"""How long the timers of a close run, by operating system.

From when on a wait counts as a finding.

What to look at in a capture, and when a wait or a timer counts as over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

SECOND = 1_000_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class Timers:
    """The two clocks that end a connection without a packet, in nanoseconds."""

    time_wait_ns: int = 60 * SECOND  # 2MSL (RFC 9293 3.6.1)
    fin_timeout_ns: int = 60 * SECOND  # FIN_WAIT_2 whose owner has gone (Linux: tcp_fin_timeout)
    orphans_expire: bool = True

    @classmethod
    def of(
        cls, os: str = "linux", *, time_wait_ns: int | None = None, fin_timeout_ns: int | None = None
    ) -> Timers:
        """Return the timers of an operating system, either of them overridden. Raises KeyError."""
        timers = BY_SYSTEM[os]
        if time_wait_ns is not None:
            timers = replace(timers, time_wait_ns=time_wait_ns)
        if fin_timeout_ns is not None:
            timers = replace(timers, fin_timeout_ns=fin_timeout_ns)
        return timers


BY_SYSTEM = {
    "linux": Timers(60 * SECOND, 60 * SECOND),  # TCP_TIMEWAIT_LEN is fixed when the kernel is built
    "macos": Timers(30 * SECOND, 60 * SECOND),  # net.inet.tcp.msl = 15 s
    "bsd": Timers(60 * SECOND, 60 * SECOND),  # FreeBSD: net.inet.tcp.msl = 30 s, finwait2_timeout = 60 s
    "windows": Timers(120 * SECOND, 120 * SECOND),  # TcpTimedWaitDelay; TcpFinWait2Delay
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the timed rules, in nanoseconds. A wait counts from the threshold on (>=)."""

    stuck_after_ns: int = 60 * SECOND
    slow_close_ns: int = 1 * SECOND


@dataclass(frozen=True, slots=True)
class Settings:
    """What to look at, and when a wait or a timer counts as over."""

    ports: frozenset[int] = frozenset()  # only connections with one of these ports; empty: all
    hosts: frozenset[str] = frozenset()  # only connections with one of these IP addresses; empty: all
    limits: Limits = field(default_factory=Limits)
    timers: Timers = field(default_factory=Timers)
