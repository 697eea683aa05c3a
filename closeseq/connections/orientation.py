"""Which end of a connection is the client, and with it which is the server.

A SYN or SYN+ACK shows it (`clients`). Where neither was captured it is inferred from ports and from how many
others each endpoint talks to (`ClientGuess`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import endpoint_hashes
from closeseq.packets.segments import ACK, SYN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.pairs import PairTable
    from closeseq.connections.state import Pairs
    from closeseq.connections.steps import Extent, Steps

AT_ONCE = 1 << 16  # pairs
Endpoint = tuple[int, int, int, int]  # version, high and low half of the address, port


class ClientGuess:
    """Infers the client: the port asked for, a port with several clients, the lower port is the server's.

    Args:
        pairs: all pairs of addresses and ports; those that come later count too.
        ports: those that are known to be servers'.
    """

    def __init__(self, pairs: Pairs, ports: frozenset[int]) -> None:
        self._pairs = pairs
        self._ports = np.array(sorted(ports), np.int64)
        self._seen = 0  # pairs
        self._ends = np.empty(0, np.uint64)  # ascending: the endpoints of these, as hashes
        self._peers = np.empty(0, np.int64)  # with how many others each talks

    def clients(self, pair: NDArray[np.int64], first_sender: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return which end is the client of connections whose SYN was not captured.

        Args:
            pair: int64, the pair of each, an index into `Pairs`.
            first_sender: uint8, 0 or 1: the end that sent its first packet, which decides where all is even.

        Returns:
            int64, 0 or 1.
        """
        port, peers = self._pairs.port[pair], self._peer_counts(pair)
        asked = np.isin(port, self._ports)
        return np.select(
            [asked[:, 0] != asked[:, 1], peers[:, 0] != peers[:, 1], port[:, 0] != port[:, 1]],
            [asked[:, 0], peers[:, 0] > peers[:, 1], port[:, 0] < port[:, 1]],
            first_sender,
        )

    def _peer_counts(self, pair: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return with how many others end 0 and end 1 of these pairs talk: a row a pair, a column an end."""
        self._catch_up()
        return self._peers[np.searchsorted(self._ends, self._hashes(pair))]

    def _hashes(self, pair: NDArray[np.int64]) -> NDArray[np.uint64]:
        pairs = self._pairs
        return endpoint_hashes(pairs.version[pair], pairs.port[pair], pairs.high[pair], pairs.low[pair])

    def _catch_up(self) -> None:
        """Look at the pairs that came since the last time."""
        for first_row in range(self._seen, len(self._pairs), AT_ONCE):
            rows = np.arange(first_row, min(first_row + AT_ONCE, len(self._pairs)))
            first, second = self._hashes(rows[~self._pairs.further[rows]]).T
            both = np.concatenate([first, second[second != first]])  # an end may talk to itself
            ends, number = np.unique(both, return_counts=True)
            place = np.searchsorted(self._ends, ends)
            known = place < len(self._ends)
            known[known] = self._ends[place[known]] == ends[known]
            self._peers[place[known]] += number[known]
            self._ends = np.insert(self._ends, place[~known], ends[~known])
            self._peers = np.insert(self._peers, place[~known], number[~known])
        self._seen = len(self._pairs)


def endpoints_of(pairs: Pairs, rows: slice | NDArray[np.int64]) -> list[tuple[Endpoint, Endpoint]]:
    """Return end 0 and end 1 of some pairs; `rows` are their indices into `Pairs`, or a slice of them."""
    columns = (pairs.version[rows], pairs.high[rows], pairs.low[rows], pairs.port[rows])
    return [
        ((version, high[0], low[0], port[0]), (version, high[1], low[1], port[1]))
        for version, high, low, port in zip(*(column.tolist() for column in columns), strict=True)
    ]


def clients(
    table: PairTable, steps: Steps, guess: ClientGuess, extent: Extent
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each connection's client, and whether a SYN or SYN+ACK shows it.

    Args:
        table: all pairs and connections.
        steps: of all connections.
        guess: infers the client of those of which no SYN was captured.
        extent: which connections.

    Returns:
        int64, 0 or 1, one entry a connection of the extent; and a mask.
    """
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
