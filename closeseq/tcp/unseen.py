"""What an end sent that was not captured, as the numbers of its IPv4 packets tell.

Linux counts the packets of a connection in IPv4's identification (RFC 791 3.1; RFC 6864 leaves it free for
packets that are not fragmented), whether or not they get as far as the capture point. So a step of more
than one counts what was lost before it. Where another system numbers otherwise, or IPv6 has no number,
nothing is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from closeseq.packets.sequence import counts_on, steps

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, Said

MOST = 16  # a longer step was not made by counting one by one


class Unseen(NamedTuple):
    """How much an end sent unseen between two of its segments."""

    number: int
    since: Said  # the earlier one
    exact: bool  # False with traffic in between: long segments, cut after the capture point, count as several


def unseen(evidence: Evidence, end: End, said: Said, before: int) -> Unseen | None:
    """Count what an end sent unseen until a segment, and since its last one before the step `before`.

    Returns None where the numbers tell nothing.
    """
    if not said.ip_id:
        return None
    numbered = (s for s in reversed(evidence.before(end, before)) if not s.answer and s.ip_id)
    last, earlier = next(numbered, None), next(numbered, None)
    if last is None or not last.ip_id:
        return None
    if earlier is not None and earlier.ip_id and not counts_on(last.ip_id, earlier.ip_id):
        return None  # they passed the capture point the other way round, or are not counted
    seen = [s for s in evidence.before(end, said.step) if s.step > last.step]
    exact = all(s.event is not None for s in seen)
    number = steps(said.ip_id, last.ip_id) - 1 - sum(s.segments for s in seen)
    return Unseen(number, last, exact) if 0 <= number <= MOST else None


def without_socket(evidence: Evidence, end: End, said: Said) -> bool:
    """Whether an end that counts its packets sent one that it did not count.

    Linux gives the number 0 to what it sends without a socket: in TIME_WAIT, and in a FIN_WAIT_2 that no
    program owns any more.
    """
    own = evidence.before(end, said.step)
    return said.event is not None and said.event.ip_id == 0 and any(s.event and s.event.ip_id for s in own)
