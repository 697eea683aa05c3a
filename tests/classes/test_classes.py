"""Classes: what is in one must be judged in one way, and what is alike should be in one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import closeseq
from attack_script import attack
from class_examples import SETTINGS, analysed, classes_of, together
from closeseq.analysis import Analysis
from closeseq.classes import Classes, Outcome
from closeseq.classes import classes as finding
from closeseq.classes.evaluation import Columns
from closeseq.classes.forms import Forms
from closeseq.classes.numbers import Number, Tape
from closeseq.classes.parallel import by_kind, costs, shares
from closeseq.connections import Connections
from closeseq.connections.conversation import Conversation, Event, Path, Stream, Traffic
from closeseq.connections.skeleton import MOST_STEPS
from closeseq.connections.steps import FAR_NS
from closeseq.errors import ScriptError
from closeseq.packets.reset_reasons import ReasonKind, ResetReason
from closeseq.packets.segments import RST
from closeseq.report.records import JSON_RECORDS, json_record
from closeseq.script import PORTS, segments
from examples import examples
from segment_rows import CAPTURES, captured, fed, joined, soups

SECOND = 10**9
MILLISECOND = 10**6
OPEN = "C:S S:SA C:A "
CLOSE = " C:FA S:A S:FA C:A"
MOST_LOOKED_AT = 60  # connections of which each text is compared


def test_equal_closes_are_one_class_whatever_their_bytes_and_numbers():
    scripts = [OPEN + f"C:A+{n} S:A+{2 * n} C:A" + CLOSE for n in (1, 10, 100, 1000)]
    assert classes_of(scripts)[1] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "other",
    [
        OPEN + "~ S:FA C:A C:FA S:A",
        OPEN + "~ C:FA S:FA C:A",
        OPEN + "C:A+1 S:A" + CLOSE,
        OPEN + "~ C:FA S:A S:FA S:R",
        OPEN + "~ C:FA S:A/0 S:FA! C:A",
        OPEN + "~ C:FA S:A +2s S:FA C:A",
        OPEN + "~ C:FA+1 S:A S:FA C:A",
        OPEN + "~ C:FA|S:A S:FA C:A",
        OPEN + "~" + CLOSE + " C:S",
        "~" + CLOSE,
    ],
)
def test_another_close_is_another_class(other):
    assert [0, 1, 2, 3] in classes_of([OPEN + "~" + CLOSE] * 4 + [other] * 4)[1]


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
        "~" + CLOSE,
    ],
)
@pytest.mark.parametrize("timestamps", [False, True])
def test_what_must_be_weighed_is_shared_as_well(script, timestamps):
    assert classes_of([script] * 5, timestamps=timestamps)[1][-1][-4:] == [1, 2, 3, 4]


def test_what_resets_say_parts_no_classes_but_whether_they_say_the_same_does():
    one, two = OPEN + "C:RA", OPEN + "C:A+9 S:RA S:RA"
    kinds = [
        (one, lambda word: [word]),
        (one, lambda _: [b""]),
        (one, lambda word: [b"\x33\xaa" + word]),  # malformed: it says nothing either
        (two, lambda word: [word, word]),
        (two, lambda word: [word, b"another " + word]),
        (two, lambda word: [word, b""]),
    ]
    said = [(script, words(word)) for script, words in kinds for word in (b"a", b"b", b"c", b"d", b"e")]
    rows = together([segments(script) for script, _ in said])
    reasons = {}
    for place, (_, words) in enumerate(said):
        own = (rows.src_port == 10_000 + place) | (rows.dst_port == 10_000 + place)
        resets = rows.number[own & (rows.flags & RST > 0)].tolist()
        reasons |= {
            number: ResetReason(ReasonKind.PAYLOAD, word)
            for number, word in zip(resets, words, strict=True)
            if word
        }
    analysis = analysed(dataclasses.replace(rows, reasons=reasons))
    assert [list(one.members) for one in analysis.classes] == [
        [*range(5)],
        [*range(5, 15)],
        [*range(15, 20)],
        [*range(20, 25)],
        [*range(25, 30)],
    ]
    assert_promise(analysis)
    texts = [connection.findings[0].summary for connection in analysis.judged()]
    assert all(f'says text "{word}"' in text for word, text in zip("abcde", texts, strict=False))


@pytest.mark.parametrize(("kind", "fewer"), [("unlike", True), ("resets-with-text", False)])
def test_where_hardly_two_are_alike_fewer_replays_are_noted(kind, fewer, tmp_path, monkeypatch):
    (path := tmp_path / "capture").write_bytes(attack.KINDS[kind].make(2000))
    noted = []

    def noting(finder, *arguments, note=Classes._noted):
        noted.append(arguments)
        return note(finder, *arguments)

    monkeypatch.setattr(Classes, "_noted", noting)

    def outcomes():
        noted.clear()
        found = {}
        for one in closeseq.analyze(str(path)).classes:
            found |= dict.fromkeys(one.members, one.outcome)
        return found, len(noted)

    monkeypatch.setattr(finding, "MOST_IN_VAIN", 2)  # it takes 8,000 connections of this kind to come to 32
    found, few = outcomes()
    monkeypatch.setattr(finding, "MOST_IN_VAIN", 1 << 30)  # however many are noted in vain
    expected, many = outcomes()
    assert found == expected
    assert few < 0.7 * many if fewer else few == many > 0


def test_connections_with_very_many_steps_are_judged_one_by_one():
    script = OPEN + "C:FA!|S:FA! +300ms " + "C:FA*!|S:FA*! +1s " * MOST_STEPS
    analysis, classes = classes_of([script] * 3)
    assert classes == [[0], [1], [2]]
    assert_promise(analysis)


def test_classes_come_in_the_order_of_their_smallest_members():
    a, b = OPEN + "~" + CLOSE, OPEN + "~ S:FA C:A C:FA S:A"
    assert classes_of([a, b, b, a, a, b, a, b])[1] == [[0, 3, 4, 6], [1, 2, 5, 7]]


def test_the_moment_decides():
    rows = together([segments(OPEN + "C:FA S:A", start_ns=n * 4 * SECOND) for n in range(10)])
    last = int(rows.time_ns.max())
    classes = [one.members for one in analysed(rows, last).classes]
    assert list(range(8)) in classes  # stuck after 5 s; the last but one is not
    assert list(range(10)) in [one.members for one in analysed(rows, last + 70 * SECOND).classes]


def test_no_more_replays_are_made_than_there_are_ways_to_go():
    rows = together([segments(OPEN + "~" + CLOSE, start_ns=n) for n in range(100)])
    connections = fed(rows)
    finder = Classes(SETTINGS)
    finder.find(connections, int(rows.time_ns.max()) + SECOND)
    assert finder.replays == 1


# ------------------------------------------------------------------------------------ the promise


def said(connection):
    """Return all that a class promises of a connection: its outcome, and its transitions by step."""
    conversation = connection.conversation
    step_of = {}
    for index, step in enumerate(conversation.steps):
        if isinstance(step, Event):
            step_of[step.packet] = index
        else:
            for end, stream in enumerate((step.client, step.server)):
                step_of.setdefault(stream.first_packet, (index, end))
                step_of.setdefault(stream.last_packet, (index, end))
    if conversation.successor is not None:
        step_of.setdefault(conversation.successor.packet, "successor")
    transitions = [
        (
            step_of.get(one.packet),
            one.endpoint,
            one.before,
            one.after,
            one.certainty,
            re.sub(r"\d+", "N", one.cause),
        )
        for one in connection.timeline.transitions
    ]
    return Outcome.of(connection), transitions


def assert_promise(analysis):
    """Hold each class against each of its members, judged by itself."""
    finder = Classes(SETTINGS, kept=True)
    found = finder.find(analysis._connections, analysis.now_ns)
    assert finder.unlike == 0
    classes = [(members.tolist(), finder.outcomes[number]) for members, number in found.groups()]
    assert sorted(index for members, _ in classes for index in members) == list(range(len(analysis)))
    alone = list(map(analysis._connection, range(len(analysis))))
    for members, outcome in classes:
        promised = said(alone[members[0]])
        assert promised[0] == outcome
        for index in members[1:]:
            assert said(alone[index]) == promised
    assert_judged_together_as_alone(analysis, alone[:MOST_LOOKED_AT])


def assert_judged_together_as_alone(analysis, alone):
    """Compare the first connections, texts included, with the same ones judged by themselves."""
    finder = Classes(SETTINGS, kept=True, worded=True)  # also of one that is like no other
    indices = np.arange(len(alone))
    together = list(finder.judge(analysis._connections, indices, analysis._analysed, analysis.now_ns))
    assert finder.unlike == 0
    for filled, one in zip(together, alone, strict=True):
        assert "judgement" in vars(filled)
        assert filled.timeline == one.timeline
        assert filled.judgement == one.judgement
        assert filled.shape == one.shape
    assert_drawn_together_as_alone(analysis, alone)


def assert_drawn_together_as_alone(analysis, alone):
    """Compare the records of the first connections with those of the same ones by themselves."""
    finder = Classes(SETTINGS, kept=True, drawing=JSON_RECORDS, capture=analysis.path)
    indices = np.arange(len(alone))
    drawn = list(finder.drawn(analysis._connections, indices, analysis._analysed, analysis.now_ns))
    assert finder.unlike == 0
    assert drawn == list(map(json_record, alone))


@pytest.mark.parametrize("wait", [0, SECOND, 100 * SECOND])
def test_the_promise_holds_in_all_captures(wait):
    rows = joined([captured(path) for path in CAPTURES])
    assert_promise(analysed(rows, int(rows.time_ns.max()) + wait))


@pytest.mark.parametrize("path", CAPTURES, ids=[path.stem for path in CAPTURES])
def test_the_promise_holds_when_a_capture_comes_many_times_in_other_numbers(path):
    rows = captured(path)
    rng = np.random.default_rng(1)
    parts = []
    for number in range(3):
        part = rows.take(np.arange(len(rows)))
        part.time_ns[:] = rows.time_ns[0] + ((rows.time_ns - rows.time_ns[0]) * rng.choice([0.5, 1, 1.01, 3]))
        part.src_low[:] += np.uint64(number << 12)
        part.dst_low[:] += np.uint64(number << 12)
        part.tsval[:] += np.uint32(rng.integers(1 << 32))
        parts.append(part)
    rows = joined(parts)
    rows = rows.take(np.argsort(rows.time_ns, kind="stable"))
    rows = dataclasses.replace(rows, number=np.arange(1, len(rows) + 1))
    assert_promise(analysed(rows))


ENDINGS = [
    *["C:FA S:A S:FA C:A", "S:FA C:A C:FA S:A", "C:FA S:FA C:A"] * 4,
    *[
        "C:FA|S:FA C:A|S:A",
        "C:RA",
        "S:RA",
        "C:FA S:A +{long} S:FA C:A",
        "C:FA S:A",
        "C:FA S:A S:A+{n} C:R",
        "",
    ],
    *["C:FA! +{short} C:FA* S:A S:FA C:A", "C:FA S:A S:FA C:A! +{short} S:FA* C:A", "C:FA S:A S:FA!"],
    *["C:FA S:A? S:FA C:A", "C:FA S:A S:FA C:A S:R", "C:PFA S:A S:FA? +{short} S:FA* C:A"],
]


def busy_server(connections, seed):
    """Return the rows of connections as unlike as a busy server's: paths, systems, requests, losses, ends."""
    rng, parts = np.random.default_rng(seed), []
    for _ in range(connections):
        sizes = {"n": rng.integers(1, 1400), "m": rng.integers(1, 100_000)}
        waits = {"short": f"{rng.integers(200, 900)}ms", "long": f"{rng.integers(1, 90)}s"}
        lost = rng.choice(["", "", "", "", "!", "?"])
        again = " +{short} C:A+{n}*" if lost else ""
        turn = "C:A+{n}" + lost + again + " S:A S:A+{m} C:A "
        script = OPEN + turn * rng.integers(0, 3) + rng.choice(ENDINGS)
        part = segments(
            script.format(**sizes, **waits),
            numbers=tuple(rng.integers(1 << 32, size=2).tolist()),
            start_ns=1_700_000_000 * SECOND + int(rng.integers(60 * SECOND)),
            gap_ns=int(10 ** rng.uniform(3.7, 8)),
            timestamps=bool(rng.integers(2)),
        )
        part.ttl[part.src_port == PORTS[0]] = rng.choice([50, 64, 128, 255])
        part.syn_options[part.syn_options > 0] = rng.choice([0x24813] * 4 + [0x213311, 0x2])
        part.time_ns[:] += rng.integers(200_000, size=len(part)).cumsum()
        if rng.integers(3) == 0:
            part.ip_id[:] = rng.choice([0, -1])
        parts.append(part)
    return together(parts)


