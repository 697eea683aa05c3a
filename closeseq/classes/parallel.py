"""The classes of many connections, found by several processes.

Split at random, every process would find nearly the same classes. But no class has connections of two
skeletons, so connections are split by skeleton, and nothing is found twice. Very many would take too much
memory that way, and are split by number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.classes.classes import Classes, Classified
from closeseq.connections.tracker import MOST_AT_ONCE
from closeseq.verdict.fault import Faults
from closeseq.workers.pool import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.classes.outcome import Outcome
    from closeseq.connections import Connections
    from closeseq.settings import Settings

TASKS = 12  # for each worker: what they take is known only when they are done


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
        tasks = by_skeleton(connections, TASKS * workers)
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


def by_skeleton(connections: Connections, number: int) -> list[NDArray[np.int64]]:
    """Return all connections in parts, those of a skeleton in one; the largest first.

    Args:
        connections: all there are, not too many to be compared at once (MOST_AT_ONCE).
        number: about how many parts to make.

    Returns:
        int64, ascending indices of each part.
    """
    found = sorted((one.connection for one in connections.skeletons()), key=len, reverse=True)
    least = max(len(connections) // (8 * number), 1)
    parts: list[list[NDArray[np.int64]]] = [[one] for one in found if len(one) >= least]
    small = [one for one in found if len(one) < least]
    for one in small:
        if len(parts) < number or not parts:
            parts.append([one])
        else:
            min(parts[-number // 2 :], key=lambda part: sum(map(len, part))).append(one)
    return [np.sort(np.concatenate(part)) for part in parts]
