"""Which tasks analyse a capture, and what passes from one to the next.

This process keeps only facts about files, and about connections that go on from one file to another. All else
stays with the tasks, or in the files that they hand on, so memory here hardly grows with the capture.
"""

from __future__ import annotations

import pickle
import secrets
from collections import Counter, deque
from concurrent.futures import BrokenExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from closeseq.classes import Classified
from closeseq.errors import WorkerError
from closeseq.reading import Reading
from closeseq.shards import tables, tasks
from closeseq.shards.keys import BUCKETS, Peers, put
from closeseq.shards.tasks import Numbered, Portion, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from closeseq.capture.chains import Chain
    from closeseq.classes import Outcome
    from closeseq.connections import Connections
    from closeseq.settings import Settings
    from closeseq.shards.keys import Held
    from closeseq.shards.tasks import Across, Inside, Looked
    from closeseq.verdict.fault import Faults

    Result = TypeVar("Result")

AT_ONCE = 256  # tasks that are with the executor; of more it need not know
# How much one task does, so that its memory is the same however many files there are. A pair that goes on in
# another file counts once in each of them.
TOGETHER = 1 << 16  # pairs, of all files, that are compared: 140 bytes each
CROSSING = 20_000  # pairs whose packets are put in order: at most 2 kB each
JUDGED = 4_000  # pairs whose connections are judged: some 5 kB each
KILLED = ("KilledWorker", "CancelledError", "FutureCancelledError", "CommClosedError")  # what Dask raises


