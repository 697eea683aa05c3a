"""The pipeline end to end: a capture in, analysed connections out.

Up to the events all of it works on whole batches. Replay and verdict of a connection follow when somebody
asks for it, and the counts of a whole capture come of judging one connection of each class (see classes/).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self, TypeVar, cast, overload

import numpy as np

from closeseq.classes import Classes, Drawer
from closeseq.classes.members import ConnectionClass, ConnectionClasses
from closeseq.connection import Connection
from closeseq.connections import Connections
from closeseq.judging import Judging
from closeseq.reading import BatchCounts, Halves, Reader, Reading
from closeseq.settings import SECOND, Limits, Settings, nanoseconds, settings_of
from closeseq.tables.columns import NumpyTables, joined, tabulated
from closeseq.verdict.fault import Faults
from closeseq.workers.pool import can_fork, in_order
from closeseq.workers.processors import processors

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from closeseq.capture.chains import Chain
    from closeseq.classes import Classified, Outcome
    from closeseq.connections.conversation import Conversation
    from closeseq.connections.idling import Closes
    from closeseq.connections.pairs import TablePart
    from closeseq.connections.strays import Encounters
    from closeseq.errors import CaptureError
    from closeseq.packets.segments import Segments
    from closeseq.shards.plan import WholeCapture
    from closeseq.verdict.population.rules import PopulationFinding

    Drawn = TypeVar("Drawn")

FEW_FOR_ALL = 500  # connections, for which starting other processes costs more than they save
AT_ONCE = 8192  # connections that a worker draws before it sends what it has; some megabytes of records
PARTS = 8  # for each worker, at least
TOGETHER = 2048  # connections of which `gathered` makes one thing


def analyze(
    path: str,
    *more: str,
    port: int | Iterable[int] | None = None,
    host: str | Iterable[str] | None = None,
    stuck_after: float = 60.0,
    os: str = "linux",
    time_wait: float | None = None,
    fin_timeout: float | None = None,
    ephemeral_ports: int | None = None,
    count: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    executor: Executor | None = None,
) -> Analysis:
    """Analyse a saved capture, in one file or in several that continue each other.

    Args:
        path: a pcap or pcapng file, plain or compressed; a directory of such files, or a pattern for their
            names; "-" is standard input, a capture or a list of names.
        more: other files of the same capture, in any order: their packets' times decide.
        port: look only at connections with one of these ports, and take it for the server's where the
            beginning of a connection was not captured.
        host: look only at connections with one of these IP addresses.
        stuck_after: from how many seconds on a wait counts as stuck.
        os: whose timers apply: linux, macos, bsd or windows.
        time_wait: seconds that TIME_WAIT lasts (2MSL, RFC 9293 3.6.1), instead of the system's.
        fin_timeout: seconds that FIN_WAIT_2 lasts without an owner, instead of the system's.
        ephemeral_ports: how many local ports a client has to connect from, instead of the system's.
        count: stop after this many packets.
        progress: is called after each batch with the bytes consumed and the size of all, if known; with an
            executor, after each file with how many are done.
        executor: reads the files, and finds the classes that the counts are made of: one task a file, in its
            threads, its processes or those of a cluster. The result is the same.

    Returns:
        The analysis; where a file is damaged in the middle, that of all before, and of the other files, with
        `reading.error`. Packet numbers run on from file to file; `reading.files` finds a packet's file.

    Raises:
        CaptureError: nothing can be read at all.
        WorkerError: the executor has lost its workers.
        ValueError: files that overlap in time, which are several captures (see `chains`); a port or a number
            of packets that is none, a host that is no IP address, a time below zero, or a system that is not
            known.
    """
    settings = settings_of(
        port=port,
        host=host,
        stuck_after=stuck_after,
        os=os,
        time_wait=time_wait,
        fin_timeout=fin_timeout,
        ephemeral_ports=ephemeral_ports,
    )
    if count is not None and count < 0:
        raise ValueError(f"{count} is not a number of packets")
    found, broken = _found_chains((path, *more))
    if len(found) > 1:
        first, then = found[0].paths[0], found[1].paths[0]
        raise ValueError(f"{first} and {then} overlap in time: analyse each by itself, see closeseq.chains")
    if not found:
        raise broken[0]
    if executor is None:
        analysis = analyze_chain(found[0], settings, count=count, progress=progress)
    else:
        analysis = SharedAnalysis.of(found[0], settings, executor, count=count, progress=progress)
    if analysis.reading.error is None and broken:
        analysis.reading.error = broken[0]
    return analysis


def chains(*paths: str) -> list[tuple[str, ...]]:
    """Return which capture files continue each other: each tuple is one capture, for `analyze`.

    Files that follow one another are of one capture, in the order of their times; files that overlap are of
    different ones. Of a name that stands for several files (a directory, a pattern, a list on standard input)
    all are looked at.

    Args:
        paths: as for `analyze`.

    Returns:
        The captures; last, each by itself, the files that cannot be read: `analyze` raises why.
    """
    found, broken = _found_chains(paths)
    return [chain.paths for chain in found] + [(error.path,) for error in broken]


def from_script(script: str, *, now: float | None = None, stuck_after: float = 60.0) -> Connection:
    """Analyse a connection written down as a script, such as "C:S S:SA C:A C:FA S:A".

    Args:
        script: one word a segment; closeseq/script.py explains the language.
        now: for which moment, in seconds after the connection began; by default its last packet's.
        stuck_after: from how many seconds on a wait counts as stuck.

    Returns:
        The script's first connection.

    Raises:
        ScriptError: a word of the script is none, or no segment can do what it asks for.
        ValueError: `stuck_after` is below zero.
    """
    from closeseq.script import conversation

    found = conversation(script)
    now_ns = found.last_ns if now is None else found.first_ns + round(now * SECOND)
    settings = Settings(limits=Limits(stuck_after_ns=nanoseconds(stuck_after)))
    return Connection(found, settings, now_ns, capture="script")


def analyze_chain(
    chain: Chain,
    settings: Settings,
    *,
    count: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    jobs: int | None = 1,
) -> Analysis:
    """Analyse files that are one capture.

    Args:
        chain: the files, from `find_chains`.
        settings: ports, hosts, limits and timers.
        count: stop after this many packets; None reads all.
        progress: is called after each batch with the bytes consumed and the size of all, if known.
        jobs: how many processes judge connections, as for `Analysis`; with more than one, one more reads the
            files ahead, and finds which connection each segment is of.

    Returns:
        The analysis; where a file is damaged, that of what was read, with `reading.error`.

    Raises:
        CaptureError: none of them can be read at all.
        WorkerError: the process that reads ended before its work was done.
    """
    analysis = Analysis(chain.paths[0], settings, jobs)
    reading = analysis.reading
    reading.empty, reading.beside = chain.empty, chain.beside
    halves = analysis.halves if (processors() if jobs is None else jobs) > 1 else None
    Reader(reading, analysis.feed, count, progress, halves=halves).read(chain.paths)
    errors = reading.files.errors()
    if errors and not reading.packets:
        raise errors[0]
    reading.error = errors[0] if errors else None
    return analysis


def _found_chains(paths: Sequence[str]) -> tuple[list[Chain], list[CaptureError]]:
    from closeseq.capture.chains import find_chains
    from closeseq.capture.names import files_named

    named = files_named(paths)
    found, broken = find_chains(named.paths)
    return found, named.broken + broken


class Analysis(Judging, Sequence[Connection]):
    """The connections of one capture, in one file or several, in the order of their first packets.

    Batches are fed with `feed`; after that it is a sequence of `Connection`s. The counts `verdicts`,
    `shapes` and `findings` take one replay a class, so they are fast for any size.

    Args:
        path: the capture's name.
        settings: what to look at, and what counts as long.
        jobs: how many processes judge connections; None for as many as there are processors, where there are
            enough connections to make it worth while.
    """

    def __init__(self, path: str = "", settings: Settings | None = None, jobs: int | None = 1) -> None:
        settings = settings or Settings()
        super().__init__(settings, Reading(path), Connections(ports=settings.ports, scratch=True))
        self.path = path
        self.jobs = jobs

    @classmethod
    def of_some(cls, connections: Connections, reading: Reading, settings: Settings) -> Self:
        """Return the analysis of some connections of a capture, by their numbers in it.

        Args:
            connections: those of a shard, each with its number in the whole capture.
            reading: what was read of the whole capture.
            settings: ports, hosts, limits and timers.
        """
        made = cls(reading.path, settings)
        made.reading, made._connections = reading, connections
        return made

    @property
    def numbers(self) -> list[int]:
        """The number of each connection in its capture, as `Connection.id`."""
        numbers: list[int] = self._connections.numbers.tolist()
        return numbers

    def feed(self, segments: Segments) -> None:
        """Add a batch of segments, which follow those fed before.

        What was computed of the earlier ones (`classes`, `closes`, the counts) is computed anew.
        """
        self.reading.see(BatchCounts.of(segments))
        self._add(segments)
        self.__dict__.pop("closes", None)
        self.__dict__.pop("classes", None)  # they are of what has been fed

    @property
    def halves(self) -> Halves:
        """How segments are fed to a new analysis, once and for all, by two processes."""
        connections = self._connections

        def join(part: TablePart) -> None:
            connections.join(part)
            self.reading.copies = connections.copies

        return Halves(
            lambda segments: connections.assign(self._wanted(segments)),
            connections.follow,
            connections.parts,
            join,
        )

    @property
    def now_ns(self) -> int:
        """The moment for which the states hold: when the capture ended, since the Unix epoch."""
        return self.reading.end_ns or 0

    @overload
    def __getitem__(self, index: int) -> Connection: ...
    @overload
    def __getitem__(self, index: slice) -> list[Connection]: ...
    def __getitem__(self, index: int | slice) -> Connection | list[Connection]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            found = list(self.among(sorted(chosen)))
            return found if chosen.step > 0 else found[::-1]
        if not -len(self) <= index < len(self):
            raise IndexError(f"connection {index} of {len(self)}")
        return self._connection(index % len(self))

    def __iter__(self) -> Iterator[Connection]:
        return self.among(range(len(self)))

    def among(self, indices: Sequence[int]) -> Iterator[Connection]:
        """Yield the connections with these indices (from 0, ascending): in less time than one by one."""
        conversations = self._connections.conversations(np.asarray(indices, np.int64))
        return map(self._analysed, conversations)

    def ordered(self, classes: Sequence[Sequence[int]]) -> list[int]:
        """Return the indices of the connections of several classes, ascending."""
        indices: list[int] = np.sort(np.concatenate(classes)).tolist() if classes else []
        return indices

    def judged(self, indices: Sequence[int] | None = None, *, soon: bool = True) -> Iterator[Connection]:
        """Yield connections as `among` does, each with its verdict and findings at hand.

        Those that close alike are judged together, in less time than one by one.

        Args:
            indices: which ones, ascending; None for all.
            soon: whether the first of them are waited for.
        """
        chosen = range(len(self)) if indices is None else indices
        return self._judged(self._finder, chosen, self._analysed, self.now_ns, soon=soon)

    @cached_property
    def _finder(self) -> Classes:
        """Judges connections; what it learned of some holds for others."""
        return Classes(self.settings, worded=True)

    def drawn(self, draw: Callable[[Connection], Drawn], indices: Sequence[int]) -> Iterator[Drawn]:
        """Yield what `draw` makes of the connections with these indices, in their order.

        Args:
            draw: works in other processes if there are many connections, so that it must change nothing.
            indices: which ones, ascending.

        Raises:
            WorkerError: another process ended before its work was done.
        """
        if not isinstance(draw, Drawer) or self.reading.files.several:  # texts may name the file of a packet
            return self._shared_out(lambda part, soon: map(draw, self.judged(part, soon=soon)), indices)
        return cast("Iterator[Drawn]", self._texts(draw, np.asarray(indices, np.int64)))

    def _texts(self, drawing: Drawer, chosen: NDArray[np.int64]) -> Iterator[str]:
        """Yield the text of each connection; those that close alike are drawn once."""
        workers = self._workers(len(chosen))
        if workers == 1:
            return self._texts_of(drawing, chosen, soon=True)
        from closeseq.classes.parallel import drawn_by_several

        def some(part: NDArray[np.int64]) -> Iterator[str]:
            return self._texts_of(drawing, part, soon=True)

        def met() -> Faults:
            found, self.faults = self.faults, Faults()
            return found

        return drawn_by_several(self._connections, chosen, some, workers=workers, met=met, faults=self.faults)

    def _texts_of(self, drawing: Drawer, chosen: NDArray[np.int64], *, soon: bool) -> Iterator[str]:
        finder = self._drawers.get(drawing)
        if finder is None:
            finder = self._drawers[drawing] = Classes(self.settings, drawing=drawing, capture=self.path)
        return finder.drawn(
            self._connections,
            chosen,
            self._analysed,
            self.now_ns,
            dropped=self.reading.dropped,
            soon=soon,
        )

    @cached_property
    def _drawers(self) -> dict[Drawer, Classes]:
        """What draws connections, by how; what it learned of some holds for others."""
        return {}

    def gathered(
        self, make: Callable[[Iterable[Connection]], Drawn], indices: Sequence[int]
    ) -> Iterator[Drawn]:
        """Yield what `make` makes of some connections at once, at most TOGETHER, in their order.

        Args:
            make: looks at all that it is given; it works in other processes if there are many connections, so
                that it must change nothing.
            indices: which ones, ascending.

        Raises:
            WorkerError: another process ended before its work was done.
        """
        return self._shared_out(
            lambda part, soon: map(make, _in_portions(self.judged(part, soon=soon))), indices
        )

    def _shared_out(
        self, work: Callable[[Sequence[int], bool], Iterator[Drawn]], indices: Sequence[int]
    ) -> Iterator[Drawn]:
        """Yield what `work` makes of connections, by several processes where there are many.

        Args:
            work: is called with some of the indices, and whether the first of these are waited for.
            indices: of all of them, ascending.
        """
        workers = self._workers(len(indices))
        if workers == 1:
            yield from work(indices, True)
            return
        size = max(1, min(AT_ONCE, len(indices) // (PARTS * workers)))
        # All workers know from the start what is learned of the first ones.
        yield from work(indices[:size], True)

        def some(part: Sequence[int]) -> tuple[list[Drawn], Faults]:
            self.faults = Faults()
            return list(work(part, False)), self.faults

        parts = [indices[at : at + size] for at in range(size, len(indices), size)]
        for found, faults in in_order(some, parts, workers):
            self.faults.merge(faults)
            yield from found

    def tables(self, indices: Sequence[int] | None = None) -> NumpyTables:
        """Return connections, transitions, events and findings as columns of numpy.

        pandas, polars and duckdb take each as it is; `closeseq explain tables` describes the columns.

        Args:
            indices: of which connections, ascending; None for all.

        Raises:
            WorkerError: another process ended before its work was done.
        """
        chosen = range(len(self)) if indices is None else indices
        return joined(list(self.gathered(tabulated, chosen)))

    def _workers(self, connections: int) -> int:
        """Return how many processes are to judge so many connections."""
        if not can_fork() or connections < 2:  # noqa: PLR2004 - nothing to share
            return 1
        if self.jobs is None:
            return processors() if connections >= FEW_FOR_ALL else 1
        return self.jobs

    def _connection(self, index: int) -> Connection:
        return self._analysed(self._connections.conversation(index))

    def _analysed(self, conversation: Conversation) -> Connection:
        dropped = self.reading.dropped
        return Connection(
            conversation,
            self.settings,
            self.now_ns,
            capture=self.path,
            dropped=dropped,
            faults=self.faults,
            files=self.reading.files,
        )

    @cached_property
    def classes(self) -> Sequence[ConnectionClass]:
        """All connections in classes (see classes/outcome.py), in the order of their first ones.

        Raises:
            WorkerError: another process ended before its work was done; as do the counts made of classes.
        """
        found, outcomes = self._find_classes()
        return ConnectionClasses(found.groups(), outcomes, self)

    def _find_classes(self) -> tuple[Classified, Sequence[Outcome]]:
        """Return the class of each connection, and the outcomes that these number."""
        workers = self._workers(len(self))
        if workers > 1:
            from closeseq.classes.parallel import find_by_several

            return find_by_several(
                self._connections,
                self.settings,
                self.now_ns,
                dropped=self.reading.dropped,
                workers=workers,
                faults=self.faults,
            )
        finder = Classes(self.settings, faults=self.faults)
        found = finder.find(self._connections, self.now_ns, dropped=self.reading.dropped)
        return found, finder.outcomes

    @cached_property
    def closes(self) -> Closes:
        """Who closed each connection first, and after which silence, as columns."""
        return self._connections.closes()

    @property
    def suspects(self) -> Encounters:
        """The connections that may continue others, which a NAT has forgotten; see connections/strays.py."""
        return self._connections.suspects()

    @property
    def population(self) -> list[PopulationFinding]:
        """What the connections show together: idle timeouts, ports that run out."""
        from closeseq.verdict.population.rules import populations

        return populations(self.closes, self.settings, self._connections.strays())

    @property
    def losses(self) -> tuple[int, int, int]:
        """Segments lost between clients and capture point, between it and the servers, and out of order."""
        return self._connections.losses()

    @property
    def verdicts(self) -> Counter[str]:
        """How many connections have each verdict."""
        return self._count(lambda outcome: (outcome.verdict,))

    @property
    def shapes(self) -> Counter[str]:
        """How many connections have each shape."""
        return self._count(lambda outcome: (outcome.shape,))

    @property
    def findings(self) -> Counter[str]:
        """How many connections have each finding."""
        return self._count(lambda outcome: {finding.code for finding in outcome.findings})

    @property
    def failed(self) -> int:
        """At how many connections closeseq itself has failed, of those that were judged."""
        return len(self.faults)

    def _count(self, codes: Callable[[Outcome], Iterable[str]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for one in self.classes:
            for code in codes(one.outcome):
                counts[code] += len(one)
        return Counter(dict(counts.most_common()))

    def problems(self) -> Iterator[Connection]:
        """Return the connections with a problem to fix, in the order of their first packets.

        Raises:
            WorkerError: another process ended before its work was done.
        """
        found = (one.members for one in self.classes if one.outcome.has_problem)
        return self.among(sorted(i for members in found for i in members))


def _in_portions(connections: Iterator[Connection]) -> Iterator[Iterator[Connection]]:
    """Yield TOGETHER connections at a time, each of which is made only when it is looked at."""
    for first in connections:
        yield itertools.chain([first], itertools.islice(connections, TOGETHER - 1))


class SharedAnalysis(Analysis):
    """An analysis of which an executor's tasks did a part, and find the classes."""

    _whole: WholeCapture
    _executor: Executor

    @classmethod
    def of(
        cls,
        chain: Chain,
        settings: Settings,
        executor: Executor,
        *,
        count: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Self:
        """Analyse files that are one capture, one task a file.

        Args:
            chain: the files, from `find_chains`.
            settings: ports, hosts, limits and timers.
            executor: runs the tasks.
            count: stop after this many packets; None reads all.
            progress: is called after each file with how many are done and how many there are.

        Raises:
            CaptureError: none of the files can be read at all.
            WorkerError: the executor has lost its workers.
        """
        from closeseq.shards.plan import shared_out

        whole = shared_out(executor, chain, settings, count=count, progress=progress)
        made = cls(chain.paths[0], settings)
        made._executor, made._whole = executor, whole
        made.reading, made._connections = whole.reading, whole.connections()
        return made

    def _find_classes(self) -> tuple[Classified, Sequence[Outcome]]:
        from closeseq.shards.plan import classes

        return classes(self._executor, self._whole, len(self), self.faults)
