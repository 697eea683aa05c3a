"""Every RST that the kernel's TCP sends, from the tracepoint tcp:tcp_send_reset, with the kernel's reason.

Linux before 6.10 gives no reason, and reports only RSTs of sockets: not those that say that there is none.
From 6.10 on, every RST that TCP sends is reported. What is not: those of firewall rules (REJECT, `reject with
tcp reset`), raw sockets and user space.

Of a RST to a segment, the event comes before the packet, else just after it. A listener's own (a handshake
that failed, an ACK that nothing expects) has no remote address in it.
"""

from __future__ import annotations

import math
import re
import socket as sockets
import struct
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from closeseq.errors import KernelError
from closeseq.linux.epoch import EpochOffset
from closeseq.linux.socket_table import MAPPED
from closeseq.linux.tracing import Instance, fields

if TYPE_CHECKING:
    from closeseq.connections.conversation import Address

EVENT = "tcp/tcp_send_reset"
ROOM = 4 << 20  # bytes, shared by the processors: of 100 each

REASON = re.compile(r'\{\s*(\d+),\s*"(\w+)"\s*\}')
NUMBERS = ("skaddr", "state", "reason", "sport", "dport")
NUMBER_OF = {2: "H", 4: "I", 8: "Q"}  # by bytes
IPV6_BYTES, SOCKADDR_BYTES = 16, 28
PORT, PORT_AND_IPV4, IPV6 = slice(2, 4), slice(2, 8), slice(8, 24)  # of a struct sockaddr
IPV4_FAMILY = sockets.AF_INET.to_bytes(2, sys.byteorder)
NO_PORT = bytes(2)
LISTEN = 10  # net/tcp_states.h
SMALL = frozenset({6, 12})  # TIME_WAIT, NEW_SYN_RECV: no socket of a program


class SentReset(NamedTuple):
    """A RST that the kernel sent, in some network namespace of this machine."""

    time_ns: int  # since the Unix epoch, to about a microsecond
    pair: bytes  # its two ends, as `pair` writes them
    reason: str | None  # as the kernel names it; None where it gives none
    socket: int  # the kernel's own address of the socket; 0 if it was none, or one without a program
    listener: bool  # a listener sent it: the remote end is not known


def pair(local: Address, remote: Address) -> bytes:
    """Return the two ends of a RST, its sender first, to compare; IPv4 as IPv6 is IPv4.

    Args:
        local: address and port of the endpoint that sends the RST. An IPv6 zone (`%eth0`) is left out.
        remote: of the one that receives it.

    Returns:
        of each end two bytes of port, big endian, then its address of 4 or 16 bytes.
    """
    return b"".join(
        one.port.to_bytes(2, "big") + ip_address(one.address.partition("%")[0]).packed.removeprefix(MAPPED)
        for one in (local, remote)
    )


