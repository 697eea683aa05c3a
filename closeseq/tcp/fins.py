"""An end's FIN: when it was sent, also where it was not captured, or waited before it could be sent.

A program closes, and TCP sends FIN. Between the two lies whatever keeps segments waiting: a closed
window, data before it, a packet filter before the capture point. The state changes when the program
closes, so a FIN that waited means that the end was in FIN_WAIT_1 before its FIN was captured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import Traffic
from closeseq.packets.segments import FIN
from closeseq.packets.value import value
from closeseq.tcp import delayed_fin
from closeseq.tcp.delayed_fin import ANSWER_NS, PROBE_TIMER_LATE_NS, SAME_BREATH_NS
from closeseq.tcp.delivery import FIRST_TIMEOUT_NS, Receipt
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import MILLISECOND, Evidence, SentSegment, asked_once
from closeseq.tcp.sender import counts_packets, unseen
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End

PROGRAM_NS = MILLISECOND  # a program that is told end of file needs less than this only when it is idle


@value
class FinTime:
    """When an end closed, as a place among the steps."""

    step: int
    when: int  # -1 before the step's own segment, 0 with it, 1 after all that the step did
    packet: int
    time_ns: int
    certainty: Certainty
    why: str | None = None  # how we know, where it is not the FIN itself


@value
class Fin:
    """The FIN of one end."""

    end: int  # the number after it
    copies: Sequence[SentSegment]  # as captured; empty if only its number betrays it
    sent: FinTime


@asked_once
def find(evidence: Evidence, sender: End) -> Fin | None:
    """Find an end's FIN: captured, or betrayed by a segment that could only follow it."""
    copies = evidence.copies(sender, FIN)
    if not copies:
        return _never_captured(evidence, sender)
    number_end, first = copies[0].end, copies[0]
    own = (s for s in evidence.before(sender, first.step) if s.seq is not None and s.seq >= number_end)
    peers = (s for s in evidence.before(sender.peer, first.step) if s.ack is not None and s.ack >= number_end)
    betrayals = [s for s in (next(own, None), next(peers, None)) if s is not None and not s.reset]
    if betrayals:
        shown = min(betrayals, key=lambda s: s.step)
        sent = _before(evidence, sender, shown, first) or _betrayed(shown, Certainty.PROVED)
    else:
        sent = _waited(evidence, sender, first) or FinTime(
            first.step, 0, first.packet, first.first_ns, Certainty.OBSERVED
        )
    return Fin(number_end, copies, sent)


def _never_captured(evidence: Evidence, sender: End) -> Fin | None:
    """Find a FIN that only its number betrays: one past all that was captured, and nothing came after.

    A single byte of data would leave the same trace, so this is never more than assumed.
    """
    end, data = None, False
    betrayals = []
    for said in evidence.said[sender]:
        data |= said.bytes > 1 or bool(said.event and said.event.syn)
        if end is not None and said.event and said.event.pure_ack and said.event.seq == end + 1:
            betrayals.append(said)
            break
        if not said.reset:
            end = said.end if end is None else max(end, said.end)
    if end is None or any(s.end > end + 1 for s in evidence.said[sender]):
        return None
    if not data or _is_data(evidence, sender, end):
        return None  # the numbers may be those of a keepalive, one below the next, or of a byte
    acks = evidence.said[sender.peer]
    betrayals += [s for s in acks if s.ack == end + 1 and not s.reset][:1]
    if not betrayals:
        return None
    return Fin(end + 1, (), _betrayed(min(betrayals, key=lambda s: s.step), Certainty.ASSUMED))


def _before(evidence: Evidence, sender: End, shown: SentSegment, fin: SentSegment) -> FinTime | None:
    """Return the close of an end whose FIN went unseen some time before the segment that shows it."""
    if shown.sender is not sender:
        return None
    first_ns = delayed_fin.sent_ns(evidence, sender, shown, fin)
    if first_ns is None:
        return None
    heard = [s for s in evidence.before(sender.peer, shown.step) if s.first_ns <= first_ns]
    own = evidence.before(sender, shown.step)[-1:]
    step = max((s.step for s in [*own, *heard]), default=shown.step)
    if step >= shown.step or not evidence.distance.must_know(sender, shown.first_ns, first_ns):
        return None
    time_ns = max([first_ns, *(s.last_ns for s in own)])
    return FinTime(step, 1, shown.packet, time_ns, Certainty.ASSUMED, "had sent a FIN that was not captured")


def _is_data(evidence: Evidence, sender: End, number: int) -> bool:
    """Whether a number that was not captured was, when it came again, a byte of data, as far as is known."""
    for s in evidence.said[sender]:
        if s.event is None:  # the last number of a stretch of traffic with data
            if s.bytes and s.end == number + 1:
                return True
        elif s.seq is not None and s.event.length and s.seq <= number < s.seq + s.event.length:
            return True
    return False


def _betrayed(said: SentSegment, certainty: Certainty) -> FinTime:
    return FinTime(
        said.step, -1, said.packet, said.first_ns, certainty, "had sent a FIN that was not captured"
    )


