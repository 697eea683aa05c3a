"""What a watch tells: connections of which there is something new to say."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from closeseq.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from closeseq.watch.labels import Label


class Kind(StrEnum):
    """Why there is something to say."""

    CLOSED = "closed"  # it is over, but for TIME_WAIT
    STUCK = "stuck"  # an end waits in vain
    REVISED = "revised"  # what was said of it was assumed, and later packets tell otherwise
    OPEN = "open"  # the watch ends, and the connection has not
    MORE = "more"  # the watch ends, and more packets have come since it was told; they change nothing


class Sighting(Connection):
    """A connection as it stood when there was something to say of it."""

    kind: Kind
    as_of_ns: int  # the moment for which it holds, since the Unix epoch


# Gives the connections with these ascending indices, of which there is that to say.
Look: TypeAlias = "Callable[[Sequence[int], Kind], Iterator[Sighting]]"


class News:
    """Connections of which the same is to be said; they are looked at when they are asked for.

    It holds until the watch is fed again.
    """

    def __init__(self, kind: Kind, label: Label, indices: Sequence[int], look: Look) -> None:
        self.kind = kind
        self.label = label
        self.indices = indices
        self._look = look

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sighting]:
        return self._look(self.indices, self.kind)

    def __getitem__(self, place: int) -> Sighting:
        return next(self._look([self.indices[place]], self.kind))
