"""How long each stage of a run took (`analyze --timings`).

No package but `cli` reads a clock for it: while a run is timed, the functions in DOORS, each the entry to a
stage, are replaced by ones that also read the clock. Otherwise they cost nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

from closeseq.workers import pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STARTING, OTHER = "starting", "everything else"
# Time of a stage that runs within another one counts for the inner stage only.
DOORS = (
    ("reading", "closeseq.capture.source", "Source.more"),
    ("walking along the records", "closeseq.capture.pcap", "PcapWalker.walk"),
    ("walking along the records", "closeseq.capture.pcapng", "PcapngWalker.walk"),
    ("decoding", "closeseq.segments.decode", "Decoder.decode"),
    ("connections", "closeseq.connections.tracker", "Connections.feed"),
    ("connections", "closeseq.connections.tracker", "Connections.assign"),
    ("connections", "closeseq.connections.tracker", "Connections.follow"),
    ("connections", "closeseq.connections.tracker", "Connections.join"),
    ("connections", "closeseq.connections.tracker", "Connections.conversation"),
    ("classes", "closeseq.classes.classes", "Classes.find"),
    ("classes", "closeseq.classes.classes", "Classes._search"),
    ("judging", "closeseq.classes.template", "Template.fill"),
    ("judging", "closeseq.connection", "replay"),
    ("judging", "closeseq.connection", "judge"),
    ("waiting for workers", "closeseq.workers.pool", "Worker.receive"),
    ("waiting for workers", "closeseq.workers.pool", "_Team.result"),
    ("making the report", "closeseq.cli.output", "Output.write"),
    ("writing", "closeseq.cli.output", "Output._put"),
)
STAGES = (STARTING, *dict.fromkeys(stage for stage, _, _ in DOORS), OTHER)


class Stopwatch:
    """Seconds of wall time by stage. One stage runs at a time."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.begin()

    def begin(self) -> None:
        """Count from now on, as if nothing had been before."""
        self.seconds.clear()
        self._stage = OTHER
        self._since = time.perf_counter()

    def change(self, stage: str) -> str:
        """Begin a stage; return the one that was interrupted."""
        now, before = time.perf_counter(), self._stage
        self.seconds[before] += now - self._since
        self._stage, self._since = stage, now
        return before

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, as part of a stage."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = self.change(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.change(before)

        return call


class Reports:
    """The workers' seconds by stage: a line each, through a pipe that they share.

    Args:
        stopwatch: this process's, which each worker that is forked has a copy of.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._ours, False)
        os.set_blocking(self._theirs, False)  # a report too many is lost

    def reporting(self, work: Callable[..., None]) -> Callable[..., None]:
        """Return a worker's function with a report at its end."""

        @wraps(work)
        def call(*args: Any) -> None:
            self._stopwatch.begin()
            work(*args)
            self._stopwatch.change(OTHER)
            with suppress(BlockingIOError):
                os.write(self._theirs, json.dumps(self._stopwatch.seconds).encode() + b"\n")

        return call

    def total(self) -> Counter[str]:
        """Return the seconds of all workers, by stage."""
        os.close(self._theirs)
        with os.fdopen(self._ours, "rb") as pipe:
            lines = pipe.read().splitlines()
        total: Counter[str] = Counter()
        for line in lines:
            total.update(json.loads(line))
        return total


@contextmanager
def timings(*, wanted: bool, stream: TextIO | None = None) -> Iterator[None]:
    """Print at the end of the block, on standard error, how many seconds each stage of it took.

    Starting (Python, and imports before the block) is in seconds of CPU. Beside each stage are the seconds of
    all worker processes together, which run at the same time.

    Args:
        wanted: False to do nothing.
        stream: where to print instead.
    """
    if not wanted:
        yield
        return
    stopwatch = Stopwatch()
    stopwatch.seconds[STARTING] = time.process_time()
    reports = Reports(stopwatch)
    with _replaced(stopwatch, reports):
        yield
    stopwatch.change(OTHER)
    workers = reports.total()
    for stage in STAGES:
        beside = f"   and {workers[stage]:.3f} s in workers" if workers[stage] else ""
        print(f"{stage:26}{stopwatch.seconds[stage]:9.3f} s{beside}", file=stream or sys.stderr)


@contextmanager
def _replaced(stopwatch: Stopwatch, reports: Reports) -> Iterator[None]:
    """Have the functions of DOORS timed within the block, and workers report."""
    obey = pool.obey
    found = []
    for stage, module, path in DOORS:
        *owner, name = path.split(".")
        holder: Any = import_module(module)
        for part in owner:
            holder = getattr(holder, part)
        found.append((stage, holder, name, getattr(holder, name)))
    try:
        for stage, holder, name, function in found:
            setattr(holder, name, stopwatch.timed(stage, function))
        pool.obey = reports.reporting(obey)
        yield
    finally:
        pool.obey = obey
        for _, holder, name, function in found:
            setattr(holder, name, function)
