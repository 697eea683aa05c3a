"""The tasks that run elsewhere: each is a function of its arguments alone, and may run twice.

look      a file: its counts and times, and which pairs it has
compare   pairs of all files: which go on in another one, and which endpoints' peers must be counted
count     with how many others each of these endpoints talks
inside    a file: the connections that lie in it, and the columns of all others
across    the columns of some of these others, from all files: their connections, in several shards
precede   how many connections of a file begin before each of those that go on in another one
classes   the classes of a shard's connections

apart     any of these, in a thread of its own
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from closeseq.classes import Classes
from closeseq.connections import Connections
from closeseq.errors import CaptureError
from closeseq.packets.segments import COLUMNS, DTYPES, Segments
from closeseq.reading import Reader, Reading
from closeseq.segments import Decoder
from closeseq.segments.decode import narrow
from closeseq.shards import keys
from closeseq.shards.keys import Held, get, put
from closeseq.shards.tables import as_bytes, connections_of, first_packets, from_bytes, taken
from closeseq.verdict.fault import Faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from closeseq.classes.outcome import Outcome
    from closeseq.segments.fragments import Fragments
    from closeseq.settings import Settings
    from closeseq.shards.keys import Peers
    from closeseq.shards.tables import Tables

Result = TypeVar("Result")

FEED = 1 << 15  # rows that are fed together
JUDGING = threading.Lock()  # classes are found by one thread at a time, whatever the executor has

CHANGED = "the file has changed since it was first read"
AGAIN = "analyse it again when nothing writes to it"


@dataclass(frozen=True, slots=True)
class Terms:
    """Arguments that all tasks of a run share."""

    settings: Settings  # ports, hosts, limits and timers
    key: int  # of the hashes
    folder: str | None  # URL of the folder for what tasks hand on; None: it is handed on as it is


@dataclass(frozen=True, slots=True)
class Portion:
    """A file of a capture."""

    path: str
    fragments: Fragments | None = None  # of the files before it, which may be completed in this one
    count: int | None = None  # its first packets, if these are enough


class Looked(NamedTuple):
    """The result of `look`: what a file contains."""

    reading: Reading  # of this file alone
    fragments: Fragments | None  # that may be completed in the next file
    pairs: Held  # as keys.as_bytes has them
    number: int  # how many they are


def look(terms: Terms, portion: Portion) -> Looked:
    """Read a file, and note which pairs it has.

    Args:
        terms: of the run.
        portion: the file, how many of its packets, and the fragments of those before it.

    Returns:
        Its counts, and its pairs. An error in the file is kept in `reading.files`.
    """
    found: list[NDArray[np.void]] = []
    reading, decoder = Reading(portion.path), Decoder(portion.fragments)

    def feed(segments: Segments) -> None:
        wanted = narrow(segments, terms.settings.ports, terms.settings.hosts)
        if len(wanted):
            found.append(keys.rows_of(wanted, terms.key))

    Reader(reading, feed, portion.count, decoder=decoder).read([portion.path])
    rows = keys.joined(found)
    return Looked(reading, decoder.fragments, put(terms.folder, "pairs", keys.as_bytes(rows)), len(rows))


class Compared(NamedTuple):
    """The result of `compare`, for one range of pairs."""

    crossing: list[NDArray[np.uint64]]  # ascending, of each file: the pairs that another file has too
    asked: NDArray[np.uint64]  # ascending: endpoints whose peers must be counted


def compare(files: Held, part: int, parts: int) -> Compared:
    """Compare the pairs of all files, in one part of all numbers of pairs.

    Args:
        files: a list of the pairs of each, from `look`, in the order of the files; it may be long.
        part: which part, from 0.
        parts: how many there are, at most keys.BUCKETS.
    """
    each = [keys.part_of(held, part, parts) for held in _files(files)]
    pairs = np.concatenate([np.empty(0, np.uint64), *[rows["pair"] for rows in each]])
    names, times = np.unique(pairs, return_counts=True)
    several = names[times > 1]
    first = keys.joined(each)
    asked = first["ends"][first["asks"] | first["tagged"]]
    return Compared([rows["pair"][np.isin(rows["pair"], several)] for rows in each], np.unique(asked))


def count(files: Held, part: int, parts: int, endpoints: Held) -> NDArray[np.int64]:
    """Return with how many others each of these endpoints talks, in one part of all numbers of pairs.

    Args:
        files: a list of the pairs of each, as for `compare`.
        part: which part, from 0.
        parts: how many there are, at most keys.BUCKETS.
        endpoints: uint64, ascending, as keys.ROW has them: they too grow with the capture.

    Returns:
        int64, one entry for each endpoint; the sum over all parts is the whole capture's.
    """
    asked = np.frombuffer(get(endpoints), np.uint64)
    rows = keys.joined(keys.part_of(held, part, parts) for held in _files(files))
    first, second = rows["ends"].T
    ends = np.concatenate([first, second[second != first]])
    ends = ends[np.isin(ends, asked)]
    return np.bincount(np.searchsorted(asked, ends), minlength=len(asked))


def _files(held: Held) -> list[Held]:
    files: list[Held] = pickle.loads(get(held))  # noqa: S301 - of our own run
    return files


class Shard(NamedTuple):
    """Some connections, which have all their packets."""

    tables: Held  # of the connections, as tables.as_bytes has them
    first: Held  # int64, ascending: the number of each one's first packet
    connections: int  # how many they are
    copies: int  # duplicates of their packets, which were left out


class Inside(NamedTuple):
    """The connections that lie in one file, and the columns of the others."""

    shard: Shard
    pieces: list[Held]  # of each partition; empty without any
    error: CaptureError | None  # why it could not be read a second time


def inside(
    terms: Terms, portion: Portion, place: tuple[int, int], crossing: NDArray[np.uint64], partitions: int
) -> Inside:
    """Make the connections of a file that lie in it.

    Args:
        terms: of the run.
        portion: the file.
        place: how many packets the files before have, and this one.
        crossing: uint64, the pairs that go on in another file.
        partitions: into how many parts to divide the columns of these.

    Returns:
        The connections, and the columns of the others; neither where the file could not be read again.
    """
    before, packets = place
    connections = Connections(ports=terms.settings.ports)
    others: list[list[Segments]] = [[] for _ in range(partitions)]

    def feed(segments: Segments) -> None:
        wanted = narrow(segments, terms.settings.ports, terms.settings.hosts)
        reasons = {number + before: one for number, one in wanted.reasons.items()}
        wanted = replace(wanted, number=wanted.number + before, reasons=reasons)
        pairs = keys.pair_keys(wanted, terms.key)
        goes_on = np.isin(pairs, crossing)
        connections.feed(wanted.take(~goes_on))
        partition = pairs % np.uint64(partitions)
        for number in range(partitions):
            rows = goes_on & (partition == number)
            if rows.any():
                others[number].append(wanted.take(rows))

    reading = Reading(portion.path)
    Reader(reading, feed, packets, decoder=Decoder(portion.fragments)).read([portion.path])
    error = next(iter(reading.files.errors()), None)
    if reading.packets == packets:
        error = None  # `look` reported it
    elif error is None or reading.packets:
        error = CaptureError(CHANGED, path=portion.path, packet=reading.packets + 1, remedy=AGAIN)
    if error is not None:
        connections, others = Connections(), [[] for _ in range(partitions)]
    pieces = [put(terms.folder, "columns", pickle.dumps(of_columns(one))) if one else b"" for one in others]
    return Inside(shard_of(terms, connections), pieces, error)


def of_columns(batches: Sequence[Segments]) -> Segments:
    """Return batches as one, in their order."""
    columns: dict[str, Any] = {
        name: np.concatenate([np.empty(0, DTYPES[name]), *[getattr(one, name) for one in batches]])
        for name in COLUMNS
    }
    reasons = {number: one for batch in batches for number, one in batch.reasons.items()}
    return Segments(**columns, reasons=reasons)


def shard_of(terms: Terms, connections: Connections) -> Shard:
    """Return connections as a shard, which can be handed on.

    Args:
        terms: of the run; their folder is where it goes.
        connections: all of whose packets have been fed.
    """
    tables = taken(connections)
    first = first_packets(tables)
    return Shard(
        put(terms.folder, "tables", as_bytes(tables)),
        put(terms.folder, "first", first.tobytes()),
        len(connections),
        connections.copies,
    )


class Across(NamedTuple):
    """Connections that go on from file to file."""

    shard: Shard
    first: NDArray[np.int64]  # ascending


def across(terms: Terms, pieces: Sequence[Held], shards: int) -> list[Across]:
    """Make the connections of a partition out of its columns.

    Args:
        terms: of the run.
        pieces: the partition's columns of each file that has any, from `inside`, in the order of the files.
        shards: into how many to divide them: judging takes more memory than making them.
    """
    each = [Connections(ports=terms.settings.ports) for _ in range(shards)]
    for held in pieces:
        segments: Segments = pickle.loads(get(held))  # noqa: S301 - of our own tasks
        for begin in range(0, len(segments), FEED):
            batch = segments.take(np.arange(begin, min(begin + FEED, len(segments))))
            # The remainder by which `inside` chose the partition says nothing of these bits.
            place = (keys.pair_keys(batch, terms.key) >> keys.HALF) % np.uint64(shards)
            for number, connections in enumerate(each):
                connections.feed(batch.take(place == number))
    made = []
    while each:
        shard = shard_of(terms, each.pop())
        made.append(Across(shard, np.frombuffer(get(shard.first), np.int64)))
    return made


def precede(first: Held, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of a file's own connections begin before each of these first packets.

    Args:
        first: the numbers of its connections' first packets, as `Shard` has them.
        others: int64, numbers of packets.
    """
    return np.searchsorted(np.frombuffer(get(first), np.int64), others)


