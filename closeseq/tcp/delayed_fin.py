"""When an end sent its FIN first, where that was lost before it was captured, by Linux's time-outs.

A FIN that is lost is sent again: as a tail loss probe (RFC 8985 7), then with each time-out, which doubles
(RFC 6298). How often it was sent unseen, the numbers of the packets tell (module unseen): whatever was not
captured was a FIN, or an answer to what the peer had sent.

All times are those at which a segment would have passed the capture point on its way to the end, to reach it
by then: so they compare with those of the peer's segments.

When an end closed whose FIN had to wait before it was captured.

A program closes, and TCP tries to send FIN. Where a packet filter before the capture point drops it, Linux
tries again: when its probe timer ends, each wait being double the one before, and whenever a segment comes
in. So a FIN that waited betrays itself: by PSH, which the probe timer sets, or by following a segment of the
peer in one breath. How often it was tried before, the numbers of the packets tell (module unseen).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from closeseq.connections.conversation import ENDS, Position, Traffic
from closeseq.packets.segments import FIN, PSH, SYN, counts_on, difference, steps
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import MILLISECOND, asked_once
from closeseq.tcp.sender import Unseen, linux, unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, SentSegment

LEAST_TIMEOUT_NS = 200 * MILLISECOND  # Linux adds at least this to the round trip (TCP_RTO_MIN)
LATE = 8  # by so much of its time a timer may end late
# Linux delays the ACK of a FIN that leaves the program to close (CLOSE_WAIT) by this at the least
# (TCP_ATO_MIN); but where no data had come before, only until its clock ticks next.
DELAYED_ACK_NS, NEXT_TICK_NS = 40 * MILLISECOND, 4 * MILLISECOND


class First(NamedTuple):
    """When a FIN was sent first, at the latest."""

    time_ns: int
    late_ns: int  # so much sooner it may have been, as timers end late
    counted: bool  # how often it went unseen is known; else it was once, at least


class _Missing(NamedTuple):
    """What an end sent unseen before a segment, and what of its peer called for an answer meanwhile."""

    number: int
    asked: Sequence[SentSegment]


def sent_before(evidence: Evidence, end: End, said: SentSegment, fin: SentSegment) -> First | None:
    """Return when a FIN was sent first, of which some transmissions went unseen before a segment.

    `fin` is the first that was captured, `said` the same or one that is numbered past it. None if nothing
    tells of another.
    """
    if not linux(evidence, end) or (fin.event is not None and fin.event.position is Position.GAP):
        return None  # what went unseen was data
    if said is not fin and _overtaken(said, fin):
        return None  # it was not lost
    missing = _missing(evidence, end, said)
    trip_ns = evidence.distance.least_ns[end] or 0
    if missing is None:
        # It went unseen once at least, and was not repeated between the two.
        number = _repetitions(evidence, end, said, fin) if said is not fin else 0
        span_ns = _span(evidence, end, number)
        return First(fin.first_ns - span_ns - trip_ns, span_ns // LATE, counted=False) if number else None
    # A plain ACK answers the last of them itself.
    number = missing.number - max(len(missing.asked) - (said is not fin), 0)
    if number < 1:
        return None
    if fin.bytes:  # some were the data alone, with which it is put together when that is repeated
        number = 1
    span_ns = _span(evidence, end, number)
    first_ns = fin.first_ns - span_ns
    if said is not fin and number > 1:  # all that are missing had been sent before this
        first_ns = min(first_ns, said.first_ns - _span(evidence, end, number - 1))
    return First(first_ns - trip_ns, span_ns // LATE, counted=True)


def sent_ns(evidence: Evidence, end: End, said: SentSegment, fin: SentSegment) -> int | None:
    """Return when a FIN was sent that went unseen before a segment numbered past it.

    If no more went unseen than answers were due, one of them was the FIN: the answer to the peer's, where
    that is delayed, goes with it.
    """
    first = sent_before(evidence, end, said, fin)
    if first is not None or _overtaken(said, fin):
        return None if first is None else first.time_ns
    missing = _missing(evidence, end, said)
    if missing is None or not 0 < missing.number < len(missing.asked):
        return None
    return next((s.first_ns for s in missing.asked if s.event is not None and s.event.fin), None)


def closed_too_soon(evidence: Evidence, end: End, fin: SentSegment, taken_ns: int) -> bool:
    """Whether an end sent its FIN first so soon after its peer's that it had closed before.

    A program that closes so soon after it is told end of file acknowledges with its FIN. Here an ACK of the
    peer's FIN went unseen beside the own FIN, and such an ACK is delayed; one of CLOSING is not.

    Args:
        evidence: of the connection.
        end: which.
        fin: the first of its FIN that was captured.
        taken_ns: when the peer's FIN passed the capture point.
    """
    own = (
        s for s in evidence.before(end, fin.step) if s.seq is not None and s.seq >= fin.end and not s.reset
    )
    first = sent_before(evidence, end, next(own, fin), fin)
    if first is None or fin.bytes:
        return False
    told_data = any(s.bytes for s in evidence.said[end.peer] if s.last_ns < taken_ns)
    delay_ns = DELAYED_ACK_NS if told_data else NEXT_TICK_NS
    # Of the time in which it may have been sent, the longer part is likelier: before the peer's FIN came, or
    # after the delay.
    soon_ns = max(delay_ns, (delay_ns + first.late_ns) // 2) if first.counted else 0
    return first.time_ns - taken_ns < soon_ns


def _overtaken(said: SentSegment, fin: SentSegment) -> bool:
    """Whether a FIN that passed after a segment had been sent before it."""
    if said.tsval is not None and fin.tsval is not None and difference(fin.tsval, said.tsval):
        return difference(fin.tsval, said.tsval) < 0
    return counts_on(said.ip_id or 0, fin.ip_id or 0)


def _missing(evidence: Evidence, end: End, said: SentSegment) -> _Missing | None:
    """Count what an end sent unseen before a segment; None where the numbers do not tell."""
    told = unseen(evidence, end, said, said.step) if linux(evidence, end) else None
    if told is None or not told.exact:
        return None
    heard = [s for s in evidence.before(end.peer, said.step) if s.step >= told.since.step and not s.reset]
    calls = {s.step: _calls(evidence, s) for s in heard}
    if any(number > 1 for number in calls.values()):
        return None  # how often it answered that is open
    return _Missing(told.number, [s for s in heard if calls[s.step] and not _echoes_older(said, s)])


def _calls(evidence: Evidence, said: SentSegment) -> int:
    """Return how many segments of an event, or of a stretch of traffic, called for an answer and had none."""
    if said.event is not None:
        return said.event.end > said.event.seq
    what = evidence.conversation.steps[said.step]
    return what.of(said.sender).unanswered if isinstance(what, Traffic) else 0


def _echoes_older(said: SentSegment, heard: SentSegment) -> bool:
    """Whether a segment was sent before another one had come, as its echo is older (RFC 7323 4.3)."""
    if said.tsecr is None or heard.tsval is None:
        return False
    return difference(said.tsecr, heard.tsval) < 0


def _repetitions(evidence: Evidence, end: End, said: SentSegment, fin: SentSegment) -> int:
    """Return how often a FIN had been sent, at the least, before a segment.

    If it was not sent between that and its capture, the time-out that ended then had begun before; and the
    longer it lasted, the more had ended before it.
    """
    number = 1
    ids = said.ip_id or 0, fin.ip_id or 0
    if counts_on(ids[1], ids[0]) and steps(ids[1], ids[0]) == 1:
        waited_ns = fin.first_ns - said.first_ns
        while _late(_span(evidence, end, number) - _span(evidence, end, number - 1)) < waited_ns:
            number += 1
    return number


def _late(time_ns: int) -> int:
    return time_ns + time_ns // LATE


def _span(evidence: Evidence, end: End, number: int) -> int:
    """Return the time in which a segment is repeated so often, at the least, in nanoseconds.

    The first repetition is a tail loss probe (RFC 8985 7), after which the time-outs begin anew: 1, 2, 4.
    """
    if number < 1:
        return 0
    trip_ns = sum(ns or 0 for ns in evidence.distance.least_ns.values())
    time_out_ns = trip_ns + max(LEAST_TIMEOUT_NS, 2 * trip_ns)
    believed_ns = _believed_trip(evidence, end)
    probe_ns = min(believed_ns + max(LEAST_TIMEOUT_NS, 2 * believed_ns), 2 * believed_ns + LEAST_TIMEOUT_NS)
    return probe_ns + (time_out_ns << (number - 1)) - time_out_ns


@asked_once
def _believed_trip(evidence: Evidence, end: End) -> int:
    """Return what an end takes for its round trip (RFC 6298 2), in nanoseconds.

    That is more than it is where a SYN was answered late, since its answer had to be repeated: it counts with
    all that time (RFC 7323 4.1), and each answer after that takes an eighth off the difference.
    """
    trip_ns = sum(ns or 0 for ns in evidence.distance.least_ns.values())
    copies = evidence.copies(end, SYN)
    # What came before the last copy had not arrived by then.
    after = evidence.after(end.peer, copies[-1].step) if copies else ()
    answer = next((s for s in after if s.ack is not None and s.ack >= copies[0].end), None)
    asked = [s for s in copies if answer is not None and s.tsval is not None and s.tsval == answer.tsecr]
    if answer is None or not asked:
        return trip_ns
    excess_ns = answer.first_ns - asked[0].first_ns + (evidence.distance.least_ns[end] or 0) - trip_ns
    for said in evidence.after(end, answer.step):
        if said.bytes:
            excess_ns -= excess_ns // 8
    return trip_ns + max(excess_ns, 0)


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
    pushed: SentSegment | None  # the FIN of the peer that pushed it out
    asked: Sequence[SentSegment]  # what the peer had sent before that, and the end answered, unseen


class CloseTime(NamedTuple):
    """When an end closed, about."""

    time_ns: int
    before: SentSegment  # and surely before this


def by_probe_timer(evidence: Evidence, fin: SentSegment) -> bool:
    """Whether a FIN had waited unsent: Linux marks what its probe timer sends with PSH, data or not.

    Other systems put PSH on every FIN, which says nothing.
    """
    if fin.event is None or fin.event.length or fin.event.flags & (FIN | PSH) != FIN | PSH:
        return False
    return linux(evidence, fin.sender)


def reliable(evidence: Evidence, told: Unseen, said: SentSegment) -> bool:
    """Whether what was counted until a segment went unseen: Linux alone marks a FIN so, and counts so."""
    return told.exact or by_probe_timer(evidence, said)


@asked_once
def tries(evidence: Evidence, end: End, fin: SentSegment) -> Tries | None:
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


def _pushed_by(evidence: Evidence, end: End, fin: SentSegment) -> SentSegment | None:
    """Return the FIN of the peer which a FIN follows in one breath."""
    heard = evidence.before(end.peer, fin.step)[-1:]
    if not heard or heard[0].event is None or heard[0].reset or not heard[0].event.fin:
        return None
    pushed = fin.first_ns - heard[0].first_ns < ANSWER_NS
    return heard[0] if pushed and evidence.knew(fin, heard[0]) is not Knowledge.CANNOT else None


def closed(evidence: Evidence, end: End, fin: SentSegment) -> CloseTime | None:
    """Say when an end closed whose FIN had waited; None if it did not, as far as is known."""
    told = tries(evidence, end, fin)
    if told is None:
        # More packets went unseen than answers were due, and nothing else sends a FIN so late.
        first = sent_before(evidence, end, fin, fin)
        if first is not None:
            return CloseTime(first.time_ns, fin)
        return CloseTime(fin.first_ns - PROBE_TIMER_NS, fin) if by_probe_timer(evidence, fin) else None
    if told.number < 1:
        return None
    if told.asked:
        return _closed_amid(evidence, fin, told)
    if told.pushed is None:
        return CloseTime(fin.first_ns - _waited(told.number), fin)
    # The timer that would have sent it next had not ended yet; without PSH it had never ended.
    return CloseTime(
        fin.first_ns - _half_waited(told.number if by_probe_timer(evidence, fin) else 1), told.pushed
    )


def _closed_amid(evidence: Evidence, fin: SentSegment, told: Tries) -> CloseTime:
    """Say when an end closed that heard from its peer, unseen, before its FIN was captured."""
    first, last = told.asked[0], told.asked[-1]
    timer = by_probe_timer(evidence, fin)
    ended = max((fin.first_ns - first.first_ns) // PROBE_TIMER_NS - 1, 0) if timer else 0
    if told.number > 1 + ended:
        # More tries than the timer made since: one was before. A FIN that comes in then is acknowledged
        # at once, and the own one is tried once more.
        return CloseTime(first.first_ns - _half_waited(told.number - 1), first)
    if timer and not told.pushed and fin.first_ns - last.first_ns > PROBE_TIMER_LATE_NS:
        return CloseTime(max(fin.first_ns - _waited(told.number), last.first_ns), fin)
    return CloseTime((first.first_ns + last.first_ns) // 2, fin)


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
