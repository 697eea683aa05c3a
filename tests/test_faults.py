"""A fault in closeseq costs the judgement of the connection it is met at, and nothing else."""

import csv
import io
import json
import os
import re
import shutil
import time

import pytest

import closeseq
from closeseq import connection as road
from closeseq.analysis import Analysis
from closeseq.cli import analyze_run
from closeseq.cli.main import run
from closeseq.report import live_text, problems, records, socket_states, table
from closeseq.report.page import examples, line
from closeseq.report.pictures.picture_forms import FORMS
from closeseq.verdict.fault import Faults
from live_namespace import ended, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from pages import Parsed, written
from record_schema import assert_valid

CAPTURE = "captures/leaky-server.pcap"


def failing(stage, chosen):
    """Return a stage of the road that fails at the connections that are chosen."""

    def fail(subject, *others, **named):
        conversation = getattr(subject, "conversation", subject)
        if chosen(conversation):
            raise IndexError("made for the test")
        return stage(subject, *others, **named)

    return fail


@pytest.fixture(params=["replay", "judge"])
def broken(request, monkeypatch):
    """Closeseq with a fault that the first connection of a capture meets, in one stage or the other."""
    stage = getattr(road, request.param)
    monkeypatch.setattr(road, request.param, failing(stage, lambda c: int(c.id) == 1))
    return request.param


def test_the_others_are_judged_as_ever(monkeypatch):
    before = [(c.id, c.verdict, c.findings) for c in closeseq.analyze(CAPTURE)]
    assert len(before) > 1
    for name in ("replay", "judge"):
        with monkeypatch.context() as patched:
            patched.setattr(road, name, failing(getattr(road, name), lambda c: int(c.id) == 1))
            after = [(c.id, c.verdict, c.findings) for c in closeseq.analyze(CAPTURE)]
        assert after[0] == (1, "not-judged", ())
        assert after[1:] == before[1:]


def test_its_packets_are_still_there(broken):
    first = closeseq.analyze(CAPTURE)[0]
    assert [step.packet for step in first.timeline] == sorted(step.packet for step in first.timeline)
    assert len(first.timeline) == len(first.conversation.steps) > 0
    assert "IndexError in test_faults.py" in first.summary
    if broken == "replay":
        assert {first.client.state, first.server.state} == {"UNKNOWN"}


@pytest.mark.parametrize("form", ["summary", "table", "timeline", "json", "jsonl", "csv"])
def test_every_format_is_complete_and_the_status_is_70(broken, form, capsys):
    assert run(["analyze", "-f", form, "--all", CAPTURE]) == 70
    said = capsys.readouterr()
    assert "not-judged" in said.out
    assert "1 connection could not be judged" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("form", ["summary", "table", "timeline", "json", "jsonl", "csv"])
def test_several_processes_tell_the_same(form, monkeypatch, capsys):
    monkeypatch.setattr(road, "judge", failing(road.judge, lambda c: int(c.id) in {2, 3, 4, 5}))
    told = []
    for jobs in (1, 2, 3):
        assert run(["analyze", "-f", form, "--all", CAPTURE, "--jobs", str(jobs)]) == 70
        told.append(capsys.readouterr())
    assert "4 connections could not be judged, a fault in closeseq (#2: IndexError" in told[0].err
    assert told[1:] == told[:1] * 2


def test_an_annotated_capture_has_the_comments_of_the_others(broken, tmp_path, capsys):
    target = tmp_path / "annotated.pcapng"
    assert run(["analyze", "-f", "pcapng", "-o", str(target), CAPTURE]) == 70
    assert "1 connection could not be judged" in capsys.readouterr().err
    data = target.read_bytes()
    assert (b"closeseq: #1 " in data) == (broken == "judge")  # whose states are known, and no finding
    assert all(b"closeseq: #%d " % number in data for number in (2, 3, 4, 5))


def test_it_is_told_though_others_are_asked_for(broken, capsys):
    assert run(["analyze", "-f", "table", "--verdict", "reset", CAPTURE]) == 70
    assert "1 connection could not be judged" in capsys.readouterr().err


def test_records_keep_to_their_schema(broken, capsys):
    run(["analyze", "-f", "jsonl", CAPTURE])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in records:
        assert_valid(record)
    assert [record["verdict"] for record in records].count("not-judged") == 1


def test_following_goes_on(broken, tmp_path, capsys):
    shutil.copy(CAPTURE, tmp_path / "capture.pcap")
    assert run(["follow", "--duration", "1", str(tmp_path / "capture.pcap")]) == 70
    said = capsys.readouterr()
    assert "not-judged" in said.out
    assert "Traceback" not in said.err


# What goes wrong while a connection is drawn

STUCK = ["--stuck-after", "1"]  # so that there are problems


