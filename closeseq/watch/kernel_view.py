"""The kernel's own state of the monitored connections' sockets, and which processes own them.

The owner of a socket cannot be found any more once the program has closed it. So the owners of all open
sockets are looked up now and then, and kept.
"""

from __future__ import annotations

import socket as sockets
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from closeseq.connections.conversation import ENDS, Address, End
from closeseq.errors import KernelError
from closeseq.packets.value import value
from closeseq.tcp.states import State
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.connection import Connection
    from closeseq.linux.owner_service import OwnerService
    from closeseq.linux.owners import Owner
    from closeseq.linux.socket_table import Socket, SocketTable
    from closeseq.settings import Settings
    from closeseq.watch.kernel_resets import KernelReset, KernelResets

Pair = tuple[Address, Address]  # local, remote

LOOK_AGAIN = 1.0  # seconds between two looks at the socket table
SHARE = 0.03  # of one processor that looking may take
MOST_KEPT = 100_000  # sockets

NOT_ACCEPTED = "the RST has not arrived, or was not accepted (RFC 5961 3)"
REOPENED = "a new connection has these addresses, and its packets were not read yet"

# Findings of which a full accept queue may be the cause.
QUEUE_FINDINGS = (FindingCode.ACCEPT_QUEUE_FULL, FindingCode.NEVER_ACCEPTED, FindingCode.SLOW_OPEN)

# Why the kernel's state may differ, by (inferred state, kernel's state); None: no socket at all.
WHY = {
    (State.LAST_ACK, None): "an ACK of its FIN has arrived, and no captured packet shows it, or its kernel "
    "has given up",
    (State.TIME_WAIT, None): "its TIME_WAIT ended early, or the socket was in another network namespace",
    (State.CLOSED, State.ESTABLISHED): f"{NOT_ACCEPTED}, or {REOPENED}",
    (State.CLOSED, State.SYN_SENT): REOPENED,
    (State.CLOSED, State.SYN_RECEIVED): REOPENED,
    (State.TIME_WAIT, State.SYN_SENT): REOPENED,
    (State.TIME_WAIT, State.SYN_RECEIVED): REOPENED,
    (State.TIME_WAIT, State.ESTABLISHED): REOPENED,
    (State.CLOSED, State.FIN_WAIT_1): NOT_ACCEPTED,
    (State.CLOSED, State.CLOSE_WAIT): NOT_ACCEPTED,
    (State.CLOSED, State.FIN_WAIT_2): "its FIN_WAIT_2 lasts longer than assumed (--fin-timeout), or a "
    "program owns it",
    (State.CLOSED, State.LAST_ACK): "the final ACK has not arrived, and no captured packet shows it",
    (State.CLOSED, State.TIME_WAIT): "its 2MSL timer started later than the packets show, or the RST did not "
    "end it (tcp_rfc1337)",
    (State.SYN_SENT, None): "its kernel or its program has given up",
    (State.ESTABLISHED, State.FIN_WAIT_1): "the program has closed it; its FIN waits behind data that does "
    "not fit the peer's window",
    (State.CLOSE_WAIT, State.LAST_ACK): "the program has closed it; its FIN waits behind unsent data",
    (State.CLOSE_WAIT, State.ESTABLISHED): "the peer's FIN has not arrived",
    (State.ESTABLISHED, State.CLOSE_WAIT): "a FIN arrived at this moment, or was not captured",
}
GONE = "closed by a timer or a RST that was not captured, or in another network namespace"
NOT_CAPTURED = "the segment that made the difference was not captured"


K = TypeVar("K")


