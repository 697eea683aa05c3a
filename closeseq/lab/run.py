"""Carry experiments out side by side, each in processes and namespaces of its own.

The processes are forked from this one, which has imported everything by then: importing it once for each
experiment would take longer than most experiments.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.lab.bench import CLIENTS
from closeseq.lab.child import carry_out, load
from closeseq.lab.network import PACKAGES, command
from closeseq.lab.registry import ExperimentOutcome
from closeseq.lab.tun import missing_tun

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from closeseq.lab.registry import Experiment
    from closeseq.report.text import Style

# The tracepoint reports the sockets of all network namespaces. Experiments have client ports of their own, so
# that their transitions can be told apart; two runs at once hardly ever have the same ones. They lie below
# those that the kernel gives to the clients of other programs (from 32,768 on).
CLIENT_PORTS = range(10_000, 32_768)
AT_ONCE = 6  # experiments for each processor; they mostly sleep
TIME_LIMIT = 120  # seconds; an experiment that hangs ends itself before
STORY, COMPLAINT = 1, 2  # what comes through which pipe, by the number of the standard stream


@dataclass(frozen=True)
class ExperimentResult:
    """What came of one experiment."""

    experiment: Experiment
    outcome: ExperimentOutcome
    story: str = ""  # empty if it was told while it went
    complaint: str = ""  # what it said of what went wrong


@dataclass(eq=False)
class Child:
    """The process of one experiment."""

    experiment: Experiment
    pid: int
    deadline: float  # of the monotonic clock
    # What it has said, by stream.
    heard: dict[int, bytearray] = field(default_factory=lambda: {STORY: bytearray(), COMPLAINT: bytearray()})
    open: set[int] = field(default_factory=set)  # descriptors through which more may come

    def text(self, stream: int) -> str:
        """Return what it has said on a stream."""
        return self.heard[stream].decode(errors="backslashreplace")


class Run:
    """Carries experiments out. No other threads may run in this process.

    Args:
        experiments: which, in the order in which they are begun.
        style: how their stories may look.
        folder: where captures and the kernel's answers are kept; nowhere if it is not said.
        jobs: how many at once; some for each processor, if not said.
        aloud: their stories go to standard output while they are carried out.
    """

    def __init__(
        self,
        experiments: Sequence[Experiment],
        style: Style,
        *,
        folder: Path | None = None,
        jobs: int = 0,
        aloud: bool = False,
    ) -> None:
        self._experiments = experiments
        self._style = style
        self._folder = folder
        self._aloud = aloud
        self._jobs = jobs or AT_ONCE * (os.cpu_count() or 1)
        self._selector = selectors.DefaultSelector()
        self._running: set[Child] = set()
        self._first_port = random.randrange(  # noqa: S311 - only to be another one than that of the next run
            CLIENT_PORTS.start, CLIENT_PORTS.stop - CLIENTS * len(experiments)
        )

    def results(self) -> Generator[ExperimentResult]:
        """Yield what came of each experiment, as they end. Close it, and those under way are ended."""
        load()
        waiting = list(enumerate(self._experiments))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self._jobs:
                    number, experiment = waiting.pop(0)
                    if lacks := missing(experiment):
                        yield ExperimentResult(experiment, ExperimentOutcome.LEFT_OUT, complaint=lacks)
                    else:
                        self._start(experiment, self._first_port + number * CLIENTS)
                yield from self._ended()
        finally:
            self._end()

    def _start(self, experiment: Experiment, port: int) -> None:
        """Fork the process of one experiment."""
        streams = {COMPLAINT: os.pipe()} if self._aloud else {STORY: os.pipe(), COMPLAINT: os.pipe()}
        sys.stdout.flush()
        sys.stderr.flush()
        parent, pid = os.getpid(), os.fork()
        if not pid:
            for stream, (_, into) in streams.items():
                os.dup2(into, stream)
            os._exit(carry_out(experiment, self._folder, self._style, first_port=port, parent=parent))
        child = Child(experiment, pid, time.monotonic() + TIME_LIMIT)
        for stream, (out_of, into) in streams.items():
            os.close(into)
            child.open.add(out_of)
            self._selector.register(out_of, selectors.EVENT_READ, (child, stream))
        self._running.add(child)

    def _ended(self) -> Iterator[ExperimentResult]:
        """Hear what the processes say, for a while, and yield what came of those that have ended."""
        for key, _ in self._selector.select(1):
            child, stream = key.data
            said = os.read(key.fd, 65536)
            child.heard[stream] += said
            if not said:
                self._selector.unregister(key.fd)
                os.close(key.fd)
                child.open.discard(key.fd)
        for child in [one for one in self._running if not one.open]:
            self._running.discard(child)
            _, status = os.waitpid(child.pid, 0)
            yield ExperimentResult(
                child.experiment, _outcome(status), child.text(STORY), child.text(COMPLAINT).strip()
            )
        now = time.monotonic()
        for child in [one for one in self._running if one.deadline < now]:
            os.kill(child.pid, signal.SIGTERM)

    def _end(self) -> None:
        """End what is under way. SIGTERM, so that the process can end its namespaces' processes."""
        for child in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        for child in self._running:
            os.waitpid(child.pid, 0)
            for descriptor in child.open:
                os.close(descriptor)
        self._running.clear()
        self._selector.close()


def missing(experiment: Experiment) -> str:
    """Say what an experiment needs and this system lacks, commands and devices; empty if nothing."""
    if experiment.path is not None and (lacks := missing_tun()):
        return f"needs a path of TUN devices: {lacks}"
    tools = [tool for tool in experiment.needs if command(tool) is None]
    named = ", ".join(f"{tool} (package {PACKAGES[tool]})" for tool in tools)
    return f"needs {named}, not installed here" if named else ""


def _outcome(status: int) -> ExperimentOutcome:
    try:
        return ExperimentOutcome(os.waitstatus_to_exitcode(status))
    except ValueError:  # ended by a signal, or by the interpreter
        return ExperimentOutcome.FAILED
