"""Connections watched as time passes: the road of a capture, taken in small steps, without an end.

In the order the data goes:

    labels    what is told of connections that closed alike
    tracked   what is remembered of each connection: when to look again, what was said of it
    watch     batches and the clock in, news out; forgets what is over, and what is too much
    ebbing    how many sockets in TIME_WAIT are left of connections that were forgotten
    news      what a watch tells
    census    how many sockets are in which state, and what became of all that were seen
    session   a source of packets and a watch, driven together; clock: what time it is
    witness   the kernel's own word on the connections, and who owns their sockets
    live      the whole of it for programs: connections as they close
"""

from __future__ import annotations

from closeseq.watch.census import Census
from closeseq.watch.news import Kind, News, Sighting
from closeseq.watch.watch import Watch

__all__ = ["Census", "Kind", "News", "Sighting", "Watch"]
