"""The events of one tracepoint, read from an instance of the kernel's tracing (tracefs) of our own.

The instance has its own buffers, so that no other tracing is disturbed. perf_event_open(2) would need no
instance, and no removal afterwards. But it sometimes loses events without reporting it, seen on Linux 6.18 in
softirqs of an idle processor, mostly while another program traces the same tracepoint.

From top to bottom:

- the folder of tracefs, where it is mounted and where it is not;
- the guardian, a process that removes the instance when this process has ended, however it ended;
- the pages of the trace buffers, as the files trace_pipe_raw give them. events/header_page and
  events/header_event of tracefs describe them: a page begins with the time of its first event and the length
  in use; an event is a word, of which five bits are its type and the others the nanoseconds since the event
  before, followed by its data;
- the instance. Instances of programs that were killed together with their guardians are removed by the next
  program. The kernel refuses to remove one that is in use: its buffers are open.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Never

from closeseq.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
INSTANCES = "instances"  # where a folder that is made is a tracing of its own

# The same on all processors; the C library has no names for them before glibc 2.36.
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
CREATE = 6  # FSCONFIG_CMD_CREATE
CLOEXEC = 1

REFUSED = "only root may use the kernel's tracing (tracefs)"


def open_tracefs() -> int:
    """Return a descriptor of the folder of tracefs. Close it.

    Raises:
        KernelError: the kernel has none, or does not let us see it.
    """
    for place in PLACES:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            except PermissionError:
                raise KernelError(REFUSED) from None
            if _is_of_use(folder):
                return folder
            os.close(folder)
    return _mount()


def _is_of_use(folder: int) -> bool:
    """Whether it is tracefs and not the empty folder for it, and not mounted read-only as in containers."""
    read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
    return not read_only and os.access(INSTANCES, os.F_OK, dir_fd=folder)


def _mount() -> int:
    """Mount tracefs without a path, so that nothing is left and no other process sees it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        result: int = libc.syscall(ctypes.c_long(number), *arguments)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.EACCES):
            raise KernelError(REFUSED)
        raise KernelError(
            f"tracefs is not mounted, and cannot be: {os.strerror(code)}; as root: "
            "mount -t tracefs nodev /sys/kernel/tracing"
        )

    context = call(FSOPEN, b"tracefs", CLOEXEC)
    try:
        call(FSCONFIG, context, CREATE, None, None, 0)
        return call(FSMOUNT, context, CLOEXEC, 0)
    finally:
        os.close(context)


GUARD_NAME = "closeseq-guard"  # the kernel keeps 15 characters
AT_ONCE, AT_MOST = 0.001, 0.2  # seconds between two tries to remove it
ENDS_WITHIN = 5.0  # seconds that we wait for it; it takes some hundredths


