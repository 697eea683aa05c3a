"""A conversation arranged for questions: what each endpoint sent, and when, before or after a step.

Left out are *strays*: segments of the connection's addresses and ports that are no part of it and change
nothing. That is

- what lies outside any window, and a FIN without ACK (RFC 9293 3.10.7.4: dropped, whatever else it holds);
- an ACK that answers a SYN and belongs to an older connection, which its sender still has (RFC 9293 figure
  9), and the RST that answers that ACK.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import wraps
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from closeseq.connections.conversation import ENDS, Conversation, End, Event, Opener, Position, Traffic
from closeseq.packets.segments import ACK, FIN, RST, SYN, difference
from closeseq.packets.value import individual
from closeseq.settings import SECOND
from closeseq.tcp.distance import Distance, Knowledge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from closeseq.connections.conversation import Conversation

MILLISECOND = SECOND // 1000
REPEATS = (Position.RETRANSMISSION, Position.OVERLAP, Position.PROBE)
F = TypeVar("F", bound=Callable[..., Any])

OUTSIDE = "no part of the connection: its number lies outside the window"
WITHOUT_ACK = "no part of the connection: a FIN without ACK is dropped"
OLDER = "of an older connection, which its sender still has"
ANSWERS_OLDER = "answers a segment of an older connection"


@individual
class SentSegment:
    """What one endpoint sent in one step: a single event, or its half of a stretch of traffic."""

    step: int  # index into the conversation's steps
    sender: End
    packet: int  # the first one's number
    first_ns: int  # since the Unix epoch
    last_ns: int  # of the last one; of an event, the same
    seq: int | None  # of the first byte; None for traffic
    end: int  # highest number past it
    ack: int | None  # highest acknowledgement
    tsval: int | None  # of the last one, as the next; None without timestamps
    tsecr: int | None
    bytes: int  # of payload
    event: Event | None = None  # None for traffic
    reset: bool = False  # RST
    answer: bool = False  # RST without ACK: its sender has no such connection (RFC 9293 3.10.7.1)
    aborts: bool = False  # RST with ACK: its sender still has the connection and aborts it
    opens: bool = False  # SYN without ACK
    stale: bool = False  # its timestamp is older than an earlier one's: a delayed duplicate (PAWS rejects it)
    ip_id: int = -1  # IPv4 identification, of the last segment; 0 if it shows nothing, -1 for IPv6
    ticks: int = 0  # of its timestamp clock since its sender's first segment
    segments: int = 1  # how many it is; 1 for an event
    unanswered: bool = False  # traffic that ends with something which calls for an answer and has none


class Evidence:
    """A conversation, arranged by what each endpoint sent.

    Args:
        conversation: the connection.
        now_ns: the moment for which it is asked, since the Unix epoch.
    """

    def __init__(self, conversation: Conversation, now_ns: int) -> None:
        self.conversation = conversation
        self.now_ns = now_ns
        self.sent: dict[End, list[SentSegment]] = {End.CLIENT: [], End.SERVER: []}
        self.strays = strays(conversation)
        clocks = {End.CLIENT: TimestampClock(), End.SERVER: TimestampClock()}
        for index, step in enumerate(conversation.steps):
            if isinstance(step, Event):
                if index in self.strays:
                    continue
                self.sent[step.sender].append(_event(index, step, clocks[step.sender]))
            else:
                for end in ENDS:
                    self.sent[end] += _stream(index, step, end, clocks[end])
        self._steps = {end: [s.step for s in segments] for end, segments in self.sent.items()}
        self._transmissions = {
            (end, flag): [s for s in segments if s.event and s.event.flags & flag and not s.reset]
            for end, segments in self.sent.items()
            for flag in (SYN, FIN)
        }
        self._least_waits: dict[End, dict[int, int]] = {}  # by step: of what was stamped until then
        self.cache: dict[object, Any] = {}  # of `cached_on_evidence`
        self.round_trip_ns = conversation.round_trip_ns
        self.distance = Distance.of(conversation)

    def after(self, end: End, step: int) -> Sequence[SentSegment]:
        """Return what an endpoint sent after a step, given by its index, in order of time."""
        return self.sent[end][bisect_right(self._steps[end], step) :]

    def before(self, end: End, step: int) -> Sequence[SentSegment]:
        """Return what an endpoint sent before a step, given by its index, in order of time."""
        return self.sent[end][: bisect_left(self._steps[end], step)]

    def acked_before(self, end: End, step: int) -> int | None:
        """Return the highest acknowledgement that an endpoint had sent before a step; None without any."""
        return max((s.ack for s in self.before(end, step) if s.ack is not None), default=None)

    def transmissions(self, sender: End, flag: int) -> Sequence[SentSegment]:
        """Return the segments of a sender that carry SYN or FIN, in order of time; `flag` says which."""
        return self._transmissions[sender, flag]

    def repeats_data(self, end: End) -> bool:
        """Whether an endpoint retransmitted data, as captured; a single byte looks like a keepalive."""
        steps = self.conversation.steps
        if any(
            isinstance(s, Event) and s.sender is end and s.position in REPEATS and s.length for s in steps
        ):
            return True
        streams = [s.of(end) for s in steps if isinstance(s, Traffic)]
        return sum(one.retransmissions + one.probes for one in streams) > 0

    def made_ns(self, segment: SentSegment) -> int:
        """Return the latest time at which a segment was made, by its timestamp (ns since the epoch).

        It may have waited before the capture point. A clock may tick once in 1 ms (Linux) or more slowly:
        taking a tick for 1 ms, the time is never put later than it was.
        """
        if segment.tsval is None:
            return segment.last_ns
        least = self._least_waits.get(segment.sender)
        if least is None:
            stamped = [s for s in self.sent[segment.sender] if s.tsval is not None]
            waits = accumulate((s.last_ns - s.ticks * MILLISECOND for s in stamped), min)
            least = self._least_waits[segment.sender] = {
                s.step: wait for s, wait in zip(stamped, waits, strict=True)
            }
        return min(segment.last_ns, segment.ticks * MILLISECOND + least[segment.step] + MILLISECOND)

    def knew(self, later: SentSegment, earlier: SentSegment) -> Knowledge:
        """Return whether the sender of the later of two segments, of different senders, knew the earlier."""
        return self.distance.knew(later.sender, later.first_ns, earlier.last_ns)

    def crossed(self, earlier: SentSegment, later: SentSegment) -> bool:
        """Whether two segments, of different senders, may have crossed: neither knew the other.

        Args:
            earlier: the one that passed the capture point first.
            later: the other one, whose sender may not have known of it.
        """
        return self.knew(later, earlier) is not Knowledge.MUST


class TimestampClock:
    """One endpoint's timestamp clock (RFC 7323), counted on from its first value."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._ticks = 0  # of the newest value since the first

    def read(self, tsval: int | None) -> tuple[bool, int]:
        """Return whether a value is older than one before, and its ticks since the first.

        Args:
            tsval: the value, 32 bits, which follows those read before; None without the option.
        """
        if tsval is None:
            return False, 0
        ticks = 0 if self._newest is None else self._ticks + difference(tsval, self._newest)
        stale = ticks < self._ticks
        if not stale:
            self._newest, self._ticks = tsval, ticks
        return stale, ticks


