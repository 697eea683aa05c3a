"""When the sender of a SYN or FIN received an acknowledgement of it.

A sender retransmits what it has not seen acknowledged (RFC 9293 3.8.1). So an acknowledgement before the last
retransmission was lost, unless the two crossed, and the first one after it counts. Three things show more:

- a RST of the sender: from then on it had no connection, and received nothing;
- timestamp echoes and acknowledgements of data: they show which segment arrived (module echoes);
- a retransmission that is overdue and does not come: an acknowledgement had arrived by then.
"""

from __future__ import annotations

from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End
from closeseq.packets.segments import FIN, SYN
from closeseq.packets.value import or_0
from closeseq.tcp.delivery import BACKOFF, FIRST_TIMEOUT_NS, Receipt, accepted, answered
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.echoes import NOT_IN_TIME, Echo, echo
from closeseq.tcp.evidence import cached_on_evidence
from closeseq.tcp.sender import without_socket
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.tcp.evidence import Evidence, SentSegment

RTO_ROUND_TRIPS = 3  # on a slow path the retransmission timeout (RTO) is longer by so many round trips
NEAR = 3  # times as near to a loss as to what got through
UNAWARE = (Knowledge.CANNOT, Knowledge.UNLIKELY)


@cached_on_evidence
def acknowledged(
    evidence: Evidence, sender: End, number_end: int, transmissions: Sequence[SentSegment]
) -> Receipt | None:
    """Return when the sender received an acknowledgement of its SYN or FIN; None if it did not.

    Args:
        evidence: of the connection.
        sender: of the SYN or FIN.
        number_end: the number after it, relative.
        transmissions: of it, as captured, in order of time; none if its number alone shows it.
    """
    # A RST is acted on, or challenged, before its acknowledgement is looked at (RFC 9293 3.10.7.4).
    sent = [s for s in evidence.sent[sender.peer] if not s.reset]
    covers = [s for s in sent if s.ack is not None and s.ack >= number_end]
    covers = covers[: _before_it_was_gone(evidence, sender, number_end, covers)]
    covers = [s for s in covers if not _is_lost_fin(evidence, s)]
    last = transmissions[-1] if transmissions else None
    # A RST answers a later acknowledgement: an earlier one had ended LAST_ACK, however late it came.
    tardy = _arrived_late(evidence, sender, covers, transmissions)
    if tardy is not None:
        step = max(tardy.step, last.step if last is not None else 0)
        return Receipt(step, False, tardy.packet, tardy.first_ns, Certainty.ASSUMED)
    # A retransmission follows: what went before it was lost.
    lost = [s for s in covers if refuted(evidence, s, last)]
    echoes = [(s, echo(evidence, sender, s)) for s in covers[len(lost) :]]
    arrived = [s for s, echoed in echoes if echoed is Echo.ARRIVED]
    possible = [s for s, echoed in echoes if echoed not in NOT_IN_TIME]
    # What should have come before the retransmission may have come late, unless that was long after.
    late = [s for s in lost if last is not None and not _was_lost(evidence, s, last)]
    open_ = late + [s for s, echoed in echoes if echoed is not Echo.MISSED]
    surely = next(iter(arrived), None)

    def silent() -> bool:
        return _fell_silent(evidence, sender, transmissions, possible, surely)

    # Sent among FINs that were lost on the same path, it was probably lost too, if its receiver goes on.
    likely = [s for s in possible if s in arrived or not _among_losses(evidence, s, sender, lost)]
    if len(likely) < len(possible) and not silent():
        possible = likely or possible
    if not possible:
        return _uncaptured(evidence, sender, transmissions, sent) if silent() else None
    cover = possible[0]
    failing = len(lost) > 1 or _path_was_failing(evidence, sender.peer, cover)
    watched = evidence.now_ns > cover.last_ns  # what passes last in the capture cannot be shown to be lost
    if failing and watched and cover is not surely and not silent():
        # What went before it was lost: only an answer shows that this one, or a later one, arrived.
        shown = [s for s in possible if s in arrived or answered(evidence, sender, s)]
        left = _left_handshake_in(evidence, sender, last, possible)
        if not shown or (left is not None and left.step < shown[0].step):
            return left
        cover = shown[0]
    if len(lost) > 1 and cover.event is None:
        left = _left_handshake_in(evidence, sender, last, [cover])
        if left is not None:
            return left
    return _receipt(evidence, sender, open_, last, cover=cover, surely=surely)


