"""A cluster of a scheduler and two workers tells what one process does, also when one of them is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

if find_spec("distributed") is None:  # importing it takes each process of pytest a second
    pytest.skip(
        "the extra cluster is not installed: pip install 'closeseq[cluster]'", allow_module_level=True
    )

from benchmark_captures import CAPTURES as TRAFFIC
from capture_files import read_file
from chain_files import as_file, cuts_by_count, written
from cluster_machine import PATIENCE, begun, closeseq, cluster, free_port, started, wait_for
from forked import PIPE
from places import CAPTURES

FEW = [CAPTURES / f"{name}.pcap" for name in ("leaky-server", "half-close", "refused")]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Return a folder of files that are one capture of unlike connections."""
    folder = tmp_path_factory.mktemp("ring")
    whole = folder.with_suffix(".pcap")
    TRAFFIC["varied"](whole, 200, 9)
    packets, dice = read_file(whole).packets, Random(4)
    written(folder, packets, sorted([*cuts_by_count(packets, dice), 1000, 1500]), dice)
    return folder


def parts_of(folder):
    return sorted(path for path in Path(folder).iterdir() if path.name.startswith("part-"))


def lines_of(folder):
    return sorted(line for path in parts_of(folder) for line in path.read_text().splitlines())


@cache
def by_one_process(*asked):
    return closeseq("analyze", *asked, "--jobs", "1")


def assert_equal(folder, done, *asked):
    """Hold what a cluster made against what one process makes."""
    alone, summary = by_one_process(*asked, "-f", "jsonl"), by_one_process(*asked)
    assert lines_of(folder) == sorted(alone.stdout.splitlines())
    assert done.stdout == summary.stdout == (Path(folder) / "summary.txt").read_text()
    assert done.returncode == summary.returncode
    assert {path.name for path in Path(folder).iterdir() if path.name.startswith(".")} == set()


@pytest.mark.parametrize(
    "asked", [[], ["--verdict", "reset,closing"], ["-p", "443", "-c", "1200"], ["--connection", "17"]]
)
def test_it_is_equal_to_the_whole(machine, ring, tmp_path, asked):
    out = tmp_path / "out"
    done = closeseq("analyze", ring, *asked, "--cluster", machine.address, "-f", "jsonl", "-o", out)
    assert done.stderr == ""
    assert_equal(out, done, ring, *asked)
    if not asked:
        assert len(parts_of(out)) > 5


def test_without_a_folder_there_is_the_summary(machine, ring):
    done = closeseq("analyze", ring, "--cluster", machine.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == by_one_process(ring).stdout


def test_csv_has_its_header_in_each_part(machine, tmp_path):
    out = tmp_path / "out"
    asked = ["analyze", *FEW, "--each", "-f", "csv"]
    assert closeseq(*asked, "--cluster", machine.address, "-o", out).returncode == 0
    alone = closeseq(*asked).stdout.splitlines()
    each = [path.read_text().splitlines() for path in parts_of(out)]
    assert {lines[0] for lines in each} == {alone[0]}
    assert sorted(line for lines in each for line in lines[1:]) == sorted(alone[1:])


def killed(machine, ring, out, task):
    """Analyze, and kill a worker's process while it does tasks of this name; hold what comes of it."""
    before, losses = machine.pids(), len(machine.losses())
    command = ["analyze", ring, "--cluster", machine.address, "-f", "jsonl", "-o", out]
    with begun(*command, stdout=PIPE, stderr=PIPE) as process:
        pid = machine.kill_one_at(task)
        assert process.poll() is None
        output, complaint = process.communicate(timeout=140)
    assert complaint == ""
    assert_equal(out, subprocess.CompletedProcess(command, process.returncode, output, complaint), ring)
    (lost,) = machine.losses()[losses:]
    assert any(key.startswith(f"{task}-") for key in lost)  # it was in the midst of one, which was done again
    assert pid in before
    return pid


@pytest.mark.parametrize("task", ["look", "inside", "part"])  # the first, some in between, the last
def test_a_worker_that_is_killed_changes_nothing(machine, ring, tmp_path, task):
    pid = killed(machine, ring, tmp_path / "out", task)
    wait_for(lambda: machine.present() == 2)  # its nanny has started another
    assert pid not in machine.pids()


def test_one_worker_is_enough_when_the_other_is_gone_for_ever(ring, tmp_path):
    with cluster(tmp_path / "workers") as machine:
        machine.start_none_again()
        killed(machine, ring, tmp_path / "out", "inside")
        assert machine.present() == 1


def test_ctrl_c_ends_it_and_leaves_nothing_unfinished(machine, ring, tmp_path):
    out = tmp_path / "out"
    command = ["analyze", ring, "--cluster", machine.address, "-f", "jsonl", "-o", out]
    with begun(*command, stderr=PIPE) as process:
        until = time.monotonic() + PATIENCE
        while not list(out.glob(".closeseq-*/tables-*")):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaint) == (130, "closeseq: interrupted\n")
    assert not (out / "summary.txt").exists()
    assert all(line.endswith("}") for line in lines_of(out))


