"""All connections of a live capture: batches of packets and the clock go in, updates come out.

A connection is judged when it has been quiet for a moment, when a timer may change its verdict, and at the
latest a while after its last event. Many connections are judged at once, and the replay of one holds for all
that go the same way, also later (see classes/).

Memory is bounded: finished connections are dropped after a while, and when full, the longest idle.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from closeseq.classes import Classes
from closeseq.connections import Connections
from closeseq.connections.state import ColumnTable, column
from closeseq.connections.steps import FAR_NS
from closeseq.judging import Judging
from closeseq.reading import BatchCounts, Reading
from closeseq.settings import SECOND, Settings
from closeseq.verdict.model import FindingCode
from closeseq.watch.census import Census
from closeseq.watch.counts import SocketCounts, TimeWaitCounts
from closeseq.watch.updates import Patterns, Update, UpdateKind, Updates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.conversation import Conversation
    from closeseq.packets.segments import Segments
    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.updates import Pattern

FINDINGS = tuple(FindingCode)
UNREPORTED, REPORTED_STUCK, REPORTED_CLOSED = 0, 1, 2
# The update that is due for a connection. Where not all can be reported at once, lower ones come first.
NOTHING, PENDING_REVISED, PENDING_STUCK, PENDING_PROBLEM, PENDING_CLOSED = 0, 1, 2, 3, 4


class Tracked(ColumnTable):
    """What is kept of each connection: one row each, as in `Connections`."""

    pattern: NDArray[np.int32] = column(np.int32, -1)  # index into Patterns; -1: not judged yet
    due_ns: NDArray[np.int64] = column(np.int64, FAR_NS)  # when to judge it again, since the Unix epoch
    timer_ns: NDArray[np.int64] = column(
        np.int64, FAR_NS
    )  # if finished: when the timer of its last socket ends
    judged_ns: NDArray[np.int64] = column(np.int64)  # when it was judged last
    event: NDArray[np.int64] = column(np.int64, -1)  # its last event when it was judged
    pending: NDArray[np.uint8] = column(np.uint8, NOTHING)  # the update that is due
    reported: NDArray[np.uint8] = column(np.uint8, UNREPORTED)  # the last update that was reported
    reported_pattern: NDArray[np.int32] = column(np.int32, -1)  # its pattern then
    reported_last_ns: NDArray[np.int64] = column(np.int64)  # the time of its last packet then
    counted: NDArray[np.uint64] = column(np.uint64)  # the findings that `new_findings` has returned: bits


SETTLE_NS = 300_000_000  # of silence before a close is reported: a lost FIN is resent sooner (Linux: 200 ms)
FIRST_LOOK_NS = 1 * SECOND  # after which a connection is judged even if it is never quiet
ROUTINE_NS = 5 * SECOND  # after which one with nothing but traffic is judged again
LINGER_NS = 10 * SECOND  # for which a finished connection is kept at least, in case a late packet comes
MOST_CONNECTIONS = 1 << 17
MOST_PATTERNS = 4096
SMALL = 16_384  # connections; with fewer there is no point in dropping any


class Monitor(Judging):
    """Follows all connections that are going on, and those that ended a moment ago.

    Args:
        settings: ports, hosts, limits and timers; the defaults if None.
        capture: the name of the interface or file.
        most: how many connections to keep at most.
    """

    def __init__(
        self, settings: Settings | None = None, *, capture: str = "", most: int = MOST_CONNECTIONS
    ) -> None:
        settings = settings or Settings()
        super().__init__(settings, Reading(capture), Connections(ports=settings.ports))
        self.evicted = 0  # connections dropped unfinished
        self._most = max(most, 1)
        self._room = min(self._most, SMALL)  # connections; with more, some are dropped if possible
        self._tracked = Tracked()
        self._classes = Classes(self.settings, kept=True, faults=self.faults)
        self._judgements = Classes(self.settings, faults=self.faults, worded=True)
        self._patterns = Patterns()
        self._pattern_of: list[int] = []  # of each outcome of the classes
        self._dropped: Counter[int] = Counter()  # connections that were dropped, by pattern
        self._past = SocketCounts()  # those whose patterns were dropped too
        self._most_patterns = MOST_PATTERNS
        self._time_wait = TimeWaitCounts()
        self._census = Census(settings)
        self._ongoing = True
        self._now_ns = 0
        self.changed = np.empty(0, np.int64)  # numbers of the connections to which the last batch added

    # ------------------------------------------------------------------------------------ packets

    def feed(self, packets: int, segments: Segments) -> None:
        """Add a batch: its number of packets, and the TCP segments in them.

        Args:
            packets: how many, of any protocol.
            segments: TCP segments, one row each, which follow those fed before.
        """
        counts = BatchCounts.of(segments)
        self.reading.add(packets, counts)
        self.changed = np.empty(0, np.int64)
        if not len(segments):
            return
        self.reading.see(counts)
        self._add(segments)
        self._touch(self._connections.touched)
        self.changed = self._connections.numbers[self._connections.touched]
        replaced, last_ns = self._connections.replaced, int(segments.time_ns.max())
        self._tracked.due_ns[replaced] = np.minimum(self._tracked.due_ns[replaced], last_ns + SETTLE_NS)
        if len(self) > self._room:
            self._make_room(last_ns)

    def _touch(self, touched: NDArray[np.int64]) -> None:
        """Schedule the judging of the connections to which a batch added."""
        connections, tracked = self._connections, self._tracked
        tracked.grow(len(self) - len(tracked))
        if not len(touched):
            return
        last_ns, event = connections.last_ns[touched], connections.last_event[touched]
        unjudged = tracked.pattern[touched] < 0
        eventful = unjudged | (event != tracked.event[touched])
        tracked.event[touched] = event
        latest = np.where(unjudged, connections.first_ns[touched], tracked.judged_ns[touched]) + FIRST_LOOK_NS
        quiet = np.minimum(last_ns + SETTLE_NS, np.maximum(latest, last_ns))
        routine = np.minimum(tracked.due_ns[touched], last_ns + ROUTINE_NS)
        tracked.due_ns[touched] = np.where(eventful, quiet, routine)
        tracked.pending[touched[eventful]] = NOTHING  # as far as it was judged

    # ---------------------------------------------------------------------------------- the clock

    @property
    def unjudged(self) -> int:
        """How many connections have not been judged at all so far."""
        return int(np.count_nonzero(self._tracked.pattern < 0))

    @property
    def backlog(self) -> int:
        """How many connections have an update that is due and not reported."""
        return int(np.count_nonzero(self._tracked.pending))

    def tick(self, now_ns: int, most: int | None = None) -> list[Updates]:
        """Judge what is due, and return updates: `judge`, then `report`.

        Args:
            now_ns: since the Unix epoch.
            most: as in `report`.
        """
        self.judge(now_ns)
        return self.report(most)

    def judge(self, now_ns: int, most: int | None = None) -> int:
        """Judge the connections that are due, and return their number.

        Args:
            now_ns: since the Unix epoch.
            most: judge at most so many, the longest due; the others stay due.
        """
        self._now_ns = now_ns
        due = np.flatnonzero(self._tracked.due_ns <= now_ns)
        if most is not None and len(due) > most:
            due = np.sort(due[np.argpartition(self._tracked.due_ns[due], most)[:most]])
        if len(due):
            self._judge(due, now_ns)
        if len(self._patterns) > self._most_patterns:
            self._drop_patterns()
        return len(due)

    def end(self, now_ns: int) -> list[Updates]:
        """End monitoring: `begin_end`, `judge`, and `last_updates`.

        Args:
            now_ns: since the Unix epoch.
        """
        self.begin_end(now_ns)
        self.judge(now_ns)
        return self.last_updates()

    def begin_end(self, now_ns: int) -> None:
        """Make all connections due for `judge`, as monitoring ends.

        First those that were never judged, then those that are not over. A caller without time for all may
        stop: the others stay as they were judged last.

        Args:
            now_ns: since the Unix epoch.
        """
        self._now_ns, self._ongoing = now_ns, False
        # All are judged again: other connections may meanwhile show which endpoint of this one is the client.
        tracked = self._tracked
        tracked.due_ns[:] = np.where(tracked.reported == REPORTED_CLOSED, 1, 0)
        tracked.due_ns[tracked.pattern < 0] = -1

    def last_updates(self) -> list[Updates]:
        """Return the updates that were not reported yet, then all open connections, then late packets."""
        tracked = self._tracked
        updates = self.report()
        updates += self._updates(
            UpdateKind.OPEN, np.flatnonzero((tracked.reported != REPORTED_CLOSED) & (tracked.pattern >= 0))
        )
        return updates + list(
            self._updates(
                UpdateKind.MORE,
                np.flatnonzero(
                    (self._connections.last_ns > tracked.reported_last_ns) & (tracked.pattern >= 0)
                ),
            )
        )

    def connection(self, index: int, kind: UpdateKind) -> Update:
        """Return one connection as it stands now.

        Args:
            index: its row, as in `Updates.indices`; it changes when connections are dropped.
            kind: is set as the update's `kind`.
        """
        return next(self.connections([index], kind))

    def numbered(self, numbers: NDArray[np.int64], kind: UpdateKind) -> Iterator[Update]:
        """Yield connections as they stand now, but for those dropped meanwhile; by ascending number.

        Args:
            numbers: int64, those of the connections in the capture, as `Connection.id`.
            kind: is set as the `kind` of each update.
        """
        there = self._connections.numbers
        yield from self.connections(np.flatnonzero(np.isin(there, numbers)).tolist(), kind)

    def connections(self, indices: Sequence[int], kind: UpdateKind) -> Iterator[Update]:
        """Yield connections as they stand now.

        Args:
            indices: their rows, ascending, as in `Updates.indices`; they change when connections are dropped.
            kind: is set as the `kind` of each update.
        """

        def seen(conversation: Conversation) -> Update:
            made = Update(
                conversation,
                self.settings,
                self._now_ns,
                capture=self.reading.path,
                dropped=self.reading.dropped,
                ongoing=self._ongoing,
                faults=self.faults,
                files=self.reading.files,
            )
            made.kind, made.as_of_ns = kind, self._now_ns
            return made

        return self._judged(self._judgements, indices, seen, self._now_ns, ongoing=self._ongoing)

    def _judge(self, due: NDArray[np.int64], now_ns: int) -> None:
        """Judge these connections again (ascending indices), and set their updates."""
        tracked, last_ns = self._tracked, self._connections.last_ns
        until_ns = self._find_patterns(due, now_ns)
        tracked.judged_ns[due] = now_ns
        pattern = tracked.pattern[due]
        over = self._where(pattern, lambda one: one.ended)
        # A SYN that is never answered does not end by itself: it counts as over after --stuck-after.
        unanswered = self._where(pattern, lambda one: one.verdict == "unanswered")
        over |= unanswered & (now_ns - last_ns[due] >= self.settings.limits.stuck_after_ns)
        stuck = self._where(pattern, lambda one: bool(one.stuck)) & ~over
        reported = tracked.reported[due]

        self._schedule(due, over, until_ns, now_ns)
        grave = self._where(pattern, lambda one: bool(one.problems))
        tracked.pending[due] = np.where(
            over & (reported != REPORTED_CLOSED), np.where(grave, PENDING_PROBLEM, PENDING_CLOSED), NOTHING
        )
        tracked.pending[self._newly_stuck(due[stuck & (reported != REPORTED_CLOSED)])] = PENDING_STUCK
        tracked.pending[self._contradicted(due[reported == REPORTED_CLOSED])] = PENDING_REVISED

    def report(self, most: int | None = None) -> list[Updates]:
        """Return the updates that are due, and mark them as reported.

        Args:
            most: of at most so many connections: first the revised, then the stuck, then those that closed
                with a problem, and of each kind those quiet for longest. The others stay due.
        """
        tracked = self._tracked
        waiting = np.flatnonzero(tracked.pending)
        if most is not None and len(waiting) > most:
            order = np.lexsort((self._connections.last_ns[waiting], tracked.pending[waiting]))
            waiting = np.sort(waiting[order[:most]])
        updates, what = list[Updates](), tracked.pending[waiting]
        for kind, codes, state in (
            (UpdateKind.REVISED, (PENDING_REVISED,), REPORTED_CLOSED),
            (UpdateKind.STUCK, (PENDING_STUCK,), REPORTED_STUCK),
            (UpdateKind.CLOSED, (PENDING_PROBLEM, PENDING_CLOSED), REPORTED_CLOSED),
        ):
            indices = waiting[np.isin(what, codes)]
            updates += self._updates(kind, indices)
            tracked.reported[indices] = state
        tracked.pending[waiting] = NOTHING
        return updates

    def _find_patterns(self, due: NDArray[np.int64], now_ns: int) -> NDArray[np.int64]:
        """Set the patterns of connections; return until when these hold if no packet comes."""
        found = self._classes.find(
            self._connections, now_ns, among=due, dropped=self.reading.dropped, ongoing=self._ongoing
        )
        for outcome in self._classes.outcomes[len(self._pattern_of) :]:
            self._pattern_of.append(self._patterns.number(outcome))
        self._tracked.pattern[due] = np.array(self._pattern_of, np.int32)[found.outcome]
        return found.until_ns

    def _schedule(
        self, due: NDArray[np.int64], over: NDArray[np.bool_], until_ns: NDArray[np.int64], now_ns: int
    ) -> None:
        """Schedule when to judge connections again though no packet comes."""
        tracked, timers = self._tracked, self.settings.timers
        gone = self._where(tracked.pattern[due], lambda one: one.gone)
        tracked.due_ns[due] = np.where(gone, FAR_NS, until_ns)
        waits = (timers.time_wait_ns, timers.fin_timeout_ns)
        tracked.timer_ns[due] = FAR_NS
        running = due[over & ~gone]
        tracked.timer_ns[running] = self._connections.times(running, now_ns, waits)

    def _newly_stuck(self, stuck: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of these connections that were not reported as stuck, or as stuck in another way.

        What only time adds is not reported again: where one endpoint is stuck in CLOSE_WAIT, its peer soon is
        in FIN_WAIT_2.
        """
        tracked = self._tracked
        new = tracked.reported[stuck] == UNREPORTED
        new |= (self._connections.last_ns[stuck] > tracked.reported_last_ns[stuck]) & self._differ(
            stuck, lambda was, now: bool(now.stuck - was.stuck)
        )
        found: NDArray[np.int64] = stuck[new]
        return found

    def _contradicted(self, reported: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of these connections whose later packets contradict what was reported."""
        later = reported[self._connections.last_ns[reported] > self._tracked.reported_last_ns[reported]]
        found: NDArray[np.int64] = later[self._differ(later, lambda was, now: was.claims != now.claims)]
        return found

    def _updates(self, kind: UpdateKind, indices: NDArray[np.int64]) -> Iterator[Updates]:
        """Yield the updates of these connections, one for each pattern, and mark them as reported."""
        tracked = self._tracked
        pattern = tracked.pattern[indices]
        tracked.reported_pattern[indices] = pattern
        tracked.reported_last_ns[indices] = self._connections.last_ns[indices]
        _, group, sizes = np.unique(pattern, return_inverse=True, return_counts=True)
        groups = np.split(indices[np.argsort(group, kind="stable")], np.cumsum(sizes)[:-1])
        for members in sorted((one for one in groups if len(one)), key=lambda one: int(one[0])):
            yield Updates(
                kind, self._patterns[tracked.pattern[members[0]]], members.tolist(), self.connections
            )

    def _where(self, pattern: NDArray[np.int32], holds: Callable[[Pattern], bool]) -> NDArray[np.bool_]:
        """Return a mask of the places whose pattern satisfies a condition."""
        numbers, place = np.unique(pattern, return_inverse=True)
        result: NDArray[np.bool_] = np.array([holds(self._patterns[n]) for n in numbers.tolist()], np.bool_)[
            place
        ]
        return result

    def _differ(
        self, indices: NDArray[np.int64], holds: Callable[[Pattern, Pattern], bool]
    ) -> NDArray[np.bool_]:
        """Return a mask of the connections whose reported and present patterns satisfy a condition."""
        tracked, patterns = self._tracked, self._patterns
        both = (tracked.reported_pattern[indices].tolist(), tracked.pattern[indices].tolist())
        pairs = list(zip(*both, strict=True))
        found = {pair: pair[0] >= 0 and holds(patterns[pair[0]], patterns[pair[1]]) for pair in set(pairs)}
        return np.array([found[pair] for pair in pairs], np.bool_)

    # ------------------------------------------------------------------------------------- memory

    def _make_room(self, now_ns: int) -> None:
        """Drop connections: those over and quiet; then, of too many, the finished and the longest idle."""
        tracked, last_ns = self._tracked, self._connections.last_ns
        over = tracked.reported == REPORTED_CLOSED
        keep = ~(over & (last_ns < now_ns - LINGER_NS))
        target = self._most - self._most // 8  # so that there is room for some time
        for sort in (over, ~over):
            if (surplus := int(np.count_nonzero(keep)) - target) <= 0 or len(self) <= self._most:
                break
            candidates = np.flatnonzero(keep & sort)
            oldest = candidates[np.argsort(last_ns[candidates], kind="stable")[:surplus]]
            keep[oldest] = False
        self._judge_before_dropping(np.flatnonzero(~keep & (tracked.pattern < 0)), now_ns)
        closes = self._connections.closes()
        stays = self._connections.forget(keep)
        left = np.ones(len(tracked), np.bool_)
        left[stays] = False
        self._census.remember(closes, left)
        self.evicted += int(np.count_nonzero(left & ~over))
        numbers, counts = np.unique(tracked.pattern[left], return_counts=True)
        self._dropped.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self._time_wait.add(tracked.pattern[left & over], tracked.timer_ns[left & over])
        tracked.keep(stays)
        if self.faults:
            self.faults.forget(set(self._connections.numbers.tolist()))
        self._room = min(self._most, max(2 * len(stays), SMALL))

    def _drop_patterns(self) -> None:
        """Drop patterns that no connection has any more; strange traffic keeps making new ones."""
        tracked, patterns = self._tracked, self._patterns
        self._past.seen += self._dropped.total()
        self._past.add_closes((patterns[number], count) for number, count in self._dropped.items())
        self._past.shorten()
        self._dropped.clear()
        used = np.union1d(tracked.pattern, tracked.reported_pattern)
        used = np.union1d(used, np.array(sorted(self._time_wait.patterns()), used.dtype))
        new = patterns.keep(used[used >= 0])
        tracked.pattern[:], tracked.reported_pattern[:] = new[tracked.pattern], new[tracked.reported_pattern]
        self._time_wait.renumber(new)
        # These refer to patterns by their old numbers, so they start again.
        self._classes, self._pattern_of = Classes(self.settings, kept=True, faults=self.faults), []
        self._judgements = Classes(self.settings, faults=self.faults, worded=True)
        self._most_patterns = max(MOST_PATTERNS, 2 * len(patterns))

    def new_findings(self, updates: Updates) -> Iterator[tuple[FindingCode, NDArray[np.int64]]]:
        """Yield the findings of updates, each with the connections that never had it in an update so far.

        Each finding of a connection is thus counted once, however often the connection is reported, and if
        the finding goes and comes again.

        Args:
            updates: as `report` returned them, before the monitor is fed again.

        Yields:
            A finding's code, and the indices of the connections, int64, which may be none.
        """
        index = np.asarray(updates.indices, np.int64)
        for code in sorted({code for code, _ in updates.pattern.problems | updates.pattern.notices}):
            bit = np.uint64(1 << FINDINGS.index(code))
            new = index[self._tracked.counted[index] & bit == 0]
            self._tracked.counted[new] |= bit
            yield code, new

    def closing(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
        """Return server ports and lengths of closes; see `Connections.closing`.

        Args:
            indices: int64, ascending.

        Returns:
            uint16, and int64 in nanoseconds, -1 where there was no FIN; one each.
        """
        return self._connections.closing(indices)

    def _judge_before_dropping(self, indices: NDArray[np.int64], now_ns: int) -> None:
        """Judge connections that were never judged, so that they are counted."""
        if len(indices):
            self._find_patterns(indices, now_ns)

    # ----------------------------------------------------------------- what all show together

    def news(self, *, now: bool = False) -> list[PopulationFinding]:
        """Return what all connections so far show together, as soon as it shows: each finding once.

        Args:
            now: look at all connections now. Else it is done now and then, so that it costs little.
        """
        return self._census.look(self._connections) if now or self._census.due() else []

    @property
    def population(self) -> list[PopulationFinding]:
        """What all connections showed together, at the last look or earlier."""
        return self._census.found

    # ------------------------------------------------------------------------------------- counts

    def counts(self) -> SocketCounts:
        """Return how many sockets are in which state, and how all connections so far closed."""
        counts = SocketCounts(seen=len(self) + self._dropped.total(), evicted=self.evicted)
        counts.copy_past(self._past)
        pattern = self._tracked.pattern[self._tracked.pattern >= 0]
        numbers, sizes = np.unique(pattern, return_counts=True)
        held = [(self._patterns[n], size) for n, size in zip(numbers.tolist(), sizes.tolist(), strict=True)]
        counts.add_held(held)
        counts.add_time_wait((self._patterns[n], size) for n, size in self._time_wait.counts(self._now_ns))
        counts.add_closes(held)
        counts.add_closes((self._patterns[n], size) for n, size in self._dropped.items())
        return counts
