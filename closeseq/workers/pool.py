"""Forked copies of this process that do a part of its work.

A copy has all that this process has: nothing is sent to it but the number of a task, and memory is shared
until someone writes to it.

in_order    several workers do the tasks. The results come in the order of the tasks, and no worker gets far
            ahead of what was taken.
made_ahead  one worker makes the next items while this process uses the present one. Columns of numbers are
            handed over in memory that both share, in slots that are used in turn.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import mmap
import os
import pickle
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from closeseq.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    Task = TypeVar("Task")
    Result = TypeVar("Result")

    One = TypeVar("One")

AT_ONCE = 1  # tasks that a worker has; with more, the last ones wait while others have nothing to do
AHEAD = 4  # tasks for each worker that may be done before the first of them is taken

_living: dict[int, Worker] = {}  # by process number

SLOTS = 3
ROOM = 16 << 20  # bytes of a slot; memory that nobody writes to costs nothing
ALIGNED = 64


def can_fork() -> bool:
    """Whether this system can fork a process safely; on macOS its libraries forbid it."""
    return hasattr(os, "fork") and sys.platform != "darwin"


def in_order(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int, *, fixed: bool = False
) -> Iterator[Result]:
    """Yield the result of each task, in their order.

    Args:
        work: does a task; it sees everything as it is now, and its changes stay in its process.
        tasks: enough of them to keep all workers busy to the end.
        workers: how many processes, besides this one, which only gathers what they send; at least 1.
        fixed: whether every `workers`-th task has the same worker, which may keep what it learned.

    Raises:
        WorkerError: a worker ended before its work was done.
        Exception: whatever `work` raised.
    """
    team = _Team(work, tasks, min(workers, len(tasks)), fixed=fixed)
    try:
        team.hire()
        for task in range(len(tasks)):
            yield team.result(task)
        team.dismiss(at_once=False)
    finally:
        team.dismiss(at_once=True)


class Worker:
    """A forked copy of this process. A `with` statement waits for its end, or ends it after an error.

    Args:
        work: what it does; it is given the connection to the process that started it.
    """

    def __init__(self, work: Callable[[Connection], None]) -> None:
        from multiprocessing.connection import Pipe

        self.connection, theirs = Pipe()
        gc.freeze()  # the copy's garbage collector would write to every object
        self.process = os.fork()
        if not self.process:
            for other in _living.values():
                other.connection.close()  # or nobody would learn that this process has ended
            self.connection.close()
            _serve(work, theirs)
        gc.unfreeze()
        theirs.close()
        _living[self.process] = self

    def send(self, data: bytes) -> None:
        """Send it these bytes, as one message.

        Raises:
            WorkerError: it has ended.
        """
        try:
            self.connection.send_bytes(data)
        except OSError:
            self._has_ended()

    def receive(self) -> bytes:
        """Return the bytes of the next message that it sends; wait for it.

        Raises:
            WorkerError: it has ended.
        """
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            self._has_ended()

    def _has_ended(self) -> NoReturn:
        _, status = os.waitpid(self.process, 0)
        del _living[self.process]
        self.connection.close()
        raise WorkerError(os.waitstatus_to_exitcode(status))

    def end(self, *, at_once: bool) -> None:
        """Wait until it has ended, as it does when the connection closes.

        Args:
            at_once: end it by SIGKILL, in the middle of its work.
        """
        if _living.pop(self.process, None) is None:
            return
        self.connection.close()
        if at_once:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self.end(at_once=error is not None)


class _Team:
    """Workers, and which tasks each has."""

    def __init__(
        self, work: Callable[[Any], Any], tasks: Sequence[Any], workers: int, *, fixed: bool
    ) -> None:
        self._work = work
        self._tasks = tasks
        self._workers = workers
        self._next = [*range(workers)] if fixed else [0]  # the next task of each worker, or of any
        self._taken = 0
        self._results: dict[int, bytes] = {}  # of tasks that are not taken yet
        self._busy: dict[Worker, list[int]] = {}  # the tasks of each, in order

    def hire(self) -> None:
        """Start the workers."""
        work, tasks = self._work, self._tasks

        def serve(orders: Connection) -> None:
            while True:
                task = int.from_bytes(orders.recv_bytes(), "little")
                orders.send_bytes(_done(work, tasks[task]))

        for _ in range(self._workers):
            worker = Worker(serve)
            self._busy[worker] = []
            self._give(worker)

    def result(self, task: int) -> Any:
        """Return the result of a task, when it is done."""
        from multiprocessing.connection import wait

        self._taken = task
        while task not in self._results:
            for other in self._busy:
                self._give(other)
            waiting = {worker.connection: worker for worker, tasks in self._busy.items() if tasks}
            for ready in wait(list(waiting)):
                worker = waiting[ready]  # type: ignore[index]
                self._results[self._busy[worker][0]] = worker.receive()
                del self._busy[worker][0]
                self._give(worker)
        good, value = pickle.loads(self._results.pop(task))  # noqa: S301 - of our own copy
        if not good:
            raise value
        return value

    def _give(self, worker: Worker) -> None:
        """Give a worker as many tasks as it may have."""
        tasks, queue = self._busy[worker], [*self._busy].index(worker) % len(self._next)
        most = self._taken + AHEAD * len(self._busy)
        while len(tasks) < AT_ONCE and self._next[queue] < min(len(self._tasks), most):
            worker.send(self._next[queue].to_bytes(8, "little"))
            tasks.append(self._next[queue])
            self._next[queue] += len(self._next)

    def dismiss(self, *, at_once: bool) -> None:
        """End all workers, in the middle of a task if `at_once`."""
        for worker in self._busy:
            worker.end(at_once=at_once)


@atexit.register
def _end_all() -> None:
    """End workers that nobody waited for, as after an interrupt."""
    for worker in list(_living.values()):
        worker.end(at_once=True)


def _serve(work: Callable[[Connection], None], orders: Connection) -> NoReturn:
    """Do the work in this copy of the process, and end it."""
    status = 1
    try:
        # Ctrl-C reaches all processes of a terminal; the first process decides what follows.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in ("SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        _living.clear()
        obey(work, orders)
        status = 0
    finally:
        os._exit(status)  # without the first process's exit handlers


def obey(work: Callable[[Connection], None], orders: Connection) -> None:
    """Do the work, until the process that started this one closes the connection or has ended.

    Args:
        work: what this process is for; that the connection is closed ends it with EOFError or OSError.
        orders: the connection to the process that started this one.
    """
    with contextlib.suppress(EOFError, OSError):
        work(orders)


def _done(work: Callable[[Any], Any], task: Any) -> bytes:
    """Return the result of a task, or its error, as bytes."""
    try:
        return pickle.dumps((True, work(task)), pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is taken
        import traceback

        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
        try:
            packed = pickle.dumps((False, error))
            pickle.loads(packed)  # noqa: S301 - whether it can be read
        except Exception:  # noqa: BLE001 - it cannot be sent as it is
            packed = pickle.dumps((False, RuntimeError("".join(traceback.format_exception(error)))))
        return packed


def made_ahead(items: Iterator[One]) -> Iterator[One]:
    """Yield the same items, made by another process. Each is good until the next one is asked for.

    Args:
        items: that can be pickled. Only the other process iterates over them.

    Raises:
        WorkerError: the other process ended before its work was done.
        Exception: whatever `items` raised.
    """
    slots = [mmap.mmap(-1, ROOM) for _ in range(SLOTS)]
    with Worker(lambda orders: _make(items, slots, orders)) as worker:
        for _ in slots:
            worker.send(b"")
        at = 0
        while True:
            sizes, packed = pickle.loads(worker.receive())  # noqa: S301 - of our own copy
            room, begin, buffers = memoryview(slots[at]), 0, []
            for size in sizes:
                buffers.append(room[begin : begin + size])
                begin += -(-size // ALIGNED) * ALIGNED
            kind, item = pickle.loads(packed, buffers=buffers)  # noqa: S301
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
            del item, buffers
            at = (at + 1) % SLOTS
            worker.send(b"")


def _make(items: Iterator[Any], slots: list[mmap.mmap], orders: Connection) -> None:
    at = 0
    while True:
        orders.recv_bytes()  # a slot is free
        try:
            made: tuple[str, Any] = "item", next(items)
        except StopIteration:
            made = "end", None
        except Exception as error:  # noqa: BLE001 - it is raised where the item would come
            made = "error", error
        orders.send_bytes(_packed(made, slots[at]))
        while made[0] != "item":
            orders.recv_bytes()  # until there is nobody who sends
        at = (at + 1) % SLOTS


def _packed(made: tuple[str, Any], slot: mmap.mmap) -> bytes:
    """Put the columns into the slot and return the rest as bytes; without room for them, all as bytes."""
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(made, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    parts = [one.raw() for one in buffers]
    sizes = [part.nbytes for part in parts]
    if sum(-(-size // ALIGNED) * ALIGNED for size in sizes) > len(slot):
        return pickle.dumps(([], pickle.dumps(made, pickle.HIGHEST_PROTOCOL)))
    begin = 0
    for part, size in zip(parts, sizes, strict=True):
        slot[begin : begin + size] = part
        begin += -(-size // ALIGNED) * ALIGNED
    return pickle.dumps((sizes, packed))
