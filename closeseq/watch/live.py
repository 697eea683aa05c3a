"""The live API: an iterator of connections as they close."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from closeseq.capture.live import open_live
from closeseq.settings import settings_of
from closeseq.watch.kernel_view import with_own_ports
from closeseq.watch.monitor import MOST_CONNECTIONS, Monitor
from closeseq.watch.session import TICK, Session, SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.counts import SocketCounts
    from closeseq.watch.updates import Update


def live(
    interface: str | Iterable[str] = "lo",
    *,
    port: int | Iterable[int] | None = None,
    host: str | Iterable[str] | None = None,
    expression: str | None = None,
    duration: float | None = None,
    stuck_after: float = 60.0,
    os: str = "linux",
    time_wait: float | None = None,
    fin_timeout: float | None = None,
    ephemeral_ports: int | None = None,
    max_connections: int = MOST_CONNECTIONS,
) -> Live:
    """Report connections as they close. The capture begins at once, and ends with the iteration.

    Args:
        interface: where to capture; several, or "any", on Linux.
        port: only connections with one of these ports, which is the server's port where the
            beginning of a connection was not captured.
        host: only connections with one of these IP addresses.
        expression: a capture filter in tcpdump's syntax (needs libpcap).
        duration: end after so many seconds; None: until `stop` or `close`.
        stuck_after: seconds from which a wait counts as stuck.
        os: whose timers apply: linux, macos, bsd or windows.
        time_wait: seconds that TIME_WAIT lasts (2MSL, RFC 9293 3.6.1), instead of the system's.
        fin_timeout: seconds that FIN_WAIT_2 lasts without an owner, instead of the system's.
        ephemeral_ports: how many local ports a client has to connect from, instead of this machine's for its
            own addresses, and of the system's for others.
        max_connections: how many to keep at most; when full, the longest-idle connections are dropped.

    Returns:
        an iterator, also for `async for`, and a context manager. It gives a connection when it has closed,
        when an endpoint is stuck, when later packets contradict an earlier report, and in the end those
        that are not over; `kind` says which, and `as_of_ns` when.

    Raises:
        NotPermittedError: the process may not capture.
        DeviceError: no device has this name, or it is down; also from the iterator, when it disappears.
        FilterError: the expression is wrong, or libpcap is missing.
        ValueError: a host that is no IP address, a negative time, or an unknown system.
    """
    settings = settings_of(
        port=port,
        host=host,
        stuck_after=stuck_after,
        os=os,
        time_wait=time_wait,
        fin_timeout=fin_timeout,
        ephemeral_ports=ephemeral_ports,
    )
    names = [interface] if isinstance(interface, str) else list(interface)
    source = open_live(names, ports=settings.ports, hosts=settings.hosts, expression=expression)
    if ephemeral_ports is None:
        settings = with_own_ports(settings)
    monitor = Monitor(settings, capture=",".join(names), most=max_connections)
    return Live(Session(source, monitor, SystemClock()), duration)


class Live:
    """A running live capture: an iterator of updates, as `live` returns it.

    Args:
        session: is closed with this.
        duration: seconds after which the capture ends; None: until `stop` or `close`.
    """

    def __init__(self, session: Session, duration: float | None = None) -> None:
        self._session = session
        self._clock = session.clock
        self._ends_ns = None if duration is None else self._clock.now_ns() + round(duration * 1e9)
        self._updates: deque[Update] = deque()
        self._ended = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @property
    def counts(self) -> SocketCounts:
        """How many sockets are in which state now, and how all connections so far closed."""
        return self._session.monitor.counts()

    @property
    def population(self) -> list[PopulationFinding]:
        """What all connections so far show together: idle timeouts, ports that run out."""
        self._session.monitor.news(now=True)
        return self._session.monitor.population

    @property
    def dropped(self) -> int:
        """How many packets the capture has lost so far."""
        return self._session.source.dropped

    def stop(self) -> None:
        """End the capture: what was captured is still reported, then the iteration ends."""
        self._ends_ns = 0
        self._session.wake()

    def close(self) -> None:
        """Close the capture at once; the iteration is over."""
        if not self._closed:
            self._closed = self._ended = True
            self._updates.clear()
            self._session.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Update:
        while not self._updates and not self._ended:
            self._step()
        if not self._updates:
            self._leave()
            raise StopIteration
        return self._updates.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        while not self._updates and not self._ended:
            await asyncio.sleep(TICK)
            self._session.wake()  # it has waited
            self._step()
        if not self._updates:
            self._leave()
            raise StopAsyncIteration
        return self._updates.popleft()

    def _leave(self) -> None:
        """Close the capture when all is reported, and raise why the device could not be read to the end."""
        self.close()
        if self._session.unread is not None:
            raise self._session.unread

    def _step(self) -> None:
        """Take in the next updates; as objects, since the next step moves the columns."""
        if self._ends_ns is not None and self._clock.now_ns() >= self._ends_ns:
            self._ended = True
            updates: Any = self._session.end()
        else:
            updates = self._session.step()
        for one in updates:
            self._updates.extend(one)
