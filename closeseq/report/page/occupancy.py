"""How many sockets are in which state, moment by moment: the picture of a leak.

Every endpoint of a connection is a socket, but for one that is CLOSED or LISTENs. They are counted at equally
spaced moments from the first packet to the end of the capture, for each server port: the sockets of servers,
and those of their clients.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from closeseq.tcp.states import NO_SOCKET, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from closeseq.report.page.line import StateEntry

MOMENTS = 361  # that are looked at
OTHERS = -1  # in place of a port, for all that have no count of their own

# From the bottom of a picture to its top: what is waited in for a program or a peer first, so that its growth
# stands on the ground; then what ends by itself; then what is open.
STACK = (
    State.CLOSE_WAIT,
    State.FIN_WAIT_2,
    State.FIN_WAIT_1,
    State.LAST_ACK,
    State.CLOSING,
    State.SYN_RECEIVED,
    State.SYN_SENT,
    State.TIME_WAIT,
    State.ESTABLISHED,
    State.UNKNOWN,
)
assert set(STACK) == set(State) - NO_SOCKET
_NONE = frozenset(state.value for state in NO_SOCKET)


class Series(NamedTuple):
    """The sockets of a server port in one state, at each moment."""

    state: State
    counts: Sequence[int]  # one for each of MOMENTS


class Occupancy:
    """Counts sockets by state over time.

    Args:
        first_ns: when the capture began, since the Unix epoch.
        end_ns: when it ended.
        ports: server ports with a count of their own; all others are counted together.
    """

    def __init__(self, first_ns: int, end_ns: int, ports: Iterable[int]) -> None:
        self.first_ns = first_ns
        self.span_ns = max(end_ns - first_ns, 1)
        self.ports = frozenset(ports)
        self._changes: dict[tuple[int, int, str], list[int]] = {}  # by port, endpoint, state

    def add(self, port: int, moves: Iterable[StateEntry]) -> None:
        """Count the sockets of one connection.

        Args:
            port: of the server.
            moves: each endpoint's states, in time order.
        """
        port = port if port in self.ports else OTHERS
        now: dict[int, str] = {}
        for time_ns, end, state in moves:
            # The first moment that is not before it.
            at = -(-(time_ns - self.first_ns) * (MOMENTS - 1) // self.span_ns)
            if at >= MOMENTS:
                break
            before = now.get(end)
            if before is not None and before not in _NONE:
                self._of(port, end, before)[max(at, 0)] -= 1
            if state not in _NONE:
                self._of(port, end, state)[max(at, 0)] += 1
            now[end] = state

    def _of(self, port: int, end: int, state: str) -> list[int]:
        found = self._changes.get((port, end, state))
        if found is None:
            found = self._changes[port, end, state] = [0] * MOMENTS
        return found

    def series(self, port: int, end: int) -> list[Series]:
        """Return the counts of a port's sockets, servers' or clients', in the order of STACK.

        Args:
            port: one of `ports`, or OTHERS.
            end: as in `StateEntry`: 0 for clients, 1 for servers.

        Returns:
            only states that a socket was in, each with one count a moment.
        """
        found = ((state, self._changes.get((port, end, state.value))) for state in STACK)
        summed = (Series(state, list(accumulate(one))) for state, one in found if one is not None)
        return [one for one in summed if any(one.counts)]

    def moment_ns(self, moment: int) -> int:
        """Return the time of a moment, since the Unix epoch."""
        return self.first_ns + moment * self.span_ns // (MOMENTS - 1)


def most_used(connections: Mapping[int, int], most: int) -> list[int]:
    """Return the ports with the most connections, the most first.

    Args:
        connections: their number, by port.
        most: how many ports at most.
    """
    return sorted(connections, key=lambda port: (-connections[port], port))[:most]
