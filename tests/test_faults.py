"""A fault in closeseq costs the judgement of the connection it is met at, and nothing else."""

import json
import shutil

import jsonschema
import pytest

import closeseq
from closeseq import connection as road
from closeseq.cli.main import run
from closeseq.report.records import schema

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


def test_it_is_told_though_others_are_asked_for(broken, capsys):
    assert run(["analyze", "-f", "table", "--verdict", "reset", CAPTURE]) == 70
    assert "1 connection could not be judged" in capsys.readouterr().err


def test_records_keep_to_their_schema(broken, capsys):
    run(["analyze", "-f", "jsonl", CAPTURE])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for record in records:
        jsonschema.validate(record, schema())
    assert [record["verdict"] for record in records].count("not-judged") == 1


def test_following_goes_on(broken, tmp_path, capsys):
    shutil.copy(CAPTURE, tmp_path / "capture.pcap")
    assert run(["follow", "--duration", "1", str(tmp_path / "capture.pcap")]) == 70
    said = capsys.readouterr()
    assert "not-judged" in said.out
    assert "Traceback" not in said.err
