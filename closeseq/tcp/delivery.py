"""What reached the other end, and how surely we know.

A capture shows what was *sent*. Whether a segment arrived must be inferred from what its receiver sent
later: above all from its acknowledgement numbers, which say exactly how far it had received when it sent
them (RFC 9293 3.4), and from its timestamp echoes, which tell one copy from another (RFC 7323 4).

Two questions cover SYN and FIN alike, since each takes one sequence number:

- `accepted`: when did the receiver take the sender's SYN or FIN, in order?
- `acknowledged`: when did the sender learn that it was taken?

and a third covers RST: `reset_taken`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from closeseq.connections.conversation import Conversation, End, Event, Position
from closeseq.packets.flags import ACK, FIN, RST, SYN
from closeseq.packets.sequence import difference
from closeseq.tcp.timeline import Certainty
from closeseq.tcp.timers import SECOND

# RFC 6298 2.4 has the first retransmission time-out at 1 s; Linux waits at least 0.2 s. Silence counts as
# silence when it is clearly longer than the more patient of the two.
FIRST_TIMEOUT_NS = 1_200_000_000
BACKOFF = 2.5  # each wait about doubles (RFC 6298 5.5)
MILLISECOND = SECOND // 1000


@dataclass(frozen=True, slots=True)
class Said:
    """What one end sent in one step: a single event, or its half of a stretch of traffic."""

    step: int  # index into the conversation's steps
    packet: int
    first_ns: int
    last_ns: int
    seq: int | None  # of the first byte; None for traffic
    end: int  # highest number past it
    ack: int | None  # highest acknowledgement
    tsval: int | None
    tsecr: int | None
    bytes: int  # of payload
    event: Event | None

    @property
    def reset(self) -> bool:
        return self.event is not None and self.event.rst

    @property
    def carries_data(self) -> bool:
        return self.bytes > 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """A segment took effect at the other end."""

    step: int  # the step with which it took effect
    before: bool  # True: it had taken effect before this step's segment was sent
    packet: int  # the segment that did it, as far as known
    time_ns: int
    certainty: Certainty
    unseen: bool = False  # the segment itself was not captured


class Evidence:
    """A conversation, arranged by what each end said."""

    def __init__(self, conversation: Conversation, now_ns: int) -> None:
        self.conversation = conversation
        self.now_ns = now_ns
        self.said: dict[End, list[Said]] = {End.CLIENT: [], End.SERVER: []}
        for index, step in enumerate(conversation.steps):
            if isinstance(step, Event):
                self.said[step.sender].append(_said_event(index, step))
                continue
            for end in End:
                stream = step.of(end)
                if stream:
                    self.said[end].append(
                        Said(
                            index,
                            stream.first_packet,
                            stream.first_ns,
                            stream.last_ns,
                            None,
                            stream.end or 0,
                            stream.ack,
                            stream.tsval,
                            stream.tsecr,
                            stream.bytes,
                            None,
                        )
                    )
        self._steps = {end: [s.step for s in said] for end, said in self.said.items()}
        self.round_trip_ns = _round_trip(conversation)
        # Two segments this close may have crossed: neither end had seen the other's when it sent its own.
        self.crossing_ns = 2 * self.round_trip_ns + MILLISECOND

    def after(self, end: End, step: int) -> Sequence[Said]:
        """Return what an end said after a step."""
        return self.said[end][bisect_right(self._steps[end], step) :]

    def before(self, end: End, step: int) -> Sequence[Said]:
        """Return what an end said before a step."""
        said = self.said[end]
        cut = bisect_right(self._steps[end], step)
        while cut and said[cut - 1].step >= step:
            cut -= 1
        return said[:cut]

    def acked_before(self, end: End, step: int) -> int | None:
        """Return the highest acknowledgement an end had sent before a step."""
        acks = [s.ack for s in self.before(end, step) if s.ack is not None]
        return max(acks, default=None)

    def copies(self, sender: End, flag: int) -> list[Said]:
        """Return the events of a sender that carry SYN or FIN."""
        return [s for s in self.said[sender] if s.event and s.event.flags & flag and not s.event.rst]

    def horizon(self, sender: End, step: int) -> int:
        """Return until when the sender's silence after a step means anything: a RST ends its meaning."""
        resets = [s.first_ns for end in End for s in self.after(end, step) if s.reset]
        return min([self.now_ns, *resets])


