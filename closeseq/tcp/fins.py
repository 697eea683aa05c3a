"""An endpoint's FIN: when it was sent, also where it was not captured, or had to wait.

A program closes, and TCP sends FIN. Between the two lies whatever keeps segments waiting: a closed window,
data before it, a packet filter before the capture point. The state changes when the program closes, so an
endpoint whose FIN waited was in FIN_WAIT_1 before its FIN was captured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import Traffic
from closeseq.packets.segments import FIN, difference
from closeseq.packets.value import or_0, value
from closeseq.tcp import delayed_fin
from closeseq.tcp.delayed_fin import FASTER_THAN_PROGRAM_NS, KERNEL_ANSWER_NS, PROBE_TIMER_LATE_NS
from closeseq.tcp.delivery import FIRST_TIMEOUT_NS, Receipt
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import MILLISECOND, Evidence, SentSegment, cached_on_evidence
from closeseq.tcp.sender import counts_packets, may_follow, unseen
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End

PROGRAM_NS = MILLISECOND  # a program closes sooner after end of file only when it is idle


@value
class FinTime:
    """When an endpoint closed, as a place among the steps."""

    step: int  # index into the conversation's steps
    when: int  # -1 before the step's own segment, 0 with it, 1 after all that the step did
    packet: int  # that shows it
    time_ns: int  # since the Unix epoch
    certainty: Certainty
    why: str | None = None  # what shows it, if not the FIN itself


@value
class Fin:
    """The FIN of one endpoint."""

    end: int  # the number after it
    transmissions: Sequence[SentSegment]  # as captured; empty if only its number shows it
    sent: FinTime  # when


@cached_on_evidence
def find(evidence: Evidence, sender: End) -> Fin | None:
    """Find an endpoint's FIN: captured, or shown by the number of a segment that could only follow it.

    Args:
        evidence: of the connection.
        sender: the endpoint.

    Returns:
        The FIN, and when it was sent; None if nothing shows one.
    """
    transmissions = evidence.transmissions(sender, FIN)
    if not transmissions:
        return _never_captured(evidence, sender)
    number_end, first = transmissions[0].end, transmissions[0]
    own = (s for s in evidence.before(sender, first.step) if s.seq is not None and s.seq >= number_end)
    peers = (s for s in evidence.before(sender.peer, first.step) if s.ack is not None and s.ack >= number_end)
    later = [s for s in (next(own, None), next(peers, None)) if s is not None and not s.reset]
    if later:
        shown = min(later, key=lambda s: s.step)
        sent = _before(evidence, sender, shown, first) or _shown_by(shown, Certainty.PROVED)
    else:
        sent = _waited(evidence, sender, first) or FinTime(
            first.step, 0, first.packet, first.first_ns, Certainty.OBSERVED
        )
    return Fin(number_end, transmissions, sent)


def _never_captured(evidence: Evidence, sender: End) -> Fin | None:
    """Find a FIN that only its number shows: one past all that was captured, and nothing came after.

    A single byte of data would leave the same trace, so this is never more than assumed.
    """
    end: int | None = None
    later, before = [], []
    for segment in evidence.sent[sender]:
        if end is not None and segment.event and segment.event.pure_ack and segment.event.seq == end + 1:
            later.append(segment)
            break
        before.append(segment)
        if not segment.reset:
            end = segment.end if end is None else max(end, segment.end)
    if end is None or any(s.end > end + 1 for s in evidence.sent[sender]):
        return None
    acks = evidence.sent[sender.peer]
    later += [s for s in acks if s.ack == end + 1 and not s.reset][:1]
    if not later:
        return None
    data = any(s.bytes > 1 or (s.event and s.event.syn) for s in before)
    if not data or _is_data(evidence, sender, end):
        return None  # the numbers may be those of a keepalive, one below the next, or of a byte
    return Fin(end + 1, (), _shown_by(min(later, key=lambda s: s.step), Certainty.ASSUMED))


def _before(evidence: Evidence, sender: End, shown: SentSegment, fin: SentSegment) -> FinTime | None:
    """Return the close of an endpoint whose FIN was sent, uncaptured, before the segment that shows it."""
    if shown.sender is not sender:
        return None
    first_ns = delayed_fin.sent_ns(evidence, sender, shown, fin)
    if first_ns is None:
        return None
    received = [s for s in evidence.before(sender.peer, shown.step) if s.first_ns <= first_ns]
    own = evidence.before(sender, shown.step)[-1:]
    step = max((s.step for s in [*own, *received]), default=shown.step)
    if step >= shown.step or not evidence.distance.must_know(sender, shown.first_ns, first_ns):
        return None
    time_ns = max([first_ns, *(s.last_ns for s in own)])
    return FinTime(step, 1, shown.packet, time_ns, Certainty.ASSUMED, "had sent a FIN that was not captured")


def _is_data(evidence: Evidence, sender: End, number: int) -> bool:
    """Whether a number that was not captured turned out to be a byte of data when it was retransmitted."""
    for s in evidence.sent[sender]:
        if s.event is None:  # the last number of a stretch of traffic with data
            if s.bytes and s.end == number + 1:
                return True
        elif s.seq is not None and s.event.length and s.seq <= number < s.seq + s.event.length:
            return True
    return False


def _shown_by(segment: SentSegment, certainty: Certainty) -> FinTime:
    return FinTime(
        segment.step, -1, segment.packet, segment.first_ns, certainty, "had sent a FIN that was not captured"
    )


def _waited(evidence: Evidence, sender: End, fin: SentSegment) -> FinTime | None:
    """Return the close of an endpoint whose FIN had waited; None if it did not."""
    close = delayed_fin.closed(evidence, sender, fin)
    if close is None:
        return None
    own = evidence.before(sender, close.before.step)[-1:]  # sent before it closed
    time_ns = max([close.time_ns, *(s.last_ns for s in own)])
    received = [s for s in evidence.before(sender.peer, close.before.step) if s.first_ns <= time_ns]
    step = max((s.step for s in [*own, *received]), default=fin.step)
    why = "had closed: its FIN was waiting to be sent"
    if step == fin.step:
        return FinTime(step, 0, fin.packet, fin.first_ns, Certainty.ASSUMED, why)
    return FinTime(step, 1, fin.packet, time_ns, Certainty.ASSUMED, why)


def closed_before(evidence: Evidence, end: End, receipt: Receipt) -> FinTime | None:
    """Return when an endpoint had closed that received its peer's FIN before its own was captured, or None.

    The plain reading is that it closed second: its FIN acknowledges the peer's. Three things contradict that:
    the answer to the peer's FIN is numbered past the own one, which was lost before it was captured; the
    peer's window had been closed, and FIN follows its opening faster than any program reacts; or Linux's
    probe timer sent it, and that had begun before the peer's FIN came.

    Args:
        evidence: of the connection.
        end: the endpoint.
        receipt: its receipt of the peer's FIN.
    """
    answers = _answers(evidence, end, receipt)
    first = next(iter(evidence.transmissions(end, FIN)), None)
    if not answers or (first is not None and first.step <= receipt.step):
        return None
    at_once = not evidence.distance.must_know(end, answers[0].first_ns, receipt.time_ns)
    if at_once and _past_own_fin(evidence, end, answers[0]):
        why = "had closed before: its answer is numbered past its FIN, which was not captured"
        return _at(receipt, why)
    if first is None:
        return None
    tried = delayed_fin.tries(evidence, end, first)
    if tried is not None and tried.number > 0:
        return None  # then `find` says when it closed
    open_then = answers[0].seq is not None and answers[0].seq < first.end and answers[0] is not first
    if not open_then and delayed_fin.closed_too_soon(evidence, end, first, receipt.time_ns):
        return _at(receipt, "had closed before: it acknowledged the FIN at once, unseen, beside its own")
    with_answer = (
        answers[0].step < first.step
        and first.first_ns - answers[0].first_ns < FASTER_THAN_PROGRAM_NS
        and _had_waited(evidence, end, answers[0], receipt)
    )
    probed = (
        delayed_fin.by_probe_timer(evidence, first) and first.first_ns - receipt.time_ns < PROBE_TIMER_LATE_NS
    )
    return (
        _at(receipt, "had closed before: its FIN was waiting to be sent") if with_answer or probed else None
    )


def _had_waited(evidence: Evidence, end: End, answer: SentSegment, receipt: Receipt) -> bool:
    """Whether an endpoint answers a FIN at once, and something had held its own back.

    That is the peer's closed window, or data that it had to retransmit.
    """
    if answer.first_ns - receipt.time_ns < KERNEL_ANSWER_NS and _window_was_closed(
        evidence, end.peer, receipt.step
    ):
        return True
    transmission = next(
        (s for s in evidence.transmissions(end.peer, FIN) if s.packet == receipt.packet), None
    )
    least_ns = or_0(evidence.distance.least_ns[end])
    return (
        transmission is not None
        and answer.first_ns - transmission.first_ns < KERNEL_ANSWER_NS + least_ns
        and evidence.repeats_data(end)
    )


def _at(receipt: Receipt, why: str) -> FinTime:
    """Return a close right before a receipt."""
    when = -1 if receipt.before else 0
    return FinTime(receipt.step, when, receipt.packet, receipt.time_ns, Certainty.ASSUMED, why)


def _past_own_fin(evidence: Evidence, end: End, segment: SentSegment) -> bool:
    """Whether a plain ACK is numbered past its sender's FIN.

    A kernel acknowledges a FIN that crosses its own at once. If its program closes later, it acknowledges
    with the FIN.
    """
    fin = find(evidence, end)
    if fin is None or segment.event is None or not segment.event.pure_ack or segment.seq is None:
        return False
    return segment.seq >= fin.end


def _window_was_closed(evidence: Evidence, end: End, step: int) -> bool:
    """Whether the last window that an endpoint announced up to a step was 0."""
    for what in reversed(evidence.conversation.steps[: step + 1]):
        if isinstance(what, Traffic):
            if what.of(end):
                return what.of(end).zero_windows > 0
        elif what.sender is end and not what.rst and not what.fin:
            return what.window == 0
    return False


def surely_open(evidence: Evidence, end: End, receipt: Receipt) -> bool:
    """Whether an endpoint surely had not closed when it received its peer's FIN.

    An endpoint that acknowledges the FIN, and could send its own but does not, has none: a FIN that waited
    would be sent with the ACK, and one that was sent before has a number of its own. But where data is still
    on its way, a FIN may be waiting behind more.

    Args:
        evidence: of the connection.
        end: the endpoint.
        receipt: its receipt of the peer's FIN.
    """
    first = next(iter(evidence.transmissions(end, FIN)), None)
    if first is not None and first.step <= receipt.step:
        return True  # it had sent its FIN before, which is observed
    answers = _answers(evidence, end, receipt)
    if (
        not answers
        or _past_own_fin(evidence, end, answers[0])
        or not _all_acknowledged(evidence, end, answers[0].step)
        or not _knew_all_acknowledged(evidence, end, answers[0], receipt)
    ):
        return False
    if _had_data_waiting(evidence, end, answers[0]) and not _had_sent_all(evidence, end, first):
        return False
    if first is None:
        return evidence.now_ns - answers[0].first_ns > FIRST_TIMEOUT_NS
    if not _at_once(answers[0], first) and not delayed_fin.by_probe_timer(evidence, first):
        return not _may_have_been_held_back(evidence, end, answers[0], receipt) or _is_first_try(
            evidence, end, first
        )
    return _sent_at_once(evidence, end, answers[0], first)


def _had_data_waiting(evidence: Evidence, end: End, answer: SentSegment) -> bool:
    """Whether data left an endpoint with its answer to a FIN, or sooner after it than a program writes.

    It had been waiting, for the congestion window if not for the peer's. A FIN may have waited behind it.
    """
    after = evidence.after(end, answer.step)
    return any(s.bytes and _at_once(answer, s) for s in [answer, *after])


def _at_once(answer: SentSegment, segment: SentSegment) -> bool:
    """Whether a segment may have been made at once with an earlier one of its sender, and not by a program.

    It passed so soon; or its timestamp is the same, or the next, and it was held up before the capture point.
    """
    if segment.first_ns - answer.first_ns < PROGRAM_NS:
        return True
    stamps = segment.tsval, answer.tsval
    return stamps[0] is not None and stamps[1] is not None and difference(stamps[0], stamps[1]) <= 1


def _had_sent_all(evidence: Evidence, end: End, fin: SentSegment | None) -> bool:
    """Whether an endpoint had surely sent all data that it had, and was told so, before it sent FIN.

    Without a FIN: before the first timeout in which it might have sent one. Then nothing had kept the FIN.
    """
    if fin is not None and fin.bytes:
        return False
    until = len(evidence.conversation.steps) if fin is None else fin.step
    due_ns = evidence.now_ns - FIRST_TIMEOUT_NS if fin is None else evidence.made_ns(fin) - PROGRAM_NS
    sent = max((s.end for s in evidence.before(end, until) if not s.reset), default=0)
    return any(
        s.ack is not None and s.ack >= sent and evidence.distance.must_know(end, due_ns, s.first_ns)
        for s in evidence.before(end.peer, until)
        if not s.reset
    )


def _may_have_been_held_back(evidence: Evidence, end: End, answer: SentSegment, receipt: Receipt) -> bool:
    """Whether data may have held an endpoint's FIN back until its peer's FIN acknowledged that data.

    Then it was sent together with the ACK of the peer's, and what is captured later may be a retransmission.
    """
    transmission = next(
        (s for s in evidence.transmissions(end.peer, FIN) if s.packet == receipt.packet), None
    )
    sent = max((s.end for s in evidence.before(end, answer.step) if not s.reset), default=0)
    acked = evidence.acked_before(end.peer, answer.step if transmission is None else transmission.step)
    return acked is None or acked < sent or evidence.repeats_data(end)


def _is_first_try(evidence: Evidence, end: End, fin: SentSegment) -> bool:
    """Whether the numbers of an endpoint's packets show that all were captured right before a FIN."""
    count = unseen(evidence, end, fin, fin.step) if counts_packets(evidence, end) else None
    return count is not None and not count.number


