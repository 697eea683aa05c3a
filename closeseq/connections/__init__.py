"""From rows of TCP headers to connections: who talks to whom, and the few segments that matter.

    tracker         `Connections`: all of a capture, fed in batches; begin reading here
    pairs           which rows belong together: pairs of endpoints, and their incarnations
    incarnations    which SYN begins the next connection of a pair
    duplicates      packets that were captured or delivered twice
    vlans           the same addresses and ports in two VLANs
    sequence_space  relative, unwrapped sequence numbers, and where each segment lies
    holes           what was overtaken, lost before the capture point, or not captured
    whereabouts     where an endpoint's frames are captured, and which RSTs came another way
    relevance       which rows are events
    steps           the events, kept whole, chained with the traffic between them
    traffic         the digest of that traffic; how soon each endpoint answered
    idling          how long connections were idle before they were closed, as columns
    crowds          connections that close alike, counted over these columns
    strays          segments that a NAT has forgotten to translate
    describe        the border: connections as plain Python, each a `Conversation`
    orientation     which endpoint is the client
    skeleton        connections with steps of the same kinds, their numbers as columns
    compose         one of these out of its rows; what duplicates were
    community       the Community ID of a connection's addresses and ports
    conversation    the types that `tcp`, `verdict` and `report` work on

Below them: `state` (what is kept from batch to batch, in memory or on disk) and `grouping` (which rows are
alike).
"""

from closeseq.connections.conversation import shape
from closeseq.connections.tracker import Connections

__all__ = ["Connections", "shape"]
