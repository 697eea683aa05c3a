"""All connections of a capture, fed in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.compose import address_of
from closeseq.connections.conversation import End
from closeseq.connections.describe import conversations
from closeseq.connections.grouping import arrange, hashed, packed, renumbered
from closeseq.connections.holes import Holes
from closeseq.connections.idling import closes
from closeseq.connections.orientation import ClientGuess, clients
from closeseq.connections.pairs import AssignedBatch, PairTable
from closeseq.connections.relevance import events
from closeseq.connections.sequence_space import Batch, Senders, number
from closeseq.connections.skeleton import Skeleton, skeletons
from closeseq.connections.state import DiskColumns
from closeseq.connections.steps import Steps, everything, next_times, some
from closeseq.connections.strays import strays, suspects
from closeseq.connections.traffic import measure
from closeseq.connections.whereabouts import elsewhere
from closeseq.packets.segments import FIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.conversation import Address, Conversation
    from closeseq.connections.idling import Closes
    from closeseq.connections.pairs import TablePart
    from closeseq.connections.state import ColumnTable, Pairs
    from closeseq.connections.steps import Extent
    from closeseq.connections.strays import Encounters, Stray
    from closeseq.packets.segments import Segments

FIRST_PORTION = 16  # connections that are made at once: who looks at a few does not wait for many
PORTION = 1024  # and later, when many are asked for
MOST_TOUCHED_ROWS = 1 << 16  # packets or events, until pages are given back
ROWS_OF_A_CONNECTION = 16  # roughly
MOST_AT_ONCE = 1 << 17  # connections that are compared with one another
MANY_AT_ONCE = 1 << 14  # and so many at a time where there are more: it takes longer, and less memory


class Connections:
    """All connections of a capture, fed in batches.

    Args:
        ports: ports that are known to be servers' ports; they decide which end is the client where no
            SYN was captured.
        scratch: whether long columns may lie on disk (`state.DiskColumns`): for captures of any length, of
            which nothing is dropped.
    """

    def __init__(self, *, ports: frozenset[int] = frozenset(), scratch: bool = False) -> None:
        self._ports = ports
        self._scratch = DiskColumns() if scratch else None
        self._touched_rows = 0  # since pages were last given back
        self._table = PairTable(self._scratch)
        self._steps = Steps(self._scratch)
        self._holes = Holes()
        self._guess = ClientGuess(self._table.pairs, ports)
        self._clients: NDArray[np.int64] | None = (
            None  # of each connection, 0 or 1, as known when last asked for
        )
        self.touched = np.empty(0, np.int64)  # indices of the connections to which the last `feed` added

    def __len__(self) -> int:
        """Return the number of connections so far (incarnations of pairs)."""
        return len(self._table.histories)

    @property
    def replaced(self) -> NDArray[np.int64]:
        """Indices of the connections whose pair began another one with the last batch."""
        return self._table.replaced

    @property
    def copies(self) -> int:
        """How many duplicates of packets were left out."""
        return self._table.copies

    def feed(self, segments: Segments) -> None:
        """Add the segments of a batch, which follow those of the batches before in the capture."""
        assigned = self.assign(segments)
        self.touched = np.empty(0, np.int64) if assigned is None else np.unique(assigned.rows.connection)
        self._add(assigned)

    def assign(self, segments: Segments) -> AssignedBatch | None:
        """Do the first half of `feed`: find the connections of a batch's segments.

        Another process may do it, in these connections as it sees them, while this one goes on with earlier
        batches (`follow`). It hands over its `parts` at the end.

        Args:
            segments: of a batch, which follow those of the batches before in the capture.

        Returns:
            The batch; None where nothing of it counts.
        """
        if not len(segments):
            return None
        rows, begun = self._table.assign(segments)
        if not len(rows.index):
            return None
        self._release(len(segments))
        return AssignedBatch(segments, rows, begun)

    def follow(self, batch: AssignedBatch | None) -> None:
        """Do the second half of `feed`, where another process has done the first."""
        if batch is not None:
            self._table.follow(batch.begun)
            self._release(len(batch.segments))
        self._add(batch)

    def parts(self) -> Iterator[TablePart]:
        """Yield what `assign` has left, for the process that has followed."""
        return self._table.parts()

    def join(self, part: TablePart) -> None:
        """Take in what `assign` has left in another process. When all is there, nothing more can be fed."""
        self._table.join(part)
        self._release(len(next(iter(part.columns.values()))))

    def _add(self, assigned: AssignedBatch | None) -> None:
        self._clients = None
        if assigned is None:
            return
        rows = assigned.rows
        senders = Senders(rows)
        sent = assigned.segments.take(rows.index[senders.order])
        histories, sides = self._table.histories, self._table.sides
        numbers = number(senders, sent, sides)
        self._holes.add(senders, sent, numbers, sides)
        batch = Batch(rows, np.repeat(rows.connection, rows.length), senders, sent, numbers)
        measure(batch, histories, sides)
        away = elsewhere(senders, sent, sides)
        self._steps.add(batch, events(batch, histories, sides), histories, away)
        if sent.reasons:
            self._steps.reasons.add(sent.reasons)

    @property
    def first_ns(self) -> NDArray[np.int64]:
        """The time of each connection's first packet, since the Unix epoch."""
        return self._table.histories.first_ns

    @property
    def last_ns(self) -> NDArray[np.int64]:
        """The time of each connection's last packet, since the Unix epoch."""
        return self._table.histories.last_ns

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Each connection's `Conversation.id`, ascending."""
        return self._table.histories.id

    @property
    def last_event(self) -> NDArray[np.int64]:
        """A number for each connection that changes with each of its events; -1 without any."""
        return self._table.histories.last_event

    @property
    def tables(self) -> dict[str, ColumnTable]:
        """All that is kept of connections that get no more packets, by name; rows refer to one another."""
        table, steps = self._table, self._steps
        return {
            "pairs": table.pairs,
            "histories": table.histories,
            "sides": table.sides,
            "kept": steps.kept,
            "stretches": steps.stretches,
            "reasons": steps.reasons,
        }

    def guess_with(self, guess: ClientGuess) -> None:
        """From now on infer the client by this guess, where no SYN shows it."""
        self._guess, self._clients = guess, None

    def conversation(self, index: int) -> Conversation:
        """Return the connection with this index as plain Python; 0 is that of the first packet."""
        return next(conversations(np.array([index]), self._table, self._steps, self._guess))

    def conversations(self, indices: NDArray[np.int64]) -> Iterator[Conversation]:
        """Yield the connections with these indices (int64, ascending): in less time than one by one."""
        at, portion = 0, FIRST_PORTION
        while at < len(indices):
            yield from conversations(indices[at : at + portion], self._table, self._steps, self._guess)
            at, portion = at + portion, min(2 * portion, PORTION)
            self._release(ROWS_OF_A_CONNECTION * portion)

    def _release(self, rows: int) -> None:
        """Count `rows` as touched; give back the pages of long columns when enough are."""
        self._touched_rows += rows
        if self._touched_rows > MOST_TOUCHED_ROWS:
            self._give_back()

    def _give_back(self) -> None:
        """Give back the pages of long columns."""
        self._touched_rows = 0
        if self._scratch is not None:
            self._scratch.release()

    def places(self, indices: Sequence[int], end: End, *, with_port: bool) -> list[tuple[Address, list[int]]]:
        """Group connections by the address, or the address and port, of one endpoint.

        Args:
            indices: which connections, from 0.
            end: whose address.
            with_port: whether the port counts; without, it is given as 0: a client's varies from connection
                to connection.

        Returns:
            Each address with the indices of its connections, in the order of `indices`. The addresses are in
            no order.
        """
        index = np.asarray(indices, np.int64)
        client = self._client_ends()[index]
        column = client if end is End.CLIENT else 1 - client
        found = places(self._table.pairs, self._table.histories.pair[index], column, with_port=with_port)
        return [(address, index[members].tolist()) for address, members in found]

    def closes(self) -> Closes:
        """Return who closed each connection first, and after which silence."""
        client = self._client_ends()
        whole = closes(self._table, self._steps, self._extent(client[:0]), client[:0]).room(len(self))
        for portion in self._in_turn():
            whole.put(portion, closes(self._table, self._steps, self._extent(portion), client[portion]))
        return whole

    def suspects(self) -> Encounters:
        """Return the connections that may be strays; see there."""
        return suspects(self._table, self._client_ends())

    def strays(self, suspected: Encounters | None = None) -> list[Stray]:
        """Return what reached an endpoint from an address that it does not know; see there.

        Args:
            suspected: connections that may continue one of these; None for those of these that may.
        """
        suspected = self.suspects() if suspected is None else suspected
        return strays(self._table, self._client_ends(), suspected, self._in_turn())

    def _in_turn(self) -> Iterator[NDArray[np.int64]]:
        """Yield `portions` of all; the pages of each are given back before the next."""
        self._give_back()
        for portion in self.portions():
            yield portion
            self._release(ROWS_OF_A_CONNECTION * len(portion))

    def closing(self, among: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Return the server's port of connections, and the time from their first FIN to their last event.

        Args:
            among: int64, ascending indices.

        Returns:
            The ports (uint16), and nanoseconds (int64); -1 where there was no FIN.
        """
        extent, kept, histories = self._extent(among), self._steps.kept, self._table.histories
        client, _ = clients(self._table, self._steps, self._guess, extent)
        ports = self._table.pairs.port[histories.pair[among], 1 - client]
        fin = np.flatnonzero(kept.flags[extent.event] & FIN)[::-1]
        first_ns = np.full(len(among), -1)
        first_ns[extent.event_place[fin]] = kept.time_ns[extent.event_rows(fin)]  # of several the first stays
        last_ns = kept.time_ns[np.maximum(histories.last_event[among], 0)] if len(kept) else first_ns
        return ports, np.where(first_ns < 0, -1, np.maximum(last_ns - first_ns, 0))

    def losses(self) -> tuple[int, int, int]:
        """Return how many segments were lost near the clients, near the servers, and came out of order.

        Lost as in `Conversation.lost_near`.
        """
        sides = self._table.sides
        side = 2 * np.arange(len(self)) + self._client_ends()
        beyond = np.maximum(sides.repeated - sides.dsacks[np.arange(len(sides.dsacks)) ^ 1], 0)
        near = [int((sides.lost[one] + beyond[one ^ 1]).sum()) for one in (side, side ^ 1)]
        return near[0], near[1], int(sides.reordered.sum())

    def _client_ends(self) -> NDArray[np.int64]:
        """Return for each connection which end of its pair is the client, 0 or 1."""
        if self._clients is None or len(self._clients) != len(self):
            found = (
                clients(self._table, self._steps, self._guess, self._extent(portion))[0]
                for portion in self._in_turn()
            )
            self._clients = np.concatenate([np.empty(0, np.int64), *found])
        return self._clients

    def _extent(self, among: NDArray[np.int64]) -> Extent:
        histories = self._table.histories
        if len(among) == len(self):
            return everything(histories, self._steps)
        return some(histories, self._steps, among)

    def portions(
        self, among: NDArray[np.int64] | None = None, *, soon: bool = False
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the indices of connections, as many at a time as should be worked on together.

        Args:
            among: int64, ascending indices of the connections; None for all.
            soon: whether somebody waits for the first of them: then the first portions are small.
        """
        index = np.arange(len(self)) if among is None else among
        most = MOST_AT_ONCE if len(index) <= MOST_AT_ONCE else min(MANY_AT_ONCE, MOST_AT_ONCE)
        at, size = 0, min(PORTION, most) if soon else most
        while at < len(index):
            yield index[at : at + size]
            at, size = at + size, min(2 * size, most)

    def skeletons(self, among: NDArray[np.int64] | None = None) -> Iterator[Skeleton]:
        """Yield connections by skeleton: whose steps are of the same kinds; only their numbers differ.

        Args:
            among: int64, ascending indices of the connections to look at, not too many (`portions`); None
                for all.
        """
        extent = self._extent(np.arange(len(self)) if among is None else among)
        yield from skeletons(self._table, self._steps, self._guess, extent)
        self._release(ROWS_OF_A_CONNECTION * len(extent))

    def kinds(self, among: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a number for each connection that is equal for all of one skeleton; others may have it too.

        Args:
            among: int64, ascending indices.
        """
        found = [np.empty(0, np.int64), *(self._kinds(portion) for portion in self.portions(among))]
        return np.concatenate(found)

    def _kinds(self, among: NDArray[np.int64]) -> NDArray[np.int64]:
        extent, kept, stretches = self._extent(among), self._steps.kept, self._steps.stretches
        place, sender, stretch = extent.event_place, kept.sender[extent.event], kept.stretch[extent.event]
        first = np.zeros(len(extent), np.uint8)
        first[place[::-1]] = sender[::-1]  # of several the first one stays
        turned = first[place]  # seen from the sender of the first event, as a skeleton is from the client
        before, row = stretch >= 0, np.arange(len(stretch))
        sent = np.zeros((len(stretch), 2), np.bool_)
        sent[before] = stretches.segments[stretch[before]] > 0
        looks = [
            kept.flags[extent.event],
            kept.position[extent.event],
            kept.has_timestamps[extent.event],
            sender ^ turned,
            sent[row, turned],
            sent[row, 1 - turned],
        ]
        # 20 bits, so that a float holds any sum of them.
        mixed = hashed([look.astype(np.uint64) for look in looks]) >> np.uint64(44)
        self._release(ROWS_OF_A_CONNECTION * len(extent))
        return np.bincount(place, mixed, len(extent)).astype(np.int64)

    def times(self, among: NDArray[np.int64], now_ns: int, waits_ns: Sequence[int]) -> NDArray[np.int64]:
        """Return, for each of these connections, the next time at which one of its events is so long ago.

        Args:
            among: int64, ascending indices.
            now_ns: only times after it count, since the Unix epoch.
            waits_ns: lengths of time, in nanoseconds.

        Returns:
            int64, nanoseconds since the epoch; FAR_NS where no such time will come.
        """
        return next_times(some(self._table.histories, self._steps, among), self._steps, now_ns, waits_ns)

    def forget(self, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Drop all connections but those of a mask, and the older ones of a pair with its newest.

        Indices change. Numbers (`Conversation.id`) stay as they are.

        Args:
            kept: one entry a connection, by index.

        Returns:
            int64, ascending: the old index of each connection that stays.
        """
        connections = len(self)
        stays = self._table.forget(kept)
        new = renumbered(stays, connections)
        self._steps.keep(new, self._table.histories)
        self._holes.renumber(new)
        self._guess = ClientGuess(self._table.pairs, self._ports)
        self._clients = None
        self.touched = np.empty(0, np.int64)
        return stays


def places(
    pairs: Pairs, pair: NDArray[np.int64], column: NDArray[np.int64], *, with_port: bool
) -> list[tuple[Address, NDArray[np.int64]]]:
    """Group connections by the address at one end.

    Args:
        pairs: all pairs of addresses and ports.
        pair: int64, the pair of each connection.
        column: int64, which end of its pair, 0 or 1, for each connection.
        with_port: whether the port counts; without, it is given as 0.

    Returns:
        Each address, with the places in `pair` that have it, ascending.
    """
    version, high, low = pairs.version[pair], pairs.high[pair, column], pairs.low[pair, column]
    port = pairs.port[pair, column] if with_port else np.zeros(len(pair), np.int64)
    order, begins = arrange([packed(version, port), high.astype(np.uint64), low.astype(np.uint64)])
    found = []
    for group in np.split(order, np.flatnonzero(begins)[1:]):
        first = group[0]
        end = (int(version[first]), int(high[first]), int(low[first]), int(port[first]))
        found.append((address_of(end), np.sort(group)))
    return found
