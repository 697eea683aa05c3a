"""How long connections were idle before they were closed or used again, as columns: for counts of many."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.state import NONE
from closeseq.connections.traffic import LEAST_IDLE_NS
from closeseq.packets.segments import FIN, RST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from closeseq.connections.pairs import PairTable
    from closeseq.connections.steps import Extent, Steps

NOT = -1  # in columns of times: there was none
NOBODY, CLIENT, SERVER = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Closes:
    """One row a connection: who closed it first, after which silence. Columns of equal length."""

    version: NDArray[np.uint8]  # of IP
    client_high: NDArray[np.uint64]  # its address
    client_low: NDArray[np.uint64]
    server_high: NDArray[np.uint64]
    server_low: NDArray[np.uint64]
    server_port: NDArray[np.uint16]
    closer: NDArray[np.int8]  # who sent the first FIN or RST: NOBODY, CLIENT or SERVER
    idle_ns: NDArray[np.int64]  # the silence before it, if it came unprompted; else NOT
    resumed_ns: NDArray[np.int64]  # the longest silence that the client ended with a further request; 0: none
    waits_ns: NDArray[np.int64]  # since when the client is in TIME_WAIT, since the Unix epoch; else NOT
    client_packets: NDArray[np.int64]  # that the client sent, as captured
    calm_reset: NDArray[np.bool_]  # the closer sent RST, and no FIN; all data was acknowledged

    def __len__(self) -> int:
        return len(self.version)

    def some(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Closes:
        """Return some of the rows: by a mask, by their indices, or a slice."""
        return Closes(*(getattr(self, name.name)[rows] for name in fields(self)))

    def room(self, rows: int) -> Closes:
        """Return so many rows of which nothing is known yet."""
        return Closes(*(np.empty(rows, getattr(self, name.name).dtype) for name in fields(self)))

    def put(self, rows: NDArray[np.int64], found: Closes) -> None:
        """Write these rows, which `found` has."""
        for name in fields(self):
            getattr(self, name.name)[rows] = getattr(found, name.name)

    @classmethod
    def joined(cls, several: Sequence[Closes]) -> Closes:
        """Return the rows of several as one."""
        return cls(*(np.concatenate([getattr(one, name.name) for one in several]) for name in fields(cls)))


def closes(table: PairTable, steps: Steps, extent: Extent, client: NDArray[np.int64]) -> Closes:
    """Return who closed each of some connections first, and after which silence.

    Args:
        table: all pairs and connections.
        steps: of all connections.
        extent: the connections.
        client: int64, 0 or 1: the end of its pair that is the client of each of them.
    """
    pairs, histories, sides = table.pairs, table.histories, table.sides
    row = extent.connection
    pair, server = histories.pair[row], 1 - client
    closer, idle_ns, fin = _first_closes(steps, extent, client)
    one, other = 2 * row + client, 2 * row + server
    waits = (closer == CLIENT) & fin & (sides.fins[one] > 0) & (sides.fins[other] > 0)
    waits &= (sides.resets[one] == 0) & (sides.resets[other] == 0)
    return Closes(
        pairs.version[pair],
        pairs.high[pair, client],
        pairs.low[pair, client],
        pairs.high[pair, server],
        pairs.low[pair, server],
        pairs.port[pair, server],
        closer,
        idle_ns,
        sides.resumed_ns[one],
        np.where(waits, histories.last_ns[row], NOT),
        sides.packets[one],
        (closer != NOBODY) & ~fin & _all_acknowledged(table, one) & _all_acknowledged(table, other),
    )


def _all_acknowledged(table: PairTable, side: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the peer has acknowledged all that was captured of these rows of `Sides`, and something was."""
    sides = table.sides
    sent_end = sides.sent_end[side]
    done: NDArray[np.bool_] = (sides.acked_end[side ^ 1] >= sent_end) & (sent_end != NONE)
    done &= sides.fins[side] == 0
    return done


def _first_closes(
    steps: Steps, extent: Extent, client: NDArray[np.int64]
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.bool_]]:
    """Return who sent the first FIN or RST, the silence before it, and whether it was a FIN."""
    kept, stretches = steps.kept, steps.stretches
    count = len(client)
    closing = np.flatnonzero(kept.flags[extent.event] & (FIN | RST))[::-1]
    first = np.full(count, -1)
    first[extent.event_place[closing]] = extent.event_rows(closing)  # of several the first one stays
    has = np.flatnonzero(first >= 0)
    event = first[has]
    sender = kept.sender[event].astype(np.int64)
    closer, fin = np.full(count, NOBODY, np.int8), np.zeros(count, np.bool_)
    closer[has] = sender ^ client[has]
    fin[has] = kept.flags[event] & (FIN | RST) == FIN
    own_ns = np.zeros(len(has), np.int64)  # when the closer last sent anything
    last_ns = np.zeros(len(has), np.int64)  # when either did
    probed = np.zeros(len(has), np.bool_)
    left, at = np.arange(len(has)), event
    while len(left):
        stretch, before, who = kept.stretch[at], kept.previous[at], sender[left]
        inside = np.flatnonzero(stretch >= 0)
        own, either = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
        own[inside] = stretches.last_ns[stretch[inside], who[inside]]
        either[inside] = stretches.last_ns[stretch[inside]].max(axis=1)
        probed[left[inside]] |= stretches.probes[stretch[inside]].any(axis=1)
        sent_ns = np.where(before >= 0, kept.time_ns[before], 0)
        own = np.maximum(own, np.where(kept.sender[before] == who, sent_ns, 0))
        own_ns[left] = np.maximum(own_ns[left], own)
        last_ns[left] = np.maximum(last_ns[left], np.maximum(either, sent_ns))
        on = (own_ns[left] == 0) & (before >= 0)
        left, at = left[on], before[on].astype(np.int64)
    time_ns = kept.time_ns[event]
    idle = time_ns - own_ns
    # What the peer had just sent prompted it; only a late ACK may come between.
    unprompted = (own_ns > 0) & ~probed & (idle >= LEAST_IDLE_NS) & (2 * (time_ns - last_ns) >= idle)
    idle_ns = np.full(count, NOT)
    idle_ns[has] = np.where(unprompted, idle, NOT)
    return closer, idle_ns, fin
