"""Some of the connections, or all, and which rows of the tables are theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.state import Histories
    from closeseq.connections.steps import Steps


@dataclass(frozen=True, slots=True)
class Extent:
    """Some connections with their steps. A *place* is a position among these connections."""

    connection: np.ndarray  # int64, ascending indices into Histories
    event: np.ndarray | slice  # rows of steps.Kept, ascending; a slice where it is all of them
    event_place: np.ndarray  # per event: the place of its connection
    stretch: np.ndarray | slice  # rows of traffic.Stretches, ascending
    stretch_place: np.ndarray  # per stretch: the place of its connection

    def __len__(self) -> int:
        return len(self.connection)

    def event_rows(self, among: np.ndarray) -> np.ndarray:
        """Return the rows of `Kept` of these events, given by position in `event`."""
        return among if isinstance(self.event, slice) else self.event[among]


def everything(histories: Histories, steps: Steps) -> Extent:
    """Return all connections."""
    return Extent(
        np.arange(len(histories)),
        slice(None),
        steps.kept.connection,
        slice(None),
        steps.stretches.connection,
    )


def some(histories: Histories, steps: Steps, connection: np.ndarray) -> Extent:
    """Return these connections, given as ascending indices; the cost depends on nothing but their steps."""
    kept = steps.kept
    events, stretches = [], [histories.open_stretch[connection]]
    at = histories.last_event[connection]
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


FAR_NS = int(np.iinfo(np.int64).max)  # never


def next_times(extent: Extent, steps: Steps, now_ns: int, waits_ns: Sequence[int]) -> np.ndarray:
    """Return for each connection when next one of its events, or traffic, is one of these times ago."""
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
