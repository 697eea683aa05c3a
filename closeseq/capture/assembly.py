"""The records of a whole batch in one array: headers, packets and what stands behind them, put in place.

The reverse of `records.gather`: no Python runs for a single packet.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 8 * 1024 * 1024  # bytes of records built at a time; frames of 64 KiB would make gigabytes


def part(frames: Frames, begin: int, end: int) -> Frames:
    """Return the frames from `begin` to before `end`, in the same buffer."""
    if (begin, end) == (0, len(frames)):
        return frames
    columns = (getattr(frames, f.name)[begin:end] for f in fields(Frames) if f.name != "buffer")
    return Frames(frames.buffer, *columns)


def portions(length: np.ndarray, most: int = AT_ONCE) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the rows whose lengths sum up to at most `most` bytes, one row at least."""
    ends = np.cumsum(length)
    begin, before = 0, 0
    while begin < len(ends):
        end = max(int(np.searchsorted(ends, before + most, "right")), begin + 1)
        yield begin, end
        begin, before = end, int(ends[end - 1])


def assemble(frames: Frames, heads: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put records one behind the other: each a head, its packet, and zeros up to its length.

    Args:
        frames: the packets.
        heads: structured, one a record; what stands before the packet.
        length: int64, bytes of each whole record.

    Returns:
        The records as uint8, and where in it each ends (int64).
    """
    ends = np.cumsum(length)
    begins = ends - length
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    scatter(out, begins, heads)
    _copy_packets(frames, out, begins + heads.itemsize)
    return out, ends


def scatter(target: np.ndarray, at: np.ndarray, items: np.ndarray) -> None:
    """Write each item of a structured array where it belongs, in bytes from the target's start."""
    if len(at):
        _overlapping(target, items.itemsize)[at] = items.view(f"V{items.itemsize}")


def _copy_packets(frames: Frames, target: np.ndarray, at: np.ndarray) -> None:
    """Copy the packets to these places, all of one length at a time: most have one of a few lengths."""
    # numpy sorts 16-bit numbers by counting, in a tenth of the time
    narrow = np.minimum(frames.captured, np.iinfo(np.uint16).max).astype(np.uint16)
    order = np.argsort(narrow, kind="stable")
    captured, source, at = frames.captured[order], frames.offset[order], at[order]
    for rows in np.split(np.arange(len(order)), np.flatnonzero(np.diff(captured)) + 1):
        length = int(captured[rows[0]]) if len(rows) else 0
        if length:
            _overlapping(target, length)[at[rows]] = _overlapping(frames.buffer, length)[source[rows]]


def _overlapping(buffer: np.ndarray, width: int) -> np.ndarray:
    """Return a buffer seen as overlapping items of this width, one at every byte."""
    return np.ndarray((len(buffer) - width + 1,), f"V{width}", buffer, strides=(1,))
