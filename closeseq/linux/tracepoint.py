"""Every transition of the machine's TCP sockets, from the tracepoint sock:inet_sock_set_state.

The tracepoint reports full sockets only. One that enters TIME_WAIT, or FIN_WAIT_2 without an owner, is
replaced by a smaller one: the tracepoint reports CLOSED then, and the socket table shows what it became. A
half-open connection is a small one too: it is reported from the ACK that completes the handshake, when the
listener makes a full socket of it (LISTEN to SYN_RECEIVED to ESTABLISHED).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from closeseq.connections.conversation import Address
from closeseq.linux.epoch import EpochOffset
from closeseq.linux.socket_table import STATES, address_text, ranges
from closeseq.linux.tracing import Instance, fields

if TYPE_CHECKING:
    from collections.abc import Collection

    from closeseq.tcp.states import State

EVENT = "sock/inet_sock_set_state"
MOST_RANGES = 32  # of ports in the kernel's filter, whose text has at most a page; more are compared here
ROOM = 32 << 20  # bytes, shared by the processors


@dataclass(frozen=True, slots=True)
class SocketTransition:
    """One state of a socket after another."""

    time_ns: int  # since the Unix epoch, to about a microsecond
    local: Address
    remote: Address  # port 0 in a listener, and before connect() has chosen its ports
    before: State
    after: State
    socket: int  # the kernel's own address of the socket: tells apart those that live at the same time


class Tracepoint:
    """Follows the sockets that have one of these ports at either end, until it is closed.

    It sees all network namespaces of the machine: choose ports that nobody else uses. Root's powers are
    needed to open it only, not to read it. A process that is forked has it open too, and may read it.

    However this process ends, a process that it forks removes what was set up in the kernel. One that is
    killed together with its whole process namespace leaves it to the next that is opened: open it outside.

    Args:
        ports: a set or a range; empty: all ports.

    Raises:
        KernelError: not permitted, or not possible here; says what is missing.
    """

    def __init__(self, ports: Collection[int] = frozenset()) -> None:
        several = ranges(ports)
        self._ports = frozenset(ports) if len(several) > MOST_RANGES else frozenset()
        self._lost = 0
        self._epoch = EpochOffset()
        self.clock_was_set = False  # someone set the time meanwhile: times are not to be trusted
        self._instance = Instance(EVENT, _condition([] if self._ports else several), ROOM)
        self._fields = fields(self._instance.format)

    def close(self) -> None:
        """End the tracing; nothing stays behind. Again does no harm."""
        self._lost = self.lost
        self._instance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lost(self) -> int:
        """Transitions for which there was no room: `transitions` was not called often enough."""
        return max(self._lost, self._instance.lost)

    def transitions(self) -> list[SocketTransition]:
        """Return the transitions since the last call, in time order.

        The first may be a little older than the last of the call before: each processor keeps its own.
        """
        self.clock_was_set |= self._epoch.renew()
        found = [self._transition(moment, raw) for moment, raw in self._instance.events()]
        if self._ports:
            found = [one for one in found if {one.local.port, one.remote.port} & self._ports]
        return sorted(found, key=lambda one: one.time_ns)

    def _transition(self, moment: int, raw: bytes) -> SocketTransition:
        fields = self._fields

        def number(name: str) -> int:
            return int.from_bytes(raw[fields[name]], sys.byteorder)

        return SocketTransition(
            time_ns=moment + self._epoch.ns,
            # The IPv6 fields are there for IPv4 too, as mapped addresses.
            local=Address(address_text(raw[fields["saddr_v6"]]), number("sport")),
            remote=Address(address_text(raw[fields["daddr_v6"]]), number("dport")),
            before=STATES[number("oldstate")],
            after=STATES[number("newstate")],
            socket=number("skaddr"),
        )


def _condition(several: list[tuple[int, int]]) -> str:
    """Return the kernel's filter for TCP sockets with a port in one of these ranges at either end."""
    ports = [
        f"({port} >= {first} && {port} <= {last})" for first, last in several for port in ("sport", "dport")
    ]
    return "protocol == 6" + (f" && ({' || '.join(ports)})" if ports else "")
