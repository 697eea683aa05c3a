"""What reached the other end, and how surely we know.

A capture shows what was *sent*. Whether a segment arrived must be inferred from what its receiver sent
later: above all from its acknowledgement numbers, which say exactly how far it had received when it sent
them (RFC 9293 3.4), and from its timestamp echoes, which tell one copy from another (RFC 7323 4).

Two questions cover SYN and FIN alike, since each takes one sequence number:

- `accepted`: when did the receiver take the sender's SYN or FIN, in order?
- `acknowledged`: when did the sender learn that it was taken?
"""

from __future__ import annotations

from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Position
from closeseq.packets.segments import FIN
from closeseq.packets.value import value
from closeseq.tcp.delayed_fin import LEAST_TIMEOUT_NS, loses_before_capture, reliable
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.echoes import Echo, echo
from closeseq.tcp.evidence import asked_once
from closeseq.tcp.sender import sends_dsack, unseen, without_socket
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.tcp.evidence import Evidence, SentSegment

# RFC 6298 2.1 has the first retransmission time-out at 1 s; Linux waits at least 0.2 s. Silence counts
# as silence when it is clearly longer than the more patient of the two.
FIRST_TIMEOUT_NS = 1_200_000_000
PATIENCE_TRIPS = 3  # round trips that a time-out may be longer on a slow path
BACKOFF = 2.5  # each wait about doubles (RFC 6298 5.5)
LONGEST_DELAYED_ACK_NS = 200_000_000  # Linux (TCP_DELACK_MAX), of up to 0.5 s (RFC 9293 3.8.6.3)
ENOUGH_COPIES = 3  # of a FIN, that an end that is gone in the end may have taken it in time
UNAWARE = (Knowledge.CANNOT, Knowledge.UNLIKELY)


@value
class Receipt:
    """A segment took effect at the other end."""

    step: int  # the step with which it took effect
    before: bool  # True: it had taken effect before this step's segment was sent
    packet: int  # the segment that did it, as far as known
    time_ns: int
    certainty: Certainty
    or_with: tuple[
        tuple[int, SentSegment], ...
    ] = ()  # other segments that may have taken effect, each with its step
    shown: SentSegment | None = None  # the segment that shows that by then it had

    @classmethod
    def of(cls, said: SentSegment, certainty: Certainty, *, before: bool = False) -> Receipt:
        return cls(said.step, before, said.packet, said.first_ns, certainty)


@asked_once
def accepted(
    evidence: Evidence, sender: End, number_end: int, copies: Sequence[SentSegment]
) -> Receipt | None:
    """Say when the receiver took the sender's SYN or FIN whose number is `number_end - 1`.

    An acknowledgement at or past `number_end` proves it, and every one below it proves that it had not
    happened yet. So it happened between the last of those below and the first at or past it.
    """
    receiver = sender.peer
    if all(s.reset for s in evidence.said[receiver]) and evidence.said[receiver]:
        return None  # RST was all it had to say: it never was part of this connection
    cover = next((s for s in evidence.said[receiver] if s.ack is not None and s.ack >= number_end), None)
    if cover is None:
        return _accepted_unanswered(evidence, sender, copies)
    # Some systems put an ACK on the RST that answers for a connection they do not have.
    certainty = Certainty.ASSUMED if cover.reset else Certainty.PROVED
    earlier = [s for s in copies if s.step < cover.step]
    if not earlier:  # it was sent, since it is acknowledged, but not captured
        return Receipt.of(cover, certainty, before=True)
    # A SYN without ACK says as well that nothing had been received.
    spoken = [s for s in evidence.before(receiver, cover.step) if not s.reset and not s.stale]
    below = [s for s in spoken if s.ack is not None or s.opens]
    if below and below[-1].opens and earlier[0].opens:
        # Both sent SYN: the two crossed (RFC 9293 3.5, figure 7).
        step = max(below[-1].step, earlier[0].step)
        return Receipt(step, False, earlier[0].packet, max(below[-1].last_ns, earlier[0].first_ns), certainty)
    candidates = [s for s in earlier if _may_be_the_one(evidence, s, below, cover)]
    filled = [s for s in evidence.before(sender, cover.step) if below and s.step > below[-1].step and s.bytes]
    if candidates and not _waits_for(candidates, below, filled, cover):
        chosen, sure = _which_copy(evidence, receiver, candidates, cover, number_end)
        # It had not taken it when it last acknowledged below.
        since, since_ns = max(((s.step, s.last_ns) for s in below[-1:]), default=(0, 0))
        step, time_ns = (chosen.step, chosen.first_ns) if chosen.step > since else (since, since_ns)
        others = tuple((max(s.step, since), s) for s in candidates if s is not chosen)
        return Receipt(
            step, False, chosen.packet, time_ns, certainty if sure else Certainty.ASSUMED, others,
            None if cover.reset else cover,
        )  # fmt: skip
    # All copies went before the receiver last spoke: what completed the stream in order is data that
    # the sender sent since (it filled a hole), or a copy was still under way.
    if filled:
        return Receipt.of(filled[-1], certainty)
    if not below:  # by their times none can be the one that is acknowledged: the times are wrong
        return Receipt.of(cover, certainty, before=True)
    return Receipt(below[-1].step, False, earlier[-1].packet, below[-1].last_ns, certainty)


