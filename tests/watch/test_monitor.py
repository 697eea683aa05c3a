"""A watch: what is said of connections when, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.analysis import Analysis
from closeseq.capture import open_capture
from closeseq.connections.conversation import End
from closeseq.report.records import record
from closeseq.script import START_NS, segments
from closeseq.settings import Limits, Settings
from closeseq.tcp.states import State
from closeseq.watch import Monitor, SocketCounts, UpdateKind
from closeseq.watch.counts import OTHER_SHAPES
from closeseq.watch.session import PacketClock, Session
from examples import examples
from places import CAPTURES
from segment_rows import soups

OPEN = "C:S S:SA C:A ~ "
SECOND = 10**9
STUCK_AFTER = 5
SETTINGS = Settings(limits=Limits(stuck_after_ns=STUCK_AFTER * SECOND))


class Told:
    """A watch that is fed in real time, tick by tick, and what it told."""

    def __init__(self, **options):
        self.monitor = Monitor(SETTINGS, **options)
        self.updates = []  # (seconds, kind, connection)

    def play(self, rows, until):
        """Feed rows as their time comes; the clock ticks ten times a second."""
        if isinstance(rows, str):
            rows = segments(rows)
        for tenth in range(round(until * 10) + 1):
            now = START_NS + tenth * SECOND // 10
            due = (rows.time_ns <= now) & (rows.time_ns > now - SECOND // 10)
            self.monitor.feed(int(due.sum()), rows.take(np.flatnonzero(due)))
            self.note(tenth / 10, self.monitor.tick(now))
        return self

    def end(self, at):
        self.note(at, self.monitor.end(START_NS + round(at * SECOND)))
        return self

    def note(self, at, updates):
        self.updates += [(at, one.kind, seen) for one in updates for seen in one]

    @property
    def kinds(self):
        return [kind for _, kind, _ in self.updates]


def clients(script, count, *, apart_ns=0):
    """Return the segments of a script from so many ports, one after the other."""
    given = segments(script)
    rows = []
    for number in range(count):
        one = given.take(np.arange(len(given)))  # a copy
        one.time_ns[:] += number * apart_ns
        for name in ("src_port", "dst_port"):
            column = getattr(one, name)
            column[column == 40000] = 10_000 + number
        rows.append(one)
    return rows


def test_a_close_is_told_once_a_moment_after_it():
    told = Told().play(OPEN + "C:FA S:A S:FA C:A", until=70)
    ((at, kind, connection),) = told.updates
    assert (kind, connection.verdict) == (UpdateKind.CLOSED, "graceful")
    assert at == pytest.approx(0.4, abs=0.1)
    assert connection.client.state is State.TIME_WAIT


def test_a_close_wait_is_told_when_it_has_lasted_too_long_though_no_packet_comes():
    told = Told().play(OPEN + "C:FA S:A", until=20)
    ((at, kind, connection),) = told.updates
    assert kind is UpdateKind.STUCK
    assert at == pytest.approx(STUCK_AFTER, abs=0.2)
    assert connection.has("stuck-close-wait")
    assert "when the capture ended" not in connection.summary


def test_a_stuck_connection_that_closes_after_all_is_told_again():
    told = Told().play(OPEN + "C:FA S:A +8s S:FA C:A", until=20)
    assert told.kinds == [UpdateKind.STUCK, UpdateKind.CLOSED]


def test_what_was_told_is_revised_when_later_packets_tell_otherwise():
    told = Told().play(OPEN + "C:FA S:A S:FA C:A! +1s S:FA* C:A", until=5)
    assert told.kinds == [UpdateKind.CLOSED, UpdateKind.REVISED]
    first, second = (connection for _, _, connection in told.updates)
    assert not first.has("final-ack-lost")
    assert second.has("final-ack-lost")
    assert first.id == second.id


def test_packets_that_change_nothing_are_no_revision_but_are_in_the_last_word():
    told = Told().play(OPEN + "C:FA S:A S:FA C:A +1s C:A", until=5)
    assert told.kinds == [UpdateKind.CLOSED]
    told.end(6)
    (_, _, first), (_, kind, last) = told.updates
    assert kind is UpdateKind.MORE
    assert last.packets == first.packets + 1
    assert last.summary == first.summary


def test_what_time_alone_adds_to_a_stuck_connection_is_no_news():
    """The peer's FIN_WAIT_2, entered a moment later, is stuck a moment later too."""
    told = Told().play(OPEN + "C:FA +300ms S:A", until=20)
    assert told.kinds == [UpdateKind.STUCK]


