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
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, Self

from closeseq.errors import KernelError
from closeseq.linux.epoch import EpochOffset
from closeseq.linux.socket_table import MAPPED
from closeseq.linux.tracing import Instance, fields

if TYPE_CHECKING:
    from closeseq.connections.conversation import Address

EVENT = "tcp/tcp_send_reset"
ROOM = 4 << 20  # bytes, shared by the processors: of 100 each

REASON = re.compile(r'\{\s*(\d+),\s*"(\w+)"\s*\}')
PORT, IPV4, IPV6 = slice(2, 4), slice(4, 8), slice(8, 24)  # of a struct sockaddr
TIME_WAIT, LISTEN, NEW_SYN_RECV = 6, 10, 12  # net/tcp_states.h


class SentReset(NamedTuple):
    """A RST that the kernel sent, in some network namespace of this machine."""

    time_ns: int  # since the Unix epoch, to about a microsecond
    pair: bytes  # its two ends, as `pair` writes them
    reason: str | None  # as the kernel names it; None where it gives none
    socket: int  # the kernel's own address of the socket; 0 if it was none, or one without a program
    listener: bool  # a listener sent it: the remote end is not known


def pair(local: Address, remote: Address) -> bytes:
    """Return the two ends of a RST, its sender first, to compare; IPv4 as IPv6 is IPv4."""
    return b"".join(
        one.port.to_bytes(2, "big") + ip_address(one.address.partition("%")[0]).packed.removeprefix(MAPPED)
        for one in (local, remote)
    )


@dataclass(frozen=True, slots=True)
class ResetFormat:
    """How this kernel lays out the event."""

    places: dict[str, slice]
    reasons: dict[int, str]

    @classmethod
    def read(cls, description: str) -> ResetFormat:
        """Make it from the event's `format` file.

        Raises:
            KernelError: the addresses are not where any kernel so far has them.
        """
        made = cls(fields(description), _reasons(description))
        known = made.has_ports or made._size("saddr") == made._size("daddr") >= IPV6.stop
        if "skaddr" not in made.places or not known:
            raise KernelError("this kernel's tracepoint tcp:tcp_send_reset is laid out in an unknown way")
        return made

    @property
    def complete(self) -> bool:
        """Whether every RST is reported, and with a reason."""
        return "reason" in self.places

    @property
    def has_ports(self) -> bool:
        """Whether ports and IPv6 addresses have fields of their own, as in Linux before 6.10."""
        return {"sport", "dport", "saddr_v6", "daddr_v6"} <= self.places.keys()

    def reset(self, time_ns: int, raw: bytes) -> SentReset:
        """Return what an event says."""
        socket, state = self._number(raw, "skaddr"), self._number(raw, "state")
        local, remote = self._end(raw, "s"), self._end(raw, "d")
        reason = None
        if self.complete:
            number = self._number(raw, "reason")
            reason = self.reasons.get(number, str(number))
        small = state in {TIME_WAIT, NEW_SYN_RECV}
        return SentReset(
            time_ns, local + remote, reason, 0 if small else socket, state == LISTEN or remote[:2] == b"\0\0"
        )

    def _end(self, raw: bytes, which: str) -> bytes:
        """Return the port and the address of one end."""
        if self.has_ports:  # the IPv6 fields are there for IPv4 too, as mapped addresses
            port = self._number(raw, f"{which}port").to_bytes(2, "big")
            return port + raw[self.places[f"{which}addr_v6"]].removeprefix(MAPPED)
        end = raw[self.places[f"{which}addr"]]
        if int.from_bytes(end[:2], sys.byteorder) == sockets.AF_INET:
            return end[PORT] + end[IPV4]
        return end[PORT] + end[IPV6].removeprefix(MAPPED)

    def _number(self, raw: bytes, name: str) -> int:
        """Return a number; 0 if this kernel has no such field."""
        place = self.places.get(name)
        return 0 if place is None else int.from_bytes(raw[place], sys.byteorder)

    def _size(self, name: str) -> int:
        place = self.places.get(name, slice(0, 0))
        return int(place.stop - place.start)


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
            seconds: stop after so long; the others stay in the kernel as long as there is room.
        """
        until, everything = time.monotonic() + seconds, True
        clock_was_set = self._epoch.renew()
        found = []
        for portion in self._instance.portions():
            found += [self._format.reset(moment + self._epoch.ns, raw) for moment, raw in portion]
            if time.monotonic() > until:
                everything = False
                break
        return Taken(sorted(found, key=sent_at), everything, clock_was_set)


def sent_at(one: SentReset) -> int:
    """Return when a RST was sent, to sort by."""
    return one.time_ns
