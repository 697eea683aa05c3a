"""One tracepoint followed in an instance of the kernel's tracing that is ours alone.

The instance has buffers of its own, so that nobody else's tracing is disturbed. perf_event_open(2) needs no
instance, and nothing would have to be removed afterwards. But it loses events now and then without saying so,
seen on Linux 6.18 in softirqs of an idle processor, mostly while somebody else follows the same tracepoint.

Instances of programs that were killed together with their guardians are removed by the next program.
Who uses an instance has its buffers open: then the kernel refuses to remove it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.kernel.errors import KernelError
from closeseq.kernel.guardian import Guardian, remove
from closeseq.kernel.pages import PageFormat
from closeseq.kernel.tracefs import INSTANCES, REFUSED, open_tracefs

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "closeseq."  # how the names of our instances begin; then the process and something random
STATISTICS_BYTES = 4096  # more than they have
NO_ROOM = re.compile(rb"^(?:overrun|commit overrun|dropped events): (\d+)$", re.MULTILINE)
KILOBYTE = 1024
LEAST, MOST = 256 * KILOBYTE, 2048 * KILOBYTE  # bytes for one processor; a transition takes 80


class Instance:
    """The events of one tracepoint, since they were read last, until it is closed.

    A process that is forked from this one has it open too, and either may read it. What removes it ends
    with the process namespace that this process is in; see `Guardian`.

    Args:
        event: "group/name".
        condition: the kernel's filter, as in the `filter` files of tracefs.
        room: bytes for what is not read yet, shared by the processors; each has its least, and at most MOST.

    Raises:
        KernelError: not permitted, or not possible here; says what is missing.
    """

    def __init__(self, event: str, condition: str, room: int) -> None:
        self._buffers: list[int] = []  # descriptors of trace_pipe_raw, one for each processor
        self._statistics: list[int] = []  # likewise
        self._open = ExitStack()
        try:
            self._tracefs = open_tracefs()
            self._open.callback(os.close, self._tracefs)
            self.format = self._describe(event)
            self._make(f"{NAME}{os.getpid()}.{os.urandom(4).hex()}")
            self._set("trace_clock", "mono")
            # What finds no room is lost, not what is there already: sequences keep their beginnings.
            self._set("trace_options", "nooverwrite")
            self._set("buffer_size_kb", str(max(LEAST, min(MOST, room // len(self._buffers))) // KILOBYTE))
            self._set(f"events/{event}/filter", condition)
            self._set(f"events/{event}/enable", "1")
        except OSError as error:
            self.close()
            raise _refusal(error) from None
        except BaseException:
            self.close()
            raise

    def _describe(self, event: str) -> str:
        """Return how the event is laid out."""
        try:
            return self._read(f"events/{event}/format")
        except FileNotFoundError:
            raise KernelError(f"this kernel has no tracepoint {event.replace('/', ':')}") from None

    def _make(self, name: str) -> None:
        """Make the instance and open its buffers; what removes it is there before."""
        self._folder = f"{INSTANCES}/{name}"
        with ExitStack() as alone:
            # Nobody removes our instance while it is not open yet, nor do we that of others.
            every = os.open(INSTANCES, os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._tracefs)
            alone.callback(os.close, every)
            fcntl.flock(every, fcntl.LOCK_EX)
            alone.callback(fcntl.flock, every, fcntl.LOCK_UN)
            self._sweep(os.listdir(every))  # noqa: PTH208 - an open folder, which need not have a path
            self._open.callback(self._remove, Guardian(self._tracefs, name), name)
            os.mkdir(self._folder, dir_fd=self._tracefs)
            self._page = PageFormat.read(self._read(f"{self._folder}/events/header_page"))
            for cpu in _processors():
                folder = f"{self._folder}/per_cpu/cpu{cpu}"
                self._buffers.append(self._opened(f"{folder}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK))
                self._statistics.append(self._opened(f"{folder}/stats", os.O_RDONLY))

    def _sweep(self, names: list[str]) -> None:
        """Remove what was left behind by programs that were killed together with their guardians."""
        for name in names:
            if name.startswith(NAME):
                with suppress(OSError):  # in use
                    remove(self._tracefs, name)

    def _opened(self, name: str, how: int) -> int:
        descriptor = os.open(name, how, dir_fd=self._tracefs)
        self._open.callback(os.close, descriptor)
        return descriptor

    def _read(self, name: str) -> str:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=self._tracefs)
        with os.fdopen(descriptor) as file:
            return file.read()

    def _set(self, name: str, value: str) -> None:
        descriptor = os.open(f"{self._folder}/{name}", os.O_WRONLY, dir_fd=self._tracefs)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def _remove(self, guardian: Guardian, name: str) -> None:
        guardian.close()
        with suppress(OSError):  # it is gone, unless the guardian was killed
            remove(self._tracefs, name)

    def close(self) -> None:
        """End the tracing; nothing stays behind. Again does no harm.

        If a forked process has it open, it ends when that ends, or closes it too.
        """
        self._buffers.clear()
        self._statistics.clear()
        self._open.close()

    def events(self) -> Iterator[tuple[int, bytes]]:
        """Give the CLOCK_MONOTONIC time in nanoseconds and the data of each event, processor by processor."""
        for buffer in self._buffers:
            # The kernel never gives an event twice: it hands a full page over, and copies of one in use.
            with suppress(BlockingIOError):
                while page := os.read(buffer, self._page.size):
                    yield from self._page.events(page)

    @property
    def lost(self) -> int:
        """Events for which there was no room, since the start."""
        return sum(
            int(count)
            for one in self._statistics
            for count in NO_ROOM.findall(os.pread(one, STATISTICS_BYTES, 0))
        )


def _processors() -> list[int]:
    """Return the numbers of the processors that are there; they need not be in use."""
    text = Path("/sys/devices/system/cpu/present").read_text().strip()
    parts = [part.split("-") for part in text.split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def _refusal(error: OSError) -> KernelError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return KernelError(REFUSED)
    return KernelError(f"the transitions of sockets cannot be traced: {error.strerror or error}")