def test_files_that_cannot_be_read_are_named_and_the_others_are_done(machine, ring, tmp_path):
    folder = tmp_path / "ring"
    folder.mkdir()
    packets = read_file(ring.with_suffix(".pcap")).packets
    for number, begin in enumerate(range(0, len(packets), 500), 1):
        (folder / f"r{number}.pcap").write_bytes(as_file(packets[begin : begin + 500], Random(3)))
    names = [folder / f"r{number}.pcap" for number in range(1, len(list(folder.iterdir())) + 1)]
    names[1].write_bytes(names[1].read_bytes()[:-11])
    names[2].write_bytes(b"this is no capture, but some text that is long enough to be looked at")
    names[3].unlink()
    out = tmp_path / "out"
    done = closeseq("analyze", *names, "--cluster", machine.address, "-f", "jsonl", "-o", out)
    assert done.returncode == 3
    complaints = done.stderr.splitlines()
    assert [sum(str(name) in line for line in complaints) for name in names[1:4]] == [1, 1, 1]
    summary = " ".join((out / "summary.txt").read_text().split())
    assert f"not read to its end: {names[1]}: packet 500" in summary
    assert f"not read: {names[2]}: " in summary
    assert f"not read: {names[3]}: no such file" in summary
    alone = closeseq("analyze", *names, "-f", "jsonl")
    assert lines_of(out) == sorted(alone.stdout.splitlines())
    assert alone.returncode == 3
    ids = [json.loads(line)["id"] for line in lines_of(out)]
    assert len(ids) == len(set(ids)) > 100


