"""What the analysis of a capture and the monitor of a live one share: connections that can be judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from closeseq.connections.conversation import End
from closeseq.segments.decode import narrow
from closeseq.verdict.fault import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from closeseq.classes import Classes
    from closeseq.connection import Connection
    from closeseq.connections import Connections
    from closeseq.connections.conversation import Address, Conversation
    from closeseq.packets.segments import Segments
    from closeseq.reading import Reading
    from closeseq.settings import Settings

    Made = TypeVar("Made", bound=Connection)


class Judging:
    """Connections as they are read, and how they are judged.

    Args:
        settings: ports, hosts, limits and timers.
        reading: what was read so far; it counts what is fed.
        connections: made of what is fed.
    """

    def __init__(self, settings: Settings, reading: Reading, connections: Connections) -> None:
        self.settings = settings
        self.reading = reading
        self._connections = connections
        self.faults = Faults()  # of closeseq itself, at the connections that were judged

    def __len__(self) -> int:
        return len(self._connections)

    def places(self, indices: Sequence[int], end: End) -> list[tuple[Address, list[int]]]:
        """Group connections by the address of one endpoint.

        For a server that is address and port; for a client, whose ports vary, the port is given as 0.

        Args:
            indices: which connections, from 0 in the order of their first packets.
            end: whose address.

        Returns:
            Each address with the indices of its connections; see `Connections.places` for the order.
        """
        return self._connections.places(indices, end, with_port=end is End.SERVER)

    def failed_at(self, indices: Iterable[int], fault: Exception) -> None:
        """Record a fault of closeseq itself while it showed these connections.

        Args:
            indices: which connections, from 0 in the order of their first packets.
            fault: what was raised.
        """
        self.faults.add_all(self._connections.numbers[list(indices)].tolist(), fault)

    def _add(self, segments: Segments) -> None:
        """Add the segments of a batch that were asked for, after those added before."""
        self._connections.feed(self._wanted(segments))
        self.reading.copies = self._connections.copies

    def _wanted(self, segments: Segments) -> Segments:
        return narrow(segments, self.settings.ports, self.settings.hosts)

    def _judged(
        self,
        finder: Classes,
        indices: Sequence[int],
        make: Callable[[Conversation], Made],
        now_ns: int,
        *,
        ongoing: bool = False,
        soon: bool = True,
    ) -> Iterator[Made]:
        """Yield connections with their verdicts and findings at hand; those that close alike are judged once.

        Args:
            finder: judges them; what it learned of some holds for others.
            indices: which ones, ascending.
            make: makes a connection of a conversation.
            now_ns: for which moment, since the Unix epoch.
            ongoing: whether the capture goes on.
            soon: whether the first of them are waited for.
        """
        chosen = np.asarray(indices, np.int64)
        if self.reading.files.gaps():  # texts may mention one
            return map(make, self._connections.conversations(chosen))
        dropped = self.reading.dropped
        return finder.judge(
            self._connections, chosen, make, now_ns, dropped=dropped, ongoing=ongoing, soon=soon
        )
