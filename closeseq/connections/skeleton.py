"""Connections whose steps are of the same kinds, with the numbers in which they differ as columns.

A *skeleton* is what connections have in common before any number is compared: which steps they have, who
sent each, with which flags, in which position, with or without timestamps, whether a RST came another way,
and which of its RSTs say why they were sent, and say the same; whether a SYN shows which endpoint is the
client; and whether another connection of the pair follows. Everything else is a number, and stands in a
column (see `Leaf`), or a text that is only shown: the addresses, and what a RST says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from closeseq.connections.compose import address_of, compose, tags
from closeseq.connections.conversation import Address, Conversation, Opener
from closeseq.connections.grouping import arrange, lengths, packed
from closeseq.connections.orientation import clients, endpoints_of
from closeseq.connections.steps import Wordings
from closeseq.packets.segments import RST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from closeseq.connections.orientation import ClientGuess
    from closeseq.connections.pairs import PairTable
    from closeseq.connections.state import ColumnTable
    from closeseq.connections.steps import Extent, KeptEvents, Steps
    from closeseq.connections.traffic import Stretches

MOST_STEPS = 64  # connections with more of them are judged one by one

# Places of a `Leaf` besides the steps, which count from 0.
HISTORY, SIDE, SUCCESSOR, PAIR = -1, -2, -3, -4

# Columns of a step that belong to the skeleton; all others of KeptEvents and Stretches are numbers.
KINDS_OF_EVENT = ("sender", "flags", "position", "has_timestamps", "elsewhere")
KINDS_OF_STRETCH = ("has_timestamps",)
EVENT, STRETCH = 1 << 30, 1 << 29  # in the code of a step, which is never 0
# These ascend with the steps of a shared skeleton.
PACKETS = frozenset({"number", "first_number", "last_number"})


class Leaf(NamedTuple):
    """One number of a connection: a column of a table, in the row that belongs to one of its steps."""

    place: int  # the step, from 0; or HISTORY, SIDE, SUCCESSOR (its first event) or PAIR
    name: str  # of the column
    end: int = 0  # where the column holds a number for each end: 0 the client's, 1 the server's

    def comes_before(self, other: Leaf) -> bool | None:
        """Whether both are packets' numbers, and this one's packet comes first; None where it is open.

        Args:
            other: a leaf of the same shared skeleton.
        """
        if {self.name, other.name} <= PACKETS and min(self.place, other.place) >= 0:
            return self.place < other.place if self.place != other.place else None
        return None


@dataclass(slots=True)
class Skeleton:
    """Connections of one skeleton. A *row* is a position among them."""

    key: bytes  # equal for equal skeletons, also of other batches
    connection: NDArray[np.int64]  # indices into Histories, ascending
    shared: bool  # False: too many steps to be compared, or packets out of order: one connection
    _client: NDArray[np.uint8]  # 0 or 1
    _seen: bool  # a SYN or SYN+ACK shows the client
    _codes: list[int]  # of the steps
    _rows: NDArray[np.int64]  # a row a connection, a column a step: rows of KeptEvents or Stretches
    _successor: NDArray[np.int64]  # rows of KeptEvents: the next connection's first event; -1 without one
    _table: PairTable
    _steps: Steps

    def __len__(self) -> int:
        return len(self.connection)

    def column(self, leaf: Leaf) -> NDArray[Any]:
        """Return a number of all these connections, in the type of its table's column.

        Args:
            leaf: which number.
        """
        values, row, end = self._cells(leaf, slice(None))
        result: NDArray[Any] = values[row] if values.ndim == 1 else values[row, end]
        return result

    def value(self, leaf: Leaf, row: int) -> int:
        """Return a number of one of these connections.

        Args:
            leaf: which number.
            row: the connection, by its position in the skeleton, from 0.
        """
        values, at, end = self._cells(leaf, row)
        return int(values[at] if values.ndim == 1 else values[at, end])

    def _cells(self, leaf: Leaf, which: int | slice) -> tuple[NDArray[Any], Any, Any]:
        """Return the column that holds a leaf, the rows there of these connections, and their ends."""
        place, name, end = leaf
        table, side = self._table, self._client[which] ^ end
        if place == HISTORY:
            return getattr(table.histories, name), self.connection[which], side
        if place == SIDE:
            return getattr(table.sides, name), 2 * self.connection[which] + side, side
        if place == SUCCESSOR:
            return getattr(self._steps.kept, name), self._successor[which], side
        if place == PAIR:
            return getattr(table.pairs, name), table.histories.pair[self.connection[which]], side
        kept = self._codes[place] & EVENT
        return (
            getattr(self._steps.kept if kept else self._steps.stretches, name),
            self._rows[which, place],
            side,
        )

    def conversation(self, row: int, wrap: Callable[[int, Leaf], Any]) -> Conversation:
        """Return one of the connections, with something else in place of each of its numbers.

        Args:
            row: the connection, by its position in the skeleton, from 0.
            wrap: returns what stands for a number, given the number and its leaf.
        """
        table, (kept, stretches) = self._table, (self._steps.kept, self._steps.stretches)
        index, client = int(self.connection[row]), int(self._client[row])
        chain = []
        for step, (code, at) in enumerate(zip(self._codes, self._rows[row].tolist(), strict=True)):
            if code & EVENT:
                chain.append(Wrapped(kept, at, client, wrap, step, KINDS_OF_EVENT))
            else:
                chain.append(Wrapped(stretches, at, client, wrap, step, KINDS_OF_STRETCH))
        successor = int(self._successor[row])
        pair = int(table.histories.pair[index])
        ends = endpoints_of(table.pairs, slice(pair, pair + 1))[0]
        vlans = table.pairs.vlan[pair].tolist()
        return compose(
            Wrapped(table.histories, index, client, wrap, HISTORY),
            [Wrapped(table.sides, 2 * index + (client ^ end), 0, at_end(wrap, end), SIDE) for end in (0, 1)],
            chain,
            vlans=[tags(wrap(vlans[client ^ end], Leaf(PAIR, "vlan", end))) for end in (0, 1)],
            named=[self._address(address_of(ends[client ^ end]), end, wrap) for end in (0, 1)],
            client=0,
            opener=Opener.SEEN if self._seen else Opener.INFERRED,
            successor=None
            if successor < 0
            else Wrapped(kept, successor, client, wrap, SUCCESSOR, KINDS_OF_EVENT),
            reasons=self._said(row),
        )

    @property
    def reasons(self) -> Wordings:
        """What RSTs say of their reason, by packet: of these connections, and of all others."""
        return Wordings(self._steps.reasons)

    def _said(self, row: int) -> dict[int, str]:
        """Return what the RSTs of a connection say of their reason, by step."""
        reasons, kept, said = self.reasons, self._steps.kept, {}
        if len(reasons):
            for step, (code, at) in enumerate(zip(self._codes, self._rows[row].tolist(), strict=True)):
                if code & EVENT and kept.flags[at] & RST and (number := int(kept.number[at])) in reasons:
                    said[step] = reasons[number]
        return said

    def ends(self, rows: NDArray[np.int64]) -> list[tuple[Address, Address]]:
        """Return client and server of some of the connections.

        Args:
            rows: int64, which ones, by their positions in the skeleton.
        """
        pair, client = self._table.histories.pair[self.connection[rows]], self._client[rows].tolist()
        return [
            (address_of(both[end]), address_of(both[1 - end]))
            for both, end in zip(endpoints_of(self._table.pairs, pair), client, strict=True)
        ]

    @staticmethod
    def _address(address: Address, end: int, wrap: Callable[[int, Leaf], Any]) -> Address:
        return Address(Name(address.address), wrap(address.port, Leaf(PAIR, "port", end)))


class Name(str):
    """An address as text that may be shown but not compared: it is no number, and in no skeleton."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise TypeError(
            "whatever compares addresses must let them into the skeleton (connections/skeleton.py)"
        )

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = startswith = endswith = __eq__  # type: ignore[assignment]