def _waits_for(
    candidates: Sequence[SentSegment],
    below: Sequence[SentSegment],
    filled: Sequence[SentSegment],
    cover: SentSegment,
) -> bool:
    """Whether what had arrived was out of order until data filled a hole before it.

    It was not if the acknowledgement says that the data came twice (RFC 2883), or echoes what was taken,
    which only a segment in order can bring about (RFC 7323 4.3).
    """
    if cover.event is not None and cover.event.dsack is not None:
        return False
    if cover.tsecr is not None and any(s.tsval == cover.tsecr for s in candidates):
        return False
    if not below or not filled or below[-1].ack is None or candidates[-1].step > filled[-1].step:
        return False
    return below[-1].ack < candidates[-1].end - 1


def _may_be_the_one(
    evidence: Evidence, copy: SentSegment, below: Sequence[SentSegment], cover: SentSegment
) -> bool:
    """Whether a copy may be the one that was taken.

    It is not if it passed too late for the acknowledgement to know of it, or if the receiver acknowledged
    below it at a time when it must have arrived.
    """
    if evidence.knew(cover, copy) is Knowledge.CANNOT:
        return False
    last = below[-1] if below else None  # if the last did not have to know of it, no earlier one had to
    return last is None or last.step < copy.step or evidence.knew(last, copy) is not Knowledge.MUST


def _which_copy(
    evidence: Evidence, receiver: End, candidates: Sequence[SentSegment], cover: SentSegment, number_end: int
) -> tuple[SentSegment, bool]:
    """Return which of several copies was taken first, and whether the acknowledgement really tells."""
    if len(candidates) == 1:
        return candidates[0], True
    if cover.event is not None and cover.event.dsack is not None:
        left, right = cover.event.dsack
        if left < number_end <= right:  # RFC 2883: it arrived twice, so an earlier one did as well
            both = len(candidates) == 2  # noqa: PLR2004 - of two that arrived twice, both arrived
            return candidates[0], both
    # An echo proves that this copy arrived. A TIME_WAIT socket keeps the value of the first FIN it took.
    echoed = [s for s in candidates if s.tsval is not None and s.tsval == cover.tsecr]
    if echoed and _took_just_then(evidence, receiver, cover):
        return echoed[0], True
    answers = unseen(evidence, receiver, cover, candidates[0].step)
    if answers is not None and reliable(evidence, answers, cover) and answers.number >= len(candidates) - 1:
        return candidates[0], False  # each was answered, but the answers were not captured
    if echoed and _answers_are_lost(evidence, receiver, cover, echoed[0]):
        return candidates[0], False
    if echoed:
        return echoed[0], True
    # Nor of what follows the FIN in sequence, unless that had come: TS.Recent is of segments in order.
    between = [
        s
        for s in evidence.after(receiver.peer, candidates[0].step)
        if s.tsval is not None and s.tsval == cover.tsecr and s.seq is not None and s.seq >= number_end
    ]
    if between and between[0].step < candidates[-1].step:
        return [s for s in candidates if s.step < between[0].step][-1], False
    again, first = candidates[1], candidates[0]
    acknowledges = again.ack is not None and first.ack is not None and again.ack > first.ack
    if acknowledges and again.first_ns - first.first_ns < LEAST_TIMEOUT_NS:
        # Sooner than a time-out: BSD and macOS acknowledge in CLOSING by sending their FIN again.
        return first, False
    return candidates[-1], False


