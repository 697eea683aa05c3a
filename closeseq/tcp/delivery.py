"""When the receiver of a SYN or FIN accepted it, and how surely we know.

A capture shows what was *sent*. Whether a segment arrived must be inferred from what its receiver sent
later: from its acknowledgement numbers, which show exactly how far it had received when it sent them (RFC
9293 3.4), and from its timestamp echoes, which distinguish transmissions of the same segment (RFC 7323 4).

SYN and FIN take one sequence number each, so the same rules hold for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Position
from closeseq.packets.segments import FIN
from closeseq.packets.value import or_0, value
from closeseq.tcp.delayed_fin import LEAST_TIMEOUT_NS, loses_before_capture, reliable
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import cached_on_evidence
from closeseq.tcp.sender import sends_dsack, unseen, without_socket
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.tcp.evidence import Evidence, SentSegment

# RFC 6298 2.1 has the first retransmission timeout (RTO) at 1 s; Linux waits at least 0.2 s. This is clearly
# longer than both.
FIRST_TIMEOUT_NS = 1_200_000_000
BACKOFF = 2.5  # each timeout is about twice the one before (RFC 6298 5.5)
LONGEST_DELAYED_ACK_NS = 200_000_000  # Linux (TCP_DELACK_MAX), of up to 0.5 s (RFC 9293 3.8.6.3)
ENOUGH_TRANSMISSIONS = 3  # of a FIN: an endpoint that is gone in the end may have received it in time


@value
class Receipt:
    """A segment took effect at its receiver."""

    step: int  # the step with which it took effect
    before: bool  # True: it had taken effect before this step's segment was sent
    packet: int  # the segment that did it, as far as known
    time_ns: int  # since the Unix epoch
    certainty: Certainty
    or_with: tuple[
        tuple[int, SentSegment], ...
    ] = ()  # other segments that may have taken effect, each with its step
    shown: SentSegment | None = None  # the segment that shows that by then it had

    @classmethod
    def of(cls, segment: SentSegment, certainty: Certainty, *, before: bool = False) -> Receipt:
        """Return that a segment took effect itself, in its own step.

        Args:
            segment: it.
            certainty: how we know.
            before: whether what counts had taken effect before this segment was sent, which only shows it.
        """
        return cls(segment.step, before, segment.packet, segment.first_ns, certainty)


@cached_on_evidence
def accepted(
    evidence: Evidence, sender: End, number_end: int, transmissions: Sequence[SentSegment]
) -> Receipt | None:
    """Return when the receiver accepted the sender's SYN or FIN; None if it did not.

    An acknowledgement at or past `number_end` proves it, and every one below it proves that it had not
    happened yet. So it happened between the last of those below and the first at or past it.

    Args:
        evidence: of the connection.
        sender: of the SYN or FIN.
        number_end: the number after it, relative.
        transmissions: of it, as captured; none if it is known by its acknowledgement alone.
    """
    receiver = sender.peer
    if all(s.reset for s in evidence.sent[receiver]) and evidence.sent[receiver]:
        return None  # it sent nothing but RST: it never was part of this connection
    cover = next((s for s in evidence.sent[receiver] if s.ack is not None and s.ack >= number_end), None)
    if cover is None:
        return _accepted_unanswered(evidence, sender, transmissions)
    # Some systems set ACK on a RST that they send without a connection.
    certainty = Certainty.ASSUMED if cover.reset else Certainty.PROVED
    earlier = [s for s in transmissions if s.step < cover.step]
    if not earlier:  # it is acknowledged, so it was sent, but it was not captured
        return Receipt.of(cover, certainty, before=True)
    # A SYN without ACK shows too that nothing had been received.
    sent = [s for s in evidence.before(receiver, cover.step) if not s.reset and not s.stale]
    below = [s for s in sent if s.ack is not None or s.opens]
    if below and below[-1].opens and not _opens(cover):
        # It answers a SYN in SYN_SENT with SYN+ACK; another ACK shows that its peer's SYN+ACK came first.
        earlier = [s for s in earlier if not s.opens] or earlier
    if below and below[-1].opens and earlier[0].opens:
        # Both sent SYN before they received one: a simultaneous open (RFC 9293 3.5, figure 7).
        step = max(below[-1].step, earlier[0].step)
        return Receipt(step, False, earlier[0].packet, max(below[-1].last_ns, earlier[0].first_ns), certainty)
    candidates = [s for s in earlier if _may_be_the_one(evidence, s, below, cover)]
    followed = _followed(evidence, sender, earlier, cover, number_end)
    if followed is not None:  # it had come before that, however late
        candidates = [s for s in earlier if s.step < followed.step] or candidates
    filled = [s for s in evidence.before(sender, cover.step) if below and s.step > below[-1].step and s.bytes]
    if candidates and not _waits_for(candidates, below, filled, cover):
        chosen, sure = _first_to_arrive(evidence, receiver, candidates, cover, number_end)
        sure &= _others_were_lost(evidence, chosen, earlier, below, cover)
        # It had not accepted it when it last acknowledged below.
        since, since_ns = max(((s.step, s.last_ns) for s in below[-1:]), default=(0, 0))
        step, time_ns = (chosen.step, chosen.first_ns) if chosen.step > since else (since, since_ns)
        others = tuple((max(s.step, since), s) for s in candidates if s is not chosen)
        return Receipt(
            step, False, chosen.packet, time_ns, certainty if sure else Certainty.ASSUMED, others,
            None if cover.reset else cover,
        )  # fmt: skip
    # All transmissions passed before the last acknowledgement below: data that the sender sent since then
    # filled the hole before it, or a transmission was still under way.
    if filled:
        return Receipt.of(filled[-1], certainty)
    if not below:  # by their times none can be the one that is acknowledged: the times are wrong
        return Receipt.of(cover, certainty, before=True)
    shown = None if cover.reset else cover
    return Receipt(below[-1].step, False, earlier[-1].packet, below[-1].last_ns, certainty, shown=shown)


def _opens(segment: SentSegment) -> bool:
    """Whether a segment has SYN, with ACK or without."""
    return segment.event is not None and segment.event.syn


def _others_were_lost(
    evidence: Evidence,
    chosen: SentSegment,
    transmissions: Sequence[SentSegment],
    below: Sequence[SentSegment],
    cover: SentSegment,
) -> bool:
    """Whether the transmissions before the chosen one are known to have been lost.

    One that had not come when it should have may have come late, and the ACK of it was lost. The echo of the
    chosen one shows that it did not: only a segment in order is echoed (RFC 7323 4.3).
    """
    if chosen.tsval is not None and chosen.tsval == cover.tsecr:
        return True
    before = [s for s in transmissions if s.step < chosen.step]
    return all(
        below and evidence.distance.long_overdue(below[-1].sender, below[-1].last_ns, s.last_ns)
        for s in before
    )


def _waits_for(
    candidates: Sequence[SentSegment],
    below: Sequence[SentSegment],
    filled: Sequence[SentSegment],
    cover: SentSegment,
) -> bool:
    """Whether what had arrived was out of order until data filled a hole before it.

    It was not if the acknowledgement reports that the data came twice (D-SACK, RFC 2883), or echoes a
    candidate: only a segment in order is echoed (RFC 7323 4.3).
    """
    if cover.event is not None and cover.event.dsack is not None:
        return False
    if cover.tsecr is not None and any(s.tsval == cover.tsecr for s in candidates):
        return False
    if not below or not filled or below[-1].ack is None or candidates[-1].step > filled[-1].step:
        return False
    return below[-1].ack < candidates[-1].end - 1


def _may_be_the_one(
    evidence: Evidence, transmission: SentSegment, below: Sequence[SentSegment], cover: SentSegment
) -> bool:
    """Whether a transmission may be the one that was accepted.

    It is not if it passed too late for the acknowledgement to know of it, or if the receiver acknowledged
    below it at a time when it must have arrived.
    """
    if evidence.knew(cover, transmission) is Knowledge.CANNOT:
        return False
    last = below[-1] if below else None  # if the last did not have to know of it, no earlier one had to
    return (
        last is None
        or last.step < transmission.step
        or evidence.knew(last, transmission) is not Knowledge.MUST
    )


def _first_to_arrive(
    evidence: Evidence, receiver: End, candidates: Sequence[SentSegment], cover: SentSegment, number_end: int
) -> tuple[SentSegment, bool]:
    """Return which of several transmissions was accepted first, and whether the acknowledgement shows it."""
    if len(candidates) == 1:
        return candidates[0], True
    if cover.event is not None and cover.event.dsack is not None:
        left, right = cover.event.dsack
        if left < number_end <= right:  # D-SACK (RFC 2883): it arrived twice, so an earlier one did too
            both = len(candidates) == 2  # noqa: PLR2004 - of two that arrived twice, both arrived
            return candidates[0], both
    # An echo proves that this transmission arrived. TIME_WAIT echoes the first FIN that it received.
    echoed = [s for s in candidates if s.tsval is not None and s.tsval == cover.tsecr]
    if echoed and _answers_first_arrival(evidence, receiver, cover):
        return echoed[0], True
    answers = unseen(evidence, receiver, cover, candidates[0].step)
    if answers is not None and reliable(evidence, answers, cover) and answers.number >= len(candidates) - 1:
        return candidates[0], False  # each was answered, but the answers were not captured
    if echoed and _answers_are_lost(evidence, receiver, cover, echoed[0]):
        return candidates[0], False
    if echoed:
        return echoed[0], True
    followed = _followed(evidence, receiver.peer, candidates, cover, number_end)
    if followed is not None:
        return [s for s in candidates if s.step < followed.step][-1], False
    second, first = candidates[1], candidates[0]
    acknowledges = second.ack is not None and first.ack is not None and second.ack > first.ack
    if acknowledges and second.first_ns - first.first_ns < LEAST_TIMEOUT_NS:
        # Sooner than a timeout: BSD and macOS acknowledge in CLOSING by sending their FIN again.
        return first, False
    return candidates[-1], False


def _followed(
    evidence: Evidence,
    sender: End,
    transmissions: Sequence[SentSegment],
    cover: SentSegment,
    number_end: int,
) -> SentSegment | None:
    """Return what was sent between transmissions of a FIN, behind it in sequence, and is echoed.

    It is echoed only if the FIN had come: TS.Recent is of segments in order (RFC 7323 4.3).
    """
    for s in evidence.after(sender, transmissions[0].step):
        if s.step > transmissions[-1].step:
            return None
        if s.tsval is not None and s.tsval == cover.tsecr and s.seq is not None and s.seq >= number_end:
            return s
    return None


def _answers_first_arrival(evidence: Evidence, receiver: End, cover: SentSegment) -> bool:
    """Whether an endpoint answers the first that came: Linux reports a duplicate with D-SACK (RFC 2883)."""
    if cover.event is None or not cover.event.pure_ack or cover.event.dsack is not None:
        return False
    return sends_dsack(evidence, receiver) and not without_socket(evidence, receiver, cover)


def _answers_are_lost(
    evidence: Evidence, receiver: End, cover: SentSegment, transmission: SentSegment
) -> bool:
    """Whether an endpoint answers so late that its immediate answer to a transmission was not captured."""
    least_ns = or_0(evidence.distance.least_ns[receiver])
    late = cover.first_ns - transmission.first_ns > least_ns + LONGEST_DELAYED_ACK_NS
    return late and (cover.event is None or not cover.event.pure_ack)


def _accepted_unanswered(
    evidence: Evidence, sender: End, transmissions: Sequence[SentSegment]
) -> Receipt | None:
    """Return when a SYN or FIN was accepted that no captured acknowledgement covers; None if it was not."""
    if not transmissions:
        return None
    receiver, first = sender.peer, transmissions[0]
    if _behind_a_hole(evidence, sender, first):
        return None
    since = evidence.after(receiver, transmissions[-1].step)
    if any(not s.answer and (s.aborts or not evidence.crossed(transmissions[-1], s)) for s in since):
        return None  # it goes on, or aborts, and acknowledges less
    if any(s.answer for s in since):
        # It no longer had the connection. Gone from the start, it would have answered the first one too.
        if answered(evidence, receiver, first):
            return None
        # So it accepted that, and what it sent in between, its own close included, was not captured; unless
        # the first one was lost, or its answer, which is likelier where little time was left for all that.
        closed = evidence.transmissions(receiver, FIN) or any(s.aborts for s in evidence.sent[receiver])
        up_to_date = evidence.acked_before(receiver, first.step) == first.seq
        repeated = len(transmissions) >= ENOUGH_TRANSMISSIONS
        return Receipt.of(first, Certainty.ASSUMED) if repeated and up_to_date and not closed else None
    if len(transmissions) > 1:
        # The transmissions were lost, or the answers. It is the answers if this connection is known to lose
        # segments before they are captured, and nothing shows that the transmissions were lost.
        silent = not evidence.after(receiver, first.step)
        return Receipt.of(first, Certainty.ASSUMED) if silent and loses_before_capture(evidence) else None
    crossing = [s for s in since if not s.reset]  # sent before it arrived
    step, time_ns = max([(first.step, first.first_ns), *((s.step, s.last_ns) for s in crossing)])
    return Receipt(step, False, first.packet, time_ns, Certainty.ASSUMED)


def _behind_a_hole(evidence: Evidence, sender: End, fin: SentSegment) -> bool:
    """Whether a FIN is out of order at its receiver: data before it never passed, nor was acknowledged."""
    if fin.event is None or fin.event.position is not Position.GAP:
        return False
    acks = [s.ack for s in evidence.sent[sender.peer] if s.ack is not None]
    filled = any(s.seq is None or s.seq < fin.event.seq for s in evidence.after(sender, fin.step) if s.bytes)
    return bool(acks) and max(acks) < fin.event.seq and not filled


def answered(evidence: Evidence, receiver: End, segment: SentSegment) -> bool:
    """Whether the receiver answered a segment with RST, which takes its number from what it answers.

    So the segment reached the host (RFC 9293 3.10.7.1), though perhaps no connection there any more.

    Args:
        evidence: of the connection.
        receiver: of the segment.
        segment: the one that may be answered.
    """
    later = evidence.after(receiver, segment.step)
    if not later or not later[0].answer or later[0].seq != segment.ack:
        return False
    return not [s for s in evidence.after(receiver.peer, segment.step) if s.step < later[0].step]
