"""What time it is for a watch."""

from __future__ import annotations

import time

import numpy as np
import pytest

from closeseq.packets.frames import Frames
from closeseq.watch.session import PacketClock, SystemClock

SECOND = 10**9
OLD = 1_600_000_000 * SECOND


def frames(*times):
    column = np.zeros(len(times), np.int64)
    return Frames(np.empty(0, np.uint8), column, column, column, np.array(times, np.int64), column, column)


def test_the_systems_clock_is_that_of_live_packets():
    assert SystemClock().now_ns() == pytest.approx(time.time_ns(), abs=SECOND)


@pytest.mark.parametrize("leap", [3600 * SECOND, -5 * SECOND])
def test_a_clock_that_was_set_or_slept_is_noticed_once(monkeypatch, leap):
    """Nobody may set a real machine's clock for a test; a leap is the same to whoever reads it."""
    clock = SystemClock()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + leap)
    assert clock.jump_ns() == pytest.approx(leap, abs=SECOND // 10)
    assert clock.jump_ns() == 0


def test_a_small_correction_is_no_leap(monkeypatch):
    clock = SystemClock()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + SECOND // 2)
    assert clock.jump_ns() == 0


def test_the_packets_clock_goes_on_from_the_newest_packet():
    clock = PacketClock()
    assert clock.now_ns() == 0
    clock.see(frames(OLD, OLD + SECOND))
    time.sleep(0.05)
    assert OLD + 1.05 * SECOND <= clock.now_ns() < OLD + 2 * SECOND


def test_the_packets_clock_never_runs_back():
    clock = PacketClock()
    clock.see(frames(OLD + SECOND))
    before = clock.now_ns()
    clock.see(frames(OLD))
    assert clock.now_ns() >= before
    clock.see(frames())
    assert clock.now_ns() >= before
