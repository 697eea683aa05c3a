"""What is remembered of each connection that is watched."""

from __future__ import annotations

import numpy as np

from closeseq.connections.extent import FAR_NS
from closeseq.connections.growing import Growing, column

UNTOLD, TOLD_STUCK, TOLD_CLOSED = 0, 1, 2
# What there is to say of a connection, in the order in which it is said when not all can be at once.
NOTHING, NEWS_REVISED, NEWS_STUCK, NEWS_PROBLEM, NEWS_CLOSED = 0, 1, 2, 3, 4


class Tracked(Growing):
    """One row a connection, as in `Connections`."""

    label: np.ndarray = column(np.int32, -1)  # index into Labels; -1: not judged yet
    due_ns: np.ndarray = column(np.int64, FAR_NS)  # when to judge it again, since the Unix epoch
    clock_ns: np.ndarray = column(np.int64, FAR_NS)  # of what is over: when the clock of its last socket ends
    judged_ns: np.ndarray = column(np.int64)  # when it was judged last
    event: np.ndarray = column(np.int64, -1)  # its last event when it was looked at
    news: np.ndarray = column(np.uint8, NOTHING)  # what is to be said of it and has not been
    told: np.ndarray = column(np.uint8, UNTOLD)  # what was said of it
    told_label: np.ndarray = column(np.int32, -1)  # its label then
    told_last_ns: np.ndarray = column(np.int64)  # the time of its last packet then
