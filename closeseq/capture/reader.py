"""A saved capture as its user sees it: recognised by its first bytes, opened by name, read in batches."""

from __future__ import annotations

import os
import struct
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

import numpy as np

from closeseq.capture import pcap, pcapng, pcapng_blocks
from closeseq.capture.compression import COMPRESSIONS
from closeseq.capture.source import CHUNK, Source, is_url, open_url, standard_input
from closeseq.capture.walk import Trouble, Walked, Walker
from closeseq.errors import CaptureError
from closeseq.packets.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HEAD = pcap.FILE_HEADER  # bytes that `recognise` wants to see, if the file has as many

UNPACK = "unpack it first, for example: `{} FILE | closeseq analyze -`"
CONVERT = "convert it first, for example with `editcap -F pcapng FILE NEW`"
RECORD_AGAIN = "record it again with `tcpdump -w FILE`, or convert it with `editcap -F pcapng FILE NEW`"
COPY_BINARY = "copy it again in binary mode"

# First bytes -> what such a file is, what to do about it.
FOREIGN = {
    **{  # these are unpacked once
        magic: (f"compressed twice, with {one.name} inside", UNPACK.format(one.tool))
        for one in COMPRESSIONS
        for magic in one.magics
    },
    b"\x04\x22\x4d\x18": ("compressed with lz4", UNPACK.format("lz4cat")),
    b"\x1f\x9d": ("compressed with compress", UNPACK.format("zcat")),
    b"PK\x03\x04": ("a zip archive", UNPACK.format("unzip -p")),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", UNPACK.format("7z x -so")),
    b"snoop\x00\x00\x00": ("a Solaris snoop capture", CONVERT),
    b"btsnoop\x00": ("a Bluetooth capture (btsnoop)", "there is no TCP in it"),
    b"RTSS": ("a Microsoft Network Monitor capture", CONVERT),
    b"GMBU": ("a Microsoft Network Monitor capture", CONVERT),
    b"TRSNIFF data    \x1a": ("a Sniffer capture", CONVERT),
    b"XCP\x00": ("a NetXRay capture", CONVERT),
    b"iptrace ": ("an AIX iptrace capture", CONVERT),
    b"\x0a\x0d\x0a": ("a pcapng file whose line ends were rewritten", COPY_BINARY),
    b"\x0d\x0a\x0d": ("a pcapng file whose line ends were rewritten", COPY_BINARY),
    **{
        struct.pack(order + "I", magic): (what, CONVERT)
        for order in "<>"
        for magic, what in (
            (0xA1B2CD34, "a modified pcap (Kuznetzov's, of old Linux patches)"),
            (0xA1B234CD, "a modified pcap (Mesquita's)"),
            (0xA12B3C4D, "a modified pcap (Navtel's)"),
            (0x1C0001AC, "a modified pcap (Ixia lcap, hardware)"),
            (0x1C0001AB, "a modified pcap (Ixia lcap, software)"),
        )
    },
}
PCAP = {struct.pack(order + "I", magic) for order in "<>" for magic in pcap.NS_PER_UNIT}
PCAPNG = struct.pack("<I", pcapng_blocks.SECTION)  # the same in both byte orders
TEXT = frozenset(b"\t\n\r\x1b" + bytes(range(0x20, 0x7F)))

STANDARD_INPUT = "-"
BATCH = 1 << 15  # packets; their columns then about fit into a second-level cache


def recognise(head: bytes) -> Walker | Trouble:
    """Return the walker for a capture, or why it cannot be read: what it is and what to do.

    Args:
        head: the first `HEAD` bytes of the file, or all there are.
    """
    magic = head[:4]
    if magic == PCAPNG:
        return pcapng.PcapngWalker()
    if magic in PCAP:
        return pcap.begin(head)
    if not head:
        return Trouble("the file is empty", 0, "nothing was captured, or nothing was written yet")
    for begin, (what, remedy) in FOREIGN.items():
        if head.startswith(begin):
            return Trouble(f"not a pcap or pcapng capture: it is {what}", 0, remedy)
    if TEXT.issuperset(head):
        return Trouble(
            "not a capture: it is text", 0, "give the file that `tcpdump -w FILE` wrote, not tcpdump's output"
        )
    return Trouble(f"not a pcap or pcapng capture: it begins with {head[:8].hex(' ')}", 0, RECORD_AGAIN)


def open_capture(path: str, *, batch: int = BATCH, window: int = CHUNK) -> Capture:
    """Open a saved capture: pcap or pcapng, plain or compressed, in a file or coming through a pipe.

    Args:
        path: the file's name or URL, or "-" for standard input.
        batch: the most packets that a batch may have, at least 1.
        window: bytes of it to have in memory at a time; more for a larger record.

    Raises:
        CaptureError: there is no such file, it cannot be read, or its first bytes are not those of a
            capture. A pcapng's first section header is only looked at by the first batch.
        ValueError: `batch` is less than 1.
    """
    file = open_file(path)
    try:
        return Capture(path, Source(file, window), batch=batch)
    except BaseException:
        if path != STANDARD_INPUT:
            file.close()
        raise


