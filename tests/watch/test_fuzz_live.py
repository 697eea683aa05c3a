"""The fuzzer of live captures: its frames come from the seed alone, and what it finds it keeps."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import random
import shutil
import subprocess
import sys

import pytest

from closeseq.capture import open_capture
from closeseq.segments import decode
from live_namespace import ROOT, needs_network

SCRIPT = ROOT / "scripts" / "fuzz_live"


@pytest.fixture(scope="module")
def fuzz():
    loader = importlib.machinery.SourceFileLoader("fuzz_live", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("fuzz_live", loader))
    sys.modules["fuzz_live"] = module  # its dataclasses look themselves up
    loader.exec_module(module)
    yield module
    del sys.modules["fuzz_live"]


def made(fuzz, seed, number=2000):
    frames = fuzz.Frames(random.Random(seed), list(fuzz.real_frames()))
    return [frames.next() for _ in range(number)]


def test_the_same_seed_makes_the_same_frames(fuzz):
    assert made(fuzz, 5) == made(fuzz, 5)
    assert made(fuzz, 5) != made(fuzz, 6)


def test_the_frames_are_of_many_kinds_and_most_are_tcp(fuzz, tmp_path):
    """TCP of both versions of IP, with every flag, in few connections; and much that is none."""
    path = tmp_path / "frames.pcap"
    frames = made(fuzz, 5)
    records = (fuzz.struct.pack("<IIII", 1, 0, len(frame), len(frame)) + frame for frame in frames)
    path.write_bytes(fuzz.PCAP_HEADER + b"".join(records))
    with open_capture(str(path)) as capture:
        (batch,) = capture.batches()
        segments = decode(batch)
    assert 1000 < len(segments) < len(frames)
    assert set(range(6)) <= {bit for bit in range(8) for flags in segments.flags.tolist() if flags >> bit & 1}
    assert len(segments.skipped) >= 3
    pairs = set(zip(segments.src_port.tolist(), segments.dst_port.tolist(), strict=True))
    assert len(pairs) < len(segments) / 2


@needs_network
@pytest.mark.skipif(not shutil.which("unshare"), reason="a namespace of its own needs the program unshare")
def test_what_goes_beyond_a_limit_is_found_and_its_frames_are_kept(tmp_path):
    command = [sys.executable, SCRIPT, "--seconds", "0.4", "--memory", "1", "--keep", tmp_path / "kept"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=140, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    for form in ("timeline", "jsonl"):
        assert f"FOUND: {form}: it took " in done.stdout
    (kept,) = (tmp_path / "kept").iterdir()
    with open_capture(str(kept / "frames.pcap")) as capture:
        number = sum(len(batch) for batch in capture.batches())
    assert number > 500
    assert f"round 1: {number:,} frames" in done.stdout
    assert "MB" in (kept / "problems.txt").read_text()
