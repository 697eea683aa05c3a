"""A Dask scheduler and two workers that are processes of their own, as on three machines."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from unittest import mock

from forked import Forked, run_forked
from places import ROOT

PATIENCE = 60  # seconds
# What each command and each worker would import by itself.
OF_COMMANDS = ("distributed", *(["s3fs"] if find_spec("s3fs") else []))
OF_WORKERS = (*OF_COMMANDS, "closeseq.cluster.orders", "closeseq.shards.plan")
BEFORE = dict(os.environ)  # nannies leave in it what they set for their workers, such as PYTHONHASHSEED


def environment(**more):
    return {**BEFORE, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LC_ALL": "C.UTF-8", **more}


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


def wait_for(condition):
    """Wait until something is so; return it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.001)
    return found


class Machine:
    """A cluster in which the tests can look: the scheduler and the nannies are threads of this process."""

    def __init__(self, local):
        self._local = local
        self.address = local.scheduler_address

    def pids(self):
        """Return the workers' processes, those that do the tasks; None for one that is not there."""
        return [nanny.pid for nanny in self._local.workers.values()]

    def present(self):
        """Return how many workers the scheduler has."""
        return len(self._local.scheduler.workers)

    def start_none_again(self):
        """Have nannies leave it at that when their worker has ended, as when a machine is lost."""

        async def nothing():
            pass

        for nanny in self._local.workers.values():
            nanny.instantiate = nothing

    def losses(self):
        """Return for each worker that was lost which tasks it had and had not finished."""
        events = [event for _, event in self._local.scheduler.get_events("all")]
        return [one["processing-tasks"] for one in events if one["action"] == "remove-worker"]

    def kill_one_at(self, task):
        """Wait until a worker has tasks of this name, of which it does one; kill its process.

        Returns:
            The process number.
        """

        def at_it():
            for nanny in self._local.workers.values():
                worker = self._local.scheduler.workers.get(nanny.worker_address)
                if worker and any(one.prefix.name == task for one in list(worker.processing)):
                    return nanny.pid
            return None

        pid = wait_for(at_it)
        os.kill(pid, signal.SIGKILL)
        return pid


@contextlib.contextmanager
def cluster(folder, **more):
    """Start a scheduler and two workers, which are forked from a process that has imported what they need.

    Args:
        folder: where the workers may write.
        more: what their environment has beside that of this process.
    """
    import dask
    from distributed import LocalCluster
    from distributed.utils import get_mp_context

    with (
        mock.patch.dict(os.environ),
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
    ):
        get_mp_context().set_forkserver_preload([*OF_WORKERS])
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # where Dask would serve it; otherwise port 8787 is taken
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,  # a nanny tells that its worker was killed
            local_directory=str(folder),
            env=more,
        ) as local:
            yield Machine(local)


def closeseq(*arguments, first="", **more):
    """Run the command and wait for its end.

    Args:
        arguments: of the command.
        first: Python that it runs before the command.
        more: what its environment has beside that of this process.
    """
    return run_forked(arguments, text=True, env=environment(**more), first=first, modules=OF_COMMANDS)


def begun(*arguments, **options):
    """Start the command."""
    return Forked(arguments, text=True, env=environment(), modules=OF_COMMANDS, **options)