new_tuple = tuple.__new__  # as Leaf(...), in half the time: a hundred are made for each replay


def at_end(wrap: Callable[[int, Leaf], Any], end: int) -> Callable[[int, Leaf], Any]:
    """Return what wraps the numbers of one end's row.

    Args:
        wrap: wraps a number, given with its leaf.
        end: put into each leaf: 0 the client's, 1 the server's.
    """
    return lambda value, leaf: wrap(value, leaf._replace(end=end))


class Wrapped(dict[str, Any]):
    """A row of a table as seen from the client, as if that were end 0; columns are read on demand.

    Args:
        table: the table.
        at: the row.
        client: which end of the pair is the client, 0 or 1.
        wrap: wraps each number, given with its leaf.
        place: of the leaves.
        kinds: columns that belong to the skeleton, and are not wrapped.
    """

    def __init__(  # noqa: PLR0917 - one is made for each row
        self,
        table: ColumnTable,
        at: int,
        client: int,
        wrap: Callable[[int, Leaf], Any],
        place: int,
        kinds: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self._table = table
        self._at = at
        self._client = client
        self._wrap = wrap
        self._place = place
        for name in kinds:
            value = getattr(table, name)[at].tolist()
            self[name] = value[::-1] if client and isinstance(value, list) else value
        if "sender" in kinds:
            self["sender"] ^= client

    def __missing__(self, name: str) -> Any:
        value, wrap, place = getattr(self._table, name)[self._at].tolist(), self._wrap, self._place
        if isinstance(value, list):
            values = value[::-1] if self._client else value
            value = [
                wrap(values[0], new_tuple(Leaf, (place, name, 0))),
                wrap(values[1], new_tuple(Leaf, (place, name, 1))),
            ]
        else:
            value = wrap(value, new_tuple(Leaf, (place, name, 0)))
        self[name] = value
        return value


def skeletons(table: PairTable, steps: Steps, guess: ClientGuess, extent: Extent) -> Iterator[Skeleton]:
    """Yield the connections of an extent by skeleton.

    Args:
        table: all pairs and connections.
        steps: of all connections.
        guess: infers the client where no SYN shows it.
        extent: which connections; their codes stand in memory together.
    """
    if not len(extent):
        return
    histories, kept = table.histories, steps.kept
    found, seen = clients(table, steps, guess, extent)
    client = found.astype(np.uint8)
    successor = first_events(histories.successor[extent.connection], table, steps)
    followed = np.zeros(len(extent), np.int64)
    followed[successor >= 0] = event_codes(kept, successor[successor >= 0], client[successor >= 0])
    chain = StepChain.of(extent, steps, histories.open_stretch[extent.connection])
    shared = (chain.length <= MOST_STEPS) & chain.in_order(len(extent), steps)
    place = np.flatnonzero(shared)
    if len(place):
        code, row = chain.matrices(shared, client, steps)
        words = [*code.view(np.uint64).T, packed(followed[place], seen[place])]
        order, begins = arrange(words)
        for group in np.split(order, np.flatnonzero(begins)[1:]):
            members = place[group]
            first = members[0]
            codes = code[group[0], : chain.length[first]]
            head = int(followed[first]) << 1 | int(seen[first])
            yield Skeleton(
                head.to_bytes(8, "little") + codes.tobytes(),
                extent.connection[members],
                True,
                client[members],
                bool(seen[first]),
                codes.tolist(),
                row[group, : len(codes)],
                successor[members],
                table,
                steps,
            )
    start = np.cumsum(chain.length) - chain.length
    for one in np.flatnonzero(~shared).tolist():
        part = slice(start[one], start[one] + chain.length[one])
        yield Skeleton(
            b"",
            extent.connection[one : one + 1],
            False,
            client[one : one + 1],
            bool(seen[one]),
            np.where(chain.is_event[part], EVENT, STRETCH).tolist(),
            chain.row[None, part],
            successor[one : one + 1],
            table,
            steps,
        )


@dataclass(frozen=True, slots=True)
class StepChain:
    """The steps of all connections of an extent, connection by connection, each first to last."""

    place: NDArray[np.int64]  # per step: the place of its connection in the extent
    at: NDArray[np.int64]  # per step: its position in its connection, from 0
    row: NDArray[np.int64]  # per step: of KeptEvents or Stretches
    is_event: NDArray[np.bool_]  # per step
    length: NDArray[np.int64]  # per connection: its number of steps

    @classmethod
    def of(cls, extent: Extent, steps: Steps, open_stretch: NDArray[np.int64]) -> StepChain:
        """Lay out the steps of an extent.

        Args:
            extent: some connections.
            steps: of all connections.
            open_stretch: int64, for each connection of the extent its traffic after the last event, a row of
                `Stretches`; -1 without any.
        """
        event = np.arange(len(steps.kept)) if isinstance(extent.event, slice) else extent.event
        order = np.argsort(extent.event_place, kind="stable")
        event, of_event = event[order], extent.event_place[order]
        stretch = steps.kept.stretch[event]
        last = np.flatnonzero(open_stretch >= 0)
        # An event's stretch stands right before it, the open one after all.
        with_stretch = np.flatnonzero(stretch >= 0)
        turn = np.concatenate(
            [2 * np.arange(len(event)) + 1, 2 * with_stretch, np.full(len(last), 2 * len(event))]
        )
        place = np.concatenate([of_event, of_event[with_stretch], last])
        row = np.concatenate([event, stretch[with_stretch], open_stretch[last]]).astype(np.int64)
        is_event = np.zeros(len(row), np.bool_)
        is_event[: len(event)] = True
        order = np.lexsort((turn, place))
        place = place[order].astype(np.int64)
        length = np.bincount(place, minlength=len(extent))
        at = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return cls(place, at, row[order], is_event[order], length)

    def in_order(self, connections: int, steps: Steps) -> NDArray[np.bool_]:
        """Return a mask of the connections whose packets' numbers ascend from step to step.

        Args:
            connections: how many the extent has.
            steps: of all connections.
        """
        kept, stretches = steps.kept, steps.stretches
        first, last = np.zeros(len(self.row), np.int64), np.zeros(len(self.row), np.int64)
        event, stretch = self.row[self.is_event], self.row[~self.is_event]
        first[self.is_event] = last[self.is_event] = kept.number[event]
        sent = stretches.segments[stretch] > 0
        far = np.iinfo(np.int64).max
        first[~self.is_event] = np.where(sent, stretches.first_number[stretch], far).min(axis=1)
        last[~self.is_event] = np.where(sent, stretches.last_number[stretch], 0).max(axis=1)
        ascends = (first[1:] > last[:-1]) | (self.place[1:] != self.place[:-1])
        result = np.ones(connections, np.bool_)
        result[self.place[1:][~ascends]] = False
        return result

    def says(self, steps: Steps) -> NDArray[np.int64]:
        """Return which steps are RSTs that say why they were sent, and which of these say the same.

        Args:
            steps: of all connections.

        Returns:
            For each step the first one of its connection that says the same, counted from 1; 0 for all that
            say nothing.
        """
        result, kept, reasons = np.zeros(len(self.row), np.int64), steps.kept, steps.reasons
        step = np.flatnonzero(self.is_event)
        step = step[kept.flags[self.row[step]] & RST > 0]
        step = step[np.isin(kept.number[self.row[step]], reasons.number)]
        if len(step):
            words = reasons.words(kept.number[self.row[step]])
            order, begins = arrange([self.place[step].astype(np.uint64), *words])
            step, first = step[order], np.flatnonzero(begins)
            result[step] = 1 + np.repeat(self.at[step[first]], lengths(first, len(step)))
        return result

    def matrices(
        self, chosen: NDArray[np.bool_], client: NDArray[np.uint8], steps: Steps
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return the codes and the rows of the steps of some connections.

        Args:
            chosen: a mask of the connections of the extent.
            client: uint8, 0 or 1: the client's end, of each connection of the extent.
            steps: of all connections.

        Returns:
            Two matrices, a row for each of the chosen, a column a step: codes (uint32, 0 past the last step,
            an even number of columns), and rows of `KeptEvents` or `Stretches` (int64).
        """
        count = int(np.count_nonzero(chosen))
        width = int(self.length[chosen].max(initial=1))
        code, row = np.zeros((count, width + width % 2), np.uint32), np.zeros((count, width), np.int64)
        new, says = np.cumsum(chosen) - 1, self.says(steps)
        for events in (True, False):
            at = np.flatnonzero((self.is_event == events) & chosen[self.place])
            cell = (new[self.place[at]], self.at[at])
            row[cell], turned = self.row[at], client[self.place[at]]
            if events:
                code[cell] = event_codes(steps.kept, self.row[at], turned) | says[at] << 19
            else:
                code[cell] = stretch_codes(steps.stretches, self.row[at], turned)
        return code, row


def first_events(connection: NDArray[np.int64], table: PairTable, steps: Steps) -> NDArray[np.int64]:
    """Return the first event of each of these connections, a row of KeptEvents; -1 for an index of -1.

    Args:
        connection: int64, indices into `Histories`.
        table: all pairs and connections.
        steps: of all connections.
    """
    first = np.where(connection >= 0, table.histories.last_event[connection], -1)
    at = np.flatnonzero(first >= 0)
    while len(at):
        before = steps.kept.previous[first[at]]
        at = at[before >= 0]
        first[at] = before[before >= 0]
    return first


def event_codes(kept: KeptEvents, event: NDArray[np.int64], client: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return all of `KINDS_OF_EVENT` in a number a row.

    Args:
        kept: the events of all connections.
        event: int64, which rows.
        client: 0 or 1: the client's end in each row's connection.
    """
    sender = (kept.sender[event] ^ client).astype(np.int64)
    stamped = kept.has_timestamps[event].astype(np.int64)
    position, flags = kept.position[event].astype(np.int64), kept.flags[event].astype(np.int64)
    elsewhere = kept.elsewhere[event].astype(np.int64)
    return EVENT | elsewhere << 18 | sender << 17 | stamped << 16 | position << 8 | flags


def stretch_codes(
    stretches: Stretches, stretch: NDArray[np.int64], client: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return all of `KINDS_OF_STRETCH`, and who sent anything, in a number a row.

    Args:
        stretches: of all connections.
        stretch: int64, which rows.
        client: 0 or 1: the client's end in each row's connection.
    """
    code = np.full(len(stretch), STRETCH)
    for end, column in enumerate((client, 1 - client)):
        code |= (stretches.segments[stretch, column] > 0).astype(np.int64) << end
        code |= stretches.has_timestamps[stretch, column].astype(np.int64) << (2 + end)
    return code
