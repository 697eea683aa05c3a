"""Did one segment arrive? What later acknowledgements and timestamp echoes tell (RFC 7323 4)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Position
from closeseq.packets.segments import difference
from closeseq.tcp.evidence import MILLISECOND, asked_once

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, SentSegment

CLOCK_TICK_NS = 10 * MILLISECOND  # timestamp clocks tick at least so often (RFC 7323 5.4: 1 ms to 1 s)


class Echo(Enum):
    """What a receiver's later segments tell of one that was sent to it."""

    ARRIVED = "it arrived"
    MISSED = "it had not arrived when the receiver spoke next"
    SILENT = "nothing tells"


@asked_once
def echo(evidence: Evidence, receiver: End, said: SentSegment) -> Echo:
    """Say whether a segment reached `receiver`, by what that end sent later.

    It did if its data was acknowledged, or if the receiver echoes its timestamp and no earlier segment
    had the same one. It had not when the receiver still echoed an older timestamp (RFC 7323 4.3; only
    for a segment in order, since others leave TS.Recent alone).
    """
    event = said.event
    if event is None:
        return Echo.SILENT
    later = [s for s in evidence.after(receiver, said.step) if not s.answer and not s.stale]
    if event.end > event.seq and event.position is Position.NEW:
        taken = next((s for s in later if s.ack is not None and s.ack >= event.end), None)
        if taken is not None and not _sent_again(evidence, receiver.peer, said, taken.step):
            return Echo.ARRIVED
    older = [s.tsval for s in evidence.before(receiver.peer, said.step) if s.tsval is not None]
    if said.tsval is None or (older and difference(said.tsval, older[-1]) <= 0):
        return Echo.SILENT  # without timestamps, or an earlier segment carries the same value
    for s in later:
        if s.tsecr is None or s.event is None:
            continue
        if difference(s.tsecr, said.tsval) >= 0:
            return Echo.ARRIVED if _echoes_no_later(evidence, receiver.peer, said, s.tsecr) else Echo.SILENT
        # It may have been sent before.
        without = evidence.crossed(said, s) or evidence.made_ns(s) < said.first_ns
        # A segment out of order leaves the receiver's echo as it is (RFC 7323 4.3).
        in_order = s.ack is not None and s.ack >= event.seq and event.position is not Position.GAP
        if not without and in_order:
            return Echo.MISSED
    return Echo.SILENT


def _sent_again(evidence: Evidence, sender: End, said: SentSegment, step: int) -> bool:
    """Whether a segment was repeated before a step, so that what came of it may be due to the repetition."""
    repeats = [s for s in evidence.after(sender, said.step) if s.step < step and s.seq is not None]
    return any(s.seq is not None and said.seq is not None and s.seq <= said.seq < s.end for s in repeats)


def _echoes_no_later(evidence: Evidence, sender: End, said: SentSegment, tsecr: int) -> bool:
    """Whether an echoed timestamp is too old to be that of anything the sender sent after this segment."""
    following = next((s for s in evidence.after(sender, said.step) if s.tsval is not None), None)
    if following is None or following.tsval is None:
        return True
    if following.event is None:  # of traffic only the last value is kept
        return tsecr == said.tsval and following.first_ns - said.last_ns > CLOCK_TICK_NS
    return difference(tsecr, following.tsval) < 0
