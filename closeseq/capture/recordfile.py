"""A file of records that ends behind a whole record, whatever happens while it is written."""

from __future__ import annotations

import os
import select
import stat
from typing import BinaryIO

import numpy as np


class RecordFile:
    """Records appended to a file, handed to the system at once: whoever follows the file sees them.

    When writing fails or is interrupted, a regular file is cut behind its last whole record. Of a pipe
    nothing can be taken back.

    Args:
        file: open for writing. Nothing but this object writes to it; `close` closes it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.packets = 0  # whole in the file
        self.size = 0  # bytes of whole records
        self._file = file
        self._fd = file.fileno()
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        # standard output may have been opened for appending
        self._begin = os.lseek(self._fd, 0, os.SEEK_END) if self._regular else 0

    def append(self, data: bytes | memoryview, ends: np.ndarray | None = None) -> None:
        """Write records.

        Args:
            data: the records.
            ends: where in them each packet's record ends; None if they are one record without a packet.

        Raises:
            OSError: not everything could be written; `packets` and `size` say what was.
        """
        packets = ends is not None
        if ends is None:
            ends = np.array([memoryview(data).nbytes])
        rest, written = memoryview(data).cast("B"), 0
        try:
            while rest:
                now = self._write(rest)
                rest, written = rest[now:], written + now
        except BaseException:
            if self._regular:  # whose position knows also of a write that was interrupted on its way back
                written = os.lseek(self._fd, 0, os.SEEK_CUR) - self._begin - self.size
            self._count(written, ends, packets=packets)
            self._cut()
            raise
        self._count(written, ends, packets=packets)

    def _write(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # whoever gave us this pipe has made it so
                select.select([], [self._fd], [])

    def _count(self, written: int, ends: np.ndarray, *, packets: bool) -> None:
        whole = int(np.searchsorted(ends, written, "right"))
        self.size += int(ends[whole - 1]) if whole else 0
        self.packets += whole if packets else 0

    def _cut(self) -> None:
        if self._regular:
            os.ftruncate(self._fd, self._begin + self.size)
            os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: the system had kept something back that it cannot write now, as on network disks.
        """
        self._file.close()
