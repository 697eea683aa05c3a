"""Where a capture's bytes come from: a file, a pipe, a URL; plain or compressed.

`Source` is a window on them and a place in it, moved on piece by piece. `Remote` is a file in an object store
or on another machine: anything with a URL that fsspec supports, such as s3://.

Files are read, never mapped into memory. A mapped file that another program makes shorter ends the
process with SIGBUS, which no exception handler can catch; a read file only gives fewer bytes.
"""

from __future__ import annotations

import os
import re
import select
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from closeseq.capture.compression import LONGEST_MAGIC, Compression, Damaged, Unpacker, compression_of
from closeseq.capture.walk import CUT_REMEDY, Trouble
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
INSTALL = "pip install 'closeseq[cluster]' (s3:// also needs s3fs, gs:// gcsfs)"

CHUNK = 8 * 1024 * 1024  # bytes in one window: tens of thousands of packets
PIECE = 1024 * 1024  # bytes unpacked at a time
REMEMBERED = 2048  # bytes kept of either end of what was read: by these a file that was rewritten is noticed
SHORTER = "the file was made shorter while it was read"
REWRITTEN = "the file was rewritten while it was read"
TRY_AGAIN = "read it again when nothing writes to it"


class Source:
    """A window on the bytes of a capture, plain or compressed; what lies before its place is dropped.

    Every window is new memory, so batches stay good when the window moves on.

    Args:
        file: an open, unbuffered file; `close` closes it unless it is standard input.
        chunk: bytes to have in a window.
    """

    def __init__(self, file: BinaryIO, chunk: int = CHUNK) -> None:
        self.window = memoryview(b"")  # of unsigned bytes
        self.at = 0  # the place in the window: the first byte that is not done with
        self.base = 0  # the offset in the (uncompressed) file of the window's first byte
        self.trouble: Trouble | None = None  # why no more bytes can be had, if it is not simply the end
        self._file = _bytes(file)
        self._chunk = chunk
        self._compression: Compression | None = None
        self._unpacker: Unpacker | None = None
        self.more(LONGEST_MAGIC)
        compression = compression_of(bytes(self.window[:LONGEST_MAGIC]))
        if compression is not None:
            self._unpack(compression)

    def _unpack(self, compression: Compression) -> None:
        """Have the bytes unpacked, from the first one on."""
        packed, self.window = bytes(self.window), memoryview(b"")
        self._compression = compression
        try:
            self._unpacker = compression.open(self._read, packed)
        except ImportError:
            problem = f"it is compressed with {compression.name}, which this Python cannot unpack"
            by_hand = f"or unpack it first: `{compression.tool} FILE | closeseq analyze -`"
            self.trouble = Trouble(problem, 0, f"install {compression.install}, {by_hand}")

    @property
    def size(self) -> int | None:
        """Bytes on disk, if they are known."""
        return self._file.size

    @property
    def position(self) -> int:
        """Bytes on disk that were used so far; of a compressed file, that were read."""
        return self.base + self.at if self._unpacker is None else self._file.position

    def more(self, wanted: int) -> bool:
        """Move the window on, until it has `wanted` bytes from its place if the file has them.

        Bytes of a file that was changed while it was read are not used.

        Args:
            wanted: bytes; a window that is larger anyway is filled.

        Returns:
            Whether there is anything new in it. The window's place changes, what is there does not. If not,
            `trouble` says why, or the file is at its end.
        """
        if self.trouble is not None:
            return False
        rest = self.window[self.at :]
        # Memory that is not written to costs nothing: a record that claims much is no harm.
        room = np.empty(max(wanted, self._chunk), np.uint8).data
        have = len(rest)
        room[:have] = rest
        rest, kept = memoryview(b""), have  # so that the old window's memory is free before the new one fills
        self.window, self.base, self.at = room[:have], self.base + self.at, 0
        while have < len(room) and (came := self._fill(room, have)):
            have += came
        try:
            problem = self._file.changed()
        except OSError as error:  # such as a stale handle of a network file system
            problem = f"it cannot be looked at any more ({error.strerror or error})"
        if problem is not None:
            self.trouble = Trouble(problem, 0, TRY_AGAIN)
            have = kept
        self.window = room[:have]
        return have > kept

    def _fill(self, room: memoryview, have: int) -> int:
        """Fill the room behind the `have` bytes that it has; return how many came, 0 after a fault."""
        try:
            if self._unpacker is None or self._compression is None:
                return self._file.readinto(room[have:])
            plain = self._unpacker.read(min(len(room) - have, PIECE))
            room[have : have + len(plain)] = plain
            return len(plain)
        except EOFError:
            self.trouble = Trouble(f"the {self._packed_data} are cut short", have, CUT_REMEDY)
        except Damaged as damage:
            self.trouble = Trouble(f"the {self._packed_data} are damaged ({damage})", have)
        except OSError as error:
            self.trouble = Trouble(
                f"reading failed: {error.strerror}", have, "the packets before it are good"
            )
        return 0

    @property
    def _packed_data(self) -> str:
        return f"{self._compression.name} data" if self._compression is not None else "data"

    def _read(self, most: int) -> bytes:
        """Read on in the file as it is on disk."""
        data = bytearray(most)
        return bytes(data[: self._file.readinto(memoryview(data))])

    def close(self) -> None:
        """Close the file. Windows that were handed out stay good."""
        self.window = memoryview(b"")
        self._file.close()