def _sent_at_once(evidence: Evidence, end: End, answer: SentSegment, fin: SentSegment) -> bool:
    """Whether the numbers of an endpoint's packets show that a FIN is the first try, and did not wait.

    Nothing was sent uncaptured before it, nor before the answer to the peer's FIN, all data had been
    acknowledged without a loss, and the peer's window was open.
    """
    if fin.bytes:
        return False
    if not all(may_follow(evidence, end, s, 0, 0) for s in (answer, fin)):
        return False
    counts = [unseen(evidence, end, s, s.step) for s in (answer, fin)]
    if any(count is None or not count.exact or count.number for count in counts):
        return False
    if not counts_packets(evidence, end):
        return False
    path = evidence.conversation.path(end)
    if path.lost_before or path.lost_after or evidence.repeats_data(end):
        return False
    return _all_acknowledged(evidence, end, fin.step)


def _all_acknowledged(evidence: Evidence, end: End, step: int) -> bool:
    """Whether all that an endpoint had sent before a step was acknowledged, and it could send more."""
    sent = max((s.end for s in evidence.before(end, step) if not s.reset), default=0)
    acked = evidence.acked_before(end.peer, step)
    return acked is not None and acked >= sent and not _window_was_closed(evidence, end.peer, step)


def _knew_all_acknowledged(evidence: Evidence, end: End, answer: SentSegment, receipt: Receipt) -> bool:
    """Whether an endpoint that acknowledges its peer's FIN surely knew by then that all it sent had arrived.

    It knew what the FIN itself acknowledges; another acknowledgement must have reached it.
    """
    sent = max((s.end for s in evidence.before(end, answer.step) if not s.reset), default=0)
    before = evidence.before(end.peer, answer.step)
    if any(s.packet == receipt.packet and s.ack is not None and s.ack >= sent for s in before):
        return True
    return any(
        s.ack is not None and s.ack >= sent and evidence.knew(answer, s) is Knowledge.MUST for s in before
    )


def _answers(evidence: Evidence, end: End, receipt: Receipt) -> list[SentSegment]:
    since = receipt.step - 1 if receipt.before else receipt.step
    return [s for s in evidence.after(end, since) if not s.reset and s.ack is not None]
