"""Sequence numbers of a batch: relative, unwrapped to 64 bits, and their position against what was sent.

A batch (`Batch`) has its rows in two orders. Here they stand *by sender*: run by run, and in each first the
segments of end 0, then those of end 1. A *group* is the segments of one end in one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.connections.conversation import Position
from closeseq.connections.grouping import lengths
from closeseq.connections.state import NONE, Sides
from closeseq.packets.segments import ACK, FIN, RST, SYN, differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.pairs import Rows
    from closeseq.packets.segments import Segments

POSITIONS = tuple(Position)  # a column of positions holds indices into this
NEW, RETRANSMISSION, OVERLAP, GAP, PROBE, REORDERED, OUTSIDE = range(len(POSITIONS))
LARGEST_WINDOW = 1 << 30  # RFC 7323 2.3: nothing can be sent further ahead than this
LARGEST_UNSCALED = 65535  # without the window scale option (RFC 9293 3.1)
WINDOW_SCALE = 3  # kind of that option (RFC 7323 2.2)
HIGHEST = np.iinfo(np.int64).max


class Senders:
    """The rows of a batch by sender, and the way back."""

    def __init__(self, rows: Rows) -> None:
        length = rows.length
        sender = rows.sender.astype(np.int64)
        in_run = np.arange(len(sender)) - np.repeat(rows.start, length)
        total = np.cumsum(sender) - sender
        ones = total - np.repeat(total[rows.start], length)  # segments of end 1 before this one in the run
        zeros = in_run - ones
        of_one = np.add.reduceat(sender, rows.start)
        second = rows.start + length - of_one  # where end 1's segments begin

        own_first = np.where(sender, np.repeat(second, length), np.repeat(rows.start, length))
        peer_first = np.where(sender, np.repeat(rows.start, length), np.repeat(second, length))
        self.place = own_first + np.where(sender, ones, zeros)  # by connection -> by sender
        order = np.empty_like(self.place)
        order[self.place] = np.arange(len(order))
        self.order = order  # by sender -> by connection
        peers = np.where(sender, zeros, ones)
        self.newest = np.where(peers > 0, peer_first + peers - 1, -1)[order]  # the peer's segment before it

        starts = np.stack([rows.start, second], axis=1).ravel()
        slots = np.stack([2 * rows.connection, 2 * rows.connection + 1], axis=1).ravel()
        filled = np.stack([length - of_one, of_one], axis=1).ravel() > 0
        self.start = starts[filled]  # of each group
        self.side = slots[filled]  # index into Sides, per group
        self.length = lengths(self.start, len(order))
        self.last = self.start + self.length - 1

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a column with each group's value in its rows; `values` has an entry a group."""
        return np.repeat(values, self.length)

    def before(self, running: NDArray[np.int64], carried: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shift a running value by one row within its group.

        Args:
            running: int64, the value after each row, by sender.
            carried: int64, the value before each group's first row.
        """
        shifted = np.empty_like(running)
        shifted[1:] = running[:-1]
        shifted[self.start] = carried
        return shifted

    def of_peer(
        self, running: NDArray[np.int64], carried: NDArray[np.signedinteger[Any]]
    ) -> NDArray[np.int64]:
        """Return the peer's running value before each row.

        Args:
            running: int64, the value after each row, by sender.
            carried: the value of each group's peer before this batch.
        """
        return np.where(self.newest >= 0, running[self.newest], self.spread(carried))

    def highest(
        self, values: NDArray[np.int64], counts: NDArray[np.bool_], carried: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the running maximum in each group of those values that count.

        Args:
            values: int64, one a row, by sender.
            counts: a mask of the rows that count.
            carried: int64, where each group begins; NONE for nothing yet.

        Returns:
            int64, after each row; NONE as long as nothing counted.
        """
        low = np.minimum.reduceat(np.where(counts, values, HIGHEST), self.start)
        high = np.maximum(np.maximum.reduceat(np.where(counts, values, NONE), self.start), carried)
        low = np.minimum(low, np.where(carried == NONE, HIGHEST, carried))
        low = np.where(high == NONE, 0, low)
        high = np.where(high == NONE, -1, high)

        # Lift every group above the one before it, by exactly the room that one needs: then a single
        # running maximum serves all, however far a hostile sender's numbers are spread. Level 0: nothing.
        room = high - low + 2
        lift = np.cumsum(room) - room
        level = np.where(counts, values - self.spread(low - 1), 0)
        at_start = np.where(carried == NONE, 0, carried - low + 1)
        level[self.start] = np.maximum(level[self.start], at_start)
        lifts = self.spread(lift)
        top = np.maximum.accumulate(level + lifts) - lifts
        return np.where(top > 0, top + self.spread(low - 1), NONE)


@dataclass(frozen=True, slots=True)
class Numbers:
    """The sequence numbers of a batch, in the order by sender."""

    seq: NDArray[np.int64]  # relative to the sender's origin
    ack: NDArray[np.int64]  # relative to the receiver's origin; NONE without the ACK flag
    end: NDArray[np.int64]  # the number after the segment
    position: NDArray[np.uint8]  # index into POSITIONS
    sent_before: NDArray[np.int64]  # its sender's highest `end` before this segment; NONE if none
    acked_by_peer: NDArray[np.int64]  # the peer's highest `ack` before this segment; NONE if none
    first_ack: NDArray[np.bool_]  # the first segment with ACK of its sender
    sent_by_peer: NDArray[np.int64]  # the peer's highest `end` before this segment; NONE if none
    fin_of_peer: NDArray[np.int64]  # the highest `end` of the peer's FINs before this segment; NONE if none


def number(senders: Senders, segments: Segments, sides: Sides) -> Numbers:
    """Return every row's relative numbers and position.

    Args:
        senders: the order by sender.
        segments: the batch, in that order.
        sides: of all connections, whose origins are known already; numbers and edges are updated.
    """
    side, start = senders.side, senders.start
    flags = segments.flags
    seq = unwrap(segments.seq, start, sides.last_raw[side], sides.last_seq[side])
    ack, first_ack = acknowledgements(senders, segments, sides)
    fin = flags & FIN > 0
    end = seq + segments.length + (flags & SYN > 0) + fin

    sent_before, fin_before = sides.sent_end[side], sides.fin_end[side]
    acked_before = sides.acked_end[side]
    learn_reach(senders, segments, sides)
    sent_so_far, sent_end, outside = follow_sent(
        senders, flags, seq, end, carried=sent_before, reach=sides.reach[side]
    )
    fin_end = senders.highest(end, fin & ~outside, fin_before)
    acked_end = senders.highest(ack, ack != NONE, acked_before)
    acked_by_peer = senders.of_peer(acked_end, sides.acked_end[side ^ 1])
    placed = positions(
        flags, seq, end, sent_so_far, fin_end=senders.before(fin_end, fin_before), acked=acked_by_peer
    )
    result = Numbers(
        seq=seq,
        ack=ack,
        end=end,
        position=np.where(outside, OUTSIDE, placed).astype(np.uint8),
        sent_before=sent_so_far,
        acked_by_peer=acked_by_peer,
        first_ack=first_ack,
        sent_by_peer=senders.of_peer(sent_end, sides.sent_end[side ^ 1]),
        fin_of_peer=senders.of_peer(fin_end, sides.fin_end[side ^ 1]),
    )
    last = senders.last
    sides.last_raw[side], sides.last_seq[side] = segments.seq[last], seq[last]
    sides.sent_end[side], sides.fin_end[side] = sent_end[last], fin_end[last]
    sides.acked_end[side] = acked_end[last]
    return result


def learn_reach(senders: Senders, segments: Segments, sides: Sides) -> None:
    """Keep how far ahead segments may lie of what their sender has sent.

    Windows are not scaled unless both SYNs have the option for it (RFC 7323 2.2).

    Args:
        senders: the order by sender.
        segments: the batch, in that order.
        sides: of all connections; `reach` is updated.
    """
    rows = np.flatnonzero((segments.flags & SYN > 0) & (segments.syn_options > 0))
    if not len(rows):
        return
    options = segments.syn_options[rows].astype(np.int64)
    scales = np.zeros(len(rows), np.bool_)
    for place in range(0, 32, 4):
        scales |= options >> place & 0xF == WINDOW_SCALE
    side = senders.spread(senders.side)[rows[~scales]]
    sides.reach[side] = sides.reach[side ^ 1] = LARGEST_UNSCALED


def follow_sent(
    senders: Senders,
    flags: NDArray[np.uint8],
    seq: NDArray[np.int64],
    end: NDArray[np.int64],
    *,
    carried: NDArray[np.int64],
    reach: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Follow how far each endpoint has sent.

    Args:
        senders: the order by sender, in which the next three columns stand.
        flags: control bits.
        seq: int64, relative sequence numbers.
        end: int64, the numbers after the segments.
        carried: int64, a value a group: its highest `end` before this batch, NONE if none.
        reach: int64, a value a group: how far ahead of that a segment may lie.

    Returns:
        Three columns: the highest `end` of a sender before each segment, the same after it, and a mask of the
        segments *outside*: those further ahead than any window reaches, and FINs without ACK, which every
        receiver drops (RFC 9293 3.10.7.4). These do not count as sent, else what follows them would seem to
        lie far behind.
    """
    counts = (flags & RST == 0) & (flags & (FIN | ACK | SYN) != FIN)
    outside = (flags & RST == 0) & ~counts
    after = senders.highest(end, counts, carried)
    before = senders.before(after, carried)
    odd = counts & (before != NONE)
    odd &= (seq - before > senders.spread(reach)) | ((flags & SYN > 0) & (seq != 0))
    if odd.any():  # rare enough to go through the segments of their senders one by one
        for group in np.flatnonzero(np.logical_or.reduceat(odd, senders.start)).tolist():
            first = int(senders.start[group])
            rows = range(first, first + int(senders.length[group]))
            highest, furthest = int(carried[group]), int(reach[group])
            for row in rows:
                before[row] = highest
                if counts[row]:
                    if flags[row] & SYN and seq[row] != 0:
                        # Segments before its SYN were of an older connection.
                        before[row], highest = seq[row], int(end[row])
                    elif highest != NONE and seq[row] - highest > furthest:
                        outside[row] = True
                    else:
                        highest = max(highest, int(end[row]))
                after[row] = highest
    return before, after, outside


def acknowledgements(
    senders: Senders, segments: Segments, sides: Sides
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the relative acknowledgements, and which are the first of their sender.

    Args:
        senders: the order by sender.
        segments: the batch, in that order.
        sides: of all connections; the last acknowledgement of each endpoint is kept there.

    Returns:
        int64, NONE without ACK; and a mask.
    """
    ack = np.full(len(segments), NONE)
    first = np.zeros(len(segments), np.bool_)
    rows = np.flatnonzero(segments.flags & ACK)
    if not len(rows):
        return ack, first
    side_of_row = senders.spread(senders.side)[rows]
    start = np.flatnonzero(np.diff(side_of_row, prepend=-1))
    side = side_of_row[start]
    raw, acked = segments.ack[rows], sides.acked[side]
    relative = unwrap(
        raw,
        start,
        np.where(acked, sides.ack_raw[side], sides.origin[side ^ 1]),
        np.where(acked, sides.last_ack[side], 0),
    )
    ack[rows] = relative
    first[rows[start[~acked]]] = True
    last = start + lengths(start, len(rows)) - 1
    sides.acked[side] = True
    sides.ack_raw[side], sides.last_ack[side] = raw[last], relative[last]
    return ack, first


def unwrap(
    raw: NDArray[np.uint32],
    start: NDArray[np.int64],
    before_raw: NDArray[np.uint32],
    before: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return 64-bit numbers for 32-bit ones that wrap: each lies less than 2**31 from the one before it.

    Args:
        raw: uint32, as on the wire, group by group.
        start: int64, the first row of each group.
        before_raw: uint32, the number before each group's first one, as on the wire.
        before: int64, the same number, unwrapped.
    """
    previous = np.empty_like(raw)
    previous[1:] = raw[:-1]
    previous[start] = before_raw
    step = differences(raw, previous)
    total = np.cumsum(step)
    base = before - (total[start] - step[start])
    result: NDArray[np.int64] = total + np.repeat(base, lengths(start, len(raw)))
    return result


def positions(
    flags: NDArray[np.uint8],
    seq: NDArray[np.int64],
    end: NDArray[np.int64],
    sent_end: NDArray[np.int64],
    *,
    fin_end: NDArray[np.int64],
    acked: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Return where each segment lies against what its sender had sent: uint8, an index into POSITIONS.

    Args:
        flags: control bits.
        seq: int64, relative sequence numbers.
        end: int64, the numbers after the segments.
        sent_end: int64, the sender's highest `end` before each; NONE if none.
        fin_end: int64, the highest of these that was a FIN's; NONE if none.
        acked: int64, the peer's highest acknowledgement before each; NONE if none.
    """
    result = np.where(end > sent_end, OVERLAP, RETRANSMISSION).astype(np.uint8)
    # RFC 9293 3.8.4: a keepalive repeats the last number. Behind a FIN it holds no byte, and the FIN has been
    # acknowledged: before that a segment of this number was sent before the FIN, and overtaken by it.
    plain = flags & (SYN | FIN | RST) == 0
    plain &= (fin_end == NONE) | ((end == seq) & (acked >= sent_end))
    result[plain & (seq == sent_end - 1) & (end - seq <= 1)] = PROBE
    result[seq > sent_end] = GAP
    result[(seq == sent_end) | (sent_end == NONE)] = NEW
    return result


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a batch with their numbers, before it is decided which of them are events."""

    rows: Rows  # in the order by connection
    connection: NDArray[np.int64]  # index into Histories, in the order by connection
    senders: Senders  # the order by sender, and the way from one to the other
    segments: Segments  # in the order by sender
    numbers: Numbers  # in the order by sender
