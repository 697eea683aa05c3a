"""Pairs of addresses and ports as 64-bit numbers, by which the tasks compare files.

The numbers are hashes, with a key of their run. If two pairs have the same one, both are treated as if they
went on in another file, which is only more work.

Where no SYN was captured, `ClientGuess` infers the client from how many others each endpoint talks to. A
shard has only some of these, so `Informed` gets the counts of the whole capture.

Bytes that one task hands on to another pass through `put` and `get`: as they are, or in a file that all
machines can read.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from closeseq.connections.orientation import ClientGuess
from closeseq.connections.pairs import pair_words, senders
from closeseq.packets.segments import SYN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.state import Pairs
    from closeseq.packets.segments import Segments

Held: TypeAlias = bytes | str  # the bytes, or the URL of a file that holds them

# One row a pair of a file.
ROW = np.dtype(
    [
        ("pair", np.uint64),
        ("ends", np.uint64, 2),  # of end 0 and end 1
        ("asks", np.bool_),  # it begins without SYN, so the client may have to be inferred
        ("tagged", np.bool_),  # it was seen in a VLAN, where another connection may begin without SYN
    ]
)
HALF = np.uint64(32)

# As bytes, the rows stand behind a table of where those of each bucket begin, so that a range can be read.
BUCKETS = 1 << 10  # equal ranges of the numbers of pairs
HEAD = np.dtype((np.int64, BUCKETS + 1))


def as_bytes(rows: NDArray[np.void]) -> bytes:
    """Return the rows of a file, an array of ROW with `pair` ascending, as bytes."""
    edges = np.searchsorted(
        rows["pair"] >> np.uint64(64 - BUCKETS.bit_length() + 1), np.arange(BUCKETS + 1, dtype=np.uint64)
    )
    return edges.astype(np.int64).tobytes() + rows.tobytes()


def part_of(held: Held, part: int, parts: int) -> NDArray[np.void]:
    """Return the rows of a file that are in one part of all numbers of pairs.

    Args:
        held: what `as_bytes` has made of the rows, or where it is.
        part: which part, from 0.
        parts: into how many the BUCKETS ranges are divided, at most BUCKETS.

    Returns:
        An array of ROW, as in the file: by `pair`, ascending.

    Raises:
        OSError: the file cannot be read.
    """
    edges = np.frombuffer(get(held, 0, HEAD.itemsize), np.int64)
    begin, end = (int(edges[BUCKETS * one // parts]) for one in (part, part + 1))
    at = (HEAD.itemsize + place * ROW.itemsize for place in (begin, end))
    return np.frombuffer(get(held, *at), ROW)


def hashed(words: Sequence[NDArray[np.uint64]], key: int) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row of some columns.

    Args:
        words: uint64 columns of equal length, at least one; together they are what is hashed.
        key: 64 bits of the run: all its tasks get the same hashes, and no other run does.
    """
    result = np.full(len(words[0]), np.uint64(key))
    factor = np.uint64(key | 1)
    for word in words:
        result ^= word
        result *= factor
        result ^= result >> HALF
    return result


def pair_keys(segments: Segments, key: int) -> NDArray[np.uint64]:
    """Return the number of each segment's pair.

    Args:
        segments: a batch.
        key: of the run, as for `hashed`.

    Returns:
        uint64, one entry a row.
    """
    return hashed(pair_words(segments, senders(segments)), key)


def rows_of(segments: Segments, key: int) -> NDArray[np.void]:
    """Return the pairs of a batch.

    Args:
        segments: a batch.
        key: of the run, as for `hashed`.

    Returns:
        An array of ROW, one entry a pair, by `pair` ascending. `asks` tells of the pair's first segment here.
    """
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


def end_keys(pairs: Pairs, rows: NDArray[np.int64], key: int) -> NDArray[np.uint64]:
    """Return the numbers of end 0 and end 1 of some pairs, as `ROW` has them.

    Args:
        pairs: all pairs of addresses and ports.
        rows: int64, which ones, by index.
        key: of the run, as for `hashed`.

    Returns:
        uint64, a row a pair, a column an end.
    """
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


def joined(batches: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
    """Return the rows of batches, which follow one another, as one array: of each pair how it begins.

    Args:
        batches: arrays of ROW, in the order of capture.

    Returns:
        An array of ROW, by `pair` ascending; `tagged` where any batch says so.
    """
    rows = np.concatenate([np.empty(0, ROW), *batches])
    order = np.argsort(rows["pair"], kind="stable")
    rows = rows[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = rows["pair"][1:] != rows["pair"][:-1]
    result = rows[first]
    if len(rows):
        result["tagged"] = np.logical_or.reduceat(rows["tagged"], np.flatnonzero(first))
    return result


@dataclass(frozen=True, slots=True)
class Peers:
    """With how many others endpoints talk, in the whole capture; one entry an endpoint."""

    key: int  # of the hashes
    end: NDArray[np.uint64]  # ascending, as in keys.ROW
    number: NDArray[np.int64]  # with how many others each talks


class Informed(ClientGuess):
    """Infers the client by the counts of the whole capture.

    Its methods raise LookupError for an endpoint that `peers` lacks.

    Args:
        pairs: the pairs of a shard.
        ports: those that are known to be servers'.
        peers: of all endpoints that are asked about.
    """

    def __init__(self, pairs: Pairs, ports: frozenset[int], peers: Peers) -> None:
        super().__init__(pairs, ports)
        self._known = peers

    def _peer_counts(self, pair: NDArray[np.int64]) -> NDArray[np.int64]:
        known = self._known
        ends = end_keys(self._pairs, pair, known.key)
        place = np.minimum(np.searchsorted(known.end, ends), max(len(known.end) - 1, 0))
        if not np.array_equal(known.end[place], ends):
            raise LookupError("an endpoint's peers were not counted")
        return known.number[place]


def put(folder: str | None, name: str, data: bytes) -> Held:
    """Put bytes where another task can get them.

    Args:
        folder: URL of a folder that all machines can read and write; None to hand the bytes on as they are.
        name: how the file's name begins; what follows is random.
        data: the bytes.

    Returns:
        The bytes, or the URL of their file: what `get` takes.

    Raises:
        OSError: the file cannot be written.
    """
    if folder is None:
        return data
    url = f"{folder}/{name}-{secrets.token_hex(8)}"  # a task that runs twice writes two of them
    files, path = file_system(url)
    with files.open(path, "wb") as file:
        file.write(data)
    return url


def get(held: Held, begin: int | None = None, end: int | None = None) -> bytes:
    """Return what `put` has handed on, or a part of it.

    Args:
        held: as `put` returned it.
        begin: the first byte; None for the first of all.
        end: the byte behind the last; None for all to the end.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(held, bytes):
        return held[begin:end]
    files, path = file_system(held)
    data: bytes = files.cat_file(path, start=begin, end=end)
    return data


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, by fsspec, and the path in it."""
    from fsspec.core import url_to_fs  # of the extra `cluster`

    found: tuple[Any, str] = url_to_fs(url)
    return found


def write_whole(url: str, pieces: Iterator[str]) -> None:
    """Write a file, under another name in the same folder until it is whole.

    Args:
        url: of the file; one that is there is replaced.
        pieces: its text, written as UTF-8.

    Raises:
        OSError: it cannot be written; nothing of it stays.
    """
    files, path = file_system(url)
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}-{secrets.token_hex(8)}"
    try:
        with files.open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece.encode("utf-8", "backslashreplace"))
        files.mv(temporary, path)
    except BaseException:
        if files.exists(temporary):
            files.rm(temporary)
        raise
