"""IP fragments of TCP segments, reassembled as far as a TCP header needs it.

Needed are the TCP header, of which a first fragment may hold only a part, and the length of the segment,
which only the last fragment gives. So for each packet the first 60 bytes of its payload are kept, and which
parts of the rest were seen.

Memory is bounded, whoever sends fragments: by packets, by fragments of a packet, and by time.
Fragments that contradict each other make their packet unreadable, as RFC 5722 demands for IPv6 and Linux
does for both: two that overlap, an end behind the end, one that is no multiple of 8 bytes and not the last.
The same fragment again is no contradiction; the network repeats packets, and a mirror port shows them twice.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.packets.protocols import PROTOCOL_TCP

if TYPE_CHECKING:
    from closeseq.segments.encapsulation import Piece

KEPT = 60  # bytes: the longest TCP header
LONGEST = 65_515  # bytes of an IPv4 packet's payload; IPv6 fragments reach at most 20 bytes beyond
MOST_PACKETS = 512
MOST_PIECES = 256  # of one packet; an MTU of 576 bytes makes 119 of the largest
LONGEST_WAIT_NS = 30_000_000_000  # Linux's ipfrag_time; RFC 8200 4.5 allows a minute
IPV4_BYTES, IPV6_BYTES = 20, 40  # of the headers without options

Key = tuple[int, int, int, bytes]  # version, VLANs, identification, addresses


@dataclass(slots=True)
class Packet:
    """One packet that comes in fragments, as far as they have come."""

    began_ns: int  # when its first fragment was captured, since the Unix epoch
    spans: list[tuple[int, int]] = field(default_factory=list)  # begin and end in the payload, ascending
    size: int | None = None  # bytes of payload, once the last fragment is there
    header: bytes = b""  # the IP header of the first fragment, without options
    beginning: dict[int, bytes] = field(default_factory=dict)  # the first bytes, as captured, by place
    contradictory: bool = False  # stays so that the rest of its fragments begins nothing

    def add(self, begin: int, end: int, more: bool) -> bool:
        """Add a part. One that contradicts the others makes the packet unreadable.

        Args:
            begin: its first byte in the packet's payload, from 0.
            end: the byte behind its last.
            more: whether other fragments follow (RFC 791 3.1: MF).

        Returns:
            Whether it is new, and contradicts nothing.
        """
        at = bisect_left(self.spans, (begin, end))
        if at < len(self.spans) and self.spans[at] == (begin, end):
            return False
        overlaps = (at > 0 and self.spans[at - 1][1] > begin) or (
            at < len(self.spans) and self.spans[at][0] < end
        )
        last = self.spans[-1][1] if self.spans else 0
        beyond = end > (end if self.size is None else self.size)
        if not more:
            beyond |= self.size not in (None, end) or last > end
            self.size = end
        odd = more and end % 8 != 0
        if overlaps or beyond or odd or end > LONGEST or len(self.spans) >= MOST_PIECES:
            self.contradictory = True
            self.spans, self.beginning = [], {}
            return False
        self.spans.insert(at, (begin, end))
        return True

    @property
    def whole(self) -> bool:
        """Whether all of its parts have come."""
        return self.size is not None and sum(end - begin for begin, end in self.spans) == self.size

    def captured(self) -> bytes:
        """Return the first bytes of the payload, as far as they were captured without a hole."""
        octets = b""
        while piece := self.beginning.get(len(octets)):
            octets += piece
        return octets[:KEPT]


class Fragments:
    """The packets of which some fragments have come, and not all."""

    def __init__(self) -> None:
        self._packets: dict[Key, Packet] = {}  # the longest waiting first

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, frame: bytes, piece: Piece, time_ns: int) -> bytes | None:
        """Add a fragment; return the beginning of the packet it completes, up to all of TCP's header.

        Args:
            frame: what was captured of the frame that the fragment is in.
            piece: where in it the fragment is.
            time_ns: when it was captured, since the Unix epoch; old packets are given up by it.

        Returns:
            IP header without options, and up to `KEPT` bytes behind it, as far as they were captured; the
            lengths in it are those of the whole packet. None if it completes none.
        """
        key = (piece.version, piece.vlan, piece.identification, _addresses(frame, piece))
        packet = self._packets.get(key)
        if packet is None or abs(time_ns - packet.began_ns) > LONGEST_WAIT_NS:
            self._packets.pop(key, None)
            if len(self._packets) >= MOST_PACKETS:
                del self._packets[next(iter(self._packets))]
            packet = self._packets[key] = Packet(time_ns)
        size = _payload_bytes(frame, piece)
        if packet.contradictory or size <= 0 or not packet.add(piece.offset, piece.offset + size, piece.more):
            return None
        if piece.offset == 0:
            packet.header = frame[piece.ip : piece.ip + (IPV4_BYTES if piece.version == 4 else IPV6_BYTES)]  # noqa: PLR2004
        if piece.offset < KEPT:
            packet.beginning[piece.offset] = frame[piece.data : piece.data + min(size, KEPT)]
        if not packet.whole:
            return None
        del self._packets[key]
        return _whole(piece.version, packet)


def _addresses(frame: bytes, piece: Piece) -> bytes:
    begin, end = (12, 20) if piece.version == 4 else (8, 40)  # noqa: PLR2004
    return frame[piece.ip + begin : piece.ip + end]


def _payload_bytes(frame: bytes, piece: Piece) -> int:
    """Return how much of the packet's payload a fragment holds, by its IP header."""
    at = 2 if piece.version == 4 else 4  # noqa: PLR2004
    stated: int = struct.unpack_from(">H", frame, piece.ip + at)[0]
    if piece.version != 4:  # noqa: PLR2004
        stated += IPV6_BYTES
    return stated - (piece.data - piece.ip)


def _whole(version: int, packet: Packet) -> bytes:
    """Return a packet as if it had come in one piece: no options, no extension headers."""
    assert packet.size is not None
    if version == 4:  # noqa: PLR2004
        head = bytearray(packet.header)
        head[0] = 0x45
        struct.pack_into(">H", head, 2, IPV4_BYTES + packet.size)
        struct.pack_into(">H", head, 6, 0)
        head[9] = PROTOCOL_TCP
    else:
        head = bytearray(packet.header)
        struct.pack_into(">HB", head, 4, packet.size, PROTOCOL_TCP)
    return bytes(head) + packet.captured()