def open_file(path: str, flags: int = 0) -> BinaryIO:
    """Open a file for reading, unbuffered; "-" is standard input, and it may have a URL.

    Args:
        path: its name.
        flags: what to open it with (O_...) beside the usual.

    Raises:
        CaptureError: it cannot be opened.
    """
    if path == STANDARD_INPUT:
        file = standard_input()
        if file is None or file.isatty():
            problem = "standard input is a terminal" if file else "there is no standard input"
            raise CaptureError(problem, path=path, remedy="name a capture file, or pipe one in")
        return file
    if is_url(path):
        return open_url(path)
    try:
        return FileIO(path, opener=lambda name, usual: os.open(name, usual | flags))
    except FileNotFoundError:
        raise CaptureError("no such file", path=path, remedy="check its name") from None
    except IsADirectoryError:
        raise CaptureError("this is a directory", path=path, remedy="name the captures in it") from None
    except PermissionError:
        remedy = "ask its owner, or read it with sudo"
        raise CaptureError("not permitted to read it", path=path, remedy=remedy) from None
    except OSError as error:
        raise CaptureError(
            f"cannot be opened: {error.strerror}", path=path, remedy="check its name"
        ) from None
    except ValueError:  # a null byte
        raise CaptureError("no file can have this name", path=path, remedy="check its name") from None


def walked_frames(walked: Walked, window: memoryview, before: int) -> Frames:
    """Return the frames that a walk has found, numbered on.

    Args:
        walked: the result of the walk.
        window: the bytes that it went along; the frames' buffer from now on.
        before: packets of the capture before these; the first gets the number after it.
    """
    return Frames(
        buffer=np.frombuffer(window, np.uint8),
        offset=walked.offset,
        captured=walked.captured,
        wire=walked.wire,
        time_ns=walked.time_ns,
        number=np.arange(before + 1, before + 1 + len(walked.offset)),
        link_type=walked.link_type,
        interface=walked.interface,
    )


class Stretch(NamedTuple):
    """Records of a capture that follow each other, with what stands between them."""

    frames: Frames  # the packets among them; their buffer holds all records
    start: int  # where in that buffer the first record begins
    end: int  # and behind the last one
    begin: NDArray[np.int64]  # where each packet's record begins
    sections: NDArray[np.int64]  # where section headers begin, in a pcapng


class Capture:
    """An open capture. Use it in a `with` statement, or `close` it.

    Args:
        path: the file, as the user named it.
        source: its bytes.
        batch: the most packets that a batch may have.

    Raises:
        CaptureError: the first bytes are not those of a capture.
        ValueError: `batch` is less than 1.
    """

    def __init__(self, path: str, source: Source, *, batch: int = BATCH) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self.path = path
        self.packets = 0  # delivered so far
        self._source = source
        self._batch = batch
        self._closed = False
        if len(source.window) < HEAD:
            source.more(HEAD)
        head = bytes(source.window[:HEAD])
        cut_short = source.trouble if len(head) < HEAD else None
        walker = cut_short or recognise(head)
        if isinstance(walker, Trouble):
            raise CaptureError(walker.problem, path=path, remedy=walker.remedy)
        self._walker = walker
        self.header = head[: walker.begins]  # of a pcap; a pcapng has none, and begins with a block
        self._source.at = walker.begins

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Batches that were delivered stay good."""
        self._closed = True
        self._source.close()

    @property
    def size(self) -> int | None:
        """Bytes on disk; None if that is not known, as of a pipe."""
        return self._source.size

    @property
    def position(self) -> int:
        """Bytes on disk that were used so far, up to `size`: of a compressed file, compressed bytes."""
        return self._source.position

    @property
    def dropped(self) -> int:
        """Packets that were lost, as the capture itself reports, as far as it was read; 0 without a report.

        Only pcapng reports it: isb_ifdrop and isb_osdrop (the latest of each interface), or epb_dropcount
        where these sum up to more.
        """
        return self._walker.dropped

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, in nanoseconds since the epoch, as far as it was read; None if unknown.

        Only pcapng reports it: the latest isb_endtime of its interfaces. It is ignored if it lies before the
        latest packet, as in a file with others appended, or years behind it.
        """
        return self._walker.ended_ns

    @property
    def untimed(self) -> int:
        """Packets read so far that have no time of their own, and get that of the packet before.

        These are the Simple Packet Blocks of pcapng. Before any time was known, it is 0: the epoch.
        """
        return self._walker.untimed

    def batches(self) -> Iterator[Frames]:
        """Yield the packets, in batches of at most `batch`.

        All whole packets before damage or a sudden end are delivered first. A batch's buffer is memory of its
        own, and stays good for as long as it is held.

        Raises:
            CaptureError: the capture is damaged, ends within a packet, or was changed while it was read.
            ValueError: the capture is closed.
        """
        for stretch in self.stretches():
            if len(stretch.frames):
                yield stretch.frames

    def stretches(self) -> Iterator[Stretch]:
        """Yield the same packets with their records, and all records between them: every byte that is read.

        Raises:
            CaptureError: as `batches`.
            ValueError: as `batches`.
        """
        source = self._source
        while True:
            if self._closed:
                raise ValueError("the capture is closed")
            start = source.at
            walked = self._walker.walk(source.window, start, self._batch)
            moved = walked.end > start
            source.at = walked.end
            if moved:
                sections = walked.sections[walked.sections < walked.end]
                yield Stretch(self._frames(walked), start, walked.end, walked.begin, sections)
            if walked.trouble:
                raise self._error(walked.trouble)
            if not moved and not source.more(walked.wanted):
                break
        if source.trouble:
            raise self._error(source.trouble)
        if source.at < len(source.window):
            raise self._error(self._walker.cut(source.window, source.at))

    def _frames(self, walked: Walked) -> Frames:
        frames = walked_frames(walked, self._source.window, self.packets)
        self.packets += len(frames)
        return frames

    def _error(self, trouble: Trouble) -> CaptureError:
        return CaptureError(
            trouble.problem,
            path=self.path,
            packet=self.packets + 1,
            byte=self._source.base + trouble.at,
            remedy=trouble.remedy,
        )