def _took_just_then(evidence: Evidence, receiver: End, cover: SentSegment) -> bool:
    """Whether an end answers the first copy that came: Linux says where a segment comes twice (RFC 2883)."""
    if cover.event is None or not cover.event.pure_ack or cover.event.dsack is not None:
        return False
    return sends_dsack(evidence, receiver) and not without_socket(evidence, receiver, cover)


def _answers_are_lost(evidence: Evidence, receiver: End, cover: SentSegment, copy: SentSegment) -> bool:
    """Whether an end answers so late that the answer which was due at once to a copy was lost unseen."""
    least_ns = evidence.distance.least_ns[receiver] or 0
    late = cover.first_ns - copy.first_ns > least_ns + LONGEST_DELAYED_ACK_NS
    return late and (cover.event is None or not cover.event.pure_ack)


def _accepted_unanswered(evidence: Evidence, sender: End, copies: Sequence[SentSegment]) -> Receipt | None:
    """Say whether a SYN or FIN that no captured acknowledgement covers was taken all the same."""
    if not copies:
        return None
    receiver, first = sender.peer, copies[0]
    if _behind_a_hole(evidence, sender, first):
        return None
    since = evidence.after(receiver, copies[-1].step)
    if any(not s.answer and (s.aborts or not evidence.crossed(copies[-1], s)) for s in since):
        return None  # it went on, or gave up, acknowledging below
    if any(s.answer for s in since):
        # It had no such connection any more. Had it been gone from the start, it would have answered
        # the first copy as well.
        if answered(evidence, receiver, first):
            return None
        # So it took that, and what it sent in between, its own close included, was not captured; unless the
        # first copy was lost, or the answer to it, which is likelier where little time was left for all that.
        closed = evidence.copies(receiver, FIN) or any(s.aborts for s in evidence.said[receiver])
        up_to_date = evidence.acked_before(receiver, first.step) == first.seq
        repeated = len(copies) >= ENOUGH_COPIES
        return Receipt.of(first, Certainty.ASSUMED) if repeated and up_to_date and not closed else None
    if len(copies) > 1:
        # The copies were lost, or the answers were. It is the answers if this connection is known to lose
        # segments before they are captured, and nothing says that the copies were.
        silent = not evidence.after(receiver, first.step)
        return Receipt.of(first, Certainty.ASSUMED) if silent and loses_before_capture(evidence) else None
    crossing = [s for s in since if not s.reset]  # they went out before it came in
    step, time_ns = max([(first.step, first.first_ns), *((s.step, s.last_ns) for s in crossing)])
    return Receipt(step, False, first.packet, time_ns, Certainty.ASSUMED)


def _behind_a_hole(evidence: Evidence, sender: End, fin: SentSegment) -> bool:
    """Whether a FIN is out of order at its receiver: data before it never passed, and is not acknowledged."""
    if fin.event is None or fin.event.position is not Position.GAP:
        return False
    acks = [s.ack for s in evidence.said[sender.peer] if s.ack is not None]
    filled = any(s.seq is None or s.seq < fin.event.seq for s in evidence.after(sender, fin.step) if s.bytes)
    return bool(acks) and max(acks) < fin.event.seq and not filled


