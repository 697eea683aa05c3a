"""The same capture in other file formats."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_HEADER = struct.Struct("<IHHiIII")
RECORD_HEADER = struct.Struct("<IIII")
NANOSECOND_MAGIC = 0xA1B23C4D
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6  # pcapng block types
OPTION_RESOLUTION, OPTION_NAME = 9, 2  # of an interface


def compress(capture: Path) -> Path:
    """Write CAPTURE.gz, which depends on nothing but the capture's content."""
    compressed = capture.with_name(capture.name + ".gz")
    compressed.write_bytes(gzip.compress(capture.read_bytes(), mtime=0))
    return compressed


def as_pcapng(capture: Path) -> Path:
    """Write the capture as pcapng beside it, with the nanoseconds and the interface's name."""
    data = capture.read_bytes()
    magic, _, _, _, _, snap_length, link_type = FILE_HEADER.unpack_from(data)
    assert magic == NANOSECOND_MAGIC, "tcpdump was told to write nanoseconds, on a little-endian machine"
    options = _option(OPTION_NAME, b"lo") + _option(OPTION_RESOLUTION, b"\x09") + _option(0, b"")
    blocks = [
        _block(SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        _block(INTERFACE, struct.pack("<HHI", link_type, 0, snap_length) + options),
    ]
    for time_ns, wire_length, frame in _records(data):
        head = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), wire_length)
        blocks.append(_block(PACKET, head + _padded(frame)))
    written = capture.with_suffix(".pcapng")
    written.write_bytes(b"".join(blocks))
    return written


def _records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Give time, length on the wire, and what was captured, of each packet."""
    at = FILE_HEADER.size
    while at < len(data):
        seconds, nanoseconds, length, wire_length = RECORD_HEADER.unpack_from(data, at)
        at += RECORD_HEADER.size
        yield seconds * 10**9 + nanoseconds, wire_length, data[at : at + length]
        at += length


def _block(kind: int, body: bytes) -> bytes:
    """Give a pcapng block: its length stands at both ends, so that a reader can walk either way."""
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(value: bytes) -> bytes:
    """Fill up to a multiple of four bytes."""
    return value + bytes(-len(value) % 4)
