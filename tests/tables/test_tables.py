"""The tables hold what the records hold, and pandas, polars and DuckDB take them as they are."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

import closeseq
from chain_files import busy, cuts_by_count, written
from closeseq.cli.main import run
from closeseq.tables.fields import ABOUT, TABLES, FieldType
from places import CAPTURES

SOME = sorted(str(path) for path in CAPTURES.glob("*.pcap"))[::9]
CLASSES = {
    FieldType.WHOLE: np.int64,
    FieldType.PORT: np.uint16,
    FieldType.NUMBER: np.float64,
    FieldType.TIME: np.dtype("datetime64[ns]"),
    FieldType.TEXT: object,
    FieldType.WORD: object,
}


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Return a capture that goes on through several files, in which ports are used again."""
    folder, dice = tmp_path_factory.mktemp("ring"), Random(11)
    packets = busy(dice)
    written(folder, packets, cuts_by_count(packets, dice), dice)
    return str(folder)


def rows(table):
    """Return the rows of a table as dictionaries: a missing value is None, a time its nanoseconds."""
    lists = {}
    for name, column in table.items():
        values = column.view(np.int64) if column.dtype.kind == "M" else column
        lists[name] = [None if one != one else one for one in values.tolist()]  # noqa: PLR0124 - NaN
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def of(several, capture, number):
    return [one for one in several if (one["capture"], one["id"]) == (capture, number)]


def flat(end, record):
    """Return the fields of one endpoint as the table of connections names them."""
    path = record["path"][end]
    return {f"{end}_{name}": value for name, value in (record[end] | path).items()}


def holds(analysis):
    """Compare the tables of an analysis with the records of its connections, field by field."""
    connections, transitions, events, findings = map(rows, analysis.tables())
    assert len(connections) == len(analysis)
    for connection, row in zip(analysis, connections, strict=True):
        record = closeseq.record(connection)
        capture, number, start = record["capture"], record["id"], connection.start_ns
        expected = {name: record[name] for name in row.keys() & record.keys()} | {"start": start}
        expected |= flat("client", record) | flat("server", record)
        for severity in ("problem", "notice"):
            codes = (one["code"] for one in record["findings"] if one["severity"] == severity)
            expected[f"{severity}s"] = " ".join(dict.fromkeys(codes))
        expected["copies"] = connection.conversation.copies
        assert row == expected
        files = connection.files

        def place(packet, files=files, capture=capture):
            """Return the fields of a packet."""
            if packet is None:
                return {"packet": None, "file": None, "file_packet": None}
            if not files.several:
                return {"packet": packet, "file": capture, "file_packet": packet}
            return {"packet": packet, "file": files.path(packet), "file_packet": files.place(packet)[1]}

        own = {"capture": capture, "id": number}
        assert of(transitions, capture, number) == [
            own
            | place(one["packet"])
            | {"time_utc": made.time_ns, "time": one["time"], "endpoint": one["endpoint"]}
            | {"before": one["from"], "after": one["to"], "cause": one["cause"]}
            | {"certainty": one["certainty"]}
            for made, one in zip(connection.timeline.transitions, record["transitions"], strict=True)
        ]
        assert of(events, capture, number) == [
            own
            | place(one["packet"])
            | {"time_utc": step.time_ns, "time": one["time"], "sender": one["from"]}
            | {name: one[name] for name in ("flags", "seq", "ack", "length", "position", "arrived")}
            | {"note": one["note"] or ""}
            | {"client_state": one["client"], "server_state": one["server"]}
            for step, one in zip(connection.timeline.steps, record["timeline"], strict=True)
            if one["traffic"] is None
        ]
        assert of(findings, capture, number) == [
            own
            | {name: one[name] for name in ("code", "severity", "endpoint", "certainty", "since", "duration")}
            | {"since_utc": found.since_ns, "packets": " ".join(map(str, one["packets"]))}
            | {"summary": one["summary"], "advice": one["advice"]}
            for found, one in zip(connection.findings, record["findings"], strict=True)
        ]
    return len(events)


@pytest.mark.parametrize("capture", SOME)
def test_the_tables_hold_what_the_records_hold(capture):
    assert holds(closeseq.analyze(capture, stuck_after=2))


def test_the_same_of_a_capture_in_several_files(ring):
    analysis = closeseq.analyze(ring)
    assert holds(analysis) > 100
    assert len(set(analysis.tables().events["file"].tolist())) > 2


def test_columns_are_those_that_are_described_in_that_order_and_type():
    tables = closeseq.analyze(SOME[0]).tables()
    empty = closeseq.analyze(SOME[0]).tables([])
    for table in TABLES:
        for made in (getattr(tables, table.name), getattr(empty, table.name)):
            assert list(made) == [field.name for field in table.fields]
            assert len({len(column) for column in made.values()}) == 1
            for field in table.fields:
                expected = CLASSES[field.type]
                if field.type is FieldType.WHOLE and field.missing:
                    expected = np.float64
                assert made[field.name].dtype == expected, field.name
        assert len(getattr(empty, table.name)["id"]) == 0


def test_pandas_polars_and_duckdb_take_them_as_they_are():
    pandas, polars, duckdb = map(pytest.importorskip, ("pandas", "polars", "duckdb"))
    analysis = closeseq.analyze(str(CAPTURES / "leaky-server.pcap"), stuck_after=2)
    tables = analysis.tables()
    assert dict(pandas.DataFrame(tables.connections)["verdict"].value_counts()) == dict(analysis.verdicts)
    frame = polars.DataFrame(tables.connections)
    assert dict(frame["verdict"].value_counts().iter_rows()) == dict(analysis.verdicts)
    connections, findings = tables.connections, tables.findings
    asked = "SELECT verdict, count(*) FROM connections GROUP BY ALL"
    assert dict(duckdb.sql(asked).fetchall()) == dict(analysis.verdicts)
    asked = (
        """SELECT code, count(DISTINCT id) FROM findings JOIN connections USING (capture, id) GROUP BY ALL"""
    )
    assert dict(duckdb.sql(asked).fetchall()) == dict(analysis.findings)
    assert len(connections["id"]) == 5
    assert len(findings["id"]) >= 5
    for table in tables:  # and every column is of a type that one can calculate with
        assert "Object" not in {str(kind) for kind in polars.DataFrame(table).dtypes}


def test_some_connections_are_asked_for_by_index(ring):
    analysis = closeseq.analyze(ring)
    chosen = [index for index, one in enumerate(analysis) if one.verdict == "reset"]
    assert 0 < len(chosen) < len(analysis)
    tables = analysis.tables(chosen)
    assert tables.connections["id"].tolist() == [index + 1 for index in chosen]
    assert set(tables.events["id"].tolist()) == {index + 1 for index in chosen}


def test_explain_lists_every_column(capsys):
    assert run(["explain", "tables"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(ABOUT.split()) in said
    for table in TABLES:
        assert f"{table.name}: {table.meaning}" in said
        for field in table.fields:
            assert f" {field.name} {field.type} {field.meaning}" in said