@asked_once
def acknowledged(
    evidence: Evidence, sender: End, number_end: int, copies: Sequence[SentSegment]
) -> Receipt | None:
    """Say when the sender received an acknowledgement of its SYN or FIN.

    A sender repeats what it has not seen acknowledged, so whatever acknowledged it before the last copy
    did not arrive (unless the two crossed).
    """
    # A RST is acted on, or challenged, before its acknowledgement is looked at (RFC 9293 3.10.7.4).
    said = [s for s in evidence.said[sender.peer] if not s.reset]
    covers = [s for s in said if s.ack is not None and s.ack >= number_end]
    covers = covers[: _heard_alive(evidence, sender, number_end, covers)]
    covers = [s for s in covers if not _lost_as_fin(evidence, s)]
    last = copies[-1] if copies else None
    late = _arrived_late(evidence, sender, covers, copies)
    if late is not None:
        step = max(late.step, last.step if last is not None else 0)
        return Receipt(step, False, late.packet, late.first_ns, Certainty.ASSUMED)
    lost = [s for s in covers if refuted(evidence, s, last)]
    heard = [(s, echo(evidence, sender, s)) for s in covers[len(lost) :]]
    heard = [(s, told) for s, told in heard if told is not Echo.MISSED]
    surely = next((s for s, told in heard if told is Echo.ARRIVED), None)
    likely = [
        (s, told) for s, told in heard if told is Echo.ARRIVED or not _among_losses(evidence, s, sender)
    ]
    if len(likely) < len(heard) and not _fell_silent(evidence, sender, copies, heard, surely):
        heard = likely or heard
    if not heard:
        if last is None or not _fell_silent(evidence, sender, copies, heard, surely):
            return None
        # It stopped repeating: an acknowledgement reached it that was not captured.
        if said and said[-1].ack is not None and evidence.knew(said[-1], last) is Knowledge.MUST:
            return None  # but none had been sent even then: the next repetition was not captured
        return Receipt.of(last, Certainty.ASSUMED) if _there_after(evidence, sender, copies) else None
    cover = heard[0][0]
    failing = len(lost) > 1 or _path_was_failing(evidence, sender.peer, cover)
    watched = evidence.now_ns > cover.last_ns  # not the capture's last packet: who stops then has it all
    doubtful = failing and watched and cover is not surely
    if doubtful and not _fell_silent(evidence, sender, copies, heard, surely):
        # What went before it was lost. Only an answer tells that this one, or a later one, fared better.
        fared = [s for s, told in heard if told is Echo.ARRIVED or answered(evidence, sender, s)]
        if not fared:
            return None
        cover = fared[0]
    return _heard(evidence, sender, cover, last, surely)


def _heard(
    evidence: Evidence, sender: End, cover: SentSegment, last: SentSegment | None, surely: SentSegment | None
) -> Receipt:
    """Say when an acknowledgement that was received came in: after what its receiver had sent without it.

    Args:
        evidence: of the connection.
        sender: of the SYN or FIN.
        cover: what acknowledges it.
        last: the last copy that was sent.
        surely: the first acknowledgement that is known to have arrived.
    """
    earliest = cover.step if last is None else max(cover.step, last.step)
    following = evidence.after(sender, cover.step)
    step = earliest
    if any(s.reset for s in following):  # else nothing that it sent tells its state
        unaware = takewhile(lambda s: evidence.knew(s, cover) is Knowledge.CANNOT, following)
        earliest = max([earliest, *(s.step for s in unaware)])
        step = earliest
        # A program that aborts does not wait for anything, so what is unlikely is as it looks. But of a SYN
        # only a program can abort that has been given the connection, so its ACK had come.
        if last is not None and last.event is not None and last.event.fin:
            hardly = takewhile(lambda s: evidence.knew(s, cover) in UNAWARE, following)
            step = max([earliest, *(s.step for s in hardly if s.aborts)])
    certain = cover is surely or _left_handshake(evidence, sender, last, cover)
    certainty = Certainty.PROVED if certain else Certainty.ASSUMED
    sooner = ((earliest, cover),) if step > earliest else ()
    return Receipt(step, False, cover.packet, cover.first_ns, certainty, sooner, surely)