class Bytes(Protocol):
    """The bytes of a file, from its begin to its end."""

    size: int | None  # bytes on disk, if they are known
    position: int  # bytes that were read so far

    def readinto(self, room: memoryview) -> int:
        """Fill the begin of `room`, a memoryview of unsigned bytes; return how many bytes came, 0 at the end.

        Raises:
            OSError: the file cannot be read.
        """

    def changed(self) -> str | None:
        """Return how the bytes that were read have changed since, as a clause; None if they have not."""

    def close(self) -> None:
        """Close the file."""


class Regular:
    """A regular file, as long as it was when it was opened: bytes that are appended later are not seen.

    Args:
        file: an open file.
        size: bytes that it has.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size: int | None = size
        self.position = file.tell()  # of standard input something may have been read already
        self._file = file
        self._fd = file.fileno()
        self._length = size
        self._first = self.position, b""  # a place and the bytes there: those read first
        self._last = self._first  # and those in front of the position

    def readinto(self, room: memoryview) -> int:
        """Read on into `room`; as `Bytes.readinto`."""
        room = room[: max(self._length - self.position, 0)]
        got = int(self._file.readinto(room)) if room else 0  # type: ignore[attr-defined]
        if got:
            if not self._first[1]:
                self._first = self.position, bytes(room[: min(got, REMEMBERED)])
            self.position += got
            last = bytes(room[max(got - REMEMBERED, 0) : got])
            self._last = self.position - len(last), last
        return got

    def changed(self) -> str | None:
        """Return whether the file is shorter than it was, or has other bytes where it was read: a clause."""
        same = all(os.pread(self._fd, len(data), place) == data for place, data in (self._first, self._last))
        # The size comes second: if the file is made shorter at this moment, that is what is reported.
        if os.fstat(self._fd).st_size < self._length:
            return SHORTER
        return None if same else REWRITTEN

    def close(self) -> None:
        """Close the file."""
        _close(self._file)


class Piped:
    """Anything that is read once, and in order: a pipe, a device, a file of /proc, one on another machine.

    Args:
        file: an open file; unbuffered, unless it is standard input.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size: int | None = None
        self.position = 0
        self._file = file

    def readinto(self, room: memoryview) -> int:
        """Read on into `room`, and wait for more if need be; as `Bytes.readinto`."""
        while (got := self._file.readinto(room)) is None:  # type: ignore[attr-defined]
            select.select([self._file], [], [])  # the pipe was made non-blocking elsewhere
        self.position += got
        return int(got)

    def changed(self) -> None:
        """Return None: nobody can take back what came through a pipe."""

    def close(self) -> None:
        """Close the file."""
        _close(self._file)