def _uncaptured(
    evidence: Evidence, sender: End, transmissions: Sequence[SentSegment], sent: Sequence[SentSegment]
) -> Receipt | None:
    """Return that a sender which stopped retransmitting had received an ACK that was not captured.

    None if its peer had still acknowledged less when it must have received the last transmission: then the
    next retransmission was not captured. `sent` is what the peer sent; there is at least one transmission.
    """
    last = transmissions[-1]
    if sent and sent[-1].ack is not None and evidence.knew(sent[-1], last) is Knowledge.MUST:
        return None
    # In LAST_ACK nothing but the FIN is left to send: silence after the first shows that the ACK came, or
    # that the socket is gone. After retransmissions without an answer, of data too, it may have given up.
    acked = max((s.ack for s in sent if s.ack is not None), default=0)
    answered_all = last.seq is not None and acked >= last.seq
    once = len(transmissions) == 1 and (answered_all or not evidence.repeats_data(sender))
    last_ack = once and _closed_second(evidence, sender, transmissions)
    if last_ack or _sent_when_overdue(evidence, sender, transmissions):
        return Receipt.of(last, Certainty.ASSUMED)
    return None


def _receipt(
    evidence: Evidence,
    sender: End,
    possible: Sequence[SentSegment],
    last: SentSegment | None,
    *,
    cover: SentSegment,
    surely: SentSegment | None,
) -> Receipt:
    """Return when an acknowledgement was received: after what its receiver had sent without it.

    Args:
        evidence: of the connection.
        sender: of the SYN or FIN.
        possible: what may have brought the acknowledgement, in order of time.
        last: the last transmission of it.
        cover: the one of the possible that is likeliest to have.
        surely: the first acknowledgement that is known to have arrived.
    """
    earliest = cover.step if last is None else max(cover.step, last.step)
    following = evidence.after(sender, cover.step)
    step = earliest
    if any(s.reset for s in following):  # nothing else that it sends shows its state
        unaware = takewhile(lambda s: evidence.knew(s, cover) is Knowledge.CANNOT, following)
        earliest = max([earliest, *(s.step for s in unaware)])
        step = earliest
        # A program that aborts waits for nothing: if it is unlikely that it knew the ACK, it did not. But
        # only a program that was given the connection can abort it, so the ACK of a SYN had come.
        if last is not None and last.event is not None and last.event.fin:
            unlikely = takewhile(lambda s: evidence.knew(s, cover) in UNAWARE, following)
            step = max([earliest, *(s.step for s in unlikely if s.aborts)])
    left = _left_handshake(evidence, sender, last, cover)
    certain = cover is possible[0] and (
        cover is surely or (left is not None and not _came_later(left, cover, possible))
    )
    certainty = Certainty.PROVED if certain else Certainty.ASSUMED
    first = 0 if last is None else last.step
    sooner = [(max(s.step, first), s) for s in possible if s.step < cover.step]
    if step > earliest:
        sooner.append((earliest, cover))
    if left is not None and (surely is None or left.packet < surely.packet):
        surely = left
    return Receipt(step, False, cover.packet, cover.first_ns, certainty, tuple(sooner), surely)


def unsettled(evidence: Evidence, sender: End, step: int) -> bool:
    """Whether it is open if an endpoint had received an ACK of its FIN before a step.

    An acknowledgement was sent after the last transmission, and nothing shows whether it arrived.

    Args:
        evidence: of the connection.
        sender: of the FIN.
        step: the step's index.
    """
    transmissions = evidence.transmissions(sender, FIN)
    if not transmissions:
        return False
    receipt = acknowledged(evidence, sender, transmissions[0].end, transmissions)
    if receipt is not None:
        return any(sooner < step <= receipt.step for sooner, _ in receipt.or_with)
    before = evidence.before(sender.peer, step)
    covers = [s for s in before if s.ack is not None and s.ack >= transmissions[0].end]
    return any(not refuted(evidence, s, transmissions[-1]) for s in covers)


def refuted(evidence: Evidence, cover: SentSegment, last: SentSegment | None) -> bool:
    """Whether a later retransmission of what a segment acknowledges shows that the segment was lost.

    Args:
        evidence: of the connection.
        cover: the segment.
        last: the last transmission of what it acknowledges; None if none was captured.
    """
    return last is not None and cover.step < last.step and not evidence.crossed(cover, last)


# What shows that an acknowledgement did not arrive


def _was_lost(evidence: Evidence, cover: SentSegment, last: SentSegment) -> bool:
    """Whether a retransmission of what a segment acknowledges was sent so much later that it never came."""
    return evidence.distance.long_overdue(last.sender, last.first_ns, cover.last_ns)


