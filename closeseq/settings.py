"""What to look at in a capture, how long the timers of a close run, and from when on a wait is a finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from operator import index
from typing import Any

SECOND = 1_000_000_000  # nanoseconds
HIGHEST_PORT = 65_535
FOREVER = 10**9  # seconds; longer waits and timers count as this, which in nanoseconds 64 bits can hold


@dataclass(frozen=True, slots=True)
class Timers:
    """The two clocks that end a connection without a packet, in nanoseconds."""

    time_wait_ns: int = 60 * SECOND  # 2MSL (RFC 9293 3.6.1)
    fin_timeout_ns: int = 60 * SECOND  # FIN_WAIT_2 whose owner has gone (Linux: tcp_fin_timeout)

    @classmethod
    def of(
        cls, os: str = "linux", *, time_wait_ns: int | None = None, fin_timeout_ns: int | None = None
    ) -> Timers:
        """Return the timers of an operating system, either of them overridden.

        Args:
            os: linux, macos, bsd or windows (see `BY_SYSTEM`).
            time_wait_ns: how long TIME_WAIT lasts instead, in nanoseconds; None for the system's.
            fin_timeout_ns: how long FIN_WAIT_2 lasts without an owner instead; None for the system's.

        Raises:
            KeyError: the system is not known.
        """
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


EPHEMERAL_PORTS = {
    "linux": 28_232,  # net.ipv4.ip_local_port_range = 32768 60999
    "macos": 16_384,  # net.inet.ip.portrange.first = 49152
    "bsd": 55_536,  # FreeBSD: net.inet.ip.portrange.first = 10000
    "windows": 16_384,  # netsh int ipv4 show dynamicport tcp: 49152 and on
}


@dataclass(frozen=True, slots=True)
class EphemeralPorts:
    """How many local ports connect() has to choose from: each TIME_WAIT holds one, towards one server."""

    usual: int = EPHEMERAL_PORTS["linux"]  # those of a client whose own are not known
    own: int = 0  # those of this machine, if they are known
    addresses: frozenset[str] = frozenset()  # of this machine

    def of(self, client: str) -> int:
        """Return how many ports a client has to choose from, given by its IP address as text."""
        return self.own if self.own and client in self.addresses else self.usual


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of the timed rules, in nanoseconds. A wait counts from the threshold on (>=)."""

    stuck_after_ns: int = 60 * SECOND  # a wait counts as stuck
    slow_close_ns: int = 1 * SECOND  # a close counts as slow: CLOSE_WAIT, before the own FIN


@dataclass(frozen=True, slots=True)
class Settings:
    """What to look at, and when a wait or a timer counts as over."""

    ports: frozenset[int] = frozenset()  # only connections with one of these ports; empty: all
    hosts: frozenset[str] = frozenset()  # only connections with one of these IP addresses; empty: all
    limits: Limits = field(default_factory=Limits)
    timers: Timers = field(default_factory=Timers)
    ephemeral_ports: EphemeralPorts = field(default_factory=EphemeralPorts)


def settings_of(
    *,
    port: int | Iterable[int] | None = None,
    host: str | Iterable[str] | None = None,
    stuck_after: float = 60.0,
    os: str = "linux",
    time_wait: float | None = None,
    fin_timeout: float | None = None,
    ephemeral_ports: int | None = None,
) -> Settings:
    """Return the settings for what a user gives; `analyze` describes each of these.

    None stands for what is not given: any port and host, and the system's own timers and number of ports.
    `stuck_after`, `time_wait` and `fin_timeout` are in seconds.

    Args:
        port: one port or several, 0 to 65535.
        host: one IP address or several, as text.
        stuck_after: from how many seconds on a wait counts as stuck.
        os: linux, macos, bsd or windows.
        time_wait: how long TIME_WAIT lasts.
        fin_timeout: how long FIN_WAIT_2 lasts without an owner.
        ephemeral_ports: how many local ports a client has, from 1.

    Raises:
        ValueError: a port that is none, a host that is no IP address, a time below zero, a number of ports
            that is none, or a system whose timers are not known.
    """
    return Settings(
        ports=frozenset(map(_port, _several(port))),
        hosts=frozenset(str(ip_address(one)) for one in _several(host)),
        limits=Limits(stuck_after_ns=nanoseconds(stuck_after)),
        timers=_timers(os, time_wait, fin_timeout),
        ephemeral_ports=EphemeralPorts(_ports(os, ephemeral_ports)),
    )


def nanoseconds(seconds: float) -> int:
    """Return a length of time, given in seconds, in nanoseconds; at most `FOREVER`.

    Raises:
        ValueError: it is below zero, or no number (NaN).
    """
    if not seconds >= 0:
        raise ValueError(f"{seconds} is not a length of time in seconds")
    return round(min(seconds, FOREVER) * SECOND)


def _port(given: Any) -> int:
    try:
        number = index(given)
    except TypeError:
        number = -1
    if not 0 <= number <= HIGHEST_PORT:
        raise ValueError(f"{given!r} is not a port; ports are 0 to {HIGHEST_PORT}")
    return number


def _several(given: Any) -> Iterable[Any]:
    if given is None:
        return ()
    if isinstance(given, Iterable) and not isinstance(given, str):
        return given
    return (given,)


def _ports(os: str, given: int | None) -> int:
    if given is None:
        return EPHEMERAL_PORTS[os]
    if given < 1:
        raise ValueError(f"{given} is not a number of ports that a client can have")
    return given


def _timers(os: str, time_wait: float | None, fin_timeout: float | None) -> Timers:
    try:
        return Timers.of(
            os,
            time_wait_ns=None if time_wait is None else nanoseconds(time_wait),
            fin_timeout_ns=None if fin_timeout is None else nanoseconds(fin_timeout),
        )
    except KeyError:
        raise ValueError(f"the timers of {os!r} are not known; linux, macos, bsd and windows are") from None
