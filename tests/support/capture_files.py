"""Captures made byte by byte, and what comes out of them: what the tests of `capture` share."""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

from closeseq.capture import Capture, open_capture
from closeseq.capture.source import Source
from closeseq.errors import CaptureError

ETHERNET, RAW, COOKED = 1, 101, 113


class Packet(NamedTuple):
    time_ns: int
    data: bytes
    wire: int = -1  # as long as the data
    link_type: int = ETHERNET


PACKETS = [
    Packet(1_700_000_000_123_456_000, b"a" * 60),
    Packet(1_700_000_000_123_457_000, b"", wire=1500),
    Packet(1_700_000_001_000_000_000, bytes(range(61)), wire=9000),
    Packet(4_294_967_295_999_999_000, b"\xff" * 7),
]


def wire(packet):
    return max(packet.wire, len(packet.data))


# pcap


def pcap_header(order="<", magic=0xA1B2C3D4, version=(2, 4), snaplen=262_144, link=ETHERNET):
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, link)


def pcap_record(packet, order="<", unit_ns=1000):
    second, rest = divmod(packet.time_ns, 10**9)
    return struct.pack(order + "IIII", second, rest // unit_ns, len(packet.data), wire(packet)) + packet.data


def pcap(packets=PACKETS, order="<", *, nano=False):
    magic, unit_ns = (0xA1B23C4D, 1) if nano else (0xA1B2C3D4, 1000)
    return pcap_header(order, magic) + b"".join(pcap_record(p, order, unit_ns) for p in packets)


# pcapng


def padded(data):
    return data + bytes(-len(data) % 4)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + padded(value)


def block(kind, body, order="<"):
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def section(order="<", version=(1, 0)):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1), order)


def interface(order="<", *, link=ETHERNET, snaplen=0, tsresol=None, tsoffset=None, more=b""):
    options = more
    if tsresol is not None:
        options += option(9, bytes([tsresol]), order)
    if tsoffset is not None:
        options += option(14, struct.pack(order + "q", tsoffset), order)
    return block(1, struct.pack(order + "HHI", link, 0, snaplen) + options, order)


def timed_fields(ticks, packet, order):
    return struct.pack(order + "IIII", ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), wire(packet))


def enhanced(packet, order="<", *, ident=0, ticks=None, options=b""):
    ticks = packet.time_ns // 1000 if ticks is None else ticks
    head = struct.pack(order + "I", ident) + timed_fields(ticks, packet, order)
    return block(6, head + padded(packet.data) + options, order)


def obsolete(packet, order="<", ident=0, lost=0xFFFF):
    head = struct.pack(order + "HH", ident, lost) + timed_fields(packet.time_ns // 1000, packet, order)
    return block(2, head + padded(packet.data), order)


def simple(packet, order="<"):
    return block(3, struct.pack(order + "I", wire(packet)) + padded(packet.data), order)


def statistics(order="<", ident=0, ifdrop=None, osdrop=None):
    counts = [(5, ifdrop), (7, osdrop)]
    options = b"".join(option(c, struct.pack(order + "Q", n), order) for c, n in counts if n is not None)
    return block(5, struct.pack(order + "III", ident, 0, 0) + options, order)


def pcapng(packets=PACKETS, order="<"):
    return section(order) + interface(order) + b"".join(enhanced(p, order) for p in packets)


# Reading


class Read(NamedTuple):
    packets: list[Packet]
    error: CaptureError | None
    dropped: int = 0


def drain(capture, most=None):
    """Read all of a capture, check what holds for any, and keep what was read before an error."""
    packets, error = [], None
    batches = capture.batches()
    while True:
        try:
            frames = next(batches, None)
        except CaptureError as caught:
            error = caught
            break
        if frames is None:
            break
        assert 0 < len(frames) <= (most or len(frames))
        assert frames.number.tolist() == list(range(len(packets) + 1, len(packets) + len(frames) + 1))
        dtypes = [getattr(frames, name).dtype for name in ("offset", "captured", "wire", "time_ns", "number")]
        assert [str(d) for d in dtypes] == ["int64"] * 5
        assert (str(frames.buffer.dtype), str(frames.link_type.dtype)) == ("uint8", "uint16")
        for at, n, wired, time, link in zip(
            frames.offset.tolist(),
            frames.captured.tolist(),
            frames.wire.tolist(),
            frames.time_ns.tolist(),
            frames.link_type.tolist(),
            strict=True,
        ):
            data = frames.buffer[at : at + n].tobytes()
            assert len(data) == n <= wired
            packets.append(Packet(time, data, wired, link))
        assert capture.packets == len(packets)
    assert error is None or (str(error).count("\n") == 0 and error.remedy and error.path == capture.path)
    return Read(packets, error, capture.dropped)


def read_file(path, batch=100_000):
    try:
        with open_capture(str(path), batch=batch) as capture:
            return drain(capture, batch)
    except CaptureError as error:
        return Read([], error)


def read_stream(data, chunk=8_000_000, batch=100_000):
    """Read bytes as they come through a pipe that gives at most `chunk` at a time."""
    try:
        with Capture("piped", Source(io.BytesIO(data), chunk), batch=batch) as capture:
            return drain(capture, batch)
    except CaptureError as error:
        return Read([], error)


def expected(packets=PACKETS):
    return [p._replace(wire=wire(p)) for p in packets]
