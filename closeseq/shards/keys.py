"""Which pairs of addresses and ports a file has, as numbers of 64 bits by which files are compared.

They are hashes, with a key of their run. If two pairs should have the same one, both are treated as if they
went on in another file, which is only more work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.table import pair_words, senders
from closeseq.packets.flags import SYN
from closeseq.shards.held import get

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from closeseq.connections.state import Pairs
    from closeseq.packets.segments import Segments
    from closeseq.shards.held import Held

# One row a pair of a file.
ROW = np.dtype(
    [
        ("pair", np.uint64),
        ("ends", np.uint64, 2),  # of end 0 and end 1
        ("asks", np.bool_),  # it begins without SYN, so that it may be open which end is the client
        ("tagged", np.bool_),  # so it may be in a VLAN, where another connection may begin without one
    ]
)
HALF = np.uint64(32)


# As bytes, the rows stand behind a table of where those of each bucket begin, so that a range can be read.
BUCKETS = 1 << 10  # equal ranges of the numbers of pairs
HEAD = np.dtype((np.int64, BUCKETS + 1))


def as_bytes(rows: np.ndarray) -> bytes:
    """Return the rows of a file as bytes."""
    edges = np.searchsorted(
        rows["pair"] >> np.uint64(64 - BUCKETS.bit_length() + 1), np.arange(BUCKETS + 1, dtype=np.uint64)
    )
    return edges.astype(np.int64).tobytes() + rows.tobytes()


def part_of(held: Held, part: int, parts: int) -> np.ndarray:
    """Return those rows of a file that are in one of so many ranges of buckets, at most BUCKETS."""
    edges = np.frombuffer(get(held, 0, HEAD.itemsize), np.int64)
    begin, end = (int(edges[BUCKETS * one // parts]) for one in (part, part + 1))
    at = (HEAD.itemsize + place * ROW.itemsize for place in (begin, end))
    return np.frombuffer(get(held, *at), ROW)


def hashed(words: Sequence[np.ndarray], key: int) -> np.ndarray:
    """Return a hash of each row of these uint64 columns."""
    result = np.full(len(words[0]), np.uint64(key))
    factor = np.uint64(key | 1)
    for word in words:
        result ^= word
        result *= factor
        result ^= result >> HALF
    return result


def pair_keys(segments: Segments, key: int) -> np.ndarray:
    """Return the number of each segment's pair."""
    return hashed(pair_words(segments, senders(segments)), key)


def rows_of(segments: Segments, key: int) -> np.ndarray:
    """Return the pairs of a batch as an array of ROW, ascending."""
    words = pair_words(segments, senders(segments))
    pairs = hashed(words, key)
    names, first = np.unique(pairs, return_index=True)
    rows = np.zeros(len(names), ROW)
    rows["pair"] = names
    version = words[4][first] >> HALF << HALF
    ports = (words[4][first] >> np.uint64(16)) & np.uint64(0xFFFF), words[4][first] & np.uint64(0xFFFF)
    for end in (0, 1):
        rows["ends"][:, end] = hashed([words[end][first], words[2 + end][first], version | ports[end]], key)
    rows["asks"] = segments.flags[first] & SYN == 0
    rows["tagged"] = np.isin(names, pairs[segments.vlan > 0])
    return rows


def end_keys(pairs: Pairs, rows: np.ndarray, key: int) -> np.ndarray:
    """Return the numbers of end 0 and end 1 of these pairs, as `ROW` has them."""
    version = pairs.version[rows].astype(np.uint64) << HALF
    found = [
        hashed(
            [
                pairs.high[rows, end].astype(np.uint64),
                pairs.low[rows, end].astype(np.uint64),
                version | pairs.port[rows, end].astype(np.uint64),
            ],
            key,
        )
        for end in (0, 1)
    ]
    return np.stack(found, axis=1)


def joined(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Return the rows of batches, which follow one another, as one array: of each pair how it begins."""
    rows = np.concatenate([np.empty(0, ROW), *batches])
    order = np.argsort(rows["pair"], kind="stable")
    rows = rows[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = rows["pair"][1:] != rows["pair"][:-1]
    result = rows[first]
    if len(rows):
        result["tagged"] = np.logical_or.reduceat(rows["tagged"], np.flatnonzero(first))
    return result
