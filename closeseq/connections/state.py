"""What is kept of pairs and connections from one batch to the next, in columns.

The two ends of a pair are 0 and 1: 0 is the one with the smaller address (then port). Who of them is
the client is decided when someone asks (events.py), for later packets can tell. A connection's ends
stand in `Sides` at 2 * connection and 2 * connection + 1, so that the peer's row is `side ^ 1`.
"""

from __future__ import annotations

import numpy as np

from closeseq.connections.growing import Growing, column

NONE = np.iinfo(np.int64).min  # "nothing yet" in a column of sequence numbers
NEVER_NS = np.iinfo(np.int64).max  # "not yet" in a column of lengths of time


class Pairs(Growing):
    """One row a pair of endpoints, and one more for each VLAN in which it is another pair (lanes.py)."""

    version: np.ndarray = column(np.uint8)  # 4 or 6
    high: np.ndarray = column(np.uint64, width=2)  # addresses of end 0 and end 1
    low: np.ndarray = column(np.uint64, width=2)
    port: np.ndarray = column(np.uint16, width=2)
    present: np.ndarray = column(np.int64, -1)  # index of the newest connection of this pair
    further: np.ndarray = column(np.bool_)  # another lane of a pair that is there already
    vlan: np.ndarray = column(np.uint64, width=2)  # the VLANs in which each end's packets were first seen
    near: np.ndarray = column(np.uint32, width=2)  # a number near the newest that each end has sent
    known: np.ndarray = column(np.uint8, width=2)  # how that is known, see lanes.py; 0: it is not


class Histories(Growing):
    """One row a connection, in the order of their first packets."""

    id: np.ndarray = column(np.int64)  # from 1, in the order of the first packets
    pair: np.ndarray = column(np.int64)  # index into Pairs
    incarnation: np.ndarray = column(np.int32)  # from 1, among the connections of the pair
    successor: np.ndarray = column(np.int64, -1)  # the next connection of the pair
    first_sender: np.ndarray = column(np.uint8)  # 0 or 1
    first_ns: np.ndarray = column(np.int64)  # since the epoch
    last_ns: np.ndarray = column(np.int64)
    copies: np.ndarray = column(np.int32)  # duplicates that were left out, of all kinds (copies.py)
    elsewhere: np.ndarray = column(np.int32)  # of these, captured at another place
    repeated_resets: np.ndarray = column(np.int32)  # of these, a RST like the one before it
    only_syns: np.ndarray = column(np.bool_, True)  # nothing yet but SYNs without ACK
    closing: np.ndarray = column(np.bool_)  # a FIN or RST went by
    last_sender: np.ndarray = column(np.uint8)  # of the last segment, 0 or 1
    asked_end: np.ndarray = column(np.int64, NONE)  # the number after it; NONE if it calls for no answer
    asked_ns: np.ndarray = column(np.int64)  # its time
    minor: np.ndarray = column(np.int32)  # minor events kept so far
    covers: np.ndarray = column(np.int32)  # ACKs kept so far that first cover a SYN or FIN
    last_event: np.ndarray = column(np.int64, -1)  # index into steps.Kept
    open_stretch: np.ndarray = column(np.int64, -1)  # index into steps.Stretches, of traffic after that event


class Sides(Growing):
    """Two rows a connection: what each end has sent, as far as captured."""

    known: np.ndarray = column(np.bool_)  # whether the next column holds something
    origin: np.ndarray = column(np.uint32)  # the number that is relative 0
    last_raw: np.ndarray = column(np.uint32)  # of the last segment, as on the wire
    last_seq: np.ndarray = column(np.int64)  # the same, relative and unwrapped
    acked: np.ndarray = column(np.bool_)  # has sent an ACK, so the next two columns hold something
    ack_raw: np.ndarray = column(np.uint32)  # the last acknowledgement it sent
    last_ack: np.ndarray = column(np.int64)
    sent_end: np.ndarray = column(np.int64, NONE)  # highest number past any segment but RST
    reach: np.ndarray = column(np.int64, 1 << 30)  # how far ahead of that a segment may lie (RFC 7323 2.3)
    fin_end: np.ndarray = column(np.int64, NONE)  # highest number past a segment with FIN
    fin_covered: np.ndarray = column(np.bool_)  # the peer has acknowledged the newest FIN
    syn: np.ndarray = column(np.bool_)  # a SYN was captured
    syn_raw: np.ndarray = column(np.uint32)  # the first one's number
    syns: np.ndarray = column(np.int32)  # segments with SYN, and so on
    fins: np.ndarray = column(np.int32)
    resets: np.ndarray = column(np.int32)
    packets: np.ndarray = column(np.int64)
    bytes: np.ndarray = column(np.int64)  # of payload, retransmissions included
    acked_end: np.ndarray = column(np.int64, NONE)  # highest acknowledgement it sent
    response_ns: np.ndarray = column(np.int64, NEVER_NS)  # least time in which it answered (responses.py)
    holes: np.ndarray = column(np.int32)  # open ones in what it sent (holes.py)
    hole_start: np.ndarray = column(np.int64)  # the lowest number in any of them
    hole_number: np.ndarray = column(np.int64)  # the packet that left the oldest of them
    hole_ns: np.ndarray = column(np.int64)  # and its time
    reordered: np.ndarray = column(np.int32)  # its segments that were overtaken
    lost: np.ndarray = column(np.int32)  # its segments that were lost before they were captured
    repeated: np.ndarray = column(np.int32)  # its segments that were captured, and sent again unacknowledged
    missed: np.ndarray = column(np.int32)  # holes in what it sent that the peer had acknowledged
    missed_number: np.ndarray = column(np.int64)  # the packet that showed the first of them
    missed_ns: np.ndarray = column(np.int64)  # and its time
    doubled: np.ndarray = column(np.int32)  # duplicates at the same place at once
    delivered: np.ndarray = column(np.int32)  # duplicates at the same place, later
    fin_again: np.ndarray = column(
        np.int64
    )  # number of the last duplicate of a FIN at the same place; 0: none
    fin_again_ns: np.ndarray = column(np.int64)  # its time
    fin_again_later: np.ndarray = column(np.bool_)  # whether it is counted among those delivered
    dsacks: np.ndarray = column(np.int32)  # its reports that something arrived twice (RFC 2883)
