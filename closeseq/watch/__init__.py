"""Connections watched as time passes: the same pipeline as for a file, run in small steps.

In the order the data goes:

    session      a source of packets and a monitor, driven together
    monitor      batches and the clock in, updates out; drops what is over
    updates      connections of which there is something new to report
    counts       how many sockets are in which state, and how connections closed
    kernel_view  the kernel's own state of the sockets, and which process owns them
    live         all of it for programs: connections as they close
"""

from __future__ import annotations

from closeseq.watch.counts import SocketCounts
from closeseq.watch.monitor import Monitor
from closeseq.watch.updates import Update, UpdateKind, Updates

__all__ = ["Monitor", "SocketCounts", "Update", "UpdateKind", "Updates"]
