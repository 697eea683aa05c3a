"""The command in a process of its own, without the half second that importing everything takes.

Processes are forked from one that has imported closeseq and nothing else: the tests' own has grown by then,
with libraries and thousands of tests, and each fork of it takes long. All else is as if the command had been
started: arguments, environment, folder, standard streams with descriptors, signals, exit status.

A test of what happens before the command runs, or of what it imports, starts it as a user does.

Run as a program with the descriptor of a socket: forks a process for each message that comes.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 120.0  # seconds
URGENT = -10  # as a nice value
NUMBER = struct.Struct("i")
MOST = 1 << 17  # bytes of a message
NEW_NETWORK = 0x40000000  # CLONE_NEWNET, linux/sched.h
PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL


# ----------------------------------------------------------------------------------- in the tests' process


class Forked:
    """A process that runs the command; it is used as a `subprocess.Popen` is.

    Args:
        arguments: of the command.
        env: all of its environment; None for that of the tests.
        stdin: where its standard input comes from: PIPE, DEVNULL, a file, a descriptor, None for the tests'.
        stdout: where its standard output goes.
        stderr: where its errors go.
        cwd: its folder; None for that of the tests.
        text: whether pipes are of text.
        network: a process in whose network namespace it begins.
        alone: whether it begins a session of its own.
        first: Python that it runs before the command, to change what this is to find.
        modules: what takes long to import, and has been imported by the process that it is forked from.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        stdin: IO[Any] | int | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        cwd: Path | None = None,
        text: bool = False,
        network: int | None = None,
        alone: bool = False,
        first: str = "",
        modules: Sequence[str] = (),
    ) -> None:
        self.args = ["closeseq", *map(str, arguments)]
        self.returncode: int | None = None
        request = {
            "argv": self.args,
            "environment": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "network": network,
            "alone": alone,
            "first": first,
        }
        server = _server(*modules)  # before there are pipes, which it must not have
        pipes: list[IO[Any] | None] = []
        with contextlib.ExitStack() as given:
            descriptors = []
            for number, stream in enumerate((stdin, stdout, stderr)):
                ours, theirs = _ends(number, stream)
                if stream in {PIPE, DEVNULL}:
                    given.callback(os.close, theirs)
                mode = "r" if number else "w"
                pipes.append(
                    None
                    if ours is None
                    else os.fdopen(ours, mode if text else f"{mode}b", encoding="utf-8" if text else None)
                )
                descriptors.append(theirs)
            self._answer, theirs = socket.socketpair()
            given.callback(theirs.close)
            socket.send_fds(server, [json.dumps(request).encode()], [*descriptors, theirs.fileno()])
        self.stdin, self.stdout, self.stderr = pipes
        self.pid = self._told()

    def _told(self) -> int:
        data = self._answer.recv(NUMBER.size, socket.MSG_WAITALL)
        assert data, "the process that forks is no more"
        return int(NUMBER.unpack(data)[0])

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end and return its exit status.

        Raises:
            TimeoutExpired: it took too long.
        """
        if self.returncode is None:
            self._answer.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(self._told())
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._answer.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, sent: Any = None, timeout: float = PATIENCE) -> tuple[Any, Any]:
        """Write to its pipe, read all that it writes to its others, and wait for its end.

        Raises:
            TimeoutExpired: it took too long.
        """
        until, found, readers = time.monotonic() + timeout, {}, []
        for stream in filter(None, (self.stdout, self.stderr)):

            def read(stream: IO[Any] = stream) -> None:
                with stream:
                    found[stream] = stream.read()

            readers.append(threading.Thread(target=read, daemon=True))
            readers[-1].start()
        if self.stdin and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                if sent is not None:
                    self.stdin.write(sent)
        for one in readers:
            one.join(max(0, until - time.monotonic()))
            if one.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(0.01, until - time.monotonic()))
        return tuple(stream and found[stream] for stream in (self.stdout, self.stderr))

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in filter(None, (self.stdin, self.stdout, self.stderr)):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self.wait()


def _ends(number: int, stream: IO[Any] | int | None) -> tuple[int | None, int]:
    """Return the descriptors of our end, if it is a pipe's, and of theirs, for a standard stream."""
    if stream is None:
        return None, number
    if stream == PIPE:
        reading, writing = os.pipe()
        return (reading, writing) if number else (writing, reading)
    if stream == DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    return None, stream if isinstance(stream, int) else stream.fileno()


