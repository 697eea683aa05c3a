"""The kernel's own word on the connections that are watched, and who owns their sockets.

The owner of a socket is no longer to be found once the program has closed it, so the owners of the sockets
that are there are looked for now and then, and remembered.
"""

from __future__ import annotations

import socket as sockets
import time
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from closeseq.connections.conversation import ENDS, Address, End
from closeseq.errors import KernelError
from closeseq.packets.value import value
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.connection import Connection
    from closeseq.linux.owner_service import OwnerService
    from closeseq.linux.owners import Owner
    from closeseq.linux.socket_table import Socket, SocketTable

Pair = tuple[Address, Address]  # local, remote

LOOK_AGAIN = 1.0  # seconds between two looks at the table
SHARE = 0.03  # of one processor that looking may take
MOST_REMEMBERED = 100_000  # sockets

NOT_BELIEVED = "the RST has not arrived, or was not believed (RFC 5961 3)"

# What explains that the kernel's state is another one, by (inferred, kernel's); None stands for any, or for
# no socket at all.
WHY = {
    (State.LAST_ACK, None): "an ACK of its FIN has arrived after all, though nothing captured shows it",
    (State.TIME_WAIT, None): "its TIME_WAIT has ended early, or the socket was in another network namespace",
    (State.CLOSED, State.ESTABLISHED): NOT_BELIEVED,
    (State.CLOSED, State.FIN_WAIT_1): NOT_BELIEVED,
    (State.CLOSED, State.CLOSE_WAIT): NOT_BELIEVED,
    (State.CLOSED, State.FIN_WAIT_2): "its FIN_WAIT_2 lasts longer than is assumed (--fin-timeout), or a "
    "program owns it",
    (State.CLOSED, State.LAST_ACK): "the final ACK has not arrived, though nothing captured shows it",
    (State.CLOSED, State.TIME_WAIT): "2MSL began later than the packets tell, or the RST did not end it "
    "(tcp_rfc1337)",
    (State.SYN_SENT, None): "its kernel, or its program, has given up",
    (State.ESTABLISHED, State.FIN_WAIT_1): "the program has closed it; its FIN waits behind data that the "
    "peer has no window for",
    (State.CLOSE_WAIT, State.LAST_ACK): "the program has closed it; its FIN waits behind unsent data",
    (State.CLOSE_WAIT, State.ESTABLISHED): "the peer's FIN has not arrived",
    (State.ESTABLISHED, State.CLOSE_WAIT): "a FIN came in this moment, or was not captured",
}
GONE = "it is gone: closed by a timer or a RST that was not captured, or in another network namespace"
OTHERWISE = "what made the difference was not captured"


K = TypeVar("K")


@value
class KernelAnswer:
    """What the kernel says of one end, and how that lies to what the packets say."""

    inferred: State
    socket: Socket | None  # None: there is no such socket
    owners: tuple[Owner, ...]  # that hold it, or held it when last seen
    remembered: bool  # the owners are known from before; nobody holds it now

    @property
    def state(self) -> State:
        """The kernel's state; CLOSED if there is no socket."""
        return State.CLOSED if self.socket is None else self.socket.state

    @property
    def agrees(self) -> bool:
        """Whether packets and kernel tell the same. An end in LISTEN has no socket of its own."""
        return self.state is (State.CLOSED if self.inferred is State.LISTEN else self.inferred)

    @property
    def why(self) -> str:
        """What explains a disagreement; empty if there is none."""
        if self.agrees or self.inferred is State.UNKNOWN:
            return ""
        found = None if self.socket is None else self.socket.state
        return WHY.get((self.inferred, found)) or (GONE if found is None else OTHERWISE)


