"""Which end is the client where no SYN tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.growing import Growing, column

if TYPE_CHECKING:
    from closeseq.connections.state import Pairs

Endpoint = tuple[int, int, int, int]  # version, high and low half of the address, port


class Endpoints(Growing):
    """One row a pair, as far as they were looked at."""

    name: np.ndarray = column(np.int64, width=2)  # a number for each distinct endpoint, of end 0 and end 1


class Guess:
    """Guesses the client: the port asked for, a port with several clients, the lower port is the server's."""

    def __init__(self, pairs: Pairs, ports: frozenset[int]) -> None:
        self._pairs = pairs
        self._ports = np.array(sorted(ports), np.int64)
        self._endpoints = Endpoints()
        self._name_of: dict[Endpoint, int] = {}
        self._peers = np.empty(0, np.int64)  # with how many others each endpoint talks

    def clients(self, pair: np.ndarray, first_sender: np.ndarray) -> np.ndarray:
        """Return the client, 0 or 1, of connections by their pair and the sender of their first packet."""
        self._catch_up()
        port = self._pairs.port[pair]
        asked = np.isin(port, self._ports)
        peers = self._peers[self._endpoints.name[pair]]
        return np.select(
            [asked[:, 0] != asked[:, 1], peers[:, 0] != peers[:, 1], port[:, 0] != port[:, 1]],
            [asked[:, 0], peers[:, 0] > peers[:, 1], port[:, 0] < port[:, 1]],
            first_sender,
        )

    def _catch_up(self) -> None:
        """Look at the pairs that came since the last time."""
        seen = len(self._endpoints)
        if seen == len(self._pairs):
            return
        name_of = self._name_of
        names = [
            [name_of.setdefault(end, len(name_of)) for end in ends]
            for ends in endpoints(self._pairs, seen, len(self._pairs))
        ]
        self._endpoints.grow(len(names), name=names)
        first, second = self._endpoints.name[~self._pairs.further].T
        others = np.concatenate([first, second[second != first]])  # an end may talk to itself
        self._peers = np.bincount(others, minlength=len(name_of))


def endpoints(pairs: Pairs, first: int, past: int) -> list[tuple[Endpoint, Endpoint]]:
    """Return end 0 and end 1 of each of these pairs."""
    return endpoints_of(pairs, slice(first, past))


def endpoints_of(pairs: Pairs, rows: slice | np.ndarray) -> list[tuple[Endpoint, Endpoint]]:
    """Return end 0 and end 1 of each of these pairs, given by index."""
    columns = (pairs.version[rows], pairs.high[rows], pairs.low[rows], pairs.port[rows])
    return [
        ((version, high[0], low[0], port[0]), (version, high[1], low[1], port[1]))
        for version, high, low, port in zip(*(column.tolist() for column in columns), strict=True)
    ]