def _fell_silent(
    evidence: Evidence,
    sender: End,
    copies: Sequence[SentSegment],
    heard: Sequence[tuple[SentSegment, Echo]],
    surely: SentSegment | None,
) -> bool:
    """Whether a sender had stopped repeating before what it `surely` heard: then it had heard before that."""
    return quiet(evidence, copies, surely) or _knew_before(evidence, sender, copies, [s for s, _ in heard])


def _arrived_late(
    evidence: Evidence, sender: End, covers: Sequence[SentSegment], copies: Sequence[SentSegment]
) -> SentSegment | None:
    """Return the acknowledgement that must have arrived before a later one, which a RST answers.

    A socket in LAST_ACK takes the first that comes, and is gone (RFC 9293 3.10.7.4). So
    where a later one meets no socket, an earlier one had come, however long it took.
    """
    fins = evidence.copies(sender.peer, FIN)
    closed_second = bool(copies and fins) and (copies[0].ack or 0) >= fins[0].end
    if len(copies) < 2 or not closed_second:  # noqa: PLR2004 - without a repetition nothing came late
        return None
    for earlier, later in pairwise(covers):
        pure = later.event is not None and later.event.pure_ack and later.step > copies[-1].step
        if pure and answered(evidence, sender, later) and refuted(evidence, earlier, copies[-1]):
            return earlier
    return None


def _lost_as_fin(evidence: Evidence, said: SentSegment) -> bool:
    """Whether a segment is a FIN of which a retransmission was the first to arrive: so its ACK did not."""
    if said.event is None or not said.event.fin:
        return False
    copies = evidence.copies(said.sender, FIN)
    taken = accepted(evidence, said.sender, copies[0].end, copies) if len(copies) > 1 else None
    return taken is not None and said.step < taken.step and taken.packet in {s.packet for s in copies}


def _heard_alive(evidence: Evidence, sender: End, number_end: int, covers: Sequence[SentSegment]) -> int:
    """Return how many of the acknowledgements of a FIN its sender can have taken.

    A RST in answer to something that did not acknowledge the FIN yet shows that by then the FIN's sender
    was gone: what was sent to it after that found no socket. Nor did a first acknowledgement that is
    answered so itself: it had no data, and a socket in FIN_WAIT_1 takes it without an answer.
    """
    first = covers[0] if covers else None
    if (
        first is not None
        and first.event is not None
        and first.event.pure_ack
        and answered(evidence, sender, first)
    ):
        return 0
    for s in evidence.said[sender]:
        if s.answer and s.seq is not None and s.seq < number_end:
            asked = [a for a in evidence.before(sender.peer, s.step) if not a.reset and a.ack == s.seq]
            if asked and all(later.reset for later in evidence.after(sender, s.step)):
                return sum(c.step <= asked[-1].step for c in covers)
    return len(covers)


def _knew_before(
    evidence: Evidence, sender: End, copies: Sequence[SentSegment], covers: Sequence[SentSegment]
) -> bool:
    """Whether a sender knew of an acknowledgement when it answered, without a socket, something after it."""
    if len(copies) < 2 or not covers:  # noqa: PLR2004 - nothing is open before a repetition
        return False
    for s in evidence.after(sender, covers[0].step):
        if s.event is not None and s.event.pure_ack and without_socket(evidence, sender, s):
            asked = evidence.before(sender.peer, s.step)[-1]
            # TIME_WAIT echoes the FIN that it took: another one than this had been answered unseen.
            first = s.tsecr is None or asked.tsval is None or s.tsecr == asked.tsval
            return first and covers[0].step < asked.step
    return False


def _there_after(evidence: Evidence, sender: End, copies: Sequence[SentSegment]) -> bool:
    """Whether a sender said something when its next repetition was overdue."""
    last = copies[-1]
    later = [s for s in evidence.after(sender, last.step) if not s.reset]
    if last.event is not None and last.event.syn:
        return bool(later)
    return any(s.last_ns - last.first_ns > patience(evidence, copies) for s in later)


