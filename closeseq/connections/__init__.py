"""From rows of TCP headers to connections: who talks to whom, and the few segments that matter.

    connections   `Connections`: all of a capture, fed in batches; begin reading here
    table         which rows belong together: pairs, their incarnations, copies left out
    incarnations  which SYN begins the next connection of a pair
    copies        duplicates of a packet, and what their frames tell of them
    duplicates    what they were, for one connection
    lanes         the same addresses and ports in two VLANs
    sequence      relative, unwrapped numbers, and each segment's position
    holes         what was overtaken, what was lost before the capture point, what was not captured
    responses     how soon each end has ever answered
    relevance     which rows are events
    steps         the events, kept whole, chained with the traffic between them
    traffic       its digest
    events        the border: one connection as plain Python, a `Conversation`
    guess         which end is the client where no SYN tells it
    shape         a conversation's major events in one line
    orientation   the same, and who is the client at all, for many connections
    skeleton      connections with steps of the same kinds, and their numbers as columns
    conversation  the types that the right half of closeseq works on

and below them: `state` (what is kept from batch to batch), `growing` (its columns), `scratch` (where long
ones lie), `pair_index` (from addresses and ports to their row), `grouping` (which rows are alike), `batch`
(one batch on its way).
"""

from closeseq.connections.connections import Connections
from closeseq.connections.shape import shape

__all__ = ["Connections", "shape"]
