"""Which rows are *events*: segments that can change a state or prove something.

Major events: SYN, FIN, RST, and the ACKs that first cover a SYN or a FIN.
Minor events: all segments once a close has begun, ACKs past everything captured, and pure ACKs that show that
something was not captured.

A connection keeps a limited number of either: a TCP retransmits a FIN some fifteen times, so thousands of
alike segments are not a TCP's, and the first of them show as much as all. The others count as traffic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import rank
from closeseq.connections.sequence_space import GAP, OUTSIDE
from closeseq.connections.state import NONE, Histories, Sides
from closeseq.packets.segments import FIN, RST, SYN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.sequence_space import Batch

MINOR_LIMIT = 32
ALIKE_LIMIT = 32  # SYNs, FINs and RSTs of one end, each
COVER_LIMIT = 64  # ACKs of a connection that first cover a SYN or FIN


def events(batch: Batch, histories: Histories, sides: Sides) -> NDArray[np.bool_]:
    """Return a mask of the rows that are events; update both tables.

    Args:
        batch: the rows of a batch.
        histories: all connections; how many events each has is counted there.
        sides: their endpoints.

    Returns:
        One entry a row, in the order by connection.
    """
    senders, segments, numbers = batch.senders, batch.segments, batch.numbers
    covers = covers_syn(batch, sides) | covers_fin(batch, sides)
    major = first_of_kind(batch, sides)
    covers &= ~major
    covers &= segments.flags & (SYN | FIN | RST) == 0
    beyond = (numbers.sent_by_peer != NONE) & (numbers.ack > numbers.sent_by_peer)
    shows_gap = (numbers.position == GAP) & (segments.length == 0)
    major, noteworthy = major[senders.place], (beyond | shows_gap)[senders.place]
    covers, control = covers[senders.place], (segments.flags & (SYN | FIN | RST) > 0)[senders.place]

    start, length, connection = batch.rows.start, batch.rows.length, batch.rows.connection
    covers &= np.repeat(histories.covers[connection], length) + rank(covers, start, length) <= COVER_LIMIT
    histories.covers[connection] += np.add.reduceat(covers.astype(np.int32), start)
    major |= covers
    closes = (segments.flags & (FIN | RST) > 0)[senders.place]
    closing = np.repeat(histories.closing[connection], length) | (rank(closes, start, length) > closes)
    histories.closing[connection] |= np.logical_or.reduceat(closes, start)

    minor = ~major & (noteworthy | closing) & ~control
    minor &= np.repeat(histories.minor[connection], length) + rank(minor, start, length) <= MINOR_LIMIT
    histories.minor[connection] += np.add.reduceat(minor.astype(np.int32), start)
    result: NDArray[np.bool_] = major | minor
    return result


def first_of_kind(batch: Batch, sides: Sides) -> NDArray[np.bool_]:
    """Return which rows are among the first SYNs, FINs or RSTs of their sender.

    Args:
        batch: the rows of a batch.
        sides: of all connections; counts the batch's SYNs, FINs and RSTs.

    Returns:
        A mask, in the order by sender.
    """
    senders, flags = batch.senders, batch.segments.flags
    result = np.zeros(len(flags), np.bool_)
    for flag, count in ((SYN, sides.syns), (FIN, sides.fins), (RST, sides.resets)):
        has = flags & flag > 0
        if has.any():
            before = senders.spread(count[senders.side])
            result |= has & (before + rank(has, senders.start, senders.length) <= ALIKE_LIMIT)
            count[senders.side] += np.add.reduceat(has.astype(np.int32), senders.start)
    return result


def covers_syn(batch: Batch, sides: Sides) -> NDArray[np.bool_]:
    """Return which rows are the first ACK of their sender after the peer's SYN.

    Args:
        batch: the rows of a batch.
        sides: of all connections; the batch's SYNs are not counted yet.

    Returns:
        A mask, in the order by sender.
    """
    senders = batch.senders
    syns = rank(batch.segments.flags & SYN > 0, senders.start, senders.length)
    syns += senders.spread(sides.syns[senders.side])
    of_peer = senders.of_peer(syns, sides.syns[senders.side ^ 1])
    result: NDArray[np.bool_] = batch.numbers.first_ack & (of_peer > 0)
    return result


def covers_fin(batch: Batch, sides: Sides) -> NDArray[np.bool_]:
    """Return which rows are the first to acknowledge the peer's newest FIN.

    Args:
        batch: the rows of a batch.
        sides: of all connections; keeps whether each endpoint's newest FIN is acknowledged.

    Returns:
        A mask, in the order by sender.
    """
    senders, numbers = batch.senders, batch.numbers
    result = np.zeros(len(numbers.ack), np.bool_)
    fin = (batch.segments.flags & FIN > 0) & (numbers.position != OUTSIDE)
    fins = rank(fin, senders.start, senders.length)
    before = senders.of_peer(fins, np.zeros(len(senders.start), np.int64))  # the peer's FINs in this batch
    covered = (before == 0) & senders.spread(sides.fin_covered[senders.side ^ 1])
    rows = np.flatnonzero((numbers.fin_of_peer != NONE) & (numbers.ack >= numbers.fin_of_peer) & ~covered)

    side, before = senders.spread(senders.side)[rows], before[rows]
    first = (np.diff(side, prepend=-1) != 0) | (np.diff(before, prepend=-1) != 0)
    rows, side, before = rows[first], side[first], before[first]
    result[rows] = True

    # A FIN sent again is not covered until it is acknowledged again.
    sides.fin_covered[side[before == 0] ^ 1] = True
    sides.fin_covered[senders.side[fins[senders.last] > 0]] = False
    all_fins = senders.spread(fins[senders.last])
    newest = senders.newest[rows]
    final = (newest >= 0) & (before == all_fins[newest])
    sides.fin_covered[side[final] ^ 1] = True
    return result