def run_forked(
    arguments: Sequence[object], *, sent: bytes | str | None = None, text: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run the command, and return all that it wrote, and its exit status.

    Args:
        arguments: of the command.
        sent: what stands in the file that is its standard input.
        text: whether it is text, as is what it wrote.
        options: of `Forked`.
    """
    with contextlib.ExitStack() as stack:
        mode, encoding = ("w+", "utf-8") if text else ("w+b", None)
        files = [stack.enter_context(tempfile.TemporaryFile(mode, encoding=encoding)) for _ in range(3)]
        if sent is not None:
            files[0].write(sent)
            files[0].seek(0)
        streams = dict(zip(("stdin", "stdout", "stderr"), files, strict=True))
        process = Forked(arguments, **streams, **options)
        stack.callback(process.kill)  # if it took too long
        status = process.wait()
        for file in files:
            file.seek(0)
        return subprocess.CompletedProcess(["closeseq", *arguments], status, files[1].read(), files[2].read())


def run_code(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run Python instead of the command; what it imports of closeseq and its dependencies is there already.

    Args:
        code: the program.
        arguments: its own.
        options: of `run_forked`.
    """
    return run_forked(arguments, first=f"{code}\nraise SystemExit", **options)


@functools.cache
def _server(*modules: str) -> socket.socket:
    """Start the process that forks; it ends when this one does, and so closes its end of the socket.

    Args:
        modules: what it imports beside what all commands import.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        if _small:
            if not os.fork():
                ours.close()
                try:
                    serve(number)
                finally:
                    os._exit(0)
            return ours
        command = [sys.executable, __file__, str(number), *modules]
        _servers.append(
            subprocess.Popen(command, pass_fds=[number], env=os.environ | {"PYTHONPATH": str(ROOT)})
        )
    return ours


_servers: list[subprocess.Popen[bytes]] = []  # kept, since nobody waits for its end
_small: list[bool] = []  # whether the server is a copy of this process


@contextlib.contextmanager
def urgent() -> Iterator[None]:
    """Let what is started and forked meanwhile go before other processes, if that is permitted.

    It is to see its packets in time though other tests keep the processors busy.
    """
    processes = [os.getpid(), *(one.pid for one in _servers)]
    before = [os.getpriority(os.PRIO_PROCESS, one) for one in processes]
    with contextlib.suppress(PermissionError):
        for one in processes:
            os.setpriority(os.PRIO_PROCESS, one, URGENT)
    try:
        yield
    finally:
        for one, usual in zip(processes, before, strict=True):
            os.setpriority(os.PRIO_PROCESS, one, usual)


def fork_from_here() -> None:
    """Let processes be forked from a copy of this one as it is now, which has imported all by itself."""
    _small.append(True)
    _server()


# ------------------------------------------------------------------------------ in the process that forks


def serve(number: int, modules: Sequence[str] = ()) -> None:
    """Fork a process for each message, and tell its number and how it ended, until there is no more."""
    import_all(*modules)
    requests = socket.socket(fileno=number)
    ended, wake = socket.socketpair()
    for one in (ended, wake):
        one.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tests' matter
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    answers: dict[int, int] = {}  # where to tell, by process
    while True:
        ready, _, _ = select.select([requests, ended], [], [])
        if ended in ready:
            ended.recv(4096)
            tell_ended(answers)
        if requests in ready:
            data, descriptors, _, _ = socket.recv_fds(requests, MOST, 4)
            if not data:
                return
            pid = os.fork()
            if not pid:
                for one in (requests.fileno(), ended.fileno(), wake.fileno(), *answers.values()):
                    os.close(one)
                os.close(descriptors.pop())
                become(descriptors, json.loads(data))
            answers[pid] = descriptors.pop()
            for one in descriptors:
                os.close(one)
            os.write(answers[pid], NUMBER.pack(pid))


@functools.cache
def import_all(*modules: str) -> None:
    """Import what commands import, and these modules."""
    from closeseq.cli.live_setup import load_everything
    from closeseq.lab.child import load
    from closeseq.lab.experiments import experiments

    load_everything()
    load()
    experiments()
    for module in ("closeseq.__main__", "closeseq.lab.run", "multiprocessing.connection", *modules):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def tell_ended(answers: dict[int, int]) -> None:
    """Tell of the processes that have ended how they did."""
    while answers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(answers[pid], NUMBER.pack(status))
        os.close(answers.pop(pid))


def become(streams: Sequence[int], request: Mapping[str, Any]) -> NoReturn:
    """Be the command, in this forked process."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        environment = request["environment"]
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                open(number, "wb", 0 if unbuffered else -1, closefd=False),  # noqa: SIM115
                encoding="utf-8",
                errors=errors,
                line_buffering=number == 2 or os.isatty(number),
                write_through=unbuffered,
            )
            for number, errors in ((1, "strict"), (2, "backslashreplace"))
        )
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        os.environ.clear()
        os.environ.update(environment)
        time.tzset()
        os.chdir(request["cwd"])
        if request["alone"]:
            os.setsid()
        if request["network"] is not None:
            with Path(f"/proc/{request['network']}/ns/net").open() as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), NEW_NETWORK) == 0
        sys.argv = request["argv"]
        exec(request["first"], {"__name__": "__main__"})
        from closeseq.__main__ import main

        main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on with its parent's work
        traceback.print_exc()
    finally:
        threading._shutdown()  # waits for others
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])