@value
class KernelAnswer:
    """The kernel's answer about one endpoint, beside the state inferred from packets."""

    inferred: State  # from packets
    socket: Socket | None  # None: there is no such socket
    owners: tuple[Owner, ...]  # processes that own it, or owned it when last seen
    remembered: bool  # the owners are from an earlier look; no process owns it now
    reset: KernelReset | None = None  # what the kernel says of its RSTs; None if nothing, or nothing certain
    # Where connections to it wait for accept(); asked only where that queue is the matter, None where the
    # kernel does not show which one it is.
    listener: Socket | None = None

    @property
    def state(self) -> State:
        """The kernel's state; CLOSED if there is no socket."""
        return State.CLOSED if self.socket is None else self.socket.state

    @property
    def agrees(self) -> bool:
        """Whether inference and kernel agree. An endpoint in LISTEN has no socket of its own."""
        return self.state is (State.CLOSED if self.inferred is State.LISTEN else self.inferred)

    @property
    def queue_is_full(self) -> bool:
        """Whether its listener takes no more connections: Linux compares with "more than the backlog"."""
        return self.listener is not None and self.listener.receive_queue > self.listener.send_queue

    @property
    def why(self) -> str:
        """What may explain a disagreement; empty if there is none."""
        if self.agrees or self.inferred is State.UNKNOWN:
            return ""
        found = None if self.socket is None else self.socket.state
        return WHY.get((self.inferred, found)) or (GONE if found is None else NOT_CAPTURED)


@value
class Leftover:
    """Sockets that were in CLOSE_WAIT before the capture began: of one program, at one service."""

    service: Address  # the socket's own end if that is the service's, or the other one
    end: End  # whose sockets they are: the service's, SERVER, or those of its clients
    owners: tuple[Owner, ...]  # processes that hold them; empty if not known
    unaccepted: bool  # they wait in a listener's queue
    number: int


