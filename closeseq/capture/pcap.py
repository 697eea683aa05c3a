"""pcap: the classic savefile, draft-ietf-opsawg-pcap.

Before version 2.4 the two lengths of a record stood the other way round; of 2.3 there are files of both
kinds. Such old files are read as libpcap reads them: of 2.3, the smaller length is the captured one.
"""

from __future__ import annotations

import struct

import numpy as np

from closeseq.capture import lockstep
from closeseq.capture.pcaprecords import RECORD_HEADER, Form, Lengths, Records
from closeseq.capture.records import CUT_REMEDY, MAXIMUM_RECORD, Trouble, Walked, first, gather

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
NS_PER_UNIT = {MICROSECONDS: 1000, NANOSECONDS: 1}


VERSIONS = {
    **{(2, minor): Lengths.WIRE_FIRST for minor in (0, 1, 2)},
    (2, 3): Lengths.SMALLER_CAPTURED,
    (2, 4): Lengths.CAPTURED_FIRST,
    (543, 0): Lengths.WIRE_FIRST,  # the tcpdump of DG/UX
}
FILE_HEADER = 24

# tcpdump's MAXIMUM_SNAPLEN. Writers are known to announce a smaller snapshot length than they keep to.
USUAL_SNAPLEN = 262_144


# The link type field: 4 bits of FCS length, R, P (there is an FCS length), 10 reserved bits, 16 bits of
# link type. R and the reserved bits: "a reader SHOULD treat a non-zero value as an error" (section 4).
LINK_TYPE, RESERVED = 0x0000FFFF, 0x0BFF0000


def begin(header: bytes) -> PcapWalker | Trouble:
    """Return the walker for the records behind this file header, which has a pcap's magic number.

    If nothing can be read behind it, the answer says why.
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
    dropped = 0  # the format has no place to say it
    ended_ns = None  # nor this
    untimed = 0  # every record has its time

    def __init__(self, form: Form, link_type: int) -> None:
        self._form = form
        self._link_type = link_type

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Go along at most `most` records from byte `at`; see `Walker`."""
        start, _ = lockstep.walk(Records(window, self._form), at, most)
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
        walked.wire = np.maximum(wire[:good], walked.captured)  # section 5: a reader may put this right
        seconds, fraction = header["seconds"].astype(np.int64), header["fraction"].astype(np.int64)
        walked.time_ns = seconds * 1_000_000_000 + fraction * self._form.ns_per_unit
        walked.link_type = np.full(good, self._link_type, np.uint16)
        return walked

    def cut(self, window: memoryview, at: int) -> Trouble:
        """Say what the file's end cuts short; see `Walker`."""
        there = len(window) - at
        if there < RECORD_HEADER:
            problem = f"the file ends inside the packet's header ({there} of {RECORD_HEADER} bytes)"
        else:
            claimed = min(self._form.claimed.unpack_from(window, at + self._form.captured_at))
            problem = f"the file ends inside the packet ({there - RECORD_HEADER} of {claimed} bytes)"
        return Trouble(problem, at, CUT_REMEDY)