@pytest.mark.parametrize("seed", range(2))
def test_the_promise_holds_for_a_busy_server_and_many_share(seed):
    analysis = analysed(busy_server(300, seed))
    assert_promise(analysis)
    shared = [one for one in analysis.classes if len(one.members) > 1]
    assert sum(len(one.members) for one in shared) > 80  # of 300


letters = st.sampled_from(["A", "A", "FA", "FA", "FA", "RA", "R", "A+2", "A+3", "FA+2", "PFA", "K", "A/0"])
marks = st.sampled_from([""] * 10 + ["!", "?", "*"])
words = st.one_of(st.just("~"), st.builds("{}:{}{}".format, st.sampled_from("CS"), letters, marks))
pauses = st.sampled_from(["", "", "", "+1ms", "+190ms", "+210ms", "+700ms", "+1.3s", "+61s"])
bodies = st.lists(words, min_size=1, max_size=7)


@st.composite
def crowds(draw):
    """Return the rows of many connections, some of them alike."""
    parts = []
    for body in draw(st.lists(bodies, min_size=1, max_size=3)) * 8:
        paced = " ".join(f"{word} {draw(pauses)}" for word in body)
        try:
            part = segments(
                OPEN + re.sub(r"\+(\d)\b(?!m?s)", lambda match: f"+{int(match[1]) * 5}", paced),
                gap_ns=draw(st.sampled_from([5_000, 30_000, 400_000, MILLISECOND])),
                timestamps=draw(st.booleans()),
            )
        except ScriptError:
            continue
        parts.append(part)
    return together(parts) if parts else segments("C:S")


