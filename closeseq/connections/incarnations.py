"""Where a new incarnation of a pair begins (RFC 9293 3.6.1 for reopening from TIME_WAIT).

- Only a SYN without RST ever begins one on a pair that is known; segments after a close do not.
- The number of this end's first SYN again is a retransmission; a SYN+ACK that acknowledges the peer's
  SYN answers it. Both belong to the present connection.
- A SYN of an end whose SYN was not seen belongs to the present connection if it fits right in front of
  the first number known of that end (it is late), or if only SYNs were captured (simultaneous open).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.connections.grouping import next_where
from closeseq.packets.segments import ACK, RST, SYN, difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from closeseq.connections.state import Histories, Sides
    from closeseq.packets.segments import Segments


class PairRows:
    """The rows of a batch, pair by pair, with the columns that the rules of incarnations need.

    Args:
        segments: the batch.
        index: int64, its rows in their new order: pair by pair, each as captured, without duplicates.
        sender: uint8, 0 or 1, of each of these rows.
        start: int64, of each pair its first row in the new order.
        present: int64, of each pair its connection before this batch; -1 if none.
    """

    def __init__(
        self,
        segments: Segments,
        index: NDArray[np.int64],
        sender: NDArray[np.uint8],
        start: NDArray[np.int64],
        present: NDArray[np.int64],
    ) -> None:
        self.index = index  # int64, row in the batch
        self.sender = sender  # uint8, 0 or 1
        self.start = start  # int64, per pair: its first row
        self.present = present  # int64, per pair: its connection before this batch; -1 if none
        self.seq = segments.seq[index]
        self.ack = segments.ack[index]
        self.flags = segments.flags[index]

    def first_numbers(self, end: int) -> NDArray[np.int64]:
        """Return for each row, and one past the last, the first row from there that gives the end's origin.

        That is a segment of its own, or one of its peer that acknowledges something.
        """
        return next_where((self.sender == end) | (self.flags & ACK > 0))

    def origin(self, end: int, row: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the number that is relative 0 of an end, uint32.

        Args:
            end: 0 or 1.
            row: int64, rows that give it, from `first_numbers`.
        """
        own = self.seq[row] - (self.flags[row] & SYN == 0).astype(np.uint32)
        return np.where(self.sender[row] == end, own, self.ack[row] - np.uint32(1))


def opening_rows(rows: PairRows, histories: Histories, sides: Sides) -> NDArray[np.bool_]:
    """Return a mask of the rows that begin a connection.

    Args:
        rows: of a batch.
        histories: all connections before this batch.
        sides: their endpoints.
    """
    opens = np.zeros(len(rows.index), np.bool_)
    opens[rows.start[rows.present < 0]] = True
    at = np.flatnonzero(rows.flags & SYN)
    if not len(at):
        return opens
    # Regular, and so left alone: the first row of a new pair, and the SYN+ACK that answers the SYN before it.
    before = np.roll(at, 1)
    kind = rows.flags & (SYN | ACK | RST)
    answers = (kind[at] == SYN | ACK) & (kind[before] == SYN) & (before < at)
    answers &= (rows.sender[at] != rows.sender[before]) & (rows.ack[at] == rows.seq[before] + np.uint32(1))
    group = np.searchsorted(rows.start, at, side="right") - 1
    answers &= group == np.roll(group, 1)
    irregular = np.isin(group, group[~(answers | opens[at])])
    for row in irregular_openings(rows, histories, sides, at[irregular], group[irregular]):
        opens[row] = True
    return opens


def irregular_openings(
    rows: PairRows, histories: Histories, sides: Sides, at: NDArray[np.int64], group: NDArray[np.int64]
) -> Iterator[int]:
    """Go through the SYNs of irregular pairs one by one; yield the rows of those that begin a connection.

    Args:
        rows: of a batch.
        histories: all connections before this batch.
        sides: their endpoints.
        at: int64, ascending: the rows with SYN.
        group: int64, the pair of each, counted among the batch's.
    """
    if not len(at):
        return
    first_number = [rows.first_numbers(end) for end in (0, 1)]
    first_other = next_where(rows.flags & (SYN | ACK) != SYN)  # than a SYN without ACK
    present, pair = CurrentIncarnation(0), -1
    for row, its_pair in zip(at.tolist(), group.tolist(), strict=True):
        if its_pair != pair:
            pair = its_pair
            start, connection = int(rows.start[pair]), int(rows.present[pair])
            present = (
                CurrentIncarnation(start) if connection < 0 else carried(start, connection, histories, sides)
            )
        sender = int(rows.sender[row])
        syn = Syn(sender, int(rows.flags[row]), int(rows.seq[row]), int(rows.ack[row]))
        origin = present.origin[sender]
        if origin is None:
            source = int(first_number[sender][present.first])
            origin = int(rows.origin(sender, np.array([source]))[0]) if source < row else None
        only_syns = present.only_syns and first_other[present.first] >= row
        if opens_next(present, syn, origin, only_syns=only_syns):
            present = CurrentIncarnation(row)
            yield row
        if present.syn[sender] is None:
            present.syn[sender] = syn.seq


@dataclass(slots=True)
class CurrentIncarnation:
    """The connection that a pair has at some moment, with the numbers that SYNs are compared with."""

    first: int  # its first row in this batch
    syn: list[int | None] = field(default_factory=lambda: [None, None])  # number of each end's first SYN
    origin: list[int | None] = field(default_factory=lambda: [None, None])  # known before this batch
    only_syns: bool = True  # before this batch


def carried(first: int, connection: int, histories: Histories, sides: Sides) -> CurrentIncarnation:
    """Return what earlier batches left of a connection.

    Args:
        first: its pair's first row in this batch.
        connection: its index into `Histories`.
        histories: all connections.
        sides: their endpoints.
    """
    ends = (2 * connection, 2 * connection + 1)
    return CurrentIncarnation(
        first,
        [int(sides.syn_raw[end]) if sides.syn[end] else None for end in ends],
        [int(sides.origin[end]) if sides.known[end] else None for end in ends],
        bool(histories.only_syns[connection]),
    )


class Syn(NamedTuple):
    """A segment with SYN: the fields that decide whether it begins a connection."""

    sender: int  # 0 or 1
    flags: int  # control bits
    seq: int  # as on the wire
    ack: int  # as on the wire; meaningless without the flag


def opens_next(present: CurrentIncarnation, syn: Syn, origin: int | None, *, only_syns: bool) -> bool:
    """Return whether a SYN begins a new connection instead of belonging to the present one.

    Args:
        present: the present connection.
        syn: the segment.
        origin: the number in front of the first one known of its sender; None if none is.
        only_syns: whether only SYNs without ACK were captured.
    """
    if syn.flags & RST:
        return False
    own, peer = present.syn[syn.sender], present.syn[1 - syn.sender]
    answers = bool(syn.flags & ACK) and peer is not None and difference(syn.ack, peer) == 1
    if own is not None:
        return own != syn.seq and not answers
    if origin is not None:
        return origin != syn.seq and not answers
    if syn.flags & ACK:
        return peer is None
    return not only_syns  # RFC 9293 3.5: else both ends open at once