@dataclass(frozen=True, slots=True)
class Numbered:
    """The connections of a shard with what only the whole capture shows."""

    shard: Shard
    before: int  # connections that begin in the files before this one
    among: NDArray[np.int64] | None  # first packets of those of its file that go on in another one
    numbers: NDArray[np.int64] | None  # of its connections, where they are of no single file
    peers: Held  # `Peers` of the whole capture: they grow with it, and many tasks wait at a worker

    def connections(self, settings: Settings) -> Connections:
        """Return them, by the numbers that they have in the whole capture."""
        return connections_of(self.tables(), settings.ports, _peers(self.peers))

    def tables(self) -> Tables:
        """Return their tables, by the same numbers."""
        tables = from_bytes(get(self.shard.tables))
        tables["histories"]["id"] = self._numbers_of(tables)
        return tables

    def _numbers_of(self, tables: Tables) -> NDArray[np.int64]:
        if self.among is None:
            assert self.numbers is not None
            return self.numbers
        own = np.arange(1, tables.connections + 1)
        return self.before + own + np.searchsorted(self.among, first_packets(tables))


@lru_cache(maxsize=1)
def _peers(held: Held) -> Peers:
    peers: Peers = pickle.loads(get(held))  # noqa: S301 - of our own tasks
    return peers


