"""The blocks of a pcapng: where each begins, and the packets in them, many blocks at a time.

`BlockChain` finds where blocks begin, before anything in them is checked. `Blocks` reads the packet blocks:
Enhanced (draft-ietf-opsawg-pcapng, section 4.3), Simple (4.4) and the obsolete Packet Block (appendix A).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

from closeseq.packets.gather import gather, gather_in_order, gather_runs, numbers

SECTION = 0x0A0D0D0A  # reads the same in both byte orders
SHORTEST = 12  # bytes of a block with nothing in it: its kind, its length, its length again
LENGTH_AGAIN = 4  # bytes
HEAD = np.dtype([("kind", "<u4"), ("length", "<u4")])
HEADS = {order: struct.Struct(f"{order}II") for order in "<>"}

OBSOLETE, SIMPLE, ENHANCED = 2, 3, 6
KINDS = (OBSOLETE, SIMPLE, ENHANCED)
HEADER = {OBSOLETE: 28, SIMPLE: 12, ENHANCED: 28}  # bytes before the packet
TRAILER = 4  # the block's length once more, behind everything
DROPS_UNKNOWN = 0xFFFF  # in the obsolete block's count
EPB_DROPCOUNT = 4
OPTION = np.dtype([("code", "<u2"), ("length", "<u2")])
COUNT = np.dtype([("lost", "<u8")])
# Options are looked through in step, one of every block at a time. The count stands among the first; a
# damaged block of a million empty options is not worth a million rounds.
MOST_OPTIONS = 32


class BlockChain:
    """The blocks of one window in one byte order, up to a section header; see `walk.RecordChain`.

    Lengths are not yet checked here: what is found behind a false one is dropped.

    Args:
        window: a piece of the file.
        order: "<" or ">", the section's byte order.
    """

    def __init__(self, window: memoryview, order: str) -> None:
        self.last = len(window) - HEAD.itemsize
        self._window = window
        self._order = order

    # Made when they are first needed: a section may be too small for that.

    @cached_property
    def _number(self) -> np.dtype[np.uint32]:
        return np.dtype(f"{self._order}u4")

    @cached_property
    def _head(self) -> np.dtype[np.void]:
        return np.dtype([("kind", self._number), ("length", self._number)])

    @cached_property
    def _kind(self) -> NDArray[np.uint32]:
        """The kind of a block, wherever it begins."""
        return numbers(self._window, self._number, 0, self.last + 1)

    @cached_property
    def _length(self) -> NDArray[np.uint32]:
        return numbers(self._window, self._number, 4, self.last + 1)

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from block to block, in a plain loop; `at`, `before`, `most` are as in `RecordChain.plain`."""
        window, unpack = self._window, HEADS[self._order].unpack_from
        found = list[int]()
        before = min(before, self.last + 1)
        for _ in range(most):
            if at >= before:
                break
            kind, length = unpack(window, at)
            if kind == SECTION:
                break
            found.append(at)
            at += max(length, SHORTEST)
        return found, at

    def following(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the blocks behind these begin; a section header is not passed."""
        within = np.minimum(at, self.last)
        length = np.maximum(self._length[within], SHORTEST)
        return at + np.where(self._kind[within] == SECTION, 0, length)

    def plausible(self, at: NDArray[np.int64], width: int, sample: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where blocks may begin: of the last sample's kind, with a plausible length at both ends.

        `at`, `width` and `sample` are as in `RecordChain.plausible`.
        """
        window, number = self._window, self._number
        kind = gather(window, sample[-1:], self._head)["kind"]
        mask: NDArray[np.bool_] = gather_runs(window, at, width, number) == kind
        row, column = np.nonzero(mask)
        start = at[row] + column
        length = gather(window, start, self._head)["length"].astype(np.int64)
        again_at = start + length - LENGTH_AGAIN
        aligned = (start - sample[-1]) % 4 == 0
        sensible = aligned & (length >= SHORTEST) & (again_at + LENGTH_AGAIN <= len(window))
        sensible[sensible] &= gather(window, again_at[sensible], number) == length[sensible]
        mask[row, column] = sensible
        return mask


@dataclass(frozen=True, slots=True)
class PacketBlocks:
    """Packet blocks as columns with one entry a packet."""

    row: NDArray[np.int64]  # the block's index in the walk
    offset: NDArray[np.int64]  # of the packet's first byte in the window
    captured: NDArray[np.int64]  # bytes
    room: NDArray[np.int64]  # bytes of the block for the packet and its options
    wire: NDArray[np.int64]  # bytes, at least `captured`
    interface: NDArray[np.int64]  # its place among the interfaces of the walk's sections
    ticks: NDArray[np.uint64]  # on the interface's clock; 0 in simple blocks
    timed: NDArray[np.bool_]  # false in simple blocks
    lost: NDArray[np.uint64]  # packets lost since the one before it, as the block itself reports

    def take(self, rows: slice | NDArray[np.int64]) -> PacketBlocks:
        """Return the packets that a slice or an index array selects."""
        return PacketBlocks(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a walk, all of them whole and long enough for their headers."""

    window: memoryview  # the piece of the file that they are in
    big: NDArray[np.bool_]  # whether its section is big-endian
    start: NDArray[np.int64]  # of each block in the window
    length: NDArray[np.int64]  # bytes from there
    kind: NDArray[np.uint32]  # block type

    def packets(self, base: NDArray[np.int64], snaplen: NDArray[np.int64]) -> PacketBlocks:
        """Return the packets in order.

        Args:
            base: int64, for each block, the place of its section's first interface.
            snaplen: int64, bytes (0 for no limit) by the place of the interface.
        """
        parts = []
        for kind in KINDS:
            row = np.flatnonzero(self.kind == kind)
            if len(row):
                parts.append(
                    self._simple(row, base[row], snaplen)
                    if kind == SIMPLE
                    else self._timed(row, base[row], kind)
                )
        if len(parts) == 1:
            return parts[0]
        if not parts:
            nothing = np.empty(0, np.int64)
            return self._timed(nothing, nothing, ENHANCED)
        joined = PacketBlocks(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(PacketBlocks))
        )
        return joined.take(np.argsort(joined.row))

    def _timed(self, row: NDArray[np.int64], base: NDArray[np.int64], kind: int) -> PacketBlocks:
        """Read enhanced blocks, or obsolete ones, which keep a count of losses in half of the id's place."""
        short, long = "<u2", "<u4"
        ids = [("interface", long)] if kind == ENHANCED else [("interface", short), ("lost", short)]
        rest = [(name, long) for name in ("high", "low", "captured", "wire")]
        header = self._gather(row, [("", "V8"), *ids, *rest])
        captured = header["captured"].astype(np.int64)
        offset = self.start[row] + HEADER[kind]
        room = self.length[row] - HEADER[kind] - TRAILER
        if kind == ENHANCED:
            lost = self._lost_in_options(offset + _padded(captured), offset + room, self.big[row])
        else:
            lost = np.where(header["lost"] == DROPS_UNKNOWN, 0, header["lost"]).astype(np.uint64)
        return PacketBlocks(
            row=row,
            offset=offset,
            captured=captured,
            room=room,
            wire=np.maximum(header["wire"], captured),  # section 4.3: a reader may put this right
            interface=base + header["interface"].astype(np.int64),
            ticks=header["high"].astype(np.uint64) << np.uint64(32) | header["low"],
            timed=np.ones(len(row), np.bool_),
            lost=lost,
        )

    def _simple(
        self, row: NDArray[np.int64], base: NDArray[np.int64], snaplen: NDArray[np.int64]
    ) -> PacketBlocks:
        """Read simple blocks: no time, the first interface, and the captured length is to be inferred."""
        wire = self._gather(row, [("", "V8"), ("wire", "<u4")])["wire"].astype(np.int64)
        most = np.append(snaplen, 0)[np.minimum(base, len(snaplen))]  # 0 where none is declared
        nothing = np.zeros(len(row), np.uint64)
        return PacketBlocks(
            row=row,
            offset=self.start[row] + HEADER[SIMPLE],
            captured=np.where(most > 0, np.minimum(wire, most), wire),
            room=self.length[row] - HEADER[SIMPLE] - TRAILER,
            wire=wire,
            interface=base,
            ticks=nothing,
            timed=np.zeros(len(row), np.bool_),
            lost=nothing,
        )

    def _gather(self, row: NDArray[np.int64], layout: list[tuple[str, str]]) -> NDArray[np.void]:
        return gather_in_order(self.window, self.start[row], self.big[row], np.dtype(layout))

    def _lost_in_options(
        self, at: NDArray[np.int64], end: NDArray[np.int64], big: NDArray[np.bool_]
    ) -> NDArray[np.uint64]:
        """Return the epb_dropcount of each block, 0 where it has none; the options lie from `at` to `end`."""
        lost = np.zeros(len(at), np.uint64)
        rows = np.flatnonzero(at + OPTION.itemsize <= end)
        at = at[rows]
        for _ in range(MOST_OPTIONS):
            if not len(rows):
                break
            header = gather_in_order(self.window, at, big[rows], OPTION)
            at = at + OPTION.itemsize
            length = header["length"].astype(np.int64)
            counts = (header["code"] == EPB_DROPCOUNT) & (length == COUNT.itemsize)
            counts &= at + length <= end[rows]
            lost[rows[counts]] = gather_in_order(self.window, at[counts], big[rows[counts]], COUNT)["lost"]
            at = at + _padded(length)
            on = (header["code"] != 0) & (at + OPTION.itemsize <= end[rows])
            rows, at = rows[on], at[on]
        return lost


def _padded(length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return lengths with the padding that brings the next field to a multiple of four."""
    return length + 3 & ~3
