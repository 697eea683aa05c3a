"""The bytes of a file that another program is still writing, and the file in which its capture goes on.

A regular file (`FileTail`) is polled; a pipe (`PipeTail`) becomes readable when there is more. A program may
begin a new file now and then, a rotation:

    tcpdump -C         f, f1, f2 ...; with -W f0, f1, f2, and then f0 rewritten
    tcpdump -G         f with the time in its name, as strftime writes it
    dumpcap -b         f_00001_20261125220000.pcapng, f_00002_...
    closeseq --rotate  f-00001.pcapng, f-00002.pcapng

Names show which files may be of one rotation, and their first packets which of them comes next.
"""

from __future__ import annotations

import os
import re
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from closeseq.capture.reader import open_capture
from closeseq.capture.source import standard_input
from closeseq.errors import CaptureError

PAUSE = 0.1  # seconds between two looks at a file, and until `wait` comes back at the latest
CHUNK = 4 * 1024 * 1024  # bytes in a window, unless more are wanted
PIPE_PIECE = 256 * 1024  # bytes of a pipe read at a time
# Bytes before the window's end: by these a file that was rewritten, and is longer already, is noticed.
REMEMBERED = 2048
CHANGED = "the file was made shorter, or rewritten"

DIGITS = re.compile("[0-9]+")
FEWEST_DIGITS = 4  # hours and minutes; names that differ in fewer are as likely those of two captures
WINDOW = 1 << 16  # bytes read to learn of a file's first packet
SLACK_NS = 1_000_000_000  # a new file's first packet may be so much before the last of the old one


class Tail(Protocol):
    """A window on the bytes that have come last. What lies before it is dropped."""

    window: memoryview  # of unsigned bytes; new memory whenever it moves
    base: int  # the offset in the file of the window's first byte
    over: str | None  # why nothing more will come, as a clause; empty at a pipe's plain end

    def more(self, at: int, wanted: int) -> bool:
        """Move the window on, if there are enough bytes. Does not wait.

        Args:
            at: the byte of the present window at which the new one is to begin.
            wanted: how many bytes there must be from there.

        Returns:
            Whether it has moved. It does so once more, for fewer bytes, with the last of all.

        Raises:
            OSError: the file cannot be read.
        """

    def wait(self, seconds: float) -> None:
        """Wait until there may be more, at most for so many seconds."""

    def close(self) -> None:
        """Close the file. Windows that were handed out stay good."""


def open_tail(file: BinaryIO, path: str | None) -> Tail:
    """Return the tail of a file just opened.

    Args:
        file: the file; it is closed with its tail unless it is standard input.
        path: where it is looked for again; None if it has no name.
    """
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    return FileTail(file, path) if regular else PipeTail(file)


class FileTail:
    """A regular file that grows; see `open_tail`.

    Args:
        file: the file; its window begins where it stands.
        path: where it is looked for again; None if it has no name.
        chunk: bytes in a window, unless more are wanted.
    """

    def __init__(self, file: BinaryIO, path: str | None, chunk: int = CHUNK) -> None:
        self.window = memoryview(b"")
        self.base = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        self.over: str | None = None
        self._file = file
        self._fd = file.fileno()
        self._path = path
        self._chunk = chunk

    def more(self, at: int, wanted: int) -> bool:
        """Read on; `at` and `wanted` are as in `Tail.more`.

        The rest of the window is read a second time: it is part of one record.
        """
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
        except OSError:  # the process may read the file, and no longer its folder
            return removed
        return None if os.path.samestat(own, there) else "another file has taken its name"

    def wait(self, seconds: float) -> None:
        """Wait until it is time for another look, at most for so many seconds."""
        time.sleep(min(seconds, PAUSE))

    def close(self) -> None:
        """Close the file."""
        _close(self._file)


class PipeTail:
    """A pipe, or anything else that cannot be read twice; see `open_tail`.

    Args:
        file: the pipe.
        chunk: bytes in a window, unless more are wanted.
    """

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
        """Read on; `at` and `wanted` are as in `Tail.more`."""
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
        """Wait until something comes, at most for so many seconds."""
        self._poll.poll(min(seconds, PAUSE) * 1000)

    def close(self) -> None:
        """Close the pipe."""
        _close(self._file)


def _close(file: BinaryIO) -> None:
    if file is not standard_input():
        file.close()


class CurrentFile(NamedTuple):
    """The file that has nothing more, with what decides which one comes after it."""

    path: str  # its name, as the user gave it or as it was found
    changed_ns: int | None  # when it was last written to; None if unknown
    first_ns: int | None  # time of its first packet; of the file before, if it has none
    last_ns: int | None  # time of the latest packet so far


def successor(present: CurrentFile, *, missed: bool) -> str | None:
    """Return the file that comes next, if it has a packet already.

    That is, of the files whose names are of one rotation with this one's, the one whose first packet comes
    next. It cannot be long before this one's last packet: of two captures that run side by side none comes
    after the other.

    Args:
        present: the file that has nothing more.
        missed: whether files in between may be gone, so that numbers need not follow one another.
    """
    found = []
    for path in candidates(present.path, missed=missed):
        try:
            status = path.stat()
        except OSError:  # it went at this moment
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if present.changed_ns is not None and status.st_mtime_ns < present.changed_ns:
            continue
        begins_ns = first_ns(str(path))
        if begins_ns is not None and _comes_after(begins_ns, present):
            found.append((begins_ns, str(path)))
    return min(found)[1] if found else None


def _comes_after(begins_ns: int, present: CurrentFile) -> bool:
    if present.first_ns is None or present.last_ns is None:
        return True
    return begins_ns > present.first_ns and begins_ns >= present.last_ns - SLACK_NS


def candidates(path: str, *, missed: bool) -> list[Path]:
    """Return the files that may come after one by their names, in no order.

    Args:
        path: the file that has nothing more.
        missed: whether files in between may be gone, so that numbers need not follow one another.
    """
    here = Path(path)
    try:
        names = [entry.name for entry in here.parent.iterdir()]
    except OSError:  # the process may read the file, and no longer its folder
        return []
    return [here.with_name(name) for name in names if of_one_rotation(here.name, name, missed=missed)]


def of_one_rotation(name: str, other: str, *, missed: bool = False) -> bool:
    """Return whether a file may come after another one, by their names alone.

    Args:
        name: of the file that has nothing more, without its folder.
        other: of the one that may come next.
        missed: whether files in between may be gone, so that numbers need not follow one another.
    """
    if name == other:
        return False
    (base, number), (other_base, other_number) = _split(name), _split(other)
    if base == other_base and other_number:  # tcpdump -C
        following = str(int(number or 0) + 1).zfill(len(number))
        return missed or other_number in {following, "0" * len(number)}
    return _alike(name, other) or _alike(base, other_base)


def _alike(name: str, other: str) -> bool:
    """Return whether names are the same but for digits that may be a time, or a long number."""
    digits = sum(map(len, DIGITS.findall(name)))
    return name != other and digits >= FEWEST_DIGITS and _without_digits(name) == _without_digits(other)


def _without_digits(name: str) -> str:
    return DIGITS.sub(lambda run: "0" * len(run[0]), name)


def _split(name: str) -> tuple[str, str]:
    """Return a name and the number at its end, which may be empty."""
    base = name.rstrip("0123456789")
    return base, name[len(base) :]


def first_ns(path: str) -> int | None:
    """Return the time of a capture's first packet; None if it is no capture, or has none yet."""
    try:
        with open_capture(path, batch=1, window=WINDOW) as capture:
            return next((int(frames.time_ns[0]) for frames in capture.batches()), None)
    except CaptureError:
        return None
