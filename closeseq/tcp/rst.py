"""RST: whether it arrived, and whether its receiver acted on it (RFC 9293 3.10.7.4, RFC 5961 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Event, Position, Traffic
from closeseq.packets.segments import FIN, SYN
from closeseq.packets.value import or_0
from closeseq.tcp.delivery import BACKOFF, FIRST_TIMEOUT_NS, Receipt, accepted
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from closeseq.connections.conversation import Conversation
    from closeseq.tcp.evidence import Evidence, SentSegment

FEWEST_FRAMES = 8  # by one way, before another one means anything: a balanced path takes turns
SOON_BEFORE_NS = 100_000_000  # within which no path is replaced by another
ENOUGH = 2  # segments without an answer are more than a loss


def taken(evidence: Evidence, reset: SentSegment, sender: End) -> Receipt | None:
    """Return when a RST ended the connection at its receiver; None if it did not.

    It is never more than assumed: an endpoint that was reset sends nothing more.

    Args:
        evidence: of the connection.
        reset: the RST.
        sender: its sender, as its address says.
    """
    event = reset.event
    assert event is not None
    receiver = sender.peer
    if not acceptable(evidence, event, reset.step, sender):
        return None
    if goes_on(evidence, receiver, reset) is not None:
        return None
    if probed_in_vain(evidence, sender, reset):
        return None  # nothing had got through before it
    if _still_retransmitting(evidence, receiver, reset) and any(
        s.reset for s in evidence.before(sender, reset.step)
    ):
        return None  # RSTs before this one had not stopped it, and its next retransmission is not due yet
    # What crossed it was sent before it came in: an abort too, since a RST is never answered with RST.
    crossed = [s for s in evidence.after(receiver, reset.step) if not s.answer]
    step, time_ns = max([(reset.step, reset.first_ns), *((s.step, s.first_ns) for s in crossed)])
    return Receipt(step, False, reset.packet, time_ns, Certainty.ASSUMED)


def goes_on(evidence: Evidence, end: End, reset: SentSegment) -> SentSegment | None:
    """Return the segment that shows that an endpoint still had the connection after a RST to it.

    Args:
        evidence: of the connection.
        end: the RST's receiver.
        reset: the RST.

    Returns:
        The first such segment; None if nothing shows it.
    """
    for s in evidence.after(end, reset.step):
        if not s.answer and not s.stale and evidence.distance.must_know(end, s.last_ns, reset.first_ns):
            return s  # it went on as before, or was still there to abort
    return None


def challenge(evidence: Evidence, reset: SentSegment, sender: End) -> SentSegment | None:
    """Return the challenge ACK with which a RST was answered that was not exact (RFC 5961 3.2), or None.

    Args:
        evidence: of the connection.
        reset: the RST.
        sender: its sender, as its address says.
    """
    event = reset.event
    assert event is not None
    for s in evidence.after(sender.peer, reset.step)[:1]:
        inexact = s.ack is not None and s.ack != event.seq
        if s.event is None or not s.event.pure_ack or not inexact:
            continue
        if evidence.crossed(reset, s) or _repeats(evidence, reset, s):
            return s
    return None


def _repeats(evidence: Evidence, reset: SentSegment, ack: SentSegment) -> bool:
    """Whether an ACK says what its sender had said before, and nothing but the RST had come in between."""
    before = evidence.before(ack.sender, reset.step)[-1:]
    since = [s for s in evidence.after(reset.sender, reset.step) if s.step < ack.step]
    return not since and any(s.ack == ack.ack and s.end == ack.end for s in before)


def acceptable(evidence: Evidence, event: Event, step: int, sender: End) -> bool:
    """Whether a RST has the number that its receiver expects next, as its ACKs show.

    Args:
        evidence: of the connection.
        event: the RST.
        step: the index of its step.
        sender: its sender, as its address says.
    """
    receiver = sender.peer
    expected = evidence.acked_before(receiver, step)
    if expected is None:
        # Only SYN_SENT has acknowledged nothing: there a RST counts if it acknowledges the SYN.
        # With data in the SYN (RFC 7413) it may acknowledge a part of it (RFC 9293 3.10.7.3).
        syns = evidence.transmissions(receiver, SYN)
        return event.ack is not None and any(or_0(s.seq) < event.ack <= s.end for s in syns)
    if event.seq == expected:
        return True
    fin = [s for s in evidence.transmissions(sender, FIN) if s.step < step]
    if fin and event.seq == expected - 1 and fin[-1].end == expected:
        # Linux accepts a RST at the number of the FIN too, as some systems send it; but not in TIME_WAIT.
        own = evidence.transmissions(receiver, FIN)
        return not own or fin[0].ack is None or fin[0].ack < own[0].end
    outstanding = [s for s in evidence.before(sender, step) if not s.reset and s.end > expected]
    if event.seq < expected or not outstanding or event.seq > max(s.end for s in outstanding):
        return False
    # Something before it is not acknowledged: it must have arrived for the RST to be in order.
    fresh = any(s.event is None or s.event.position is Position.NEW for s in outstanding)
    challenged = any(
        s.event is not None and s.event.pure_ack and s.ack is not None and s.ack < event.seq
        for s in evidence.after(receiver, step)[:1]
    )
    return fresh and not challenged


def other_frames(conversation: Conversation, reset: Event) -> int:
    """Return how many frames came from a RST's alleged sender that are no RSTs.

    Args:
        conversation: of which it is.
        reset: one of its events.
    """
    own = reset.sender is End.CLIENT
    packets = conversation.client_packets if own else conversation.server_packets
    return packets - sum(e.rst and e.sender is reset.sender for e in conversation.events)


def is_foreign(conversation: Conversation, reset: Event) -> bool:
    """Whether a RST's frame proves that its alleged sender did not send it: it came another way.

    Not if too few frames came the usual way, if the sender's frames had moved before, or if its path may have
    been replaced between its last frame and the RST.

    Args:
        conversation: of which it is.
        reset: one of its events.
    """
    sender = reset.sender
    if not reset.elsewhere or conversation.path(sender).moves:
        return False
    if other_frames(conversation, reset) < FEWEST_FRAMES:
        return False
    at = conversation.steps.index(reset)
    if any(_sent_by(step, sender) is not None for step in conversation.steps[at + 1 :]):
        return True  # the usual way is still there
    before = [_sent_by(step, sender) for step in conversation.steps[:at]]
    last_ns = next((one for one in reversed(before) if one is not None), None)
    return last_ns is not None and reset.time_ns - last_ns <= SOON_BEFORE_NS


def _sent_by(step: Event | Traffic, sender: End) -> int | None:
    """Return when an endpoint last sent in a step, RSTs left out; None if it did not."""
    if isinstance(step, Traffic):
        return step.of(sender).last_ns if step.of(sender) else None
    return step.time_ns if step.sender is sender and not step.rst else None


def gone_since(evidence: Evidence, end: End, reset: SentSegment) -> tuple[int, int]:
    """Return the step, and the time in nanoseconds, since when an endpoint had no connection any more.

    A RST as answer shows that it is gone, not since when. Data that it left unanswered before, or a FIN that
    it did not accept, shows an earlier moment: an endpoint that is there acknowledges (RFC 9293 3.8.6.3).

    Args:
        evidence: of the connection.
        end: the RST's sender.
        reset: a RST without ACK.
    """
    own = [s for s in evidence.before(end, reset.step) if not s.answer]
    # An abort shows it exactly, and FIN_WAIT_1 or FIN_WAIT_2 is still there when it answers data.
    if not own or own[-1].reset or evidence.transmissions(end, FIN):
        return reset.step, reset.first_ns
    acked = max((s.ack for s in own if s.ack is not None), default=0)
    steps = evidence.conversation.steps
    fins = evidence.transmissions(end.peer, FIN)
    untaken = fins if fins and accepted(evidence, end.peer, fins[0].end, fins) is None else ()
    for s in evidence.before(end.peer, reset.step):
        if s.step < own[-1].step or not (s.bytes or s in untaken) or s.end <= acked:
            continue
        what = steps[s.step]
        if isinstance(what, Traffic) and not what.of(end.peer).unanswered:
            continue
        since = what.of(end.peer).unanswered_ns if isinstance(what, Traffic) else s.first_ns
        if evidence.distance.must_know(end, reset.first_ns, since):
            return s.step, since
        break
    return reset.step, reset.first_ns


def probed_in_vain(evidence: Evidence, sender: End, reset: SentSegment) -> bool:
    """Whether keepalives, or FINs, right before a RST had no answer: then the path or the peer was gone.

    Args:
        evidence: of the connection.
        sender: of the RST, and of these.
        reset: the RST.
    """
    what = evidence.conversation.steps[reset.step - 1] if reset.step else None
    if not isinstance(what, Traffic):
        return _closed_in_vain(evidence, sender, reset)
    stream = what.of(sender)
    return bool(
        stream.probes and stream.unanswered and reset.first_ns - stream.last_ns > FIRST_TIMEOUT_NS // 2
    )


def _closed_in_vain(evidence: Evidence, sender: End, reset: SentSegment) -> bool:
    """Whether an endpoint retransmitted its FIN right before a RST, and its peer sent nothing meanwhile."""
    tries = [s for s in evidence.transmissions(sender, FIN) if s.step < reset.step]
    return len(tries) > ENOUGH and not evidence.after(sender.peer, tries[0].step)


def _still_retransmitting(evidence: Evidence, receiver: End, reset: SentSegment) -> bool:
    """Whether an endpoint was retransmitting, and its next retransmission is not clearly overdue."""
    sent = [s for s in evidence.before(receiver, reset.step) if s.seq is not None and s.end > s.seq]
    if len(sent) < 2:  # noqa: PLR2004 - it takes two to see the distance
        return False
    gap = sent[-1].first_ns - sent[-2].first_ns
    fresh = sent[-1].event is not None and sent[-1].event.position is Position.NEW
    return not fresh and evidence.now_ns - sent[-1].first_ns < gap * BACKOFF
