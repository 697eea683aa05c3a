"""Connections that are alike in when they close, counted over columns: the same idleness, ports that wait.

Nothing here loops over connections: groups with too few of them are left out by counting. What is found are
plain numbers; `verdict.population` says what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.connections.compose import address_of
from closeseq.connections.conversation import Address, End
from closeseq.connections.grouping import arrange, packed
from closeseq.connections.idling import CLIENT, SERVER
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from closeseq.connections.idling import Closes
    from closeseq.settings import EphemeralPorts

FEWEST = 5  # connections that show a timeout
WIDTH, WIDTH_NS = 0.02, SECOND // 20  # of a cluster: values further apart are not of one timeout
SHARE = 0.2  # of the closes after idleness: fewer may lie together by chance
NEARLY = 0.8  # of the server's timeout; of the connections
CHANCE = 10  # how many times as many as would lie together by chance
AROUND = 10  # windows
FEWEST_WAITS = 500  # TIME_WAITs from which on a rate means something; of few ports, a quarter of them
ALWAYS = 0.95  # of an endpoint's connections
SHORT_PACKETS = 8  # that a client sends in a connection for one request: at most


class IdleCluster(NamedTuple):
    """Connections that one endpoint closed after the same silence."""

    server: Address
    end: End  # who closed
    timeout_ns: int  # the middle one of the silences (median)
    members: int  # connections that show it
    of: int  # connections to the server that this end closed first
    late: int  # connections whose client sent a request after nearly as long a silence
    longest_ns: int  # the longest of these silences


class PortUse(NamedTuple):
    """Connections to one server that a client closed first, so that their ports wait in TIME_WAIT."""

    server: Address
    client: str  # address
    number: int  # of connections that it closed first
    held: int  # the most of them in TIME_WAIT at once
    lasted_ns: int  # from the first close to the last
    short: bool  # most of them had room for one request only


class ResetHabit(NamedTuple):
    """Connections to one server that one of its ends, or all its clients, ended with RST."""

    server: Address
    end: End  # who sent the RST
    members: int  # connections that it ended so
    of: int  # connections to the server that this end closed first


def idle_clusters(closes: Closes) -> Iterator[IdleCluster]:
    """Yield after which idleness servers or their clients close; of a server's the shortest first.

    Args:
        closes: all connections.
    """
    for rows in _groups(closes, np.flatnonzero(closes.idle_ns >= 0), FEWEST, client=False):
        server, here = _server(closes, int(rows[0])), None
        for end, code in ((End.SERVER, SERVER), (End.CLIENT, CLIENT)):
            found = _clusters(closes.idle_ns[rows[closes.closer[rows] == code]])
            if found and here is None:
                here = np.flatnonzero(_same_server(closes, int(rows[0])))
            for place, members in enumerate(found):
                assert here is not None
                timeout_ns = int(np.median(members))
                late = closes.resumed_ns[here]
                late = late[(late >= NEARLY * timeout_ns) & (late <= timeout_ns + WIDTH_NS)]
                if place < len(found) - 1:
                    late = late[:0]  # another timeout, a longer one, decides
                of = int(np.count_nonzero(closes.closer[here] == code))
                longest_ns = int(late.max(initial=0))
                yield IdleCluster(server, end, timeout_ns, len(members), of, len(late), longest_ns)


def _clusters(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the values that lie together, ascending: without a gap, and not spread out."""
    if len(values) < FEWEST:
        return []
    values = np.sort(values)
    apart = np.maximum(WIDTH * values[:-1], WIDTH_NS)
    several = np.split(values, np.flatnonzero(np.diff(values) > apart) + 1)
    return [one for one in several if _by_timer(one, values)]


