"""The kernel's table of TCP sockets, by sock_diag: what `ss` prints, as values.

It includes sockets that no program owns any more: those in TIME_WAIT, and in FIN_WAIT_2 with the time left.
First, sets of ports as ranges, which the kernel filters by.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from closeseq.connections.conversation import Address
from closeseq.linux.sock_diag import NO_COOKIE, SockDiag
from closeseq.packets.value import value
from closeseq.tcp.states import CLOSED_ITS_SIDE, State

if TYPE_CHECKING:
    from collections.abc import Collection


def ranges(ports: Collection[int]) -> list[tuple[int, int]]:
    """Return the ports as few ranges (first, last), in order.

    Raises:
        ValueError: one is no port.
    """
    ordered = sorted(set(ports))
    if ordered and not 0 <= ordered[0] <= ordered[-1] <= 65535:  # noqa: PLR2004  # 16 bits
        raise ValueError("a port is a number from 0 to 65535")
    breaks = [at for at, (port, after) in enumerate(pairwise(ordered), 1) if after != port + 1]
    edges = [0, *breaks, len(ordered)] if ordered else []
    return [(ordered[first], ordered[behind - 1]) for first, behind in pairwise(edges)]


# inet_diag_msg: family, state, timer, retransmits; ports and addresses; interface, cookie, expiry in ms,
# receive and send queue in bytes, uid, inode.
MESSAGE = struct.Struct("=BBBB 2s2s 16s16s I Q IIIII")

# As numbered in the kernel's tcp_states.h; 12 is the other name of a half-open connection.
STATES = {
    1: State.ESTABLISHED,
    2: State.SYN_SENT,
    3: State.SYN_RECEIVED,
    4: State.FIN_WAIT_1,
    5: State.FIN_WAIT_2,
    6: State.TIME_WAIT,
    7: State.CLOSED,
    8: State.CLOSE_WAIT,
    9: State.LAST_ACK,
    10: State.LISTEN,
    11: State.CLOSING,
    12: State.SYN_RECEIVED,
}
TIMERS = {1: "retransmission", 2: "keepalive", 3: "time-wait", 4: "probe"}

MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2: an IPv4 address within IPv6
LINK_LOCAL = (b"\xfe\x80", b"\xfe\xbf")
MOST_RANGES = 64  # of ports that the kernel compares; more are compared here


@value
class Timer:
    """A socket's timer that runs.

    Kinds: "retransmission"; "keepalive", which in a FIN_WAIT_2 without an owner is the first part of its
    time to live if that is longer than TIME_WAIT's; "time-wait", which a FIN_WAIT_2 without an owner has
    too, being kept like a TIME_WAIT; "probe", of a closed window.
    """

    kind: str
    expires_ms: int  # from now
    retransmits: int  # so far; keepalives and window probes count here too


@value
class Socket:
    """One TCP socket as it is at this moment."""

    local: Address
    remote: Address  # port 0 if it listens
    state: State
    # Bytes that the program has not read. The peer's FIN is one more, until it is read as the end of file or
    # with the last bytes: 1 in CLOSE_WAIT says that the program has not looked since the peer closed.
    # Of a listener: connections that wait for accept().
    receive_queue: int
    # Bytes, and one for a FIN, that the peer has not acknowledged. Of a listener: its backlog.
    send_queue: int
    inode: int  # by which its owner is found; 0 without one
    uid: int  # of the user who made it; 0 where the kernel keeps none
    timer: Timer | None
    interface: int = 0  # number of the interface that it is bound to; 0: any
    cookie: int = 0  # tells it from every other socket since the machine was started

    @property
    def orphaned(self) -> bool:
        """No program holds it any more: it was closed, and the kernel finishes what is left.

        In TIME_WAIT this is always so, even if a program has kept the descriptor after a shutdown.
        """
        return self.inode == 0 and self.state in CLOSED_ITS_SIDE

    @property
    def unaccepted(self) -> bool:
        """No program holds it yet: it waits in a listener's queue for accept()."""
        return self.inode == 0 and self.state not in CLOSED_ITS_SIDE


