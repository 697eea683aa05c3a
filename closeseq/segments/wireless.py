"""IEEE 802.11, alone or behind the headers that capturing puts in front of it: radiotap and PPI.

A data frame that is not encrypted holds LLC, or several packets of that kind (an A-MSDU). The check sequence
at a frame's end does not matter here: a packet's IP header gives its end.
"""

from __future__ import annotations

import struct
from zlib import crc32

from closeseq.packets.protocols import (
    ETHERTYPE_LLC,
    LINKTYPE_IEEE_802_11,
    LINKTYPE_PPI,
    LINKTYPE_RADIOTAP,
)
from closeseq.segments.layers import ETHERTYPE, LINK, Aggregate, Layer, Skip, octet

PADDED = -LINKTYPE_IEEE_802_11  # the same with its header filled up to a multiple of four bytes

# Frame control (IEEE 802.11-2020 9.2.4.1): type and subtype stand in the first byte, flags in the second.
VERSION, TYPE, DATA = 0x03, 0x0C, 0x08
WITHOUT_DATA, QOS = 0x40, 0x80  # in the subtype of data frames
RELAYED, PROTECTED, ORDER = 0x03, 0x40, 0x80  # "to DS" and "from DS" together: a fourth address
FRAGMENT_NUMBER = 0x0F  # in the first byte of the sequence control
AGGREGATED = 0x80  # in the first byte of the QoS control: the body is an A-MSDU
SUBFRAME_HEADER = 14  # two addresses and a length
MOST_SUBFRAMES = 64

# radiotap.org: which fields are there
TIMER, FLAGS, MORE_WORDS = 1 << 0, 1 << 1, 1 << 31
DATA_PAD = 0x20  # in the field of flags
MOST_WORDS = 32


def _ieee_802_11(frame: bytes, at: int, *, padded: bool = False) -> Layer | Aggregate:
    control, flags, sequence = struct.unpack_from("<BB20xH", frame, at)
    if control & VERSION or control & TYPE != DATA or control & WITHOUT_DATA:
        raise Skip("not IP")
    if flags & PROTECTED:
        raise Skip("802.11 encrypted")
    if sequence & FRAGMENT_NUMBER:
        raise Skip("802.11 fragment")
    size = 24 + (6 if flags & RELAYED == RELAYED else 0)
    aggregated = False
    if control & QOS:
        aggregated = bool(octet(frame, at + size).value & AGGREGATED)
        size += 6 if flags & ORDER else 2
    body = at + (size + 3 & ~3 if padded else size)
    # A frame sent again at this level has the retry flag; its receiver keeps one of the two.
    place = crc32(frame[at : at + 2] + frame[at + 4 : at + 22])
    if aggregated:
        return _subframes(frame, body, place)
    return Layer(ETHERTYPE, ETHERTYPE_LLC, body, place=place)


def _subframes(frame: bytes, at: int, place: int) -> Aggregate:
    """Return the parts of an A-MSDU (IEEE 802.11-2020 9.3.2.2), each padded to a multiple of four bytes."""
    layers: list[Layer] = []
    while at + SUBFRAME_HEADER <= len(frame) and len(layers) < MOST_SUBFRAMES:
        (length,) = struct.unpack_from(">H", frame, at + SUBFRAME_HEADER - 2)
        if not length:
            break
        own = crc32(frame[at : at + SUBFRAME_HEADER - 2], place)
        layers.append(Layer(ETHERTYPE, ETHERTYPE_LLC, at + SUBFRAME_HEADER, place=own))
        at += SUBFRAME_HEADER + length + 3 & ~3
    return Aggregate(tuple(layers))


def _radiotap(frame: bytes, at: int) -> Layer:
    """Skip a radiotap header; its flags show whether the header behind it is padded."""
    length, present = struct.unpack_from("<2xHI", frame, at)
    if length < 8:  # noqa: PLR2004  # what was just read
        raise Skip("not IP")
    padded = False
    if present & FLAGS:
        field, word = at + 8, present
        for _ in range(MOST_WORDS):
            if not word & MORE_WORDS:
                break
            (word,) = struct.unpack_from("<I", frame, field)
            field += 4
        if present & TIMER:  # eight bytes, at a multiple of eight from the header's begin
            field = at + (field - at + 7 & ~7) + 8
        padded = bool(octet(frame, field).value & DATA_PAD)
    return Layer(LINK, PADDED if padded else LINKTYPE_IEEE_802_11, at + length)


def _ppi(frame: bytes, at: int) -> Layer:
    """Skip a Per-Packet Information header, which names the link type of what is behind it."""
    length, link_type = struct.unpack_from("<2xHI", frame, at)
    if length < 8:  # noqa: PLR2004  # what was just read
        raise Skip("not IP")
    return Layer(LINK, link_type, at + length)


STEPS = {
    LINKTYPE_IEEE_802_11: _ieee_802_11,
    PADDED: lambda frame, at: _ieee_802_11(frame, at, padded=True),
    LINKTYPE_RADIOTAP: _radiotap,
    LINKTYPE_PPI: _ppi,
}
