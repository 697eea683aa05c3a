"""Which rows belong together: pairs of endpoints, and their incarnations; duplicates are left out.

Python runs here once per SYN that is not simply the first packet of a new pair or the answer to it;
everything else is columns.

`PairIndex` finds the row of `Pairs` for addresses and ports: a hash table in one numpy column. A dictionary
would cost 200 bytes a pair and a Python step for each pair and batch; this costs 16 bytes or less, and no
step. It holds only row numbers. The addresses themselves are compared where they stand, in `Pairs`, so a hash
that two pairs share costs one more comparison and never merges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.connections.duplicates import AGAIN, ELSEWHERE, LATER, RESET, DuplicateFinder
from closeseq.connections.grouping import arrange, hashed, lengths, packed, rank, renumbered
from closeseq.connections.incarnations import PairRows, opening_rows
from closeseq.connections.state import Histories, Pairs, Sides
from closeseq.connections.vlans import Lanes, pair_order
from closeseq.packets.segments import ACK, FIN, SYN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.state import ColumnTable, DiskColumns
    from closeseq.packets.segments import Segments

FREE = -1  # in a slot; below it: taken by a row of the keys that are being looked up
FEWEST_SLOTS = 1024
PART = 1 << 16  # rows of a table that are handed over at once: some megabytes


class PairIndex:
    """Finds pairs by their key: five words of 64 bits, as `PairTable` packs them."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._used = 0
        self._slots = np.full(FEWEST_SLOTS, FREE)

    def find(self, words: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        """Return the row of each of these pairs, int64; new ones are added, in their order.

        Args:
            words: five uint64 columns, in which no key comes twice.
        """
        count = len(words[0])
        if 2 * (self._used + count) > len(self._slots):
            self._enlarge(2 * (self._used + count))
        row, slot = self._probe(words)
        new = np.flatnonzero(row == FREE)
        if len(new):
            high0, high1, low0, low1, rest = (word[new] for word in words)
            first = self._pairs.grow(
                len(new),
                high=np.stack([high0, high1], axis=1),
                low=np.stack([low0, low1], axis=1),
                port=np.stack([rest >> np.uint64(16), rest], axis=1).astype(np.uint16),
                version=rest >> np.uint64(32),
            )
            row[new] = self._slots[slot[new]] = first + np.arange(len(new))
            self._used += len(new)
        return row

    def renew(self) -> None:
        """Build the table anew, after rows of `Pairs` were dropped or renumbered."""
        self._used = int(np.count_nonzero(~self._pairs.further))
        self._slots = np.full(FEWEST_SLOTS, FREE)
        self._enlarge(2 * self._used)

    def _enlarge(self, wanted: int) -> None:
        size = len(self._slots)
        while size < wanted:
            size *= 2
        self._slots = np.full(size, FREE)
        row = np.flatnonzero(~self._pairs.further)  # a further lane is found through its pair's own row
        _, slot = self._probe(self._words(row), known=True)
        self._slots[slot] = row

    def _probe(
        self, words: Sequence[NDArray[np.uint64]], *, known: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of these pairs, FREE for a new one, and their slots, which are theirs from now on.

        `known`: none of them is in the table yet.
        """
        slots, mask = self._slots, np.uint64(len(self._slots) - 1)
        slot = (hashed(words) & mask).astype(np.int64)
        row = np.full(len(slot), FREE)
        waiting = np.arange(len(slot))
        while len(waiting):
            at = slot[waiting]
            held = slots[at]
            free = held == FREE
            # Several may want a free slot; the one that was written last has it.
            slots[at[free]] = FREE - 1 - waiting[free]
            settled = slots[at] == FREE - 1 - waiting
            if not known:
                candidates = np.flatnonzero(held >= 0)
                own = waiting[candidates]
                same = self._same(held[candidates], [word[own] for word in words])
                row[own[same]] = held[candidates[same]]
                settled[candidates[same]] = True
            waiting = waiting[~settled]
            slot[waiting] = (slot[waiting] + 1) & int(mask)
        return row, slot

    def _same(self, row: NDArray[np.int64], words: Sequence[NDArray[np.uint64]]) -> NDArray[np.bool_]:
        result = np.ones(len(row), np.bool_)
        for own, other in zip(self._words(row), words, strict=True):
            result &= own == other
        return result

    def _words(self, row: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
        pairs = self._pairs
        high, low, port = pairs.high[row], pairs.low[row], pairs.port[row].astype(np.uint32)
        rest = packed(pairs.version[row], port[:, 0] << np.uint32(16) | port[:, 1])
        return [high[:, 0], high[:, 1], low[:, 0], low[:, 1], rest]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch without duplicates: connection by connection, each as captured.

    A *run* is the rows of one connection in this batch.
    """

    index: NDArray[np.int64]  # row in the batch's Segments
    sender: NDArray[np.uint8]  # 0 or 1
    start: NDArray[np.int64]  # per run: its first row
    connection: NDArray[np.int64]  # per run: index into Histories

    @property
    def length(self) -> NDArray[np.int64]:
        """How many rows each run has."""
        return lengths(self.start, len(self.index))


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What a batch begins: connections, and the numbers of ends of which none was known before."""

    connections: int
    side: NDArray[np.int64]  # indices into Sides
    origin: NDArray[np.uint32]  # of each of these, the number that is relative 0


class AssignedBatch(NamedTuple):
    """A batch, and which connection each of its segments is of. It can be handed to another process."""

    segments: Segments  # as captured
    rows: Rows  # of these, without duplicates; at least one
    begun: Beginnings


# The columns that belong to `PairTable.assign`: what follows on it reads none of them. Nor does it read any
# other, but for `known` and `origin`, which both keep (`Beginnings`). So two processes can do the two, each
# with tables of its own, which are joined at the end.
ASSIGNED = {
    "pairs": tuple(Pairs.declared()),
    "histories": (
        *("id", "pair", "incarnation", "successor", "first_sender", "first_ns", "last_ns"),
        *("copies", "elsewhere", "repeated_resets", "only_syns"),
    ),
    "sides": (
        *("syn", "syn_raw", "packets", "bytes", "dsacks", "doubled", "delivered"),
        *("fin_again", "fin_again_ns", "fin_again_later"),
    ),
}


class TablePart(NamedTuple):
    """Some rows of the columns that belong to `PairTable.assign`."""

    table: str
    first: int  # row
    columns: dict[str, NDArray[Any]]
    copies_dropped: int  # of the whole table


@dataclass(frozen=True, slots=True)
class BatchDuplicates:
    """A batch, and which of its rows are duplicates of which kind."""

    segments: Segments
    order: NDArray[np.int64]  # row in the batch; pair by pair, each as captured
    sender: NDArray[np.uint8]  # 0 or 1, of each row in the batch
    kind: NDArray[np.uint8]  # as in `duplicates`, of each row in the batch
    duplicate: NDArray[np.bool_]  # in the order
    pair: NDArray[np.int64]  # index into Pairs, in the order


class PairTable:
    """Pairs and connections, and the way from a batch's rows to them.

    Args:
        scratch: where long columns lie; None for memory.
    """

    def __init__(self, scratch: DiskColumns | None = None) -> None:
        self.pairs = Pairs(scratch)
        self.histories = Histories(scratch)
        self.sides = Sides(scratch)
        self._pair_index = PairIndex(self.pairs)
        self._lanes = Lanes(self.pairs)
        self._finder = DuplicateFinder()
        self._seen = 0  # connections, forgotten ones included
        self._copies_dropped = 0
        self._joined = False  # another table has done the assigning: this one knows no pair by its addresses
        self.replaced = np.empty(0, np.int64)  # connections whose successors came with the last batch

    def assign(self, segments: Segments) -> tuple[Rows, Beginnings]:
        """Find each row's connection; make new ones where they begin.

        Args:
            segments: a batch, which follows those before; at least one row.

        Returns:
            The rows but for duplicates, which are counted with their connections; and what begins with them.
        """
        assert not self._joined
        before = len(self.histories)
        sender = senders(segments)
        words = pair_words(segments, sender)
        order, begins = arrange(words)
        found = self._pair_index.find([word[order[begins]] for word in words])
        pair = np.repeat(found, lengths(np.flatnonzero(begins), len(order)))
        sides = np.empty(len(order), np.int64)
        sides[order] = pair * 2 + sender[order]
        kind = self._finder.find(segments, sides)
        duplicate = kind[order] > 0
        lane = self._lanes.assign(pair_order(segments, order, pair, sender[order], duplicate))
        if lane is not pair:
            again = np.argsort(lane, kind="stable")
            order, pair, duplicate = order[again], lane[again], duplicate[again]

        index, pair_kept = order[~duplicate], pair[~duplicate]
        new_pair = np.diff(pair_kept, prepend=-1) != 0
        present = self.pairs.present[pair_kept[new_pair]]
        lines = PairRows(segments, index, sender[index], np.flatnonzero(new_pair), present)
        opens = opening_rows(lines, self.histories, self.sides)
        rows = self._runs(lines, pair_kept, opens, segments.time_ns)
        self._count_duplicates(
            BatchDuplicates(segments, order, sender, kind, duplicate, pair), rows, pair_kept
        )
        self.pairs.present[pair_kept[rows.start]] = rows.connection  # of several runs the last one stays
        if not len(index):
            return rows, Beginnings(0, np.empty(0, np.int64), np.empty(0, np.uint32))
        side, origin = self._origins(lines, rows)
        begun = Beginnings(len(self.histories) - before, side, origin)
        self._begin(begun)
        self._see_syns(lines, rows)
        self._count(lines, rows, segments)
        return rows, begun

    def follow(self, begun: Beginnings) -> None:
        """Begin what another table's `assign` has begun; `join` brings the columns that belong to that."""
        self.histories.grow(begun.connections)
        self.sides.grow(2 * begun.connections)
        self._begin(begun)

    def parts(self) -> Iterator[TablePart]:
        """Yield all that `assign` has filled in."""
        for name, columns in ASSIGNED.items():
            table: ColumnTable = getattr(self, name)
            for first in range(0, len(table), PART):
                some = {column: getattr(table, column)[first : first + PART] for column in columns}
                yield TablePart(name, first, some, self._copies_dropped)

    def join(self, part: TablePart) -> None:
        """Take in a part of the table whose `assign` this one has followed."""
        table: ColumnTable = getattr(self, part.table)
        for name, values in part.columns.items():
            past = part.first + len(values)
            table.grow(max(past - len(table), 0))
            getattr(table, name)[part.first : past] = values
        self._copies_dropped, self._joined = part.copies_dropped, True

    def _begin(self, begun: Beginnings) -> None:
        sides, side = self.sides, begun.side
        sides.known[side] = True
        sides.origin[side] = sides.last_raw[side] = begun.origin

    @property
    def copies(self) -> int:
        """How many duplicates of packets were left out."""
        return self._copies_dropped + int(self.histories.copies.sum())

    def forget(self, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Drop all connections but those of a mask; return the old indices of those that stay.

        The earlier connections of a pair go with its newest one: where that is unknown, they would seem
        to be the newest.

        Args:
            kept: one entry a connection, by index.

        Returns:
            int64, ascending; the position in it is the new index.
        """
        histories = self.histories
        self.replaced = np.empty(0, np.int64)
        stays = np.flatnonzero(kept & kept[self.pairs.present[histories.pair]])
        self._copies_dropped = self.copies
        new = renumbered(stays, len(histories))
        pairs = self._lanes.kept(np.unique(histories.pair[stays]))
        new_pair = renumbered(pairs, len(self.pairs))

        histories.keep(stays)
        self._copies_dropped -= int(histories.copies.sum())
        self.sides.keep((2 * stays[:, None] + np.arange(2)).ravel())
        self.pairs.keep(pairs)
        histories.pair[:] = new_pair[histories.pair]
        histories.successor[:] = new[histories.successor]
        self.pairs.present[:] = new[self.pairs.present]
        self._pair_index.renew()
        self._lanes.renumber(new_pair)
        self._finder.renumber(new_pair)
        return stays

    def _runs(
        self, lines: PairRows, pair: NDArray[np.int64], opens: NDArray[np.bool_], time_ns: NDArray[np.int64]
    ) -> Rows:
        """Cut the rows of each pair into runs, and make the connections that begin."""
        first_of_pair = np.zeros(len(opens), np.bool_)
        first_of_pair[lines.start] = True
        start = np.flatnonzero(first_of_pair | opens)
        first_of_pair, new = first_of_pair[start], opens[start]
        opened = start[new]
        by_time = np.argsort(lines.index[opened])
        opened = opened[by_time]

        connection = np.zeros(len(start), np.int64)
        connection[np.flatnonzero(new)[by_time]] = len(self.histories) + np.arange(len(opened))
        present = self.pairs.present[pair[start]]
        connection[~new] = present[~new]
        before = np.where(first_of_pair, present, np.roll(connection, 1))

        # The n-th connection of a pair in this batch comes n after the one that was present.
        incarnation = np.zeros(len(start), np.int64)
        incarnation[present >= 0] = self.histories.incarnation[present[present >= 0]]
        group = np.flatnonzero(first_of_pair)
        incarnation += rank(new, group, lengths(group, len(start)))

        times = time_ns[lines.index[opened]]
        self.histories.grow(
            len(opened),
            id=self._seen + 1 + np.arange(len(opened)),
            pair=pair[opened],
            incarnation=incarnation[new][by_time],
            first_sender=lines.sender[opened],
            first_ns=times,
            last_ns=times,
        )
        self._seen += len(opened)
        self.sides.grow(2 * len(opened))
        replaced = new & (before >= 0)
        self.replaced = before[replaced]
        self.histories.successor[self.replaced] = connection[replaced]
        return Rows(lines.index, lines.sender, start, connection)

    def _origins(self, lines: PairRows, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return the ends for which these rows are the first to give their relative 0, and that number."""
        end_of_run = rows.start + rows.length
        sides, origins = [], []
        for end in (0, 1):
            source = lines.first_numbers(end)[rows.start]
            side = 2 * rows.connection + end
            new = ~self.sides.known[side] & (source < end_of_run)
            sides.append(side[new])
            origins.append(lines.origin(end, source[new]))
        return np.concatenate(sides), np.concatenate(origins)

    def _see_syns(self, lines: PairRows, rows: Rows) -> None:
        """Keep the number of each end's first SYN."""
        syn = np.flatnonzero(lines.flags & SYN)
        run = np.searchsorted(rows.start, syn, side="right") - 1
        side, first = np.unique(2 * rows.connection[run] + rows.sender[syn], return_index=True)
        new = ~self.sides.syn[side]
        self.sides.syn[side[new]], self.sides.syn_raw[side[new]] = True, lines.seq[syn[first[new]]]

    def _count(self, lines: PairRows, rows: Rows, segments: Segments) -> None:
        """Count packets and bytes, and keep the times."""
        histories, sides, connection = self.histories, self.sides, rows.connection
        time_ns, length = segments.time_ns[rows.index], segments.length[rows.index]
        for end in (0, 1):
            own = (rows.sender == end).astype(np.int64)
            sides.packets[2 * connection + end] += np.add.reduceat(own, rows.start)
            sides.bytes[2 * connection + end] += np.add.reduceat(own * length, rows.start)
        reports = np.flatnonzero(segments.dsack_left[rows.index] != segments.dsack_right[rows.index])
        if len(reports):
            run = np.searchsorted(rows.start, reports, side="right") - 1
            np.add.at(sides.dsacks, 2 * connection[run] + rows.sender[reports], 1)
        first, last = np.minimum.reduceat(time_ns, rows.start), np.maximum.reduceat(time_ns, rows.start)
        histories.first_ns[connection] = np.minimum(histories.first_ns[connection], first)
        histories.last_ns[connection] = np.maximum(histories.last_ns[connection], last)
        histories.only_syns[connection] &= np.logical_and.reduceat(
            lines.flags & (SYN | ACK) == SYN, rows.start
        )

    def _count_duplicates(self, found: BatchDuplicates, rows: Rows, pair_kept: NDArray[np.int64]) -> None:
        """Count each duplicate with the connection that its pair had at that moment."""
        at, pair = np.flatnonzero(found.duplicate), found.pair
        if not len(at):
            return
        newest = at - np.arange(len(at)) - 1  # the kept row before it, counted among the kept rows
        same_pair = newest >= 0
        same_pair[same_pair] = pair_kept[newest[same_pair]] == pair[at[same_pair]]
        connection = self.pairs.present[pair[at]]
        run = np.searchsorted(rows.start, newest[same_pair], side="right") - 1
        connection[same_pair] = rows.connection[run]
        known = connection >= 0
        self._copies_dropped += int(np.count_nonzero(~known))
        connection, row = connection[known], found.order[at[known]]

        histories, sides, kind = self.histories, self.sides, found.kind[row]
        side = 2 * connection + found.sender[row]
        np.add.at(histories.copies, connection, 1)
        np.add.at(histories.elsewhere, connection[kind == ELSEWHERE], 1)
        np.add.at(histories.repeated_resets, connection[kind == RESET], 1)
        np.add.at(sides.doubled, side[kind == AGAIN], 1)
        np.add.at(sides.delivered, side[kind == LATER], 1)
        fin = (found.segments.flags[row] & FIN > 0) & ((kind == AGAIN) | (kind == LATER))
        sides.fin_again[side[fin]] = found.segments.number[row[fin]]  # of several the last one stays
        sides.fin_again_ns[side[fin]] = found.segments.time_ns[row[fin]]
        sides.fin_again_later[side[fin]] = kind[fin] == LATER


def senders(segments: Segments) -> NDArray[np.uint8]:
    """Return for each row which end of its pair sent it, uint8: 1 for the one with the larger address.

    Where the addresses are equal, for the one with the larger port.

    Args:
        segments: a batch.
    """
    later = segments.src_port > segments.dst_port
    for source, destination in (
        (segments.src_low, segments.dst_low),
        (segments.src_high, segments.dst_high),
    ):
        later = (source > destination) | ((source == destination) & later)
    return later.view(np.uint8)


def pair_words(segments: Segments, sender: NDArray[np.uint8]) -> list[NDArray[np.uint64]]:
    """Return addresses and ports of end 0 and end 1, packed into uint64 columns without loss.

    Args:
        segments: a batch.
        sender: uint8, 0 or 1: which end sent each row, from `senders`.

    Returns:
        Five columns: the high halves of both addresses, their low halves, and IP version with both ports.
    """
    swap = sender.view(np.bool_)
    words = []
    for source, destination in (
        (segments.src_high, segments.dst_high),
        (segments.src_low, segments.dst_low),
    ):
        words += [np.where(swap, destination, source), np.where(swap, source, destination)]
    low = np.where(swap, segments.dst_port, segments.src_port).astype(np.uint32)
    high = np.where(swap, segments.src_port, segments.dst_port).astype(np.uint32)
    return [*words, packed(segments.version, low << np.uint32(16) | high)]