def unsettled(evidence: Evidence, sender: End, step: int) -> bool:
    """Whether it is open if an end's FIN was acknowledged to it before a step.

    An acknowledgement was sent after the last copy, and nothing tells whether it arrived.
    """
    copies = evidence.copies(sender, FIN)
    heard = acknowledged(evidence, sender, copies[0].end, copies) if copies else None
    if heard is not None:
        return any(sooner < step <= heard.step for sooner, _ in heard.or_with)
    if not copies:
        return False
    before = evidence.before(sender.peer, step)
    covers = [s for s in before if s.ack is not None and s.ack >= copies[0].end]
    return any(not refuted(evidence, s, copies[-1]) for s in covers)


def _left_handshake(
    evidence: Evidence, sender: End, last_copy: SentSegment | None, cover: SentSegment
) -> bool:
    """Whether an end went on to send without SYN, which one in SYN_RECEIVED cannot (but for RFC 7413)."""
    if last_copy is None or last_copy.event is None or not last_copy.event.syn:
        return False
    return any(not s.reset for s in evidence.after(sender, cover.step - (cover.event is None)))


def refuted(evidence: Evidence, cover: SentSegment, last_copy: SentSegment | None) -> bool:
    """Whether a later copy of what a segment acknowledges shows that the segment had not arrived."""
    return last_copy is not None and cover.step < last_copy.step and not evidence.crossed(cover, last_copy)


def quiet(evidence: Evidence, copies: Sequence[SentSegment], until: SentSegment | None = None) -> bool:
    """Whether the sender stopped repeating its SYN or FIN long before it had reason to.

    That is to give up, or to hear `until` that it was received.
    """
    if not copies:
        return False
    last = copies[-1]
    # A RST of either end gives another reason to be silent.
    resets = [s.first_ns for end in ENDS for s in evidence.after(end, last.step) if s.reset]
    end_ns = evidence.now_ns if until is None else until.first_ns
    return min([end_ns, *resets]) - last.first_ns > patience(evidence, copies)


def patience(evidence: Evidence, copies: Sequence[SentSegment]) -> int:
    """Return how long after the last copy the next one would surely have been sent, in nanoseconds."""
    if len(copies) > 1:
        gap = copies[-1].first_ns - copies[-2].first_ns
        return max(int(gap * BACKOFF), FIRST_TIMEOUT_NS // 2)
    return FIRST_TIMEOUT_NS + PATIENCE_TRIPS * evidence.round_trip_ns


def _path_was_failing(evidence: Evidence, sender: End, said: SentSegment) -> bool:
    """Whether the sender's FIN, sent before this segment, had still not arrived when its peer spoke next."""
    fins = [s for s in evidence.copies(sender, FIN) if s.step < said.step]
    if not fins:
        return False
    heard = (s for s in evidence.after(sender.peer, said.step) if s.ack is not None and not s.stale)
    first = next((s for s in heard if not evidence.crossed(fins[-1], s)), None)
    if first is None or first.ack is None or first.ack >= fins[0].end:
        return False
    return first.event is None or first.event.sack is None or first.event.sack < fins[0].end


def _among_losses(evidence: Evidence, said: SentSegment, receiver: End) -> bool:
    """Whether a segment was sent among copies of a FIN on the same path that were lost, or is one."""
    fins = evidence.copies(receiver.peer, FIN)
    if len(fins) < 2 or fins[0].step > said.step:  # noqa: PLR2004 - one copy tells of no loss
        return False
    taken = accepted(evidence, receiver.peer, fins[0].end, fins)
    return taken is not None and said.step < taken.step


def answered(evidence: Evidence, receiver: End, said: SentSegment) -> bool:
    """Whether the receiver answered a segment with RST, which takes its number from what it answers.

    So the segment reached the host (RFC 9293 3.10.7.1), though perhaps no connection there any more.
    """
    later = evidence.after(receiver, said.step)
    if not later or not later[0].answer or later[0].seq != said.ack:
        return False
    return not [s for s in evidence.after(receiver.peer, said.step) if s.step < later[0].step]
