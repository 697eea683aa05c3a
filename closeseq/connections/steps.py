"""The steps of a connection: its events, kept whole, and the traffic between them.

A connection's steps are a chain that is walked backwards: `Histories.last_event` and the stretch of
traffic after it, then `KeptEvents.previous` and the stretch before it, and so on. An `Extent` is some of the
connections, or all, with the rows that are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.connections.grouping import packed, renumbered
from closeseq.connections.state import ColumnTable, column
from closeseq.connections.traffic import Stretches, digest, merge
from closeseq.packets.reset_reasons import MOST_BYTES, ReasonKind, ResetReason, malformed, wording
from closeseq.packets.segments import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from closeseq.connections.sequence_space import Batch
    from closeseq.connections.state import DiskColumns, Histories

AS_CAPTURED = (
    *("number", "time_ns", "flags", "length", "window", "ttl", "ip_id"),
    *("has_timestamps", "tsval", "tsecr", "sacked", "syn_options"),
)

MOST_REASONS = 1 << 16  # RSTs whose reasons are kept

FAR_NS = int(np.iinfo(np.int64).max)  # never


class KeptEvents(ColumnTable):
    """One row an event. Numbers are relative to the origins of the sides."""

    connection: NDArray[np.int32] = column(np.int32)  # index into Histories
    previous: NDArray[np.int32] = column(np.int32)  # the event before it in the connection; -1 if none
    # the traffic right before it, index into Stretches; -1 if none
    stretch: NDArray[np.int32] = column(np.int32)
    number: NDArray[np.int64] = column(np.int64)  # of the packet
    time_ns: NDArray[np.int64] = column(np.int64)  # since the epoch
    sender: NDArray[np.uint8] = column(np.uint8)  # 0 or 1
    flags: NDArray[np.uint8] = column(np.uint8)  # control bits
    position: NDArray[np.uint8] = column(np.uint8)  # index into sequence_space.POSITIONS
    seq: NDArray[np.int64] = column(np.int64)  # relative to the sender's origin
    ack: NDArray[np.int64] = column(np.int64)  # NONE without ACK
    length: NDArray[np.int64] = column(np.int64)  # bytes of payload
    window: NDArray[np.uint16] = column(np.uint16)  # as on the wire, not scaled
    has_timestamps: NDArray[np.bool_] = column(np.bool_)
    tsval: NDArray[np.uint32] = column(np.uint32)  # 0 without timestamps, as the next one
    tsecr: NDArray[np.uint32] = column(np.uint32)
    dsack_left: NDArray[np.int32] = column(np.int32)  # against `ack`; equal to dsack_right if there is none
    dsack_right: NDArray[np.int32] = column(np.int32)
    sacked: NDArray[np.uint32] = column(np.uint32)  # how far its SACK blocks reach beyond `ack`; 0 without
    syn_options: NDArray[np.uint32] = column(np.uint32)  # as in Segments
    ttl: NDArray[np.uint8] = column(np.uint8)  # TTL or hop limit
    ip_id: NDArray[np.int32] = column(np.int32)  # -1 for IPv6
    elsewhere: NDArray[np.uint8] = column(np.uint8)  # 1: a RST that came another way (whereabouts.py)


class Reasons(ColumnTable):
    """One row a RST that says why it was sent, a `packets.reset_reasons.ResetReason`."""

    number: NDArray[np.int64] = column(np.int64)  # of the packet
    kind: NDArray[np.uint8] = column(np.uint8)  # a ReasonKind
    length: NDArray[np.uint8] = column(np.uint8)  # of what it says, in bytes
    octets: NDArray[np.uint8] = column(np.uint8, width=MOST_BYTES)  # what it says, filled up with zeros
    _rows: dict[int, int] | None = None  # as `rows`; None: not computed since the table changed

    def add(self, reasons: Mapping[int, ResetReason]) -> None:
        """Keep what RSTs say, by packet number, as long as there is room for more."""
        said = [(number, one) for number, one in reasons.items() if not malformed(one)]
        said = said[: max(MOST_REASONS - len(self), 0)]
        octets = b"".join(one.octets.ljust(MOST_BYTES, b"\0") for _, one in said)
        self.grow(
            len(said),
            number=[number for number, _ in said],
            kind=[one.kind for _, one in said],
            length=[len(one.octets) for _, one in said],
            octets=np.frombuffer(octets, np.uint8).reshape(-1, MOST_BYTES),
        )

    def grow(self, count: int, **values: ArrayLike) -> int:
        """Append rows; return the index of the first.

        Args:
            count: how many, from 0.
            values: by column; the columns that are not named get their defaults.
        """
        self._rows = None
        return super().grow(count, **values)

    @property
    def rows(self) -> Mapping[int, int]:
        """The row of each packet, by its number."""
        if self._rows is None:
            self._rows = {number: row for row, number in enumerate(self.number.tolist())}
        return self._rows

    def words(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
        """Return what RSTs say as columns of 64 bits, equal where they say the same.

        Args:
            numbers: int64, their packets.
        """
        row = [self.rows[number] for number in numbers.tolist()]
        return [packed(self.kind[row], self.length[row]), *self.octets[row].view(np.uint64).T]


class Wordings(Mapping[int, str]):
    """What RSTs say, as text, by packet.

    Each is worded when it is asked for: there may be as many as MOST_REASONS, and few are of one connection.

    Args:
        reasons: of all RSTs that say any.
    """

    def __init__(self, reasons: Reasons) -> None:
        self._reasons = reasons

    def __getitem__(self, number: int) -> str:
        said, row = self._reasons, self._reasons.rows[number]
        octets = said.octets[row, : said.length[row]].tobytes()
        return wording(ResetReason(ReasonKind(int(said.kind[row])), octets))

    def __contains__(self, number: object) -> bool:
        return number in self._reasons.rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._reasons.rows)

    def __len__(self) -> int:
        return len(self._reasons)


class Steps:
    """The steps of all connections.

    Args:
        scratch: where long columns lie; None for memory.
    """

    def __init__(self, scratch: DiskColumns | None = None) -> None:
        self.kept = KeptEvents(scratch)
        self.stretches = Stretches(scratch)
        self.reasons = Reasons(scratch)

    def add(
        self,
        batch: Batch,
        event: NDArray[np.bool_],
        histories: Histories,
        elsewhere: NDArray[np.bool_],
    ) -> None:
        """Append the rows of a batch.

        Args:
            batch: the rows.
            event: a mask of those that are events, in the order by connection.
            histories: of all connections; their newest steps are updated.
            elsewhere: the RSTs that came another way, a mask in the order by sender.
        """
        rows = batch.rows
        begins_run = np.zeros(len(event), np.bool_)
        begins_run[rows.start] = True
        stretch = self._add_traffic(batch, event, begins_run, histories)
        before = np.roll(stretch, 1)
        before[rows.start] = histories.open_stretch[rows.connection]
        self._add_events(batch, np.flatnonzero(event), before, histories, elsewhere)
        histories.open_stretch[rows.connection] = stretch[rows.start + rows.length - 1]

    def keep(self, new: NDArray[np.int64], histories: Histories) -> None:
        """Keep the steps of the connections that stay.

        Args:
            new: int64, by old index of a connection: the new one, or -1 where it is gone.
            histories: of those that stay; their newest steps get new indices.
        """
        kept, stretches = self.kept, self.stretches
        event = np.flatnonzero(new[kept.connection] >= 0)
        stretch = np.flatnonzero(new[stretches.connection] >= 0)
        new_event, new_stretch = renumbered(event, len(kept)), renumbered(stretch, len(stretches))
        kept.keep(event)
        if len(self.reasons):
            self.reasons.keep(np.flatnonzero(np.isin(self.reasons.number, kept.number)))
        stretches.keep(stretch)
        kept.connection[:] = new[kept.connection]
        stretches.connection[:] = new[stretches.connection]
        kept.previous[:] = new_event[kept.previous]
        kept.stretch[:] = new_stretch[kept.stretch]
        histories.last_event[:] = new_event[histories.last_event]
        histories.open_stretch[:] = new_stretch[histories.open_stretch]

    def _add_traffic(
        self, batch: Batch, event: NDArray[np.bool_], begins_run: NDArray[np.bool_], histories: Histories
    ) -> NDArray[np.int64]:
        """Digest the rows that are no events; return each row's stretch, -1 for an event."""
        begins = ~event & (begins_run | np.roll(event, 1))
        ends = ~event & np.roll(begins_run | event, -1)
        local = np.where(event, -1, np.cumsum(begins) - 1)
        found = digest(batch, local, begins, ends)

        connection = batch.connection[begins]
        # At the start of a run a stretch may go on that an earlier batch began.
        earlier = np.where(begins_run[begins], histories.open_stretch[connection], -1)
        goes_on = earlier >= 0
        merge(self.stretches, earlier[goes_on], {name: values[goes_on] for name, values in found.items()})
        new = {name: values[~goes_on] for name, values in found.items()}
        count = int(np.count_nonzero(~goes_on))
        first = self.stretches.grow(count, connection=connection[~goes_on], **new)
        earlier[~goes_on] = first + np.arange(count)
        return np.append(earlier, -1)[local]

    def _add_events(
        self,
        batch: Batch,
        at: NDArray[np.int64],
        before: NDArray[np.int64],
        histories: Histories,
        elsewhere: NDArray[np.bool_],
    ) -> None:
        """Keep these rows (in the order by connection) whole; `before` is the stretch before each row."""
        place = batch.senders.place[at]
        segments, numbers, connection = batch.segments, batch.numbers, batch.connection[at]
        first_of_run = np.diff(connection, prepend=-1) != 0
        new = len(self.kept) + np.arange(len(at))
        raw_ack = segments.ack[place]
        self.kept.grow(
            len(at),
            connection=connection,
            previous=np.where(first_of_run, histories.last_event[connection], new - 1),
            stretch=before[at],
            sender=batch.rows.sender[at],
            position=numbers.position[place],
            seq=numbers.seq[place],
            ack=numbers.ack[place],
            dsack_left=differences(segments.dsack_left[place], raw_ack),
            dsack_right=differences(segments.dsack_right[place], raw_ack),
            elsewhere=elsewhere[place],
            **{name: getattr(segments, name)[place] for name in AS_CAPTURED},
        )
        last_of_run = np.roll(first_of_run, -1)
        histories.last_event[connection[last_of_run]] = new[last_of_run]


