"""Long columns on disk instead of in memory: what went by long ago is written out, and read again when asked.

A capture's tables grow with all that went by, while what is at work at any time is the part about the
connections that are open. So a long column is a file without a name, mapped into memory. The system keeps
the pages that are in use, writes the others out when it needs the room, and removes the file when the process
ends, however it ends. Where no file can be made, or the disk is full, the column lies in memory.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LARGE_BYTES = 2 << 20  # of a column, from which on it lies in a file
FOLDER = "/var/tmp"  # noqa: S108 - for large files, where /tmp may be memory; TMPDIR comes before it


class Scratch:
    """Makes columns, long ones in files of their own, and lets go of their pages."""

    def __init__(self) -> None:
        self._maps: list[weakref.ref[mmap.mmap]] = []
        self._possible = hasattr(os, "posix_fallocate") and hasattr(mmap, "MADV_DONTNEED")

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """Return a column of zeros, as `numpy.zeros` does."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._possible and size >= LARGE_BYTES:
            try:
                return np.ndarray(shape, dtype, self._map(size))
            except OSError:
                self._possible = False  # no folder, no room, or too many files: the next ones neither
        return np.zeros(shape, dtype)

    def release(self, column: np.ndarray | None = None) -> None:
        """Give the pages of a column, or of all, back to the system; it writes them out or has them yet."""
        if column is not None:
            base: Any = column.base
            if isinstance(base, mmap.mmap):
                base.madvise(mmap.MADV_DONTNEED)
            return
        self._maps = [one for one in self._maps if one() is not None]
        for one in self._maps:
            if (mapped := one()) is not None:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, size: int) -> Any:
        folder = os.environ.get("TMPDIR") or (FOLDER if Path(FOLDER).is_dir() else None)
        with tempfile.TemporaryFile(dir=folder) as file:
            # All of it at once: to find the disk full while a page is written would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.append(weakref.ref(mapped))
        return mapped
