"""The interfaces of one pcapng section: link type, clock, and how many packets each says it lost.

Section and option numbers are those of draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

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
class Clock:
    """How an interface counts time."""

    resolution: int = MICROSECONDS  # if_tsresol: a tick is 10**-n s, or with `BINARY` 2**-n s
    offset: int = 0  # if_tsoffset: seconds to be added

    def nanoseconds(self, tick: int) -> int:
        """Return the time of a tick in nanoseconds since the epoch, rounded down."""
        exponent = self.resolution & ~BINARY
        per_second: int = 2**exponent if self.resolution & BINARY else 10**exponent
        return tick * SECOND_NS // per_second + self.offset * SECOND_NS

    def column(self, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the times of ticks (uint64) as int64, and which of them no int64 can hold."""
        none_beyond = np.zeros(len(ticks), np.bool_)
        if not len(ticks):
            return np.empty(0, np.int64), none_beyond
        offset_ns = self.offset * SECOND_NS
        least, greatest = self.nanoseconds(int(ticks.min())), self.nanoseconds(int(ticks.max()))
        if all(INT64.min <= edge <= INT64.max for edge in (least, greatest, offset_ns, greatest - offset_ns)):
            since_offset = self._in_64_bits(ticks)
            if since_offset is not None:
                return since_offset.astype(np.int64) + offset_ns, none_beyond
        exact = [self.nanoseconds(tick) for tick in ticks.tolist()]
        beyond = [not INT64.min <= time <= INT64.max for time in exact]
        held = [0 if out else time for time, out in zip(exact, beyond, strict=True)]
        return np.array(held, np.int64), np.array(beyond)

    def _in_64_bits(self, ticks: np.ndarray) -> np.ndarray | None:
        """Return ticks in nanoseconds (uint64), or None if 64 bits are too few on the way there."""
        exponent, second = self.resolution & ~BINARY, np.uint64(SECOND_NS)
        nanoseconds: np.ndarray | None = None
        if self.resolution & BINARY:
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
    """One Interface Description Block, and what other blocks said of its losses."""

    link_type: int  # LINKTYPE_
    snaplen: int  # bytes, 0 for no limit
    clock: int  # index into `Interfaces.clocks`
    lost_by_packets: int = 0  # the sum of what its packets say was lost before each
    lost_by_statistics: int = 0  # what its latest Interface Statistics Block says was lost in all
    end: int | None = None  # the tick at which the same says that the capture ended


class Interfaces:
    """The interfaces that a section has declared so far; ids count from 0 in the order of declaration."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._all: list[Interface] = []
        self._columns: tuple[np.ndarray, np.ndarray] | None = None
        self._clocks: dict[Clock, int] = {}  # index by clock

    def __len__(self) -> int:
        return len(self._all)

    @property
    def dropped(self) -> int:
        """Packets lost. Both ways of saying it count the same losses, so the larger one holds."""
        return sum(max(i.lost_by_packets, i.lost_by_statistics) for i in self._all)

    def ended_ns(self, latest_ns: int) -> int | None:
        """Return when the capture ended, by the latest isb_endtime that makes sense.

        Args:
            latest_ns: the time of the latest packet, since the epoch.
        """
        clocks, found = self.clocks, None
        for one in self._all:
            if one.end is None:
                continue
            # dumpcap (seen of 4.0) counts it in microseconds, also where its if_tsresol says nanoseconds.
            # Taken for what it is not, a time of today lies in 1970 or tens of thousands of years away.
            for clock in (clocks[one.clock], Clock(MICROSECONDS)):
                end_ns = clock.nanoseconds(one.end)
                if latest_ns <= end_ns <= latest_ns + LONGEST_SILENCE_NS:
                    found = max(end_ns, found or end_ns)
                    break
        return found

    @property
    def snaplen(self) -> int:
        """What limits the Simple Packet Blocks: the first interface's snapshot length; 0 for no limit."""
        return self._all[0].snaplen if self._all else 0

    @property
    def clocks(self) -> list[Clock]:
        """The different clocks of the interfaces."""
        return list(self._clocks)

    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Return by interface id the link types (uint16) and the clocks' indexes (int64)."""
        if self._columns is None:
            self._columns = (
                np.array([i.link_type for i in self._all], np.uint16),
                np.array([i.clock for i in self._all], np.int64),
            )
        return self._columns

    def declare(self, body: memoryview) -> None:
        """Take in an Interface Description Block (section 4.2).

        Raises:
            BlockError: the block is damaged.
        """
        if len(self._all) >= MOST_INTERFACES:
            raise BlockError(f"more than {MOST_INTERFACES} interfaces are declared")
        link_type, snaplen = struct.unpack_from(f"{self._order}H2xI", body)
        resolution, offset = MICROSECONDS, 0
        for code, value in self._options(body[8:]):
            if code == IF_TSRESOL:
                (resolution,) = self._value("if_tsresol", "B", value)
            elif code == IF_TSOFFSET:
                (offset,) = self._value("if_tsoffset", "q", value)
        clock = Clock(resolution, offset)
        self._all.append(Interface(link_type, snaplen, self._clocks.setdefault(clock, len(self._clocks))))
        self._columns = None

    def statistics(self, body: memoryview) -> None:
        """Take in an Interface Statistics Block (section 4.6); its counts run from the capture's start.

        Raises:
            BlockError: the block is damaged, or of an interface that is not declared.
        """
        (interface,) = struct.unpack_from(f"{self._order}I", body)
        if interface >= len(self._all):
            raise BlockError(f"interface {interface} is not declared in this section")
        lost = list[int]()
        for code, value in self._options(body[12:]):
            if code in (ISB_IFDROP, ISB_OSDROP):
                lost += self._value("a drop count", "Q", value)
            elif code == ISB_ENDTIME:
                high, low = self._value("isb_endtime", "II", value)
                self._all[interface].end = high << 32 | low
        if lost:
            self._all[interface].lost_by_statistics = sum(lost)

    def count_lost(self, interface: np.ndarray, lost: np.ndarray) -> None:
        """Take in how many packets were lost before each of these packets, by their interface ids."""
        said = np.flatnonzero(lost)
        for one, count in zip(interface[said].tolist(), lost[said].tolist(), strict=True):
            self._all[one].lost_by_packets += count

    def _options(self, body: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Give code and value of each option (section 3.5); the end mark may be missing."""
        while len(body) >= 4:  # noqa: PLR2004  # an option's own header
            code, length = struct.unpack_from(f"{self._order}HH", body)
            if code == END_OF_OPTIONS:
                return
            if 4 + length > len(body):
                raise BlockError(
                    f"option {code} claims {length} bytes, {len(body) - 4} are left in its block"
                )
            yield code, body[4 : 4 + length]
            body = body[4 + (length + 3 & ~3) :]

    def _value(self, name: str, form: str, value: memoryview) -> tuple[int, ...]:
        expected = struct.calcsize("=" + form)
        if len(value) != expected:
            raise BlockError(f"{name} has {len(value)} bytes instead of {expected}")
        return struct.unpack(self._order + form, value)