def _by_timer(members: NDArray[np.int64], values: NDArray[np.int64]) -> bool:
    """Whether values lie so close together that they did not by chance, among all values of an endpoint."""
    window = 2 * max(WIDTH * int(members[0]), WIDTH_NS)
    if len(members) < max(FEWEST, SHARE * len(values)) or members[-1] - members[0] > window:
        return False
    # Short silences are more frequent than long ones, so only those nearby are compared.
    near = values[(values >= members[0] - AROUND * window) & (values <= members[-1] + AROUND * window)]
    reach = max(int(near[-1] - near[0]), AROUND * window)
    by_chance = (len(near) - len(members)) * window / reach
    return len(members) >= FEWEST + int(CHANCE * by_chance)


def port_uses(closes: Closes, time_wait_ns: int, ports: EphemeralPorts) -> Iterator[PortUse]:
    """Yield the clients that closed many connections to one server first.

    Args:
        closes: all connections.
        time_wait_ns: how long each holds its port then, in nanoseconds (2MSL).
        ports: how many local ports clients have; a quarter of few ports is many.
    """
    fewest = min(FEWEST_WAITS, *(max(FEWEST, one // 4) for one in (ports.usual, ports.own) if one))
    for rows in _groups(closes, np.flatnonzero(closes.waits_ns >= 0), fewest, client=True):
        since = np.sort(closes.waits_ns[rows])
        begun = np.searchsorted(since, since - time_wait_ns, side="right")
        first, short = int(rows[0]), closes.client_packets[rows] <= SHORT_PACKETS
        yield PortUse(
            _server(closes, first),
            _address(closes, first, "client").address,
            len(rows),
            int((np.arange(1, len(since) + 1) - begun).max()),
            int(since[-1] - since[0]),
            bool(np.count_nonzero(short) >= NEARLY * len(rows)),
        )


def reset_habits(closes: Closes) -> Iterator[ResetHabit]:
    """Yield the endpoints that end nearly all their connections with RST, after all data was acknowledged.

    Args:
        closes: all connections.
    """
    for rows in _groups(closes, np.flatnonzero(closes.calm_reset), FEWEST, client=False):
        here = np.flatnonzero(_same_server(closes, int(rows[0])))
        for end, code in ((End.SERVER, SERVER), (End.CLIENT, CLIENT)):
            members = int(np.count_nonzero(closes.closer[rows] == code))
            of = int(np.count_nonzero(closes.closer[here] == code))
            if members >= max(FEWEST, ALWAYS * of):
                yield ResetHabit(_server(closes, int(rows[0])), end, members, of)


def _groups(
    closes: Closes, rows: NDArray[np.int64], fewest: int, *, client: bool
) -> Iterator[NDArray[np.int64]]:
    """Yield those of these rows that are of the same server, and client, where there are enough."""
    if len(rows) < fewest:
        return
    words = [
        packed(closes.version[rows], closes.server_port[rows]),
        closes.server_high[rows],
        closes.server_low[rows],
    ]
    if client:
        words += [closes.client_high[rows], closes.client_low[rows]]
    order, begins = arrange(words)
    start = np.flatnonzero(begins)
    size = np.diff(start, append=len(order))
    for at in np.flatnonzero(size >= fewest).tolist():
        yield np.sort(rows[order[start[at] : start[at] + size[at]]])


def _same_server(closes: Closes, row: int) -> NDArray[np.bool_]:
    """Return a mask of the connections to the same server as a row's."""
    same: NDArray[np.bool_] = (
        (closes.server_port == closes.server_port[row])
        & (closes.server_low == closes.server_low[row])
        & (closes.server_high == closes.server_high[row])
        & (closes.version == closes.version[row])
    )
    return same


def _server(closes: Closes, row: int) -> Address:
    address = _address(closes, row, "server")
    return Address(address.address, int(closes.server_port[row]))


def _address(closes: Closes, row: int, end: str) -> Address:
    high, low = getattr(closes, f"{end}_high")[row], getattr(closes, f"{end}_low")[row]
    return address_of((int(closes.version[row]), int(high), int(low), 0))
