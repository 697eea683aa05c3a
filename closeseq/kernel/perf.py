"""Records of a kernel's tracepoint, by perf_event_open(2): a ring of memory for each processor.

A trace instance of tracefs would give the same, but somebody must remove it, also if we are killed. A perf
event ends with the last descriptor of it, so however we end, nothing is left behind.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The number of the system call, for processors whose ioctl numbers are the usual ones.
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "s390x": 331}
SET_FILTER, ENABLE = 0x40082406, 0x2400  # PERF_EVENT_IOC_

# perf_event_attr as of PERF_ATTR_SIZE_VER5: type, size, config, period, sample type, read format, flags,
# wakeup, breakpoint type, 2 x config, branches, registers, stack, clock, registers, aux, stack, reserved.
ATTRIBUTES = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
TRACEPOINT = 2  # PERF_TYPE_
TIME_AND_RAW = 1 << 2 | 1 << 10  # PERF_SAMPLE_TIME, PERF_SAMPLE_RAW
DISABLED_WITH_CLOCK = 1 << 0 | 1 << 25  # disabled, use_clockid
CLOEXEC = 1 << 3  # PERF_FLAG_FD_CLOEXEC

HEAD, TAIL = 1024, 1032  # of the ring, in the page before it (perf_event_mmap_page)
POSITION = struct.Struct("=Q")
RECORD = struct.Struct("=IHH")  # perf_event_header: type, misc, size
SAMPLE = struct.Struct("=QI")  # time, length of the raw data
SAMPLED = 9  # PERF_RECORD_
COUNT = struct.Struct("=Q")  # what reading the descriptor gives: how often it happened

ALL_RINGS = 64 << 20  # bytes, shared by the processors
LEAST, MOST = 1 << 18, 1 << 23  # bytes, of one

REFUSED = (
    "the kernel lets only root (CAP_PERFMON) trace the transitions of sockets; in a container, start it with "
    "--privileged"
)


class Ring:
    """The records of one tracepoint on one processor, since they were read last.

    Args:
        event: the tracepoint's number.
        cpu: the processor's.
        size: bytes; a power of two.
        condition: the kernel's filter, as in the `filter` files of tracefs.

    Raises:
        KernelError: not permitted, or not possible here.
    """

    def __init__(self, event: int, cpu: int, size: int, condition: str) -> None:
        self._descriptor = _open(event, cpu)
        try:
            self._map = mmap.mmap(self._descriptor, mmap.PAGESIZE + size)
            text = ctypes.create_string_buffer(condition.encode())
            _check(_libc().ioctl(self._descriptor, ctypes.c_ulong(SET_FILTER), text))
            _check(_libc().ioctl(self._descriptor, ctypes.c_ulong(ENABLE), 0))
        except OSError as error:
            os.close(self._descriptor)
            raise _refusal(error) from None
        self._size = size
        self._given = 0  # records, since the start
        self.lost = 0  # records for which there was no room, since the start

    def close(self) -> None:
        """End the tracing on this processor."""
        self._map.close()
        os.close(self._descriptor)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Give the CLOCK_MONOTONIC time in nanoseconds and the raw data of each record."""
        (happened,) = COUNT.unpack(os.read(self._descriptor, COUNT.size))
        (head,) = POSITION.unpack_from(self._map, HEAD)
        (tail,) = POSITION.unpack_from(self._map, TAIL)
        data = self._between(tail, head)
        POSITION.pack_into(self._map, TAIL, head)  # the kernel may use this room again
        at = 0
        while at + RECORD.size <= len(data):
            kind, _, size = RECORD.unpack_from(data, at)
            body = at + RECORD.size
            if kind == SAMPLED:
                moment, length = SAMPLE.unpack_from(data, body)
                begin = body + SAMPLE.size
                self._given += 1
                yield moment, data[begin : begin + length]
            at += max(size, RECORD.size)
        # The kernel puts its own note of a loss before the next record, which may never come.
        self.lost = max(0, happened - self._given)

    def _between(self, tail: int, head: int) -> bytes:
        first, last = mmap.PAGESIZE + tail % self._size, mmap.PAGESIZE + head % self._size
        if tail == head:
            return b""
        if first < last:
            return self._map[first:last]
        return self._map[first:] + self._map[mmap.PAGESIZE : last]


def processors() -> list[int]:
    """Return the numbers of the processors that are online."""
    text = Path("/sys/devices/system/cpu/online").read_text().strip()
    parts = [part.split("-") for part in text.split(",")]
    return [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]


def ring_size(count: int) -> int:
    """Return the size of each of so many rings, in bytes."""
    share = max(LEAST, min(MOST, ALL_RINGS // count))
    return 1 << (share.bit_length() - 1)


def epoch_offset_ns() -> int:
    """Return Unix time less CLOCK_MONOTONIC in nanoseconds, to about a microsecond.

    Both clocks are slewed alike, so it holds until someone sets the time.
    """
    best_width, best_offset = 1 << 62, 0
    for _ in range(100):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        width = time.monotonic_ns() - before
        if width < best_width:
            best_width, best_offset = width, realtime - before - width // 2
    return best_offset


def _open(event: int, cpu: int) -> int:
    number = PERF_EVENT_OPEN.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if number is None:
        raise KernelError(f"tracing the transitions of sockets is not known here on {platform.machine()}")
    attributes = ATTRIBUTES.pack(
        *(TRACEPOINT, ATTRIBUTES.size, event, 1, TIME_AND_RAW, 0, DISABLED_WITH_CLOCK),
        *(0, 0, 0, 0, 0, 0, 0, time.CLOCK_MONOTONIC, 0, 0, 0, 0),
    )
    descriptor: int = _libc().syscall(ctypes.c_long(number), attributes, -1, cpu, -1, ctypes.c_ulong(CLOEXEC))
    try:
        _check(descriptor)
    except OSError as error:
        raise _refusal(error) from None
    return descriptor


def _refusal(error: OSError) -> KernelError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return KernelError(REFUSED)
    return KernelError(f"the transitions of sockets cannot be traced: {error.strerror or error}")


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