def _said_event(index: int, event: Event) -> Said:
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


def _round_trip(conversation: Conversation) -> int:
    """Return the longest answer time of the handshake, in nanoseconds: how long packets can cross."""
    handshake = [e for e in conversation.events[:4] if not e.rst]
    waits = [
        later.time_ns - earlier.time_ns
        for earlier, later in zip(handshake, handshake[1:], strict=False)
        if earlier.syn and later.sender is not earlier.sender
    ]
    return max(waits, default=0)


def accepted(evidence: Evidence, sender: End, number_end: int, copies: Sequence[Said]) -> Receipt | None:
    """Say when the receiver took the sender's SYN or FIN whose number is `number_end - 1`.

    An acknowledgement at or past `number_end` proves it, and every one below it proves that it had not
    happened yet. So it happened between the last of those below and the first at or past it.
    """
    receiver = sender.peer
    cover = next(
        (s for s in evidence.said[receiver] if s.ack is not None and s.ack >= number_end and not _answer(s)), None
    )
    if cover is None:
        return _accepted_silently(evidence, sender, copies)
    certainty = Certainty.ASSUMED if cover.reset else Certainty.PROVED
    below = [s for s in evidence.before(receiver, cover.step) if s.ack is not None and not s.reset]
    last_below = below[-1] if below else None
    earlier = [s for s in copies if s.step < cover.step]
    if not earlier:  # it was sent, since it is acknowledged, but not captured
        return Receipt(cover.step, True, cover.packet, cover.first_ns, certainty, unseen=True)
    floor = last_below.step if last_below else -1
    candidates = [s for s in earlier if s.step > floor]
    if not candidates and last_below is not None:
        # All copies went before: what completed the stream in order is data that the sender sent since
        # (it filled a hole), or a copy was still under way while the receiver spoke.
        filled = [s for s in evidence.before(sender, cover.step) if s.step > floor and s.carries_data]
        if filled:
            return Receipt(filled[-1].step, False, filled[-1].packet, filled[-1].first_ns, certainty)
        return Receipt(last_below.step, False, earlier[-1].packet, last_below.last_ns, certainty)
    chosen, sure = _which_copy(candidates, cover, number_end)
    return Receipt(chosen.step, False, chosen.packet, chosen.first_ns, certainty if sure else Certainty.ASSUMED)


def _aborts(evidence: Evidence, end: End) -> bool:
    return any(s.reset and not _answer(s) for s in evidence.said[end])


def _answer(said: Said) -> bool:
    """Whether this is a RST without ACK: the answer of an end that has no such connection."""
    return said.event is not None and said.event.rst and not said.event.flags & ACK


def _which_copy(candidates: Sequence[Said], cover: Said, number_end: int) -> tuple[Said, bool]:
    """Return which of several copies was taken first, and whether the acknowledgement really tells."""
    if len(candidates) == 1:
        return candidates[0], True
    if cover.event is not None and cover.event.dsack is not None:
        left, right = cover.event.dsack
        if left < number_end <= right:  # RFC 2883: it arrived twice, so an earlier one did as well
            return candidates[0], len(candidates) == 2  # noqa: PLR2004 - of two copies both arrived
    # An echo proves that this copy arrived. A TIME_WAIT socket keeps the value of the first FIN it took.
    echoed = [s for s in candidates if s.tsval is not None and s.tsval == cover.tsecr]
    if echoed:
        return echoed[0], True
    return candidates[-1], False


