"""Which capture files continue each other, by the times of their packets.

A ring of files that `tcpdump -G`, `dumpcap -b` or `closeseq live --rotate` wrote is one capture: a connection
does not end where a file does. Files that follow one another in time are a chain, in the order of their first
packets; files that overlap in time were captured in different places, so are different chains. Only where a
file could continue more than one chain, its name decides.

A plain file's times are read from its first record and its last ones. A compressed file is read through, and
so is one whose end is unclear: it is cut short, or has packets as long as the part that is looked at.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from bisect import bisect_left, insort
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.capture import pcap, reader
from closeseq.capture.reader import HEAD, STANDARD_INPUT, open_capture, open_file, recognise
from closeseq.capture.source import Remote
from closeseq.capture.walk import Trouble
from closeseq.errors import CaptureError
from closeseq.packets.gather import numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from closeseq.capture.walk import Walker

LOOK = 1 << 18  # bytes looked at, at either end
FEW = 64  # the last records, of which the latest time counts: neighbours may have changed places
NO_RECORD = 256 * 1024  # bytes that no record has which is looked for at the end
EARLIEST_NS = -3600 * 10**9  # how far the last packets can be from the first one
LATEST_NS = 400 * 24 * 3600 * 10**9
SMALLEST_BLOCK = 12  # bytes
SLACK_NS = 1_000_000_000  # a file's first packet may be so much before the last one of the file before it,
SLACK_SHARE = 10  # and at most this part of the shorter one's time
ENDING = re.compile(r"(\.(pcapng|pcap|cap|dmp)\d*)?(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)
DIGITS = re.compile(r"\d+")


class Chain(NamedTuple):
    """Files that are one capture, and the files named with them."""

    paths: tuple[str, ...]  # in the order of their times
    empty: tuple[str, ...] = ()  # files beside them that hold no packet
    beside: tuple[str, ...] = ()  # the first files of other chains, which overlap this one in time


class Timed(NamedTuple):
    """A file that has packets; such files sort by their times."""

    first_ns: int  # time of its first packet, since the Unix epoch
    last_ns: int  # its latest packet's time
    natural: tuple[str | int, ...]  # its name, for the order of files with equal times
    position: int  # among the files that were named
    path: str

    def follows(self, other: Timed) -> bool:
        """Whether it may continue the other one, which begins no later: it overlaps it by little at most."""
        shorter_ns = min(self.last_ns - self.first_ns, other.last_ns - other.first_ns)
        return self.first_ns >= other.last_ns - min(SLACK_NS, shorter_ns // SLACK_SHARE)


def find_chains(paths: Sequence[str]) -> tuple[list[Chain], list[CaptureError]]:
    """Arrange files into chains. What can be read only once (standard input, a pipe) is a chain of its own.

    Args:
        paths: names or URLs of files, in any order. A single one is not looked at.

    Returns:
        The chains, in the order in which their first files were named; and an error for each file that is in
        none, since it is no capture or cannot be read.
    """
    if len(paths) == 1:
        return [Chain((paths[0],))], []
    extents: dict[int, FileSpan] = {}
    broken, alone = [], []
    for index, path in enumerate(paths):
        if path == STANDARD_INPUT or is_stream(path):
            alone.append((index, Chain((path,))))
            continue
        try:
            extents[index] = extent(path)
        except CaptureError as error:
            broken.append(error)
    found = sorted([*_with_the_empty(extents), *alone])
    return [chain for _, chain in found], broken


def _with_the_empty(extents: dict[int, FileSpan]) -> list[tuple[int, Chain]]:
    """Return the chains of these files, each with the least index of its files."""
    timed = [
        Timed(one.first_ns, one.last_ns, natural(one.path), index, one.path)
        for index, one in extents.items()
        if one.first_ns is not None and one.last_ns is not None
    ]
    empty = [(index, one.path) for index, one in extents.items() if one.first_ns is None]
    runs = arranged(timed)
    if not runs:
        return [(index, Chain((path,))) for index, path in empty]
    empty_of: list[list[str]] = [[] for _ in runs]
    for _, path in empty:
        nearest = max(
            range(len(runs)), key=lambda number: max(likeness(path, one.path) for one in runs[number])
        )
        empty_of[nearest].append(path)
    return [
        (
            min(one.position for one in run),
            Chain(tuple(one.path for one in run), tuple(without), _beside(run, runs)),
        )
        for run, without in zip(runs, empty_of, strict=True)
    ]


def _beside(run: list[Timed], runs: list[list[Timed]]) -> tuple[str, ...]:
    """Return the first files of the other chains that overlap this one in time."""
    first_ns, last_ns = run[0].first_ns, max(one.last_ns for one in run)
    return tuple(
        other[0].path
        for other in runs
        if other is not run and other[0].first_ns <= last_ns and max(o.last_ns for o in other) >= first_ns
    )


def arranged(files: Iterable[Timed]) -> list[list[Timed]]:
    """Return files in chains, each in the order of its times.

    First files of one naming are chained, since a rotation's names are alike; then chains are joined of which
    no file overlaps one of the other.

    Args:
        files: those that have packets, in any order.
    """
    families: dict[str, list[list[Timed]]] = {}
    for one in sorted(files):
        runs = families.setdefault(family(one.path), [])
        ending = [run for run in runs if one.follows(run[-1])]
        if ending:
            max(ending, key=lambda run: (likeness(run[-1].path, one.path), run[-1].last_ns)).append(one)
        else:
            runs.append([one])
    chains: list[list[Timed]] = []
    for run in sorted(run for runs in families.values() for run in runs):
        into = next((chain for chain in chains if _fits(run, chain)), None)
        if into is None:
            chains.append(run)
        else:
            for one in run:
                insort(into, one)
    return chains


def _fits(run: list[Timed], chain: list[Timed]) -> bool:
    """Whether no file of the run overlaps one of the chain."""
    for one in run:
        at = bisect_left(chain, one)
        if at and not one.follows(chain[at - 1]):
            return False
        if at < len(chain) and not chain[at].follows(one):
            return False
    return True


def family(path: str) -> str:
    """Return what the names of one rotation have in common: all but numbers and the compression's ending."""
    return DIGITS.sub("0", ENDING.sub("", path))


