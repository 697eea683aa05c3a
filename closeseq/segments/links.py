"""Where the network layer begins: the table of link types, and what the numbers in headers say comes next.

To add a link type, add a line to `LINKS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from closeseq.segments.layouts import UINT16, gather

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from closeseq.packets.frames import Frames
    from closeseq.segments.tally import Tally


class Kind(IntEnum):
    """What a number (EtherType, IP protocol) says comes next, and who reads it."""

    OTHER = 0  # nothing that holds TCP
    IPV4 = 4
    IPV6 = 6
    TAG = 1  # a VLAN tag
    TCP = 2
    UDP = 3  # holds TCP only at the port of a tunnel
    NESTED = 5  # a tunnel or an extension header: irregular
    CUT = 7  # the number itself was not captured


def _kinds(size: int, numbers: Mapping[Kind, Iterable[int]]) -> np.ndarray:
    table = np.zeros(size, dtype=np.uint8)
    for kind, those in numbers.items():
        table[list(those)] = kind
    return table


ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_PPP = 0x880B
ETHERTYPE_PPPOE = 0x8864
LARGEST_LENGTH = 1500  # IEEE 802.3: up to here the field is the length of an LLC frame

KIND_OF_ETHERTYPE = _kinds(
    1 << 16,
    {
        Kind.IPV4: [ETHERTYPE_IPV4],
        Kind.IPV6: [ETHERTYPE_IPV6],
        Kind.TAG: [0x8100, 0x88A8, 0x9100, 0x9200],  # IEEE 802.1Q, 802.1ad, and QinQ before it was a standard
        Kind.NESTED: [  # LLC, Ethernet bridged, MPLS, PPP, PPPoE
            *range(LARGEST_LENGTH + 1), 0x6558, 0x8847, 0x8848, ETHERTYPE_PPP, ETHERTYPE_PPPOE,
        ],
    },
)  # fmt: skip
KIND_OF_PROTOCOL = _kinds(
    1 << 8,
    {
        Kind.TCP: [6],
        Kind.UDP: [17],
        Kind.NESTED: [  # IPv4, IPv6, GRE and MPLS within IP; IPv6 extension headers (RFC 7045 4), AH
            4, 41, 47, 137, 0, 43, 44, 51, 60, 135, 139, 140,
        ],
    },
)  # fmt: skip
TUNNEL_PORTS = (4789, 8472, 6081)  # UDP: VXLAN (RFC 7348), VXLAN as Linux had it first, Geneve (RFC 8926)
TAGS = 2  # VLAN tags that are a layout; more are irregular


@dataclass(frozen=True, slots=True)
class Link:
    """A link type: how long its header is, and where that says what comes next."""

    length: int  # bytes of the header
    at: int  # position of the field, from the beginning of the frame
    dtype: np.dtype = UINT16
    mask: int = 0xFFFFFFFF  # the bits of the field that matter
    ethertypes: Mapping[int, int] = field(default_factory=dict)  # their value -> EtherType; empty: it is one


def _either_order(families: dict[int, int]) -> dict[int, int]:
    """Return the table for a number of 32 bits that stands in the byte order of the capturing machine."""
    return families | {number << 24: ethertype for number, ethertype in families.items()}


# AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on macOS.
_AF = _either_order({2: ETHERTYPE_IPV4} | dict.fromkeys((10, 24, 28, 30), ETHERTYPE_IPV6))
_NULL = Link(length=4, at=0, dtype=np.dtype(">u4"), ethertypes=_AF)
_RAW = Link(
    length=0, at=0, dtype=np.dtype("u1"), mask=0xF0, ethertypes={0x40: ETHERTYPE_IPV4, 0x60: ETHERTYPE_IPV6}
)


def _always(ethertype: int) -> Link:
    return Link(length=0, at=0, dtype=np.dtype("u1"), mask=0, ethertypes={0: ethertype})


# LINKTYPE_ values as registered by tcpdump.org. "Always" types are told apart from there on.
LINKS: Mapping[int, Link] = {
    0: _NULL,  # BSD loopback
    1: Link(length=14, at=12),  # Ethernet
    9: _always(ETHERTYPE_PPP),
    12: _RAW,  # the value of DLT_RAW, in files that should say 101
    14: _RAW,  # likewise, from OpenBSD
    50: _always(ETHERTYPE_PPP),  # PPP in HDLC-like framing
    51: _always(ETHERTYPE_PPPOE),
    101: _RAW,
    104: Link(length=4, at=2),  # Cisco HDLC
    108: _NULL,  # OpenBSD loopback: the same in network byte order
    113: Link(length=16, at=14),  # Linux cooked capture
    228: _always(ETHERTYPE_IPV4),
    229: _always(ETHERTYPE_IPV6),
    276: Link(length=20, at=0),  # Linux cooked capture, version 2
}


@dataclass(frozen=True, slots=True)
class Networks:
    """Where the network layer of each frame begins; all columns are as long as the batch."""

    position: np.ndarray  # int64
    ethertype: np.ndarray  # uint16
    kind: np.ndarray  # uint8, a Kind; OTHER and CUT are counted already


def find_networks(frames: Frames, tally: Tally) -> Networks:
    """Return where each frame's network layer begins, behind the link header and up to `TAGS` VLAN tags."""
    position = frames.offset.astype(np.int64)
    ethertype = np.zeros(len(frames), dtype=np.uint16)
    kind = np.full(len(frames), Kind.OTHER, dtype=np.uint8)
    for number in np.unique(frames.link_type).tolist():
        rows = np.flatnonzero(frames.link_type == number)
        if link := LINKS.get(number):
            ethertype[rows] = _ethertypes(frames.buffer, position[rows] + link.at, link)
            position[rows] += link.length
            needed = max(link.length, link.at + link.dtype.itemsize)
            kind[rows] = np.where(
                frames.captured[rows] < needed, Kind.CUT, KIND_OF_ETHERTYPE[ethertype[rows]]
            )
            tally.skip("not IP", kind[rows] == Kind.OTHER)
        else:
            tally.skip(f"link type {number} not known", np.ones(len(rows), dtype=np.bool_))
    networks = Networks(position, ethertype, kind)
    for _ in range(TAGS):
        _skip_tag(frames, networks, tally)
    kind[kind == Kind.TAG] = Kind.NESTED
    tally.skip("link header cut short", kind == Kind.CUT)
    return networks


def _ethertypes(buffer: np.ndarray, position: np.ndarray, link: Link) -> np.ndarray:
    """Return the EtherType that the link header's field stands for, 0xFFFF (reserved) if for none."""
    number = gather(buffer, position, link.dtype)
    if not link.ethertypes:
        return number
    ethertype = np.full(len(number), 0xFFFF, dtype=np.uint16)
    for value, meaning in link.ethertypes.items():
        ethertype[number & np.asarray(link.mask).astype(link.dtype) == value] = meaning
    return ethertype


def _skip_tag(frames: Frames, networks: Networks, tally: Tally) -> None:
    """Move frames with a VLAN tag behind it (IEEE 802.1Q: two bytes of tag, then the type)."""
    tagged = np.flatnonzero(networks.kind == Kind.TAG)
    if not len(tagged):
        return
    networks.position[tagged] += 4
    ethertype = gather(frames.buffer, networks.position[tagged] - 2, UINT16)
    networks.ethertype[tagged] = ethertype
    whole = networks.position[tagged] <= frames.offset[tagged] + frames.captured[tagged]
    networks.kind[tagged] = np.where(whole, KIND_OF_ETHERTYPE[ethertype], Kind.CUT)
    tally.skip("not IP", networks.kind[tagged] == Kind.OTHER)