def in_vain(module, name, monkeypatch, *, whenever=True):
    """Let a function that draws fail at the first connection, or only as long as something is said of it."""
    draw = getattr(module, name)

    def fail(drawn, *others, **named):
        one = drawn if hasattr(drawn, "conversation") else drawn.connections[0]
        if one.id == 1 and (whenever or one.verdict != "not-judged"):
            raise KeyError("made for the test")
        return draw(drawn, *others, **named)

    monkeypatch.setattr(module, name, fail)


DRAWN = {
    "summary": (problems, "_problem"),
    "table": (table, "row"),
    "timeline": (analyze_run, "format_timeline"),
    "json": (records, "draw"),
    "jsonl": (records, "draw"),
    "csv": (records, "_head"),
}


def read_again(form, text):
    """Return (number, verdict) of each connection of a report that a program reads."""
    if form == "csv":
        return [(int(row["id"]), row["verdict"]) for row in csv.DictReader(io.StringIO(text), strict=True)]
    found = json.loads(text)["connections"] if form == "json" else [json.loads(x) for x in text.splitlines()]
    for record in found:
        assert_valid(record)
    return [(record["id"], record["verdict"]) for record in found]


@pytest.mark.parametrize("whenever", [True, False])
@pytest.mark.parametrize("form", DRAWN)
def test_a_connection_that_cannot_be_drawn_is_told_as_not_judged(form, whenever, monkeypatch, capsys):
    command = ["analyze", "-f", form, "--all", *STUCK, CAPTURE]
    assert run(command) == 0
    before = capsys.readouterr().out
    in_vain(*DRAWN[form], monkeypatch, whenever=whenever)
    assert run(command) == 70
    after, said = capsys.readouterr()
    assert "1 connection could not be judged, a fault in closeseq (#1: KeyError in test_faults.py" in said
    assert "Traceback" not in said
    reason = "closeseq failed to show this connection: KeyError in test_faults.py"
    assert reason in " ".join(after.split()) or form == "table"
    if form in {"json", "jsonl", "csv"}:
        (_, *others), (first, *rest) = read_again(form, before), read_again(form, after)
        assert first == (1, "not-judged")
        assert rest == others
    else:
        was, now = ([line.split() for line in text.splitlines()] for text in (before, after))
        assert len([line for line in now if line in was]) > len(was) / 2
        assert "not-judged" in after


@pytest.mark.parametrize("whenever", [True, False])
def test_what_cannot_be_drawn_still_has_its_packets(whenever, monkeypatch, capsys):
    timeline = closeseq.analyze(CAPTURE)[0].timeline
    packets = [step.packet for step in timeline]
    in_vain(records, "draw", monkeypatch, whenever=whenever)
    in_vain(analyze_run, "format_timeline", monkeypatch, whenever=whenever)
    run(["analyze", "-f", "jsonl", "--connection", "1", CAPTURE])
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [step["packet"] for step in record["timeline"]] == packets
    run(["timeline", "--connection", "1", CAPTURE])
    drawn = capsys.readouterr().out.split()
    assert {f"#{step.packet}" for step in timeline if step.event} <= set(drawn)


@pytest.mark.parametrize("name", ["_blamed", "titled", "_placed"])
def test_a_group_of_problems_that_cannot_be_drawn_costs_that_group(name, monkeypatch, capsys):
    def fail(*_):
        raise KeyError("made for the test")

    monkeypatch.setattr(problems, name, fail)
    assert run(["analyze", *STUCK, CAPTURE]) == 70
    said = capsys.readouterr()
    assert "could not be judged, a fault in closeseq (#1: KeyError" in said.err
    assert "Verdicts" in said.out
    assert "Shapes" in said.out
    assert "closeseq failed to show this: KeyError" in said.out or name == "_placed"


def test_a_socket_that_cannot_be_drawn_is_in_a_state_unknown(monkeypatch, capsys):
    real = socket_states._socket

    def fail(connection, *others):
        if connection.id == 1:
            raise KeyError("made for the test")
        return real(connection, *others)

    monkeypatch.setattr(socket_states, "_socket", fail)
    assert run(["states", "-f", "json", CAPTURE]) == 70
    said = capsys.readouterr()
    states = {one["connection"]: one["state"] for one in json.loads(said.out)["sockets"]}
    assert states.pop(1) == "UNKNOWN"
    assert states
    assert "UNKNOWN" not in states.values()
    assert "1 connection could not be judged" in said.err


FOLLOWED = {
    "timeline": (live_text, "format_timeline"),
    "jsonl": (live_text, "draw"),
    "csv": (records, "_head"),
    "summary": (live_text, "_placed"),
}