def _accepted_silently(evidence: Evidence, sender: End, copies: Sequence[Said]) -> Receipt | None:
    """Say whether a SYN or FIN that no captured acknowledgement covers was taken all the same."""
    if not copies:
        return None
    receiver = sender.peer
    last = copies[-1]
    if any(not s.reset for s in evidence.after(receiver, last.step)):
        return None  # it went on acknowledging below
    if any(_answer(s) for s in evidence.after(receiver, last.step)):
        # It had no such connection any more. Had it been gone from the start, it would have answered the
        # first copy as well; what it sent in between, its own close included, was not captured.
        if len(copies) > 1 and not any(evidence.copies(receiver, FIN)) and not _aborts(evidence, receiver):
            return Receipt(copies[0].step, False, copies[0].packet, copies[0].first_ns, Certainty.ASSUMED)
        return None
    if len(copies) == 1:
        return Receipt(last.step, False, last.packet, last.first_ns, Certainty.ASSUMED)
    return None


def quiet(evidence: Evidence, sender: End, copies: Sequence[Said]) -> bool:
    """Whether the sender stopped repeating its SYN or FIN long before it had reason to give up."""
    if not copies:
        return False
    last = copies[-1]
    return evidence.horizon(sender, last.step) - last.first_ns > patience(evidence, copies)