class KernelView:
    """Looks at the kernel's socket table now and then, and answers for single connections.

    Args:
        table: the socket table of the network namespace in which packets are captured.
        service: finds owners; None where that is not possible.
        addresses: the namespace's own addresses; only endpoints there, or on loopback, have a socket here.
        ports: only sockets with one of these ports are looked at; empty: all.
        resets: knows why the kernel sent a RST; None where that is not possible.
        hosts: only leftovers with one of these IP addresses are told; empty: all.
    """

    def __init__(
        self,
        table: SocketTable,
        service: OwnerService | None,
        addresses: Iterable[str],
        ports: frozenset[int] = frozenset(),
        resets: KernelResets | None = None,
        *,
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        self._table = table
        self._service = service
        self._addresses = frozenset(addresses)
        self._ports = ports
        self._resets = resets
        self._inodes: dict[Pair, int] = {}
        self._owners: dict[int, tuple[Owner, ...]] = {}
        self.problem: str | None = None  # why the kernel cannot be asked any more
        # The first time also imports modules, so it does not count as a look's cost.
        self._before = [
            one
            for one in self._read_table()
            if one.state is State.CLOSE_WAIT
            and (not hosts or not hosts.isdisjoint((one.local.address, one.remote.address)))
        ]
        self._next_look = time.monotonic() + LOOK_AGAIN

    def close(self) -> None:
        """Close the table and the service."""
        self._table.close()
        if self._service is not None:
            self._service.close()

    def look(self) -> None:
        """Read the table if it is time to, and keep who owns which socket, and which RSTs were sent."""
        self._take_owners()
        if self._resets is not None:
            self._resets.look()
        if time.monotonic() < self._next_look or self.problem is not None:
            return
        began = time.process_time()
        self._read_table()
        self._next_look = time.monotonic() + max(LOOK_AGAIN, (time.process_time() - began) / SHARE)

    def leftovers(self, *, wait: float) -> list[Leftover]:
        """Return which sockets were in CLOSE_WAIT when the view was made, the most first.

        Args:
            wait: seconds to wait for the names of owners that are not known yet.
        """
        if self._service is not None:
            unknown = {one.inode for one in self._before} - self._owners.keys()
            self._take(self._service.owners(unknown, wait))
        found: Counter[tuple[Address, End, tuple[Owner, ...], bool]] = Counter()
        for one in self._before:
            here = one.local.port in self._ports or (
                one.remote.port not in self._ports and one.local.port <= one.remote.port
            )
            service, end = (one.local, End.SERVER) if here else (one.remote, End.CLIENT)
            found[service, end, self._owners.get(one.inode, ()), one.unaccepted] += 1
        return [Leftover(*what, number) for what, number in found.most_common()]

    def _read_table(self) -> list[Socket]:
        """Read the table, and ask for the owners that are not known yet; return what was read."""
        try:
            sockets = self._table.sockets(self._ports, time_wait=False)
        except KernelError as error:
            self.problem = str(error)
            return []
        for one in sockets:
            if one.inode:
                self._inodes.pop((one.local, one.remote), None)  # so that the newest stands last
                self._inodes[one.local, one.remote] = one.inode
        unknown = {one.inode for one in sockets} - self._owners.keys() - {0}
        if self._service is not None and unknown:
            self._service.ask(unknown)
        _shorten(self._inodes)
        _shorten(self._owners)
        return sockets

    def answers(self, connection: Connection, *, wait: float = 0.0) -> dict[End, KernelAnswer]:
        """Return the kernel's answer for each endpoint of a connection that is on this machine.

        Args:
            connection: as it stands now.
            wait: seconds to wait for the names of owners that are not known yet.
        """
        found: dict[End, KernelAnswer] = {}
        if connection.conversation.successor is not None:
            return found  # the addresses belong to the next connection by now
        for end in ENDS:
            local = connection.conversation.address(end)
            remote = connection.conversation.address(end.peer)
            if self.is_here(local.address) and self.problem is None:
                try:
                    socket = self._table.lookup(local, remote)
                except KernelError as error:
                    self.problem = str(error)
                    break
                answer = self._about(connection.timeline.state(end), socket, (local, remote), wait)
                if self._resets is not None:
                    answer = replace(answer, reset=self._resets.about(connection.conversation, end, socket))
                if end is End.SERVER and _queue_matters(connection, socket):
                    answer = replace(answer, listener=self._listener(local))
                found[end] = answer
        return found

    def _listener(self, local: Address) -> Socket | None:
        try:
            return self._table.listener(local)
        except KernelError as error:
            self.problem = str(error)
            return None

    def _about(self, inferred: State, socket: Socket | None, pair: Pair, wait: float) -> KernelAnswer:
        held = socket is not None and socket.inode
        inode = socket.inode if socket is not None and socket.inode else self._inodes.get(pair, 0)
        if held:
            self._inodes[pair] = inode
            if inode not in self._owners and self._service is not None:
                self._take(self._service.owners([inode], wait))
        return KernelAnswer(inferred, socket, self._owners.get(inode, ()), remembered=not held)

    def is_here(self, address: str) -> bool:
        """Whether sockets with this local address are in the namespace that is asked."""
        return address in self._addresses or is_loopback(address)

    def _take_owners(self) -> None:
        if self._service is not None:
            self._take(self._service.answers())

    def _take(self, answers: dict[int, list[Owner]]) -> None:
        self._owners.update({inode: tuple(owners) for inode, owners in answers.items() if owners})


def _queue_matters(connection: Connection, socket: Socket | None) -> bool:
    """Return whether the server's accept queue is the matter with a connection, or may be."""
    if socket is not None:
        return socket.unaccepted and socket.state is not State.SYN_SENT
    asked = connection.timeline.state(End.SERVER) is State.LISTEN  # a SYN, and no answer
    return asked or any(connection.has(code) for code in QUEUE_FINDINGS)


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Return whether this is a loopback address."""
    return ip_address(address).is_loopback


def with_own_ports(settings: Settings) -> Settings:
    """Return settings with the number of ephemeral ports of this machine, for its own addresses."""
    from closeseq.linux.sysctl import ephemeral_ports

    ports = replace(settings.ephemeral_ports, own=ephemeral_ports(), addresses=frozenset(own_addresses()))
    return replace(settings, ephemeral_ports=ports)


def own_addresses() -> set[str]:
    """Return the IP addresses of the network namespace of this process."""
    import psutil

    found = psutil.net_if_addrs()
    families = (sockets.AF_INET, sockets.AF_INET6)
    return {
        str(ip_address(one.address.partition("%")[0]))  # without the zone of a link-local address
        for addresses in found.values()
        for one in addresses
        if one.family in families
    }


def _shorten(kept: dict[K, Any]) -> None:
    """Drop the oldest entries beyond MOST_KEPT."""
    for oldest in list(islice(kept, max(0, len(kept) - MOST_KEPT))):
        del kept[oldest]
