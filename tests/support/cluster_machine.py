"""A Dask scheduler and two workers, each a process of its own, as on three machines."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time

from places import ROOT

PATIENCE = 60  # seconds


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LC_ALL": "C.UTF-8", **more}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(log, *command, **more):
    """Run a program, which writes to a file, until the block ends."""
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(**more), cwd=ROOT
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(log, pattern, process):
    """Wait until what a program wrote matches; return the match."""
    until = time.monotonic() + PATIENCE
    while not (found := re.search(pattern, log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    return found


class Cluster:
    """A scheduler's address, and the workers' processes."""

    def __init__(self, address, workers):
        self.address = address
        self.workers = workers


@contextlib.contextmanager
def cluster(folder, number=2, **more):
    """Start a scheduler and its workers."""
    port = free_port()
    scheduler = (sys.executable, "-m", "distributed.cli.dask_scheduler")
    with contextlib.ExitStack() as stack:
        log = folder / "scheduler.log"
        process = stack.enter_context(
            started(log, *scheduler, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        )
        wait_for(log, r"Scheduler at", process)
        address, workers = f"tcp://127.0.0.1:{port}", []
        for one in range(number):
            log = folder / f"worker-{one}.log"
            command = (sys.executable, "-m", "distributed.cli.dask_worker", address)
            options = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard")
            place = folder / f"worker-{one}"
            place.mkdir()
            workers.append(
                stack.enter_context(started(log, *command, *options, "--local-directory", str(place), **more))
            )
            wait_for(log, r"Registered to", workers[-1])
        yield Cluster(address, workers)


def closeseq(*arguments, **more):
    """Run the command and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "closeseq", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=140,
        env=environment(**more),
        check=False,
    )
