"""Connections watched as time passes: the road of a capture, taken in small steps, without an end.

In the order the data goes:

    labels    what is told of connections that closed alike
    tracked   what is remembered of each connection: when to look again, what was said of it
    watch     batches and the clock in, news out; forgets what is over, and what is too much
    news      what a watch tells
    census    how many sockets are in which state, and what became of all that were seen
"""

from __future__ import annotations

from closeseq.watch.census import Census
from closeseq.watch.news import Kind, News, Sighting
from closeseq.watch.watch import Watch

__all__ = ["Census", "Kind", "News", "Sighting", "Watch"]
