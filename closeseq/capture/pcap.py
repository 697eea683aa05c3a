"""pcap, the classic savefile (draft-ietf-opsawg-pcap): its header, its records, and the walk along them.

Before version 2.4 the two lengths of a record stood the other way round; of 2.3 there are files of both
kinds. Such old files are read as libpcap reads them: of 2.3, the smaller length is the captured one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

from closeseq.capture import walk
from closeseq.capture.walk import (
    CUT_REMEDY,
    MAXIMUM_RECORD,
    Trouble,
    Walked,
    first,
)
from closeseq.packets.gather import gather, gather_runs, numbers

RECORD_HEADER = 16
CAPTURED_AT, WIRE_AT = 8, 12  # the two lengths' places in a record header; each other's in old files
DAY = 86_400  # seconds; records of one window are seldom further apart

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
NS_PER_UNIT = {MICROSECONDS: 1000, NANOSECONDS: 1}
FILE_HEADER = 24
# tcpdump's MAXIMUM_SNAPLEN. Writers are known to announce a smaller snapshot length than they keep to.
USUAL_SNAPLEN = 262_144

# The link type field: 4 bits of FCS length, R, P (there is an FCS length), 10 reserved bits, 16 bits of
# link type. R and the reserved bits: "a reader SHOULD treat a non-zero value as an error" (section 4).
LINK_TYPE, RESERVED = 0x0000FFFF, 0x0BFF0000


class Lengths(Enum):
    """How the two lengths of a record stand."""

    CAPTURED_FIRST = auto()
    WIRE_FIRST = auto()
    SMALLER_CAPTURED = auto()  # either way


@dataclass(frozen=True)
class Form:
    """How the records of one pcap are written."""

    order: str  # "<" or ">", of all numbers
    ns_per_unit: int  # nanoseconds in a unit of the fraction of a second
    longest: int  # captured bytes that make sense
    lengths: Lengths  # how the two of a record stand

    @cached_property
    def captured_at(self) -> int:
        """Where in a record header the captured length stands; or both, if either may be it."""
        return WIRE_AT if self.lengths is Lengths.WIRE_FIRST else CAPTURED_AT

    @cached_property
    def claimed(self) -> struct.Struct:
        """The lengths at `captured_at` of which the smallest is the captured one."""
        return struct.Struct(self.order + ("II" if self.lengths is Lengths.SMALLER_CAPTURED else "I"))

    @cached_property
    def number(self) -> np.dtype[np.uint32]:
        """Any number of a record header."""
        return np.dtype(f"{self.order}u4")

    @cached_property
    def layout(self) -> np.dtype[np.void]:
        """A record header."""
        names = ["seconds", "fraction", "captured", "wire"]
        if self.lengths is Lengths.WIRE_FIRST:
            names[2:] = ["wire", "captured"]
        return np.dtype([(name, self.number) for name in names])

    def lengths_of(self, header: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the captured lengths and those on the wire, as the headers claim them (int64, bytes).

        Args:
            header: a column of dtype `layout`.
        """
        captured, wire = header["captured"].astype(np.int64), header["wire"].astype(np.int64)
        if self.lengths is Lengths.SMALLER_CAPTURED:
            return np.minimum(captured, wire), np.maximum(captured, wire)
        return captured, wire