def _waited(evidence: Evidence, sender: End, fin: SentSegment) -> FinTime | None:
    """Return the close of an end whose FIN had waited, as a place among the steps; None if it did not."""
    close = delayed_fin.closed(evidence, sender, fin)
    if close is None:
        return None
    own = evidence.before(sender, close.before.step)[-1:]  # what it sent before it closed
    time_ns = max([close.time_ns, *(s.last_ns for s in own)])
    heard = [s for s in evidence.before(sender.peer, close.before.step) if s.first_ns <= time_ns]
    step = max((s.step for s in [*own, *heard]), default=fin.step)
    why = "had closed: its FIN was waiting to be sent"
    if step == fin.step:
        return FinTime(step, 0, fin.packet, fin.first_ns, Certainty.ASSUMED, why)
    return FinTime(step, 1, fin.packet, time_ns, Certainty.ASSUMED, why)


def closed_before(evidence: Evidence, end: End, receipt: Receipt) -> FinTime | None:
    """Say whether an end had closed before it took its peer's FIN, with its own FIN not captured until later.

    The plain reading is that it had not: its FIN acknowledges the peer's, so it closed second. Three things
    speak against that: the answer to the peer's FIN is numbered past the own one, which was lost before it
    was captured; the peer's window had been closed, and FIN follows its opening in one breath, faster than
    any program; or Linux's probe timer sent it, and that had begun before the peer's FIN came.
    """
    spoken = _spoken(evidence, end, receipt)
    first = next(iter(evidence.copies(end, FIN)), None)
    if not spoken or (first is not None and first.step <= receipt.step):
        return None
    at_once = not evidence.distance.must_know(end, spoken[0].first_ns, receipt.time_ns)
    if at_once and _past_own_fin(evidence, end, spoken[0]):
        why = "had closed before: its answer is numbered past its FIN, which was not captured"
        return _at(receipt, why)
    if first is None:
        return None
    told = delayed_fin.tries(evidence, end, first)
    if told is not None and told.number > 0:
        return None  # then `find` says when it closed
    open_then = spoken[0].seq is not None and spoken[0].seq < first.end and spoken[0] is not first
    if not open_then and delayed_fin.closed_too_soon(evidence, end, first, receipt.time_ns):
        return _at(receipt, "had closed before: it acknowledged the FIN at once, unseen, beside its own")
    breath = (
        spoken[0].step < first.step
        and first.first_ns - spoken[0].first_ns < SAME_BREATH_NS
        and _was_kept(evidence, end, spoken[0], receipt)
    )
    probed = (
        delayed_fin.by_probe_timer(evidence, first) and first.first_ns - receipt.time_ns < PROBE_TIMER_LATE_NS
    )
    return _at(receipt, "had closed before: its FIN was waiting to be sent") if breath or probed else None


def _was_kept(evidence: Evidence, end: End, spoken: SentSegment, receipt: Receipt) -> bool:
    """Whether an end answers a FIN at once, and something had kept its own from being sent.

    That is the peer's closed window, or data that it had to send again.
    """
    if spoken.first_ns - receipt.time_ns < ANSWER_NS and _window_was_closed(evidence, end.peer, receipt.step):
        return True
    copy = next((s for s in evidence.copies(end.peer, FIN) if s.packet == receipt.packet), None)
    least_ns = evidence.distance.least_ns[end] or 0
    return (
        copy is not None
        and spoken.first_ns - copy.first_ns < ANSWER_NS + least_ns
        and evidence.repeats_data(end)
    )


def _at(receipt: Receipt, why: str) -> FinTime:
    """Return a close right before a receipt."""
    when = -1 if receipt.before else 0
    return FinTime(receipt.step, when, receipt.packet, receipt.time_ns, Certainty.ASSUMED, why)


def _past_own_fin(evidence: Evidence, end: End, said: SentSegment) -> bool:
    """Whether a plain ACK is numbered past its sender's FIN.

    A kernel acknowledges at once a FIN that crosses its own. One whose program closes afterwards
    acknowledges with the FIN.
    """
    fin = find(evidence, end)
    if fin is None or said.event is None or not said.event.pure_ack or said.seq is None:
        return False
    return said.seq >= fin.end


def _window_was_closed(evidence: Evidence, end: End, step: int) -> bool:
    """Whether the last window that an end announced up to a step was 0."""
    for what in reversed(evidence.conversation.steps[: step + 1]):
        if isinstance(what, Traffic):
            if what.of(end):
                return what.of(end).zero_windows > 0
        elif what.sender is end and not what.rst and not what.fin:
            return what.window == 0
    return False


