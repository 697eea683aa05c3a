"""Writing captures: pcapng (draft-ietf-opsawg-pcapng), and the classic pcap with nanoseconds.

The records of a batch are put together in one array (`assemble`), so no Python runs for a single packet. A
file (`RecordFile`) ends behind a whole record, even if writing fails or is interrupted.
"""

from __future__ import annotations

import os
import platform
import select
import stat
import struct
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from closeseq.capture.interfaces import END_OF_OPTIONS, IF_TSRESOL, ISB_ENDTIME, ISB_IFDROP
from closeseq.capture.interfaces import NANOSECONDS as TEN_TO_THE_MINUS_NINE
from closeseq.capture.pcap import NANOSECONDS, RECORD_HEADER, USUAL_SNAPLEN
from closeseq.capture.pcapng import INTERFACE, STATISTICS
from closeseq.capture.pcapng_blocks import ENHANCED, HEADER, SECTION, TRAILER
from closeseq.packets.frames import Frames
from closeseq.packets.gather import overlapping, scatter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

AT_ONCE = 8 * 1024 * 1024  # bytes of records built at a time; frames of 64 KiB would make gigabytes

BYTE_ORDER_MAGIC = 0x1A2B3C4D
UNKNOWN_LENGTH = -1  # of a section that is still growing
SHB_OS, SHB_USERAPPL = 3, 4  # section 4.1
OPT_COMMENT = 1  # section 3.5.1
IF_NAME, IF_FILTER, IF_FCSLEN = 2, 11, 13  # section 4.2
ISB_STARTTIME, ISB_IFRECV = 2, 4  # section 4.6
LIBPCAP_EXPRESSION = b"\0"  # the first byte of if_filter: what follows is a filter's text
SECOND_NS = 1_000_000_000
EPB = np.dtype([(name, "<u4") for name in ("kind", "length", "interface", "high", "low", "captured", "wire")])
BLOCK_END = np.dtype([("length", "<u4")])
PCAP_RECORD = np.dtype([(name, "<u4") for name in ("seconds", "fraction", "captured", "wire")])


class RecordFile:
    """Records appended to a file, written at once, so that a program that follows the file sees them.

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

    def append(self, data: bytes | memoryview, ends: NDArray[np.int64] | None = None) -> None:
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
            except BlockingIOError:  # the pipe was made non-blocking elsewhere
                select.select([], [self._fd], [])

    def _count(self, written: int, ends: NDArray[np.int64], *, packets: bool) -> None:
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


def part(frames: Frames, begin: int, end: int) -> Frames:
    """Return the frames from index `begin` to before `end`, in the same buffer."""
    if (begin, end) == (0, len(frames)):
        return frames
    columns = (getattr(frames, f.name)[begin:end] for f in fields(Frames) if f.name != "buffer")
    return Frames(frames.buffer, *columns)


def portions(length: NDArray[np.int64], most: int = AT_ONCE) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the rows that are to be worked on together.

    Args:
        length: int64, bytes of each row.
        most: how many bytes the rows of a portion may have together; but it has one row at least.
    """
    ends = np.cumsum(length)
    begin, before = 0, 0
    while begin < len(ends):
        end = max(int(np.searchsorted(ends, before + most, "right")), begin + 1)
        yield begin, end
        begin, before = end, int(ends[end - 1])