class Witness:
    """Looks at the kernel's socket table now and then, and answers for single connections.

    Args:
        table: of the network namespace that is captured in.
        service: looks for owners; None where that is not possible.
        addresses: the namespace's own addresses; only ends there, or on loopback, have a socket here.
        ports: only sockets with one of these ports are looked at; empty: all.
    """

    def __init__(
        self,
        table: SocketTable,
        service: OwnerService | None,
        addresses: Iterable[str],
        ports: frozenset[int] = frozenset(),
    ) -> None:
        self._table = table
        self._service = service
        self._addresses = frozenset(addresses)
        self._ports = ports
        self._inodes: dict[Pair, int] = {}
        self._owners: dict[int, tuple[Owner, ...]] = {}
        self.problem: str | None = None  # why the kernel cannot be asked any more
        self._remember()  # the first time also loads what asks, which is no measure of what looking costs
        self._next_look = time.monotonic() + LOOK_AGAIN

    def close(self) -> None:
        """Let go of the table and the service."""
        self._table.close()
        if self._service is not None:
            self._service.close()

    def look(self) -> None:
        """Look at the table if it is time to, and remember who owns what."""
        self._hear()
        if time.monotonic() < self._next_look or self.problem is not None:
            return
        began = time.process_time()
        self._remember()
        self._next_look = time.monotonic() + max(LOOK_AGAIN, (time.process_time() - began) / SHARE)

    def _remember(self) -> None:
        """Take in what the table shows, and ask for the owners that are not known."""
        try:
            sockets = self._table.sockets(self._ports, time_wait=False)
        except KernelError as error:
            self.problem = str(error)
            return
        for one in sockets:
            if one.inode:
                self._inodes.pop((one.local, one.remote), None)  # so that the newest stands last
                self._inodes[one.local, one.remote] = one.inode
        unknown = {one.inode for one in sockets} - self._owners.keys() - {0}
        if self._service is not None and unknown:
            self._service.ask(unknown)
        _shorten(self._inodes)
        _shorten(self._owners)

    def testimony(self, connection: Connection, *, patience: float = 0.0) -> dict[End, KernelAnswer]:
        """Return what the kernel says of the ends of a connection that are here.

        Args:
            connection: as it stands now.
            patience: how many seconds to wait for the names of owners that are not known yet.
        """
        found: dict[End, KernelAnswer] = {}
        if connection.conversation.successor is not None:
            return found  # the addresses are the next connection's by now
        for end in ENDS:
            local = connection.conversation.address(end)
            remote = connection.conversation.address(end.peer)
            if self._is_here(local.address) and self.problem is None:
                try:
                    socket = self._table.lookup(local, remote)
                except KernelError as error:
                    self.problem = str(error)
                    break
                found[end] = self._about(connection.timeline.state(end), socket, (local, remote), patience)
        return found

    def _about(self, inferred: State, socket: Socket | None, pair: Pair, patience: float) -> KernelAnswer:
        held = socket is not None and socket.inode
        inode = socket.inode if socket is not None and socket.inode else self._inodes.get(pair, 0)
        if held:
            self._inodes[pair] = inode
            if inode not in self._owners and self._service is not None:
                self._take(self._service.owners([inode], patience))
        return KernelAnswer(inferred, socket, self._owners.get(inode, ()), remembered=not held)

    def _is_here(self, address: str) -> bool:
        return address in self._addresses or is_loopback(address)

    def _hear(self) -> None:
        if self._service is not None:
            self._take(self._service.answers())

    def _take(self, answers: dict[int, list[Owner]]) -> None:
        self._owners.update({inode: tuple(owners) for inode, owners in answers.items() if owners})


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Return whether an address is one of the loopback device."""
    return ip_address(address).is_loopback


def own_addresses() -> set[str]:
    """Return the IP addresses of the network namespace that we are in."""
    import psutil

    found = psutil.net_if_addrs()
    families = (sockets.AF_INET, sockets.AF_INET6)
    return {
        str(ip_address(one.address.partition("%")[0]))  # without the zone of a link-local address
        for addresses in found.values()
        for one in addresses
        if one.family in families
    }


def _shorten(remembered: dict[K, Any]) -> None:
    """Forget the oldest of what is too much."""
    for oldest in list(islice(remembered, max(0, len(remembered) - MOST_REMEMBERED))):
        del remembered[oldest]
