"""One connection as all later stages know it: plain Python, no column, no state.

Words used here and from here on:

- *client*: the endpoint that opened the connection actively; *server*: the endpoint that was listening.
- *sender* and *receiver* belong to one segment, *client* and *server* to the connection.
- *event*: a segment that can change a state or prove something. Everything else is *traffic*.
- Sequence numbers are relative to the endpoint's SYN (which is 0; the first byte of data is 1) and
  unwrapped, so they never wrap; without a captured SYN the first byte seen is 1.

The *shape* of a connection is its major events in one line, such as `C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A`.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from closeseq.packets.segments import ACK, FIN, PSH, RST, SYN, letters
from closeseq.packets.value import value

if TYPE_CHECKING:
    from collections.abc import Iterator


class End(StrEnum):
    """One of the two endpoints of a connection."""

    peer: End  # the other endpoint

    CLIENT = "client"
    SERVER = "server"


# Looked up, not computed, and not iterated over: a replay asks for them hundreds of times.
ENDS = (End.CLIENT, End.SERVER)
End.CLIENT.peer, End.SERVER.peer = End.SERVER, End.CLIENT


class Position(StrEnum):
    """A segment's sequence numbers against those that its sender had sent before (as captured)."""

    NEW = "new"
    RETRANSMISSION = "retransmission"
    OVERLAP = "overlap"  # begins in what was sent before and goes beyond it
    GAP = "gap"  # bytes in between had not passed the capture point
    PROBE = "probe"  # a keepalive: one below the next number, 0 or 1 byte, no flags
    REORDERED = "reordered"  # sent earlier than what passed before it: it was overtaken
    OUTSIDE = "outside"  # further ahead than any window, or a FIN without ACK: no part of the connection


class Opener(StrEnum):
    """How we know which endpoint is the client."""

    SEEN = "seen"  # a SYN or SYN+ACK was captured
    INFERRED = "inferred"


class Address(NamedTuple):
    """An endpoint's IP address, as text, and port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@value
class Event:
    """One segment that can change a state or prove something."""

    packet: int  # number in the capture, from 1
    time_ns: int  # since the Unix epoch
    sender: End
    flags: int  # control bits of packets.segments
    seq: int  # relative to the sender's SYN
    ack: int | None  # relative to the receiver's SYN; None without the ACK flag
    length: int  # bytes of payload
    position: Position  # against what its sender had sent before
    window: int = 65535  # as on the wire, not scaled
    tsval: int | None = None  # timestamps option, 32-bit values; None without it
    tsecr: int | None = None  # its echo; None without the option
    dsack: tuple[int, int] | None = None  # a D-SACK block, relative like `ack`: it arrived twice
    sack: int | None = None  # the highest right edge of its SACK blocks, relative like `ack`; None without
    ttl: int = 64  # TTL or hop limit, as captured
    ip_id: int = -1  # -1 for IPv6
    syn_options: int = 0  # the kinds of a SYN's options in order, four bits each; 0 for other segments
    elsewhere: bool = False  # a RST whose frame came another way than its sender's others
    reason: str = ""  # what a RST says of its reason (packets/reset_reasons.py)

    @property
    def syn(self) -> bool:
        return bool(self.flags & SYN)

    @property
    def fin(self) -> bool:
        return bool(self.flags & FIN)

    @property
    def rst(self) -> bool:
        return bool(self.flags & RST)

    @property
    def end(self) -> int:
        """The sequence number after this segment; SYN and FIN take one each (RFC 9293 3.4)."""
        return self.seq + self.length + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def pure_ack(self) -> bool:
        """Whether it only acknowledges: no data, no SYN, FIN or RST."""
        return not self.flags & (SYN | FIN | RST) and bool(self.flags & ACK) and self.length == 0

    @property
    def letters(self) -> str:
        """The flags as letters out of SFRAP."""
        return letters(self.flags)


@value
class Stream:
    """One direction's part of the traffic between two events."""

    segments: int = 0  # captured, duplicates left out
    bytes: int = 0  # of payload, retransmissions included
    first_packet: int = 0  # number in the capture; 0 without segments
    last_packet: int = 0  # and that of the last one
    first_ns: int = 0  # since the Unix epoch
    last_ns: int = 0  # time of the last one
    retransmissions: int = 0  # segments with data whose position was retransmission or overlap
    gaps: int = 0  # segments whose position was gap
    reordered: int = 0  # segments that were overtaken
    probes: int = 0  # keepalives
    probe_packet: int = 0  # the first of those
    probe_ns: int = 0  # and its time
    end: int | None = None  # highest sequence number past any segment but RST; None without one
    ack: int | None = None  # highest acknowledgement sent
    tsval: int | None = None  # of the last segment
    tsecr: int | None = None  # of the last segment
    ip_id: int = -1  # of the last segment; 0 if they do not simply count up, -1 for IPv6
    zero_windows: int = 0  # segments that announced a window of 0
    controls: int = 0  # segments with SYN, FIN or RST, beyond the first of many alike
    unanswered: int = 0  # segments after the other direction's last one that require an answer
    unanswered_packet: int = 0  # the first of those
    unanswered_ns: int = 0  # and its time

    def __bool__(self) -> bool:
        return self.segments > 0


@value
class Traffic:
    """The traffic between two events, in digest."""

    client: Stream = field(default_factory=Stream)
    server: Stream = field(default_factory=Stream)

    def of(self, end: End) -> Stream:
        """Return what an endpoint sent of it."""
        return self.client if end is End.CLIENT else self.server

    @property
    def packet(self) -> int:
        """The number of the first of these packets."""
        return min(s.first_packet for s in (self.client, self.server) if s)

    @property
    def time_ns(self) -> int:
        """The time of the first of these packets."""
        return min(s.first_ns for s in (self.client, self.server) if s)

    @property
    def last_ns(self) -> int:
        """The time of the last of these packets."""
        return max(s.last_ns for s in (self.client, self.server) if s)

    @property
    def segments(self) -> int:
        """How many segments both endpoints sent of it."""
        return self.client.segments + self.server.segments


