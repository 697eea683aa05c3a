"""Did one segment arrive? What later acknowledgements and timestamp echoes show (RFC 7323 4)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Position
from closeseq.packets.segments import difference
from closeseq.tcp.evidence import MILLISECOND, cached_on_evidence

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, SentSegment

CLOCK_TICK_NS = 10 * MILLISECOND  # timestamp clocks tick at least so often (RFC 7323 5.4: 1 ms to 1 s)


class Echo(Enum):
    """What a receiver's later segments show of one that was sent to it."""

    ARRIVED = "it arrived"
    MISSED = "it was lost: it had not arrived when the receiver sent something long after"
    LATE = "it had not arrived when the receiver sent next"
    SILENT = "nothing shows it"


NOT_IN_TIME = frozenset({Echo.MISSED, Echo.LATE})


@cached_on_evidence
def echo(evidence: Evidence, receiver: End, segment: SentSegment) -> Echo:
    """Return whether a segment reached `receiver`, by what that endpoint sent later.

    It did if its data was acknowledged, or if the receiver echoes its timestamp and no earlier segment
    had the same one. It had not when the receiver still echoed an older timestamp, if it had acknowledged
    all before it: other segments leave TS.Recent alone (RFC 7323 4.3: SEG.SEQ <= Last.ACK.sent). Then it may
    still have come later, unless that was long after.

    Args:
        evidence: of the connection.
        receiver: of the segment.
        segment: sent by its peer; of traffic nothing is known.
    """
    event = segment.event
    if event is None:
        return Echo.SILENT
    later = [s for s in evidence.after(receiver, segment.step) if not s.answer and not s.stale]
    if event.position is Position.NEW and event.end > event.seq:
        taken = next((s for s in later if s.ack is not None and s.ack >= event.end), None)
        if taken is not None and not _sent_again(evidence, receiver.peer, segment, taken.step):
            return Echo.ARRIVED
    echoes = [(s, s.tsecr) for s in later if s.tsecr is not None and s.event is not None]
    if segment.tsval is None or not echoes:
        return Echo.SILENT
    if event.position is Position.PROBE:
        return Echo.SILENT  # the receiver answers it, and discards it with its timestamp (RFC 9293 3.10.7.4)
    older = [s.tsval for s in evidence.before(receiver.peer, segment.step) if s.tsval is not None]
    if older and difference(segment.tsval, older[-1]) <= 0:
        return Echo.SILENT  # an earlier segment carries the same value
    acked = evidence.acked_before(receiver, segment.step)
    for s, tsecr in echoes:
        if difference(tsecr, segment.tsval) >= 0:
            return Echo.ARRIVED if _echoes_no_later(evidence, receiver.peer, segment, tsecr) else Echo.SILENT
        # It may have been sent before.
        without = evidence.crossed(segment, s) or evidence.made_ns(s) < segment.first_ns
        in_order = acked is not None and event.seq <= acked and event.position is not Position.GAP
        if not without and in_order:
            lost = evidence.distance.long_overdue(receiver, s.first_ns, segment.last_ns)
            return Echo.MISSED if lost else Echo.LATE
    return Echo.SILENT


def _sent_again(evidence: Evidence, sender: End, segment: SentSegment, step: int) -> bool:
    """Whether a segment was retransmitted before a step: the answer may be to the retransmission."""
    repeats = [s for s in evidence.after(sender, segment.step) if s.step < step and s.seq is not None]
    return any(
        s.seq is not None and segment.seq is not None and s.seq <= segment.seq < s.end for s in repeats
    )


def _echoes_no_later(evidence: Evidence, sender: End, segment: SentSegment, tsecr: int) -> bool:
    """Whether an echoed timestamp is too old to be that of anything the sender sent after this segment."""
    following = next((s for s in evidence.after(sender, segment.step) if s.tsval is not None), None)
    if following is None or following.tsval is None:
        return True
    if following.event is None:  # of traffic only the last value is kept
        return tsecr == segment.tsval and following.first_ns - segment.last_ns > CLOCK_TICK_NS
    return difference(tsecr, following.tsval) < 0