@dataclass(frozen=True, slots=True)
class ResetFormat:
    """How this kernel lays out the event."""

    fields: struct.Struct  # those of `pick`, in the order in which they lie
    pick: itemgetter[
        tuple[Any, ...]
    ]  # puts them, followed by a 0 for what is missing, in the order in which `reset` uses them
    has_ports: bool  # ports and IPv6 addresses have fields of their own, as in Linux before 6.10
    complete: bool  # every RST is reported, and with a reason
    reasons: dict[int, str]  # by the kernel's number, as the kernel names them

    @classmethod
    def read(cls, description: str) -> ResetFormat:
        """Make it from the event's `format` file.

        Raises:
            KernelError: the addresses are not where any kernel so far has them.
        """
        found = fields(description)
        has_ports = {"sport", "dport", "saddr_v6", "daddr_v6"} <= found.keys()
        ends = ("saddr_v6", "daddr_v6") if has_ports else ("saddr", "daddr")
        sizes = {found[name].stop - found[name].start for name in ends if name in found}
        if "skaddr" not in found or sizes != {IPV6_BYTES if has_ports else SOCKADDR_BYTES}:
            raise KernelError("this kernel's tracepoint tcp:tcp_send_reset is laid out in an unknown way")
        wanted = (*NUMBERS, *ends)
        lying = sorted((name for name in wanted if name in found), key=lambda name: found[name].start)
        return cls(
            _struct([(found[name].start, found[name].stop) for name in lying]),
            itemgetter(*(lying.index(name) if name in found else -1 for name in wanted)),
            has_ports,
            "reason" in found,
            _reasons(description),
        )

    def reset(self, time_ns: int, raw: bytes) -> SentReset:
        """Return what an event says.

        Args:
            time_ns: of the event, since the Unix epoch.
            raw: the event as the trace buffer holds it, from its common fields on.
        """
        values = self.pick((*self.fields.unpack_from(raw), 0))
        socket, state, number, local_port, remote_port, local, remote = values
        if self.has_ports:  # the IPv6 fields are there for IPv4 too, as mapped addresses
            ends = (local_port, local.removeprefix(MAPPED)), (remote_port, remote.removeprefix(MAPPED))
            both = b"".join(port.to_bytes(2, "big") + address for port, address in ends)
        elif local[:2] == IPV4_FAMILY:
            remote_port = remote[PORT] != NO_PORT
            both = local[PORT_AND_IPV4] + remote[PORT_AND_IPV4]
        else:
            remote_port = remote[PORT] != NO_PORT
            both = b"".join(one[PORT] + one[IPV6].removeprefix(MAPPED) for one in (local, remote))
        return SentReset(
            time_ns,
            both,
            self.reasons.get(number, str(number)) if self.complete else None,
            0 if state in SMALL else socket,
            state == LISTEN or not remote_port,
        )


def _struct(places: list[tuple[int, int]]) -> struct.Struct:
    """Return what unpacks the fields at these places: numbers, and longer ones as bytes."""
    layout, at = "=", 0
    for first, last in places:
        size = last - first
        layout += f"{first - at}x{NUMBER_OF.get(size, f'{size}s')}"
        at = last
    return struct.Struct(layout)


def _reasons(description: str) -> dict[int, str]:
    """Return the names of the reasons by number, from what the kernel prints."""
    _, _, printed = description.partition("REC->reason,")
    return {int(number): name for number, name in REASON.findall(printed)}


class Taken(NamedTuple):
    """What was read at once."""

    resets: list[SentReset]  # in time order
    everything: bool  # nothing was left, so all that were sent before the reading began have been read
    clock_was_set: bool  # someone set the time since the last reading: these times are not to be trusted


class ResetTrace:
    """Follows the RSTs that this kernel sends, in all network namespaces, until it is closed.

    As of `Tracepoint`, root's powers are needed to open it only, and nothing is left in the kernel.

    Raises:
        KernelError: not permitted, or not possible here; says what is missing.
    """

    def __init__(self) -> None:
        self._epoch = EpochOffset()
        self._instance = Instance(EVENT, "", ROOM)
        try:
            self._format = ResetFormat.read(self._instance.format)
        except KernelError:
            self.close()
            raise

    def close(self) -> None:
        """End the tracing; nothing stays behind. Again does no harm."""
        self._instance.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complete(self) -> bool:
        """Whether this kernel reports every RST that its TCP sends, and with a reason."""
        return self._format.complete

    @property
    def lost(self) -> int:
        """RSTs for which there was no room: `read` was not called often enough."""
        return self._instance.lost

    def read(self, seconds: float = math.inf) -> Taken:
        """Return the RSTs since the last call, of any age.

        Args:
            seconds: of a processor, after which to stop; the others stay in the kernel while there is room.
        """
        until, everything = time.thread_time() + seconds, True
        clock_was_set = self._epoch.renew()
        found = []
        for portion in self._instance.portions():
            found += [self._format.reset(moment + self._epoch.ns, raw) for moment, raw in portion]
            if time.thread_time() > until:
                everything = False
                break
        return Taken(sorted(found, key=sent_at), everything, clock_was_set)


def sent_at(one: SentReset) -> int:
    """Return when a RST was sent, to sort by."""
    return one.time_ns