def surely_open(evidence: Evidence, end: End, receipt: Receipt) -> bool:
    """Whether an end, when it took its peer's FIN, surely had not closed itself.

    An end that acknowledges the FIN, and could send its own but does not, has none. What it might have
    waiting would have gone out in the same breath; what had gone out before has a number of its own. But
    where data is still on its way, a FIN may be waiting behind more.
    """
    first = next(iter(evidence.copies(end, FIN)), None)
    if first is not None and first.step <= receipt.step:
        return True  # it had sent its FIN before, which is observed
    spoken = _spoken(evidence, end, receipt)
    if (
        not spoken
        or _past_own_fin(evidence, end, spoken[0])
        or not _all_acknowledged(evidence, end, spoken[0].step)
        or not _knew_all_acknowledged(evidence, end, spoken[0], receipt)
    ):
        return False
    if _had_data_waiting(evidence, end, spoken[0]) and not _had_sent_all(evidence, end, first):
        return False
    if first is None:
        return evidence.now_ns - spoken[0].first_ns > FIRST_TIMEOUT_NS
    by_program = first.first_ns - spoken[0].first_ns >= PROGRAM_NS
    if by_program and not delayed_fin.by_probe_timer(evidence, first):
        return not _may_have_been_kept(evidence, end, spoken[0], receipt) or _is_first_try(
            evidence, end, first
        )
    return _sent_at_once(evidence, end, first)


def _had_data_waiting(evidence: Evidence, end: End, spoken: SentSegment) -> bool:
    """Whether data left an end with its answer to a FIN, or right after it, as no program writes so soon.

    It had been waiting, for the congestion window if not for the peer's. A FIN may have waited behind it.
    """
    after = evidence.after(end, spoken.step)
    return any(s.bytes and s.first_ns - spoken.first_ns < PROGRAM_NS for s in [spoken, *after])


def _had_sent_all(evidence: Evidence, end: End, fin: SentSegment | None) -> bool:
    """Whether an end had surely sent all data that it had, and was told so, before it sent FIN.

    Without a FIN: before the first time-out in which it might have sent one. Then nothing had kept the FIN.
    """
    if fin is not None and fin.bytes:
        return False
    until = len(evidence.conversation.steps) if fin is None else fin.step
    due_ns = evidence.now_ns - FIRST_TIMEOUT_NS if fin is None else fin.first_ns - PROGRAM_NS
    sent = max((s.end for s in evidence.before(end, until) if not s.reset), default=0)
    return any(
        s.ack is not None and s.ack >= sent and evidence.distance.must_know(end, due_ns, s.first_ns)
        for s in evidence.before(end.peer, until)
        if not s.reset
    )


def _may_have_been_kept(evidence: Evidence, end: End, spoken: SentSegment, receipt: Receipt) -> bool:
    """Whether data may have kept an end's FIN from being sent until its peer's FIN acknowledged that data.

    Then it was sent together with the ACK of the peer's, and what is captured later may be its repetition.
    """
    copy = next((s for s in evidence.copies(end.peer, FIN) if s.packet == receipt.packet), None)
    sent = max((s.end for s in evidence.before(end, spoken.step) if not s.reset), default=0)
    acked = evidence.acked_before(end.peer, spoken.step if copy is None else copy.step)
    return acked is None or acked < sent or evidence.repeats_data(end)


def _is_first_try(evidence: Evidence, end: End, fin: SentSegment) -> bool:
    """Whether the numbers of an end's packets show that none went unseen right before a FIN."""
    told = unseen(evidence, end, fin, fin.step) if counts_packets(evidence, end) else None
    return told is not None and not told.number


def _sent_at_once(evidence: Evidence, end: End, fin: SentSegment) -> bool:
    """Whether the numbers of an end's packets show that a FIN is the first try, and nothing kept it waiting.

    Nothing was sent unseen before it, all data had been acknowledged without a loss, and the peer's window
    was open.
    """
    told = unseen(evidence, end, fin, fin.step) if counts_packets(evidence, end) else None
    if told is None or told.number or not told.exact or fin.bytes:
        return False
    path = evidence.conversation.path(end)
    if path.lost_before or path.lost_after or evidence.repeats_data(end):
        return False
    return _all_acknowledged(evidence, end, fin.step)


def _all_acknowledged(evidence: Evidence, end: End, step: int) -> bool:
    """Whether all that an end had sent before a step was acknowledged by then, and it could send more."""
    sent = max((s.end for s in evidence.before(end, step) if not s.reset), default=0)
    acked = evidence.acked_before(end.peer, step)
    return acked is not None and acked >= sent and not _window_was_closed(evidence, end.peer, step)


def _knew_all_acknowledged(evidence: Evidence, end: End, spoken: SentSegment, receipt: Receipt) -> bool:
    """Whether an end that acknowledges its peer's FIN surely knew by then that all it sent had arrived.

    It knew what the FIN itself acknowledges; of other segments they must have reached it.
    """
    sent = max((s.end for s in evidence.before(end, spoken.step) if not s.reset), default=0)
    heard = [s for s in evidence.before(end.peer, spoken.step) if s.ack is not None and s.ack >= sent]
    return any(s.packet == receipt.packet for s in heard) or any(
        evidence.knew(spoken, s) is Knowledge.MUST for s in heard
    )


def _spoken(evidence: Evidence, end: End, receipt: Receipt) -> list[SentSegment]:
    since = receipt.step - 1 if receipt.before else receipt.step
    return [s for s in evidence.after(end, since) if not s.reset and s.ack is not None]
