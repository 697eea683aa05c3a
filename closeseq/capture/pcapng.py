"""pcapng (draft-ietf-opsawg-pcapng): the walk along its blocks, across its sections."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

from closeseq.capture import walk
from closeseq.capture.interfaces import BlockError, Interfaces
from closeseq.capture.pcapng_blocks import (
    ENHANCED,
    HEAD,
    HEADER,
    OBSOLETE,
    SECTION,
    SHORTEST,
    SIMPLE,
    TRAILER,
    BlockChain,
    Blocks,
    PacketBlocks,
)
from closeseq.capture.walk import CUT_REMEDY, MAXIMUM_RECORD, Trouble, Walked, first
from closeseq.packets.gather import gather_in_order

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
LEAST = np.array([SHORTEST, 20, 32, 16, 12, 24, 32])
LEAST_SECTION = 28
TIME_AT = 12  # the timestamp's place in the blocks that have one

BYTE_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
MAJOR = 1

LENGTH = np.dtype([("length", "<u4")])
# A walk of many stretches looks ahead, also beyond the section's end. That does not pay for a small section,
# and there may be many; so only the first sections of a walk have it.
AHEAD = 2


@dataclass(slots=True)
class BlockStarts:
    """Where the blocks of a walk begin, as far as their lengths are right."""

    parts: list[NDArray[np.int64]] = field(default_factory=list)  # of each block, in the window
    count: int = 0  # of these blocks
    section: list[int] = field(default_factory=list)  # which of them are section headers
    order: list[str] = field(default_factory=list)  # the byte order of each of these sections
    stop: Walked | None = None  # the section header at which it ended, if that is damaged or not whole

    def add(self, start: NDArray[np.int64]) -> None:
        """Append blocks, given by where they begin in the window: int64, ascending, behind those before."""
        self.parts.append(start)
        self.count += len(start)

    @property
    def start(self) -> NDArray[np.int64]:
        """Where each block begins: int64."""
        return np.concatenate(self.parts) if self.parts else np.empty(0, np.int64)


class PcapngWalker:
    """The walk along the blocks of a pcapng, across its sections."""

    begins = 0  # with a section header

    def __init__(self) -> None:
        self.untimed = 0  # packets in simple blocks, which have no time: they get that of the one before
        self._latest_ns = 0  # of the packet before
        self._last_ns: int | None = None  # of all packets that have a time
        self._interfaces = Interfaces()
        self._open_section("<")  # the first block, a section header, gives the real byte order

    @property
    def dropped(self) -> int:
        """Packets that were lost, as statistics blocks and packets report."""
        return self._interfaces.dropped

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, by statistics blocks; see `Walker`."""
        return None if self._last_ns is None else self._interfaces.ended_ns(self._last_ns)

    def _open_section(self, order: str) -> None:
        self._order = order
        self._head = struct.Struct(f"{order}II").unpack_from

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Go along at most `most` blocks of the window from byte `at`; as `Walker.walk`."""
        before = self._order
        steps = self._step(window, at, most)
        start = steps.start
        big = np.repeat(
            [order == ">" for order in (before, *steps.order)], np.diff([0, *steps.section, len(start)])
        )
        head = gather_in_order(window, start, big, HEAD)
        length, kind = head["length"].astype(np.int64), head["kind"].astype(np.uint32)
        walked = Walked(at, LEAST[0])
        good = self._framed(window, Blocks(window, big, start, length, kind), walked)
        blocks = Blocks(window, big[:good], start[:good], length[:good], kind[:good])
        if walked.trouble is None and good:
            walked.end = int(start[good - 1] + length[good - 1])
        if good == len(start) and steps.stop is not None:
            walked.wanted, walked.trouble = steps.stop.wanted, steps.stop.trouble
        self._deliver(self._packets(blocks, walked), walked)
        walked.begin = blocks.start[walked.begin]
        walked.sections = blocks.start[blocks.kind == SECTION]
        if good < len(start):  # behind a false length no section header was one
            self._open_section(before if not good else ">" if big[good - 1] else "<")
        return walked

    def _step(self, window: memoryview, at: int, most: int) -> BlockStarts:
        """Return where blocks begin; the lengths of all but section headers are checked afterwards."""
        steps = BlockStarts()
        while steps.count < most:
            chain = BlockChain(window, self._order)
            if len(steps.order) < AHEAD:
                start, at = walk.walk(chain, at, most - steps.count)
            else:
                found, at = chain.plain(at, chain.last + 1, most - steps.count)
                start = np.array(found, np.int64)
            if len(start):
                steps.add(start)
            if steps.count == most or at > chain.last:
                break
            length = self._section(window, at, steps)
            if not length:
                break
            at += length
        return steps

    def _section(self, window: memoryview, at: int, steps: BlockStarts) -> int:
        """Begin a section (section 4.1) and return its header's length; 0 if that is damaged or not whole."""
        steps.stop = Walked(at, LEAST_SECTION)
        if len(window) - at < LEAST_SECTION:
            return 0
        order = BYTE_ORDERS.get(bytes(window[at + 8 : at + 12]))
        if order is None:
            steps.stop.trouble = Trouble("the section header's byte-order magic is damaged", at + 8)
            return 0
        length, major, minor = struct.unpack_from(f"{order}4xI4xHH", window, at)
        steps.stop.wanted = length
        problem = _bad_length(SECTION, length, LEAST_SECTION)
        if problem is None and length > len(window) - at:
            return 0
        if problem is None and major != MAJOR:
            problem = f"pcapng version {major}.{minor} is not known"
        if problem is None:
            problem = _bad_trailer(SECTION, length, *struct.unpack_from(f"{order}I", window, at + length - 4))
        if problem is not None:
            steps.stop.trouble = Trouble(problem, at)
            return 0
        steps.stop = None
        steps.section.append(steps.count)
        steps.order.append(order)
        steps.add(np.array([at]))
        self._open_section(order)
        return int(length)

    def _framed(self, window: memoryview, blocks: Blocks, walked: Walked) -> int:
        """Return how many blocks are whole and have right lengths; set in `walked` why the next is not."""
        start, length, kind = blocks.start, blocks.length, blocks.kind
        least = LEAST[np.where(kind < len(LEAST), kind, 0)]
        damaged = (length < least) | (length % 4 != 0) | (length > MAXIMUM_RECORD)
        good = first(damaged | (start + length > len(window)))
        at_end = start[:good] + length[:good] - TRAILER
        again = gather_in_order(window, at_end, blocks.big[:good], LENGTH)["length"]
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

    def _packets(self, blocks: Blocks, walked: Walked) -> PacketBlocks:
        """Read interfaces, statistics and packets; at the first block that contradicts, set the trouble."""
        interfaces, kind = self._interfaces, blocks.kind
        stop = len(kind)
        declared = len(interfaces) + np.cumsum(kind == INTERFACE)
        opens = kind == SECTION
        base = np.maximum.accumulate(np.where(opens, declared, interfaces.base))
        for row in np.flatnonzero(opens | (kind == INTERFACE) | (kind == STATISTICS)).tolist():
            body = blocks.window[blocks.start[row] + 8 : blocks.start[row] + blocks.length[row] - TRAILER]
            order = ">" if blocks.big[row] else "<"
            try:
                if opens[row]:
                    interfaces.open_section(row)
                elif kind[row] == INTERFACE:
                    interfaces.declare(body, order)
                else:
                    interfaces.statistics(body, order)
            except BlockError as error:
                stop = row
                self._stop(blocks, row, str(error), walked)
                break
        packets = blocks.packets(base, interfaces.columns().snaplen)
        packets = packets.take(slice(0, int(np.searchsorted(packets.row, stop))))
        foreign = packets.interface >= declared[packets.row]
        good = first(foreign | (packets.captured > packets.room))
        if good < len(packets.row):
            if foreign[good]:
                one = packets.interface[good] - base[packets.row[good]]
                problem = f"interface {one} is not declared in this section"
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

    def _deliver(self, packets: PacketBlocks, walked: Walked) -> None:
        """Fill the columns (`begin`: the blocks' rows); stop before the first time beyond all clocks."""
        columns = self._interfaces.columns()
        time_ns, beyond = columns.times(packets.interface, packets.ticks)
        good = first(beyond & packets.timed)
        if good < len(beyond):
            walked.end = int(packets.offset[good]) - HEADER[ENHANCED]
            problem = "the packet's time is outside the years 1677 to 2262"
            walked.trouble = Trouble(problem, walked.end + TIME_AT)
            packets, time_ns = packets.take(slice(0, good)), time_ns[:good]
        self._interfaces.count_lost(packets.interface, packets.lost)
        walked.offset, walked.captured, walked.wire = packets.offset, packets.captured, packets.wire
        walked.link_type = columns.link_type[packets.interface]
        walked.interface = packets.interface.astype(np.uint32)
        walked.begin = packets.row
        before_ns = self._last_ns
        walked.time_ns = self._with_latest(time_ns, packets.timed)
        self._interfaces.close_sections(packets.row[packets.timed], walked.time_ns[packets.timed], before_ns)

    def _with_latest(self, time_ns: NDArray[np.int64], timed: NDArray[np.bool_]) -> NDArray[np.int64]:
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
        """Return what the end of the file, and of the window, cuts short at `at`; as `Walker.cut`."""
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