class Records:
    """The records of one window as a chain; see `walk.RecordChain`.

    Lengths are not yet checked here. A false one leads out of the window, which ends the walk, or into the
    middle of it, which does no harm: what is found behind a false length is dropped.

    Args:
        window: a piece of the file.
        form: how its records are written.
    """

    def __init__(self, window: memoryview, form: Form) -> None:
        self.last = len(window) - RECORD_HEADER
        self._window = window
        self._form = form
        fields = (
            [form.captured_at] if form.lengths is not Lengths.SMALLER_CAPTURED else [CAPTURED_AT, WIRE_AT]
        )
        self._claimed = [numbers(window, form.number, field, self.last + 1) for field in fields]

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from record to record, in a plain loop; `at`, `before`, `most` are as in `RecordChain.plain`."""
        window, claimed, captured_at = self._window, self._form.claimed.unpack_from, self._form.captured_at
        found = list[int]()
        before = min(before, self.last + 1)
        for _ in range(most):
            if at >= before:
                break
            found.append(at)
            at += RECORD_HEADER + min(claimed(window, at + captured_at))
        return found, at

    def following(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the records behind these begin, as `RecordChain.following` says."""
        within = np.minimum(at, self.last)
        captured, *other = (claimed[within] for claimed in self._claimed)
        if other:
            captured = np.minimum(captured, *other)
        behind: NDArray[np.int64] = at + captured
        behind += RECORD_HEADER
        return behind

    def plausible(self, at: NDArray[np.int64], width: int, sample: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where records may begin: there is a time near the sample's, and plausible lengths.

        `at`, `width` and `sample` are as in `RecordChain.plausible`; near is within a day of its first.
        """
        form = self._form
        earliest = gather(self._window, sample[:1], form.number) - np.uint32(DAY)  # wraps, as does the next
        mask = gather_runs(self._window, at, width, form.number) - earliest <= np.uint32(2 * DAY)
        row, column = np.nonzero(mask)
        header = gather(self._window, at[row] + column, form.layout)
        captured, wire = form.lengths_of(header)
        sensible = (captured <= wire) & (captured <= form.longest) & (wire > 0) & (wire <= form.longest)
        mask[row, column] = sensible & (header["fraction"] < 1_000_000_000 // form.ns_per_unit)
        return mask


VERSIONS = {
    **{(2, minor): Lengths.WIRE_FIRST for minor in (0, 1, 2)},
    (2, 3): Lengths.SMALLER_CAPTURED,
    (2, 4): Lengths.CAPTURED_FIRST,
    (543, 0): Lengths.WIRE_FIRST,  # the tcpdump of DG/UX
}


def begin(header: bytes) -> PcapWalker | Trouble:
    """Return the walker for the records behind this file header, which has a pcap's magic number.

    If none of them can be read, return the reason.
    """
    order = ">" if int.from_bytes(header[:4], "big") in NS_PER_UNIT else "<"
    if len(header) < FILE_HEADER:
        problem = f"the file ends inside its header ({len(header)} of {FILE_HEADER} bytes)"
        return Trouble(problem, 0, CUT_REMEDY)
    magic, major, minor, snaplen, link = struct.unpack_from(f"{order}IHH8xII", header)
    if (major, minor) not in VERSIONS:
        problem = f"pcap version {major}.{minor} is not known; 2.4 is the only one in use since 1998"
        return Trouble(problem, 4, "rewrite it with the program that wrote it, if that can write 2.4")
    if link & RESERVED:
        problem = f"the link type field {link:#010x} has bits set that have no meaning"
        return Trouble(problem, 20, "the header is damaged: copy the file again")
    longest = min(max(snaplen, USUAL_SNAPLEN), MAXIMUM_RECORD)
    form = Form(order, NS_PER_UNIT[magic], longest, VERSIONS[major, minor])
    return PcapWalker(form, link & LINK_TYPE)


class PcapWalker:
    """The walk along the records of a pcap.

    Args:
        form: how its records are written.
        link_type: LINKTYPE_ value, of all of them.
    """

    begins = FILE_HEADER
    dropped = 0  # the format cannot report it
    ended_ns = None  # nor this
    untimed = 0  # every record has its time

    def __init__(self, form: Form, link_type: int) -> None:
        self._form = form
        self._link_type = link_type

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Go along at most `most` records of the window from byte `at`; as `Walker.walk`."""
        start, _ = walk.walk(Records(window, self._form), at, most)
        header = gather(window, start, self._form.layout)
        captured, wire = self._form.lengths_of(header)
        offset = start + RECORD_HEADER
        longest = self._form.longest
        damaged = captured > longest
        good = first(damaged | (offset + captured > len(window)))
        end = int(offset[good - 1] + captured[good - 1]) if good else at
        walked = Walked(end, RECORD_HEADER)
        if good < len(start):  # the record there is damaged, or not whole
            claimed = int(captured[good])
            walked.wanted += claimed
            if damaged[good]:
                problem = f"the record claims {claimed} captured bytes, and at most {longest} make sense"
                walked.trouble = Trouble(problem, end + self._form.captured_at)
        header, walked.offset, walked.captured = header[:good], offset[:good], captured[:good]
        walked.begin = start[:good]
        walked.wire = np.maximum(wire[:good], walked.captured)  # section 5: a reader may put this right
        seconds, fraction = header["seconds"].astype(np.int64), header["fraction"].astype(np.int64)
        walked.time_ns = seconds * 1_000_000_000 + fraction * self._form.ns_per_unit
        walked.link_type = np.full(good, self._link_type, np.uint16)
        return walked

    def cut(self, window: memoryview, at: int) -> Trouble:
        """Return what the end of the file, and of the window, cuts short at `at`; as `Walker.cut`."""
        there = len(window) - at
        if there < RECORD_HEADER:
            problem = f"the file ends inside the packet's header ({there} of {RECORD_HEADER} bytes)"
        else:
            claimed = min(self._form.claimed.unpack_from(window, at + self._form.captured_at))
            problem = f"the file ends inside the packet ({there - RECORD_HEADER} of {claimed} bytes)"
        return Trouble(problem, at, CUT_REMEDY)
