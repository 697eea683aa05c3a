"""What all connections of a live capture show together, asked now and then; each answer is news once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from closeseq.connections.crowds import WIDTH, WIDTH_NS
from closeseq.connections.idling import NOBODY, Closes
from closeseq.verdict.model import PopulationCode
from closeseq.verdict.population.rules import populations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from closeseq.connections import Connections
    from closeseq.settings import Settings
    from closeseq.verdict.population.rules import PopulationFinding

EVERY = 2.0  # seconds between two looks, at least
SHARE = 0.02  # of the time that looking may take
MOST_REMEMBERED = 1 << 17  # connections that have been dropped; the latest


class Census:
    """Keeps how dropped connections closed, and what was found so far.

    Args:
        settings: how many ports clients have, and how long TIME_WAIT holds one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._past: list[Closes] = []  # of connections that were dropped
        self._remembered = 0  # their number
        self._found: list[PopulationFinding] = []
        self._next = 0.0  # when to look again, monotonic time

    @property
    def found(self) -> list[PopulationFinding]:
        """All that was found so far, each as it stood when it was found last; warnings first."""
        order = list(PopulationCode)
        return sorted(self._found, key=lambda one: (order.index(one.code), -one.members, one.server))

    def due(self) -> bool:
        """Whether enough time has gone by since the last look."""
        return time.monotonic() >= self._next

    def remember(self, closes: Closes, dropped: NDArray[np.bool_]) -> None:
        """Keep how connections closed that are being dropped.

        Args:
            closes: of all connections, one row each.
            dropped: a mask of its rows, True for those that are dropped.
        """
        closes = closes.some(dropped & (closes.closer != NOBODY))
        self._past.append(closes)
        self._remembered += len(closes)
        while self._remembered - len(self._past[0]) > MOST_REMEMBERED:
            self._remembered -= len(self._past.pop(0))

    def look(self, connections: Connections) -> list[PopulationFinding]:
        """Return what is found now and was not before."""
        began = time.monotonic()
        closes = Closes.joined([*self._past, connections.closes()])
        present = populations(closes, self._settings, connections.strays())
        new = []
        for one in present:
            known = next((at for at, other in enumerate(self._found) if _same(one, other)), None)
            if known is None:
                self._found.append(one)
                new.append(one)
            else:
                self._found[known] = one
        now = time.monotonic()
        self._next = now + max(EVERY, (now - began) / SHARE)
        return new


def _same(one: PopulationFinding, other: PopulationFinding) -> bool:
    """Whether two findings are the same, found at different moments."""
    if (one.code, one.server, one.client, one.endpoint) != (
        other.code,
        other.server,
        other.client,
        other.endpoint,
    ):
        return False
    if one.code not in {PopulationCode.IDLE_TIMEOUT, PopulationCode.TIMEOUTS_IN_WRONG_ORDER}:
        return True  # its value is the time that is left, or none
    return abs(one.value_ns - other.value_ns) <= max(WIDTH * other.value_ns, WIDTH_NS)
