"""What the packet blocks of pcapng say, many blocks at a time.

Enhanced (draft-ietf-opsawg-pcapng, section 4.3), Simple (4.4) and the obsolete Packet Block (appendix A).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from closeseq.capture.records import gather_in_order

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


@dataclass(frozen=True, slots=True)
class Packets:
    """Packet blocks as columns of equal length."""

    row: np.ndarray  # int64, the block's index in the walk
    offset: np.ndarray  # int64, of the packet's first byte in the window
    captured: np.ndarray  # int64, bytes
    room: np.ndarray  # int64, bytes of the block for the packet and its options
    wire: np.ndarray  # int64, bytes, at least `captured`
    interface: np.ndarray  # int64, its place among the interfaces of the walk's sections
    ticks: np.ndarray  # uint64, on the interface's clock; 0 in simple blocks
    timed: np.ndarray  # bool, false in simple blocks
    lost: np.ndarray  # uint64, packets lost since the one before it, as far as the block itself says

    def take(self, rows: slice | np.ndarray) -> Packets:
        """Return the packets that a slice or an index array selects."""
        return Packets(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a walk, all of them whole and long enough for their headers."""

    window: memoryview
    big: np.ndarray  # bool, whether its section is big-endian
    start: np.ndarray  # int64, of each block in the window
    length: np.ndarray  # int64, bytes from there
    kind: np.ndarray  # uint32

    def packets(self, base: np.ndarray, snaplen: np.ndarray) -> Packets:
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
        joined = Packets(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Packets)))
        return joined.take(np.argsort(joined.row))

    def _timed(self, row: np.ndarray, base: np.ndarray, kind: int) -> Packets:
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
        return Packets(
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

    def _simple(self, row: np.ndarray, base: np.ndarray, snaplen: np.ndarray) -> Packets:
        """Read simple blocks: no time, the first interface, and the captured length is to be inferred."""
        wire = self._gather(row, [("", "V8"), ("wire", "<u4")])["wire"].astype(np.int64)
        most = np.append(snaplen, 0)[np.minimum(base, len(snaplen))]  # 0 where none is declared
        nothing = np.zeros(len(row), np.uint64)
        return Packets(
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

    def _gather(self, row: np.ndarray, layout: list[tuple[str, str]]) -> np.ndarray:
        return gather_in_order(self.window, self.start[row], self.big[row], np.dtype(layout))

    def _lost_in_options(self, at: np.ndarray, end: np.ndarray, big: np.ndarray) -> np.ndarray:
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
            said = (header["code"] == EPB_DROPCOUNT) & (length == COUNT.itemsize) & (at + length <= end[rows])
            lost[rows[said]] = gather_in_order(self.window, at[said], big[rows[said]], COUNT)["lost"]
            at = at + _padded(length)
            on = (header["code"] != 0) & (at + OPTION.itemsize <= end[rows])
            rows, at = rows[on], at[on]
        return lost


def _padded(length: np.ndarray) -> np.ndarray:
    """Return lengths with the padding that brings the next field to a multiple of four."""
    padded: np.ndarray = length + 3 & ~3
    return padded
