"""Live monitoring: the pipeline of `analysis` run incrementally; finished connections are dropped.

In the order the data goes:

    session      a packet source and a monitor, driven together by a clock
    monitor      batches of packets and the time in, updates out
    updates      connections with something new to report
    census       what all connections so far show together
    counts       how many sockets are in which state, and how connections closed
    metrics      the same as counters of Prometheus
    kernel_view  the kernel's own state of the sockets, and which process owns each
    kernel_resets  why the kernel sent a RST that was captured, or that it did not
    live         the API: an iterator of connections as they close
"""

from __future__ import annotations

from closeseq.watch.counts import SocketCounts
from closeseq.watch.monitor import Monitor
from closeseq.watch.updates import Update, UpdateKind, Updates

__all__ = ["Monitor", "SocketCounts", "Update", "UpdateKind", "Updates"]