def likeness(one: str, other: str) -> int:
    """Return how many characters two names have in common at their beginnings and at their ends.

    Args:
        one: a name.
        other: the name that it is compared with; either way round it is the same.
    """
    return _in_common(one, other) + _in_common(one[::-1], other[::-1])


def _in_common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def natural(path: str) -> tuple[str | int, ...]:
    """Return a key that sorts names by their numbers: f9 comes before f10."""
    parts = re.split(r"(\d+)", path)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


class FileSpan(NamedTuple):
    """The times of a file's packets, in nanoseconds since the Unix epoch; None if it has no packet."""

    path: str
    first_ns: int | None  # time of its first packet
    last_ns: int | None  # the latest time


def is_stream(path: str) -> bool:
    """Whether this can be read only once, as a pipe: its times cannot be read before."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # opening it raises the error
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def extent(path: str) -> FileSpan:
    """Return the times of a capture's packets; `path` is a file's name or URL.

    Raises:
        CaptureError: it is no capture, or cannot be read.
    """
    with closing(open_file(path)) as file:
        times_ns = _times_at_both_ends(file)
    first_ns, last_ns = times_ns or _times_of_all(path)
    return FileSpan(path, first_ns, last_ns)


def _times_of_all(path: str) -> tuple[int | None, int | None]:
    """Read through a file; damage behind the first packet is reported when its packets are analysed."""
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


def _times_at_both_ends(file: BinaryIO) -> tuple[int, int] | None:
    """Return the times of the first packet and the last ones; None if all of the file must be read."""
    size = file.size or 0 if isinstance(file, Remote) else os.fstat(file.fileno()).st_size
    if size <= 2 * LOOK:
        return None
    try:
        head, tail = (memoryview(_read_at(file, place)) for place in (0, size - LOOK))
    except OSError:
        return None  # reading it through raises the error
    walker = recognise(bytes(head[:HEAD]))
    if isinstance(walker, Trouble):
        return None  # it may be compressed; if it is no capture, reading it through raises the error
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
    begins = _records(magic, tail, first_ns) if magic in reader.PCAP else _blocks(tail)
    for at in begins:
        walked = walker.walk(tail, at, len(tail))
        times_ns = walked.time_ns
        if walked.trouble is None and walked.end == len(tail) and len(times_ns):
            since_ns = times_ns - first_ns
            if since_ns.min() >= EARLIEST_NS and since_ns.max() <= LATEST_NS:
                return int(times_ns[-FEW:].max())
    return None


def _records(magic: bytes, tail: memoryview, first_ns: int) -> list[int]:
    """Return where a pcap's record headers may be: places whose bytes are plausible as one."""
    order = "<" if struct.unpack("<I", magic)[0] in pcap.NS_PER_UNIT else ">"
    number, count = np.dtype(f"{order}u4"), len(tail) - pcap.FILE_HEADER
    fields = (numbers(tail, number, at, count).astype(np.int64) for at in range(0, pcap.RECORD_HEADER, 4))
    second, rest, captured, wire = fields
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
