"""The classes of an analysis, each with its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast, overload

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.classes.classes import Groups
    from closeseq.classes.outcome import Outcome
    from closeseq.connection import Connection

MOST_KEPT = 4096  # classes that are made once


@dataclass(frozen=True, eq=False)
class ConnectionClass:
    """Connections that closed the same way, with the same findings; only addresses and times differ."""

    indices: NDArray[np.int64]  # into the analysis, ascending
    outcome: Outcome  # verdict and findings of all of them
    _connections: Sequence[Connection] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.indices)

    def among(self, ids: Collection[int]) -> Sequence[int]:
        """Return the indices of those whose number, from 1, is one of `ids`; of all where none is given."""
        if not ids:
            return cast("Sequence[int]", self.indices)
        return [index for index in self.members if index + 1 in ids]

    @property
    def members(self) -> list[int]:
        """Their indices as Python integers, made anew each time: there may be a million."""
        found: list[int] = self.indices.tolist()
        return found

    @cached_property
    def example(self) -> Connection:
        """The first of them."""
        return self._connections[int(self.indices[0])]


class ConnectionClasses(Sequence[ConnectionClass]):
    """All classes of an analysis; each is made on demand, for there may be a million.

    Args:
        groups: the connections of each class, and the number of its outcome.
        outcomes: by number.
        connections: of the analysis, of which they are.
    """

    def __init__(
        self, groups: Groups, outcomes: Sequence[Outcome], connections: Sequence[Connection]
    ) -> None:
        self._groups = groups
        self._outcomes = outcomes
        self._connections = connections
        self._kept: dict[int, ConnectionClass] = {}

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, place: int) -> ConnectionClass: ...
    @overload
    def __getitem__(self, place: slice) -> list[ConnectionClass]: ...
    def __getitem__(self, place: int | slice) -> ConnectionClass | list[ConnectionClass]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        one = self._kept.get(place)
        if one is None:
            indices, number = self._groups[place]
            one = ConnectionClass(indices, self._outcomes[number], self._connections)
            if len(self._kept) < MOST_KEPT:
                self._kept[place] = one
        return one
