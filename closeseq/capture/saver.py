"""Saving a live capture: in one file, in several in turn (a rotation), or into a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

import numpy as np

from closeseq.capture.writers import PcapngWriter, SavedDevice, part
from closeseq.errors import SaveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from closeseq.packets.frames import Frames

SECOND_NS = 1_000_000_000
SIZES = {
    **{unit + "B": 1000**power for power, unit in enumerate(("", "k", "M", "G", "T"))},
    **{unit + "iB": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), start=1)},
}
TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds
# A size without its B could be meant as a time, and 100 packets are neither.
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
EXAMPLES = "write a size like 100MB or 64KiB, or a time like 30s, 10m, 1h, 1d"

STANDARD_OUTPUT = "-"
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file may not become larger than it is",
    errno.EPIPE: "the reader has closed the pipe",
    errno.EEXIST: "the file is there already; --force overwrites it",
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """When the next file begins: by size or by time, one of the two."""

    size: int | None = None  # bytes
    time_ns: int | None = None  # nanoseconds


def parse_rotation(text: str) -> Rotation:
    """Return the rotation that `--rotate` asks for: a size (B, kB, MB, KiB, ...) or a time (s, m, h, d).

    Args:
        text: as the user wrote it: a number, which may have a fraction, and a unit.

    Raises:
        ValueError: it is neither, or nothing.
    """
    amount = AMOUNT.fullmatch(text.strip())
    if amount is None:
        raise ValueError(f"{text!r} is neither a size nor a time: {EXAMPLES}")
    number, unit = float(amount[1]), amount[2]
    sizes = {name.lower(): size for name, size in SIZES.items()}
    if unit in TIMES:
        rotation = Rotation(time_ns=_at_least_one(number * TIMES[unit] * SECOND_NS, text))
    elif unit.lower() in sizes:
        rotation = Rotation(size=_at_least_one(number * sizes[unit.lower()], text))
    else:
        raise ValueError(f"{unit!r} in {text!r} is no unit of size or time: {EXAMPLES}")
    return rotation


def _at_least_one(amount: float, text: str) -> int:
    if amount < 1:
        raise ValueError(f"{text!r} is less than one: {EXAMPLES}")
    return int(amount)


def numbered(path: str, number: int) -> str:
    """Return the name of one of several files: cap.pcapng gives cap-00001.pcapng and so on.

    Args:
        path: the name that the user gave, with or without a folder.
        number: which file, from 1; five digits at least.
    """
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}-{number:05}{whole.suffix}"))


def already_there(path: str) -> list[str]:
    """Return the files with names of an earlier rotation, in order; `path` is as for `numbered`."""
    whole = Path(path)
    shape = re.compile(re.escape(whole.stem) + r"-\d{5,}" + re.escape(whole.suffix))
    try:
        names = sorted(entry.name for entry in whole.parent.iterdir() if shape.fullmatch(entry.name))
    except OSError:  # opening the first file raises the error
        names = []
    return [str(whole.with_name(name)) for name in names]


class Saver:
    """A capture that is being saved as pcapng. Use it in a `with` statement, or `close` it.

    With rotation the files are numbered, NAME-00001.pcapng, NAME-00002.pcapng and so on. Each is a
    capture by itself: it names all devices, and its losses are those of its own time. A file begins only
    with its first packet, so none is empty but the first if nothing is captured at all.

    Any method that writes raises SaveError when the disk is full, the pipe closed or the file too large.
    That happens once: the file then ends behind its last whole packet, and the saver ignores all that
    follows.

    Args:
        path: the file's name, or "-" for standard output.
        devices: the interfaces that packets come from.
        rotation: when to go on in another file; None for a single one.
        force: whether files that are there already may be overwritten.

    Raises:
        SaveError: the file is there already, or cannot be written.
        ValueError: standard output cannot be rotated.
    """

    def __init__(
        self,
        path: str,
        devices: Sequence[SavedDevice],
        *,
        rotation: Rotation | None = None,
        force: bool = False,
    ) -> None:
        if rotation and path == STANDARD_OUTPUT:
            raise ValueError("a pipe cannot go on in another file")
        self.path = path
        self.files = 0  # begun so far
        self.failed: SaveError | None = None
        self._devices = list(devices)
        self._rotation = rotation
        self._force = force
        self._dropped = [0] * len(devices)  # by device, since the capture began
        self._dropped_before = [0] * len(devices)  # until the present file began
        self._saved = 0  # packets in the files before
        self._closed = False
        self._until_ns = 0
        self._writer: PcapngWriter | None = None
        if rotation and not force:
            there = already_there(path)
            if there:
                raise SaveError(REASONS[errno.EEXIST], path=there[0], errno=errno.EEXIST)
        started_ns = time.time_ns()
        if rotation and rotation.time_ns:
            self._until_ns = started_ns + rotation.time_ns
        self._begin(started_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def packets(self) -> int:
        """Packets saved so far, in all files."""
        return self._saved + (self._writer.packets if self._writer else 0)

    @property
    def file(self) -> str:
        """The name of the file that is being written."""
        return numbered(self.path, self.files) if self._rotation else self.path

    def declare(self, device: SavedDevice) -> int:
        """Take in another interface, and return its index.

        Raises:
            SaveError: it could not be written down.
        """
        self._devices.append(device)
        self._dropped.append(0)
        self._dropped_before.append(0)
        if self._writer and not self._over:
            try:
                self._writer.declare(device)
            except OSError as error:
                self._fail(error)
        return len(self._devices) - 1

    def lost(self, device: int, dropped: int) -> None:
        """Take in how many packets a device has lost; it is written when a file ends.

        Args:
            device: its index, as for `write`.
            dropped: packets, since the capture began; not only the new ones.
        """
        self._dropped[device] = dropped

    def write(self, frames: Frames, device: int | NDArray[np.int64] = 0) -> None:
        """Save packets; nothing of them is kept.

        Args:
            frames: the packets.
            device: the index of the interface, of all of them or (int64) of each.

        Raises:
            SaveError: not all of them could be saved.
        """
        devices = np.broadcast_to(np.asarray(device, np.int64), (len(frames),))
        try:
            self._write(frames, devices)
        except OSError as error:
            self._fail(error)

    def _write(self, frames: Frames, devices: NDArray[np.int64]) -> None:
        begin = 0
        while begin < len(frames) and self._writer and not self._over:
            rest = part(frames, begin, len(frames))
            count = self._fitting(rest, self._writer)
            if count:
                self._writer.write(part(rest, 0, count), devices[begin : begin + count])
            else:
                self._next(int(rest.time_ns[0]))
            begin += count

    def close(self, ended_ns: int | None = None) -> None:
        """Write how the capture ended, and close the file.

        Args:
            ended_ns: when it ended, since the epoch; by default now.

        Raises:
            SaveError: that could not be written.
        """
        if self._over:
            return
        self._closed = True
        try:
            self._finish(time.time_ns() if ended_ns is None else ended_ns)
        except OSError as error:
            self._fail(error)

    @property
    def _over(self) -> bool:
        return self._closed or self.failed is not None

    def _fitting(self, frames: Frames, writer: PcapngWriter) -> int:
        """Return how many of these the present file takes before another must begin."""
        count, rotation = len(frames), self._rotation
        if rotation and rotation.size:
            room = rotation.size - writer.size - writer.closing_size
            fits = int(np.searchsorted(np.cumsum(writer.lengths(frames)), room, "right"))
            # a packet larger than any file gets a file for itself
            count = max(fits, 0 if writer.packets else 1)
        if rotation and rotation.time_ns:
            late = frames.time_ns >= self._until_ns
            count = int(np.argmax(late)) if late.any() else len(frames)
        return count

    def _next(self, first_ns: int) -> None:
        """Go on in another file, whose first packet has this time."""
        rotation, writer = self._rotation, self._writer
        if rotation and rotation.time_ns:  # the limits stay where they are, however long nothing came
            self._until_ns += rotation.time_ns * ((first_ns - self._until_ns) // rotation.time_ns + 1)
            if writer and not writer.packets:
                return
        # Not now: packets wait before they get here, and those of the next file may be older than now.
        self._finish(first_ns)
        self._saved, self._writer = self.packets, None
        self._dropped_before = self._dropped.copy()
        self._begin(first_ns)

    def _begin(self, started_ns: int) -> None:
        self.files += 1
        try:
            file = _open(self.file, force=self._force)
        except OSError as error:
            self._fail(error)
        try:
            self._writer = PcapngWriter(file, self._devices, started_ns=started_ns)
        except OSError as error:
            file.close()
            self._fail(error)

    def _finish(self, ended_ns: int) -> None:
        if self._writer:
            lost = [now - then for now, then in zip(self._dropped, self._dropped_before, strict=True)]
            self._writer.finish(ended_ns, lost)

    def _fail(self, error: OSError) -> NoReturn:
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()
        name = "standard output" if self.path == STANDARD_OUTPUT else self.file
        self.failed = SaveError(_reason(error), path=name, packets=self.packets, errno=error.errno)
        raise self.failed from error


def _open(path: str, *, force: bool) -> FileIO:
    if path == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise OSError(errno.ENOTSUP, "it is a terminal: pipe it into a program, or name a file")
        return FileIO(sys.stdout.fileno(), "wb", closefd=False)
    if Path(path).exists() and not Path(path).is_file():  # /dev/null, a named pipe
        return FileIO(path, "wb")
    how = os.O_TRUNC if force else os.O_EXCL
    return FileIO(path, "wb", opener=lambda name, _: os.open(name, os.O_WRONLY | os.O_CREAT | how, 0o666))


def _reason(error: OSError) -> str:
    return REASONS.get(error.errno or 0) or f"cannot be written: {error.strerror}"
