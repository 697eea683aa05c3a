"""The bytes of a file that something else is still writing, as they come.

A regular file is looked at again and again; a pipe says by itself when there is more.
"""

from __future__ import annotations

import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO, Protocol

from closeseq.capture.source import standard_input

PAUSE = 0.1  # seconds between two looks at a file, and until `wait` comes back at the latest
CHUNK = 4 * 1024 * 1024  # bytes in a window, unless more are wanted
PIPE_PIECE = 256 * 1024  # bytes of a pipe read at a time
# Bytes before the window's end by which a file is known that was written anew, and is longer already.
REMEMBERED = 2048
CHANGED = "the file was made shorter, or written anew"


class Tail(Protocol):
    """A window on the bytes that have come last. What lies before it is done with."""

    window: memoryview  # of unsigned bytes; new memory whenever it moves
    base: int  # the offset in the file of the window's first byte
    over: str | None  # why nothing more will come, as a clause; empty at a pipe's plain end

    def more(self, at: int, wanted: int) -> bool:
        """Move the window on to its byte `at`, if there are at least `wanted` bytes from there.

        Returns whether it has moved. It does so once more, for fewer bytes, with the last of all. Does
        not wait.

        Raises:
            OSError: the file cannot be read.
        """

    def wait(self, seconds: float) -> None:
        """Wait until there may be more, at most for so long."""

    def close(self) -> None:
        """Let go of the file. Windows that were handed out stay good."""


def open_tail(file: BinaryIO, path: str | None) -> Tail:
    """Return the tail of a file just opened.

    Args:
        file: the file; it is closed with its tail unless it is standard input.
        path: where it is looked for again; None if it has no name.
    """
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    return FileTail(file, path) if regular else PipeTail(file)


class FileTail:
    """A regular file that grows; see `open_tail`."""

    def __init__(self, file: BinaryIO, path: str | None, chunk: int = CHUNK) -> None:
        self.window = memoryview(b"")
        self.base = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        self.over: str | None = None
        self._file = file
        self._fd = file.fileno()
        self._path = path
        self._chunk = chunk

    def more(self, at: int, wanted: int) -> bool:
        """Read on; see `Tail`. The rest of the window is read a second time: it is part of one record."""
        if self.over is not None:
            return False
        gone = self._gone()  # first: a file that was gone by then is complete by its size now
        size = os.fstat(self._fd).st_size
        place, end = self.base + at, self.base + len(self.window)
        if not self._as_it_was(end):
            self.over = CHANGED
            return False
        there = size - place
        if there < wanted:
            self.over = gone
            if gone is None:
                return False
        if size == end:
            return False
        data = os.pread(self._fd, min(max(wanted, self._chunk), there), place)
        self.window, self.base = memoryview(data), place
        return True

    def _as_it_was(self, end: int) -> bool:
        """Return whether the file still has what the window, which ended there, has."""
        remembered = self.window[-REMEMBERED:]
        return os.pread(self._fd, len(remembered), end - len(remembered)) == remembered

    def _gone(self) -> str | None:
        """Return what has become of the file, if it is no longer where it was."""
        own = os.fstat(self._fd)
        removed = None if own.st_nlink else "the file was removed"
        if self._path is None:
            return removed
        try:
            there = Path(self._path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return removed or "the file was renamed"
        except OSError:  # who follows may look into the file, and no longer into its folder
            return removed
        return None if os.path.samestat(own, there) else "another file has taken its name"

    def wait(self, seconds: float) -> None:
        """Wait until it is time for another look."""
        time.sleep(min(seconds, PAUSE))

    def close(self) -> None:
        """Close the file."""
        _close(self._file)


class PipeTail:
    """A pipe, or anything else that cannot be read twice; see `open_tail`."""

    def __init__(self, file: BinaryIO, chunk: int = CHUNK) -> None:
        self.window = memoryview(b"")
        self.base = 0
        self.over: str | None = None
        self._file = file
        self._fd = file.fileno()
        self._chunk = chunk
        self._waiting = list[bytes]()  # what came behind the window
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def more(self, at: int, wanted: int) -> bool:
        """Read on; see `Tail`."""
        rest = len(self.window) - at
        there = rest + self._take(max(wanted, self._chunk) - rest)
        if not self._waiting or (there < wanted and self.over is None):
            return False
        self.window = memoryview(b"".join([self.window[at:], *self._waiting]))
        self.base += at
        self._waiting = []
        return True

    def _take(self, most: int) -> int:
        """Read what there is now, so much at most; return how much waits by then."""
        have = sum(map(len, self._waiting))
        while have < most and self.over is None and self._poll.poll(0):
            try:
                piece = os.read(self._fd, min(most - have, PIPE_PIECE))
            except BlockingIOError:  # someone else has read it
                break
            if piece:
                self._waiting.append(piece)
                have += len(piece)
            else:
                self.over = ""
        return have

    def wait(self, seconds: float) -> None:
        """Wait until something comes."""
        self._poll.poll(min(seconds, PAUSE) * 1000)

    def close(self) -> None:
        """Close the pipe."""
        _close(self._file)


def _close(file: BinaryIO) -> None:
    if file is not standard_input():
        file.close()