@dataclass(frozen=True, slots=True)
class Extent:
    """Some connections with their steps. A *place* is a position among these connections."""

    connection: NDArray[np.int64]  # ascending indices into Histories
    event: NDArray[np.integer[Any]] | slice  # rows of KeptEvents, ascending; a slice for all of them
    event_place: NDArray[np.integer[Any]]  # per event: the place of its connection
    stretch: NDArray[np.integer[Any]] | slice  # rows of Stretches, ascending
    stretch_place: NDArray[np.integer[Any]]  # per stretch: the place of its connection

    def __len__(self) -> int:
        return len(self.connection)

    def event_rows(self, among: NDArray[np.int64]) -> NDArray[np.integer[Any]]:
        """Return the rows of `KeptEvents` of events, given by position in `event` (int64)."""
        return among if isinstance(self.event, slice) else self.event[among]


def everything(histories: Histories, steps: Steps) -> Extent:
    """Return the extent of all connections.

    Args:
        histories: all connections.
        steps: of all connections.
    """
    return Extent(
        np.arange(len(histories)),
        slice(None),
        steps.kept.connection,
        slice(None),
        steps.stretches.connection,
    )


def some(histories: Histories, steps: Steps, connection: NDArray[np.int64]) -> Extent:
    """Return the extent of some connections; the cost depends only on their steps.

    Args:
        histories: all connections.
        steps: of all connections.
        connection: int64, ascending: indices into `histories`.
    """
    kept = steps.kept
    events = []
    stretches: list[NDArray[np.integer[Any]]] = [histories.open_stretch[connection]]
    at: NDArray[np.integer[Any]] = histories.last_event[connection]
    while len(at := at[at >= 0]):
        events.append(at)
        stretches.append(kept.stretch[at])
        at = kept.previous[at]
    event = np.sort(np.concatenate(events)) if events else np.empty(0, np.int64)
    stretch = np.sort(np.concatenate(stretches))
    stretch = stretch[stretch >= 0]
    return Extent(
        connection,
        event,
        np.searchsorted(connection, kept.connection[event]),
        stretch,
        np.searchsorted(connection, steps.stretches.connection[stretch]),
    )


