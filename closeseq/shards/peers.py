"""Which end is the client, where no SYN tells and the whole capture has to be asked.

`Guess` counts with how many others each endpoint talks. A shard has only some of these; so it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.guess import Guess
from closeseq.shards.keys import end_keys

if TYPE_CHECKING:
    from closeseq.connections.state import Pairs


@dataclass(frozen=True, slots=True)
class Peers:
    """With how many others endpoints talk, in the whole capture."""

    key: int  # of the hashes
    end: np.ndarray  # uint64, ascending, as in keys.ROW
    number: np.ndarray  # int64


class Informed(Guess):
    """Guesses as if it knew the whole capture."""

    def __init__(self, pairs: Pairs, ports: frozenset[int], peers: Peers) -> None:
        super().__init__(pairs, ports)
        self._known = peers

    def clients(self, pair: np.ndarray, first_sender: np.ndarray) -> np.ndarray:
        """Return the client, 0 or 1, of connections by their pair and the sender of their first packet."""
        port = self._pairs.port[pair]
        asked = np.isin(port, self._ports)
        ends, known = end_keys(self._pairs, pair, self._known.key), self._known
        place = np.minimum(np.searchsorted(known.end, ends), max(len(known.end) - 1, 0))
        if not np.array_equal(known.end[place], ends):
            raise LookupError("an endpoint was not asked for")
        peers = known.number[place]
        return np.select(
            [asked[:, 0] != asked[:, 1], peers[:, 0] != peers[:, 1], port[:, 0] != port[:, 1]],
            [asked[:, 0], peers[:, 0] > peers[:, 1], port[:, 0] < port[:, 1]],
            first_sender,
        )
