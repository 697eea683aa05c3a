"""When an end closed whose FIN had to wait before it was captured.

A program closes, and TCP tries to send FIN. Where a packet filter before the capture point drops it, Linux
tries again: when its probe timer ends, each wait being double the one before, and whenever a segment comes
in. So a FIN that waited betrays itself: by PSH, which the probe timer sets, or by following a segment of the
peer in one breath. How often it was tried before, the numbers of the packets tell (module unseen).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from closeseq.connections.conversation import ENDS, Position
from closeseq.packets.flags import FIN, PSH
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import MILLISECOND, asked_once
from closeseq.tcp.system import linux
from closeseq.tcp.timeouts import sent_before
from closeseq.tcp.unseen import Unseen, unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, Said

# One run through the kernel's receive path answers and sends within this; no program reacts as fast.
SAME_BREATH_NS = 20_000
ANSWER_NS = 4 * SAME_BREATH_NS
# Linux sends what waits unsent when its probe timer ends, at the earliest 0.2 s after it began to wait
# (the timer wheel may add an eighth), and marks it with PSH.
PROBE_TIMER_NS = 200 * MILLISECOND
PROBE_TIMER_LATE_NS = PROBE_TIMER_NS + 25 * MILLISECOND


class Tries(NamedTuple):
    """How often an end tried to send its FIN before it was captured."""

    number: int
    pushed: Said | None  # the FIN of the peer that pushed it out
    asked: Sequence[Said]  # what the peer had sent before that, and the end answered, unseen


class Close(NamedTuple):
    """When an end closed, about."""

    time_ns: int
    before: Said  # and surely before this


def by_probe_timer(evidence: Evidence, fin: Said) -> bool:
    """Whether a FIN had waited unsent: Linux marks what its probe timer sends with PSH, data or not.

    Other systems put PSH on every FIN, which says nothing.
    """
    if fin.event is None or fin.event.length or fin.event.flags & (FIN | PSH) != FIN | PSH:
        return False
    return linux(evidence, fin.sender)


def reliable(evidence: Evidence, told: Unseen, said: Said) -> bool:
    """Whether what was counted until a segment went unseen: Linux alone marks a FIN so, and counts so."""
    return told.exact or by_probe_timer(evidence, said)


@asked_once
def tries(evidence: Evidence, end: End, fin: Said) -> Tries | None:
    """Count how often a FIN was tried unseen; None if it did not wait, or the numbers do not tell.

    Whatever the end sent unseen was a try, or answered what its peer had sent.
    """
    timer = by_probe_timer(evidence, fin)
    pushed = _pushed_by(evidence, end, fin)
    if not timer and pushed is None:
        return None
    if fin.event is not None and fin.event.position is Position.GAP:
        return None  # it was data that went unseen, at least
    until = (pushed or fin).step
    told = unseen(evidence, end, fin, until)
    if told is None or not reliable(evidence, told, fin):
        return None
    heard = [s for s in evidence.before(end.peer, until) if s.step > told.since.step and not s.reset]
    if any(s.unanswered for s in heard):
        return None  # how often it answered that is open
    asked = [s for s in heard if s.event is not None and s.event.end > s.event.seq]
    number = told.number - len(asked)
    return Tries(max(number, 1) if timer else number, pushed, asked)


def _pushed_by(evidence: Evidence, end: End, fin: Said) -> Said | None:
    """Return the FIN of the peer which a FIN follows in one breath."""
    heard = evidence.before(end.peer, fin.step)[-1:]
    if not heard or heard[0].event is None or heard[0].reset or not heard[0].event.fin:
        return None
    pushed = fin.first_ns - heard[0].first_ns < ANSWER_NS
    return heard[0] if pushed and evidence.knew(fin, heard[0]) is not Knowledge.CANNOT else None


def closed(evidence: Evidence, end: End, fin: Said) -> Close | None:
    """Say when an end closed whose FIN had waited; None if it did not, as far as is known."""
    told = tries(evidence, end, fin)
    if told is None:
        # More packets went unseen than answers were due, and nothing else sends a FIN so late.
        first = sent_before(evidence, end, fin, fin)
        if first is not None:
            return Close(first.time_ns, fin)
        return Close(fin.first_ns - PROBE_TIMER_NS, fin) if by_probe_timer(evidence, fin) else None
    if told.number < 1:
        return None
    if told.asked:
        return _closed_amid(evidence, fin, told)
    if told.pushed is None:
        return Close(fin.first_ns - _waited(told.number), fin)
    # The timer that would have sent it next had not ended yet; without PSH it had never ended.
    return Close(
        fin.first_ns - _half_waited(told.number if by_probe_timer(evidence, fin) else 1), told.pushed
    )


def _closed_amid(evidence: Evidence, fin: Said, told: Tries) -> Close:
    """Say when an end closed that heard from its peer, unseen, before its FIN was captured."""
    first, last = told.asked[0], told.asked[-1]
    timer = by_probe_timer(evidence, fin)
    ended = max((fin.first_ns - first.first_ns) // PROBE_TIMER_NS - 1, 0) if timer else 0
    if told.number > 1 + ended:
        # More tries than the timer made since: one was before. A FIN that comes in then is acknowledged
        # at once, and the own one is tried once more.
        return Close(first.first_ns - _half_waited(told.number - 1), first)
    if timer and not told.pushed and fin.first_ns - last.first_ns > PROBE_TIMER_LATE_NS:
        return Close(max(fin.first_ns - _waited(told.number), last.first_ns), fin)
    return Close((first.first_ns + last.first_ns) // 2, fin)


def _waited(number: int) -> int:
    """Return how long after the first of so many tries the probe timer ends again, in nanoseconds."""
    return PROBE_TIMER_NS * ((1 << number) - 1)


def _half_waited(number: int) -> int:
    """Return the same until half way between the last try and that."""
    return (_waited(number - 1) + _waited(number)) // 2


def loses_before_capture(evidence: Evidence) -> bool:
    """Whether something that either end sent is known to have been lost before the capture point."""
    for end in ENDS:
        if evidence.conversation.path(end).lost_before:
            return True
        for s in evidence.said[end]:
            told = None if s.reset or not s.event or s.event.syn else unseen(evidence, end, s, s.step)
            if told is not None and told.number and reliable(evidence, told, s):
                return True
    return False
