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
    from closeseq.connections.guess import Guess
    from closeseq.connections.steps import Steps
    from closeseq.connections.table import Table

FEWEST = 4  # of one skeleton; to compare fewer costs more than to replay each


@dataclass(frozen=True, slots=True)
class ConnectionClass:
    """Connections whose replays go the same way, step by step."""

    members: np.ndarray  # int64, ascending indices of connections
    clean: bool  # False: it is a class of its own because its evidence must be weighed


def classes(
    table: Table, steps: Steps, guess: Guess, now_ns: int, thresholds: Thresholds
) -> list[ConnectionClass]:
    """Return all connections in classes, in the order of their smallest members."""
    clean = clean_connections(table, steps)
    label = np.arange(len(clean))  # the smallest member of its class
    client, seen = clients(table, steps, guess)
    index = np.flatnonzero(clean)
    if len(index):
        histories = table.histories
        found = skeletons(steps, clean, client, histories.open_stretch[index])
        words = [*found.code.view(np.uint64).T, seen[index] * 2 + (histories.successor[index] >= 0)]
        order, begins = arrange([word.astype(np.uint64) for word in words])
        for group in np.split(order, np.flatnonzero(begins)[1:]):
            if len(group) < FEWEST:
                continue
            members = index[group]
            codes = found.code[group[0]]
            codes = codes[codes > 0].tolist()
            signature = Signature(codes, found.row[group][:, : len(codes)], client[members], steps)
            columns = list(signature.columns(moments(table, members, now_ns), thresholds))
            clean[members[signature.irregular]] = False
            gather(label, members, columns, signature.irregular)
    order = np.argsort(label, kind="stable")
    edges = np.flatnonzero(np.diff(label[order], prepend=-1, append=len(label))).tolist()
    return [
        ConnectionClass(order[first:past], bool(clean[order[first]]))
        for first, past in itertools.pairwise(edges)
    ]


def gather(label: np.ndarray, members: np.ndarray, columns: list[np.ndarray], irregular: np.ndarray) -> None:
    """Give the regular ones of these connections the same label where their columns are equal."""
    members = members[~irregular]
    matrix = np.zeros((len(members), -(-len(columns) // 8) * 8), np.uint8)
    for place, column in enumerate(columns):
        matrix[:, place] = column[~irregular]
    order, begins = arrange(list(matrix.view(np.uint64).T))
    alike = members[order]
    label[alike] = np.repeat(alike[begins], np.diff(np.flatnonzero(begins), append=len(alike)))


def moments(table: Table, members: np.ndarray, now_ns: int) -> Moments:
    """Return the times of connections of which all or none have a successor."""
    histories = table.histories
    successor = histories.successor[members]
    return Moments(
        now_ns, histories.last_ns[members], histories.first_ns[successor] if successor[0] >= 0 else None
    )


def clients(table: Table, steps: Steps, guess: Guess) -> tuple[np.ndarray, np.ndarray]:
    """Return each connection's client, 0 or 1, and whether a SYN or SYN+ACK told it."""
    histories, kept = table.histories, steps.kept
    client = np.full(len(histories), -1)
    for wanted, of_peer in ((SYN | ACK, 1), (SYN, 0)):  # a SYN without ACK decides before a SYN+ACK
        rows = np.flatnonzero(kept.flags & (SYN | ACK) == wanted)[::-1]  # of several the first one stays
        client[kept.connection[rows]] = kept.sender[rows] ^ of_peer
    seen = client >= 0
    if not seen.all():
        client[~seen] = guess.clients(histories.pair[~seen], histories.first_sender[~seen])
    return client, seen


def clean_connections(table: Table, steps: Steps) -> np.ndarray:
    """Return a mask of the connections in which nothing needs weighing."""
    histories, sides, kept, stretches = table.histories, table.sides, steps.kept, steps.stretches
    clean: np.ndarray = (histories.copies == 0) & (histories.minor < MINOR_LIMIT)
    steps_of = np.bincount(kept.connection, minlength=len(clean))
    steps_of += np.bincount(stretches.connection, minlength=len(clean))
    clean &= steps_of <= MOST_STEPS

    odd = kept.position != NEW
    odd |= (kept.flags & ACK > 0) & (kept.dsack_left != kept.dsack_right)
    odd |= (kept.flags & SYN > 0) & (kept.seq != 0)  # something of its sender went by before it
    odd |= (kept.flags & (FIN | PSH) == FIN | PSH) & (kept.length == 0)  # it had waited to be sent
    clean[kept.connection[odd]] = False

    counts = stretches.retransmissions + stretches.gaps + stretches.probes + stretches.zero_windows
    clean[stretches.connection[counts.any(axis=1)]] = False

    # All that an end sent was captured, from its first number on without a hole.
    whole = (sides.sent_end == NONE) | (sides.sent_end == 1 + sides.bytes + (sides.fin_end != NONE))
    clean &= whole.reshape(-1, 2).all(axis=1)
    return clean