def each(
    executor: Executor, task: Callable[..., Result], given: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """Yield the task's results for each of these arguments, in their order; AT_ONCE of them are under way.

    Args:
        executor: runs the tasks.
        task: a function of a module, which the executor's workers can import.
        given: the arguments of each call.

    Raises:
        WorkerError: the executor has lost its workers.
        Exception: whatever the task raised.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for arguments in given:
            try:
                waiting.append(executor.submit(task, *arguments))
            except OSError as error:
                if error.errno is not None:  # the system's own, such as no memory for another process
                    raise
                raise WorkerError(None) from error  # it was killed just now, and has closed its handles
            if len(waiting) >= AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor as error:
        raise WorkerError(None) from error
    except Exception as error:
        if type(error).__name__ in KILLED:
            raise WorkerError(None) from error
        raise
    finally:
        for future in waiting:
            future.cancel()


class WholeCapture(NamedTuple):
    """A capture with its connections, none of them judged yet."""

    reading: Reading  # what was read of all files
    shards: list[Numbered]  # all its connections, each in one of them
    terms: Terms  # of the run

    def connections(self) -> Connections:
        """Return all of them, by their numbers."""
        whole = tables.joined([shard.tables() for shard in self.shards])
        return tables.connections_of(whole, self.terms.settings.ports)


def shared_out(
    executor: Executor,
    chain: Chain,
    settings: Settings,
    *,
    folder: str | None = None,
    count: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> WholeCapture:
    """Make the connections of a capture by an executor's tasks.

    Args:
        executor: does the tasks.
        chain: the files.
        settings: ports, hosts, limits and timers.
        folder: URL of the folder for what tasks hand on; None: it passes through this process.
        count: stop after this many packets; None reads all.
        progress: is called with how many steps are done, and their number: two a file.

    Returns:
        What was read, and the connections in shards; a file that cannot be read to its end has its error in
        `reading.files`.

    Raises:
        CaptureError: none of the files can be read at all.
        WorkerError: the executor has lost its workers.
    """
    terms = Terms(settings, secrets.randbits(64), folder)
    steps = _Steps(2 * len(chain.paths), progress)
    portions, looked = _look(executor, terms, chain.paths, count, steps)
    errors = [error for one in looked for error in one.reading.files.errors()]
    if errors and not any(one.reading.packets for one in looked):
        raise errors[0]
    before = np.cumsum([0, *[one.reading.packets for one in looked]]).tolist()
    crossing, peers = _compared(executor, terms, looked)
    go_on = sum(map(len, crossing))
    partitions = _parts(go_on, CROSSING)
    given = [
        (terms, portion, (at, one.reading.packets), pairs, partitions)
        for portion, at, one, pairs in zip(portions, before, looked, crossing, strict=False)
    ]
    made = list(steps.of(each(executor, tasks.inside, given)))
    pieces = [[one.pieces[number] for one in made if one.pieces[number]] for number in range(partitions)]
    divided = _parts(go_on // partitions, JUDGED)
    across = each(executor, tasks.across, [(terms, one, divided) for one in pieces if one])
    others = [other for made_of_one in across for other in made_of_one]
    held = put(folder, "peers", pickle.dumps(peers))
    shards = _numbered(executor, made, others, before, held)
    reading = _reading(chain, looked, made, before)
    reading.copies = sum(one.shard.copies for one in shards)
    return WholeCapture(reading, shards, terms)


def _parts(number: int, most: int) -> int:
    """Return into how many parts so many things are divided, if each has at most `most`; at least one."""
    return max(1, -(-number // most))


class _Steps:
    """Counts finished steps, and reports progress."""

    def __init__(self, number: int, progress: Callable[[int, int | None], None] | None) -> None:
        self._number = number
        self._progress = progress
        self._done = 0

    def of(self, results: Iterator[Result]) -> Iterator[Result]:
        """Yield the same, each a step."""
        for one in results:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._number)
            yield one


def _look(
    executor: Executor, terms: Terms, paths: Sequence[str], count: int | None, steps: _Steps
) -> tuple[list[Portion], list[Looked]]:
    """Look at the files, up to `count` packets."""
    portions = [Portion(path) for path in paths]
    looked = list(steps.of(each(executor, tasks.look, [(terms, one) for one in portions])))
    for number in range(1, len(looked)):
        fragments = looked[number - 1].fragments
        if fragments is not None:  # hardly ever; then the file is looked at again, with these
            portions[number] = Portion(paths[number], fragments)
            (looked[number],) = each(executor, tasks.look, [(terms, portions[number])])
    if count is None:
        return portions, looked
    for number, one in enumerate(looked):
        if one.reading.packets >= count:
            portions[number] = Portion(paths[number], portions[number].fragments, count)
            (looked[number],) = each(executor, tasks.look, [(terms, portions[number])])
            return portions[: number + 1], looked[: number + 1]
        count -= one.reading.packets
    return portions, looked


def _compared(
    executor: Executor, terms: Terms, looked: Sequence[Looked]
) -> tuple[list[NDArray[np.uint64]], Peers]:
    """Return which pairs of each file go on in another one, and how many peers endpoints have."""
    # Hundreds of tasks wait at once, and each would have what grows with the capture once more.
    files = put(terms.folder, "files", pickle.dumps([one.pairs for one in looked]))
    parts = min(_parts(sum(one.number for one in looked), TOGETHER), BUCKETS)
    found = list(each(executor, tasks.compare, [(files, part, parts) for part in range(parts)]))
    crossing = [np.sort(np.concatenate(one)) for one in zip(*[one.crossing for one in found], strict=True)]
    asked = np.unique(np.concatenate([one.asked for one in found]))
    number = np.zeros(len(asked), np.int64)
    if len(asked):
        held = put(terms.folder, "asked", asked.tobytes())
        for counted in each(executor, tasks.count, [(files, part, parts, held) for part in range(parts)]):
            number += counted
    return crossing, Peers(terms.key, asked, number)


def _numbered(
    executor: Executor, made: Sequence[Inside], others: Sequence[Across], before: list[int], peers: Held
) -> list[Numbered]:
    """Number all connections in the order of their first packets."""
    firsts = np.sort(np.concatenate([np.empty(0, np.int64), *[one.first for one in others]]))
    edges = np.searchsorted(firsts, np.array(before) + 1)
    among = [firsts[begin:end] for begin, end in pairwise(edges)]
    shards: list[Numbered] = []
    number_of = np.empty(len(firsts), np.int64)
    so_far = 0
    given = [(one.shard.first, own) for one, own in zip(made, among, strict=True)]
    preceding = each(executor, tasks.precede, given)
    for one, own, edge, earlier in zip(made, among, edges, preceding, strict=False):
        shards.append(Numbered(one.shard, so_far, own, None, peers))
        number_of[edge : edge + len(own)] = so_far + earlier + np.arange(1, len(own) + 1)
        so_far += one.shard.connections + len(own)
    for other in others:
        numbers = number_of[np.searchsorted(firsts, other.first)]
        shards.append(Numbered(other.shard, 0, None, numbers, peers))
    return shards


def _reading(
    chain: Chain, looked: Sequence[Looked], made: Sequence[Inside], before: Sequence[int]
) -> Reading:
    """Return what was read of the whole capture; a file that was lost meanwhile counts nothing."""
    whole = Reading(chain.paths[0])
    whole.empty, whole.beside = chain.empty, chain.beside
    for path, one, inside, at in zip(chain.paths, looked, made, before, strict=False):
        file, part = whole.files.add(path, at), one.reading
        (file.error,) = (read.error for read in part.files.files)
        if inside.error is not None:
            file.error = file.error or inside.error
            continue
        for read in part.files.files:
            file.packets, file.first_ns, file.last_ns = read.packets, read.first_ns, read.last_ns
        whole.packets += part.packets
        whole.segments += part.segments
        whole.dropped += part.dropped
        whole.skipped = dict(Counter(whole.skipped) + Counter(part.skipped))
        whole.notes = dict(Counter(whole.notes) + Counter(part.notes))
        whole.first_ns = min((t for t in (whole.first_ns, part.first_ns) if t is not None), default=None)
        whole.last_ns = max((t for t in (whole.last_ns, part.last_ns) if t is not None), default=None)
        whole.ended_ns = max((t for t in (whole.ended_ns, part.ended_ns) if t is not None), default=None)
    whole.error = next(iter(whole.files.errors()), None)
    return whole


def classes(
    executor: Executor, whole: WholeCapture, connections: int, faults: Faults
) -> tuple[Classified, list[Outcome]]:
    """Return the classes of all connections, and the outcomes that these number.

    Args:
        executor: finds them, shard by shard.
        whole: the capture.
        connections: how many there are.
        faults: collects the connections at which closeseq itself fails.

    Returns:
        The class of each connection, by its index in the capture; and the distinct outcomes.

    Raises:
        WorkerError: the executor has lost its workers.
    """
    reading = whole.reading
    path, outcome, until_ns = (np.zeros(connections, np.int64) for _ in range(3))
    outcomes: dict[Outcome, int] = {}
    paths = 0
    given = [
        (whole.terms, shard, reading.end_ns or 0, reading.dropped)
        for shard in whole.shards
        if shard.shard.connections
    ]
    for found in each(executor, tasks.classes, given):
        number = np.array([outcomes.setdefault(one, len(outcomes)) for one in found.outcomes], np.int64)
        at = found.number - 1
        path[at], until_ns[at], outcome[at] = found.path + paths, found.until_ns, number[found.outcome]
        paths += int(found.path.max()) + 1
        faults.merge(found.faults)
    return Classified(np.arange(connections), path, outcome, until_ns), list(outcomes)
