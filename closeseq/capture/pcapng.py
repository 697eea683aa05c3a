"""pcapng: blocks within sections, draft-ietf-opsawg-pcapng."""

from __future__ import annotations

import struct

import numpy as np

from closeseq.capture.interfaces import BlockError, Interfaces
from closeseq.capture.packetblocks import ENHANCED, HEADER, OBSOLETE, SIMPLE, Blocks, Packets
from closeseq.capture.records import CUT_REMEDY, MAXIMUM_RECORD, Trouble, Walked, first, gather

SECTION = 0x0A0D0D0A  # reads the same in both byte orders
INTERFACE, STATISTICS = 1, 5
NAMES = {
    SECTION: "Section Header Block",
    INTERFACE: "Interface Description Block",
    STATISTICS: "Interface Statistics Block",
    OBSOLETE: "Packet Block",
    SIMPLE: "Simple Packet Block",
    ENHANCED: "Enhanced Packet Block",
}
# The least length of a block: its header, its fixed fields, its length again. Any other kind: index 0.
LEAST = np.array([12, 20, 32, 16, 12, 24, 32])
LEAST_SECTION = 28
TIME_AT = 12  # the timestamp's place in the blocks that have one

BYTE_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
MAJOR = 1


class PcapngWalker:
    """The walk along the blocks of a pcapng, section after section."""

    begins = 0  # with a section header

    def __init__(self) -> None:
        self.untimed = 0  # packets in simple blocks, which have no time: they get that of the one before
        self._dropped_before = 0  # in earlier sections
        self._latest_ns = 0  # of the packet before
        self._last_ns: int | None = None  # of all packets that have a time
        self._ended_before_ns: int | None = None  # what earlier sections say
        self._open_section("<")  # the first block, which is a section header, says what holds

    @property
    def dropped(self) -> int:
        """Packets that statistics blocks and packets say were lost."""
        return self._dropped_before + self._interfaces.dropped

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, by statistics blocks; see `Walker`."""
        if self._last_ns is None:
            return None
        said = (self._ended_before_ns, self._interfaces.ended_ns(self._last_ns))
        return max((end for end in said if end is not None and end >= self._last_ns), default=None)

    def _open_section(self, order: str) -> None:
        self._order = order
        self._head = struct.Struct(f"{order}II").unpack_from
        self._interfaces = Interfaces(order)

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Read a section header at byte `at`, or go along at most `most` other blocks; see `Walker`."""
        if window[at : at + 4] == SECTION.to_bytes(4, "big"):
            return self._section(window, at)
        start = self._step(window, at, most)
        head = gather(window, start, np.dtype([("kind", f"{self._order}u4"), ("length", f"{self._order}u4")]))
        length, kind = head["length"].astype(np.int64), head["kind"].astype(np.uint32)
        walked = Walked(at, LEAST[0])
        good = self._framed(window, start, length, kind, walked)
        blocks = Blocks(window, self._order, start[:good], length[:good], kind[:good])
        packets = self._packets(blocks, walked)
        if walked.trouble is None and good:
            walked.end = int(start[good - 1] + length[good - 1])
        self._deliver(packets, walked)
        return walked

    def _step(self, window: memoryview, at: int, most: int) -> np.ndarray:
        """Return where blocks begin, up to the next section header; lengths are checked afterwards."""
        unpack, found = self._head, list[int]()
        append = found.append
        try:
            for _ in range(most):
                kind, length = unpack(window, at)
                if kind == SECTION:
                    break
                append(at)
                at += length
        except struct.error:  # beyond the window's end
            pass
        return np.array(found, np.int64)

    def _section(self, window: memoryview, at: int) -> Walked:
        """Begin a new section (section 4.1): byte order and interfaces hold for it alone."""
        walked = Walked(at, LEAST_SECTION)
        if len(window) - at < LEAST_SECTION:
            return walked
        order = BYTE_ORDERS.get(bytes(window[at + 8 : at + 12]))
        if order is None:
            walked.trouble = Trouble("the section header's byte-order magic is damaged", at + 8)
            return walked
        length, major, minor = struct.unpack_from(f"{order}4xI4xHH", window, at)
        problem = _bad_length(SECTION, length, LEAST_SECTION)
        walked.wanted = length
        if problem is None and length > len(window) - at:
            return walked
        if problem is None and major != MAJOR:
            problem = f"pcapng version {major}.{minor} is not known"
        if problem is None:
            problem = _bad_trailer(SECTION, length, *struct.unpack_from(f"{order}I", window, at + length - 4))
        if problem is not None:
            walked.trouble = Trouble(problem, at)
            return walked
        self._dropped_before, self._ended_before_ns = self.dropped, self.ended_ns
        self._open_section(order)
        walked.end = at + length
        return walked

    def _framed(
        self, window: memoryview, start: np.ndarray, length: np.ndarray, kind: np.ndarray, walked: Walked
    ) -> int:
        """Return how many blocks are whole and have sound lengths; `walked` says what the next lacks."""
        least = LEAST[np.where(kind < len(LEAST), kind, 0)]
        damaged = (length < least) | (length % 4 != 0) | (length > MAXIMUM_RECORD)
        good = first(damaged | (start + length > len(window)))
        trailer = np.dtype([("length", f"{self._order}u4")])
        again = gather(window, start[:good] + length[:good] - trailer.itemsize, trailer)["length"]
        agreed = first(again != length[:good])
        if agreed < good:
            walked.end = int(start[agreed])
            problem = _bad_trailer(int(kind[agreed]), int(length[agreed]), int(again[agreed]))
            walked.trouble = Trouble(problem or "", walked.end)
        elif good < len(start):
            walked.end = int(start[good])
            walked.wanted = int(length[good])
            problem = _bad_length(int(kind[good]), int(length[good]), int(least[good]))
            walked.trouble = Trouble(problem, walked.end) if problem else None
        return agreed

    def _packets(self, blocks: Blocks, walked: Walked) -> Packets:
        """Read interfaces, statistics and packets; at the first block that contradicts, set the trouble."""
        declared = len(self._interfaces) + np.cumsum(blocks.kind == INTERFACE)
        stop = len(blocks.kind)
        for row in np.flatnonzero((blocks.kind == INTERFACE) | (blocks.kind == STATISTICS)).tolist():
            body = blocks.window[blocks.start[row] + 8 : blocks.start[row] + blocks.length[row] - 4]
            try:
                if blocks.kind[row] == INTERFACE:
                    self._interfaces.declare(body)
                else:
                    self._interfaces.statistics(body)
            except BlockError as error:
                stop = row
                self._stop(blocks, row, str(error), walked)
                break
        packets = blocks.packets(self._interfaces.snaplen)
        packets = packets.take(slice(0, int(np.searchsorted(packets.row, stop))))
        foreign = packets.interface >= declared[packets.row]
        good = first(foreign | (packets.captured > packets.room))
        if good < len(packets.row):
            if foreign[good]:
                problem = f"interface {packets.interface[good]} is not declared in this section"
            else:
                captured, room = packets.captured[good], packets.room[good]
                problem = f"{captured} captured bytes cannot be in a block with room for {room}"
            self._stop(blocks, int(packets.row[good]), problem, walked)
        return packets.take(slice(0, good))

    @staticmethod
    def _stop(blocks: Blocks, row: int, problem: str, walked: Walked) -> None:
        walked.end = int(blocks.start[row])
        name = NAMES[int(blocks.kind[row])]
        walked.trouble = Trouble(f"{name}: {problem}", walked.end)

    def _deliver(self, packets: Packets, walked: Walked) -> None:
        """Fill the columns; stop before the first packet whose time is beyond all clocks."""
        link_types, clocks = self._interfaces.columns()
        time_ns, beyond = self._times(packets, clocks)
        good = first(beyond & packets.timed)
        if good < len(beyond):
            walked.end = int(packets.offset[good]) - HEADER[ENHANCED]
            problem = "the packet's time is outside the years 1677 to 2262"
            walked.trouble = Trouble(problem, walked.end + TIME_AT)
            packets, time_ns = packets.take(slice(0, good)), time_ns[:good]
        self._interfaces.count_lost(packets.interface, packets.lost)
        walked.offset, walked.captured, walked.wire = packets.offset, packets.captured, packets.wire
        walked.link_type = link_types[packets.interface]
        walked.interface = packets.interface.astype(np.uint32)
        walked.time_ns = self._with_latest(time_ns, packets.timed)

    def _times(self, packets: Packets, clocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each packet's time by its interface's clock (int64), and whether it is beyond int64."""
        clock, each = clocks[packets.interface], self._interfaces.clocks
        if len(each) == 1:
            return each[0].column(packets.ticks)
        time_ns, beyond = np.zeros(len(clock), np.int64), np.zeros(len(clock), np.bool_)
        order = np.argsort(clock, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(clock[order])) + 1):
            if len(rows):
                time_ns[rows], beyond[rows] = each[clock[rows[0]]].column(packets.ticks[rows])
        return time_ns, beyond

    def _with_latest(self, time_ns: np.ndarray, timed: np.ndarray) -> np.ndarray:
        """Give the packets that have no time that of the packet before; the epoch if there is none."""
        if timed.any():
            last_ns = int(time_ns[timed].max())
            self._last_ns = last_ns if self._last_ns is None else max(self._last_ns, last_ns)
        if timed.all():
            if len(time_ns):
                self._latest_ns = int(time_ns[-1])
            return time_ns
        self.untimed += int(np.count_nonzero(~timed))
        latest = np.maximum.accumulate(np.where(timed, np.arange(1, len(timed) + 1), 0))
        filled = np.concatenate(([self._latest_ns], time_ns))[latest]
        self._latest_ns = int(filled[-1])
        return filled

    def cut(self, window: memoryview, at: int) -> Trouble:
        """Say what the file's end cuts short; see `Walker`."""
        there = len(window) - at
        if there < LEAST[0]:
            return Trouble(
                f"the file ends inside a block's header ({there} of {LEAST[0]} bytes)", at, CUT_REMEDY
            )
        kind, length = self._head(window, at)
        if kind == SECTION:
            return Trouble("the file ends inside a Section Header Block", at, CUT_REMEDY)
        return Trouble(f"the file ends inside the {_name(kind)} ({there} of {length} bytes)", at, CUT_REMEDY)


def _name(kind: int) -> str:
    return NAMES.get(kind, f"block of type {kind:#x}")


def _bad_length(kind: int, length: int, least: int) -> str | None:
    if length < least:
        return f"the {_name(kind)} claims {length} bytes, and has at least {least}"
    if length % 4:
        return f"the {_name(kind)} claims {length} bytes, which is not a multiple of 4"
    if length > MAXIMUM_RECORD:
        return f"the {_name(kind)} claims {length} bytes, and at most {MAXIMUM_RECORD} make sense"
    return None


def _bad_trailer(kind: int, length: int, again: int) -> str | None:
    if length != again:
        return f"the {_name(kind)} claims {length} bytes at its begin and {again} at its end"
    return None