waits = st.sampled_from([0, 10 * MILLISECOND, 2 * SECOND, 100 * SECOND])


@examples(30)
@given(crowds(), waits)
def test_the_promise_holds_in_random_scripts(rows, wait):
    assert_promise(analysed(rows, int(rows.time_ns.max()) + wait))


@examples(30)
@given(st.lists(soups(most=12), min_size=2, max_size=6), waits)
def test_the_promise_holds_in_random_rows(several, wait):
    for number, rows in enumerate(several):
        rows.src_low[:] += np.uint64(number << 12)
        rows.dst_low[:] += np.uint64(number << 12)
    rows = joined(several)
    rows = dataclasses.replace(rows, number=np.arange(1, len(rows) + 1))
    assert_promise(analysed(rows, int(rows.time_ns.max()) + wait))


@examples(30)
@given(crowds(), st.lists(waits, min_size=1, max_size=4))
def test_what_was_learned_holds_for_later_batches_and_moments(rows, moments):
    finder, connections = Classes(SETTINGS, kept=True), Connections()
    half = len(rows) // 2
    now_ns = 0
    for batch in (rows.take(np.arange(half)), rows.take(np.arange(half, len(rows)))):
        connections.feed(batch)
        analysis = Analysis("", SETTINGS)
        for wait in moments:
            now_ns = max(now_ns, int(rows.time_ns.max())) + wait
            found = finder.find(connections, now_ns)
            analysis._connections, analysis.reading.ended_ns = connections, now_ns
            for index, number in enumerate(found.outcome.tolist()):
                assert finder.outcomes[number] == Outcome.of(analysis[index])


