"""Which operating system an endpoint runs, and how much it sent that was not captured.

A SYN's options and their order show the system, with the TTL that it began with: Linux sends MSS, SACK
permitted, timestamps, NOP, window scale, from a TTL of 64. Without a captured SYN only the next sign is left.

Linux counts the packets of a connection in IPv4's identification (RFC 791 3.1; RFC 6864 leaves it free for
packets that are not fragmented), whether or not they get as far as the capture point. So a step of more than
one counts what was lost before it. Where another system numbers otherwise, or with IPv6, nothing is known.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, NamedTuple

from closeseq.connections.conversation import ENDS
from closeseq.packets.segments import IP_IDS, counts_on, steps
from closeseq.tcp.evidence import cached_on_evidence

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, SentSegment

# The kinds of options that a Linux SYN begins with, four bits each: with SACK and timestamps, with SACK
# alone, with timestamps alone (tcp_options_write).
LINUX_OPTIONS = ("2481", "2114", "2118")
LINUX_TTL = 64
HOPS = 32  # a path is hardly ever longer, so a TTL shows with what it began
ENOUGH = 3  # packets in a row that count up
STRIDE = 16  # a longer step was not made by counting one connection's packets one by one


@cached_on_evidence
def linux(evidence: Evidence, end: End) -> bool:
    """Whether an endpoint is known to run Linux.

    Its TTL, and the options of its SYN, show it; without a SYN, that it counts its packets.

    Args:
        evidence: of the connection.
        end: the endpoint.
    """
    events = [s.event for s in evidence.sent[end] if s.event is not None and not s.reset]
    if not events or not LINUX_TTL - HOPS < events[0].ttl <= LINUX_TTL:
        return False
    syn = next((e.syn_options for e in events if e.syn and e.syn_options), 0)
    if syn:
        return f"{index(syn):x}".startswith(LINUX_OPTIONS)
    return counts_packets(evidence, end)


@cached_on_evidence
def sends_dsack(evidence: Evidence, end: End) -> bool:
    """Whether an endpoint sends D-SACK (RFC 2883): Linux does, if both endpoints permit SACK.

    Args:
        evidence: of the connection; without both SYNs nothing shows it.
        end: the endpoint.
    """
    permitted = all(
        any(s.event and "4" in f"{index(s.event.syn_options):x}" for s in evidence.sent[one]) for one in ENDS
    )
    return permitted and linux(evidence, end)


@cached_on_evidence
def counts_packets(evidence: Evidence, end: End) -> bool:
    """Whether an endpoint counts the packets of this connection in IPv4's identification.

    Args:
        evidence: of the connection.
        end: the endpoint.
    """
    counted, before = 0, None
    for s in evidence.sent[end]:
        if s.answer or s.ip_id <= 0:
            continue
        # Where the packets of a stretch of traffic do not count up, it has no number.
        counted += s.segments - 1 + (before is not None and _goes_on(before, s))
        before = s
        if counted >= ENOUGH - 1:
            return True
    return False


def _goes_on(segment: SentSegment, following: SentSegment) -> bool:
    before, number = segment.ip_id, following.ip_id
    # Of traffic the last number is known: its packets lie between.
    return counts_on(number, before) and steps(number, before) <= STRIDE * following.segments


class Unseen(NamedTuple):
    """How much an endpoint sent between two of its segments that was not captured."""

    number: int  # packets, from 0
    since: SentSegment  # the earlier one
    exact: bool  # False with traffic in between: long segments, cut after the capture point, count as several


def unseen(evidence: Evidence, end: End, segment: SentSegment, before: int) -> Unseen | None:
    """Count what an endpoint sent uncaptured until a segment.

    Args:
        evidence: of the connection.
        end: the endpoint.
        segment: one of its segments, with which the count ends.
        before: the index of a step; the count begins at the endpoint's last numbered segment before it.

    Returns:
        The count; None where the numbers show nothing.
    """
    if segment.ip_id <= 0:
        return None
    numbered = (s for s in reversed(evidence.before(end, before)) if not s.answer and s.ip_id > 0)
    last = next(numbered, None)
    if last is None:
        return None
    seen = [s for s in evidence.before(end, segment.step) if s.step > last.step]
    exact = all(s.event is not None for s in seen)
    number = steps(segment.ip_id, last.ip_id) - 1 - sum(s.segments for s in seen)
    if number % IP_IDS > STRIDE or number < 0:
        return None
    earlier = next(
        (s for s in reversed(evidence.before(end, last.step)) if not s.answer and s.ip_id > 0), None
    )
    if earlier is not None and not counts_on(last.ip_id, earlier.ip_id):
        return None  # they passed the capture point the other way round, or are not counted
    return Unseen(number, last, exact)


def may_follow(evidence: Evidence, end: End, segment: SentSegment, least: int, most: int) -> bool:
    """Whether so many packets may have been sent uncaptured right before a segment, by their numbers.

    `unseen` counts them. Of nearly all segments this shows with fewer questions that it need not be asked.

    Args:
        evidence: of the connection.
        end: the endpoint.
        segment: one of its segments.
        least: how many, at least.
        most: how many, at most.
    """
    captured = 0  # without a number, right before the segment
    for s in reversed(evidence.before(end, segment.step)):
        if s.event is None:
            break
        if not s.answer and segment.ip_id <= 0:
            return False
        if not s.answer and s.ip_id > 0:
            break
        captured += 1
    else:
        return False
    return (steps(segment.ip_id, s.ip_id) - 1 - captured - least) % IP_IDS <= most - least


def without_socket(evidence: Evidence, end: End, segment: SentSegment) -> bool:
    """Whether an endpoint that counts its packets sent one without a socket.

    Linux gives such a packet the number 0: in TIME_WAIT, and in a FIN_WAIT_2 that no program owns any more.

    Args:
        evidence: of the connection.
        end: the endpoint.
        segment: one of its segments.
    """
    own = evidence.before(end, segment.step)
    return (
        segment.event is not None
        and segment.event.ip_id == 0
        and any(s.event and s.event.ip_id > 0 for s in own)
    )
