"""How soon each end has ever answered, as seen at the capture point.

A segment that acknowledges the very segment before it, of the other end, answers it: the time between the
two is the way from the capture point to the end and back, and whatever the end took. The least of these
is a bound: nothing of that end can be an answer to something that passed the capture point later than that
before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.sequence import NEW
from closeseq.connections.state import NONE
from closeseq.packets.flags import RST

REPEATED_NS = 900_000_000  # a SYN+ACK whose first copy was lost unseen comes again after 1 s (RFC 6298 2.1)

if TYPE_CHECKING:
    from closeseq.connections.batch import Batch
    from closeseq.connections.state import Histories, Sides


def measure(batch: Batch, histories: Histories, sides: Sides) -> None:
    """Keep the least time in which each end answered.

    Only the first transmission of something that takes numbers counts as asked: of a repetition nobody
    knows which copy was answered. A RST is nobody's answer: anybody may have sent it. What comes so late that
    it may be an answer sent again tells nothing either.
    """
    rows, place = batch.rows, batch.senders.place
    segments, numbers = batch.segments, batch.numbers
    no_reset = segments.flags & RST == 0
    asks = (numbers.end > numbers.seq) & (numbers.position == NEW) & no_reset
    end = np.where(asks, numbers.end, NONE)[place]
    ack = np.where(no_reset, numbers.ack, NONE)[place]
    time_ns, sender, start = segments.time_ns[place], rows.sender, rows.start
    connection = rows.connection

    asked, asked_ns, asker = np.roll(end, 1), np.roll(time_ns, 1), np.roll(sender, 1)
    asked[start], asked_ns[start] = histories.asked_end[connection], histories.asked_ns[connection]
    asker[start] = histories.last_sender[connection]
    answers = (asked != NONE) & (asker != sender) & (ack == asked) & (time_ns >= asked_ns)
    answers = np.flatnonzero(answers & (time_ns - asked_ns < REPEATED_NS))
    side = 2 * batch.connection[answers] + sender[answers]
    np.minimum.at(sides.response_ns, side, time_ns[answers] - asked_ns[answers])

    last = start + rows.length - 1
    histories.asked_end[connection], histories.asked_ns[connection] = end[last], time_ns[last]
    histories.last_sender[connection] = sender[last]
