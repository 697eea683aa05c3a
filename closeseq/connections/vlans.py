"""The same addresses and ports in two VLANs: one connection or two.

Two customers may use the same private addresses, each in a VLAN of its own. But a VLAN alone proves nothing.
A mirror port often shows each direction in another VLAN, or only one of them tagged. It shows a routed packet
before and after. And a path may change while a connection is open. So the sequence numbers decide, and VLANs
only select the pairs to compare. The rule, for packets of one pair of addresses and ports:

- A *stream* is one direction in one VLAN (or stack of them). A *lane* is the streams that belong together; it
  has connections of its own, one after the other.
- A stream begins in the lane whose numbers it goes on with; of several in that of its VLAN, then the nearest.
- If its numbers cannot be compared with any, it begins in the lane that has its VLAN the other way, or that
  has not its direction yet. If they contradict all, it stays with its own VLAN's other direction where that
  is still alone, and else it begins a lane.
- Later packets stay in the lane of their stream. Only one whose numbers contradict that lane and go on with
  another's belongs to that one: two lanes may share a stream, as where one direction is untagged in both.
- Duplicates (duplicates.py) begin nothing: the same packet in two VLANs is one packet.

Numbers go on if both are within `REACH` of the last ones of their ends, of a SYN if it is the SYN seen (sent
again), and of a SYN+ACK if it acknowledges just that.

Python runs here for the packets of a pair of which a direction was seen in two VLANs, or whose directions are
in two and do not answer each other; for all others the columns show that there is one lane.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.segments import ACK, SYN, difference, differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.state import Pairs
    from closeseq.packets.segments import Segments

REACH = 1 << 24  # bytes: more than a window, and a hundredth of all numbers
FAST_OPEN = 1460  # bytes of data that a SYN may carry (RFC 7413) and a SYN+ACK acknowledge
CONTRADICTS = 1 << 40  # a distance larger than any
UNKNOWN, ACKNOWLEDGED, SEEN = 0, 1, 2  # how an endpoint's number is known


@dataclass(frozen=True, slots=True)
class PairOrder:
    """The rows of a batch in an order in which those of a pair are neighbours, each as captured."""

    pair: NDArray[np.int64]  # index into Pairs
    sender: NDArray[np.int64]  # 0 or 1
    duplicate: NDArray[np.bool_]  # repeats an earlier packet
    seq: NDArray[np.uint32]  # as on the wire
    ack: NDArray[np.uint32]  # as on the wire; meaningless without the flag
    flags: NDArray[np.uint8]  # control bits
    vlan: NDArray[np.uint64]  # as in Segments

    def take(self, rows: NDArray[np.int64 | np.bool_]) -> PairOrder:
        """Return the rows that an index array or a boolean mask selects, in its order."""
        names = ("pair", "sender", "duplicate", "seq", "ack", "flags", "vlan")
        return PairOrder(*(getattr(self, name)[rows] for name in names))


def pair_order(
    segments: Segments,
    order: NDArray[np.int64],
    pair: NDArray[np.int64],
    sender: NDArray[np.uint8],
    duplicate: NDArray[np.bool_],
) -> PairOrder:
    """Return the rows of a batch in an order.

    Args:
        segments: the batch.
        order: int64, its rows, those of a pair as neighbours, each as captured.
        pair: int64, the pair of each, an index into `Pairs`, in that order already.
        sender: uint8, 0 or 1, in that order already.
        duplicate: a mask of the duplicates, in that order already.
    """
    columns = (getattr(segments, name)[order] for name in ("seq", "ack", "flags", "vlan"))
    return PairOrder(pair, sender.astype(np.int64), duplicate, *columns)


@dataclass(slots=True)
class Split:
    """A pair that is sorted into lanes packet by packet."""

    lanes: list[int]  # indices into Pairs; the first is the pair's own
    streams: dict[tuple[int, int], int] = field(default_factory=dict)  # (sender, VLAN) -> lane

    def has(self, lane: int, sender: int) -> bool:
        """Whether a lane has a stream of an endpoint.

        Args:
            lane: one of `lanes`.
            sender: 0 or 1.
        """
        return any(one == sender and of == lane for (one, _), of in self.streams.items())


@dataclass(slots=True)
class LaneNumbers:
    """Near which sequence numbers the endpoints of a lane are, 32 bits each, and how that is known."""

    near: list[int]  # of end 0 and end 1
    known: list[int]  # of end 0 and end 1: UNKNOWN, ACKNOWLEDGED or SEEN

    def distance(self, sender: int, flags: int, seq: int, ack: int) -> int | None:
        """Return how far a segment is from these numbers, in bytes.

        Args:
            sender: 0 or 1.
            flags: its control bits.
            seq: its sequence number, as on the wire.
            ack: its acknowledgement, as on the wire; meaningless without the flag.

        Returns:
            CONTRADICTS if it is too far to belong here; None if no number is known to compare it with.
        """
        found = None
        opens = bool(flags & SYN)
        if self.known[sender] and not (opens and flags & ACK):
            step = difference(seq, self.near[sender])
            if not (-1 <= step <= 0 if opens else abs(step) <= REACH):
                return CONTRADICTS
            found = abs(step)
        if flags & ACK and self.known[1 - sender]:
            step = difference(ack, self.near[1 - sender])
            if not (0 <= step <= 1 + FAST_OPEN if opens else abs(step) <= REACH):
                return CONTRADICTS
            found = max(found or 0, abs(step))
        return found

    def see(self, sender: int, flags: int, seq: int, ack: int) -> None:
        """Go on with a segment of the lane; `sender`, `flags`, `seq` and `ack` are as in `distance`."""
        self.near[sender], self.known[sender] = seq, SEEN
        if flags & ACK and self.known[1 - sender] < SEEN:
            self.near[1 - sender], self.known[1 - sender] = (ack - 1) & 0xFFFFFFFF, ACKNOWLEDGED


class Lanes:
    """Finds the lane of each row. A lane is a row of `Pairs`, with the pair's addresses and ports.

    Args:
        pairs: all pairs; lanes that come up are added to them.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._tagged = False  # a tag was seen
        self._split: dict[int, Split] = {}  # by the pair's own index

    def __len__(self) -> int:
        """Return how many lanes there are besides the pairs' own."""
        return sum(len(split.lanes) - 1 for split in self._split.values())

    def assign(self, rows: PairOrder) -> NDArray[np.int64]:
        """Return the lane of each row, int64; `rows.pair` itself where all are the pairs' own."""
        lane = rows.pair
        kept = rows.take(~rows.duplicate) if rows.duplicate.any() else rows
        self._tagged = self._tagged or bool(rows.vlan.any())
        if self._tagged:
            doubtful = self._doubtful(kept)
            at = np.flatnonzero(doubtful[rows.pair])
            if len(at):
                lane = lane.copy()
                lane[at] = self._sort_out(rows.take(at))
        self._see(kept, lane if kept is rows else lane[~rows.duplicate])
        return lane

    def kept(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return these pairs, ascending indices, and whatever shares addresses and ports with one of them."""
        some = set(pairs.tolist())
        more = [lane for split in self._split.values() if some & set(split.lanes) for lane in split.lanes]
        return np.union1d(pairs, np.array(more, np.int64)) if more else pairs

    def renumber(self, new_pair: NDArray[np.int64]) -> None:
        """Take new indices of pairs.

        Args:
            new_pair: int64, by old index: the new one, or -1 where the pair is gone.
        """
        self._split = {
            int(new_pair[base]): Split(
                [int(new_pair[lane]) for lane in split.lanes],
                {stream: int(new_pair[lane]) for stream, lane in split.streams.items()},
            )
            for base, split in self._split.items()
            if new_pair[base] >= 0
        }

    def _see(self, kept: PairOrder, lane: NDArray[np.int64]) -> None:
        """Keep the last numbers of each end, and the VLAN in which it was first seen."""
        pairs, peer = self._pairs, 1 - kept.sender
        acked = np.flatnonzero((kept.flags & ACK > 0) & (pairs.known[lane, peer] < SEEN))
        pairs.near[lane[acked], peer[acked]] = kept.ack[acked] - np.uint32(1)
        pairs.known[lane[acked], peer[acked]] = ACKNOWLEDGED
        if self._tagged:
            first = np.flatnonzero(pairs.known[lane, kept.sender] < SEEN)[
                ::-1
            ]  # of several the first one stays
            pairs.vlan[lane[first], kept.sender[first]] = kept.vlan[first]
        pairs.near[lane, kept.sender] = kept.seq  # of several the last one stays
        pairs.known[lane, kept.sender] = SEEN

    def _doubtful(self, kept: PairOrder) -> NDArray[np.bool_]:
        """Return a mask over `Pairs` of those that may have two lanes."""
        pairs = self._pairs
        doubtful = np.zeros(len(pairs), np.bool_)
        doubtful[list(self._split)] = True
        side = kept.pair * 2 + kept.sender
        vlan, known = pairs.vlan.reshape(-1).copy(), pairs.known.reshape(-1) == SEEN
        new, first = np.unique(side, return_index=True)
        first = first[~known[new]]  # each end's first row ever
        vlan[side[first]] = kept.vlan[first]
        doubtful[kept.pair[kept.vlan != vlan[side]]] = True

        # Ends in two VLANs: the one that is seen later must answer the other. The row before its first one is
        # the other's, or else the other was seen in an earlier batch.
        before = first - 1
        here = (before >= 0) & (kept.pair[before] == kept.pair[first])
        first, before = first[here | known[side[first] ^ 1]], before[here | known[side[first] ^ 1]]
        crosses = vlan[side[first]] != vlan[side[first] ^ 1]
        first, before = first[crosses], before[crosses]
        if len(first):
            doubtful[kept.pair[first[~self._answers(kept, first, before)]]] = True
        return doubtful

    def _answers(
        self, kept: PairOrder, row: NDArray[np.int64], before: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which rows surely go on with the other end's numbers, those of the row before or as kept."""
        pairs, pair, sender = self._pairs, kept.pair[row], kept.sender[row]
        here = (before >= 0) & (kept.pair[before] == pair)
        acks = kept.flags[before] & ACK > 0
        own = np.where(here & acks, kept.ack[before] - np.uint32(1), pairs.near[pair, sender])
        own_known = np.where(here, acks, pairs.known[pair, sender] > UNKNOWN)
        peer = np.where(here, kept.seq[before], pairs.near[pair, 1 - sender])
        opens = kept.flags[row] & SYN > 0
        step = differences(kept.ack[row], peer)
        fits = np.where(opens, (step >= 0) & (step <= 1 + FAST_OPEN), np.abs(step) <= REACH)
        follows = own_known & (np.abs(differences(kept.seq[row], own)) <= REACH)
        return (kept.flags[row] & ACK > 0) & fits & (opens | follows)

    def _sort_out(self, rows: PairOrder) -> NDArray[np.int64]:
        """Go through the rows of doubtful pairs one by one; return each one's lane."""
        pairs, found, numbers = self._pairs, list[int](), dict[int, LaneNumbers]()
        columns = (
            getattr(rows, n).tolist() for n in ("pair", "sender", "duplicate", "flags", "seq", "ack", "vlan")
        )
        for base, sender, duplicate, flags, seq, ack, vlan in zip(*columns, strict=True):
            split = self._split.get(base)
            if split is None:
                seen = [end for end in (0, 1) if pairs.known[base, end] == SEEN]
                streams = {(end, int(pairs.vlan[base, end])): base for end in seen}
                split = self._split[base] = Split([base], streams)
            for lane in split.lanes:
                if lane not in numbers:
                    numbers[lane] = LaneNumbers(pairs.near[lane].tolist(), pairs.known[lane].tolist())
            far = {lane: numbers[lane].distance(sender, flags, seq, ack) for lane in split.lanes}
            choice = chosen(split, far, sender, vlan)
            if duplicate:
                found.append(split.streams.get((sender, vlan), base) if choice is None else choice)
                continue
            if choice is None:
                choice = self._begin(base, split)
                numbers[choice] = LaneNumbers([0, 0], [UNKNOWN, UNKNOWN])
            split.streams.setdefault((sender, vlan), choice)
            numbers[choice].see(sender, flags, seq, ack)
            found.append(choice)
        return np.array(found, np.int64)

    def _begin(self, base: int, split: Split) -> int:
        """Make one more lane of a pair."""
        pairs = self._pairs
        ends = {name: getattr(pairs, name)[base] for name in ("version", "high", "low", "port")}
        lane = pairs.grow(1, further=True, **ends)
        split.lanes.append(lane)
        return lane


def chosen(split: Split, far: dict[int, int | None], sender: int, vlan: int) -> int | None:
    """Return the lane of a segment, by the rule above; None if it begins one of its own.

    Args:
        split: the lanes of its pair.
        far: how far its numbers are from each lane's, as `LaneNumbers.distance` says.
        sender: 0 or 1.
        vlan: in which it was seen.
    """
    own = split.streams.get((sender, vlan))
    fitting = {lane: step for lane, step in far.items() if step is not None and step < CONTRADICTS}
    if own is not None:
        if far[own] != CONTRADICTS or not fitting:
            return own
        return min(fitting, key=lambda lane: fitting[lane])
    beside = split.streams.get((1 - sender, vlan))
    if fitting:
        return min(fitting, key=lambda lane: (lane != beside, fitting[lane]))
    open_ = [lane for lane, step in far.items() if step is None]
    if open_:
        return min(open_, key=lambda lane: (lane != beside, split.has(lane, sender)))
    return beside if beside is not None and not split.has(beside, sender) else None