class SocketTable:
    """The TCP sockets of the network namespace in which it was opened; needs no privilege to be read.

    Not to be used by two threads at once.

    Raises:
        KernelError: this system has no such table.
    """

    def __init__(self) -> None:
        self._kernel = SockDiag()

    def close(self) -> None:
        """Close the netlink socket; again does no harm."""
        self._kernel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sockets(
        self, ports: frozenset[int] = frozenset(), *, listeners: bool = False, time_wait: bool = True
    ) -> list[Socket]:
        """Return all TCP sockets, IPv4 and IPv6, each as it was when the kernel came to it.

        Args:
            ports: only sockets with one of these ports at either end; empty: all.
            listeners: also those in LISTEN.
            time_wait: also those in TIME_WAIT.
        """
        states = sum(1 << number for number in STATES)
        states -= 0 if listeners else 1 << _number(State.LISTEN)
        states -= 0 if time_wait else 1 << _number(State.TIME_WAIT)
        several = ranges(ports)
        here = len(several) > MOST_RANGES
        found = [
            _socket(message)
            for family in _families()
            for message in self._kernel.dump(family, states, () if here else several)
        ]
        return [one for one in found if {one.local.port, one.remote.port} & ports] if here else found

    def lookup(self, local: Address, remote: Address, interface: int = 0) -> Socket | None:
        """Return the socket with exactly these two ends, None if there is none.

        The kernel looks in its hash table, so this costs the same however many sockets there are.

        Args:
            local, remote: an IPv4 address also finds a socket that is IPv6 in the program's eyes.
            interface: its number, for a socket bound to one (SO_BINDTODEVICE). Sockets with link-local
                addresses always are; for those, 0 tries every interface.
        """
        here, there = _packed(local.address), _packed(remote.address)
        for one in _interfaces(here, interface):
            message = self._kernel.one(here, there, (local.port, remote.port), one)
            if message is not None:
                found = _socket(message)
                if found.state is not State.LISTEN:  # the kernel's answer when only that is there
                    return found
        return None

    def listener(self, local: Address) -> Socket | None:
        """Return the listener at which connections to this address and port arrive.

        None if there is none, or several that share the port (SO_REUSEPORT): then it is not known which.
        """
        listening = 1 << _number(State.LISTEN)
        several = [(local.port, local.port)]
        found = [
            _socket(one) for family in _families() for one in self._kernel.dump(family, listening, several)
        ]
        anywhere = "::" if ":" in local.address else "0.0.0.0"  # noqa: S104 - compared, not bound
        for address in (local.address, anywhere, "::"):  # the kernel prefers them in this order
            if here := [one for one in found if one.local == Address(address, local.port)]:
                return here[0] if len(here) == 1 else None
        return None

    def destroy(self, one: Socket) -> bool:
        """Have the kernel end a socket, whoever holds it, as `ss --kill` does; False if it is gone.

        The program gets ECONNABORTED. From a synchronized state the kernel sends a RST (tcp_abort()): who
        wants the peer to learn nothing, as when a machine loses its power, must filter that out.

        Raises:
            KernelError: not permitted (CAP_NET_ADMIN), or the kernel cannot (CONFIG_INET_DIAG_DESTROY).
        """
        here, there = _packed(one.local.address), _packed(one.remote.address)
        ports = (one.local.port, one.remote.port)
        return self._kernel.destroy(here, there, ports, one.interface, one.cookie or NO_COOKIE)


def _socket(message: memoryview) -> Socket:
    fields = MESSAGE.unpack_from(message)
    family, state, timer, retransmits, local_port, remote_port, local, remote = fields[:8]
    interface, cookie, expires, receive_queue, send_queue, uid, inode = fields[8:]
    length = 4 if family == socket.AF_INET else 16
    return Socket(
        local=Address(address_text(local[:length]), int.from_bytes(local_port, "big")),
        remote=Address(address_text(remote[:length]), int.from_bytes(remote_port, "big")),
        state=STATES[state],
        receive_queue=receive_queue,
        send_queue=send_queue,
        inode=inode,
        uid=uid,
        timer=Timer(TIMERS[timer], expires, retransmits) if timer in TIMERS else None,
        interface=interface,
        cookie=cookie,
    )


@lru_cache(maxsize=4096)
def address_text(packed: bytes) -> str:
    """Return an address of 4 or 16 bytes as the rest of closeseq writes it; a mapped one as IPv4."""
    return str(ip_address(packed.removeprefix(MAPPED)))


@lru_cache(maxsize=4096)
def _packed(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address; a mapped one's 4."""
    packed = ip_address(address.partition("%")[0]).packed
    return packed.removeprefix(MAPPED)


def _interfaces(local: bytes, interface: int) -> list[int]:
    """Return the interfaces to try: a link-local address (RFC 4291 2.5.6) means nothing without one."""
    if interface or len(local) == 4 or not LINK_LOCAL[0] <= local[:2] <= LINK_LOCAL[1]:  # noqa: PLR2004  # bytes
        return [interface]
    return [number for number, _ in socket.if_nameindex()]


def _families() -> tuple[int, ...]:
    return (socket.AF_INET, socket.AF_INET6) if socket.has_ipv6 else (socket.AF_INET,)


def _number(state: State) -> int:
    return next(number for number, own in STATES.items() if own is state)
