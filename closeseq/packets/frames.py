"""Frames: what was captured, before anyone looks inside; and the files that they came from.

A capture may go on through several files. Within closeseq a packet has one number, which runs on from file to
file. People look a packet up in one file, with Wireshark or tcpdump, where it has another: of several files,
`#3:17` is the 17th packet of the third.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from closeseq.errors import CaptureError

GAP_NS = 1_000_000_000  # a longer time between two files is reported as a gap
PACKET = re.compile(r"#(\d+)")


@dataclass(frozen=True, slots=True)
class Frames:
    """A batch of captured frames: one buffer, and where in it each frame lies.

    The columns have one entry a frame, in the order of capture. The buffer may be a view of a ring of kernel
    memory: whoever keeps bytes beyond the batch copies them.
    """

    buffer: NDArray[np.uint8]  # holds every frame of the batch, and other things between them
    offset: NDArray[np.int64]  # of the frame's first byte in the buffer
    captured: NDArray[np.int64]  # bytes of the frame that are in the buffer
    wire: NDArray[np.int64]  # bytes the frame had on the wire, at least `captured`
    time_ns: NDArray[np.int64]  # nanoseconds since the Unix epoch
    number: NDArray[np.int64]  # the packet's number in its capture, counted from 1
    link_type: NDArray[np.uint16]  # LINKTYPE_ value as registered by tcpdump.org
    # the interface's number within its capture; 0 everywhere where the capture does not name it
    interface: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def __post_init__(self) -> None:
        if len(self.interface) != len(self.offset):
            object.__setattr__(self, "interface", np.zeros(len(self.offset), np.uint32))

    def __len__(self) -> int:
        return len(self.offset)

    def first(self, count: int) -> Frames:
        """Return the first `count` frames, or all where there are fewer."""
        if count >= len(self):
            return self
        columns = (getattr(self, f.name)[:count] for f in fields(self) if f.name != "buffer")
        return Frames(self.buffer, *columns)


@dataclass(slots=True)
class File:
    """One of a capture's files, as far as it was read."""

    path: str  # as the user gave it, or as it was found
    before: int  # packets in the files before it
    packets: int = 0  # read so far
    first_ns: int | None = None  # time of its earliest packet, since the Unix epoch
    last_ns: int | None = None  # and of its latest
    error: CaptureError | None = None  # why it was not read to its end, or not at all

    def add(self, packets: int, first_ns: int, last_ns: int) -> None:
        """Count a batch of at least one packet.

        Args:
            packets: how many it has, from 1.
            first_ns: time of its earliest packet, in nanoseconds since the Unix epoch.
            last_ns: and of its latest.
        """
        self.packets += packets
        self.first_ns = first_ns if self.first_ns is None else min(first_ns, self.first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(last_ns, self.last_ns)


class Gap(NamedTuple):
    """A time between two files without packets: none came, or nobody captured."""

    before: int  # the last packet of the one file, by its running number
    after: int  # the first packet of the next one
    from_ns: int  # since the Unix epoch
    to_ns: int  # time of that first packet


@dataclass(slots=True)
class Files:
    """The files of one capture, in the order in which they were read; none, or one, for most captures.

    The position of a file in the list, counted from 1, is its number.
    """

    files: list[File] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)  # of each file: the packets before it
    _gaps: list[Gap] = field(default_factory=list, repr=False, compare=False)
    _gaps_of: tuple[int, int | None] = field(default=(0, None), repr=False, compare=False)

    @property
    def several(self) -> bool:
        """Whether there is more than one file, so that a packet's number in the capture does not find it."""
        return len(self.files) > 1

    def add(self, path: str, before: int) -> File:
        """Add the next file, and return it.

        Args:
            path: its name, as the user gave it or as it was found.
            before: packets in all files before it; its own numbers begin behind these.
        """
        file = File(path, before)
        self.files.append(file)
        self.begins.append(before)
        return file

    def place(self, packet: int) -> tuple[int, int]:
        """Return the number of the file that a packet is in, and the packet's number in that; both from 1.

        Args:
            packet: its running number in the capture, from 1.

        Raises:
            IndexError: no file has been added.
        """
        index = max(bisect_right(self.begins, packet - 1) - 1, 0)
        return index + 1, packet - self.begins[index]

    def path(self, packet: int) -> str:
        """Return the name of the file that a packet, given by its running number, is in."""
        return self.files[self.place(packet)[0] - 1].path

    def name(self, packet: int) -> str:
        """Return a packet's number as people look it up: `17`, or of several files `3:17`.

        Args:
            packet: its running number in the capture, from 1.
        """
        if not self.several:
            return str(packet)
        file, number = self.place(packet)
        return f"{file}:{number}"

    def text(self, text: str) -> str:
        """Return a text in which packets are named by running numbers (`#17`), as people look them up."""
        return PACKET.sub(lambda found: f"#{self.name(int(found[1]))}", text) if self.several else text

    def among(self, packets: Iterable[int]) -> dict[int, str]:
        """Return the files that these packets are in: number, from 1, and name of each, ascending.

        Args:
            packets: their running numbers in the capture, in any order.
        """
        numbers = sorted({self.place(packet)[0] for packet in packets})
        return {number: self.files[number - 1].path for number in numbers}

    def gaps(self) -> list[Gap]:
        """Return where nothing was captured for over a second between one file and the next."""
        so_far = len(self.files), self.files[-1].first_ns if self.files else None
        if so_far != self._gaps_of:  # each connection asks for them
            self._gaps, self._gaps_of = self._find_gaps(), so_far
        return self._gaps

    def _find_gaps(self) -> list[Gap]:
        held = [file for file in self.files if file.packets]
        found = []
        for one, then in pairwise(held):
            if one.last_ns is not None and then.first_ns is not None and then.first_ns - one.last_ns > GAP_NS:
                found.append(Gap(one.before + one.packets, then.before + 1, one.last_ns, then.first_ns))
        return found

    def errors(self) -> list[CaptureError]:
        """Return why files were not read to their ends, one error a file that was not."""
        return [file.error for file in self.files if file.error is not None]
