"""A capture that an executor has part in is told as ever."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import closeseq
from benchmark_captures import CAPTURES as TRAFFIC
from capture_files import read_file
from chain_files import (
    CAPTURES,
    IN_ORDER,
    as_file,
    assert_same,
    busy,
    cuts_by_count,
    cuts_by_time,
    packets_of,
    records,
    written,
)
from closeseq.errors import CaptureError, WorkerError
from closeseq.shards import plan

CUTS = {"count": cuts_by_count, "time": cuts_by_time}


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(IN_ORDER), st.sampled_from(sorted(CUTS)), st.randoms(use_true_random=False))
def test_a_capture_cut_anywhere_is_the_whole(tmp_path_factory, threads, name, by, dice):
    folder = tmp_path_factory.mktemp("cut")
    packets = packets_of(name)
    paths = written(folder, packets, CUTS[by](packets, dice, most=5), dice)
    whole = closeseq.analyze(str(CAPTURES / name), stuck_after=2)
    assert_same(whole, closeseq.analyze(*paths, stuck_after=2, executor=threads))


@pytest.mark.parametrize(("seed", "by"), list(enumerate(CUTS)))
def test_a_busy_capture_cut_anywhere_is_the_whole(tmp_path, monkeypatch, threads, by, seed):
    dice = Random(f"{by} {seed}")
    packets = busy(dice, every=2, first=seed)
    whole = tmp_path / "whole"
    whole.write_bytes(as_file(packets, dice))
    ring = tmp_path / "ring"
    ring.mkdir()
    paths = written(ring, packets, CUTS[by](packets, dice, most=30), dice)
    monkeypatch.setattr(plan, "CROSSING", 7)
    monkeypatch.setattr(plan, "JUDGED", 3)
    monkeypatch.setattr(plan, "TOGETHER", 40)
    monkeypatch.setattr(plan, "AT_ONCE", 5)
    parts = closeseq.analyze(*paths, stuck_after=2, executor=threads)
    assert len(parts._whole.shards) > len(parts.reading.files.files) + 1  # some of them in partitions
    assert_same(closeseq.analyze(str(whole), stuck_after=2), parts)


@pytest.fixture(scope="module")
def cut_traffic(tmp_path_factory):
    """Return the benchmark's varied connections, whole and in pieces."""
    folder = tmp_path_factory.mktemp("traffic")
    TRAFFIC["varied"](folder / "whole.pcap", 280, 5)
    packets, dice = read_file(folder / "whole.pcap").packets, Random(3)
    (folder / "ring").mkdir()
    written(folder / "ring", packets, cuts_by_count(packets, dice), dice)
    return folder


def test_processes_that_were_started_afresh_tell_the_same(cut_traffic, processes):
    whole = closeseq.analyze(str(cut_traffic / "whole.pcap"))
    assert any(one.opener == "inferred" for one in whole)
    for asked in ({}, {"port": 443}, {"count": 1500}):
        chain = closeseq.analyze(str(cut_traffic / "ring"), **asked)
        parts = closeseq.analyze(str(cut_traffic / "ring"), executor=processes, **asked)
        assert len(parts) > 30
        assert records(parts) == records(chain)
        assert (parts.verdicts, parts.shapes, parts.findings) == (
            chain.verdicts,
            chain.shapes,
            chain.findings,
        )
        assert (parts.reading, parts.losses) == (chain.reading, chain.losses)
    assert_same(whole, closeseq.analyze(str(cut_traffic / "whole.pcap"), executor=processes))


def test_connections_that_go_on_in_other_files_are_judged_by_several_tasks(cut_traffic, monkeypatch, threads):
    monkeypatch.setattr(plan, "JUDGED", 30)
    parts = closeseq.analyze(str(cut_traffic / "ring"), executor=threads)
    divided = [one.shard.connections for one in parts._whole.shards if one.numbers is not None]
    assert len(divided) > 3
    assert max(divided) < sum(divided) / 2
    assert_same(closeseq.analyze(str(cut_traffic / "whole.pcap")), parts)


def test_progress_is_told(cut_traffic, threads):
    told = []
    closeseq.analyze(str(cut_traffic / "ring"), executor=threads, progress=lambda *at: told.append(at))
    files = len(list((cut_traffic / "ring").iterdir()))
    assert told == [(one, 2 * files) for one in range(1, 2 * files + 1)]


def test_an_executor_whose_process_is_killed_is_one_clear_error(cut_traffic):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        process = pool.submit(os.getpid).result()
        os.kill(process, signal.SIGKILL)
        with pytest.raises(WorkerError, match="a worker process ended"):
            closeseq.analyze(str(cut_traffic / "ring"), executor=pool)


def test_so_is_one_that_is_being_closed_at_that_moment(cut_traffic):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pool.submit(os.getpid).result()
        pool._call_queue._reader.close()  # as its thread does when a process is killed, before it says so
        with pytest.raises(WorkerError, match="a worker process ended"):
            closeseq.analyze(str(cut_traffic / "ring"), executor=pool)


def test_a_capture_of_which_nothing_can_be_read_is_an_error(tmp_path, threads):
    with pytest.raises(CaptureError, match="no such file"):
        closeseq.analyze(str(tmp_path / "missing.pcap"), executor=threads)
    (tmp_path / "other.pcap").write_bytes(b"no capture" * 10)
    with pytest.raises(CaptureError):
        closeseq.analyze(str(tmp_path / "other.pcap"), executor=threads)


def test_a_file_cut_short_is_told_and_the_others_are_whole(tmp_path, cut_traffic, threads):
    packets = read_file(cut_traffic / "whole.pcap").packets
    paths = written(tmp_path, packets, [850, 1650], Random(5))
    Path(paths[0]).write_bytes(Path(paths[0]).read_bytes()[:-9])
    chain = closeseq.analyze(*paths)
    parts = closeseq.analyze(*paths, executor=threads)
    assert str(parts.reading.error) == str(chain.reading.error) != "None"
    assert records(parts) == records(chain)


@pytest.mark.parametrize("lost", ["vanishes", "is cut short", "becomes something else"])
def test_a_file_that_is_lost_after_it_was_looked_at_is_told_and_counted_nowhere(
    tmp_path, cut_traffic, threads, lost
):
    packets, paths = read_file(cut_traffic / "whole.pcap").packets, []
    for number, begin in enumerate(range(0, len(packets), 650)):
        paths.append(tmp_path / f"r{number}.pcap")
        paths[-1].write_bytes(as_file(packets[begin : begin + 650], Random(3)))
    whole = closeseq.analyze(*map(str, paths))
    victim, files = paths[2], len(paths)

    def lose(done, _):
        if done != files:  # all of them were looked at, and none was read
            return
        data = victim.read_bytes()
        victim.unlink()
        if lost != "vanishes":
            victim.write_bytes(data[: len(data) // 2] if lost == "is cut short" else b"something else" * 9)

    parts = closeseq.analyze(*map(str, paths), executor=threads, progress=lose)
    (error,) = parts.reading.files.errors()
    assert error is parts.reading.error
    assert error.path == str(victim)
    assert parts.reading.packets == len(packets) - 650
    assert [one.id for one in parts] == list(range(1, len(parts) + 1))

    def later(analysis):
        """Return the timelines of those that began after that file, by who they are."""
        found = [closeseq.record(one) for one in analysis if one.opener == "seen"]
        return {
            (one["community_id"], one["start"]): one["timeline"] for one in found if min(one["files"]) > "3"
        }

    expected, left = later(whole), later(parts)
    assert len(expected) > 50
    assert {who: left[who] for who in expected} == expected  # and a SYN that was sent again begins more
