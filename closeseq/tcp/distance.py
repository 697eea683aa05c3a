"""Did the sender of one segment know of another one? Decided here, and nowhere else.

The capture point splits the round trip: from there to one endpoint and back, and from there to the other and
back. The least time in which an endpoint has ever answered bounds its part from above. So for a segment that
passes on its way to an endpoint, and a later one that comes from there, the time between them shows:

    CANNOT    much sooner than it ever answered: when it sent the later one, the earlier had not reached it
    UNLIKELY  sooner than it ever answered, but not by so much
    MAY       none of these
    MUST      so late that the earlier one, had it not been lost or held up, had reached it by then

A third of the least answer is the margin for CANNOT. A delayed ACK makes a single answer longer, never
shorter, but the only answer there is may have been delayed on its way (by 67 ms of 86 in a recording with the
kernel beside it), the path may become shorter (another route, an emptier queue), and segmentation offload
gives several segments the time of one. MUST waits for twice the time of an ordinary answer, and a
millisecond: queues grow, and a kernel needs some time. It shows that a segment had not come; that it was
lost, and not only held up, takes longer (`Distance.long_overdue`). Whatever acknowledges or echoes a segment
knew of it, at whatever time.
"""

from __future__ import annotations

from dataclasses import field
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Conversation, End, Event
from closeseq.packets.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_MARGIN = 3  # times sooner than the least answer
LATE_NS, LATE_FACTOR = 1_000_000, 2  # base, and times an ordinary answer


class Knowledge(Enum):
    """Whether the sender of a segment knew of an earlier one of its peer."""

    CANNOT = "it cannot have known of it"
    UNLIKELY = "it hardly knew of it"
    MAY = "it may have known of it"
    MUST = "had it arrived, it would have known of it"


@value
class Distance:
    """How far the capture point is from each endpoint, there and back."""

    least_ns: Mapping[End, int | None]  # the least time in which it answered; None: it never did
    late_ns: Mapping[End, int]  # what has not been answered after this time was lost
    first_ns: Mapping[End, int] = field(default_factory=dict)  # in which it answered in the handshake

    @classmethod
    def of(cls, conversation: Conversation) -> Distance:
        """Return the distances that a conversation shows."""
        handshake = _handshake(conversation)
        least = {end: conversation.path(end).response_ns for end in ENDS}
        known = [ns for ns in (*least.values(), *handshake.values()) if ns is not None]
        late = {}
        for end in ENDS:
            own = [ns for ns in (least[end], handshake.get(end)) if ns is not None]
            late[end] = LATE_NS + LATE_FACTOR * max(own or known, default=0)
        return cls(least, late, handshake)

    def knew(self, sender: End, later_ns: int, earlier_ns: int) -> Knowledge:
        """Return whether an endpoint knew of its peer's segment when it sent one of its own.

        Args:
            sender: the endpoint.
            later_ns: when its own segment passed the capture point.
            earlier_ns: when its peer's had passed, on the same clock.
        """
        waited, least = later_ns - earlier_ns, self.least_ns[sender]
        if least is not None and waited < least:
            return Knowledge.CANNOT if LEAST_MARGIN * waited < least else Knowledge.UNLIKELY
        return Knowledge.MUST if waited >= self.late_ns[sender] else Knowledge.MAY

    def must_know(self, sender: End, later_ns: int, earlier_ns: int) -> bool:
        """Whether an endpoint knew of its peer's segment, had it arrived, when it sent one of its own.

        Args:
            sender: the endpoint.
            later_ns: when its own segment passed the capture point.
            earlier_ns: when its peer's had passed, on the same clock.
        """
        return later_ns - earlier_ns >= self.late_ns[sender]  # which no least answer exceeds

    def long_overdue(self, sender: End, later_ns: int, earlier_ns: int) -> bool:
        """Whether a segment was lost of which an endpoint did not know when it sent one of its own.

        One that only should have come by then may still be under way: a queue anywhere on the path may hold
        it, and be longer than the way from the capture point. So this takes another whole round trip.

        Args:
            sender: the endpoint.
            later_ns: when its own segment passed the capture point.
            earlier_ns: when its peer's had passed, on the same clock.
        """
        least = sum(ns for ns in self.least_ns.values() if ns is not None)
        round_trip = max([least, *self.first_ns.values()])
        return later_ns - earlier_ns >= self.late_ns[sender] + round_trip


def _handshake(conversation: Conversation) -> dict[End, int]:
    """Return how long each endpoint took to answer in the handshake, in nanoseconds."""
    first = [step for step in conversation.steps[:4] if isinstance(step, Event) and not step.rst]
    return {
        answer.sender: answer.time_ns - asked.time_ns
        for asked, answer in pairwise(first)
        if asked.syn and answer.sender is not asked.sender
    }