def test_a_folder_that_is_not_empty_is_left_as_it_is(machine, tmp_path):
    (tmp_path / "mine").write_text("mine")
    arguments = ["analyze", *FEW, "--cluster", machine.address, "-f", "jsonl", "-o", tmp_path]
    done = closeseq(*arguments)
    assert done.returncode == 2
    assert done.stderr == f"closeseq: {tmp_path} is not empty; --force writes there nevertheless\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "part-09999.jsonl").write_text("of an earlier run")
    assert closeseq(*arguments, "--force").returncode == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "part-09999.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-f", "table", "-o", "x"], "--cluster writes jsonl, csv or a summary, not table"),
        (["-f", "jsonl"], "name a directory or URL with -o"),
    ],
)
def test_what_a_cluster_cannot_write_is_refused(machine, ring, arguments, said):
    done = closeseq("analyze", ring, "--cluster", machine.address, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_where_no_scheduler_answers_it_is_one_line(ring):
    impatient = "from closeseq.cli import cluster_run; cluster_run.CONNECT_TIMEOUT = '1s'"
    done = closeseq("analyze", ring, "--cluster", f"tcp://127.0.0.1:{free_port()}", first=impatient)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no Dask scheduler answers at" in line


@pytest.mark.parametrize("address", ["127.0.0.1", "", "foo://127.0.0.1:1", "tls://127.0.0.1:1"])
def test_what_is_no_address_of_a_scheduler_is_one_line_at_once(ring, address):
    began = time.monotonic()
    done = closeseq("analyze", ring, "--cluster", address)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{address!r} is no address of a Dask scheduler: " in line
    assert time.monotonic() - began < 10  # Dask would wait for 20 s, and then write a traceback


def test_a_worker_keeps_nothing_of_where_its_tasks_were(machine, ring):
    from distributed import Client

    def calls(tree):
        yield tree["identifier"]
        for one in tree["children"].values():
            yield from calls(one)

    until = time.monotonic() + PATIENCE
    with Client(machine.address, set_as_default=False) as client:
        # A worker looks but now and then: perhaps it has seen what other tests had it do.
        while not any(one.startswith("apart;") for one in calls(client.profile(key="part"))):
            assert time.monotonic() < until
            assert closeseq("analyze", ring, "--cluster", machine.address).returncode == 0
        seen = set(calls(client.profile(key="part")))
    assert not any("closeseq/cluster/" in one for one in seen)


def test_from_python_with_its_executor(machine, ring):
    from distributed import Client

    import closeseq as library

    with Client(machine.address, set_as_default=False) as client:
        parts = library.analyze(str(ring), executor=client.get_executor(pure=False))
        whole = library.analyze(str(ring))
        assert parts.verdicts == whole.verdicts
        assert [library.record(one) for one in parts[:50]] == [library.record(one) for one in whole[:50]]


# Captures in an object store

SECRETS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory, ring):
    """Start a server that speaks S3 and has some files; return what it needs to be known, and these here."""
    pytest.importorskip("moto", reason="moto is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("store")
    log, here = folder / "log", folder / "ring"
    here.mkdir()
    for path in sorted(ring.iterdir())[:4]:
        (here / path.name).write_bytes(path.read_bytes())
    with started(log, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)) as process:
        until = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        files = s3fs.S3FileSystem(key="testing", secret="testing", endpoint_url=url)
        files.mkdir("captures")
        for path in here.iterdir():
            files.put_file(str(path), f"captures/ring/{path.name}")
        yield {"AWS_ENDPOINT_URL": url, **SECRETS}, files, here


def without_names(lines):
    found = []
    for line in lines:
        told = json.loads(line)
        told["capture"] = told["capture"].rpartition("/")[2]
        told["files"] = {number: name.rpartition("/")[2] for number, name in told["files"].items()}
        found.append(json.dumps(told))
    return sorted(found)


def test_captures_of_an_object_store_are_read(store):
    known, _, here = store
    alone = closeseq("analyze", here, "-f", "jsonl").stdout.splitlines()
    for named in ("s3://captures/ring", "s3://captures/ring/piece-*.pcap"):
        done = closeseq("analyze", named, "-f", "jsonl", **known)
        assert (done.returncode, done.stderr) == (0, "")
        assert without_names(done.stdout.splitlines()) == without_names(alone)
    done = closeseq("analyze", "s3://captures/ring/missing.pcap", **known)
    assert (done.returncode, done.stderr) == (
        3,
        "closeseq: s3://captures/ring/missing.pcap: no such file; check its name\n",
    )


def test_a_cluster_reads_from_an_object_store_and_writes_to_it(store, tmp_path):
    known, files, here = store
    with cluster(tmp_path, **known) as machine:
        done = closeseq(
            *("analyze", "s3://captures/ring/piece-*.pcap", "--cluster", machine.address),
            *("-f", "jsonl", "-o", "s3://captures/out"),
            **known,
        )
    assert (done.returncode, done.stderr) == (0, "")
    names = sorted(name.rpartition("/")[2] for name in files.ls("captures/out", detail=False))
    assert names[-1] == "summary.txt"
    assert all(name.startswith("part-") for name in names[:-1])
    lines = [line for name in names[:-1] for line in files.cat(f"captures/out/{name}").decode().splitlines()]
    alone = closeseq("analyze", here, "-f", "jsonl").stdout.splitlines()
    assert without_names(lines) == without_names(alone)
    assert files.cat("captures/out/summary.txt").decode() == done.stdout
