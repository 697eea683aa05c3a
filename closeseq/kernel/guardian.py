"""A process that removes our instance of the kernel's tracing when we are no more, however we ended."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from typing import Never

from closeseq.kernel.tracefs import INSTANCES

NAME = "closeseq-guard"  # the kernel keeps 15 characters
AT_ONCE, AT_MOST = 0.001, 0.2  # seconds between two tries to remove it
ENDS_WITHIN = 5.0  # seconds that we wait for it; it takes some hundredths


class Guardian:
    """Removes an instance when it is told to, or when nobody is left that could tell it.

    It is forked from this process, keeps none of its descriptors, is in a session of its own and is not
    ended by signals that can be blocked. It ends with the process namespace that it is made in: there, make
    it before the work that has to be cleaned up after moves to a namespace of its own.

    Args:
        tracefs: a descriptor of the folder of tracefs.
        name: of the instance, which need not be there yet.
    """

    def __init__(self, tracefs: int, name: str) -> None:
        self._maker = os.getpid()
        waits, self._alive = os.pipe()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._process = os.fork()
            if not self._process:
                _guard(waits, tracefs, name)
        except BaseException:
            os.close(self._alive)
            raise
        finally:
            os.close(waits)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def close(self) -> None:
        """Have it remove the instance, and wait until it has; a process forked meanwhile only lets go."""
        if os.getpid() != self._maker:
            os.close(self._alive)
            return
        with suppress(BrokenPipeError):  # somebody killed it
            os.write(self._alive, b".")  # a process forked meanwhile may keep the pipe open
        os.close(self._alive)
        deadline = time.monotonic() + ENDS_WITHIN
        with suppress(ChildProcessError):  # somebody waited for all children
            while not os.waitpid(self._process, os.WNOHANG)[0] and time.monotonic() < deadline:
                time.sleep(AT_ONCE)


def remove(tracefs: int, name: str) -> None:
    """Remove an instance, and with it what is enabled there.

    Raises:
        FileNotFoundError: there is none.
        OSError: EBUSY: a process has a file of it open.
    """
    os.rmdir(f"{INSTANCES}/{name}", dir_fd=tracefs)


def _guard(waits: int, tracefs: int, name: str) -> Never:
    """Be the guardian. Other threads may have been running: import nothing, and take no lock."""
    try:
        os.setsid()
        first, second = sorted((waits, tracefs))
        os.closerange(0, first)
        os.closerange(first + 1, second)
        os.closerange(second + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        with suppress(OSError):
            _call_myself(NAME)
        os.read(waits, 1)
        pause = AT_ONCE
        while _is_in_use(tracefs, name):
            time.sleep(pause)
            pause = min(AT_MOST, 2 * pause)
    finally:
        os._exit(0)


def _is_in_use(tracefs: int, name: str) -> bool:
    """Try to remove an instance; return whether somebody has its files open still, so that it stays."""
    try:
        remove(tracefs, name)
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _call_myself(name: str) -> None:
    comm = os.open("/proc/self/comm", os.O_WRONLY)
    os.write(comm, name.encode())
    os.close(comm)
