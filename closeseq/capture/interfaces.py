"""The interfaces of pcapng sections: link type, clock, and how many packets each reports lost.

Section and option numbers are those of draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SECOND_NS = 1_000_000_000
INT64 = np.iinfo(np.int64)

# Interface ids have 32 bits; a capture that truly has more interfaces than ports has not been seen, and
# a damaged or hostile file could otherwise fill the memory with them.
MOST_INTERFACES = 65_536

END_OF_OPTIONS = 0
IF_TSRESOL, IF_TSOFFSET = 9, 14  # section 4.2
ISB_ENDTIME, ISB_IFDROP, ISB_OSDROP = 3, 5, 7  # section 4.6

MICROSECONDS, NANOSECONDS = 6, 9  # as powers of ten; if_tsresol is the former where the option is missing
BINARY = 0x80  # the bit of if_tsresol that makes it a power of two
FRACTION_BITS = 34  # a fraction of so many bits times 10**9 stays below 2**64
UINT64_DECIMALS = 19  # 10**19 is the greatest power of ten below 2**64

# A capture that saw nothing for longer than this before it ended has a damaged end.
LONGEST_SILENCE_NS = 10 * 365 * 86_400 * SECOND_NS


class BlockError(Exception):
    """A block contradicts itself or the section; the text is a problem clause."""


@dataclass(frozen=True, slots=True)
class InterfaceClock:
    """How an interface counts time."""

    resolution: int = MICROSECONDS  # if_tsresol: a tick is 10**-n s, or with `BINARY` 2**-n s
    offset: int = 0  # if_tsoffset: seconds to be added

    def nanoseconds(self, tick: int) -> int:
        """Return the time of a tick in nanoseconds since the epoch, rounded down.

        Args:
            tick: as counted in a block, from the clock's zero.
        """
        exponent = self.resolution & ~BINARY
        per_second: int = 2**exponent if self.resolution & BINARY else 10**exponent
        return tick * SECOND_NS // per_second + self.offset * SECOND_NS


def times(
    resolution: int, offset: NDArray[np.int64], ticks: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the times of ticks of one resolution, and which of them no int64 can hold.

    Args:
        resolution: if_tsresol.
        offset: int64, if_tsoffset of each tick's interface, in seconds.
        ticks: uint64.

    Returns:
        int64 nanoseconds since the epoch, 0 where int64 cannot hold it; and a mask of these.
    """
    none_beyond = np.zeros(len(ticks), np.bool_)
    if not len(ticks):
        return np.empty(0, np.int64), none_beyond
    clock = InterfaceClock(resolution)
    least, greatest = clock.nanoseconds(int(ticks.min())), clock.nanoseconds(int(ticks.max()))
    before, after = int(offset.min()) * SECOND_NS, int(offset.max()) * SECOND_NS
    edges = (least + before, greatest + after, before, after, greatest)
    if all(INT64.min <= edge <= INT64.max for edge in edges):
        since_offset = _in_64_bits(resolution, ticks)
        if since_offset is not None:
            return since_offset.astype(np.int64) + offset * SECOND_NS, none_beyond
    exact = [
        clock.nanoseconds(tick) + seconds * SECOND_NS
        for tick, seconds in zip(ticks.tolist(), offset.tolist(), strict=True)
    ]
    beyond = [not INT64.min <= time <= INT64.max for time in exact]
    held = [0 if out else time for time, out in zip(exact, beyond, strict=True)]
    return np.array(held, np.int64), np.array(beyond)


def _in_64_bits(resolution: int, ticks: NDArray[np.uint64]) -> NDArray[np.uint64] | None:
    """Return ticks in nanoseconds (uint64), or None if 64 bits are too few on the way there."""
    exponent, second = resolution & ~BINARY, np.uint64(SECOND_NS)
    nanoseconds: NDArray[np.uint64] | None = None
    if resolution & BINARY:
        if exponent <= FRACTION_BITS:
            seconds = ticks >> np.uint64(exponent)
            fraction = ticks - (seconds << np.uint64(exponent))
            nanoseconds = seconds * second + (fraction * second >> np.uint64(exponent))
    elif exponent <= NANOSECONDS:
        nanoseconds = ticks * np.uint64(10 ** (NANOSECONDS - exponent))
    elif exponent - NANOSECONDS <= UINT64_DECIMALS:
        nanoseconds = ticks // np.uint64(10 ** (exponent - NANOSECONDS))
    return nanoseconds


