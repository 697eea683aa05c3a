"""Frames and a device to be saved, for the tests of writers and for the programs that they run."""

from __future__ import annotations

import numpy as np

from capture_files import ETHERNET, Packet
from closeseq.capture.writers import SavedDevice
from closeseq.packets.frames import Frames

NOON_NS = 1_700_000_000_123_456_789
LO = SavedDevice("lo", ETHERNET, 192)


def frames(packets, gap=3):
    """Lay packets into one buffer, with other bytes between them."""
    pieces, offset, at = [], [], 0
    for packet in packets:
        pieces += [b"?" * gap, packet.data]
        offset.append(at + gap)
        at += gap + len(packet.data)
    wire = [max(p.wire, len(p.data)) for p in packets]
    columns = (offset, [len(p.data) for p in packets], wire, [p.time_ns for p in packets])
    return Frames(
        np.frombuffer(bytearray(b"".join(pieces) + b"?"), np.uint8),
        *(np.array(column, np.int64) for column in columns),
        np.arange(1, len(packets) + 1),
        np.array([p.link_type for p in packets], np.uint16),
    )


def some(count, *, first=0, length=60, step_ns=1000):
    return [
        Packet(NOON_NS + i * step_ns, i.to_bytes(4, "big") + bytes(length - 4 + i % 7), 9000)
        for i in range(first, first + count)
    ]
