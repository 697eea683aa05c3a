"""What a path does to packets: of its own accord, by chance, and on purpose, to segments of a certain kind.

    client ---- first leg of the client's packets ----> tap ---- second leg ----> server
    client <--- second leg ---------------------------- tap <--- first leg of the server's packets ---- server

What happens on the first leg happens before the capture point (the tap): what is lost there was sent and is
not in the capture. What is lost on the second leg was captured, and not received.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.packets.segments import ACK, FIN, MODULUS, RST, SYN, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

TCP = 6  # IP protocol
IPV6_HEADER = 40  # bytes
# TCP header (RFC 9293 3.1): ports, sequence number, acknowledgement number, data offset, flags.
TCP_HEADER = struct.Struct("!HHIIBB")


class Leg(StrEnum):
    """A part of a packet's way."""

    BEFORE = "before the tap"
    AFTER = "after the tap"


class SegmentKind(StrEnum):
    """A kind of segments, by their headers."""

    ANY = "any"
    SYN = "SYN"
    FIN = "FIN"
    RST = "RST"
    DATA = "data"
    PURE_ACK = "pure ACK"  # nothing but an acknowledgement
    ACK_OF_FIN = "ACK of FIN"  # a pure ACK that covers the peer's FIN


class Action(StrEnum):
    """What is done to a segment."""

    LOSE = "lose"
    DELAY = "delay"  # so that those behind overtake it
    DUPLICATE = "duplicate"  # it goes on, and a second time later


@dataclass(frozen=True)
class Conditions:
    """What a path does of its own accord; shares are from 0 to 1."""

    round_trip_ns: int  # from client to server and back, the same in either direction
    loss: float = 0.0  # share of packets that are lost, half of them on either leg
    reordering: float = 0.0  # share of packets that take longer, so that those behind overtake them
    duplication: float = 0.0  # share of packets that are delivered twice

    def one_way_ns(self, end: End, tap: float) -> int:
        """Return how long a packet takes between an end and the capture point.

        Args:
            end: which.
            tap: where the capture point lies on the way from client to server, from 0 to 1.
        """
        return round(self.round_trip_ns / 2 * (tap if end is End.CLIENT else 1 - tap))


@dataclass(frozen=True)
class PathSettings:
    """What a path is like."""

    tap: float  # where the capture point lies on the way from client to server, from 0 to 1
    usual: Conditions  # of all other connections
    special: Mapping[int, Conditions] = field(default_factory=dict)  # by the server's port, where unusual
    ip: int = 4  # version
    seed: str = ""  # of the random numbers

    def one_way_ns(self, server_port: int = 0) -> tuple[int, int]:
        """Return how long a connection's packets take between client and tap, and between tap and server."""
        conditions = self.special.get(server_port, self.usual)
        return conditions.one_way_ns(End.CLIENT, self.tap), conditions.one_way_ns(End.SERVER, self.tap)


@dataclass(frozen=True)
class Fault:
    """What is done on purpose to segments of a kind, as long as the fault is in place."""

    action: Action
    sender: End  # whose segments
    leg: Leg  # where
    kind: SegmentKind = SegmentKind.ANY
    server_port: int = 0  # of the connection; 0 for all
    times: int = 0  # to the first so many segments; 0 for all
    delay_ns: int = 0  # by which a segment is delayed, or after which it is duplicated


@dataclass(slots=True, frozen=True)
class Header:
    """The TCP header of a packet, as far as it is looked at here."""

    server_port: int
    flags: int  # the bits of the header
    seq: int  # as sent, not relative
    ack: int  # likewise; without meaning if there is no ACK flag
    length: int  # bytes of data

    @classmethod
    def of(cls, packet: bytes, sender: End) -> Header | None:
        """Read it from an IP packet; None if it is not TCP, or not whole.

        Args:
            packet: IPv4 or IPv6, without a link header, and without extension headers.
            sender: who sent it: the other one's port is the server's, or this one's.
        """
        if packet[0] >> 4 == 4:  # noqa: PLR2004 - the IP version
            start, protocol, end = (packet[0] & 15) * 4, packet[9], int.from_bytes(packet[2:4], "big")
        else:
            start, protocol = IPV6_HEADER, packet[6]
            end = start + int.from_bytes(packet[4:6], "big")
        if protocol != TCP or len(packet) < start + TCP_HEADER.size:
            return None
        source, destination, seq, ack, offset, flags = TCP_HEADER.unpack_from(packet, start)
        port = destination if sender is End.CLIENT else source
        return cls(port, flags, seq, ack, end - start - (offset >> 4) * 4)

    @property
    def pure_ack(self) -> bool:
        """Whether it is an ACK without data, SYN, FIN and RST."""
        return self.length == 0 and self.flags & (SYN | FIN | RST | ACK) == ACK


@dataclass
class Fins:
    """Tells of what kind a segment is, and so notes every FIN."""

    # By the server's port and the sender, the sequence number past its newest FIN.
    past: dict[tuple[int, End], int] = field(default_factory=dict)

    def note(self, sender: End, header: Header) -> None:
        """Take in what an end sends.

        Args:
            sender: the end.
            header: of its segment.
        """
        if header.flags & SYN:
            self.past.pop((header.server_port, sender), None)
        if header.flags & FIN:
            self.past[header.server_port, sender] = (header.seq + header.length + 1) % MODULUS

    def matches(self, kind: SegmentKind, sender: End, header: Header) -> bool:
        """Whether a segment is of a kind.

        Args:
            kind: of which kind.
            sender: the segment's.
            header: the segment's.
        """
        match kind:
            case SegmentKind.ANY:
                return True
            case SegmentKind.SYN:
                return bool(header.flags & SYN)
            case SegmentKind.FIN:
                return bool(header.flags & FIN)
            case SegmentKind.RST:
                return bool(header.flags & RST)
            case SegmentKind.DATA:
                return header.length > 0
            case SegmentKind.PURE_ACK:
                return header.pure_ack
            case SegmentKind.ACK_OF_FIN:
                past = self.past.get((header.server_port, sender.peer))
                return header.pure_ack and past is not None and difference(header.ack, past) >= 0