def next_times(extent: Extent, steps: Steps, now_ns: int, waits_ns: Sequence[int]) -> NDArray[np.int64]:
    """Return for each connection the next time at which one of its events, or traffic, is so long ago.

    Args:
        extent: the connections.
        steps: of all connections.
        now_ns: only times after it count, since the Unix epoch.
        waits_ns: lengths of time, in nanoseconds.

    Returns:
        int64, nanoseconds since the epoch; FAR_NS where no such time will come.
    """
    kept, stretches = steps.kept, steps.stretches
    place = np.concatenate([extent.event_place, *[extent.stretch_place] * 4])
    time_ns = np.concatenate(
        [
            kept.time_ns[extent.event],
            *stretches.last_ns[extent.stretch].T,
            *stretches.unanswered_ns[extent.stretch].T,
        ]
    )
    soonest = np.full(len(time_ns), FAR_NS)
    for wait in waits_ns:
        at = time_ns + wait
        soonest = np.minimum(soonest, np.where(at > now_ns, at, FAR_NS))
    order = np.argsort(place, kind="stable")
    result = np.full(len(extent), FAR_NS)
    start = np.flatnonzero(np.diff(place[order], prepend=-1))
    if len(start):
        result[place[order][start]] = np.minimum.reduceat(soonest[order], start)
    return result
