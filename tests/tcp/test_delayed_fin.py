"""A FIN that waited before it was captured: when had its sender closed?

In these scripts `?` is what a packet filter before the capture point does, and `C:FPA*` what Linux sends
when its probe timer ends.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from class_examples import classes_of
from closeseq.connections.conversation import End, Event
from closeseq.script import conversation, segments
from closeseq.settings import SECOND, Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from segment_rows import conversations

OPEN = "C:S S:SA C:A "
CLOSE_WAIT, CLOSING, FIN_WAIT_1, LAST_ACK = (
    State.CLOSE_WAIT, State.CLOSING, State.FIN_WAIT_1, State.LAST_ACK,
)  # fmt: skip
BREATH_NS = 5_000


def run(script: str, **options):
    told = conversation(OPEN + script, **options)
    return replay(told, Timers(), told.last_ns)


def closing(timeline, end: End):
    """Return the transitions of an endpoint after ESTABLISHED."""
    return [t for t in timeline.transitions if t.endpoint is end][2:]


def states(timeline, end: End):
    return [t.after for t in closing(timeline, end)]


@pytest.mark.parametrize(
    ("tries", "seconds"),
    [("C:FA? +0.2s", 0.2), ("C:FA? +0.2s C:FA*? +0.4s", 0.6), ("C:FA? +0.2s C:FA*? +0.4s C:FA*? +0.8s", 1.4)],
)
def test_it_had_been_tried_as_often_as_packets_of_its_end_are_missing(tries, seconds):
    timeline = run(f"~ +2s {tries} C:FPA* S:A")
    closed = closing(timeline, End.CLIENT)[0]
    fin = next(s for s in timeline if "F" in s.flags)
    assert (closed.after, closed.certainty) == (FIN_WAIT_1, Certainty.ASSUMED)
    assert fin.time_ns - closed.time_ns == pytest.approx(seconds * SECOND, abs=SECOND / 100)


def test_a_try_and_an_answer_missing_tell_that_the_peer_closed_first():
    timeline = run("~ +1s C:FA S:A? S:FA? +0.2s S:FPA* C:A")
    assert states(timeline, End.SERVER)[:2] == [CLOSE_WAIT, LAST_ACK]


def test_a_packet_more_missing_tells_that_the_peer_closed_second():
    timeline = run("~ +1s S:FA? +0.1s C:FA S:A? S:FA*? +0.2s S:FPA* C:A")
    assert states(timeline, End.SERVER)[:2] == [FIN_WAIT_1, CLOSING]
    assert closing(timeline, End.SERVER)[0].certainty is Certainty.ASSUMED


def test_a_fin_that_the_peers_fin_pushed_out_had_been_tried():
    timeline = run("+1s S:FA? C:FA S:FA* C:A", gap_ns=BREATH_NS)
    assert states(timeline, End.SERVER)[:2] == [FIN_WAIT_1, CLOSING]


def test_a_fin_that_was_not_tried_before_was_no_answer_of_the_kernel():
    timeline = run("~ +1s C:FA S:FA C:A", gap_ns=BREATH_NS)
    assert states(timeline, End.SERVER)[:2] == [CLOSE_WAIT, LAST_ACK]
    assert closing(timeline, End.SERVER)[1].certainty is Certainty.OBSERVED


def test_numbers_that_leap_tell_nothing():
    told = conversation(OPEN + "~ +2s C:FA? +0.2s C:FA*? +0.4s C:FPA* S:A")
    steps = [replace(s, ip_id=s.ip_id + 1000) if isinstance(s, Event) and s.fin else s for s in told.steps]
    timeline = replay(replace(told, steps=tuple(steps)), Timers(), told.last_ns)
    fin = next(s for s in timeline if "F" in s.flags)
    assert fin.time_ns - closing(timeline, End.CLIENT)[0].time_ns == SECOND // 5


def test_connections_with_packets_missing_are_not_judged_by_those_without():
    plain, waited = "+1s C:FA S:FA C:A", "+1s S:FA? C:FA S:FA* C:A"
    _, classes = classes_of([OPEN + plain] * 4 + [OPEN + waited] * 4, gap_ns=BREATH_NS)
    assert classes == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_packets_that_passed_the_capture_point_the_other_way_round_are_not_missing():
    """Two processors send an acknowledgement and data at the same time; the one sent second is seen first."""
    rows = segments(OPEN + "C:A+5 S:A S:A+5 C:A C:FA S:FA C:A", gap_ns=BREATH_NS)
    order = np.arange(len(rows))
    order[[4, 5]] = 5, 4
    crossed = rows.take(order)
    crossed.time_ns[:], crossed.number[:] = rows.time_ns, rows.number
    (told,) = conversations(crossed)
    timeline = replay(told, Timers(), told.last_ns)
    assert crossed.ip_id[4] > crossed.ip_id[5] > 0
    assert states(timeline, End.SERVER)[:2] == [CLOSE_WAIT, LAST_ACK]


def test_data_that_the_capture_missed_was_no_try():
    timeline = run("C:A+5 S:A (S:A+5) C:A C:FA S:FA C:A", gap_ns=BREATH_NS)
    assert states(timeline, End.SERVER)[:2] == [CLOSE_WAIT, LAST_ACK]