def _event(index: int, event: Event, clock: TimestampClock) -> SentSegment:
    syn, rst, ack = event.flags & SYN, event.flags & RST, event.flags & ACK
    stale, ticks = clock.read(event.tsval)
    return SentSegment(
        index,
        event.sender,
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
        reset=bool(rst),
        answer=bool(rst and not ack),
        aborts=bool(rst and ack),
        opens=bool(syn and not ack and not rst),
        stale=stale,
        ip_id=event.ip_id,
        ticks=ticks,
    )


def _stream(index: int, traffic: Traffic, end: End, clock: TimestampClock) -> list[SentSegment]:
    stream = traffic.of(end)
    if not stream or stream.end is None:
        return []
    stale, ticks = clock.read(stream.tsval)
    return [
        SentSegment(
            index,
            end,
            stream.first_packet,
            stream.first_ns,
            stream.last_ns,
            None,
            stream.end,
            stream.ack,
            stream.tsval,
            stream.tsecr,
            stream.bytes,
            stale=stale,
            ip_id=stream.ip_id,
            ticks=ticks,
            segments=stream.segments,
            unanswered=stream.unanswered > 0,
        )
    ]


def strays(conversation: Conversation) -> Mapping[int, str]:
    """Return the steps that are no part of the connection, by index, each with the reason."""
    found: dict[int, str] = {}
    for index, step in enumerate(conversation.steps):
        if isinstance(step, Event) and step.position is Position.OUTSIDE:
            found[index] = WITHOUT_ACK if step.fin and step.ack is None else OUTSIDE
    if conversation.opener is Opener.SEEN:
        for end in ENDS:
            found |= _older(conversation, end)
    return found


def _older(conversation: Conversation, end: End) -> dict[int, str]:
    """Find what an endpoint sent of an older connection before it took part in this one, and its answers."""
    found: dict[int, str] = {}
    syn_passed = False  # the peer's
    numbers: set[int] = set()  # that those segments acknowledge
    for index, step in enumerate(conversation.steps):
        if not isinstance(step, Event):
            break
        if step.sender is end:
            if step.syn or step.rst or not syn_passed:
                break
            if (
                step.ack is not None
                and step.pure_ack
                and step.ack != 1
                and step.position is not Position.OUTSIDE
            ):
                found[index] = OLDER
                numbers.add(step.ack)
            elif index not in found:
                break
        elif step.syn and step.ack is None:
            syn_passed = True
        elif step.rst and step.ack is None and step.seq in numbers:
            found[index] = ANSWERS_OLDER
    return found


def cached_on_evidence(inference: F) -> F:
    """Keep in the evidence what a function of (evidence, end, number, transmissions) returns.

    In a strange capture a SYN and a FIN may end in the same number, so the number and the first transmission
    together are the key.

    Args:
        inference: pure, and called by position. Its third argument may also be a segment, or be left out.
    """

    @wraps(inference)
    def infer(evidence: Evidence, end: End, number: Any = None, *rest: Sequence[SentSegment]) -> Any:
        key = (inference, end, number, rest[0][0].step if rest and rest[0] else None)
        cache = evidence.cache
        if key in cache:
            return cache[key]
        arguments = rest if number is None else (number, *rest)
        found = cache[key] = inference(evidence, end, *arguments)
        return found

    return infer  # type: ignore[return-value]
