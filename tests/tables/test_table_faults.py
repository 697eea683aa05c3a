"""A fault in closeseq costs the rows of the connection it is met at, and nothing else."""

from __future__ import annotations

from collections import Counter

import pytest

import closeseq
from closeseq import connection as road
from closeseq.cli.main import run
from places import CAPTURES

CAPTURE = str(CAPTURES / "leaky-server.pcap")


def test_a_connection_at_which_closeseq_fails_is_not_judged_and_the_others_are(monkeypatch):
    before = closeseq.analyze(CAPTURE).tables()
    judge = road.judge

    def failing(timeline, *others, **named):
        if int(timeline.conversation.id) == 2:
            raise IndexError("made for the test")
        return judge(timeline, *others, **named)

    monkeypatch.setattr(road, "judge", failing)
    after = closeseq.analyze(CAPTURE).tables()
    assert Counter(after.connections["verdict"].tolist())["not-judged"] == 1
    assert after.connections["verdict"][1] == "not-judged"
    others = before.connections["id"] != 2
    for name, column in before.connections.items():
        assert (column[others].astype(str) == after.connections[name][others].astype(str)).all()
    assert 2 not in after.findings["id"]
    assert (after.events["packet"] == before.events["packet"]).all()


def test_a_fault_in_closeseq_costs_one_connection_and_status_70(tmp_path, monkeypatch, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    judge = road.judge

    def failing(timeline, *others, **named):
        if int(timeline.conversation.id) == 1:
            raise IndexError("made for the test")
        return judge(timeline, *others, **named)

    monkeypatch.setattr(road, "judge", failing)
    assert run(["analyze", CAPTURE, "-f", "parquet", "-o", str(tmp_path / "out")]) == 70
    found = parquet.read_table(tmp_path / "out/connections.parquet")["verdict"].to_pylist()
    assert found[0] == "not-judged"
    assert "not-judged" not in found[1:]
    assert "1 connection could not be judged" in capsys.readouterr().err
