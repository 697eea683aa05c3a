"""Holes in what an endpoint sent: bytes that had not passed the capture point when a later byte did.

A hole ends in one of three ways, each with another meaning for the path:

- *overtaken*: the missing bytes come soon after, and were sent earlier. The packets only changed places.
- *lost before the capture point*: they come later, as a retransmission.
- *not captured*: the peer acknowledges them although they never passed here.

Holes are rare, so what fills them goes one by one through plain Python; all else is columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.sequence_space import (
    GAP,
    LARGEST_WINDOW,
    OVERLAP,
    PROBE,
    REORDERED,
    RETRANSMISSION,
    Numbers,
    Senders,
)
from closeseq.connections.state import NONE
from closeseq.packets.segments import RST, SYN, counts_on, difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.state import Sides
    from closeseq.packets.segments import Segments

MOST_OPEN = 16  # holes of one end; of more the oldest are dropped
LATEST_NS = 1_000_000_000  # what was overtaken comes within this
SAME_TICK_NS = 1_000_000  # two segments of one tick of a timestamp clock; also where nothing else decides


@dataclass(slots=True)
class Hole:
    """Numbers `start` up to `end` (excluded) of one end that have not passed yet."""

    start: int  # relative to the sender's origin, as `Numbers.seq`
    end: int
    number: int  # of the packet that came too early, and left it
    time_ns: int  # and its time
    ip_id: int  # and its identification; 0 and -1 are none
    tsval: int | None  # and its timestamp


@dataclass(frozen=True, slots=True)
class Filler:
    """A segment that may fill holes."""

    row: int  # in the batch, by sender
    side: int  # index into Sides
    number: int  # of the packet
    seq: int  # relative, as `Numbers.seq`
    end: int  # the number after it
    time_ns: int  # since the epoch
    ip_id: int  # 0 and -1 are none
    tsval: int | None  # None without timestamps

    def overtaken_by(self, hole: Hole) -> bool:
        """Whether it was sent before the segment that left a hole. Newer timestamps outweigh all else.

        Args:
            hole: the newest of those that it fills.
        """
        waited = self.time_ns - hole.time_ns
        if waited > LATEST_NS:
            return False
        if self.tsval is not None and hole.tsval is not None:
            ticks = difference(self.tsval, hole.tsval)
            if ticks:
                return ticks < 0
        if self.ip_id > 0 and hole.ip_id > 0:
            return counts_on(hole.ip_id, self.ip_id)
        return waited <= SAME_TICK_NS


class Holes:
    """The open holes of all ends, by index into `Sides`."""

    def __init__(self) -> None:
        self._open: dict[int, list[Hole]] = {}

    def add(self, senders: Senders, segments: Segments, numbers: Numbers, sides: Sides) -> None:
        """Follow the holes through a batch; correct the positions of what fills them, and count.

        Args:
            senders: the order by sender.
            segments: the batch, in that order.
            numbers: its sequence numbers; positions are corrected in place.
            sides: of all connections; its columns about holes, losses and retransmissions are updated.
        """
        fresh = self._follow(senders, segments, numbers, sides)
        count_retransmissions(senders, segments, numbers, sides, fresh)

    def _follow(self, senders: Senders, segments: Segments, numbers: Numbers, sides: Sides) -> list[int]:
        """Follow the holes; return the rows that fill one, and so pass for the first time."""
        leaves = (numbers.position == GAP) & (segments.flags & (RST | SYN) == 0)
        leaves &= numbers.seq - numbers.sent_before <= LARGEST_WINDOW
        concerned = sides.holes[senders.side] > 0
        if not leaves.any() and not concerned.any():
            return []
        concerned |= np.logical_or.reduceat(leaves, senders.start)
        fills = np.isin(numbers.position, (RETRANSMISSION, OVERLAP, PROBE)) & (segments.flags & RST == 0)
        rows = np.flatnonzero((leaves | fills) & senders.spread(concerned))
        side_of_row = senders.spread(senders.side)[rows]
        return [
            row
            for row, side in zip(rows.tolist(), side_of_row.tolist(), strict=True)
            if self._row(row, side, segments, numbers, sides)
        ]

    def _row(self, row: int, side: int, segments: Segments, numbers: Numbers, sides: Sides) -> bool:
        """Let a segment leave a hole, or fill some; return whether it fills any."""
        stamped = bool(segments.has_timestamps[row])
        one = Filler(
            row,
            side,
            int(segments.number[row]),
            int(numbers.seq[row]),
            int(numbers.end[row]),
            int(segments.time_ns[row]),
            int(segments.ip_id[row]),
            int(segments.tsval[row]) if stamped else None,
        )
        holes, filled = self._open.get(side, []), []
        if numbers.position[row] == GAP:
            before = int(numbers.sent_before[row])
            holes.append(Hole(before, one.seq, one.number, one.time_ns, one.ip_id, one.tsval))
        else:
            filled = [hole for hole in holes if one.seq < hole.end and one.end > hole.start]
            if filled:
                self._classify(one, filled, numbers, sides)
                holes = remaining(holes, filled, one)
        if holes:
            self._open[side] = holes[-MOST_OPEN:]
        else:
            self._open.pop(side, None)
        sides.holes[side] = len(self._open.get(side, ()))
        if holes:
            sides.hole_start[side] = min(hole.start for hole in holes[-MOST_OPEN:])
            oldest = holes[-MOST_OPEN:][0]
            sides.hole_number[side], sides.hole_ns[side] = oldest.number, oldest.time_ns
        return bool(filled)

    def _classify(self, one: Filler, filled: list[Hole], numbers: Numbers, sides: Sides) -> None:
        """Count how a segment came to fill holes, and correct its position."""
        known, newest = numbers.acked_by_peer[one.row], filled[-1]
        if one.overtaken_by(newest):
            numbers.position[one.row] = REORDERED
            sides.reordered[one.side] += 1
        elif known != NONE and known >= min(one.end, newest.end):
            self._miss(one.side, filled[0].number, filled[0].time_ns, sides)
        else:
            sides.lost[one.side] += 1
        if numbers.position[one.row] == PROBE:
            numbers.position[one.row] = RETRANSMISSION  # it fills a hole, so it asks for nothing

    @staticmethod
    def _miss(side: int, number: int, time_ns: int, sides: Sides) -> None:
        if not sides.missed[side]:
            sides.missed_number[side], sides.missed_ns[side] = number, time_ns
        sides.missed[side] += 1

    def renumber(self, new: NDArray[np.int64]) -> None:
        """Take new indices of connections.

        Args:
            new: int64, by old index: the new one, or -1 where the connection is gone.
        """
        self._open = {
            int(new[side // 2]) * 2 + side % 2: holes
            for side, holes in self._open.items()
            if new[side // 2] >= 0
        }


def remaining(holes: list[Hole], filled: list[Hole], one: Filler) -> list[Hole]:
    """Return what is left of an end's holes, oldest first.

    Args:
        holes: those that were open.
        filled: of these, the ones that a segment fills, wholly or in part.
        one: that segment.
    """
    left = [hole for hole in holes if hole not in filled]
    for hole in filled:
        for start, end in ((hole.start, one.seq), (one.end, hole.end)):
            if start < end:
                left.append(replace(hole, start=start, end=end))
    return sorted(left, key=lambda hole: hole.time_ns)


def count_retransmissions(
    senders: Senders, segments: Segments, numbers: Numbers, sides: Sides, fresh: list[int]
) -> None:
    """Count retransmissions of what was captured and not yet acknowledged, as far as captured.

    Args:
        senders: the order by sender.
        segments: the batch, in that order.
        numbers: its sequence numbers.
        sides: of all connections; `repeated` is updated.
        fresh: rows that look like retransmissions and pass for the first time.
    """
    again = (numbers.position == RETRANSMISSION) | (numbers.position == OVERLAP)
    again &= (numbers.end > numbers.seq) & (segments.flags & RST == 0)
    again &= numbers.acked_by_peer < numbers.end
    again &= (segments.flags & SYN == 0) | (numbers.acked_by_peer == NONE)  # a challenge asks for a SYN again
    # In a simultaneous open the SYN goes again as SYN+ACK (RFC 9293 3.5, figure 7); nothing was lost.
    again &= (segments.flags & SYN == 0) | ~numbers.first_ack
    again[fresh] = False
    if again.any():
        sides.repeated[senders.side] += np.add.reduceat(again.astype(np.int32), senders.start)