@examples(30)
@given(crowds(), waits)
def test_time_alone_changes_nothing_before_it_is_said_to(rows, wait):
    now_ns = int(rows.time_ns.max()) + wait
    connections = fed(rows)
    found = Classes(SETTINGS, kept=True).find(connections, now_ns)
    assert (found.until_ns > now_ns).all()
    later, now = Classes(SETTINGS), analysed(rows, now_ns)
    for index, until_ns in enumerate(found.until_ns.tolist()):
        same = later.find(
            connections, min(until_ns - 1, now_ns + 1000 * SECOND), among=np.array([index])
        ).outcome[0]
        assert later.outcomes[same] == Outcome.of(now[index])


def test_when_a_wait_will_be_stuck_is_known_to_the_nanosecond():
    rows = segments(OPEN + "C:FA S:A")
    connections, finder = fed(rows), Classes(SETTINGS, kept=True)
    ack_ns = int(rows.time_ns[-1])
    moments, now_ns = [], ack_ns + MILLISECOND
    while now_ns < FAR_NS:
        found = finder.find(connections, now_ns)
        outcome = finder.outcomes[found.outcome[0]]
        moments.append((now_ns - ack_ns, outcome.has("stuck-close-wait"), outcome.has("stuck-fin-wait-2")))
        now_ns = int(found.until_ns[0])
    fin_ns = ack_ns - int(rows.time_ns[-2])
    assert (5 * SECOND - fin_ns, True, False) in moments
    assert (5 * SECOND, True, True) in moments
    assert len(moments) < 10  # it is not looked at again and again


