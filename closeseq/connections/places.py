"""Where many connections are: the addresses of their clients or servers, without looking at each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.events import text
from closeseq.connections.grouping import arrange, packed

if TYPE_CHECKING:
    from closeseq.connections.conversation import Address
    from closeseq.connections.state import Pairs


def places(
    pairs: Pairs, pair: np.ndarray, column: np.ndarray, *, with_port: bool
) -> list[tuple[Address, np.ndarray]]:
    """Group connections by the address at one end.

    Args:
        pairs: all pairs of addresses and ports.
        pair: the pair of each connection.
        column: which end of its pair, 0 or 1, for each connection.
        with_port: whether the port counts; without, it is given as 0.

    Returns:
        each address, with the places in `pair` that have it, ascending.
    """
    version, high, low = pairs.version[pair], pairs.high[pair, column], pairs.low[pair, column]
    port = pairs.port[pair, column] if with_port else np.zeros(len(pair), np.int64)
    order, begins = arrange([packed(version, port), high.astype(np.uint64), low.astype(np.uint64)])
    found = []
    for group in np.split(order, np.flatnonzero(begins)[1:]):
        first = group[0]
        end = (int(version[first]), int(high[first]), int(low[first]), int(port[first]))
        found.append((text(end), np.sort(group)))
    return found
