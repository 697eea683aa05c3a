"""Counts of connections by kind, made in several places.

Equally frequent kinds are in the order of their first connections, as in a summary of all at once.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class MergedCounts(Generic[Key]):
    """Counts of connections by kind, each with the first: the connection's number, and a place within it."""

    def __init__(self) -> None:
        self.of: dict[Key, int] = {}
        self.first: dict[Key, tuple[int, int]] = {}

    def add(self, key: Key, number: int, first: tuple[int, int]) -> None:
        """Count connections of a kind.

        Args:
            key: the kind, such as a verdict's code.
            number: how many they are.
            first: the least number of one of them, and the kind's place among those that this connection has.
        """
        self.of[key] = self.of.get(key, 0) + number
        self.first[key] = min(first, self.first.get(key, first))

    def merge(self, other: MergedCounts[Key]) -> None:
        """Add the counts of another shard."""
        for key, number in other.of.items():
            self.add(key, number, other.first[key])

    def ordered(self) -> dict[Key, int]:
        """Return the counts, the most frequent first."""
        return {
            key: self.of[key] for key in sorted(self.of, key=lambda key: (-self.of[key], self.first[key]))
        }

    def some(self, keys: list[Key]) -> MergedCounts[Key]:
        """Return the counts of these kinds alone."""
        made: MergedCounts[Key] = MergedCounts()
        for key in keys:
            made.add(key, self.of[key], self.first[key])
        return made


class Foremost(Generic[Key]):
    """The most frequent of many kinds, and how many there are in all.

    Args:
        counts: of all connections that have one of these kinds: no count can be added later.
        most: how many kinds are kept; None for all.
    """

    def __init__(self, counts: MergedCounts[Key], most: int | None) -> None:
        self.kinds = len(counts.of)
        self.number = sum(counts.of.values())  # of connections
        self._most = most
        self._kept = self._cut(counts)

    def merge(self, other: Foremost[Key]) -> None:
        """Add other kinds."""
        self.kinds += other.kinds
        self.number += other.number
        self._kept.merge(other._kept)
        self._kept = self._cut(self._kept)

    def ordered(self) -> dict[Key, int]:
        """Return the counts of those that are kept, the most frequent first."""
        return self._kept.ordered()

    def _cut(self, counts: MergedCounts[Key]) -> MergedCounts[Key]:
        return counts.some(list(counts.ordered())[: self._most])