def test_feeding_in_small_batches_gives_the_same_classes():
    rows = joined([captured(path) for path in CAPTURES])
    now_ns = int(rows.time_ns.max())

    def members(connections):
        return [one.tolist() for one, _ in Classes(SETTINGS).find(connections, now_ns).groups()]

    assert members(fed(rows, 13)) == members(fed(rows))


@pytest.mark.parametrize("together", [0, 1000])
def test_however_many_are_followed_at_once_the_classes_are_the_same(together, monkeypatch):
    rows = busy_server(300, 7)
    expected = [one.members for one in analysed(rows).classes]
    monkeypatch.setattr("closeseq.classes.evaluation.TOGETHER", together)
    monkeypatch.setattr("closeseq.classes.tree.FEW", 0)
    assert [one.members for one in analysed(rows).classes] == expected


def test_records_of_many_that_close_alike_are_drawn_once(monkeypatch):
    rows = together([segments(OPEN + f"C:A+{n + 1} S:A {CLOSE}", start_ns=n) for n in range(60)])
    analysis = analysed(rows, int(rows.time_ns.max()) + SECOND)
    alone = [json_record(one) for one in analysis]
    drawn = []
    monkeypatch.setattr("closeseq.report.records._line", lambda one: drawn.append(one) or "alone")
    assert list(analysis.drawn(JSON_RECORDS, range(60))) == alone
    assert len(set(alone)) == 60
    assert drawn == []


@pytest.mark.parametrize(
    "name", ["%s %d.pcap", "\\u00001\\u0000.pcap", 'a"b\\.pcap', "müll.pcap", "\udcff.pcap", "{0}", "\n"]
)
def test_whatever_the_name_of_the_capture_the_records_are_the_same(name):
    rows = together([segments(OPEN + f"C:A+{n + 1} S:A {CLOSE}", start_ns=n) for n in range(40)])
    analysis = analysed(rows)
    analysis.path = name
    assert list(analysis.drawn(JSON_RECORDS, range(40))) == [json_record(one) for one in analysis]
    assert analysis._drawers[JSON_RECORDS].unlike == 0


@pytest.mark.parametrize(
    "step", ["slots.Slots.values", "drawing.TextTemplate.text", "drawing.TextTemplate.__init__"]
)
def test_where_a_text_cannot_be_made_once_each_record_is_made_by_itself(step, monkeypatch):
    analysis = analysed(together([segments(OPEN + "C:FA S:A S:FA C:A", start_ns=n) for n in range(50)]))
    alone = [json_record(one) for one in analysis]

    def fail(*_):
        raise KeyError("made for the test")

    monkeypatch.setattr(f"closeseq.classes.{step}", fail)
    assert list(analysis.drawn(JSON_RECORDS, range(50))) == alone


