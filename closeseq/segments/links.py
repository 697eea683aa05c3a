"""The count of what gave no row, and why.

What the steps of a walk along a frame's headers have in common; see `irregular`.

Where the network layer begins: the table of link types, and what the numbers in headers say comes next.

To add a link type, add a line to `LINKS`; if its header has no fixed length, add it to `WALKED`, and a step
to `headers.STEPS`.

Two numbers of a frame go on with its segment, for those who ask whether two packets are one:

- its VLANs: the identifiers of its tags (IEEE 802.1Q), 16 bits each, the innermost one lowest, of more than
  four tags the innermost four. A priority tag, which names no VLAN, is left out.
- its place: what tells where, and in which direction, it was captured. That is the interface, and in the
  link header the addresses and the packet type. The number means nothing; two frames' are equal or not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import dpkt
import numpy as np

from closeseq.segments.layouts import UINT16, gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from closeseq.packets.frames import Frames


class Tally:
    """Counts, for one batch, frames skipped by reason and rows by remark; it has no zero entries."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def skip(self, reason: str, frames: NDArray[np.bool_]) -> None:
        """Count the frames that are true in the mask `frames` as skipped for `reason`."""
        if count := int(np.count_nonzero(frames)):
            self.skipped[reason] += count

    def note(self, remark: str, rows: NDArray[np.bool_]) -> None:
        """Count the rows that are true in the mask `rows` under `remark`."""
        if count := int(np.count_nonzero(rows)):
            self.notes[remark] += count

    def passing(self, *checks: tuple[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return the mask of the frames that pass all checks; count each other one once.

        A check is a reason and the mask of the frames it does not apply to. A frame that fails several
        is counted under the first.
        """
        good = np.ones(len(checks[0][1]), dtype=np.bool_)
        for reason, passed in checks:
            self.skip(reason, good & ~passed)
            good &= passed
        return good


# The spaces that the numbers of layers are from. The first has LINKTYPE_ values.
LINK, ETHERTYPE, PROTOCOL = "link type", "EtherType", "IP protocol"
ETHERNET = 0x6558  # the EtherType of bridged Ethernet


class Layer(NamedTuple):
    """The next header: a number, the space the number is from, and its position in the frame."""

    space: str  # LINK, ETHERTYPE or PROTOCOL
    number: int
    at: int
    tag: int = 0  # the VLAN that the header in front of it names
    place: int = 0  # of the header in front of it, 32 bits: tells frames apart as `links` says


class Aggregate(NamedTuple):
    """Several next headers, each of a packet of its own."""

    layers: tuple[Layer, ...]


class Skip(Exception):  # noqa: N818  # no error, but the end of a walk
    """The walk ends here; the argument is the reason as in `Segments.skipped`."""


class Fragmented(Exception):  # noqa: N818
    """The walk ends at a fragment of a TCP segment; the arguments are `Piece`'s, from `data` on."""


def header(name: str, fields: Any, bits: Any = None) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks one header, and nothing behind it. It raises dpkt.NeedData."""
    packet = type(dpkt.Packet)(name, (dpkt.Packet,), {"__hdr__": fields, "__bit_fields__": bits or {}})
    size = packet.__hdr_len__
    return lambda frame, at: packet(frame[at : at + size])


def dpkt_header(packet: Any) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks the header of a dpkt class, and nothing behind it."""
    return header(packet.__name__, packet.__hdr__, getattr(packet, "__bit_fields__", None))


octet = header("Octet", (("value", "B", 0),))
pair = header("Pair", (("value", "H", 0),))


class NextHeader(IntEnum):
    """What a number (EtherType, IP protocol) says comes next, and who reads it."""

    OTHER = 0  # nothing that holds TCP
    IPV4 = 4
    IPV6 = 6
    TAG = 1  # a VLAN tag
    TCP = 2
    UDP = 3  # holds TCP only at the port of a tunnel
    NESTED = 5  # a tunnel or an extension header: irregular
    CUT = 7  # the number itself was not captured


def _kinds(size: int, numbers: Mapping[NextHeader, Iterable[int]]) -> NDArray[np.uint8]:
    table = np.zeros(size, dtype=np.uint8)
    for kind, those in numbers.items():
        table[list(those)] = kind
    return table


PART: Mapping[int, np.dtype] = {4: np.dtype(">u4"), 8: np.dtype(">u8")}  # of a link header, by its bytes

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_LLC = 0  # stands for all numbers that are a length instead of an EtherType
ETHERTYPE_PPP = 0x880B
ETHERTYPE_PPPOE = 0x8864
ETHERTYPE_VN_TAG = 0x8926  # Cisco's and VMware's, for the virtual ports of an adapter
ETHERTYPE_E_TAG = 0x893F  # IEEE 802.1BR, for the ports of a port extender
LARGEST_LENGTH = 1500  # IEEE 802.3: up to here the field is the length of an LLC frame

KIND_OF_ETHERTYPE = _kinds(
    1 << 16,
    {
        NextHeader.IPV4: [ETHERTYPE_IPV4],
        NextHeader.IPV6: [ETHERTYPE_IPV6],
        NextHeader.TAG: [0x8100, 0x88A8, 0x9100, 0x9200],  # 802.1Q, 802.1ad, and QinQ before both
        NextHeader.NESTED: [  # LLC, Ethernet bridged, MPLS, PPP, PPPoE, tags of other sizes
            *range(LARGEST_LENGTH + 1), 0x6558, 0x8847, 0x8848, ETHERTYPE_PPP, ETHERTYPE_PPPOE,
            ETHERTYPE_VN_TAG, ETHERTYPE_E_TAG,
        ],
    },
)  # fmt: skip
KIND_OF_PROTOCOL = _kinds(
    1 << 8,
    {
        NextHeader.TCP: [6],
        NextHeader.UDP: [17],
        NextHeader.NESTED: [  # IPv4, IPv6, GRE and MPLS within IP; IPv6 extension headers (RFC 7045 4), AH
            4, 41, 47, 137, 0, 43, 44, 51, 60, 135, 139, 140,
        ],
    },
)  # fmt: skip
# UDP: VXLAN (RFC 7348), VXLAN as Linux had it first, Geneve (RFC 8926), GRE (RFC 8086), GTP-U (TS 29.281)
TUNNEL_PORTS = (4789, 8472, 6081, 4754, 2152)
TAGS = 2  # VLAN tags that are a layout; more are irregular


@dataclass(frozen=True, slots=True)
class Link:
    """A link type: how long its header is, and where that says what comes next."""

    length: int  # bytes of the header
    at: int  # position of the field, from the beginning of the frame
    dtype: np.dtype = UINT16
    mask: int = 0xFFFFFFFF  # the bits of the field that matter
    ethertypes: Mapping[int, int] = field(default_factory=dict)  # their value -> EtherType; empty: it is one
    place: tuple[
        tuple[int, int], ...
    ] = ()  # the bytes that tell where a frame was: begin, and 4 or 8 of them


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
    1: Link(length=14, at=12, place=((0, 8), (8, 4))),  # Ethernet: both addresses
    9: _always(ETHERTYPE_PPP),
    10: Link(  # FDDI; of its frames, those of LLC (frame control 0x50 asynchronous, 0xD0 synchronous) hold IP
        length=13,
        at=0,
        dtype=np.dtype("u1"),
        mask=0xF0,
        ethertypes={0x50: ETHERTYPE_LLC, 0xD0: ETHERTYPE_LLC},
        place=((1, 8), (9, 4)),
    ),
    12: _RAW,  # the value of DLT_RAW, in files that should say 101
    14: _RAW,  # likewise, from OpenBSD
    50: _always(ETHERTYPE_PPP),  # PPP in HDLC-like framing
    51: _always(ETHERTYPE_PPPOE),
    101: _RAW,
    104: Link(length=4, at=2),  # Cisco HDLC
    108: _NULL,  # OpenBSD loopback: the same in network byte order
    113: Link(length=16, at=14, place=((0, 8), (8, 4))),  # Linux cooked capture: packet type and address
    228: _always(ETHERTYPE_IPV4),
    229: _always(ETHERTYPE_IPV6),
    # Linux cooked capture, version 2: the interface's index, packet type and address
    276: Link(length=20, at=0, place=((4, 8), (12, 8))),
}
# Link types whose headers have no fixed length: IEEE 802.11 alone, behind radiotap, and behind PPI; NFLOG.
WALKED = frozenset({105, 127, 192, 239})


@dataclass(frozen=True, slots=True)
class Networks:
    """Where the network layer of each frame begins; all columns are as long as the batch."""

    position: NDArray[np.int64]
    ethertype: NDArray[np.uint16]
    kind: NDArray[np.uint8]  # a Kind; OTHER and CUT are counted already
    vlan: NDArray[np.uint64]  # the identifiers of the tags so far, see above
    place: NDArray[np.uint64]  # see above


def find_networks(frames: Frames, tally: Tally) -> Networks:
    """Return where each frame's network layer begins, behind the link header and up to `TAGS` VLAN tags."""
    position = frames.offset.astype(np.int64)
    ethertype = np.zeros(len(frames), dtype=np.uint16)
    kind = np.full(len(frames), NextHeader.OTHER, dtype=np.uint8)
    vlan, place = np.zeros(len(frames), dtype=np.uint64), frames.interface.astype(np.uint64)
    for number in np.unique(frames.link_type).tolist():
        rows = np.flatnonzero(frames.link_type == number)
        if number in WALKED:
            kind[rows] = np.where(frames.captured[rows] > 0, NextHeader.NESTED, NextHeader.CUT)
        elif link := LINKS.get(number):
            place[rows] = mixed(place[rows], frames.buffer, position[rows], link.place)
            ethertype[rows] = _ethertypes(frames.buffer, position[rows] + link.at, link)
            position[rows] += link.length
            needed = max(link.length, link.at + link.dtype.itemsize)
            kind[rows] = np.where(
                frames.captured[rows] < needed, NextHeader.CUT, KIND_OF_ETHERTYPE[ethertype[rows]]
            )
            tally.skip("not IP", kind[rows] == NextHeader.OTHER)
        else:
            tally.skip(f"link type {number} not known", np.ones(len(rows), dtype=np.bool_))
    networks = Networks(position, ethertype, kind, vlan, place)
    for _ in range(TAGS):
        _skip_tag(frames, networks, tally)
    kind[kind == NextHeader.TAG] = NextHeader.NESTED
    tally.skip("link header cut short", kind == NextHeader.CUT)
    return networks


def _ethertypes(buffer: NDArray[np.uint8], position: NDArray[np.int64], link: Link) -> NDArray[np.uint16]:
    """Return the EtherType that the link header's field stands for, 0xFFFF (reserved) if for none."""
    number = gather(buffer, position, link.dtype)
    if not link.ethertypes:
        return number
    ethertype = np.full(len(number), 0xFFFF, dtype=np.uint16)
    for value, meaning in link.ethertypes.items():
        ethertype[number & np.asarray(link.mask).astype(link.dtype) == value] = meaning
    return ethertype


def mixed(
    place: NDArray[np.uint64],
    buffer: NDArray[np.uint8],
    position: NDArray[np.int64],
    parts: Iterable[tuple[int, int]],
) -> NDArray[np.uint64]:
    """Return places that also tell apart what stands in these parts (see `Link.place`) of each frame."""
    for begin, size in parts:
        place = with_number(place, gather(buffer, position + begin, PART[size]).astype(np.uint64))
    return place


def with_number(place: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return places that also tell apart these numbers (uint64)."""
    product = (place ^ number) * np.uint64(0x9E3779B97F4A7C15)
    return product ^ (product >> np.uint64(32))


def with_tag(vlan: int, identifier: int) -> int:
    """Return the VLANs of a frame in which one more tag has this identifier of 12 bits."""
    return (vlan << 16 | identifier) & (1 << 64) - 1 if identifier else vlan


def _skip_tag(frames: Frames, networks: Networks, tally: Tally) -> None:
    """Move frames with a VLAN tag behind it (IEEE 802.1Q: two bytes of tag, then the type)."""
    tagged = np.flatnonzero(networks.kind == NextHeader.TAG)
    if not len(tagged):
        return
    networks.position[tagged] += 4
    ethertype = gather(frames.buffer, networks.position[tagged] - 2, UINT16)
    networks.ethertype[tagged] = ethertype
    identifier = (gather(frames.buffer, networks.position[tagged] - 4, UINT16) & 0x0FFF).astype(np.uint64)
    vlan = networks.vlan[tagged]
    networks.vlan[tagged] = np.where(identifier > 0, vlan << np.uint64(16) | identifier, vlan)
    whole = networks.position[tagged] <= frames.offset[tagged] + frames.captured[tagged]
    networks.kind[tagged] = np.where(whole, KIND_OF_ETHERTYPE[ethertype], NextHeader.CUT)
    tally.skip("not IP", networks.kind[tagged] == NextHeader.OTHER)
