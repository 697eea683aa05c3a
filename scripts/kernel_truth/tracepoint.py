"""Every transition of a TCP socket, as the kernel's tracepoint sock:inet_sock_set_state reports it."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kernel_truth.namespace import TRACING

EVENT = "events/sock/inet_sock_set_state"
INSTANCE = "closeseq-{pid}"
BUFFER_KB = 8192  # a CPU; 300 connections take about 1 MB

# The kernel's names, without their "TCP_", where ours differ.
STATES = {
    "CLOSE": "CLOSED",
    "SYN_RECV": "SYN_RECEIVED",
    "NEW_SYN_RECV": "SYN_RECEIVED",
    "FIN_WAIT1": "FIN_WAIT_1",
    "FIN_WAIT2": "FIN_WAIT_2",
}

LINE = re.compile(
    r" (?P<time>\d+\.\d+): inet_sock_set_state: .*sport=(?P<local>\d+) dport=(?P<remote>\d+) "
    r".*oldstate=TCP_(?P<old>\w+) newstate=TCP_(?P<new>\w+)"
)


@dataclass(frozen=True)
class Transition:
    """One line of the tracepoint."""

    time: float  # Unix time, seconds
    local: int  # port
    remote: int  # port; 0 in a listener, and in the first line of a socket a listener made
    old: str
    new: str


class Tracer:
    """Our own instance of the kernel's tracing, so that nobody else's use of it is disturbed."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance
        self._offset = _offset_of_realtime()

    def transitions(self) -> list[Transition]:
        """All transitions so far, in time order."""
        self._check_sound()
        found = (LINE.search(line) for line in (self._instance / "trace").read_text().splitlines())
        return [
            Transition(
                round(float(line["time"]) + self._offset, 6),
                int(line["local"]),
                int(line["remote"]),
                STATES.get(line["old"], line["old"]),
                STATES.get(line["new"], line["new"]),
            )
            for line in found
            if line is not None
        ]

    def _check_sound(self) -> None:
        """Raise when the kernel's buffer ran over, or someone set the clock meanwhile."""
        for stats in self._instance.glob("per_cpu/cpu*/stats"):
            if re.search(r"^(overrun|dropped events): [1-9]", stats.read_text(), re.MULTILINE):
                raise RuntimeError(f"the trace buffer ran over: {stats}")
        if abs(_offset_of_realtime() - self._offset) > 0.0005:  # noqa: PLR2004
            raise RuntimeError("the system's clock was set during the recording")


@contextmanager
def trace(first_port: int, last_port: int) -> Iterator[Tracer]:
    """Trace the sockets that have a port of this range at either end, while the block runs."""
    _remove_leftovers()
    instance = TRACING / "instances" / INSTANCE.format(pid=os.getpid())
    instance.mkdir()
    try:
        (instance / "trace_clock").write_text("mono")
        (instance / "buffer_size_kb").write_text(str(BUFFER_KB))
        within = " || ".join(
            f"({port} >= {first_port} && {port} <= {last_port})" for port in ("sport", "dport")
        )
        (instance / EVENT / "filter").write_text(within)
        (instance / EVENT / "enable").write_text("1")
        yield Tracer(instance)
    finally:
        (instance / EVENT / "enable").write_text("0")
        instance.rmdir()


def _offset_of_realtime() -> float:
    """Unix time less CLOCK_MONOTONIC (the trace clock "mono"), in seconds, to about a microsecond.

    Both clocks are slewed alike, so the offset holds until someone sets the time.
    """
    best_width, best_offset = 1 << 62, 0
    for _ in range(200):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        width = time.monotonic_ns() - before
        if width < best_width:
            best_width, best_offset = width, realtime - before - width // 2
    return best_offset / 1e9


def _remove_leftovers() -> None:
    """Remove the instances of runs that were killed: those whose process is no more."""
    for instance in TRACING.glob("instances/" + INSTANCE.format(pid="*")):
        pid = instance.name.rpartition("-")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with suppress(OSError):  # someone else may be removing it too
                (instance / EVENT / "enable").write_text("0")
                instance.rmdir()