def test_where_noting_fails_each_connection_is_judged_by_itself(monkeypatch):
    rows = together([segments(OPEN + ending) for ending in ("C:FA S:A S:FA C:A", "C:RA") * 4])
    analysis = analysed(rows)
    expected = analysis.verdicts
    monkeypatch.setattr(Number, "__sub__", None)
    finder = Classes(SETTINGS, kept=True)
    found = finder.find(analysis._connections, analysis.now_ns)
    assert finder.unlike == len(analysis)
    assert Counter(finder.outcomes[number].verdict for number in found.outcome.tolist()) == expected


def test_what_is_judged_together_is_judged_once():
    """Also where texts show spans of time, counts of packets and addresses, all of them different."""
    script = OPEN + "C:FA S:A +{}s S:A+{} C:R"
    rows = together([segments(script.format(61 + n, 1 + n), start_ns=n) for n in range(40)])
    analysis = analysed(rows)
    finder = Classes(SETTINGS, worded=True)
    found = list(finder.judge(analysis._connections, np.arange(40), analysis._analysed, analysis.now_ns))
    assert finder.replays < len(found) / 10
    assert len({one.findings[0].summary for one in found}) == 40
    assert [one.judgement for one in found] == [one.judgement for one in analysis]


def test_many_are_asked_for_in_any_choice_and_portion(monkeypatch):
    analysis = analysed(busy_server(100, 3))
    alone = [one.judgement for one in analysis]
    for most in (7, 64, 1000):
        monkeypatch.setattr("closeseq.connections.tracker.MOST_AT_ONCE", most)
        for step in (1, 2):
            chosen = range(0, 100, step)
            assert [one.judgement for one in analysis.judged(chosen)] == [alone[i] for i in chosen]


# ---------------------------------------------------------------------------- nothing may slip by


def noted(plain, noting):
    """Yield the fields of a conversation that are neither a number that notes nor equal to the plain ones."""
    for field in dataclasses.fields(plain):
        one, other = getattr(plain, field.name), getattr(noting, field.name)
        where = f"{type(plain).__name__}.{field.name}"
        if isinstance(one, Event | Stream | Traffic | Path):
            yield from noted(one, other)
        elif field.name == "steps":
            for a, b in zip(one, other, strict=True):
                yield from noted(a, b)
        elif field.name in ("client", "server"):  # an Address
            assert (one.address, one.port) == (str(other.address), other.port.value)
            yield from [where] if type(other.port) is not Number else []
        elif field.name == "dsack" and one is not None:
            yield from [where] if {type(part) for part in other} != {Number} else []
            assert [part.value for part in other] == list(one)
        elif field.name == "response_ns" and one is not None:
            yield from [where] if type(other) is not Number else []
        elif type(one) is int:
            absent = isinstance(plain, Stream) and not plain.segments  # all of its numbers are 0
            yield from [where] if type(other) is not Number and not absent else []
            assert one == (other.value if type(other) is Number else other)
        else:
            assert one == other
            assert type(one) is type(other)


def test_each_number_of_a_conversation_notes_or_belongs_to_the_skeleton():
    connections = fed(joined([captured(path) for path in CAPTURES]))
    kinds = set()
    for skeleton in connections.skeletons():
        tape = Tape(Forms())
        for row, index in enumerate(skeleton.connection.tolist()):
            noting = skeleton.conversation(
                row, lambda value, leaf, tape=tape: Number(int(value), tape.forms.leaf(leaf), 0, tape)
            )
            plain = connections.conversation(index)
            assert isinstance(noting, Conversation)
            kinds |= set(noted(plain, noting))
    assert kinds <= {"Event.flags", "Path.lost_after"}  # the latter never below 0, which is noted


def test_connections_of_one_skeleton_have_the_same_kinds():
    """Also of those numbers that are left out of the columns."""
    connections = fed(joined([captured(path) for path in CAPTURES]))
    for skeleton in connections.skeletons():
        shapes = set()
        for row in range(len(skeleton)):
            one = skeleton.conversation(row, lambda value, _: value)
            shapes.add(
                tuple(
                    (step.sender, step.flags, step.position, step.tsval is None)
                    if isinstance(step, Event)
                    else (step.client.tsval is None, step.server.tsval is None)
                    for step in one.steps
                )
            )
        assert len(shapes) == 1


