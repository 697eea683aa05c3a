"""Where a capture's bytes come from: a memory map, or a stream that is read piece by piece.

Both show a window on the bytes and a place in it; what lies before the place is done with.
"""

from __future__ import annotations

import mmap
import os
import sys
import zlib
from typing import BinaryIO, Protocol

from closeseq.capture.compressed import MAGIC, Gunzip
from closeseq.capture.records import CUT_REMEDY, Trouble

CHUNK = 8 * 1024 * 1024  # bytes of a stream in one window: tens of thousands of packets
PIECE = 1024 * 1024  # bytes read at a time

TRY_AGAIN = "read it again when nothing writes to it"


class Source(Protocol):
    """A window on the bytes of a capture."""

    window: memoryview  # of unsigned bytes
    at: int  # the place in the window: the first byte that is not done with
    base: int  # the offset in the (uncompressed) file of the window's first byte
    size: int | None  # bytes on disk, if they are known
    trouble: Trouble | None  # why no more bytes can be had, if it is not simply the end

    @property
    def position(self) -> int:
        """Bytes on disk that were used so far."""

    def more(self, wanted: int) -> bool:
        """Move the window on, until it has `wanted` bytes from its place if the file has them.

        Returns whether there is anything new in it. The window's place may change, what is there not.
        """

    def intact(self) -> bool:
        """Return whether the window's bytes are still there; if not, `trouble` says why."""

    def close(self) -> None:
        """Let go of the file. Windows that were handed out stay good."""


class Mapped:
    """A regular file in memory: the window is the file, as long as it was when it was opened.

    A mapped file that another program cuts short ends this process with SIGBUS when a byte that is
    gone is touched, and no exception handler helps. `intact` looks at the size before every walk, so
    what remains is the short time within one batch. Bytes appended after the opening are not seen.

    Args:
        file: the open file; it may be closed afterwards.

    Raises:
        OSError: it cannot be mapped.
        ValueError: it is empty.
    """

    base = 0

    def __init__(self, file: BinaryIO) -> None:
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._map.madvise(mmap.MADV_SEQUENTIAL)
        self._released = 0
        self.window = memoryview(self._map)
        self.at = 0
        self.size: int | None = len(self.window)
        self.trouble: Trouble | None = None

    @property
    def position(self) -> int:
        """Bytes that were used so far."""
        return self.at

    def more(self, wanted: int) -> bool:  # noqa: ARG002  # the window is all there is
        """Return False: the window is the whole file."""
        return False

    def intact(self) -> bool:
        """Return whether the file is as long as it was; and hand pages that are done with back."""
        if self._map.size() < len(self.window):
            self.trouble = Trouble("the file was made shorter while it was read", self.at, TRY_AGAIN)
            return False
        # Pages of a map count as ours until the system needs them. Without this, reading forty gigabytes
        # looks like using forty. Whoever still holds a batch just gets its pages from the file again.
        done = self.at // mmap.PAGESIZE * mmap.PAGESIZE
        if done - self._released >= CHUNK:
            self._map.madvise(mmap.MADV_DONTNEED, self._released, done - self._released)
            self._released = done
        return True

    def close(self) -> None:
        """Forget the map. It is unmapped when the last batch that looks into it is gone."""
        self.window = memoryview(b"")
        del self._map


class Stream:
    """Anything that can only be read from begin to end: a pipe, a device, a gzip file.

    Every window is new memory, so batches stay good when the stream moves on.

    Args:
        file: an open, unbuffered file; `close` closes it unless it is standard input.
        chunk: bytes to have in a window.
    """

    def __init__(self, file: BinaryIO, chunk: int = CHUNK) -> None:
        self._file = file
        self._chunk = chunk
        self.position = 0
        self.size = _size(file)
        self.window = memoryview(b"")
        self.at = 0
        self.base = 0
        self.trouble: Trouble | None = None
        self._read = self._read_file
        self.more(len(MAGIC))
        if self.window[: len(MAGIC)] == MAGIC:
            self._read = Gunzip(self._read_file, bytes(self.window)).read
            self.window = memoryview(b"")

    def more(self, wanted: int) -> bool:
        """Read on; see `Source`."""
        if self.trouble is not None:
            return False
        pieces = [bytes(self.window[self.at :])]
        rest = have = len(pieces[0])
        while have < max(wanted, self._chunk) and self.trouble is None:
            piece = self._piece(have)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self.base += self.at
        self.window, self.at = memoryview(b"".join(pieces)), 0
        return have > rest

    def _piece(self, have: int) -> bytes:
        """Read on behind the `have` bytes of the coming window; at the end and after a fault nothing."""
        try:
            return self._read(min(self._chunk, PIECE))
        except EOFError:
            self.trouble = Trouble("the gzip data are cut short", have, CUT_REMEDY)
        except zlib.error as error:
            self.trouble = Trouble(f"the gzip data are damaged ({_reason(error)})", have)
        except OSError as error:
            self.trouble = Trouble(
                f"reading failed: {error.strerror}", have, "what was read before it is good"
            )
        return b""

    def _read_file(self, most: int) -> bytes:
        data = self._file.read(most) or b""
        self.position += len(data)
        return data

    def intact(self) -> bool:
        """Return True: what was read is in our own memory."""
        return True

    def close(self) -> None:
        """Close the file."""
        self.window = memoryview(b"")
        if self._file is not standard_input():
            self._file.close()


def standard_input() -> BinaryIO | None:
    """Return standard input as it is now: None if it was closed, or put elsewhere as text only."""
    return getattr(sys.stdin, "buffer", None)


def _size(file: BinaryIO) -> int | None:
    """Return the bytes on disk of a regular file that has any."""
    try:
        size = os.fstat(file.fileno()).st_size
    except OSError:  # not backed by a file descriptor
        return None
    return size or None


def _reason(error: zlib.error) -> str:
    """Return the last clause of a text like "Error -3 while decompressing data: incorrect data check"."""
    return str(error).rsplit(": ", maxsplit=1)[-1]


def open_source(file: BinaryIO) -> Source:
    """Return the best source for a file just opened: a map if it is regular and not gzip, else a stream.

    The file is closed with the source, or at once if the source does not need it.
    """
    if file is standard_input():  # of which something may have been read already
        return Stream(file)
    try:
        if os.pread(file.fileno(), len(MAGIC), 0) != MAGIC:
            mapped = Mapped(file)
            file.close()
            return mapped
    except (OSError, ValueError):  # a pipe; empty, as files in /proc seem to be; on a disk without maps
        pass
    return Stream(file)