def standard_input() -> BinaryIO | None:
    """Return standard input as it is now: None if it was closed, or put elsewhere as text only."""
    return getattr(sys.stdin, "buffer", None)


def _bytes(file: BinaryIO) -> Bytes:
    """Return what reads this file."""
    if isinstance(file, Remote):
        piped = Piped(file)
        piped.size = file.size
        return piped
    try:
        status = os.fstat(file.fileno())
    except OSError:  # not backed by a file descriptor
        return Piped(file)
    # Files of /proc are regular, and seem to be empty.
    return Regular(file, status.st_size) if stat.S_ISREG(status.st_mode) and status.st_size else Piped(file)


def _close(file: BinaryIO) -> None:
    if file is not standard_input():
        file.close()


def is_url(path: str) -> bool:
    """Whether this is a URL, not the name of a file."""
    return URL.match(os.fspath(path)) is not None


class Remote:
    """A remote file, read from its begin; every error is an OSError.

    Args:
        file: as fsspec opens it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size: int | None = getattr(file, "size", None)

    def readinto(self, room: memoryview) -> int:
        """Fill the begin of `room`, a memoryview of unsigned bytes; return how many bytes came, 0 at the end.

        Raises:
            OSError: the file cannot be read, whatever the protocol's library raises.
        """
        try:
            return int(self._file.readinto(room) or 0)
        except OSError:
            raise
        except Exception as error:  # whatever the protocol's library raises
            raise OSError(None, _reason(error)) from error

    def read_at(self, place: int, size: int) -> bytes:
        """Return bytes of the file; what is read next follows them.

        Args:
            place: the first byte, from the file's begin.
            size: how many; fewer come where the file ends before.

        Raises:
            OSError: the file cannot be read, whatever the protocol's library raises.
        """
        try:
            self._file.seek(place)
            data: bytes = self._file.read(size)
        except OSError:
            raise
        except Exception as error:
            raise OSError(None, _reason(error)) from error
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_url(url: str) -> BinaryIO:
    """Open a remote file for reading.

    Raises:
        CaptureError: it cannot be opened.
    """
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        return Remote(files.open(path, "rb"))  # type: ignore[return-value]
    except ImportError as error:
        raise CaptureError(f"cannot be opened: {error}", path=url, remedy=INSTALL) from None
    except FileNotFoundError:
        raise CaptureError("no such file", path=url, remedy="check its name") from None
    except PermissionError:
        remedy = "check the credentials that its protocol uses"
        raise CaptureError("not permitted to read it", path=url, remedy=remedy) from None
    except Exception as error:  # noqa: BLE001 - whatever the protocol's library raises
        problem = f"cannot be opened: {_reason(error)}"
        raise CaptureError(
            problem, path=url, remedy="check its name, and whether the server answers"
        ) from None


def found(url: str) -> Iterator[str]:
    """Yield the files that a URL stands for: those that match its pattern, those in it, or itself.

    It raises nothing: a URL that cannot be looked up stands for itself, and opening it shows why.
    """
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        if any(sign in path for sign in "*?["):
            matching = [name for name in files.glob(path) if not files.isdir(name)]
        elif files.isdir(path):
            matching = [one["name"] for one in files.ls(path, detail=True) if one["type"] == "file"]
        else:
            matching = []
    except Exception:  # noqa: BLE001 - opening it raises the error
        matching = []
    protocol = url.split("://", maxsplit=1)[0]
    yield from (_named(files, protocol, one) for one in sorted(matching)) if matching else (url,)


def _named(files: Any, protocol: str, path: str) -> str:
    named = str(files.unstrip_protocol(path))
    return named if named.startswith(f"{protocol}:") else f"{protocol}://{named.rpartition('://')[2]}"


def _reason(error: Exception) -> str:
    """Return an error's reason, in one line."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text.splitlines()[0][:200]