def _before_it_was_gone(
    evidence: Evidence, sender: End, number_end: int, covers: Sequence[SentSegment]
) -> int:
    """Return how many of the acknowledgements of a FIN its sender can have received.

    A RST that answers something from before these acknowledgements shows that the FIN's sender was gone by
    then: what was sent to it later found no socket. Nor did the first acknowledgement if a RST answers it: a
    socket in FIN_WAIT_1 takes a plain ACK without an answer.
    """
    first = covers[0].event if covers else None
    if first is not None and first.pure_ack and answered(evidence, sender, covers[0]):
        return 0
    for s in evidence.sent[sender]:
        if s.answer and s.seq is not None and s.seq < number_end:
            asked = [a for a in evidence.before(sender.peer, s.step) if not a.reset and a.ack == s.seq]
            if asked and all(later.reset for later in evidence.after(sender, s.step)):
                return sum(c.step <= asked[-1].step for c in covers)
    return len(covers)


def _is_lost_fin(evidence: Evidence, segment: SentSegment) -> bool:
    """Whether a segment is a FIN of which a retransmission arrived first: so its acknowledgement was lost."""
    if segment.event is None or not segment.event.fin:
        return False
    fins = evidence.transmissions(segment.sender, FIN)
    receipt = accepted(evidence, segment.sender, fins[0].end, fins) if len(fins) > 1 else None
    return receipt is not None and segment.step < receipt.step and receipt.packet in {s.packet for s in fins}


def _among_losses(
    evidence: Evidence, segment: SentSegment, receiver: End, lost: Sequence[SentSegment]
) -> bool:
    """Whether a segment was sent among transmissions of a FIN on the same path that were lost, or is one.

    Where nothing else was lost there, only if it is much nearer to one of these than to what got through.
    """
    fins = evidence.transmissions(receiver.peer, FIN)
    if len(fins) < 2 or fins[0].step > segment.step:  # noqa: PLR2004 - one transmission shows no loss
        return False
    receipt = accepted(evidence, receiver.peer, fins[0].end, fins)
    if receipt is None or segment.step >= receipt.step:
        return False
    if lost:
        return True
    before = [s for s in fins if s.step <= segment.step][-1]
    return (segment.first_ns - before.first_ns) * NEAR < receipt.time_ns - segment.first_ns


def _path_was_failing(evidence: Evidence, sender: End, segment: SentSegment) -> bool:
    """Whether the sender's FIN, sent before this segment, was still missing when its peer sent next."""
    fins = [s for s in evidence.transmissions(sender, FIN) if s.step < segment.step]
    if not fins:
        return False
    acks = (s for s in evidence.after(sender.peer, segment.step) if s.ack is not None and not s.stale)
    first = next((s for s in acks if not evidence.crossed(fins[-1], s)), None)
    if first is None or first.ack is None or first.ack >= fins[0].end:
        return False
    return first.event is None or first.event.sack is None or first.event.sack < fins[0].end


# What shows that an acknowledgement did arrive


def _arrived_late(
    evidence: Evidence, sender: End, covers: Sequence[SentSegment], transmissions: Sequence[SentSegment]
) -> SentSegment | None:
    """Return the acknowledgement that arrived before a later one, which a RST answers.

    A socket in LAST_ACK takes the first that comes, and is gone (RFC 9293 3.10.7.4). So where a later one
    meets no socket, an earlier one had come, however long it took.
    """
    if len(transmissions) < 2:  # noqa: PLR2004 - without a retransmission none is late
        return None
    if not _closed_second(evidence, sender, transmissions):
        return None
    for earlier, later in pairwise(covers):
        pure = later.event is not None and later.event.pure_ack and later.step > transmissions[-1].step
        if pure and answered(evidence, sender, later) and refuted(evidence, earlier, transmissions[-1]):
            return earlier
    return None


def _closed_second(evidence: Evidence, sender: End, transmissions: Sequence[SentSegment]) -> bool:
    """Whether a sender's FIN acknowledges its peer's: then it went from CLOSE_WAIT to LAST_ACK."""
    fins = evidence.transmissions(sender.peer, FIN)
    return bool(transmissions and fins) and or_0(transmissions[0].ack) >= fins[0].end


def _left_handshake(
    evidence: Evidence, sender: End, last: SentSegment | None, cover: SentSegment
) -> SentSegment | None:
    """Return what an endpoint sent next that it cannot have sent in SYN_RECEIVED.

    That is anything without SYN. But where its peer's SYN had data (RFC 7413 4.2.2), it may send, and close,
    until it acknowledges what came after that.
    """
    if last is None or last.event is None or not last.event.syn:
        return None
    early = _sent_with_syn(evidence, sender.peer)
    following = evidence.after(sender, cover.step - (cover.event is None))
    return next((s for s in following if not s.reset and or_0(s.ack) > early), None)


