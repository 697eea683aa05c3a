"""Connections that must have the same replay: a few representatives then stand for a hundred thousand.

A connection is *clean* when nothing in it needs weighing: no retransmission, gap, probe or copy. Clean
connections whose steps have the same codes (skeleton.py) and in which everything that a replay compares
comes out alike (signature.py) form a class; each other connection is a class of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import arrange
from closeseq.connections.relevance import MINOR_LIMIT
from closeseq.connections.sequence import NEW
from closeseq.connections.signature import Moments, Signature, Thresholds
from closeseq.connections.skeleton import MOST_STEPS, skeletons
from closeseq.connections.state import NONE
from closeseq.packets.flags import ACK, FIN, PSH, SYN

if TYPE_CHECKING:
    from closeseq.connections.extent import Extent
    from closeseq.connections.guess import Guess
    from closeseq.connections.steps import Steps
    from closeseq.connections.table import Table

FEWEST = 4  # of one skeleton; to compare fewer costs more than to replay each


@dataclass(frozen=True, slots=True)
class ConnectionClass:
    """Connections whose replays go the same way, step by step."""

    members: np.ndarray  # int64, ascending indices of connections
    key: bytes | None  # equal keys: the same replay, also of another time; None: its evidence must be weighed


def classes(
    table: Table, steps: Steps, guess: Guess, extent: Extent, *, now_ns: int, thresholds: Thresholds
) -> list[ConnectionClass]:
    """Return the connections of an extent in classes, in the order of their smallest members."""
    clean = clean_connections(table, steps, extent) & False  # TEMPORARY
    label = np.arange(len(extent))  # the smallest member of its class
    keys: dict[int, bytes] = {}  # of the classes, by label
    client, seen = clients(table, steps, guess, extent)
    place = np.flatnonzero(clean)
    if len(place):
        histories, connection = table.histories, extent.connection[place]
        found = skeletons(steps, extent, clean, client, histories.open_stretch[connection])
        ends = seen[place] * 2 + (histories.successor[connection] >= 0)
        words = [*found.code.view(np.uint64).T, ends]
        order, begins = arrange([word.astype(np.uint64) for word in words])
        for group in np.split(order, np.flatnonzero(begins)[1:]):
            if len(group) < FEWEST:
                continue
            members = place[group]
            codes = found.code[group[0]]
            codes = codes[codes > 0].tolist()
            signature = Signature(codes, found.row[group][:, : len(codes)], client[members], steps)
            columns = list(signature.columns(moments(table, connection[group], now_ns), thresholds))
            alike = ~signature.irregular
            head = bytes([*codes, 0, int(ends[group[0]])])
            gather(label, keys, members[alike], [column[alike] for column in columns], head)
    order = np.argsort(label, kind="stable")
    edges = np.flatnonzero(np.diff(label[order], prepend=-1, append=len(label))).tolist()
    return [
        ConnectionClass(extent.connection[order[first:past]], keys.get(int(order[first])))
        for first, past in itertools.pairwise(edges)
    ]


def gather(
    label: np.ndarray, keys: dict[int, bytes], members: np.ndarray, columns: list[np.ndarray], head: bytes
) -> None:
    """Give these connections the same label where their columns are equal, and each class its key."""
    if not len(members):
        return
    matrix = np.zeros((len(members), -(-len(columns) // 8) * 8), np.uint8)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    order, begins = arrange(list(matrix.view(np.uint64).T))
    alike, first = members[order], order[begins]
    label[alike] = np.repeat(alike[begins], np.diff(np.flatnonzero(begins), append=len(alike)))
    for member, row in zip(members[first].tolist(), matrix[first], strict=True):
        keys[member] = head + row.tobytes()


def moments(table: Table, members: np.ndarray, now_ns: int) -> Moments:
    """Return the times of connections of which all or none have a successor."""
    histories = table.histories
    successor = histories.successor[members]
    return Moments(
        now_ns, histories.last_ns[members], histories.first_ns[successor] if successor[0] >= 0 else None
    )


def clients(table: Table, steps: Steps, guess: Guess, extent: Extent) -> tuple[np.ndarray, np.ndarray]:
    """Return each connection's client, 0 or 1, and whether a SYN or SYN+ACK told it."""
    histories, kept = table.histories, steps.kept
    client = np.full(len(extent), -1)
    flags, sender = kept.flags[extent.event] & (SYN | ACK), kept.sender[extent.event]
    for wanted, of_peer in ((SYN | ACK, 1), (SYN, 0)):  # a SYN without ACK decides before a SYN+ACK
        at = np.flatnonzero(flags == wanted)[::-1]  # of several the first one stays
        client[extent.event_place[at]] = sender[at] ^ of_peer
    seen = client >= 0
    if not seen.all():
        unknown = extent.connection[~seen]
        client[~seen] = guess.clients(histories.pair[unknown], histories.first_sender[unknown])
    return client, seen


def clean_connections(table: Table, steps: Steps, extent: Extent) -> np.ndarray:
    """Return a mask of the connections in which nothing needs weighing."""
    histories, sides, kept, stretches = table.histories, table.sides, steps.kept, steps.stretches
    connection, event, stretch = extent.connection, extent.event, extent.stretch
    clean: np.ndarray = (histories.copies[connection] == 0) & (histories.minor[connection] < MINOR_LIMIT)
    steps_of = np.bincount(extent.event_place, minlength=len(clean))
    steps_of += np.bincount(extent.stretch_place, minlength=len(clean))
    clean &= steps_of <= MOST_STEPS

    flags = kept.flags[event]
    odd = kept.position[event] != NEW
    odd |= (flags & ACK > 0) & (kept.dsack_left[event] != kept.dsack_right[event])
    odd |= (flags & SYN > 0) & (kept.seq[event] != 0)  # something of its sender went by before it
    odd |= (flags & (FIN | PSH) == FIN | PSH) & (kept.length[event] == 0)  # it had waited to be sent
    clean[extent.event_place[odd]] = False

    counts = (
        stretches.retransmissions[stretch]
        + stretches.gaps[stretch]
        + stretches.probes[stretch]
        + stretches.zero_windows[stretch]
    )
    clean[extent.stretch_place[counts.any(axis=1)]] = False

    # All that an end sent was captured, from its first number on without a hole.
    side = (2 * connection[:, None] + np.arange(2)).ravel()
    sent_end = sides.sent_end[side]
    whole = (sent_end == NONE) | (sent_end == 1 + sides.bytes[side] + (sides.fin_end[side] != NONE))
    clean &= whole.reshape(-1, 2).all(axis=1)
    return clean
