"""Segments of a connection that reached an endpoint from an address that it does not know: a NAT forgot it.

Such an endpoint answers each with a RST, and has sent nothing else from this address to that one. But from
the same port it is connected with another address, and the numbers of the segments continue that connection.
All is done over columns; what is found are plain numbers, and `verdict.population` says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.connections.compose import address_of
from closeseq.connections.grouping import endpoint_hashes
from closeseq.connections.state import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.conversation import Address
    from closeseq.connections.pairs import PairTable

MOST = 256  # connections that are looked up; a scan answered by RSTs has more
AHEAD = 1 << 20  # bytes by which a number may be ahead of what was captured
OF_SIDES = ("packets", "resets", "syns", "origin", "last_raw", "sent_end")  # columns of `Encounters`


class Stray(NamedTuple):
    """What is captured as a connection of its own, and continues another one."""

    connection: int  # its number, `Conversation.id`
    continues: int  # that of the connection that it belongs to
    resetter: Address  # whose kernel does not know the sender, and sends RST
    known: Address  # with which it is connected
    sender: Address  # from which the segments came instead
    by_client: bool  # the one that sends RST is the client of the connection that is continued


@dataclass(frozen=True, slots=True)
class Encounters:
    """One row a connection: what shows whether it continues another one. Columns of equal length.

    Columns of two entries a row are of end 0 and end 1 of its pair.
    """

    id: NDArray[np.int64]  # its number
    first_ns: NDArray[np.int64]  # when it began
    client: NDArray[np.int64]  # 0 or 1: which end is the client
    version: NDArray[np.uint8]  # of IP
    high: NDArray[np.uint64]  # two: the address
    low: NDArray[np.uint64]  # two
    port: NDArray[np.uint16]  # two
    packets: NDArray[np.int64]  # two: sent, as captured
    resets: NDArray[np.int32]  # two: of these, those with RST
    syns: NDArray[np.int32]  # two: and those with SYN
    origin: NDArray[np.uint32]  # two: the number that is relative 0
    last_raw: NDArray[np.uint32]  # two: that of the last segment, as on the wire
    sent_end: NDArray[np.int64]  # two: the highest one past any segment, relative; NONE if there was none

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def of(cls, table: PairTable, client: NDArray[np.int64], rows: NDArray[np.int64]) -> Encounters:
        """Return the rows of connections.

        Args:
            table: all pairs and connections.
            client: int64, 0 or 1: the end of its pair that is each connection's client.
            rows: int64, which connections, by index.
        """
        pairs, histories, sides = table.pairs, table.histories, table.sides
        pair = histories.pair[rows]
        return cls(
            *(histories.id[rows], histories.first_ns[rows], client[rows], pairs.version[pair]),
            *(pairs.high[pair], pairs.low[pair], pairs.port[pair]),
            *(getattr(sides, name).reshape(-1, 2)[rows] for name in OF_SIDES),
        )

    @classmethod
    def joined(cls, several: Sequence[Encounters]) -> Encounters:
        """Return the rows of several as one, by their numbers."""
        order = np.argsort(np.concatenate([one.id for one in several]), kind="stable")
        names = (each.name for each in fields(cls))
        return cls(*(np.concatenate([getattr(one, name) for one in several])[order] for name in names))

    def some(self, rows: slice) -> Encounters:
        """Return some of the rows."""
        return Encounters(*(getattr(self, each.name)[rows] for each in fields(self)))


def suspects(table: PairTable, client: NDArray[np.int64]) -> Encounters:
    """Return the connections that may continue another one: an end has answered all with RST; at most MOST.

    Args:
        table: all pairs and connections.
        client: int64, 0 or 1: the end of its pair that is each connection's client.
    """
    sides = table.sides
    return Encounters.of(table, client, _unknown(sides.packets, sides.resets, sides.syns)[:MOST] >> 1)


def strays(
    table: PairTable,
    client: NDArray[np.int64],
    suspected: Encounters,
    portions: Iterable[NDArray[np.int64]],
) -> list[Stray]:
    """Return which of some connections continue others, in their order.

    Args:
        table: all pairs and connections that they may continue.
        client: int64, 0 or 1: the end of its pair that is each connection's client.
        suspected: those connections, which `suspects` has found there or elsewhere.
        portions: int64, ascending: the indices of those that they may continue, so many at a time.
    """
    if not len(suspected):
        return []
    side = _unknown(*(getattr(suspected, name).ravel() for name in ("packets", "resets", "syns")))
    of, pairs = suspected, table.pairs
    wanted = endpoint_hashes(of.version, of.port, of.high, of.low).ravel()[side]
    found: dict[int, Stray] = {}
    for portion in portions:
        pair = table.histories.pair[portion]
        keys = endpoint_hashes(pairs.version[pair], pairs.port[pair], pairs.high[pair], pairs.low[pair])
        rows = np.flatnonzero(np.isin(keys, wanted).any(axis=1))
        others, keys = Encounters.of(table, client, portion[rows]), keys[rows].ravel()
        order = np.argsort(keys, kind="stable")
        begin, past = (np.searchsorted(keys, wanted, where, order) for where in ("left", "right"))
        for place, one in enumerate(side.tolist()):
            alike = order[begin[place] : past[place]]
            for stray in _continued(suspected, one, others, alike) if place not in found else ():
                found[place] = stray
    return [found[place] for place in sorted(found)]


def _unknown(
    packets: NDArray[np.int64], resets: NDArray[np.int32], syns: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the ends that have sent RSTs only, to one that has sent no SYN and no RST.

    Args:
        packets: that each end has sent, as captured: two entries a connection.
        resets: of these, those with RST.
        syns: those with SYN.
    """
    side = np.flatnonzero((resets > 0) & (packets == resets))
    peer = side ^ 1
    result: NDArray[np.int64] = side[(resets[peer] == 0) & (syns[peer] == 0) & (packets[peer] > 0)]
    return result


def _continued(
    suspected: Encounters, side: int, others: Encounters, sides: NDArray[np.int64]
) -> Iterator[Stray]:
    """Yield the connection that an end's belongs to, if it is one of those that other ends are of."""
    row, end = side >> 1, side & 1
    at, own = sides >> 1, sides & 1
    begun = others.first_ns[at] < suspected.first_ns[row]
    last_raw = suspected.last_raw[row]
    both = _within(last_raw[end], others.origin[at, own], others.sent_end[at, own])
    both &= _within(last_raw[1 - end], others.origin[at, 1 - own], others.sent_end[at, 1 - own])
    for other in sides[begun & both][:1].tolist():
        here = _endpoint(suspected, side)
        if here == _endpoint(others, other):  # not only the same hash
            yield Stray(
                int(suspected.id[row]),
                int(others.id[other >> 1]),
                here,
                _endpoint(others, other ^ 1),
                _endpoint(suspected, side ^ 1),
                int(others.client[other >> 1]) == other & 1,
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


def _endpoint(of: Encounters, side: int) -> Address:
    row, end = side >> 1, side & 1
    high, low = int(of.high[row, end]), int(of.low[row, end])
    return address_of((int(of.version[row]), high, low, int(of.port[row, end])))
