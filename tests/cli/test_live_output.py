"""How much is written of many connections: what is alike is counted, and what is grave stays in sight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from closeseq.cli import live_output
from closeseq.cli.live_output import ALIKE, COUNTS, CROWD, LINES, SECONDS, Throttle
from closeseq.connections.conversation import End
from closeseq.report.text import Style
from closeseq.tcp.states import State
from closeseq.verdict.model import FindingCode
from closeseq.watch.updates import Pattern, UpdateKind, Updates

GRACEFUL = Pattern("graceful", "client", "C:S", State.TIME_WAIT, State.CLOSED, frozenset(), frozenset())
LEAK = frozenset({(FindingCode.STUCK_CLOSE_WAIT, End.SERVER)})
STUCK = Pattern("closing", "client", "C:S", State.FIN_WAIT_2, State.CLOSE_WAIT, LEAK, frozenset())


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(live_output.time, "monotonic", lambda: Clock.now)
    return Clock


def updates(number, kind=UpdateKind.CLOSED, pattern=GRACEFUL):
    return Updates(kind, pattern, range(number), None)


def other(number, problems=frozenset()):
    return Pattern("reset", "client", f"C:S {number}", State.CLOSED, State.CLOSED, problems, frozenset())


def test_of_what_is_alike_three_blocks_are_shown_in_ten_seconds_however_many_come_at_once(clock):
    shared = Throttle()
    blocks = 0
    for _ in range(40):  # ten seconds of 500 a second
        shown, lines = shared.share(updates(125))
        blocks += shown
        assert lines == 0
        clock.now += 0.25
    assert blocks == ALIKE
    clock.now += SECONDS
    assert shared.share(updates(125)) == (1, 0)


def test_a_few_are_shown_singly(clock):
    shared = Throttle()
    assert shared.share(updates(2)) == (2, 0)
    assert shared.share(updates(5)) == (1, 4)
    assert shared.share(updates(CROWD)) == (0, CROWD)
    assert not shared.due


def test_lines_run_out_too_and_the_rest_is_counted(clock):
    shared = Throttle()
    lines = sum(shared.share(updates(10))[1] for _ in range(10))
    assert lines == LINES[False]
    assert shared.due
    (row,) = shared.counts(Style())
    assert row.split()[:3] == ["and", "47", "more"]


def test_each_connection_is_shown_or_counted_and_counts_come_every_ten_seconds(clock):
    shared = Throttle()
    shown, rows = 0, []
    for _ in range(100):
        shown += sum(shared.share(updates(125)))
        if shared.due:
            rows += shared.counts(Style())
        clock.now += 0.25
    shared.end()
    rows += shared.counts(Style())
    counted = sum(int(row.split()[1].replace(",", "")) for row in rows)
    assert shown + counted == 100 * 125
    assert len(rows) == 4  # at once, after 10 s and 20 s, and at the end
    assert "graceful; client TIME_WAIT, server CLOSED" in rows[0]


def test_a_flood_takes_no_room_from_what_is_stuck(clock):
    shared = Throttle()
    for number in range(200):
        shared.share(updates(500, pattern=other(number)))
    assert shared.share(updates(2, UpdateKind.STUCK, STUCK)) == (2, 0)
    assert shared.share(updates(3, pattern=other(0, LEAK))) == (3, 0)


def test_what_is_grave_is_counted_first_and_few_kinds_by_name(clock):
    shared = Throttle()
    for number in range(30):
        shared.share(updates(100 + number, pattern=other(number)))
    for _ in range(2):
        shared.share(updates(500, UpdateKind.STUCK, STUCK))
    first, *_, last = rows = list(shared.counts(Style(width=200)))
    assert len(rows) == COUNTS + 1
    assert "stuck the same way: closing (stuck-close-wait)" in first
    assert last.strip().endswith("in 23 other ways")


def test_what_was_shown_when_it_got_stuck_is_not_drawn_again_at_the_end(clock):
    shared = Throttle()
    shared.share(updates(1, UpdateKind.STUCK, STUCK))
    shared.end()
    assert shared.share(updates(1, UpdateKind.OPEN, STUCK)) == (0, 1)


def test_nor_if_time_alone_has_added_to_it_since(clock):
    peer = (FindingCode.STUCK_FIN_WAIT_2, End.CLIENT)
    later, another = (
        replace(STUCK, notices=frozenset({peer})),
        replace(STUCK, problems=frozenset({peer})),
    )
    shared = Throttle()
    shared.share(updates(3, UpdateKind.STUCK, STUCK))
    shared.end()
    assert shared.share(updates(3, UpdateKind.OPEN, later)) == (0, 3)
    assert shared.share(updates(1, UpdateKind.OPEN, another)) == (1, 0)


def test_the_end_has_room_of_its_own(clock):
    shared = Throttle()
    for number in range(200):
        shared.share(updates(5, pattern=other(number)))
    assert shared.share(updates(1, UpdateKind.OPEN)) == (0, 0)
    shared.end()
    assert shared.share(updates(1, UpdateKind.OPEN, other(1))) == (1, 0)


def test_kinds_that_were_never_seen_again_are_forgotten(clock):
    shared = Throttle()
    for number in range(5000):
        shared.share(updates(1, pattern=other(number)))
        clock.now += 1
    assert len(shared._alike) <= live_output.MOST_KINDS + 1