def test_connections_of_one_skeleton_are_of_one_kind():
    connections = fed(joined([captured(path) for path in CAPTURES]))
    kinds = connections.kinds(np.arange(len(connections)))
    shared = [one.connection for one in connections.skeletons() if one.shared]
    assert all(len({*kinds[members].tolist()}) == 1 for members in shared)
    assert len({*kinds.tolist()}) > len(shared) / 4


kinds = st.lists(st.integers(0, 9), min_size=1, max_size=200).map(np.array)


@given(kinds, st.integers(1, 5))
def test_connections_of_a_kind_are_one_workers_unless_they_are_much(kinds, workers):
    share = shares(kinds, workers)
    assert set(share.tolist()) <= set(range(workers))
    _, cost = costs(kinds)
    for place, kind in enumerate(np.unique(kinds).tolist()):
        if cost[place] <= cost.sum() / workers / 2:
            assert len({*share[kinds == kind].tolist()}) == 1
    parts = by_kind(kinds, workers)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(kinds)))
    assert all((np.diff(part) > 0).all() for part in parts)
    for kind in np.unique(kinds).tolist():
        assert sum(kind in kinds[part] for part in parts) == 1


def test_the_leaves_of_a_skeleton_are_the_numbers_of_its_connections():
    connections = fed(joined([captured(path) for path in CAPTURES]))
    for skeleton in connections.skeletons():
        for row in range(len(skeleton)):
            leaves = {}
            skeleton.conversation(row, lambda value, leaf, leaves=leaves: leaves.setdefault(leaf, value))
            assert len(leaves) > len(skeleton.key)
            for leaf, value in leaves.items():
                assert skeleton.column(leaf)[row] == value


@pytest.mark.parametrize("dropped", [(1 << 63) - 1, 1 << 63, 1 << 70])
def test_a_capture_may_claim_to_have_lost_any_number_of_packets(dropped):
    # Found by fuzzing: as many as an isb_ifdrop holds, for several interfaces.
    scripts = [OPEN + f"C:A+{n} S:A" + CLOSE for n in range(1, 6)]
    analysis = analysed(together([segments(script) for script in scripts]))
    analysis.reading.dropped = dropped
    assert [one.members for one in analysis.classes] == [[0, 1, 2, 3, 4]]


def test_a_time_further_off_than_64_bits_hold_never_comes():
    # Found by fuzzing: 25 years before 1970 to 2031, with seven tries of a FIN.
    rows = segments(OPEN + "S:FA C:FA S:A" + "".join(f" +{60 * n}s C:FA*" for n in range(1, 6)))
    rows.time_ns[:] += -792_890_595 * SECOND - rows.time_ns[0]
    rows.time_ns[-1] = 1_935_534_606 * SECOND
    finder, connections = Classes(SETTINGS, kept=True), fed(rows)
    found = finder.find(connections, int(rows.time_ns[-1]), dropped=1 << 66)
    assert finder.unlike == 0
    assert found.until_ns.max() <= FAR_NS


def test_where_classes_cannot_be_found_each_connection_is_judged_by_itself(monkeypatch):
    rows = together([segments(OPEN + ending) for ending in ("C:FA S:A S:FA C:A", "C:RA") * 20])
    analysis = analysed(rows)
    monkeypatch.setattr(Columns, "_leaf", None)
    finder = Classes(SETTINGS)
    found = finder.find(analysis._connections, analysis.now_ns)
    assert finder.unlike == len(analysis)
    told = Counter(finder.outcomes[number].verdict for number in found.outcome.tolist())
    assert told == {"graceful": 20, "reset": 20}
    assert Counter(one.verdict for one in analysis.judged()) == told


@pytest.mark.parametrize("step", ["slots.Slots.values", "template.Template.fill"])
def test_where_a_template_fails_each_connection_is_judged_by_itself(step, monkeypatch):
    analysis = analysed(together([segments(OPEN + "C:FA S:A S:FA C:A", start_ns=n) for n in range(50)]))

    def fail(*_):
        raise KeyError("made for the test")

    monkeypatch.setattr(f"closeseq.classes.{step}", fail)
    assert {one.verdict for one in analysis.judged()} == {"graceful"}
