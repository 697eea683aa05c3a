"""The classes of many connections, found by several processes; and texts, made by several.

Split at random, every process would find nearly the same classes. But no class has connections of two
skeletons, so connections are split by skeleton, or nearly (`Connections.kinds`), and nothing is found twice.
Very many would take too much memory that way, and are split by number. Texts come in the order of the
connections, a portion at a time: each process has its kinds in every portion, and keeps what it learned.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.classes.classes import Classes, Classified
from closeseq.connections.tracker import MOST_AT_ONCE
from closeseq.verdict.fault import Faults
from closeseq.workers.pool import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from closeseq.classes.outcome import Outcome
    from closeseq.connections import Connections
    from closeseq.settings import Settings

TASKS = 24  # for each worker: what they take is known only when they are done
FIRST, MOST = 256, 8192  # connections that are drawn before a worker sends what it has: some megabytes
NEW, TAIL = 40, 0.7  # of n connections of a kind some n ** TAIL are the first of a class, and cost NEW others


class Part(NamedTuple):
    """The classes of some connections, with numbers of their own."""

    classified: Classified
    outcomes: list[Outcome]  # that `classified` numbers
    faults: Faults  # at these connections


def find_by_several(
    connections: Connections, settings: Settings, now_ns: int, *, dropped: int, workers: int, faults: Faults
) -> tuple[Classified, list[Outcome]]:
    """Return the classes of all connections, and the outcomes that these number; see `Classes.find`.

    Args:
        connections: all there are.
        settings: timers and limits of the replays.
        now_ns: the moment for which they are judged, since the Unix epoch.
        dropped: packets that the capture itself reports lost.
        workers: how many processes, from 1.
        faults: notes the connections at which closeseq itself fails.

    Raises:
        WorkerError: a worker ended before its work was done.
    """

    def find(among: NDArray[np.int64]) -> Part:
        noted = Faults()
        finder = Classes(settings, faults=noted)
        found = finder.find(connections, now_ns, among=among, dropped=dropped)
        return Part(found, finder.outcomes, noted)

    size = len(connections)
    if size <= MOST_AT_ONCE:
        tasks = by_kind(connections.kinds(np.arange(size)), TASKS * workers)
    else:  # too many to be compared at once; what each process learns soon is little beside what it judges
        tasks = np.array_split(np.arange(size), workers)
    path, outcome, until_ns = (np.zeros(size, np.int64) for _ in range(3))
    outcomes: dict[Outcome, int] = {}
    paths = 0
    for part in in_order(find, tasks, workers):
        found = part.classified
        number = np.array([outcomes.setdefault(one, len(outcomes)) for one in part.outcomes], np.int64)
        path[found.connection], until_ns[found.connection] = found.path + paths, found.until_ns
        outcome[found.connection] = number[found.outcome]
        paths += int(found.path.max()) + 1
        faults.merge(part.faults)
    return Classified(np.arange(size), path, outcome, until_ns), list(outcomes)


class Share(NamedTuple):
    """The texts of some connections of a portion."""

    place: NDArray[np.int64]  # ascending, in the portion
    texts: list[str]
    faults: Faults


def drawn_by_several(
    connections: Connections,
    index: NDArray[np.int64],
    draw: Callable[[NDArray[np.int64]], Iterator[str]],
    *,
    workers: int,
    met: Callable[[], Faults],
    faults: Faults,
) -> Iterator[str]:
    """Yield what `draw` makes of connections, in their order.

    Args:
        connections: all there are.
        index: int64, ascending: which ones to draw.
        draw: is called with some of these, once in each worker.
        workers: how many processes.
        met: returns the connections of this process at which closeseq itself has failed since the last call.
        faults: notes the connections at which closeseq itself fails.

    Raises:
        WorkerError: a worker ended before its work was done.
    """
    mine = shares(connections.kinds(index), workers)
    drawing: dict[int, Iterator[str]] = {}  # in a worker: what its share is drawn by
    begin, size, tasks = 0, FIRST, []
    while begin < len(index):
        tasks += [(slice(begin, begin + size), share) for share in range(workers)]
        begin, size = begin + size, min(2 * size, MOST)

    def some(task: tuple[slice, int]) -> Share:
        portion, share = task
        if share not in drawing:
            met()  # what this process has inherited
            drawing[share] = draw(index[mine == share])
        place = np.flatnonzero(mine[portion] == share)
        return Share(place, [*itertools.islice(drawing[share], len(place))], met())

    found = in_order(some, tasks, workers, fixed=True)
    for portion, _ in tasks[::workers]:
        texts = [""] * len(index[portion])
        for one in itertools.islice(found, workers):
            faults.merge(one.faults)
            for place, text in zip(one.place.tolist(), one.texts, strict=True):
                texts[place] = text
        yield from texts
    next(found, None)  # the workers end; left as it is, it would kill them before they have told their times


def shares(kinds: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """Share connections out, those of a kind to one worker; of a kind that is too much for one to all.

    Args:
        kinds: int64, for each connection.
        workers: how many there are.

    Returns:
        int64, the worker of each connection, from 0.
    """
    place, cost = costs(kinds)
    worker, load = np.empty(len(cost), np.int64), [0.0] * workers
    much = cost > cost.sum() / workers / 2
    for kind in np.argsort(-cost, kind="stable").tolist():
        if not much[kind]:
            worker[kind] = load.index(min(load))
            load[worker[kind]] += cost[kind]
    return np.where(much[place], np.arange(len(kinds)) % workers, worker[place])


def costs(kinds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what judging the connections of each kind will cost, about.

    Args:
        kinds: int64, for each connection.

    Returns:
        int64, the place of each connection's kind; and what each kind costs, in connections of known classes.
    """
    _, place, number = np.unique(kinds, return_inverse=True, return_counts=True)
    return place, number + NEW * number**TAIL


def by_kind(kinds: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
    """Return connections in parts, those of a kind in one; the costliest first.

    Args:
        kinds: int64, for each connection.
        number: about how many parts to make.

    Returns:
        int64, the ascending places of each part's connections in `kinds`.
    """
    place, cost = costs(kinds)
    part = np.empty(len(cost), np.int64)
    loads = [(0.0, one) for one in range(min(number, len(cost)))]
    for kind in np.argsort(-cost, kind="stable").tolist():
        load, least = loads[0]
        part[kind] = least
        heapq.heapreplace(loads, (load + float(cost[kind]), least))
    order = np.argsort(part[place], kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(part[place][order])) + 1)
    return [parts[one] for _, one in sorted(loads, reverse=True)]  # none is empty: kinds are as many at least
