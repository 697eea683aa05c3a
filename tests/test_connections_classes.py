"""Classes: whatever is in one must be replayed in one way, and what is alike should be in one."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeseq.connections import Connections, shape
from closeseq.connections.conversation import Event
from closeseq.errors import ScriptError
from closeseq.script import PORTS, segments
from closeseq.tcp.fins import TELLING_BREATHS_NS, TELLING_TIMES_NS
from closeseq.tcp.replay import replay
from closeseq.tcp.timers import Timers
from segment_rows import CAPTURES, captured, fed, joined

SECOND = 10**9
MILLISECOND = 10**6
OPEN = "C:S S:SA C:A "
CLOSE = " C:FA S:A S:FA C:A"

# What the replay compares times with; those of the second kind depend on the round trip.
FIXED = [*TELLING_TIMES_NS, 10 * MILLISECOND, 60 * SECOND]
SCALED = [(MILLISECOND, 2), (1200 * MILLISECOND, 3)]


def together(parts):
    """Return the connections of several captures of one pair in one, each with a client port of its own."""
    renamed = []
    for number, part in enumerate(parts):
        ports = {
            name: np.where(getattr(part, name) == PORTS[0], 10_000 + number, getattr(part, name)).astype("u2")
            for name in ("src_port", "dst_port")
        }
        renamed.append(dataclasses.replace(part, **ports))
    rows = joined(renamed)
    rows = rows.take(np.argsort(rows.time_ns, kind="stable"))
    return dataclasses.replace(rows, number=np.arange(1, len(rows) + 1))


def classes_of(scripts, now_ns=None, **options):
    """Return the connections of these scripts, and the classes as lists of their indices."""
    rows = together([segments(script, **options) for script in scripts])
    connections = fed(rows)
    now_ns = int(rows.time_ns.max()) if now_ns is None else now_ns
    return connections, connections.classes(now_ns, FIXED, brief_ns=TELLING_BREATHS_NS, scaled_ns=SCALED)


def members(classes):
    return [one.members.tolist() for one in classes]


def test_equal_closes_are_one_class_whatever_their_bytes_and_numbers():
    scripts = [OPEN + f"C:A+{n} S:A+{2 * n} C:A" + CLOSE for n in (1, 10, 100, 1000)]
    connections, classes = classes_of(scripts)
    assert members(classes) == [[0, 1, 2, 3]]
    assert classes[0].key is not None
    assert len(connections) == 4


@pytest.mark.parametrize(
    "other",
    [
        OPEN + "~ S:FA C:A C:FA S:A",
        OPEN + "~ C:FA S:FA C:A",
        OPEN + "C:A+1 S:A" + CLOSE,
        OPEN + "~ C:FA S:A S:FA S:R",
        OPEN + "~ C:FA S:A/0 S:FA C:A",
        OPEN + "~ C:FA S:A +2s S:FA C:A",
        OPEN + "~ C:FA+1 S:A S:FA C:A",
        OPEN + "~ C:FA|S:A S:FA C:A",
        OPEN + "~" + CLOSE + " C:S",
        "~" + CLOSE,
    ],
)
def test_another_close_is_another_class(other):
    scripts = [OPEN + "~" + CLOSE] * 4 + [other] * 4
    assert [0, 1, 2, 3] in members(classes_of(scripts)[1])


@pytest.mark.parametrize(
    "script",
    [
        OPEN + "~ C:FA! +300ms C:FA* S:A S:FA C:A",
        OPEN + "C:A+10! +300ms C:A+10* S:A" + CLOSE,
        OPEN + "C:A+10? C:A+10 S:A" + CLOSE,
        OPEN + "+60s C:K S:A" + CLOSE,
        OPEN + "C:A+10 S:A/0 S:A" + CLOSE,
        OPEN + "C:FA S:A " + "S:A+10 C:A " * 20,
        OPEN + "C:PFA S:A S:FA C:A",
    ],
)
def test_what_must_be_weighed_is_a_class_of_its_own(script):
    _, classes = classes_of([script] * 5)
    assert members(classes) == [[0], [1], [2], [3], [4]]
    assert not any(one.key for one in classes)


def test_classes_come_in_the_order_of_their_smallest_members():
    a, b = OPEN + "~" + CLOSE, OPEN + "~ S:FA C:A C:FA S:A"
    assert members(classes_of([a, b, b, a, a, b, a, b])[1]) == [[0, 3, 4, 6], [1, 2, 5, 7]]


def test_connections_from_the_middle_may_be_clean():
    assert members(classes_of(["~" + CLOSE] * 5)[1]) == [[0, 1, 2, 3, 4]]


def test_the_moment_decides():
    rows = together([segments(OPEN + "C:FA S:A", start_ns=n * 40 * SECOND) for n in range(10)])
    connections = fed(rows)
    last = int(rows.time_ns.max())
    assert members(connections.classes(last, [30 * SECOND])) == [list(range(9)), [9]]
    assert members(connections.classes(last + 9 * SECOND, [4000 * SECOND])) == [list(range(10))]
    assert members(connections.classes(last, [60 * SECOND])) == [list(range(8)), [8, 9]]


# The property that makes classes useful, against the replay itself


def replayed(conversation, now_ns):
    """Return the replay of a conversation with its packets and times taken out."""
    timeline = replay(conversation, Timers(), now_ns)
    step_of = {}
    for index, step in enumerate(conversation.steps):
        if isinstance(step, Event):
            step_of[step.packet] = index
        else:
            for stream in (step.client, step.server):
                step_of.setdefault(stream.first_packet, index)
                step_of.setdefault(stream.last_packet, index)

    def note(text):
        return text and re.sub(r"#(\d+)", lambda match: f"#{step_of.get(int(match[1]))}", text)

    def plain(transition):
        step = step_of.get(transition.packet)
        return step, transition.endpoint, transition.before, transition.after, transition.certainty

    steps = [(step.client, step.server, step.arrived, note(step.note)) for step in timeline.steps]
    return steps, [plain(one) for one in timeline.transitions], sorted(timeline.expiries)


def assert_members_are_replayed_alike(connections, classes, now_ns):
    assert sorted(index for one in members(classes) for index in one) == list(range(len(connections)))
    for one in members(classes):
        conversations = [connections.conversation(index) for index in one]
        assert len({shape(conversation) for conversation in conversations}) == 1
        results = [replayed(conversation, now_ns) for conversation in conversations]
        assert results == results[:1] * len(results)


def test_members_are_replayed_alike_in_all_captures():
    rows = joined([captured(path) for path in CAPTURES])
    connections = Connections()
    connections.feed(rows)
    for wait in (0, SECOND, 100 * SECOND):
        now_ns = int(rows.time_ns.max()) + wait
        assert_members_are_replayed_alike(
            connections,
            connections.classes(now_ns, FIXED, brief_ns=TELLING_BREATHS_NS, scaled_ns=SCALED),
            now_ns,
        )


letters = st.sampled_from(["A", "A", "FA", "FA", "FA", "RA", "R", "A+2", "A+3", "FA+2"])
marks = st.sampled_from([""] * 20 + ["!", "?", "*"])
words = st.one_of(st.just("~"), st.builds("{}:{}{}".format, st.sampled_from("CS"), letters, marks))
pauses = st.sampled_from(["", "", "", "+1ms", "+190ms", "+210ms", "+700ms", "+1.3s", "+61s"])
bodies = st.lists(words, min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.lists(bodies, min_size=1, max_size=3))
def test_members_are_replayed_alike_in_random_scripts(data, scripts):
    parts = []
    for body in scripts * 8:
        paced = " ".join(f"{word} {data.draw(pauses)}" for word in body)
        try:
            part = segments(
                OPEN + re.sub(r"\+(\d)\b(?!m?s)", lambda match: f"+{int(match[1]) * 5}", paced),
                gap_ns=data.draw(st.sampled_from([5_000, 30_000, 400_000, MILLISECOND])),
                timestamps=data.draw(st.booleans()),
            )
        except ScriptError:
            continue
        parts.append(part)
    if not parts:
        return
    rows = together(parts)
    now_ns = int(rows.time_ns.max()) + data.draw(
        st.sampled_from([0, 10 * MILLISECOND, 2 * SECOND, 100 * SECOND])
    )
    connections = fed(rows)
    assert_members_are_replayed_alike(
        connections, connections.classes(now_ns, FIXED, brief_ns=TELLING_BREATHS_NS, scaled_ns=SCALED), now_ns
    )


def test_feeding_in_small_batches_gives_the_same_classes():
    rows = joined([captured(path) for path in CAPTURES])
    now_ns = int(rows.time_ns.max())
    expected = members(fed(rows).classes(now_ns, FIXED))
    assert members(fed(rows, 13).classes(now_ns, FIXED)) == expected
