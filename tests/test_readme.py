"""The README shows real output, and its Python runs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from forked import run_forked
from live_namespace import PATIENCE, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from machine import needs
from places import CAPTURES, ROOT

README = (ROOT / "README.md").read_text()
CONSOLE = re.findall(r"```console\n\$ (closeseq (?!lab)[^\n]*)\n(.*?)```", README, re.DOTALL)
LIVE = re.findall(r"```console\n\$ sudo (closeseq live [^\n]*)\n(.*?)```", README, re.DOTALL)
LAB = re.findall(r"```console\n\$ (closeseq lab [^\n]*)\n(.*?)```", README, re.DOTALL)
LIVE_PYTHON = re.findall(r"```python live\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CLUSTER = re.findall(r"```sh cluster\n(.*?)```", README, re.DOTALL)
TABLES = re.findall(r"```python tables\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        "COLUMNS": "100",
        "PATH": "/usr/bin:/bin:/usr/sbin",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
    }
    if arguments[:2] == ["-m", "closeseq"]:
        done = run_forked(arguments[2:], env=environment, cwd=ROOT, text=True)
        done.check_returncode()
        return done
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize(("command", "shown"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_command_prints_what_the_readme_shows(command, shown):
    assert run(["-m", *shlex.split(command)]).stdout.rstrip() == shown.rstrip()


def test_there_are_commands_to_run():
    assert len(CONSOLE) >= 4
    assert LIVE
    assert LAB
    assert LIVE_PYTHON
    assert {command.split()[1] for command, _ in CONSOLE} >= {"analyze", "timeline", "states", "explain"}


def telling(text: str) -> set[str]:
    """Return the lines that are the same in every run, without their numbers."""
    chosen = [line for line in text.splitlines() if re.search("[▶◀!]|kernel  |^Inference|^Shapes", line)]
    chosen = [re.sub(r"python[\d.]*", "python", line) for line in chosen]
    return {re.sub(r"[\d.,]+ ?(us|ms|s)?\b", "0", line).replace(" ", "") for line in chosen}


@needs_network
@pytest.mark.parametrize(("command", "shown"), LIVE)
def test_the_live_capture_of_the_readme_shows_what_it_says(net, command, shown):
    with net.live(*shlex.split(command)[2:]) as process, net.talking(wait=6):
        out, _ = process.communicate(timeout=PATIENCE)
    assert len(telling(shown)) > 8
    assert telling(shown) == telling(out)


@needs("nft", "the lab's namespaces", "live packets", "nft's tables", "the kernel's tracing", root=True)
@pytest.mark.parametrize(("command", "shown"), LAB)
def test_the_experiment_of_the_readme_tells_the_same_story(command, shown):
    assert len(telling(shown)) > 8
    assert telling(run(["-m", *shlex.split(command)]).stdout) == telling(shown)


@needs_network
@pytest.mark.parametrize("code", LIVE_PYTHON)
def test_the_live_python_of_the_readme_runs(net, code):
    command = net.inside(sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        net.wait_for_capture(process)
        time.sleep(0.5)
        net.talk()
        out, _ = process.communicate(timeout=PATIENCE)
    assert out == "closed graceful CLOSED\n"


@pytest.mark.parametrize("code", PYTHON)
def test_the_python_of_the_readme_runs(code):
    assert run(["-c", code]).stdout


def test_the_question_to_the_tables_has_the_answer_that_is_shown():
    pytest.importorskip("duckdb", reason="DuckDB is not installed")
    ((code, shown),) = TABLES
    assert run(["-c", code]).stdout.rstrip() == shown.rstrip()


def test_the_question_to_the_tables_is_answered_by_parquet_too(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'closeseq[tables]'")
    ((code, shown),) = TABLES
    capture = str(CAPTURES / "leaky-server.pcap")
    arguments = [capture, "--stuck-after", "2", "-f", "parquet", "-o", str(tmp_path / "web")]
    run(["-m", "closeseq", "analyze", *arguments])
    (instead,) = re.findall(r"same question `(FROM.*?)`", README, re.DOTALL)
    question = code.partition('"""')[2].partition('"""')[0]
    question = re.sub(r"FROM .*", " ".join(instead.split()), question).replace("web/", f"{tmp_path}/web/")
    rows = duckdb.sql(question).fetchall()
    assert len(rows) >= 1
    assert all(str(cell) in shown for row in rows for cell in row)


def test_the_three_commands_of_a_cluster_do_what_one_process_does(tmp_path):
    if find_spec("distributed") is None:  # importing it takes long
        pytest.skip("Dask is not installed: pip install 'closeseq[cluster]'")
    (commands,) = CLUSTER
    assert len(commands.splitlines()) == 3
    (tmp_path / "captures").symlink_to(CAPTURES)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
    }
    if not (Path(sys.executable).parent / "closeseq").exists():  # it is run from its source
        commands = commands.replace("closeseq analyze", f"{sys.executable} -m closeseq analyze")
    with subprocess.Popen(
        ["bash", "-c", f"set -e\n{commands}"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.wait(100) == 0  # scheduler and workers go on
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(1)  # workers end, and say so to the scheduler
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        summary = process.stdout.read()
    captures = shlex.split(commands.splitlines()[2].partition(" analyze ")[2])[:2]
    assert summary == run(["-m", "closeseq", "analyze", *captures]).stdout
    records = run(["-m", "closeseq", "analyze", *captures, "-f", "jsonl"]).stdout.splitlines()
    parts = sorted((tmp_path / "records").glob("part-*.jsonl"))
    assert len(parts) == 2
    assert sorted(line for part in parts for line in part.read_text().splitlines()) == sorted(records)
    assert (tmp_path / "records/summary.txt").read_text() == summary


def test_the_two_commands_are_those_that_a_fresh_machine_runs():
    main_job, tests = SHELL
    assert "analyze captures/" in main_job
    assert tests.strip() in (ROOT / ".ci" / "run").read_text()