class Duplicates(NamedTuple):
    """How many packets were duplicates of one before them, of each kind (see compose.py)."""

    captured: int = 0  # the same packet, captured twice
    delivered: int = 0  # the network duplicated it, and the receiver got both
    unclear: int = 0  # one or the other
    resets: int = 0  # one or the other, or a RST sent once for each segment that it answers
    packets: tuple[int, ...] = ()  # duplicates of a FIN, each with the ACK that answered it


@value
class Path:
    """What the path did to the segments of one endpoint, as far as the capture point shows."""

    response_ns: int | None = None  # least time in which this endpoint answered something, None: it never did
    answers: int = 0  # how many such times were measured
    moves: int = 0  # how often its frames, but for RSTs, began to come another way (whereabouts.py)
    reordered: int = 0  # segments that were overtaken on their way to the capture point
    lost_before: int = 0  # segments lost on their way to the capture point, and retransmitted
    lost_after: int = 0  # segments captured, retransmitted before an ACK: lost beyond it, or their ACK was
    missed: int = 0  # times that the capture missed something: the peer acknowledged it all the same
    missed_packet: int = 0  # the packet that shows the first of them
    missed_ns: int = 0  # and its time, since the Unix epoch


@value
class Conversation:
    """One connection as it was captured: its endpoints, and its steps in time order."""

    id: int  # from 1, in the order of the first packet
    incarnation: int  # from 1, among the connections of this pair
    client: Address
    server: Address
    opener: Opener  # how we know which of the two is the client
    steps: tuple[Event | Traffic, ...]  # in time order; traffic stands between events
    client_packets: int  # captured, duplicates left out
    server_packets: int
    client_bytes: int  # payload captured, retransmissions included
    server_bytes: int
    first_ns: int  # time of its first packet, since the Unix epoch
    last_ns: int  # and of its last
    copies: int = 0  # duplicates of packets, which were left out
    client_path: Path = Path()  # what the path did to the client's segments
    server_path: Path = Path()
    successor: Event | None = None  # the SYN that opened the next incarnation of the pair
    duplicates: Duplicates = field(default_factory=Duplicates)  # how many of `copies` are of which kind
    client_vlans: tuple[int, ...] = ()  # in which its packets were first seen, the outermost first
    server_vlans: tuple[int, ...] = ()

    @property
    def first_packet(self) -> int:
        """The number of its first packet."""
        return self.steps[0].packet if self.steps else 1

    @property
    def events(self) -> tuple[Event, ...]:
        """Its events without the traffic, in time order."""
        return tuple(step for step in self.steps if isinstance(step, Event))

    def address(self, end: End) -> Address:
        """Return an endpoint's address and port."""
        return self.client if end is End.CLIENT else self.server

    def path(self, end: End) -> Path:
        """Return what the path did to an endpoint's segments."""
        return self.client_path if end is End.CLIENT else self.server_path

    def lost_near(self, end: End) -> int:
        """Return how many segments, in both directions, were lost between an endpoint and the capture point.

        Those that it sent and that were not captured, and those that were captured on their way to it; for
        the latter, the loss of their acknowledgement looks the same.

        Args:
            end: the endpoint.
        """
        return self.path(end).lost_before + self.path(end.peer).lost_after

    @property
    def round_trip_ns(self) -> int:
        """The longest answer time of the handshake, in nanoseconds: how long packets can cross."""
        first = [step for step in self.steps[:4] if isinstance(step, Event) and not step.rst]
        waits = [
            answer.time_ns - asked.time_ns
            for asked, answer in pairwise(first)
            if asked.syn and answer.sender is not asked.sender
        ]
        return max([0, *waits])


TRAFFIC = "~"
LETTER = {End.CLIENT: "C", End.SERVER: "S"}


def shape(conversation: Conversation) -> str:
    """Return one word for each SYN, FIN, RST and ACK that first covers a SYN or FIN; the rest is `~`."""
    words: list[str] = []
    for word in _words(conversation):
        if word != TRAFFIC or words[-1:] != [TRAFFIC]:
            words.append(word)
    return " ".join(words)


def _words(conversation: Conversation) -> Iterator[str]:
    """Yield a word for each step."""
    acked: set[End] = set()  # have sent an acknowledgement
    syn: set[End] = set()  # have sent a SYN
    uncovered: dict[End, int] = {}  # FINs sent and not yet acknowledged: their end
    fin_end: dict[End, int] = {}
    for step in conversation.steps:
        if isinstance(step, Traffic):
            acked.update(end for end in ENDS if step.of(end).ack is not None)
            yield TRAFFIC
            continue
        sender, peer, flags = step.sender, step.sender.peer, step.flags
        acknowledges = step.ack is not None
        covers_syn = acknowledges and peer in syn and sender not in acked
        covers_fin = step.ack is not None and peer in uncovered and step.ack >= uncovered[peer]
        major = flags & (SYN | FIN | RST) or covers_syn or covers_fin
        yield f"{LETTER[sender]}:{letters(flags & ~PSH)}" if major else TRAFFIC
        if acknowledges:
            acked.add(sender)
        if flags & SYN:
            syn.add(sender)
        if covers_fin:
            del uncovered[peer]
        if flags & FIN and step.position is not Position.OUTSIDE:
            fin_end[sender] = uncovered[sender] = max(step.end, fin_end.get(sender, step.end))