class Guardian:
    """A process that removes an instance when asked to, or when no process is left that could ask.

    It is forked from this process, keeps none of its descriptors, is in a session of its own and is not
    ended by signals that can be blocked. It ends with the process namespace that it is made in: make it
    before the work that it cleans up after moves to a namespace of its own.

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

    Args:
        tracefs: a descriptor of the folder of tracefs.
        name: of the instance's folder in `instances`.

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
            _call_myself(GUARD_NAME)
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


FIELD = re.compile(r"(\w+)(?:\[\d+\])?;\s*offset:(\d+);\s*size:(\d+);")

USED = (1 << 20) - 1  # of the page's length; above are flags
WORD = 4  # bytes
LENGTH_FOLLOWS, PADDING, TIME_EXTEND, TIME_STAMP = 0, 29, 30, 31  # RINGBUF_TYPE_; others are words of data
DELTA_BITS = 27
STAMP_BITS = 59  # of a TIME_STAMP; the uppermost ones are those of the time before


def fields(description: str) -> dict[str, slice]:
    """Return where each field is, by a `format` file of tracefs.

    Args:
        description: the file's text.

    Returns:
        the bytes of each field in an event's data, by its name.
    """
    return {
        name: slice(int(offset), int(offset) + int(size)) for name, offset, size in FIELD.findall(description)
    }


@dataclass(frozen=True, slots=True)
class PageFormat:
    """How this kernel lays out its pages."""

    time: slice  # the bytes that hold the time of its first event, of the buffer's clock in nanoseconds
    used: slice  # those that hold the length in use
    data: slice  # those in which the events lie

    @classmethod
    def read(cls, description: str) -> PageFormat:
        """Make it from the file events/header_page."""
        found = fields(description)
        return cls(found["timestamp"], found["commit"], found["data"])

    @property
    def size(self) -> int:
        """Bytes of a page."""
        return int(self.data.stop)

    def events(self, page: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the time of each event, in nanoseconds of the buffer's clock, and its data.

        The data may be followed by up to three bytes of nothing.

        Args:
            page: of a trace buffer, whole or cut behind the length in use.
        """
        moment = _number(page[self.time])
        at = self.data.start
        end = min(at + (_number(page[self.used]) & USED), len(page))
        while at + WORD <= end:
            kind, delta = _split(_number(page[at : at + WORD]))
            at += WORD
            first = _number(page[at : at + WORD])
            if kind == TIME_STAMP:
                moment = moment >> STAMP_BITS << STAMP_BITS | first << DELTA_BITS | delta
                at += WORD
            elif kind == TIME_EXTEND:
                moment += first << DELTA_BITS | delta
                at += WORD
            elif kind == PADDING:
                if not delta:
                    return  # the rest of the page
                moment += delta
                at += first  # an event that was taken back
            elif kind == LENGTH_FOLLOWS:
                moment += delta
                yield moment, page[at + WORD : at + first]
                at += first
            else:
                moment += delta
                yield moment, page[at : at + kind * WORD]
                at += kind * WORD


def _split(word: int) -> tuple[int, int]:
    """Return an event's kind and its time after the one before: bit fields, laid out as by C."""
    if sys.byteorder == "little":
        return word & 31, word >> 5
    return word >> DELTA_BITS, word & (1 << DELTA_BITS) - 1


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)


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
        condition: the kernel's filter, as in the `filter` files of tracefs; empty: every event.
        room: bytes for what is not read yet, shared by the processors; each has its least, and at most MOST.

    Raises:
        KernelError: not permitted, or not possible here; says what is missing.
    """

    def __init__(self, event: str, condition: str, room: int) -> None:
        self._buffers: deque[int] = deque()  # descriptors of trace_pipe_raw, one for each processor
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
            if condition:
                self._set(f"events/{event}/filter", condition)
            self._set(f"events/{event}/enable", "1")
        except OSError as error:
            self.close()
            raise _refusal(event, error) from None
        except BaseException:
            self.close()
            raise

    def _describe(self, event: str) -> str:
        """Return how the event is laid out."""
        try:
            return self._read(f"events/{event}/format")
        except FileNotFoundError:
            raise KernelError(f"this kernel has no tracepoint {_colons(event)}") from None

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
        """Give the CLOCK_MONOTONIC time in nanoseconds and the data of each event; not in order of time."""
        return chain.from_iterable(self.portions())

    def portions(self) -> Iterator[list[tuple[int, bytes]]]:
        """Give the same in portions, of the processors in turn: who stops between two leaves the rest there.

        The events of one processor come in order of time. A portion may be empty.
        """
        self._buffers.rotate()  # who always stops early begins with another one each time
        waiting = self._buffers.copy()
        while waiting:
            buffer = waiting.popleft()
            # The kernel never gives an event twice: it hands a full page over, and copies of one in use.
            with suppress(BlockingIOError):
                if page := os.read(buffer, self._page.size):
                    waiting.append(buffer)
                    yield list(self._page.events(page))

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


def _refusal(event: str, error: OSError) -> KernelError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return KernelError(REFUSED)
    return KernelError(f"{_colons(event)} cannot be traced: {error.strerror or error}")


def _colons(event: str) -> str:
    """Return an event as perf and trace-cmd write it."""
    return event.replace("/", ":")
