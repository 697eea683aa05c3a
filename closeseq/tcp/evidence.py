"""A conversation arranged for questions: what each end said, and when, before or after a step."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Conversation, End, Event, Position, Traffic
from closeseq.packets.flags import ACK
from closeseq.tcp.timers import SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLISECOND = SECOND // 1000


@dataclass(frozen=True, slots=True)
class Said:
    """What one end sent in one step: a single event, or its half of a stretch of traffic."""

    step: int  # index into the conversation's steps
    packet: int  # the first one's number
    first_ns: int
    last_ns: int
    seq: int | None  # of the first byte; None for traffic
    end: int  # highest number past it
    ack: int | None  # highest acknowledgement
    tsval: int | None
    tsecr: int | None
    bytes: int  # of payload
    event: Event | None  # None for traffic

    @property
    def reset(self) -> bool:
        return self.event is not None and self.event.rst

    @property
    def answer(self) -> bool:
        """A RST without ACK: the answer of an end that has no such connection (RFC 9293 3.10.7.1)."""
        return self.event is not None and self.event.rst and not self.event.flags & ACK

    @property
    def aborts(self) -> bool:
        """A RST with ACK: an end that still had the connection gives it up."""
        return self.event is not None and self.event.rst and bool(self.event.flags & ACK)

    @property
    def opens(self) -> bool:
        """A SYN without ACK."""
        return self.event is not None and self.event.syn and not self.event.flags & ACK

    @property
    def repeated(self) -> bool:
        """Whether it had been sent before."""
        return self.event is not None and self.event.position in (Position.RETRANSMISSION, Position.OVERLAP)


class Evidence:
    """A conversation, arranged by what each end said."""

    def __init__(self, conversation: Conversation, now_ns: int) -> None:
        self.conversation = conversation
        self.now_ns = now_ns
        self.said: dict[End, list[Said]] = {End.CLIENT: [], End.SERVER: []}
        for index, step in enumerate(conversation.steps):
            if isinstance(step, Event):
                self.said[step.sender].append(_event(index, step))
            else:
                for end in End:
                    self.said[end] += _stream(index, step, end)
        self._steps = {end: [s.step for s in said] for end, said in self.said.items()}
        self.round_trip_ns = _round_trip(conversation)
        # Two segments this close may have crossed: neither end had seen the other's when it sent its own.
        self.crossing_ns = 2 * self.round_trip_ns + MILLISECOND

    def after(self, end: End, step: int) -> Sequence[Said]:
        """Return what an end said after a step."""
        return self.said[end][bisect_right(self._steps[end], step) :]

    def before(self, end: End, step: int) -> Sequence[Said]:
        """Return what an end said before a step."""
        return self.said[end][: bisect_left(self._steps[end], step)]

    def acked_before(self, end: End, step: int) -> int | None:
        """Return the highest acknowledgement an end had sent before a step."""
        return max((s.ack for s in self.before(end, step) if s.ack is not None), default=None)

    def copies(self, sender: End, flag: int) -> list[Said]:
        """Return the events of a sender that carry SYN or FIN, in order of time."""
        return [s for s in self.said[sender] if s.event and s.event.flags & flag and not s.event.rst]

    def crossed(self, earlier: Said, later: Said) -> bool:
        """Whether the later of two segments, of different senders, may have been sent without the earlier."""
        return later.first_ns - earlier.last_ns < self.crossing_ns


def _event(index: int, event: Event) -> Said:
    return Said(
        index,
        event.packet,
        event.time_ns,
        event.time_ns,
        event.seq,
        event.end,
        event.ack,
        event.tsval,
        event.tsecr,
        event.length,
        event,
    )


def _stream(index: int, traffic: Traffic, end: End) -> list[Said]:
    stream = traffic.of(end)
    if not stream or stream.end is None:
        return []
    return [
        Said(
            index,
            stream.first_packet,
            stream.first_ns,
            stream.last_ns,
            None,
            stream.end,
            stream.ack,
            stream.tsval,
            stream.tsecr,
            stream.bytes,
            None,
        )
    ]


def _round_trip(conversation: Conversation) -> int:
    """Return the longest answer time of the handshake, in nanoseconds: how long packets can cross."""
    first = [step for step in conversation.steps[:4] if isinstance(step, Event) and not step.rst]
    waits = [
        later.time_ns - earlier.time_ns
        for earlier, later in itertools.pairwise(first)
        if earlier.syn and later.sender is not earlier.sender
    ]
    return max(waits, default=0)
