"""Segments of a connection that reached an endpoint from an address that it does not know: a NAT forgot it.

Such an endpoint answers each with a RST, and has sent nothing else from this address to that one. But from
the same port it is connected with another address, and the numbers of the segments continue that connection.
All is done over columns; what is found are plain numbers, and `verdict.population` says what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.connections.compose import address_of
from closeseq.connections.grouping import hashed, packed
from closeseq.connections.state import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from closeseq.connections.conversation import Address
    from closeseq.connections.pairs import PairTable

MOST = 256  # connections that are looked up; a scan answered by RSTs has more
AHEAD = 1 << 20  # bytes by which a number may be ahead of what was captured


class Stray(NamedTuple):
    """What is captured as a connection of its own, and continues another one."""

    connection: int  # its number, `Conversation.id`
    continues: int  # that of the connection that it belongs to
    resetter: Address  # whose kernel does not know the sender, and sends RST
    known: Address  # with which it is connected
    sender: Address  # from which the segments came instead
    by_client: bool  # the one that sends RST is the client of the connection that is continued


def strays(table: PairTable, client: NDArray[np.int64]) -> list[Stray]:
    """Return what continues another connection, in the order of the first packets; at most MOST.

    Args:
        table: all pairs and connections.
        client: int64, 0 or 1: the end of its pair that is each connection's client.
    """
    sides, resetting = table.sides, table.sides.resets > 0
    resetting &= sides.packets == sides.resets
    side = np.flatnonzero(resetting)
    peer = side ^ 1
    side = side[(sides.resets[peer] == 0) & (sides.syns[peer] == 0) & (sides.packets[peer] > 0)]
    if not len(side):
        return []
    key = _keys(table)
    alike = np.flatnonzero(np.isin(key, key[side]))
    alike = alike[np.argsort(key[alike], kind="stable")]
    ordered = key[alike]
    found = []
    for one in side[:MOST].tolist():
        first, last = np.searchsorted(ordered, key[one]), np.searchsorted(ordered, key[one], side="right")
        others = alike[first:last]
        found += list(_continued(table, one, others[others >> 1 != one >> 1], client))
    return found


def _keys(table: PairTable) -> NDArray[np.uint64]:
    """Return a hash of the address and port of each row of `Sides`."""
    pairs, pair = table.pairs, np.repeat(table.histories.pair, 2)
    end = np.tile(np.array([0, 1]), len(table.histories))
    words = [packed(pairs.version[pair], pairs.port[pair, end]), pairs.high[pair, end], pairs.low[pair, end]]
    return hashed(words)


def _continued(
    table: PairTable, side: int, others: NDArray[np.int64], client: NDArray[np.int64]
) -> Iterator[Stray]:
    """Yield which of these rows of `Sides` is the connection that another row's belongs to, if one is."""
    sides, histories = table.sides, table.histories
    begun = histories.first_ns[others >> 1] < histories.first_ns[side >> 1]
    both = _within(sides.last_raw[side], sides.origin[others], sides.sent_end[others])
    both &= _within(sides.last_raw[side ^ 1], sides.origin[others ^ 1], sides.sent_end[others ^ 1])
    for other in others[begun & both][:1].tolist():
        here = _endpoint(table, side)
        if here == _endpoint(table, other):  # not only the same hash
            yield Stray(
                int(histories.id[side >> 1]),
                int(histories.id[other >> 1]),
                here,
                _endpoint(table, other ^ 1),
                _endpoint(table, side ^ 1),
                int(client[other >> 1]) == other & 1,
            )


def _within(raw: np.uint32, origin: NDArray[np.uint32], sent_end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a sequence number is one of those that were sent, or follows them shortly.

    Args:
        raw: the number, as on the wire.
        origin: of connections, the number that is relative 0.
        sent_end: and their highest number past any segment; NONE if none was captured.
    """
    ahead = (raw - origin).astype(np.int64)  # modulo 2**32
    result: NDArray[np.bool_] = (
        (sent_end != NONE) & (ahead <= sent_end + AHEAD) & (sent_end + AHEAD < 1 << 32)
    )
    return result


def _endpoint(table: PairTable, side: int) -> Address:
    pairs, pair, end = table.pairs, int(table.histories.pair[side >> 1]), side & 1
    high, low = int(pairs.high[pair, end]), int(pairs.low[pair, end])
    return address_of((int(pairs.version[pair]), high, low, int(pairs.port[pair, end])))