class ShardClasses(NamedTuple):
    """The classes of a shard."""

    number: NDArray[np.int64]  # of each connection
    path: NDArray[np.integer[Any]]  # as in Classified
    outcome: NDArray[np.integer[Any]]  # index into `outcomes`
    until_ns: NDArray[np.int64]  # as in Classified
    outcomes: list[Outcome]
    faults: Faults


def classes(terms: Terms, numbered: Numbered, now_ns: int, dropped: int) -> ShardClasses:
    """Find the classes of a shard's connections.

    Args:
        terms: of the run.
        numbered: the shard.
        now_ns: the moment for which connections are judged, since the Unix epoch.
        dropped: packets that the capture itself reports lost.
    """
    connections, faults = numbered.connections(terms.settings), Faults()
    with JUDGING:
        finder = Classes(terms.settings, faults=faults)
        found = finder.find(connections, now_ns, dropped=dropped)
    return ShardClasses(
        connections.numbers, found.path, found.outcome, found.until_ns, finder.outcomes, faults
    )


def apart(task: Callable[..., Result], *given: Any, **named: Any) -> Result:
    """Do a task in a thread of its own, and wait for it; for workers of Dask.

    These look a hundred times a second where the thread of a task is, and keep for 1,000 seconds the trees of
    all calls that they have seen. Ours are deep and unlike each other: the trees grew by 20 MB a minute, and
    took an eighth of the processor's time.

    Args:
        task: one of the tasks.
        given: its arguments.
        named: its named arguments.
    """
    done: Future[Result] = Future()

    def do() -> None:
        try:
            done.set_result(task(*given, **named))
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            done.set_exception(error)

    threading.Thread(target=do, name=task.__name__, daemon=True).start()
    return done.result()