@dataclass(slots=True)
class Interface:
    """One Interface Description Block, and the losses that other blocks report for it."""

    link_type: int  # LINKTYPE_
    snaplen: int  # bytes, 0 for no limit
    resolution: int  # see `InterfaceClock`
    offset: int  # if_tsoffset, in seconds
    lost_by_packets: int = 0  # the sum of the losses that its packets report, each those before it
    lost_by_statistics: int = 0  # all losses, as its latest Interface Statistics Block reports
    end: int | None = None  # the capture's end by the same block, in ticks

    @property
    def lost(self) -> int:
        """Packets lost. Both reports count the same losses, so the larger one holds."""
        return max(self.lost_by_packets, self.lost_by_statistics)

    def ended_ns(self, latest_ns: int) -> int | None:
        """Return the isb_endtime in nanoseconds since the epoch; None if there is none, or it makes no sense.

        Args:
            latest_ns: time of the latest packet: the capture cannot have ended before it, nor years later.
        """
        if self.end is None:
            return None
        # dumpcap (seen of 4.0) counts it in microseconds, also where its if_tsresol says nanoseconds.
        # Taken for what it is not, a time of today lies in 1970 or tens of thousands of years away.
        for clock in (InterfaceClock(self.resolution, self.offset), InterfaceClock()):
            end_ns = clock.nanoseconds(self.end)
            if latest_ns <= end_ns <= latest_ns + LONGEST_SILENCE_NS:
                return end_ns
        return None


