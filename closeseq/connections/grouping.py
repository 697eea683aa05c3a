"""Grouping rows that are alike, and small helpers over groups.

A hash only groups. The real values decide: where two different rows share a hash, the whole batch is
sorted by its values instead, so a collision costs time and never merges anything; only endpoints that are
merely counted go by their hashes. Each process has a new key for the hash, so nobody can prepare packets
that cost that time.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

KEY = np.uint64(secrets.randbits(64))
FACTOR = np.uint64(secrets.randbits(64) | 1)
HALF = np.uint64(32)


def packed(high: NDArray[Any], low: NDArray[Any]) -> NDArray[np.uint64]:
    """Return two columns of up to 32 bits as one of 64 bits: `high` in the upper half, `low` in the lower."""
    return (high.astype(np.uint64) << HALF) | low.astype(np.uint64)


def hashed(words: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row of these uint64 columns, with the process's own key."""
    result = np.full(len(words[0]), KEY)
    for word in words:
        result ^= word
        result *= FACTOR
        result ^= result >> HALF
    return result


def endpoint_hashes(
    version: NDArray[np.uint8], port: NDArray[np.uint16], high: NDArray[np.uint64], low: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return a hash of both ends' addresses and ports; others have another one, but for the rarest chance.

    Args:
        version: of IP.
        port: a row a pair of endpoints, a column an end; as are the next two.
        high: upper halves of the addresses.
        low: lower halves.

    Returns:
        uint64, a row a pair, a column an end.
    """
    words = [packed(version[:, None], port).ravel(), high.ravel(), low.ravel()]
    return hashed(words).reshape(-1, 2)


def arrange(words: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Bring alike rows together.

    Args:
        words: uint64 columns of equal length, at least one: rows are alike where all are equal.

    Returns:
        An order in which they are neighbours, each group as captured; and a mask over that order, true where
        a group begins.
    """
    digest = hashed(words)
    order = np.argsort(digest, kind="stable")
    digest = digest[order]
    differ = unlike_neighbours(words, order)
    if np.any(differ[1:] & (digest[1:] == digest[:-1])):
        order = np.lexsort(tuple(words))
        differ = unlike_neighbours(words, order)
    return order, differ


def unlike_neighbours(words: Sequence[NDArray[np.uint64]], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask, true where a row differs from the one before it, and for the first.

    Args:
        words: uint64 columns of equal length.
        order: int64, the rows in the order in which they are compared.
    """
    differ = np.zeros(len(order), np.bool_)
    differ[:1] = True
    for word in words:
        ordered = word[order]
        differ[1:] |= ordered[1:] != ordered[:-1]
    return differ


def lengths(start: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return the lengths of groups that begin at `start` (int64, ascending) and fill `total` rows."""
    return np.diff(start, append=total)


def next_where(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, for each row and one past the end, the first row at or after it where the mask is true.

    Where there is none it is the number of rows.
    """
    rows = np.append(np.where(mask, np.arange(len(mask)), len(mask)), len(mask))
    return np.minimum.accumulate(rows[::-1])[::-1]


def rank(mask: NDArray[np.bool_], start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each row, how many rows of its group up to and including it are true in the mask.

    Args:
        mask: one entry a row, group by group.
        start: int64, the first row of each group.
        length: int64, rows of each group; all together are the whole mask.
    """
    total = np.cumsum(mask)
    return total - np.repeat(total[start] - mask[start], length)


def renumbered(stays: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return new indices for rows of which some stay.

    Args:
        stays: int64, ascending: the old indices of those.
        total: how many rows there were.

    Returns:
        int64, by old index: the new one, or -1. It has one entry more, so that -1 stays -1.
    """
    new = np.full(total + 1, -1)
    new[stays] = np.arange(len(stays))
    return new
