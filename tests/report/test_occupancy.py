"""Sockets by state over time: the same as the socket table, moment by moment."""

from __future__ import annotations

from collections import Counter

import pytest

from closeseq.analysis import analyze_chain
from closeseq.capture.chains import Chain
from closeseq.connections.conversation import ENDS
from closeseq.report.page.line import StateEntry
from closeseq.report.page.occupancy import MOMENTS, OTHERS, STACK, Occupancy, most_used
from closeseq.report.page.overview import Overview
from closeseq.report.selection import Selection
from closeseq.report.socket_states import sockets
from closeseq.settings import settings_of
from closeseq.tcp.states import State
from places import CAPTURES

NAMES = [
    "leaky-server",
    "final-ack-lost",
    "crossing-fins",
    "replaced",
    "time-wait-reused",
    "unanswered",
    "half-open",
]
PATHS = [path for name in NAMES for path in sorted(CAPTURES.glob(f"{name}.pcap*"))]


def counted(path):
    selection = Selection(analyze_chain(Chain((str(path),)), settings_of(stuck_after=2)))
    return selection, Overview.of(selection)


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_each_moment_is_as_the_socket_table_shows_it(path):
    selection, overview = counted(path)
    occupancy = overview.occupancy
    looked_at = 0
    for moment in (0, 1, *range(7, MOMENTS, 39), MOMENTS - 1):
        shown = Counter((one.end, one.state) for one in sockets(selection, occupancy.moment_ns(moment)))
        drawn = Counter()
        for port in overview.ports:
            for number, end in enumerate(ENDS):
                for state, counts in occupancy.series(port, number):
                    drawn[end.value, state.value] += counts[moment]
        assert +drawn == shown
        looked_at += shown.total()
    assert looked_at


def test_there_are_captures_to_compare():
    assert len(PATHS) >= 7


def test_a_leak_grows_and_stays():
    _, overview = counted(CAPTURES / "leaky-server.pcap")
    servers = dict(overview.occupancy.series(8080, 1))
    waiting = list(servers[State.CLOSE_WAIT])
    assert max(waiting) == 5
    assert waiting[-1] == 3
    assert [state for state in STACK if state in servers] == list(servers)


def test_ports_without_a_count_of_their_own_are_counted_together():
    occupancy = Occupancy(0, MOMENTS - 1, [80])
    for port in (80, 81, 82):
        occupancy.add(
            port, [StateEntry(0, 0, "CLOSED"), StateEntry(10, 0, "ESTABLISHED"), StateEntry(20, 0, "CLOSED")]
        )
    (own,), (others,) = occupancy.series(80, 0), occupancy.series(OTHERS, 0)
    assert list(own.counts) == [1 if 10 <= moment < 20 else 0 for moment in range(MOMENTS)]
    assert list(others.counts) == [2 * one for one in own.counts]
    assert occupancy.series(81, 0) == []


def test_what_lies_outside_of_the_time_that_is_looked_at_counts_at_its_edges():
    occupancy = Occupancy(1000, 1000 + MOMENTS - 1, [80])
    occupancy.add(80, [StateEntry(10, 1, "UNKNOWN"), StateEntry(1000 + MOMENTS, 1, "CLOSED")])
    ((state, counts),) = occupancy.series(80, 1)
    assert (state, set(counts)) == (State.UNKNOWN, {1})


def test_a_capture_of_one_moment_can_be_counted():
    occupancy = Occupancy(5, 5, [80])
    occupancy.add(80, [StateEntry(5, 0, "CLOSED"), StateEntry(5, 0, "SYN_SENT")])
    ((state, counts),) = occupancy.series(80, 0)
    assert (state, counts[0], counts[-1]) == (State.SYN_SENT, 1, 1)


def test_the_most_used_ports_are_chosen():
    assert most_used({1: 5, 2: 9, 3: 5}, 2) == [2, 1]