def patience(evidence: Evidence, copies: Sequence[Said]) -> int:
    """Return how long after the last copy the next one would surely have been sent, in nanoseconds."""
    if len(copies) > 1:
        gap = copies[-1].first_ns - copies[-2].first_ns
        return max(int(gap * BACKOFF), FIRST_TIMEOUT_NS // 2)
    return FIRST_TIMEOUT_NS + 3 * evidence.round_trip_ns


def acknowledged(evidence: Evidence, sender: End, number_end: int, copies: Sequence[Said]) -> Receipt | None:
    """Say when the sender received an acknowledgement of its SYN or FIN.

    A sender repeats what it has not seen acknowledged, so whatever acknowledged it before the last copy
    did not arrive (unless the two crossed).
    """
    covers = [s for s in evidence.said[sender.peer] if s.ack is not None and s.ack >= number_end]
    last = copies[-1] if copies else None
    lost = [s for s in covers if last is not None and s.last_ns < last.first_ns - evidence.crossing_ns]
    told_by_silence = quiet(evidence, sender, copies)
    for cover in covers[len(lost) :]:
        verdict = echo(evidence, sender, cover)
        if verdict is False:
            continue
        told = verdict or told_by_silence or answered(evidence, sender, cover)
        if not told and (lost or _path_was_failing(evidence, sender.peer, cover)):
            return None  # what went before it was lost, and nothing says that this one fared better
        step = cover.step if last is None else max(cover.step, last.step)
        certainty = Certainty.PROVED if verdict else Certainty.ASSUMED
        return Receipt(step, False, cover.packet, cover.first_ns, certainty)
    if last is not None and told_by_silence and any(not s.reset for s in evidence.after(sender, last.step)):
        # It stopped repeating: an acknowledgement reached it that was not captured.
        return Receipt(last.step, False, last.packet, last.first_ns, Certainty.ASSUMED, unseen=True)
    return None


def _path_was_failing(evidence: Evidence, sender: End, said: Said) -> bool:
    """Whether the sender's FIN, sent before this segment, had still not arrived when its peer spoke next."""
    fins = [s for s in evidence.copies(sender, FIN) if s.step < said.step]
    heard = [
        s
        for s in evidence.after(sender.peer, said.step)
        if s.ack is not None and s.first_ns - said.first_ns > evidence.crossing_ns
    ]
    return bool(fins and heard and heard[0].ack is not None and heard[0].ack < fins[0].end)


def answered(evidence: Evidence, receiver: End, said: Said) -> bool:
    """Whether the receiver answered a segment with RST, which takes its number from what it answers.

    So the segment reached the host (RFC 9293 3.10.7.1), though perhaps no connection there any more.
    """
    later = evidence.after(receiver, said.step)
    if not later or not _answer(later[0]) or later[0].seq != said.ack:
        return False
    return not [s for s in evidence.after(receiver.peer, said.step) if s.step < later[0].step]


def echo(evidence: Evidence, receiver: End, said: Said) -> bool | None:
    """Say whether a segment reached `receiver`, by what that end sent later; None if nothing tells.

    It did if its data was acknowledged, or if the receiver echoes its timestamp and no earlier segment had
    the same one. It had not when the receiver still echoed an
    older timestamp (RFC 7323 4.3; only for a segment in order, since others leave TS.Recent alone).
    """
    event = said.event
    if event is None:
        return None
    later = evidence.after(receiver, said.step)
    spoken = [s for s in later if not _answer(s)]
    if event.end > event.seq and event.position is Position.NEW:
        if any(s.ack is not None and s.ack >= event.end for s in spoken):
            return True
    older = [s.tsval for s in evidence.before(receiver.peer, said.step) if s.tsval is not None]
    if said.tsval is None or (older and difference(said.tsval, older[-1]) <= 0):
        return None  # an earlier segment carries the same value
    for s in spoken:
        if s.tsecr is None or s.event is None:
            continue
        if difference(s.tsecr, said.tsval) >= 0:
            return True if s is spoken[0] or s.tsecr == said.tsval else None
        crossed = s.first_ns - said.first_ns < evidence.crossing_ns
        if not crossed and s.ack is not None and s.ack >= event.seq:
            return False
    return None


def reset_taken(evidence: Evidence, reset: Said, sender: End) -> Receipt | None:
    """Say whether a RST reached the other end and was acceptable there (RFC 9293 3.10.7.4, RFC 5961 3)."""
    event = reset.event
    assert event is not None
    receiver = sender.peer
    if not _acceptable(evidence, event, reset.step, sender):
        return None
    crossing = evidence.crossing_ns
    for s in evidence.after(receiver, reset.step):
        if not s.reset and s.last_ns - event.time_ns > crossing:
            return None  # it went on as before
        if s.reset and s.event is not None and s.event.flags & ACK and s.first_ns - event.time_ns > crossing:
            return None  # it was still there to abort
    if _insists(evidence, receiver, reset) and any(s.reset for s in evidence.before(sender, reset.step)):
        return None  # RSTs before this one had not stopped it, and its next repetition is not due yet
    return Receipt(reset.step, False, event.packet, event.time_ns, Certainty.ASSUMED)


def _insists(evidence: Evidence, receiver: End, reset: Said) -> bool:
    """Whether an end was repeating something, and the time of its next repetition had not clearly passed."""
    sent = [s for s in evidence.before(receiver, reset.step) if s.event is not None and s.end > (s.seq or 0)]
    if len(sent) < 2:  # noqa: PLR2004 - it takes two to see the distance
        return False
    gap = sent[-1].first_ns - sent[-2].first_ns
    repeats = sent[-1].event is not None and sent[-1].event.position is not Position.NEW
    return repeats and evidence.now_ns - sent[-1].first_ns < gap * BACKOFF


def _acceptable(evidence: Evidence, event: Event, step: int, sender: End) -> bool:
    receiver = sender.peer
    expected = evidence.acked_before(receiver, step)
    if expected is None:
        # Only an end in SYN_SENT has acknowledged nothing: to it a RST counts if it acknowledges its SYN.
        return event.ack is not None and any(s.end <= event.ack for s in evidence.copies(receiver, SYN))
    if event.seq == expected:
        return True
    fin = [s for s in evidence.copies(sender, FIN) if s.step < step]
    if fin and event.seq == expected - 1 and fin[-1].end == expected:
        return True  # Linux takes a RST at the number of the FIN as well, as some systems send it
    outstanding = [s for s in evidence.before(sender, step) if not s.reset and s.end > expected]
    if event.seq > expected and outstanding and event.seq <= max(s.end for s in outstanding):
        repeated = any(s.event is None or s.event.position is Position.NEW for s in outstanding)
        challenged = any(
            s.event is not None and s.event.pure_ack and s.ack is not None and s.ack < event.seq
            for s in evidence.after(receiver, step)[:1]
        )
        return repeated and not challenged
    return False


def resets(evidence: Evidence) -> Iterator[tuple[End, Said]]:
    """Yield every RST with its sender, in order of time."""
    found = [(s.step, end, s) for end in End for s in evidence.said[end] if s.event and s.event.flags & RST]
    for _, end, said in sorted(found, key=lambda item: item[0]):
        yield end, said