def test_with_a_limit_the_longest_due_are_told_first_and_the_others_next():
    told = Told()
    for one in clients(OPEN + "C:FA S:A S:FA C:A", 30, apart_ns=1000):
        told.monitor.feed(len(one), one)
    now = START_NS + SECOND
    ports = [
        [seen.client.port for updates in told.monitor.tick(now, most=10) for seen in updates]
        for _ in range(4)
    ]
    assert [len(some) for some in ports] == [10, 10, 10, 0]
    assert sorted(port for some in ports for port in some) == list(range(10_000, 10_030))
    assert max(ports[0]) < min(ports[1])


def test_of_a_backlog_what_is_revised_and_stuck_is_told_before_what_closed_well():
    well, lost, stuck = (
        OPEN + "C:FA S:A S:FA C:A",
        OPEN + "C:FA S:A S:FA C:A! +1s S:FA* C:A",
        OPEN + "C:FA S:A",
    )
    told = Told()
    rows = clients(lost, 3) + clients(stuck, 6)[3:]
    for one in rows:
        told.monitor.feed(5, one.take(np.flatnonzero(one.time_ns < START_NS + SECOND)))
    assert [len(updates) for updates in told.monitor.tick(START_NS + 7 * SECOND // 10)] == [
        3
    ]  # they closed well
    for one in rows:
        told.monitor.feed(5, one.take(np.flatnonzero(one.time_ns >= START_NS + SECOND)))
    for one in clients(well, 40)[10:]:
        one.time_ns[:] += SECOND
        told.monitor.feed(len(one), one)
    now, kinds = START_NS + 6 * SECOND, []
    for left in (32, 28, 24, 20):
        updates = told.monitor.tick(now, most=4)
        kinds += [one.kind for one in updates for _ in one]
        assert told.monitor.backlog == left
    assert kinds == [UpdateKind.REVISED] * 3 + [UpdateKind.STUCK] * 3 + [UpdateKind.CLOSED] * 10
    told.monitor.tick(now)
    assert told.monitor.backlog == 0
    assert told.monitor.tick(now) == []


def test_what_waits_to_be_told_and_goes_on_is_told_as_it_is_then():
    """It was judged to be over; then the FIN came again, so that the final ACK was lost."""
    told = Told()
    one = segments(OPEN + "C:FA S:A S:FA C:A! +2s S:FA* C:A")
    first = one.time_ns < START_NS + SECOND
    told.monitor.feed(9, one.take(np.flatnonzero(first)))
    assert told.monitor.tick(START_NS + SECOND, most=0) == []
    assert told.monitor.backlog == 1
    told.monitor.feed(2, one.take(np.flatnonzero(~first)))
    told.note(2.1, told.monitor.tick(START_NS + 21 * SECOND // 10, most=1))
    ((_, kind, connection),) = told.updates
    assert kind is UpdateKind.CLOSED
    assert connection.has("final-ack-lost")


class Packets:
    """A source of the frames that it is given, in one batch, with nothing after it."""

    dropped = 0

    def __init__(self, frames):
        self.frames, self.device = frames, 0
        self.packets, self.notices, self.ended = len(frames), [], False

    def read(self, timeout):  # noqa: ARG002 - as a source is asked
        batch, self.ended = None if self.ended else self, True
        return batch

    def release(self): ...

    def stop(self): ...

    def close(self): ...


@pytest.mark.parametrize("hurried", [True, False])
def test_only_who_is_in_a_hurry_is_told_less_than_all(hurried, monkeypatch):
    monkeypatch.setattr("closeseq.watch.session.LAST_JUDGED", 0.0)
    with open_capture(str(CAPTURES / "leaky-server.pcap")) as capture:
        (frames,) = capture.batches()
        monitor = Monitor(SETTINGS)
        session = Session(Packets(frames), monitor, PacketClock())
        session._portion = 2
        updates = session.end(hurried=hurried)
    told = sum(len(one) for one in updates)
    assert told + monitor.unjudged == len(monitor) == 5
    assert monitor.unjudged == (3 if hurried else 0)


SCRIPTS = [
    OPEN + "C:FA S:A S:FA C:A",
    OPEN + "C:FA S:A S:FA C:A! +1s S:FA* C:A",
    OPEN + "C:FA S:A",
    OPEN + "C:R",
    "C:S S:RA",
    OPEN + "S:FA C:A C:FA S:A",
    "C:S +1s C:S* +2s C:S*",
]


def test_patterns_that_are_dropped_change_nothing_of_what_is_told_and_counted(monkeypatch):
    def told(most):
        monkeypatch.setattr("closeseq.watch.monitor.MOST_PATTERNS", most)
        monkeypatch.setattr("closeseq.watch.monitor.SMALL", 4)
        watching, seen, sizes = Told(), [], []
        rows = [one for number, script in enumerate(SCRIPTS * 3) for one in clients(script, number + 1)[-1:]]
        for number, one in enumerate(rows):
            one.time_ns[:] += number * 3 * SECOND
        for second in range(200):
            now = START_NS + second * SECOND
            for one in rows:
                due = (one.time_ns <= now) & (one.time_ns > now - SECOND)
                watching.monitor.feed(int(due.sum()), one.take(np.flatnonzero(due)))
            seen += [
                (second, updates.kind, updates.pattern, len(updates))
                for updates in watching.monitor.tick(now)
            ]
            sizes.append(len(watching.monitor._patterns))
            seen.append(watching.monitor.counts())
        seen += [
            (updates.kind, updates.pattern, len(updates))
            for updates in watching.monitor.end(START_NS + 201 * SECOND)
        ]
        return [*seen, watching.monitor.counts()], sum(sizes)

    few, kept_of_few = told(most=2)
    all_of_them, kept_of_all = told(most=1 << 20)
    assert few == all_of_them
    assert kept_of_few < kept_of_all


def test_of_ever_new_shapes_the_frequent_are_counted_apart(monkeypatch):
    monkeypatch.setattr("closeseq.watch.counts.MOST_SHAPES", 4)
    counts = SocketCounts()
    counts.shapes.update({"often": 50, "now and then": 5, "a": 1, "b": 1, "c": 1})
    counts.shorten()
    assert counts.shapes == {"often": 50, "now and then": 5, OTHER_SHAPES: 3}
    counts.shapes.update(["d", "e", "f"])
    counts.shorten()
    assert counts.shapes == {"often": 50, "now and then": 5, OTHER_SHAPES: 6}


def test_time_wait_ends_by_the_clock():
    told = Told().play(OPEN + "C:FA S:A S:FA C:A", until=59)
    assert told.monitor.counts().client == {State.TIME_WAIT: 1}
    told.monitor.tick(START_NS + 61 * SECOND)
    assert told.monitor.counts().client == {}


def test_an_open_connection_is_counted_and_told_at_the_end():
    told = Told().play(OPEN, until=2)
    assert told.updates == []
    assert told.monitor.counts().server == {State.ESTABLISHED: 1}
    told.end(3)
    ((_, kind, connection),) = told.updates
    assert (kind, connection.verdict) == (UpdateKind.OPEN, "open")
    assert "when the capture ended" in connection.summary


def test_a_connection_that_never_rests_is_counted_too():
    told = Told().play(OPEN + "C:A+10 S:A+10 +100ms " * 20, until=2)
    assert told.monitor.counts().server == {State.ESTABLISHED: 1}


def test_connections_that_closed_alike_are_told_together():
    told = Told()
    rows = clients(OPEN + "C:FA S:A S:FA C:A", 100)
    for one in rows:
        told.monitor.feed(len(one), one)
    (updates,) = told.monitor.tick(START_NS + SECOND)
    assert (updates.kind, len(updates)) == (UpdateKind.CLOSED, 100)
    assert {seen.client.port for seen in updates} == set(range(10_000, 10_100))
    assert {seen.verdict for seen in updates} == {"graceful"}


def test_what_is_over_is_forgotten_first_and_not_counted_as_evicted():
    told = Told(most=50)
    for one in clients(OPEN + "C:FA S:A S:FA C:A", 200, apart_ns=SECOND):
        told.monitor.feed(len(one), one)
        told.monitor.tick(int(one.time_ns[-1]) + SECOND // 2)
    counts = told.monitor.counts()
    assert len(told.monitor) <= 50
    assert (counts.seen, counts.evicted, counts.verdicts) == (200, 0, {"graceful": 200})


def test_sockets_in_time_wait_are_counted_though_their_connections_are_forgotten():
    told = Told(most=50)
    for one in clients(OPEN + "C:FA S:A S:FA C:A", 200, apart_ns=SECOND // 10):
        told.monitor.feed(len(one), one)
        told.monitor.tick(int(one.time_ns[-1]) + SECOND)
    assert told.monitor.counts().client == {State.TIME_WAIT: 200}
    told.monitor.tick(START_NS + 71 * SECOND)
    assert 80 <= told.monitor.counts().client[State.TIME_WAIT] <= 90  # those of the last nine seconds
    told.monitor.tick(START_NS + 85 * SECOND)
    assert told.monitor.counts().client == {}


def test_of_too_many_unfinished_connections_the_longest_idle_are_given_up_and_counted():
    told = Told(most=50)
    for one in clients(OPEN, 200, apart_ns=SECOND):
        told.monitor.feed(len(one), one)
        told.monitor.tick(int(one.time_ns[-1]) + SECOND // 2)
    counts = told.monitor.counts()
    assert counts.held <= 50
    assert counts.held + counts.evicted == 200
    assert counts.verdicts == {"open": 200}
    remaining = {told.monitor.connection(i, UpdateKind.OPEN).client.port for i in range(len(told.monitor))}
    assert max(remaining) == 10_199
    assert min(remaining) == 10_200 - len(told.monitor)


def test_a_syn_without_an_answer_is_told_when_it_has_waited_too_long():
    told = Told().play("C:S +1s C:S* +2s C:S*", until=20)
    ((at, kind, connection),) = told.updates
    assert (kind, connection.verdict) == (UpdateKind.CLOSED, "unanswered")
    assert at == pytest.approx(3 + STUCK_AFTER, abs=1)


def test_each_end_of_the_census_is_a_socket():
    told = Told().play(OPEN + "S:FA C:A", until=2)
    counts = told.monitor.counts()
    assert (counts.client, counts.server) == ({State.CLOSE_WAIT: 1}, {State.FIN_WAIT_2: 1})
    assert (counts.seen, counts.open) == (1, 1)


def test_the_blame_of_what_is_stuck_is_in_the_news():
    told = Told().play(OPEN + "S:FA C:A", until=7)
    (_, _, connection) = told.updates[0]
    assert [f.endpoint for f in connection.findings if f.code == "stuck-close-wait"] == [End.CLIENT]


@examples(30)
@given(soups(), st.integers(1, 12), st.lists(st.integers(0, 90), min_size=1, max_size=6), st.integers(0, 100))
def test_in_the_end_a_watch_has_seen_what_an_analysis_of_the_whole_finds(rows, size, waits, last):
    """Whatever the batches, and whenever the clock ticks in between."""
    monitor, analysis = Monitor(SETTINGS), Analysis("", SETTINGS)
    now = 0
    for place, first in enumerate(range(0, len(rows), size)):
        batch = rows.take(slice(first, first + size))
        analysis.feed(batch)
        monitor.feed(len(batch), batch)
        now = max(now, int(rows.time_ns[: first + size].max()) + waits[place % len(waits)] * SECOND // 10)
        monitor.tick(now)
    now += last * SECOND
    analysis.reading.ended_ns = now
    told = [seen for updates in monitor.end(now) for seen in updates]
    counts = monitor.counts()
    assert counts.verdicts == analysis.verdicts
    assert counts.shapes == analysis.shapes
    assert counts.problems + counts.notices == analysis.findings
    for seen in told:
        assert record(seen) == record(analysis[seen.id - 1])


@examples(40)
@given(st.lists(soups(most=12), min_size=1, max_size=6), st.integers(1, 6))
def test_a_watch_that_must_forget_loses_no_count(several, most):
    monitor = Monitor(SETTINGS, most=most)
    for number, rows in enumerate(several):
        rows.time_ns[:] += number * 20 * SECOND
        monitor.feed(len(rows), rows)
        monitor.tick(int(rows.time_ns.max()) + SECOND)
        assert len(monitor) <= max(most, len(rows))
    monitor.end(int(rows.time_ns.max()) + SECOND)
    counts = monitor.counts()
    assert sum(counts.verdicts.values()) == counts.seen
    assert counts.held <= counts.seen
