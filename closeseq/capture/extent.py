"""From when until when a capture file goes, found out without reading all of it where that can be.

Of a plain file, the first record and the last ones are looked at. A compressed file is read through, and so
is one whose end tells nothing: it is cut short, or has packets as long as what is looked at.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.capture import formats, pcap
from closeseq.capture.formats import HEAD, recognise
from closeseq.capture.reader import open_capture, open_file
from closeseq.capture.records import Trouble
from closeseq.capture.remote import Remote
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from typing import BinaryIO

    from closeseq.capture.records import Walker

LOOK = 1 << 18  # bytes looked at, at either end
FEW = 64  # the last records, of which the latest time counts: neighbours may have changed places
NO_RECORD = 256 * 1024  # bytes that no record has which is looked for at the end
EARLIEST_NS = -3600 * 10**9  # how far the last packets can be from the first one
LATEST_NS = 400 * 24 * 3600 * 10**9
SMALLEST_BLOCK = 12  # bytes


class Extent(NamedTuple):
    """From when until when a file goes, in nanoseconds since the Unix epoch; None if it holds no packet."""

    path: str
    first_ns: int | None  # time of its first packet
    last_ns: int | None  # the latest time


def is_stream(path: str) -> bool:
    """Whether what is there can be read only once, as a pipe: it cannot be looked at before."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # opening it will tell
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def extent(path: str) -> Extent:
    """Return from when until when a capture goes.

    Raises:
        CaptureError: it is no capture, or cannot be read.
    """
    with closing(open_file(path)) as file:
        times_ns = _of_its_ends(file)
    first_ns, last_ns = times_ns or _of_all(path)
    return Extent(path, first_ns, last_ns)


def _of_all(path: str) -> tuple[int | None, int | None]:
    """Read through a file; what is wrong with it is told when it is read for its packets."""
    first_ns = last_ns = None
    with open_capture(path) as capture:
        try:
            for frames in capture.batches():
                first_ns = int(frames.time_ns[0]) if first_ns is None else first_ns
                latest_ns = int(frames.time_ns.max())
                last_ns = latest_ns if last_ns is None else max(latest_ns, last_ns)
        except CaptureError:
            if first_ns is None:
                raise
    return first_ns, last_ns


def _of_its_ends(file: BinaryIO) -> tuple[int, int] | None:
    """Return the times of the first packet and the last ones; None if these cannot be told so."""
    size = file.size or 0 if isinstance(file, Remote) else os.fstat(file.fileno()).st_size
    if size <= 2 * LOOK:
        return None
    try:
        head, tail = (memoryview(_read_at(file, place)) for place in (0, size - LOOK))
    except OSError:
        return None  # whoever reads it through is told
    walker = recognise(bytes(head[:HEAD]))
    if isinstance(walker, Trouble):
        return None  # it may be compressed; if it is no capture, whoever reads it through is told
    first_ns = _first_ns(walker, head)
    if first_ns is None:
        return None
    last_ns = _last_ns(bytes(head[:4]), walker, tail, first_ns)
    return None if last_ns is None else (first_ns, last_ns)


def _read_at(file: BinaryIO, place: int) -> bytes:
    return file.read_at(place, LOOK) if isinstance(file, Remote) else os.pread(file.fileno(), LOOK, place)


def _first_ns(walker: Walker, head: memoryview) -> int | None:
    """Return the time of the first packet; a pcapng has other blocks before it."""
    at = walker.begins
    while True:
        walked = walker.walk(head, at, 1)
        if len(walked.time_ns):
            return int(walked.time_ns[0])
        if walked.trouble is not None or walked.end == at:
            return None
        at = walked.end


def _last_ns(magic: bytes, walker: Walker, tail: memoryview, first_ns: int) -> int | None:
    """Return the latest time of the last records, where a walk from one of them ends where the file does."""
    begins = _records(magic, tail, first_ns) if magic in formats.PCAP else _blocks(tail)
    for at in begins:
        walked = walker.walk(tail, at, len(tail))
        times_ns = walked.time_ns
        if walked.trouble is None and walked.end == len(tail) and len(times_ns):
            since_ns = times_ns - first_ns
            if since_ns.min() >= EARLIEST_NS and since_ns.max() <= LATEST_NS:
                return int(times_ns[-FEW:].max())
    return None


def _records(magic: bytes, tail: memoryview, first_ns: int) -> list[int]:
    """Return where a pcap's record headers may be: places whose bytes make sense as one."""
    order = "<" if struct.unpack("<I", magic)[0] in pcap.NS_PER_UNIT else ">"
    everywhere = np.ndarray((4, len(tail) - pcap.FILE_HEADER), order + "u4", tail, strides=(4, 1))
    second, rest, captured, wire = (column.astype(np.int64) for column in everywhere)
    since = second - first_ns // 10**9
    sound = (since >= EARLIEST_NS // 10**9) & (since <= LATEST_NS // 10**9) & (rest < 10**9)
    sound &= (captured <= wire) & (wire < NO_RECORD)
    return [int(at) for at in np.flatnonzero(sound)[:1000]]


def _blocks(tail: memoryview) -> list[int]:
    """Return where one of the last blocks of a pcapng begins: each has its length at both of its ends."""
    for order in "<>":
        at, blocks = len(tail), 0
        while blocks < FEW and at >= SMALLEST_BLOCK:
            (length,) = struct.unpack_from(order + "I", tail, at - 4)
            if length % 4 or not SMALLEST_BLOCK <= length <= at:
                break
            if struct.unpack_from(order + "I", tail, at - length + 4)[0] != length:
                break
            at, blocks = at - length, blocks + 1
        if blocks:
            return [at]
    return []