def _sent_with_syn(evidence: Evidence, end: End) -> int:
    """Return the number past the data that an endpoint sent with its SYN; 0 without."""
    return max((s.end for s in evidence.transmissions(end, SYN) if s.bytes), default=0)


def _came_later(left: SentSegment, cover: SentSegment, possible: Sequence[SentSegment]) -> bool:
    """Whether not `cover` but a later segment may have completed the handshake before `left` was sent.

    Whatever follows the ACK of the SYN+ACK acknowledges it too, should that ACK be lost (RFC 9293 3.10.7.4).
    """
    return any(s is not cover and s.packet < left.packet for s in possible)


def _left_handshake_in(
    evidence: Evidence, sender: End, last: SentSegment | None, covers: Sequence[SentSegment]
) -> Receipt | None:
    """Return that an endpoint left SYN_RECEIVED in traffic in which it sends something itself, if it did.

    A server whose accept queue is full drops the ACKs of its SYN until there is room.
    """
    if last is None or last.event is None or not last.event.syn:
        return None
    steps = {s.step for s in covers if s.event is None}
    early = _sent_with_syn(evidence, sender.peer)
    own = next((s for s in evidence.after(sender, last.step) if not s.reset and or_0(s.ack) > early), None)
    if own is None or own.event is not None or own.step not in steps:
        return None
    return Receipt.of(own, Certainty.PROVED)


def _fell_silent(
    evidence: Evidence,
    sender: End,
    transmissions: Sequence[SentSegment],
    covers: Sequence[SentSegment],
    surely: SentSegment | None,
) -> bool:
    """Whether a sender had an acknowledgement before the one that `surely` arrived.

    It stopped retransmitting long before that, or its answer shows that it knew one of `covers`.
    """
    return _stopped_retransmitting(evidence, transmissions, surely) or _knew_before(
        evidence, sender, transmissions, covers
    )


def _knew_before(
    evidence: Evidence, sender: End, transmissions: Sequence[SentSegment], covers: Sequence[SentSegment]
) -> bool:
    """Whether a sender knew of an acknowledgement when it answered, without a socket, something after it."""
    if len(transmissions) < 2 or not covers:  # noqa: PLR2004 - nothing is open before a retransmission
        return False
    for s in evidence.after(sender, covers[0].step):
        if s.event is not None and s.event.pure_ack and without_socket(evidence, sender, s):
            asked = evidence.before(sender.peer, s.step)[-1]
            # TIME_WAIT echoes the FIN that it received: if another one, its answer was not captured.
            first = s.tsecr is None or asked.tsval is None or s.tsecr == asked.tsval
            return first and covers[0].step < asked.step
    return False


def _stopped_retransmitting(
    evidence: Evidence, transmissions: Sequence[SentSegment], until: SentSegment | None
) -> bool:
    """Whether a sender did not retransmit although the timeout had passed before `until` (None: the end)."""
    if not transmissions:
        return False
    last = transmissions[-1]
    # A RST of either endpoint gives another reason to be silent.
    resets = [s.first_ns for end in ENDS for s in evidence.after(end, last.step) if s.reset]
    end_ns = evidence.now_ns if until is None else until.first_ns
    return min([end_ns, *resets]) - last.first_ns > _rto_bound_ns(evidence, transmissions)


def _sent_when_overdue(evidence: Evidence, sender: End, transmissions: Sequence[SentSegment]) -> bool:
    """Whether a sender sent something else when its next retransmission was overdue."""
    last = transmissions[-1]
    later = [s for s in evidence.after(sender, last.step) if not s.reset]
    if last.event is not None and last.event.syn:
        return bool(later)
    return any(s.last_ns - last.first_ns > _rto_bound_ns(evidence, transmissions) for s in later)


def _rto_bound_ns(evidence: Evidence, transmissions: Sequence[SentSegment]) -> int:
    """Return how long after the last transmission the timeout (RTO) has surely ended, in nanoseconds."""
    if len(transmissions) > 1:
        gap = transmissions[-1].first_ns - transmissions[-2].first_ns
        return max(int(gap * BACKOFF), FIRST_TIMEOUT_NS // 2)
    return FIRST_TIMEOUT_NS + RTO_ROUND_TRIPS * evidence.round_trip_ns
