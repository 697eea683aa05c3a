"""Parquet holds what the tables of numpy hold, for any number of processes, and is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import closeseq
from benchmark_captures import CAPTURES as TRAFFIC
from closeseq.cli.main import run
from closeseq.tables import parquet
from closeseq.tables.fields import TABLES
from closeseq.tables.parquet import ParquetFolder, arrow_tables
from places import CAPTURES, ROOT

MISSING = "pyarrow is not installed: pip install 'closeseq[tables]'"
pyarrow = pytest.importorskip("pyarrow", reason=MISSING)
pytest.importorskip("pyarrow.parquet", reason=MISSING)

CAPTURE = str(CAPTURES / "leaky-server.pcap")
NAMES = [f"{table.name}.parquet" for table in TABLES]


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    path = tmp_path_factory.mktemp("traffic") / "varied.pcap"
    TRAFFIC["varied"](path, 300, 3)
    return str(path)


@pytest.fixture(scope="module")
def analysis(varied):
    return closeseq.analyze(varied)


@pytest.fixture(scope="module")
def out_of_varied(varied, tmp_path_factory):
    """Return the folder of what was written of it, which no test changes."""
    out = tmp_path_factory.mktemp("parquet") / "out"
    assert analyzed(varied, "-o", out) == 0
    return out


def analyzed(*arguments):
    return run(["analyze", "-f", "parquet", *map(str, arguments)])


def in_folder(path):
    return sorted(one.name for one in path.iterdir())


@pytest.mark.parametrize("capture", [CAPTURE, "varied"])
def test_it_holds_what_the_tables_of_numpy_hold(capture, analysis, out_of_varied, tmp_path):
    out = out_of_varied
    if capture != "varied":
        analysis, out = closeseq.analyze(capture), tmp_path / "out"
        assert analyzed(capture, "-o", out) == 0
    tables = analysis.tables()
    for table in TABLES:
        found = pyarrow.parquet.read_table(out / f"{table.name}.parquet")
        assert found.column_names == [field.name for field in table.fields]
        for field in table.fields:
            column, kind = getattr(tables, table.name)[field.name], found.schema.field(field.name)
            assert kind.metadata[b"meaning"].decode() == field.meaning
            assert kind.nullable == bool(field.missing)
            values = found[field.name]
            if column.dtype.kind == "M":
                values = values.cast(pyarrow.int64())
                column = column.view(np.int64)
            expected = [None if one != one else one for one in column.tolist()]  # noqa: PLR0124 - NaN
            assert values.to_pylist() == expected, field.name


def test_duckdb_polars_and_pandas_read_it_and_count_as_the_summary_does(analysis, out_of_varied):
    duckdb, polars, pandas = map(pytest.importorskip, ("duckdb", "polars", "pandas"))
    out = out_of_varied
    asked = f"SELECT verdict, count(*) FROM '{out}/connections.parquet' GROUP BY ALL"
    assert dict(duckdb.sql(asked).fetchall()) == dict(analysis.verdicts)
    asked = f"SELECT code, count(DISTINCT (capture, id)) FROM '{out}/findings.parquet' GROUP BY ALL"
    assert dict(duckdb.sql(asked).fetchall()) == dict(analysis.findings)
    frame = polars.read_parquet(out / "connections.parquet")
    assert dict(frame["verdict"].cast(polars.String).value_counts().iter_rows()) == dict(analysis.verdicts)
    frame = pandas.read_parquet(out / "connections.parquet")
    assert dict(frame["shape"].value_counts()) == dict(analysis.shapes)
    assert str(frame["start"].dtype) == "datetime64[ns, UTC]"


def test_every_number_of_jobs_gives_the_same_bytes(varied, tmp_path):
    found = []
    for jobs in (1, 2, 5):
        assert analyzed(varied, CAPTURE, "--each", "--jobs", jobs, "-o", tmp_path / str(jobs)) == 0
        found.append([(tmp_path / str(jobs) / name).read_bytes() for name in NAMES])
    assert found[0] == found[1] == found[2]


def test_it_is_written_in_row_groups_of_one_size(varied, analysis, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP", 100)
    assert analyzed(varied, "-o", tmp_path / "out") == 0
    for name in NAMES:
        meta = pyarrow.parquet.ParquetFile(tmp_path / "out" / name).metadata
        sizes = [meta.row_group(at).num_rows for at in range(meta.num_row_groups)]
        assert len(sizes) > 1
        assert set(sizes[:-1]) == {100}
        assert 0 < sizes[-1] <= 100
    assert len(pyarrow.parquet.read_table(tmp_path / "out/connections.parquet")) == len(analysis)


def test_several_captures_are_in_the_same_files(varied, analysis, tmp_path):
    assert analyzed(varied, CAPTURE, "--each", "-o", tmp_path / "out") == 0
    found = pyarrow.parquet.read_table(tmp_path / "out/connections.parquet", columns=["capture", "id"])
    keys = set(zip(*(column.to_pylist() for column in found.columns), strict=True))
    assert len(keys) == len(found) == len(analysis) + 5
    assert {capture for capture, _ in keys} == {varied, CAPTURE}


def test_only_those_that_are_asked_for(varied, analysis, tmp_path):
    assert analyzed(varied, "--verdict", "reset", "-o", tmp_path / "out") == 0
    found = pyarrow.parquet.read_table(tmp_path / "out/connections.parquet")
    assert set(found["verdict"].to_pylist()) == {"reset"}
    assert len(found) == analysis.verdicts["reset"]


def test_a_capture_without_connections_gives_tables_without_rows(tmp_path, capsys):
    assert analyzed(CAPTURE, "-p", "1", "-o", tmp_path / "out") == 0
    for table in TABLES:
        found = pyarrow.parquet.read_table(tmp_path / "out" / f"{table.name}.parquet")
        assert len(found) == 0
        assert found.column_names == [field.name for field in table.fields]


@pytest.mark.parametrize("where", [[], ["-o", "-"]])
def test_without_a_directory_it_says_what_to_name(where, capsys):
    assert analyzed(CAPTURE, *where) == 2
    assert "name a directory with -o" in capsys.readouterr().err


def test_what_is_there_is_replaced_only_with_force(tmp_path, capsys):
    assert analyzed(CAPTURE, "-o", tmp_path) == 0  # a directory that exists is fine
    (tmp_path / "mine.txt").write_text("mine")
    before = {name: (tmp_path / name).read_bytes() for name in NAMES}
    assert analyzed(CAPTURE, "--verdict", "reset", "-o", tmp_path) == 2
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert before == {name: (tmp_path / name).read_bytes() for name in NAMES}
    assert analyzed(CAPTURE, "--verdict", "reset", "-o", tmp_path, "--force") == 0
    assert len(pyarrow.parquet.read_table(tmp_path / NAMES[0])) == 2
    assert in_folder(tmp_path) == sorted([*NAMES, "mine.txt"])


def test_a_file_is_no_directory(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert analyzed(CAPTURE, "-o", tmp_path / "file", "--force") == 2
    assert capsys.readouterr().err.endswith("file is a file; name a directory\n")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_costs_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert analyzed(CAPTURE, "-o", tmp_path / "out") == 2
    assert "cannot be written to: Permission denied" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_costs_one_line(capsys):
    assert analyzed(CAPTURE, "-o", "/proc/closeseq") == 2
    said = capsys.readouterr().err
    assert said.startswith("closeseq: /proc/closeseq cannot be written to: ")
    assert said.count("\n") == 1


def test_of_a_capture_that_cannot_be_read_nothing_is_left(tmp_path, capsys):
    assert analyzed(tmp_path / "none.pcap", "-o", tmp_path / "out") == 3
    assert not (tmp_path / "out").exists()
    (tmp_path / "there").mkdir()
    assert analyzed(tmp_path / "none.pcap", "-o", tmp_path / "there") == 3
    assert in_folder(tmp_path / "there") == []


def test_an_error_in_between_leaves_nothing(tmp_path):
    tables = arrow_tables(closeseq.analyze(CAPTURE))

    def broken_off():
        with ParquetFolder(str(tmp_path / "out")) as folder:
            folder.write(tables)
            folder.keep = True
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert not (tmp_path / "out").exists() or in_folder(tmp_path / "out") == []


def test_a_file_that_cannot_grow_costs_one_line_and_leaves_nothing(varied, tmp_path):
    """As on a disk that is full, or a user's quota."""
    code = (
        # Python would keep half of a module that it compiles, and fail on it from then on.
        "import resource, sys; sys.dont_write_bytecode = True\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from closeseq.cli.main import run\n"
        f"sys.exit(run(['analyze', {varied!r}, '-f', 'parquet', '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "out cannot be written to: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_terminated_in_between_it_leaves_no_file(tmp_path):
    path = tmp_path / "big.pcap"
    TRAFFIC["varied"](path, 6000, 3)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "closeseq", "analyze", path, "-f", "parquet", "-o", out, "--jobs", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        until = time.monotonic() + 60
        while not out.exists() or not in_folder(out):
            assert time.monotonic() < until
            time.sleep(0.01)
        began = in_folder(out)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert len(began) >= 1
    assert all(name.startswith(".closeseq.") for name in began)
    assert not out.exists() or in_folder(out) == []


def test_without_pyarrow_it_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from closeseq.cli.main import run\n"
        f"sys.exit(run(['analyze', {CAPTURE!r}, '-f', 'parquet', '-o', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == (
        "closeseq: Parquet needs pyarrow, which is not installed; pip install 'closeseq[tables]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_fail_on_sets_the_exit_status(tmp_path):
    asked = ["--stuck-after", "2", "--fail-on", "stuck-close-wait"]
    assert analyzed(CAPTURE, *asked, "-o", tmp_path / "out") == 1
    assert in_folder(tmp_path / "out") == sorted(NAMES)