@pytest.mark.parametrize("form", FOLLOWED)
def test_what_cannot_be_drawn_is_contained_while_a_file_is_followed(form, monkeypatch, tmp_path, capsys):
    shutil.copy(CAPTURE, tmp_path / "capture.pcap")
    command = ["follow", "--duration", "1", *STUCK, "-f", form, str(tmp_path / "capture.pcap")]
    if form == "summary":
        monkeypatch.setattr(live_text, "_placed", failing(live_text._placed, lambda _: True))
    else:
        in_vain(*FOLLOWED[form], monkeypatch)
    assert run(command) == 70
    said = capsys.readouterr()
    assert "could not be judged, a fault in closeseq (#" in said.err
    assert "Traceback" not in said.err
    assert "not-judged" in said.out
    if form in {"jsonl", "csv"}:
        told = read_again(form, said.out)
        assert {number for number, verdict in told if verdict == "not-judged"} == {1}
        assert {number for number, _ in told} == {c.id for c in closeseq.analyze(CAPTURE)}


def test_a_shape_that_cannot_be_told_is_contained(monkeypatch, capsys):
    monkeypatch.setattr(road, "shape", failing(road.shape, lambda c: int(c.id) == 1))
    assert run(["analyze", CAPTURE]) == 70
    assert re.search(r"^ +1  not-judged ", capsys.readouterr().out, re.MULTILINE)


def test_a_watch_counts_faults_where_they_are_met_also_of_what_it_forgets():
    faults = Faults()
    for number in (1, 2, 2, 3, 4):
        faults.add(number, IndexError())
    faults.forget({3, 4})
    faults.add(4, IndexError())
    assert len(faults) == 4
    assert [one.split(":")[0] for one in faults.named] == ["#1", "#2", "#3"]


# What a user of Python's own does at its start: here it plants a fault in a closeseq of another process.
PLANTED = """
from closeseq.report import live_text
drawn = {name: getattr(live_text, name) for name in ("draw", "format_timeline")}
def failing(name):
    def fail(seen, **named):
        if seen.id == 1:
            raise KeyError("made for the test")
        return drawn[name](seen, **named)
    return fail
for name in drawn:
    setattr(live_text, name, failing(name))
"""


@needs_network
@pytest.mark.parametrize("form", ["timeline", "jsonl"])
def test_what_cannot_be_drawn_is_contained_while_it_is_captured(form, net, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    with net.live("-p", "8080", "-f", form, env=environment, wrapper=()) as process:
        net.talk()
        net.talk()
        time.sleep(0.8)
        out, err = ended(process)
    assert process.returncode == 70
    assert "1 connection could not be judged, a fault in closeseq (#1: KeyError in sitecustomize.py" in err
    if form == "jsonl":
        assert read_again(form, out) == [(1, "not-judged"), (2, "graceful")]
    else:
        assert "not-judged: closeseq failed to show this connection" in out
        assert "graceful: client closed first" in out


@pytest.mark.parametrize("name", FORMS)
def test_a_picture_that_fails_leaves_a_bare_one(monkeypatch, name):
    connection = next(iter(closeseq.analyze("captures/client-closes.pcap")))
    assert "client closed first" in FORMS[name].drawn(connection)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("closeseq.report.pictures.ladder._rungs", fail)
    monkeypatch.setattr("closeseq.report.pictures.way._passages", fail)
    drawn = FORMS[name].drawn(connection)
    assert "client closed first" not in drawn
    assert ("ZeroDivisionError" in drawn) == (name not in {"dot", "diagram"})


def test_a_page_tells_of_it_and_shows_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(line, "_line", failing(line._line, lambda c: int(c.id) == 2))
    page = Parsed(written(tmp_path, CAPTURE, "--stuck-after", "2", status=70)[1])
    verdicts = [ending[0] for ending in page.json("data")["table"]["endings"]]
    assert "not-judged" in verdicts
    assert any("closeseq itself failed at 1 connection" in one for one in page.of("li"))
    (how_often,) = page.of("p", **{"class": "how-often"})
    assert "4 of 5 connections" in how_often


def test_a_ladder_that_cannot_be_drawn_leaves_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "_drawn", failing(examples._drawn, lambda c: int(c.id) == 1))
    page = Parsed(written(tmp_path, CAPTURE, status=70)[1])
    assert len(page.of("svg", **{"class": "closeseq-ladder"})) == 4
    assert [one["id"] for one in page.json("record")["connections"]] == [1, 2, 3, 4, 5]


def test_a_page_is_written_where_what_many_show_together_cannot_be_found(tmp_path, monkeypatch):
    monkeypatch.setattr(Analysis, "population", property(lambda _: 1 / 0))
    page = Parsed(written(tmp_path, CAPTURE)[1])
    told = "closeseq failed to show what connections show together: ZeroDivisionError in test_faults.py"
    assert any(one.startswith(told) for one in page.of("li"))
    assert page.json("record")["population"] == {"findings": []}