def assemble(
    frames: Frames, heads: NDArray[np.void], length: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put records one behind the other: each a head, its packet, and zeros up to its length.

    Args:
        frames: the packets.
        heads: structured, one a record; what stands before the packet.
        length: int64, bytes of each whole record.

    Returns:
        The records as uint8, and where in it each ends (int64).
    """
    ends = np.cumsum(length)
    begins = ends - length
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    scatter(out, begins, heads)
    _copy_packets(frames, out, begins + heads.itemsize)
    return out, ends


def _copy_packets(frames: Frames, target: NDArray[np.uint8], at: NDArray[np.int64]) -> None:
    """Copy the packets to these places, all of one length at a time: most have one of a few lengths."""
    # numpy sorts 16-bit numbers by counting, in a tenth of the time
    narrow = np.minimum(frames.captured, np.iinfo(np.uint16).max).astype(np.uint16)
    order = np.argsort(narrow, kind="stable")
    captured, source, at = frames.captured[order], frames.offset[order], at[order]
    for rows in np.split(np.arange(len(order)), np.flatnonzero(np.diff(captured)) + 1):
        length = int(captured[rows[0]]) if len(rows) else 0
        if length:
            overlapping(target, length)[at[rows]] = overlapping(frames.buffer, length)[source[rows]]


def compacted(frames: Frames) -> Frames:
    """Return the frames with a buffer of their own, which holds nothing else."""
    ends = np.cumsum(frames.captured)
    buffer = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    offset = ends - frames.captured
    _copy_packets(frames, buffer, offset)
    return replace(frames, buffer=buffer, offset=offset)


@dataclass(frozen=True, slots=True)
class SavedDevice:
    """An interface that packets are captured on."""

    name: str  # as the system has it
    link_type: int  # LINKTYPE_
    snaplen: int = 0  # bytes, 0 for no limit
    filter: str = ""  # the expression that packets had to match, as tcpdump would take it
    resolution: int = TEN_TO_THE_MINUS_NINE  # of its clock: a tick is 10**-n seconds
    fcs_bits: int | None = None  # of the frame check sequence that each packet ends with, if that is known


class CaptureWriter(Protocol):
    """One format: `PcapngWriter` or `PcapWriter`."""

    @property
    def packets(self) -> int:
        """Packets that are whole in the file."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    @property
    def closing_size(self) -> int:
        """Bytes that `finish` will add at most."""

    def lengths(self, frames: Frames) -> NDArray[np.int64]:
        """Return how many bytes each of these will take (int64)."""

    def write(self, frames: Frames, device: int | NDArray[np.int64] = 0) -> None:
        """Write packets, and hand them to the system.

        Args:
            frames: the packets; nothing of them is kept.
            device: the device's index, of all of them or (int64) of each.

        Raises:
            OSError: the file does not take all of them. It ends behind the last one that it has taken.
        """

    def finish(self, ended_ns: int, dropped: Sequence[int] = ()) -> None:
        """Write what stands at the end, and close the file.

        Args:
            ended_ns: when the capture ended, since the epoch.
            dropped: by device, packets that were lost; 0 for devices beyond its end.

        Raises:
            OSError: as in `write`; the file is closed nevertheless.
        """

    def close(self) -> None:
        """Close the file as it is.

        Raises:
            OSError: the system had kept something back that it cannot write now, as on network disks.
        """


class PcapngWriter:
    """A pcapng of one section.

    Args:
        file: open for writing; see `RecordFile`.
        devices: what is known at the beginning; `declare` adds others.
        started_ns: when the capture began, since the epoch.

    Raises:
        OSError: the file does not take its beginning.
    """

    def __init__(self, file: BinaryIO, devices: Sequence[SavedDevice], *, started_ns: int) -> None:
        self._records = RecordFile(file)
        self._started_ns = started_ns
        self._latest_ns = 0  # of the packets
        self._ns_per_tick = list[int]()  # by device
        self._written = list[int]()  # packets by device
        self._records.append(_section_header())
        for device in devices:
            self.declare(device)

    @property
    def packets(self) -> int:
        return self._records.packets

    @property
    def size(self) -> int:
        return self._records.size

    @property
    def closing_size(self) -> int:
        return sum(len(self._statistics(i, 0, 0)) for i in range(len(self._written)))

    def declare(self, device: SavedDevice) -> int:
        """Write down a device, and return the index that its packets are to bear.

        Raises:
            OSError: the file does not take it.
        """
        body = struct.pack("<HHI", device.link_type, 0, device.snaplen)
        if device.name:
            body += option(IF_NAME, device.name.encode(errors="replace"))
        body += option(IF_TSRESOL, bytes([device.resolution]))
        if device.filter:
            body += option(IF_FILTER, LIBPCAP_EXPRESSION + device.filter.encode(errors="replace"))
        if device.fcs_bits is not None:
            body += option(IF_FCSLEN, bytes([device.fcs_bits]))
        self._records.append(_block(INTERFACE, body + option(END_OF_OPTIONS, b"")))
        self._ns_per_tick.append(10 ** (TEN_TO_THE_MINUS_NINE - device.resolution))
        self._written.append(0)
        return len(self._written) - 1

    def lengths(self, frames: Frames) -> NDArray[np.int64]:
        """As `CaptureWriter.lengths`."""
        return HEADER[ENHANCED] + (frames.captured + 3 & ~3) + TRAILER

    def write(
        self,
        frames: Frames,
        device: int | NDArray[np.int64] = 0,
        options: Mapping[int, bytes] | None = None,
    ) -> None:
        """Write packets; see `CaptureWriter`.

        Args:
            frames: the packets.
            device: the device's index, of all of them or of each.
            options: the list of options of some packets, by their place among these; whole options, padded to
                multiples of 4 bytes, with their end mark.

        Raises:
            OSError: the file does not take all of them; see `CaptureWriter`.
        """
        devices = np.broadcast_to(np.asarray(device, np.int64), (len(frames),))
        length, options = self.lengths(frames), options or {}
        rows = np.fromiter(options, np.int64, len(options))
        length[rows] += np.fromiter(map(len, options.values()), np.int64, len(options))
        for begin, end in portions(length):
            some = {row - begin: found for row, found in options.items() if begin <= row < end}
            self._write(part(frames, begin, end), devices[begin:end], length[begin:end], some)

    def _write(
        self,
        frames: Frames,
        devices: NDArray[np.int64],
        length: NDArray[np.int64],
        options: Mapping[int, bytes],
    ) -> None:
        before, per_tick = self.packets, np.array(self._ns_per_tick, np.int64)
        ticks = (np.maximum(frames.time_ns, 0) // per_tick[devices]).astype(np.uint64)
        heads = np.empty(len(frames), EPB)
        heads["kind"], heads["length"], heads["interface"] = ENHANCED, length, devices
        heads["high"], heads["low"] = ticks >> np.uint64(32), ticks & np.uint64(0xFFFFFFFF)
        heads["captured"], heads["wire"] = frames.captured, frames.wire
        data, ends = assemble(frames, heads, length)
        scatter(data, ends - TRAILER, length.astype("<u4").view(BLOCK_END))
        for row, found in options.items():
            at = int(ends[row]) - TRAILER - len(found)
            data[at : at + len(found)] = np.frombuffer(found, np.uint8)
        try:
            self._records.append(data.data, ends)
        finally:
            whole = self.packets - before
            for index, count in enumerate(np.bincount(devices[:whole]).tolist()):
                self._written[index] += count
            times = frames.time_ns[:whole]
            self._started_ns = int(times.min(initial=self._started_ns))  # some waited before we began
            self._latest_ns = int(times.max(initial=self._latest_ns))

    def finish(self, ended_ns: int, dropped: Sequence[int] = ()) -> None:
        """Write an Interface Statistics Block for each device, and close the file.

        `ended_ns` and `dropped` are as in `CaptureWriter.finish`. No end is put before the latest packet.
        """
        ended_ns = max(ended_ns, self._latest_ns)
        try:
            for index in range(len(self._written)):
                lost = dropped[index] if index < len(dropped) else 0
                self._records.append(self._statistics(index, ended_ns, lost))
        finally:
            self.close()

    def _statistics(self, index: int, ended_ns: int, lost: int) -> bytes:
        body = struct.pack("<I", index) + _time(ended_ns)
        body += option(ISB_STARTTIME, _time(self._started_ns))
        body += option(ISB_ENDTIME, _time(ended_ns))
        body += option(ISB_IFRECV, struct.pack("<Q", self._written[index] + lost))
        body += option(ISB_IFDROP, struct.pack("<Q", lost))
        return _block(STATISTICS, body + option(END_OF_OPTIONS, b""))

    def close(self) -> None:
        """As `CaptureWriter.close`."""
        self._records.close()


class PcapWriter:
    """A classic pcap with nanoseconds: one link type, and no word on interfaces or losses.

    Args:
        file: open for writing; see `RecordFile`.
        link_type: LINKTYPE_ value of every packet.
        snaplen: bytes, 0 for no limit.

    Raises:
        OSError: the file does not take its beginning.
    """

    closing_size = 0

    def __init__(self, file: BinaryIO, link_type: int, *, snaplen: int = 0) -> None:
        self._records = RecordFile(file)
        self._link_type = link_type
        header = struct.pack("<IHHiIII", NANOSECONDS, 2, 4, 0, 0, snaplen or USUAL_SNAPLEN, link_type)
        self._records.append(header)

    @property
    def packets(self) -> int:
        return self._records.packets

    @property
    def size(self) -> int:
        return self._records.size

    def lengths(self, frames: Frames) -> NDArray[np.int64]:
        """As `CaptureWriter.lengths`."""
        return RECORD_HEADER + frames.captured

    def write(self, frames: Frames, device: int | NDArray[np.int64] = 0) -> None:  # noqa: ARG002  # it has no place
        """Write packets; see `CaptureWriter`.

        Args:
            frames: the packets, all of the file's link type.
            device: has no place in a pcap, and is left out.

        Raises:
            OSError: the file does not take all of them; see `CaptureWriter`.
            ValueError: there are packets of another link type.
        """
        if (frames.link_type != self._link_type).any():
            raise ValueError(f"a pcap of link type {self._link_type} takes no packets of another")
        for begin, end in portions(self.lengths(frames)):
            some = part(frames, begin, end)
            heads = np.empty(len(some), PCAP_RECORD)
            heads["seconds"], heads["fraction"] = np.divmod(some.time_ns, SECOND_NS)
            heads["captured"], heads["wire"] = some.captured, some.wire
            data, ends = assemble(some, heads, self.lengths(some))
            self._records.append(data.data, ends)

    def finish(self, ended_ns: int, dropped: Sequence[int] = ()) -> None:  # noqa: ARG002  # nor have these
        """Close the file. A pcap has no place for `ended_ns` and `dropped`; see `CaptureWriter`."""
        self.close()

    def close(self) -> None:
        """As `CaptureWriter.close`."""
        self._records.close()


def _section_header() -> bytes:
    import closeseq

    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, UNKNOWN_LENGTH)
    body += option(SHB_OS, f"{platform.system()} {platform.release()}".encode())
    body += option(SHB_USERAPPL, f"closeseq {closeseq.__version__}".encode())
    return _block(SECTION, body + option(END_OF_OPTIONS, b""))


def _block(kind: int, body: bytes) -> bytes:
    length = 8 + len(body) + TRAILER
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """Return an option (section 3.5), padded to a multiple of 4 bytes.

    Args:
        code: its type; 0 (END_OF_OPTIONS) ends a list.
        value: what it holds; cut to as much as its length can say, 65,535 bytes.
        order: "<" or ">", the section's byte order.
    """
    value = value[:0xFFFF]
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def _time(time_ns: int) -> bytes:
    """Return a time in nanoseconds as two halves, the high one first."""
    return struct.pack("<II", time_ns >> 32, time_ns & 0xFFFFFFFF)
