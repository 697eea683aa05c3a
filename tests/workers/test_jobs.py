"""Several processes: the same bytes as one, and one clear end when one of them is ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

import closeseq
from benchmark_captures import CAPTURES as TRAFFIC
from chain_files import busy, cuts_by_count, written
from closeseq.cli.main import run
from closeseq.cli.options import FORMATS
from closeseq.cli.terminal import Status
from closeseq.errors import WorkerError
from closeseq.workers.pool import ROOM, in_order, made_ahead
from forked import PIPE, Forked, run_forked
from places import CAPTURES as FOLDER
from places import ROOT
from process_tree import descendants

CAPTURES = sorted(str(path) for path in FOLDER.glob("*.pcap*"))
JOBS = (2, 3)
PATIENCE = 60  # seconds
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """Return captures of the benchmark, and a ring of files in which ports are used again."""
    folder = tmp_path_factory.mktemp("traffic")
    for name in ("varied", "lossy", "alike"):
        TRAFFIC[name](folder / f"{name}.pcap", 30, 3)
    TRAFFIC["varied"](folder / "portions.pcap", 3 * PORTION, 3)
    dice = Random(11)
    packets = busy(dice, every=5)
    (folder / "ring").mkdir()
    written(folder / "ring", packets, cuts_by_count(packets, dice), dice)
    return folder


PORTION = 30  # connections; of that many a capture may be small and have several portions
SMALL_IS_LARGE = f"""
from closeseq import reading
from closeseq.classes import parallel
reading.LARGE, parallel.FIRST = 1, {PORTION}
"""
# So that none has done all its tasks while another one is still at its first.
NONE_AHEAD = f"""{SMALL_IS_LARGE}
from closeseq.workers import pool
pool.AHEAD = 1
"""
FEW_AT_ONCE = """
from closeseq.classes import parallel
from closeseq.connections import tracker
parallel.MOST_AT_ONCE = tracker.MOST_AT_ONCE = 40
"""


def said_by(jobs, *arguments, first=SMALL_IS_LARGE):
    """Return the exit status and both outputs of a process that is small, so that its workers start fast."""
    done = run_forked(["analyze", *arguments, "--jobs", jobs], env=ENVIRONMENT, text=True, first=first)
    assert done.returncode != Status.BUG, done.stderr  # faults are contained, but not here
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("form", FORMATS)
def test_every_number_of_jobs_gives_the_same_bytes(form, traffic):
    # Of the captures, which are small, each format takes its share; of the others, each number of jobs.
    number = list(FORMATS).index(form)
    paths = sorted(traffic.glob("*.pcap"))
    all_of_them = ["--each", "-f", form, "--all"]
    for arguments, jobs in (
        ([*CAPTURES[number :: len(FORMATS)], "--each", "-f", form], JOBS[number % 2]),
        ([*paths[number % 2 :: 2], *all_of_them], JOBS[0]),
        ([*paths[(number + 1) % 2 :: 2], traffic / "ring", *all_of_them], JOBS[1]),
        ([traffic / "ring", "-f", form, "--stuck-after", "2"], JOBS[number % 2 - 1]),
    ):
        expected = said_by(1, *arguments)
        assert len(expected[1]) > 1000
        assert said_by(jobs, *arguments) == expected


@pytest.mark.parametrize(
    "asked",
    [
        ["--verdict", "reset,closing", "-f", "jsonl"],
        ["--finding", "stuck-close-wait", "-f", "timeline", "--stuck-after", "1"],
        ["--fail-on", "stuck-close-wait", "-f", "csv", "--stuck-after", "1"],
        ["-f", "timeline", "--limit", "7"],
        ["-f", "jsonl", "-c", "1000"],
        ["-f", "table", "--host", "192.0.2.1"],
        ["-p", "443"],
    ],
)
def test_so_does_a_part_of_a_capture(asked, traffic):
    expected = said_by(1, traffic / "varied.pcap", *asked)
    for jobs in JOBS:
        assert said_by(jobs, traffic / "varied.pcap", *asked) == expected


def test_so_does_a_capture_too_large_to_be_compared_at_once(traffic):
    for form in ("summary", "jsonl"):
        arguments = traffic / "varied.pcap", "-f", form, "--all"
        expected = said_by(1, *arguments, first=FEW_AT_ONCE)
        for jobs in (2, 5):
            assert said_by(jobs, *arguments, first=FEW_AT_ONCE) == expected


def test_what_is_wrong_with_a_file_is_told_as_ever(tmp_path):
    whole = Path(CAPTURES[0]).read_bytes()
    (tmp_path / "a.pcap").write_bytes(whole[:-7])
    (tmp_path / "b.pcap").write_bytes(b"this is no capture at all, but long enough to be looked at")
    arguments = [tmp_path / "a.pcap", tmp_path / "b.pcap", tmp_path / "c.pcap", "--each", "-f", "json"]
    expected = said_by(1, *arguments)
    assert expected[0] == 3
    assert len(expected[2].splitlines()) >= 3
    assert said_by(3, *arguments) == expected


def test_timings_tell_what_the_workers_did(traffic):
    plain = said_by(2, traffic / "portions.pcap", "-f", "jsonl")
    status, out, err = said_by(2, traffic / "portions.pcap", "-f", "jsonl", "--timings")
    assert (status, out) == plain[:2]
    stages = {line[:26].rstrip(): line[26:] for line in err.splitlines()}
    for stage in ("decoding", "judging"):
        assert stages[stage].endswith(" s in workers")
    assert float(stages["waiting for workers"].split()[0]) > 0


@pytest.fixture
def waiting(tmp_path):
    """Return a run whose workers are there, and wait until someone reads what they have written."""
    TRAFFIC["varied"](tmp_path / "long.pcap", 10 * PORTION, 3)  # more records than pipes hold
    command = ["analyze", tmp_path / "long.pcap", "-f", "jsonl", "--jobs", "2"]
    with Forked(
        command, env=ENVIRONMENT, stdout=PIPE, stderr=PIPE, text=True, alone=True, first=NONE_AHEAD
    ) as process:
        until = time.monotonic() + PATIENCE
        process.stdout.read(1)
        while len(workers := descendants(process.pid)) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.workers = workers
        yield process
        process.kill()


def gone(processes):
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{one}/exe").exists() for one in processes):
        assert time.monotonic() < until
        time.sleep(0.01)
    return True


def test_a_worker_that_is_killed_is_one_clear_error(waiting):
    os.kill(max(waiting.workers), signal.SIGKILL)
    _, err = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 71
    (line,) = err.splitlines()
    assert line.startswith("closeseq: a worker process ended before its work was done (signal 9")
    assert gone(waiting.workers)


def test_ctrl_c_ends_all_at_once(waiting):
    os.killpg(waiting.pid, signal.SIGINT)
    _, err = waiting.communicate(timeout=PATIENCE)
    assert (waiting.returncode, err) == (130, "closeseq: interrupted\n")
    assert gone(waiting.workers)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_process_that_was_started(waiting, how):
    os.kill(waiting.pid, how)
    waiting.communicate(timeout=PATIENCE)
    assert gone(waiting.workers)


def test_a_file_is_not_there_if_a_worker_was_killed(traffic, tmp_path, monkeypatch):
    drawn = closeseq.Analysis.drawn

    def killed(analysis, draw, indices):
        def fatal(connection):
            if connection.id == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return draw(connection)

        return drawn(analysis, fatal, indices)

    monkeypatch.setattr(closeseq.Analysis, "drawn", killed)
    target = tmp_path / "records.jsonl"
    assert (
        run(["analyze", str(traffic / "varied.pcap"), "-f", "jsonl", "-o", str(target), "--jobs", "2"]) == 71
    )
    assert list(tmp_path.iterdir()) == []


def test_tasks_come_in_their_order_and_workers_are_other_processes():
    found = list(in_order(lambda task: (task * task, os.getpid()), range(100), 3))
    assert [square for square, _ in found] == [task * task for task in range(100)]
    assert os.getpid() not in {process for _, process in found}
    assert list(in_order(str, [], 2)) == []


def test_a_worker_may_keep_to_every_third_task():
    seen = []

    def work(task):
        seen.append(task)
        return task, os.getpid(), len(seen)

    found = list(in_order(work, range(20), 3, fixed=True))
    assert [task for task, _, _ in found] == list(range(20))
    processes = [process for _, process, _ in found]
    assert len({*processes}) == 3
    for at in range(3):
        assert len({*processes[at::3]}) == 1
        assert [number for _, _, number in found[at::3]] == list(range(1, len(found[at::3]) + 1))
    assert list(in_order(str, range(2), 3, fixed=True)) == ["0", "1"]


def test_an_error_of_a_worker_is_raised_where_its_result_is_taken():
    tasks = in_order(lambda task: 100 // task, [4, 2, 0, 1], 2)
    assert [next(tasks), next(tasks)] == [25, 50]
    with pytest.raises(ZeroDivisionError) as caught:
        next(tasks)
    assert "In a worker process" in caught.value.__notes__[0]


def test_who_takes_no_more_leaves_no_worker_behind():
    before = descendants(os.getpid())
    tasks = in_order(str, range(1000), 2)
    assert next(tasks) == "0"
    assert len(descendants(os.getpid()) - before) == 2
    tasks.close()
    assert descendants(os.getpid()) == before


def test_what_is_made_ahead_comes_as_it_is_and_so_does_an_error():
    import numpy as np

    def items():
        for size in (0, 3, 1000, ROOM // 8, 2 * ROOM // 8, 5):
            yield size, np.arange(size), np.full(size, 7, np.uint8)
        raise KeyError("the end")

    found = made_ahead(items())
    for size in (0, 3, 1000, ROOM // 8, 2 * ROOM // 8, 5):
        told, ascending, same = next(found)
        assert told == size
        assert ascending.tolist() == list(range(size))
        assert set(same.tolist()) <= {7}
    with pytest.raises(KeyError, match="the end"):
        next(found)


def test_who_makes_things_ahead_may_be_killed():
    def items():
        yield 1
        os.kill(os.getpid(), signal.SIGKILL)

    found = made_ahead(items())
    assert next(found) == 1
    with pytest.raises(WorkerError, match="signal 9"):
        next(found)
