"""Headers out of a buffer and into it, many at a time, wherever they begin.

All of it goes by one view: a buffer seen as overlapping items of a header's width, one beginning at every
byte. numpy then copies each header in one piece, 20 ns a header, whatever stands in front of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Buffer = memoryview | NDArray[np.uint8]


def overlapping(buffer: Buffer, width: int) -> NDArray[np.void]:
    """Return a view of a buffer of bytes as items of `width` bytes, one beginning at every byte.

    Args:
        buffer: at least `width - 1` bytes.
        width: bytes of an item, at least 1.

    Returns:
        `len(buffer) - width + 1` items of dtype V`width`, which share the buffer's memory.
    """
    # As plain bytes (void) an item is copied at once; as a structure field by field, four times slower.
    return np.ndarray((len(buffer) - width + 1,), f"V{width}", buffer, strides=(1,))


def numbers(buffer: Buffer, number: np.dtype[Any], begin: int, count: int) -> NDArray[Any]:
    """Return a view of a buffer as numbers, one beginning at each of `count` bytes from `begin` on.

    Args:
        buffer: has every one of these numbers whole.
        number: dtype of a number, with its byte order.
        begin: the byte at which the first one begins.
        count: how many there are; none if it is below 1.
    """
    return np.ndarray((max(count, 0),), number, buffer, offset=begin if count > 0 else 0, strides=(1,))


def gather(buffer: Buffer, at: NDArray[np.int64], layout: np.dtype[Any]) -> NDArray[Any]:
    """Return the headers that begin at these bytes, each whole in the buffer, as a contiguous column.

    Args:
        buffer: bytes.
        at: int64, where each header begins in it; in any order, also more than once.
        layout: dtype of a header.

    Returns:
        A copy, one entry for each of `at`, of dtype `layout`.
    """
    if not len(at):
        return np.empty(0, layout)
    return overlapping(buffer, layout.itemsize)[at].view(layout)


def gather_padded(buffer: NDArray[np.uint8], at: NDArray[np.int64], layout: np.dtype[Any]) -> NDArray[Any]:
    """Return headers as `gather` does, with zeros for what lies past the end of the buffer.

    A position may be any number from 0 up. The caller knows how much of each frame was captured: behind
    that stands whatever is next in the buffer.

    Args:
        buffer: uint8.
        at: int64, where each header begins in it.
        layout: dtype of a header.
    """
    size = layout.itemsize
    last = buffer.size - size  # the last position with a whole header
    if not len(at) or int(at.max()) <= last:
        return gather(buffer, at, layout)
    column = np.zeros(len(at), layout).view(f"V{size}")
    inside = at <= last
    if inside.any():
        column[inside] = overlapping(buffer, size)[at[inside]]
    tail = buffer[max(0, last) :]
    padded = np.concatenate([tail, np.zeros(size, np.uint8)])
    column[~inside] = overlapping(padded, size)[
        np.minimum(at[~inside] - (buffer.size - tail.size), tail.size)
    ]
    return column.view(layout)


def gather_runs(buffer: Buffer, at: NDArray[np.int64], width: int, number: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers that begin at each of `width` bytes from these on, all whole in the buffer.

    Args:
        buffer: bytes.
        at: int64, the first byte of each run.
        width: bytes in a run, each the begin of a number.
        number: dtype of a number, with its byte order.

    Returns:
        One row for each of `at`, a column for each of the bytes.
    """
    length = width + number.itemsize - 1
    runs = gather(buffer, at, np.dtype(f"V{length}"))
    return np.ndarray((len(at), width), number, runs.data if len(at) else b"", strides=(length, 1))


def gather_in_order(
    buffer: Buffer, at: NDArray[np.int64], big: NDArray[np.bool_], layout: np.dtype[np.void]
) -> NDArray[np.void]:
    """Return headers as `gather` does, each in its own byte order.

    Args:
        buffer: where they are.
        at: int64, where each begins.
        big: a mask of these: which of them are big-endian.
        layout: the fields, little-endian.

    Returns:
        One entry for each of `at`. Their dtype is `layout`, or its big-endian twin if all are big-endian.
    """
    if not big.any():
        return gather(buffer, at, layout)
    swapped = layout.newbyteorder(">")
    if big.all():
        return gather(buffer, at, swapped)
    headers = np.empty(len(at), layout)
    headers[big] = gather(buffer, at[big], swapped)
    headers[~big] = gather(buffer, at[~big], layout)
    return headers


def select(column: NDArray[np.void], rows: NDArray[np.bool_]) -> NDArray[np.void]:
    """Return `column[rows]` for a contiguous column of headers and a mask; each is copied in one piece."""
    return column.view(f"V{column.dtype.itemsize}")[rows].view(column.dtype)


def scatter(target: Buffer, at: NDArray[np.int64], headers: NDArray[np.void]) -> None:
    """Write headers into a buffer, the inverse of `gather`.

    Args:
        target: the buffer, written in place.
        at: int64, where in it each header begins, in bytes; all of it lies within the buffer.
        headers: a contiguous column, one entry for each of `at`.
    """
    if len(at):
        width = headers.itemsize
        overlapping(target, width)[at] = headers.view(f"V{width}")