@dataclass(frozen=True, slots=True)
class InterfaceColumns:
    """Link type, snap length and clock of all interfaces, one entry each, by the interface's place."""

    link_type: NDArray[np.uint16]  # LINKTYPE_
    snaplen: NDArray[np.int64]  # bytes
    resolution: NDArray[np.uint8]  # if_tsresol
    offset: NDArray[np.int64]  # seconds

    def times(
        self, interface: NDArray[np.int64], ticks: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return each packet's time by its interface's clock, and whether it is beyond int64.

        Args:
            interface: int64, the place of each packet's interface.
            ticks: uint64, each packet's time on that clock.

        Returns:
            As `times`: int64 nanoseconds since the epoch, 0 where they are beyond; and a mask of these.
        """
        resolution, offset = self.resolution[interface], self.offset[interface]
        each = np.unique(resolution).tolist()
        if len(each) == 1:
            return times(each[0], offset, ticks)
        time_ns, beyond = np.zeros(len(ticks), np.int64), np.zeros(len(ticks), np.bool_)
        for one in each:
            rows = np.flatnonzero(resolution == one)
            time_ns[rows], beyond[rows] = times(one, offset[rows], ticks[rows])
        return time_ns, beyond


class Interfaces:
    """The interfaces of the open section, and during a walk also those of sections that end in it.

    An interface's place is its id, counted from the place of the first interface of its section: `base`.
    """

    def __init__(self) -> None:
        self.base = 0  # of the open section
        self._all: list[Interface] = []
        self._columns: InterfaceColumns | None = None
        self._opened: list[tuple[int, int]] = []  # sections of this walk: block, base
        self._dropped_before = 0  # in sections that are closed
        self._ended_before_ns: int | None = None  # the latest end that these report

    def __len__(self) -> int:
        return len(self._all)

    @property
    def dropped(self) -> int:
        """Packets lost, in all sections so far."""
        return self._dropped_before + sum(one.lost for one in self._all)

    def ended_ns(self, latest_ns: int) -> int | None:
        """Return when the capture ended, by the latest isb_endtime that makes sense; None without one.

        Args:
            latest_ns: the time of the latest packet, since the epoch.
        """
        return self._latest_end(self._all, latest_ns)

    def _latest_end(self, interfaces: list[Interface], latest_ns: int) -> int | None:
        ends = [self._ended_before_ns, *(one.ended_ns(latest_ns) for one in interfaces)]
        return max((end for end in ends if end is not None and end >= latest_ns), default=None)

    def columns(self) -> InterfaceColumns:
        """Return the interfaces as columns."""
        if self._columns is None:
            self._columns = InterfaceColumns(
                np.array([one.link_type for one in self._all], np.uint16),
                np.array([one.snaplen for one in self._all], np.int64),
                np.array([one.resolution for one in self._all], np.uint8),
                np.array([one.offset for one in self._all], np.int64),
            )
        return self._columns

    def open_section(self, block: int) -> None:
        """Begin a section: what was declared before no longer holds. `block` is its number in the walk."""
        self.base = len(self._all)
        self._opened.append((block, self.base))

    def close_sections(
        self, block: NDArray[np.int64], time_ns: NDArray[np.int64], before_ns: int | None
    ) -> None:
        """Drop the interfaces of all sections but the open one, at the end of a walk.

        Args:
            block: the blocks of the walk's packets that have a time, by their numbers in the walk, ascending.
            time_ns: int64, these times.
            before_ns: the latest time before the walk; None if no packet had one.
        """
        if not self._opened:
            return
        at = np.searchsorted(block, [opened for opened, _ in self._opened]).tolist()
        latest_ns = np.maximum.accumulate(time_ns)
        begin = 0
        for packets, (_, base) in zip(at, self._opened, strict=True):
            known = [] if before_ns is None else [before_ns]
            known += [int(latest_ns[packets - 1])] if packets else []
            section, begin = self._all[begin:base], base
            self._dropped_before += sum(one.lost for one in section)
            self._ended_before_ns = self._latest_end(section, max(known)) if known else None
        self._all, self.base = self._all[self.base :], 0
        self._opened = []
        self._columns = None

    def declare(self, body: memoryview, order: str) -> None:
        """Take in an Interface Description Block (section 4.2).

        Args:
            body: the block without its header and trailer.
            order: "<" or ">", the section's byte order.

        Raises:
            BlockError: the block is damaged, or there are more than MOST_INTERFACES.
        """
        if len(self._all) - self.base >= MOST_INTERFACES:
            raise BlockError(f"more than {MOST_INTERFACES} interfaces are declared")
        link_type, snaplen = struct.unpack_from(f"{order}H2xI", body)
        resolution, offset = MICROSECONDS, 0
        for code, value in _options(body[8:], order):
            if code == IF_TSRESOL:
                (resolution,) = _value("if_tsresol", "B", value, order)
            elif code == IF_TSOFFSET:
                (offset,) = _value("if_tsoffset", "q", value, order)
        self._all.append(Interface(link_type, snaplen, resolution, offset))
        self._columns = None

    def statistics(self, body: memoryview, order: str) -> None:
        """Take in an Interface Statistics Block (section 4.6); its counts run from the capture's start.

        Args:
            body: the block without its header and trailer.
            order: "<" or ">", the section's byte order.

        Raises:
            BlockError: the block is damaged, or of an interface that is not declared.
        """
        (ident,) = struct.unpack_from(f"{order}I", body)
        if ident >= len(self._all) - self.base:
            raise BlockError(f"interface {ident} is not declared in this section")
        interface, lost = self._all[self.base + ident], list[int]()
        for code, value in _options(body[12:], order):
            if code in (ISB_IFDROP, ISB_OSDROP):
                lost += _value("a drop count", "Q", value, order)
            elif code == ISB_ENDTIME:
                high, low = _value("isb_endtime", "II", value, order)
                interface.end = high << 32 | low
        if lost:
            interface.lost_by_statistics = sum(lost)

    def count_lost(self, interface: NDArray[np.int64], lost: NDArray[np.uint64]) -> None:
        """Take in how many packets were lost before each of some packets.

        Args:
            interface: int64, the place of each packet's interface.
            lost: uint64, what its block reports.
        """
        reports = np.flatnonzero(lost)
        for one, count in zip(interface[reports].tolist(), lost[reports].tolist(), strict=True):
            self._all[one].lost_by_packets += count


def _options(body: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Give code and value of each option (section 3.5); the end mark may be missing."""
    while len(body) >= 4:  # noqa: PLR2004  # an option's own header
        code, length = struct.unpack_from(f"{order}HH", body)
        if code == END_OF_OPTIONS:
            return
        if 4 + length > len(body):
            raise BlockError(f"option {code} claims {length} bytes, {len(body) - 4} are left in its block")
        yield code, body[4 : 4 + length]
        body = body[4 + (length + 3 & ~3) :]


def _value(name: str, form: str, value: memoryview, order: str) -> tuple[int, ...]:
    expected = struct.calcsize("=" + form)
    if len(value) != expected:
        raise BlockError(f"{name} has {len(value)} bytes instead of {expected}")
    return struct.unpack(order + form, value)
