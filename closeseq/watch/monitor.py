"""What is remembered of each connection that is watched.

Batches of packets and the clock go in, news of connections comes out.

A connection is judged when it has been quiet for a moment, when the time comes at which a clock may change
what is said of it, and at the latest a while after its last event. Judging takes many connections at once,
and the replay of one holds for all that go the same way, also later (see classes/).

Memory is bounded: what is over is forgotten after a while, and of what is too much the longest idle.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from closeseq.classes import Classes
from closeseq.connections import Connections
from closeseq.connections.conversation import End
from closeseq.connections.state import ColumnTable, column
from closeseq.connections.steps import FAR_NS
from closeseq.reading import Reading
from closeseq.segments.decode import narrow
from closeseq.settings import SECOND, Settings
from closeseq.verdict.fault import Faults
from closeseq.watch.counts import SocketCounts, TimeWaitCounts
from closeseq.watch.updates import Labels, Update, UpdateKind, Updates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from closeseq.connections.conversation import Address, Conversation
    from closeseq.packets.segments import Segments
    from closeseq.watch.updates import Pattern

UNTOLD, TOLD_STUCK, TOLD_CLOSED = 0, 1, 2
# What there is to say of a connection, in the order in which it is said when not all can be at once.
NOTHING, NEWS_REVISED, NEWS_STUCK, NEWS_PROBLEM, NEWS_CLOSED = 0, 1, 2, 3, 4


class Tracked(ColumnTable):
    """One row a connection, as in `Connections`."""

    label: np.ndarray = column(np.int32, -1)  # index into Labels; -1: not judged yet
    due_ns: np.ndarray = column(np.int64, FAR_NS)  # when to judge it again, since the Unix epoch
    clock_ns: np.ndarray = column(np.int64, FAR_NS)  # of what is over: when the clock of its last socket ends
    judged_ns: np.ndarray = column(np.int64)  # when it was judged last
    event: np.ndarray = column(np.int64, -1)  # its last event when it was looked at
    news: np.ndarray = column(np.uint8, NOTHING)  # what is to be said of it and has not been
    told: np.ndarray = column(np.uint8, UNTOLD)  # what was said of it
    told_label: np.ndarray = column(np.int32, -1)  # its label then
    told_last_ns: np.ndarray = column(np.int64)  # the time of its last packet then


SETTLE_NS = 300_000_000  # of silence, until a close is told: a lost FIN comes again sooner (Linux: 200 ms)
FIRST_LOOK_NS = 1 * SECOND  # after which a connection is judged even if it is never quiet
ROUTINE_NS = 5 * SECOND  # after which one with nothing but traffic is judged again
LINGER_NS = 10 * SECOND  # how long what is over is surely remembered, in case a late packet comes
MOST_CONNECTIONS = 1 << 17
MOST_LABELS = 4096
SMALL = 16_384  # connections; with fewer there is no point in forgetting any


class Monitor:
    """All connections that are going on, and those that ended a moment ago.

    Args:
        settings: what to look at, and when a wait or a timer counts as over.
        capture: the name of the interface or file.
        most: how many connections to remember at most.
    """

    def __init__(
        self, settings: Settings | None = None, *, capture: str = "", most: int = MOST_CONNECTIONS
    ) -> None:
        self.settings = settings or Settings()
        self.reading = Reading(capture)
        self.evicted = 0  # connections given up unfinished
        self._most = max(most, 1)
        self._room = min(self._most, SMALL)  # connections, until it is looked for some to forget
        self._connections = Connections(ports=self.settings.ports)
        self._tracked = Tracked()
        self.faults = Faults()  # of closeseq itself
        self._classes = Classes(self.settings, kept=True, faults=self.faults)
        self._judgements = Classes(self.settings, faults=self.faults, worded=True)
        self._labels = Labels()
        self._label_of: list[int] = []  # of each outcome of the classes
        self._gone: Counter[int] = Counter()  # labels of connections that were forgotten
        self._past = SocketCounts()  # those whose labels were forgotten too
        self._most_labels = MOST_LABELS
        self._ebbing = TimeWaitCounts()
        self._ongoing = True
        self._now_ns = 0

    def __len__(self) -> int:
        return len(self._connections)

    # ------------------------------------------------------------------------------------ packets

    def feed(self, packets: int, segments: Segments) -> None:
        """Add a batch: how many packets it had, and the TCP segments in them."""
        self.reading.add(packets, segments)
        if not len(segments):
            return
        first, last = int(segments.time_ns.min()), int(segments.time_ns.max())
        self.reading.first_ns = min(first, self.reading.first_ns or first)
        self.reading.last_ns = max(last, self.reading.last_ns or last)
        self._connections.feed(narrow(segments, self.settings.ports, self.settings.hosts))
        self.reading.copies = self._connections.copies
        self._touch(self._connections.touched)
        replaced = self._connections.replaced
        self._tracked.due_ns[replaced] = np.minimum(self._tracked.due_ns[replaced], last + SETTLE_NS)
        if len(self) > self._room:
            self._forget(last)

    def _touch(self, touched: np.ndarray) -> None:
        """Note when to judge the connections to which a batch added."""
        connections, tracked = self._connections, self._tracked
        tracked.grow(len(self) - len(tracked))
        if not len(touched):
            return
        last_ns, event = connections.last_ns[touched], connections.last_event[touched]
        unjudged = tracked.label[touched] < 0
        eventful = unjudged | (event != tracked.event[touched])
        tracked.event[touched] = event
        latest = np.where(unjudged, connections.first_ns[touched], tracked.judged_ns[touched]) + FIRST_LOOK_NS
        quiet = np.minimum(last_ns + SETTLE_NS, np.maximum(latest, last_ns))
        routine = np.minimum(tracked.due_ns[touched], last_ns + ROUTINE_NS)
        tracked.due_ns[touched] = np.where(eventful, quiet, routine)
        tracked.news[touched[eventful]] = NOTHING  # as far as it was judged

    # ---------------------------------------------------------------------------------- the clock

    @property
    def unjudged(self) -> int:
        """Connections that nobody has looked at so far."""
        return int(np.count_nonzero(self._tracked.label < 0))

    @property
    def backlog(self) -> int:
        """Connections of which there is something to say that has not been said."""
        return int(np.count_nonzero(self._tracked.news))

    def tick(self, now_ns: int, most: int | None = None) -> list[Updates]:
        """Let time pass; return what there is to say.

        Args:
            now_ns: since the Unix epoch.
            most: tell of at most so many connections: first what is revised, then what is stuck, then
                those that closed with a problem, and of each the longest quiet. The others wait.
        """
        self.judge(now_ns)
        return self.tell(most)

    def judge(self, now_ns: int, most: int | None = None) -> int:
        """Let time pass; look at the connections for which it is time, and return at how many.

        Args:
            now_ns: since the Unix epoch.
            most: look at so many, the longest due; the others stay due.
        """
        self._now_ns = now_ns
        due = np.flatnonzero(self._tracked.due_ns <= now_ns)
        if most is not None and len(due) > most:
            due = np.sort(due[np.argpartition(self._tracked.due_ns[due], most)[:most]])
        if len(due):
            self._judge(due, now_ns)
        if len(self._labels) > self._most_labels:
            self._forget_labels()
        return len(due)

    def end(self, now_ns: int) -> list[Updates]:
        """End the watch; return what had not been said, last of it the connections that are not over."""
        self.begin_end(now_ns)
        self.judge(now_ns)
        return self.last_news()

    def begin_end(self, now_ns: int) -> None:
        """Begin to end the watch: all connections are due for `judge`.

        First what was never judged, then what is not over. Whoever has no time for all leaves the others as
        they were judged last.
        """
        self._now_ns, self._ongoing = now_ns, False
        # Everything anew: other connections may have told meanwhile which end of this one is the client.
        tracked = self._tracked
        tracked.due_ns[:] = np.where(tracked.told == TOLD_CLOSED, 1, 0)
        tracked.due_ns[tracked.label < 0] = -1

    def last_news(self) -> list[Updates]:
        """Return what had not been said, last of it the connections that are not over."""
        tracked = self._tracked
        news = self.tell()
        news += self._news(
            UpdateKind.OPEN, np.flatnonzero((tracked.told != TOLD_CLOSED) & (tracked.label >= 0))
        )
        return news + list(
            self._news(
                UpdateKind.MORE,
                np.flatnonzero((self._connections.last_ns > tracked.told_last_ns) & (tracked.label >= 0)),
            )
        )

    def connection(self, index: int, kind: UpdateKind) -> Update:
        """Return a connection as it stands."""
        return next(self.sightings([index], kind))

    def sightings(self, indices: Sequence[int], kind: UpdateKind) -> Iterator[Update]:
        """Yield connections as they stand, given by ascending indices."""

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

        among, reading = np.asarray(indices, np.int64), self.reading
        if reading.files.gaps():  # texts may tell of one
            return map(seen, self._connections.conversations(among))
        return self._judgements.judge(
            self._connections, among, seen, self._now_ns, dropped=reading.dropped, ongoing=self._ongoing
        )

    def failed_at(self, indices: Iterable[int], fault: Exception) -> None:
        """Note that closeseq itself failed to show these connections, given by index."""
        numbers = self._connections.numbers
        self.faults.add_all((int(numbers[index]) for index in indices), fault)

    def places(self, indices: Sequence[int], end: End) -> list[tuple[Address, list[int]]]:
        """Group connections by where the program at one end is, as `Analysis.places` does."""
        return self._connections.places(indices, end, with_port=end is End.SERVER)

    def _judge(self, due: np.ndarray, now_ns: int) -> None:
        """Judge these connections anew (ascending indices), and note what is to be said of them."""
        tracked, last_ns = self._tracked, self._connections.last_ns
        until_ns = self._label(due, now_ns)
        tracked.judged_ns[due] = now_ns
        label = tracked.label[due]
        over = self._of_labels(label, lambda one: one.ended)
        # A SYN that nothing ever answers has no end of its own.
        unanswered = self._of_labels(label, lambda one: one.verdict == "unanswered")
        over |= unanswered & (now_ns - last_ns[due] >= self.settings.limits.stuck_after_ns)
        stuck = self._of_labels(label, lambda one: bool(one.stuck)) & ~over
        told = tracked.told[due]

        self._schedule(due, over, until_ns, now_ns)
        grave = self._of_labels(label, lambda one: bool(one.problems))
        tracked.news[due] = np.where(
            over & (told != TOLD_CLOSED), np.where(grave, NEWS_PROBLEM, NEWS_CLOSED), NOTHING
        )
        tracked.news[self._more(due[stuck & (told != TOLD_CLOSED)])] = NEWS_STUCK
        tracked.news[self._otherwise(due[told == TOLD_CLOSED])] = NEWS_REVISED

    def tell(self, most: int | None = None) -> list[Updates]:
        """Return what is to be said of at most so many connections, the gravest first."""
        tracked = self._tracked
        waiting = np.flatnonzero(tracked.news)
        if most is not None and len(waiting) > most:
            order = np.lexsort((self._connections.last_ns[waiting], tracked.news[waiting]))
            waiting = np.sort(waiting[order[:most]])
        news, what = list[Updates](), tracked.news[waiting]
        for kind, codes, state in (
            (UpdateKind.REVISED, (NEWS_REVISED,), TOLD_CLOSED),
            (UpdateKind.STUCK, (NEWS_STUCK,), TOLD_STUCK),
            (UpdateKind.CLOSED, (NEWS_PROBLEM, NEWS_CLOSED), TOLD_CLOSED),
        ):
            indices = waiting[np.isin(what, codes)]
            news += self._news(kind, indices)
            tracked.told[indices] = state
        tracked.news[waiting] = NOTHING
        return news

    def _label(self, due: np.ndarray, now_ns: int) -> np.ndarray:
        """Give connections their labels; return until when these hold, if no packet comes."""
        found = self._classes.find(
            self._connections, now_ns, among=due, dropped=self.reading.dropped, ongoing=self._ongoing
        )
        for outcome in self._classes.outcomes[len(self._label_of) :]:
            self._label_of.append(self._labels.number(outcome))
        self._tracked.label[due] = np.array(self._label_of, np.int32)[found.outcome]
        return found.until_ns

    def _schedule(self, due: np.ndarray, over: np.ndarray, until_ns: np.ndarray, now_ns: int) -> None:
        """Note when to look at judged connections again, though no packet comes."""
        tracked, timers = self._tracked, self.settings.timers
        gone = self._of_labels(tracked.label[due], lambda one: one.gone)
        tracked.due_ns[due] = np.where(gone, FAR_NS, until_ns)
        waits = (timers.time_wait_ns, timers.fin_timeout_ns)
        tracked.clock_ns[due] = FAR_NS
        running = due[over & ~gone]
        tracked.clock_ns[running] = self._connections.times(running, now_ns, waits)

    def _more(self, stuck: np.ndarray) -> np.ndarray:
        """Return those connections of which it has not been told that they are stuck, or not how.

        What time alone adds is no news: where an end is stuck in CLOSE_WAIT, its peer soon is in FIN_WAIT_2.
        """
        tracked = self._tracked
        fresh = tracked.told[stuck] == UNTOLD
        fresh |= (self._connections.last_ns[stuck] > tracked.told_last_ns[stuck]) & self._differ(
            stuck, lambda was, now: bool(now.stuck - was.stuck)
        )
        more: np.ndarray = stuck[fresh]
        return more

    def _otherwise(self, told: np.ndarray) -> np.ndarray:
        """Return those connections of which later packets tell otherwise than was said."""
        later = told[self._connections.last_ns[told] > self._tracked.told_last_ns[told]]
        otherwise: np.ndarray = later[self._differ(later, lambda was, now: was.said != now.said)]
        return otherwise

    def _news(self, kind: UpdateKind, indices: np.ndarray) -> Iterator[Updates]:
        """Yield news of these connections, those with the same label together, and remember it as told."""
        tracked = self._tracked
        label = tracked.label[indices]
        tracked.told_label[indices] = label
        tracked.told_last_ns[indices] = self._connections.last_ns[indices]
        _, group, sizes = np.unique(label, return_inverse=True, return_counts=True)
        groups = np.split(indices[np.argsort(group, kind="stable")], np.cumsum(sizes)[:-1])
        for members in sorted((one for one in groups if len(one)), key=lambda one: int(one[0])):
            yield Updates(kind, self._labels[tracked.label[members[0]]], members.tolist(), self.sightings)

    def _of_labels(self, label: np.ndarray, holds: Callable[[Pattern], bool]) -> np.ndarray:
        """Return a mask of where something holds of the label."""
        numbers, place = np.unique(label, return_inverse=True)
        result: np.ndarray = np.array([holds(self._labels[n]) for n in numbers.tolist()], np.bool_)[place]
        return result

    def _differ(self, indices: np.ndarray, holds: Callable[[Pattern, Pattern], bool]) -> np.ndarray:
        """Return a mask of where something holds of the label that was told and the present one."""
        tracked, labels = self._tracked, self._labels
        pairs = list(zip(tracked.told_label[indices].tolist(), tracked.label[indices].tolist(), strict=True))
        found = {pair: pair[0] >= 0 and holds(labels[pair[0]], labels[pair[1]]) for pair in set(pairs)}
        return np.array([found[pair] for pair in pairs], np.bool_)

    # ------------------------------------------------------------------------------------- memory

    def _forget(self, now_ns: int) -> None:
        """Forget what is over and quiet, then what is too much: what is over first, then the longest idle."""
        tracked, last_ns = self._tracked, self._connections.last_ns
        over = tracked.told == TOLD_CLOSED
        keep = ~(over & (last_ns < now_ns - LINGER_NS))
        target = self._most - self._most // 8  # so that it is not to do again at once
        for sort in (over, ~over):
            if (surplus := int(np.count_nonzero(keep)) - target) <= 0 or len(self) <= self._most:
                break
            candidates = np.flatnonzero(keep & sort)
            oldest = candidates[np.argsort(last_ns[candidates], kind="stable")[:surplus]]
            keep[oldest] = False
        self._judge_before_leaving(np.flatnonzero(~keep & (tracked.label < 0)), now_ns)
        stays = self._connections.forget(keep)
        left = np.ones(len(tracked), np.bool_)
        left[stays] = False
        self.evicted += int(np.count_nonzero(left & ~over))
        numbers, counts = np.unique(tracked.label[left], return_counts=True)
        self._gone.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self._ebbing.add(tracked.label[left & over], tracked.clock_ns[left & over])
        tracked.keep(stays)
        if self.faults:
            self.faults.forget(set(self._connections.numbers.tolist()))
        self._room = min(self._most, max(2 * len(stays), SMALL))

    def _forget_labels(self) -> None:
        """Forget labels that no connection has any more; strange traffic makes ever new ones."""
        tracked, labels = self._tracked, self._labels
        self._past.seen += self._gone.total()
        self._past.add((labels[number], count) for number, count in self._gone.items())
        self._past.shorten()
        self._gone.clear()
        used = np.union1d(tracked.label, tracked.told_label)
        used = np.union1d(used, np.array(sorted(self._ebbing.labels()), used.dtype))
        new = labels.keep(used[used >= 0])
        tracked.label[:], tracked.told_label[:] = new[tracked.label], new[tracked.told_label]
        self._ebbing.renumber(new)
        # They learn anew.
        self._classes, self._label_of = Classes(self.settings, kept=True, faults=self.faults), []
        self._judgements = Classes(self.settings, faults=self.faults, worded=True)
        self._most_labels = max(MOST_LABELS, 2 * len(labels))

    def _judge_before_leaving(self, indices: np.ndarray, now_ns: int) -> None:
        """Judge connections that no one has looked at yet, so that they are counted."""
        if len(indices):
            self._label(indices, now_ns)

    # ------------------------------------------------------------------------------------- counts

    def census(self) -> SocketCounts:
        """Return how many sockets are in which state, and what became of all connections so far."""
        census = SocketCounts(seen=len(self) + self._gone.total(), evicted=self.evicted)
        census.copy_past(self._past)
        label = self._tracked.label[self._tracked.label >= 0]
        numbers, counts = np.unique(label, return_counts=True)
        present = [(self._labels[n], c) for n, c in zip(numbers.tolist(), counts.tolist(), strict=True)]
        census.stand(present)
        census.ebb((self._labels[n], c) for n, c in self._ebbing.counts(self._now_ns))
        census.add(present)
        census.add((self._labels[n], c) for n, c in self._gone.items())
        return census
