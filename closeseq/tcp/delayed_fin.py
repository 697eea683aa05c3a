"""When a FIN was sent first that was captured only later, on Linux: lost, or held back, before the capture.

A FIN that is *lost* is retransmitted: as a tail loss probe (RFC 8985 7), then with each retransmission
timeout, which doubles (RFC 6298). Whatever was not captured was a FIN, or an answer to the peer.

A FIN that is *held back* by a packet filter before the capture point is tried again: when Linux's probe timer
ends, each wait being double the one before, and whenever a segment comes in. Such a FIN shows: the probe
timer sets PSH, or the FIN follows a segment of the peer within 80 us.

How often it was sent or tried before, the numbers of the IPv4 packets show (`unseen` in module sender).

All times are those at which a segment would have passed the capture point on its way to the endpoint, to
reach it by then: so they compare with those of the peer's segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from closeseq.connections.conversation import ENDS, Position, Traffic
from closeseq.packets.segments import FIN, PSH, SYN, counts_on, difference, steps
from closeseq.packets.value import or_0
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import MILLISECOND, cached_on_evidence
from closeseq.tcp.sender import STRIDE, Unseen, linux, may_follow, unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, SentSegment

LEAST_TIMEOUT_NS = 200 * MILLISECOND  # Linux adds at least this to the round trip (TCP_RTO_MIN)
EVER_NS = 1 << 50  # 13 days: more than any wait here
LATE = 8  # a timer may end late by this part of its time
# Linux delays the ACK of a FIN that leaves the program to close (CLOSE_WAIT) by this at the least
# (TCP_ATO_MIN); but where no data had come before, only until its clock ticks next.
DELAYED_ACK_NS, NEXT_TICK_NS = 40 * MILLISECOND, 4 * MILLISECOND
# One run through the kernel's receive path answers and sends within the first; no program reacts as fast.
FASTER_THAN_PROGRAM_NS = 20_000
KERNEL_ANSWER_NS = 4 * FASTER_THAN_PROGRAM_NS
# Linux sends what waits unsent when its probe timer ends, at the earliest 0.2 s after it began to wait
# (the timer wheel may add an eighth), and marks it with PSH.
PROBE_TIMER_NS = 200 * MILLISECOND
PROBE_TIMER_LATE_NS = PROBE_TIMER_NS + 25 * MILLISECOND


class First(NamedTuple):
    """When a FIN was sent first, at the latest."""

    time_ns: int  # since the Unix epoch
    late_ns: int  # it may have been sooner by this, as timers end late
    counted: bool  # False: it was sent uncaptured at least once, and how often is not known


class _Missing(NamedTuple):
    """What an endpoint sent uncaptured before a segment, and what of its peer called for an answer."""

    number: int
    to_answer: Sequence[SentSegment]


def sent_before(evidence: Evidence, end: End, segment: SentSegment, fin: SentSegment) -> First | None:
    """Return when a FIN was sent first; None if nothing shows a transmission that was not captured.

    Args:
        evidence: of the connection.
        end: its sender.
        segment: the first captured FIN, or an earlier segment of the same sender that is numbered past it.
        fin: the first captured FIN.
    """
    if fin.event is not None and fin.event.position is Position.GAP:
        return None  # what was not captured was data
    if segment is fin and not _anything_missing(evidence, end, fin):
        return None
    if not linux(evidence, end):
        return None
    if segment is not fin and _overtaken(segment, fin):
        return None  # it was not lost
    missing = _missing(evidence, end, segment)
    trip_ns = or_0(evidence.distance.least_ns[end])
    if missing is None:
        # It was sent uncaptured once at least, and not retransmitted between the two.
        number = _repetitions(evidence, end, segment, fin) if segment is not fin else 0
        span_ns = _span(evidence, end, number)
        return First(fin.first_ns - span_ns - trip_ns, span_ns // LATE, counted=False) if number else None
    # A plain ACK answers the last of them itself.
    number = missing.number - max(len(missing.to_answer) - (segment is not fin), 0)
    if number < 1:
        return None
    if fin.bytes:  # some were the data alone: a retransmission of it also carries the FIN
        number = 1
    span_ns = _span(evidence, end, number)
    first_ns = fin.first_ns - span_ns
    if segment is not fin and number > 1:  # all that are missing had been sent before this
        first_ns = min(first_ns, segment.first_ns - _span(evidence, end, number - 1))
    return First(first_ns - trip_ns, span_ns // LATE, counted=True)


def sent_ns(evidence: Evidence, end: End, segment: SentSegment, fin: SentSegment) -> int | None:
    """Return when a FIN was sent that was not captured before a segment numbered past it.

    If no more was sent uncaptured than answers were due, one of the answers was the FIN: a delayed ACK of
    the peer's FIN goes with it.

    Args:
        evidence: of the connection.
        end: its sender.
        segment: the first of its segments that is numbered past it.
        fin: the first captured FIN, which passed later.

    Returns:
        Nanoseconds since the Unix epoch; None if nothing shows it.
    """
    first = sent_before(evidence, end, segment, fin)
    if first is not None or _overtaken(segment, fin):
        return None if first is None else first.time_ns
    missing = _missing(evidence, end, segment)
    if missing is None or not 0 < missing.number < len(missing.to_answer):
        return None
    return next((s.first_ns for s in missing.to_answer if s.event is not None and s.event.fin), None)


def closed_too_soon(evidence: Evidence, end: End, fin: SentSegment, taken_ns: int) -> bool:
    """Whether an endpoint sent its FIN so soon after its peer's that it had closed before.

    A program that closes so soon after end of file acknowledges with its FIN. Here an ACK of the peer's FIN
    was sent uncaptured beside the own FIN. Such an ACK is delayed in CLOSE_WAIT; in CLOSING it is not.

    Args:
        evidence: of the connection.
        end: which.
        fin: the first of its FIN that was captured.
        taken_ns: when the peer's FIN passed the capture point, since the Unix epoch.
    """
    own = (
        s for s in evidence.before(end, fin.step) if s.seq is not None and s.seq >= fin.end and not s.reset
    )
    first = sent_before(evidence, end, next(own, fin), fin)
    if first is None or fin.bytes:
        return False
    had_data = any(s.bytes for s in evidence.sent[end.peer] if s.last_ns < taken_ns)
    delay_ns = DELAYED_ACK_NS if had_data else NEXT_TICK_NS
    # Of the time in which it may have been sent, the longer part is likelier: before the peer's FIN came, or
    # after the delay.
    soon_ns = max(delay_ns, (delay_ns + first.late_ns) // 2) if first.counted else 0
    return first.time_ns - taken_ns < soon_ns


def _anything_missing(evidence: Evidence, end: End, segment: SentSegment) -> bool:
    """Whether an endpoint surely sent something uncaptured right before a segment; of most it did not."""
    if not may_follow(evidence, end, segment, 1, STRIDE):
        return False
    count = unseen(evidence, end, segment, segment.step)
    return count is not None and count.exact and count.number > 0


def _overtaken(segment: SentSegment, fin: SentSegment) -> bool:
    """Whether a FIN that passed after a segment had been sent before it."""
    if segment.tsval is not None and fin.tsval is not None and difference(fin.tsval, segment.tsval):
        return difference(fin.tsval, segment.tsval) < 0
    return counts_on(segment.ip_id, fin.ip_id)


def _missing(evidence: Evidence, end: End, segment: SentSegment) -> _Missing | None:
    """Count what an endpoint sent uncaptured before a segment; None where the numbers do not show it."""
    count = unseen(evidence, end, segment, segment.step) if linux(evidence, end) else None
    if count is None or not count.exact:
        return None
    received = [
        s for s in evidence.before(end.peer, segment.step) if s.step >= count.since.step and not s.reset
    ]
    calls = {s.step: _to_answer(evidence, s) for s in received}
    if any(number > 1 for number in calls.values()):
        return None  # how often it answered that is open
    return _Missing(count.number, [s for s in received if calls[s.step] and not _echoes_older(segment, s)])


def _to_answer(evidence: Evidence, segment: SentSegment) -> int:
    """Return how many segments of an event, or of a stretch of traffic, called for an answer and had none."""
    if segment.event is not None:
        return segment.event.end > segment.event.seq
    what = evidence.conversation.steps[segment.step]
    return what.of(segment.sender).unanswered if isinstance(what, Traffic) else 0


def _echoes_older(segment: SentSegment, received: SentSegment) -> bool:
    """Whether a segment was sent before another one had come, as its echo is older (RFC 7323 4.3)."""
    if segment.tsecr is None or received.tsval is None:
        return False
    return difference(segment.tsecr, received.tsval) < 0


def _repetitions(evidence: Evidence, end: End, segment: SentSegment, fin: SentSegment) -> int:
    """Return how often, at least, a FIN had been sent before a segment.

    If it was not sent between that and its capture, the timeout that ended then had begun before; and the
    longer it lasted, the more timeouts had ended before it.
    """
    number = 1
    ids = segment.ip_id, fin.ip_id
    if counts_on(ids[1], ids[0]) and steps(ids[1], ids[0]) == 1:
        waited_ns = fin.first_ns - segment.first_ns
        while _late(_span(evidence, end, number) - _span(evidence, end, number - 1)) < waited_ns:
            number += 1
    return number


def _late(time_ns: int) -> int:
    return time_ns + time_ns // LATE


def _span(evidence: Evidence, end: End, number: int) -> int:
    """Return the least time in which a segment is retransmitted so often, in nanoseconds.

    The first retransmission is a tail loss probe (RFC 8985 7), after which the timeouts begin anew: 1, 2, 4.
    """
    if number < 1:
        return 0
    trip_ns = sum(map(or_0, evidence.distance.least_ns.values()))
    timeout_ns = trip_ns + max(LEAST_TIMEOUT_NS, 2 * trip_ns)
    smoothed_ns = _smoothed_round_trip_ns(evidence, end)
    probe_ns = min(smoothed_ns + max(LEAST_TIMEOUT_NS, 2 * smoothed_ns), 2 * smoothed_ns + LEAST_TIMEOUT_NS)
    return probe_ns + (timeout_ns << (number - 1)) - timeout_ns


@cached_on_evidence
def _smoothed_round_trip_ns(evidence: Evidence, end: End) -> int:
    """Return an endpoint's smoothed round-trip time (SRTT, RFC 6298 2), in nanoseconds.

    It is more than the round trip where the answer to its SYN had to be retransmitted: all that time counts
    (RFC 7323 4.1), and each answer after that takes an eighth off the difference.
    """
    trip_ns = sum(map(or_0, evidence.distance.least_ns.values()))
    transmissions = evidence.transmissions(end, SYN)
    # What passed before the last retransmission had not arrived by then.
    after = evidence.after(end.peer, transmissions[-1].step) if transmissions else ()
    answer = next((s for s in after if s.ack is not None and s.ack >= transmissions[0].end), None)
    syns = [
        s for s in transmissions if answer is not None and s.tsval is not None and s.tsval == answer.tsecr
    ]
    if answer is None or not syns:
        return trip_ns
    excess_ns = answer.first_ns - syns[0].first_ns + or_0(evidence.distance.least_ns[end]) - trip_ns
    excess_ns = max(excess_ns, 0)
    for segment in evidence.after(end, answer.step):
        # Nothing without data; put so that no class of connections splits by which segments have some.
        excess_ns -= min(excess_ns // 8, min(segment.bytes, 1) * EVER_NS)
    return trip_ns + excess_ns


class Tries(NamedTuple):
    """How often an endpoint tried to send its FIN before it was captured."""

    number: int  # at least 1 where the probe timer sent it; below 1 there was none
    trigger: SentSegment | None  # the FIN of the peer that made the kernel try once more
    to_answer: Sequence[SentSegment]  # what the peer had sent before that, and was answered uncaptured


class CloseTime(NamedTuple):
    """When an endpoint closed, about."""

    time_ns: int  # since the Unix epoch
    before: SentSegment  # and surely before this


def by_probe_timer(evidence: Evidence, fin: SentSegment) -> bool:
    """Whether a FIN had waited unsent: Linux sets PSH on what its probe timer sends, data or not.

    Other systems set PSH on every FIN, which shows nothing.

    Args:
        evidence: of the connection.
        fin: a captured FIN.
    """
    if fin.event is None or fin.event.length or fin.event.flags & (FIN | PSH) != FIN | PSH:
        return False
    return linux(evidence, fin.sender)


def reliable(evidence: Evidence, count: Unseen, segment: SentSegment) -> bool:
    """Whether a count up to a segment can be relied on: Linux alone marks a FIN so, and counts so.

    Args:
        evidence: of the connection.
        count: what was sent uncaptured, by the numbers of the packets.
        segment: the one at which the count ends.
    """
    return count.exact or by_probe_timer(evidence, segment)


@cached_on_evidence
def tries(evidence: Evidence, end: End, fin: SentSegment) -> Tries | None:
    """Count how often a FIN was tried uncaptured; None if it did not wait, or the numbers do not show it.

    Whatever its sender sent uncaptured was a try, or answered what its peer had sent.

    Args:
        evidence: of the connection.
        end: the FIN's sender.
        fin: the first of its FIN that was captured.
    """
    timer = by_probe_timer(evidence, fin)
    trigger = _trigger(evidence, end, fin)
    if not timer and trigger is None:
        return None
    if fin.event is not None and fin.event.position is Position.GAP:
        return None  # data, at least, was not captured
    until = (trigger or fin).step
    count = unseen(evidence, end, fin, until)
    if count is None or not reliable(evidence, count, fin):
        return None
    received = [s for s in evidence.before(end.peer, until) if s.step > count.since.step and not s.reset]
    if any(s.unanswered for s in received):
        return None  # how often it answered that is open
    to_answer = [s for s in received if s.event is not None and s.event.end > s.event.seq]
    number = count.number - len(to_answer)
    return Tries(max(number, 1) if timer else number, trigger, to_answer)


def _trigger(evidence: Evidence, end: End, fin: SentSegment) -> SentSegment | None:
    """Return the FIN of the peer that a FIN follows within `KERNEL_ANSWER_NS`."""
    received = evidence.before(end.peer, fin.step)[-1:]
    if not received or received[0].event is None or received[0].reset or not received[0].event.fin:
        return None
    at_once = fin.first_ns - received[0].first_ns < KERNEL_ANSWER_NS
    return received[0] if at_once and evidence.knew(fin, received[0]) is not Knowledge.CANNOT else None


def closed(evidence: Evidence, end: End, fin: SentSegment) -> CloseTime | None:
    """Return when an endpoint closed whose FIN had waited; None if it did not, as far as is known.

    Args:
        evidence: of the connection.
        end: which endpoint.
        fin: the first of its FIN that was captured.
    """
    tried = tries(evidence, end, fin)
    if tried is None:
        # More packets were not captured than answers were due, and nothing else sends a FIN so late.
        first = sent_before(evidence, end, fin, fin)
        if first is not None:
            return CloseTime(first.time_ns, fin)
        return CloseTime(fin.first_ns - PROBE_TIMER_NS, fin) if by_probe_timer(evidence, fin) else None
    if tried.number < 1:
        return None
    if tried.to_answer:
        return _closed_amid(evidence, fin, tried)
    if tried.trigger is None:
        return CloseTime(fin.first_ns - _waited(tried.number), fin)
    # The timer that would have sent it next had not ended yet; without PSH it had never ended.
    return CloseTime(
        fin.first_ns - _half_waited(tried.number if by_probe_timer(evidence, fin) else 1), tried.trigger
    )


def _closed_amid(evidence: Evidence, fin: SentSegment, tried: Tries) -> CloseTime:
    """Return when an endpoint closed that answered its peer, uncaptured, before its FIN was captured."""
    first, last = tried.to_answer[0], tried.to_answer[-1]
    timer = by_probe_timer(evidence, fin)
    ended = max((fin.first_ns - first.first_ns) // PROBE_TIMER_NS - 1, 0) if timer else 0
    if tried.number > 1 + ended:
        # More tries than the timer made since then: one was before. A FIN that comes in then is acknowledged
        # at once, and the own FIN is tried once more.
        return CloseTime(first.first_ns - _half_waited(tried.number - 1), first)
    if timer and not tried.trigger and fin.first_ns - last.first_ns > PROBE_TIMER_LATE_NS:
        return CloseTime(max(fin.first_ns - _waited(tried.number), last.first_ns), fin)
    return CloseTime((first.first_ns + last.first_ns) // 2, fin)


def _waited(number: int) -> int:
    """Return how long after the first of this many tries the probe timer ends again, in nanoseconds."""
    return PROBE_TIMER_NS * ((1 << number) - 1)


def _half_waited(number: int) -> int:
    """Return the same until half way between the last try and that."""
    return (_waited(number - 1) + _waited(number)) // 2


def loses_before_capture(evidence: Evidence) -> bool:
    """Whether something that either endpoint sent is known to have been lost before the capture point.

    Args:
        evidence: of the connection.
    """
    for end in ENDS:
        if evidence.conversation.path(end).lost_before:
            return True
        for s in evidence.sent[end]:
            count = None if s.reset or not s.event or s.event.syn else unseen(evidence, end, s, s.step)
            if count is not None and count.number and reliable(evidence, count, s):
                return True
    return False
