"""Where the network layer of each frame begins: behind the link header and up to two VLAN tags.

To add a link type, add a line to `LINKS`; if its header has no fixed length, add it to `WALKED`, and a step
to `encapsulation.STEPS`.

Two numbers of a frame go on with its segment, to decide whether two packets are duplicates:

- its VLANs: the identifiers of its tags (IEEE 802.1Q), 16 bits each, the innermost one lowest, of more than
  four tags the innermost four. A priority tag, which names no VLAN, is left out.
- its place: where, and in which direction, it was captured. That is the interface, and in the link header
  the addresses and the packet type. The number means nothing; two frames' are equal or not.

Frames that give no row are counted by reason in a `Tally`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.gather import gather_padded
from closeseq.packets.protocols import (
    DLT_RAW,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_LLC,
    ETHERTYPE_PPP,
    ETHERTYPE_PPPOE,
    LARGEST_LENGTH,
    LINKTYPE_CISCO_HDLC,
    LINKTYPE_ETHERNET,
    LINKTYPE_FDDI,
    LINKTYPE_IEEE_802_11,
    LINKTYPE_IPV4,
    LINKTYPE_IPV6,
    LINKTYPE_LOOP,
    LINKTYPE_NFLOG,
    LINKTYPE_NULL,
    LINKTYPE_PPI,
    LINKTYPE_PPP,
    LINKTYPE_PPP_HDLC,
    LINKTYPE_PPPOE,
    LINKTYPE_RADIOTAP,
    LINKTYPE_RAW,
    LINKTYPE_SLL,
    LINKTYPE_SLL2,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    VLAN_TAGS,
    WALKED_ETHERTYPES,
    WALKED_PROTOCOLS,
)
from closeseq.segments.layouts import UINT16

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

        A frame that fails several is counted under the first.

        Args:
            checks: a reason, and the mask of the frames it does not apply to; at least one, of equal length.
        """
        good = np.ones(len(checks[0][1]), dtype=np.bool_)
        for reason, passed in checks:
            self.skip(reason, good & ~passed)
            good &= passed
        return good


class NextHeader(IntEnum):
    """What follows a header by the number in it (EtherType, IP protocol)."""

    OTHER = 0  # nothing that holds TCP
    IPV4 = 4
    IPV6 = 6
    TAG = 1  # a VLAN tag
    TCP = 2
    UDP = 3  # holds TCP only at the port of a tunnel
    NESTED = 5  # a tunnel or an extension header: walked (encapsulation.py)
    CUT = 7  # the number itself was not captured


def _kinds(size: int, numbers: Mapping[NextHeader, Iterable[int]]) -> NDArray[np.uint8]:
    table = np.zeros(size, dtype=np.uint8)
    for kind, those in numbers.items():
        table[list(those)] = kind
    return table


PART: Mapping[int, np.dtype] = {4: np.dtype(">u4"), 8: np.dtype(">u8")}  # of a link header, by its bytes

KIND_OF_ETHERTYPE = _kinds(
    1 << 16,
    {
        NextHeader.IPV4: [ETHERTYPE_IPV4],
        NextHeader.IPV6: [ETHERTYPE_IPV6],
        NextHeader.TAG: VLAN_TAGS,
        NextHeader.NESTED: [*range(LARGEST_LENGTH + 1), *WALKED_ETHERTYPES],
    },
)
KIND_OF_PROTOCOL = _kinds(
    1 << 8,
    {
        NextHeader.TCP: [PROTOCOL_TCP],
        NextHeader.UDP: [PROTOCOL_UDP],
        NextHeader.NESTED: WALKED_PROTOCOLS,
    },
)
TAGS = 2  # VLAN tags that are skipped here; frames with more are walked


@dataclass(frozen=True, slots=True)
class Link:
    """A link type: the length of its header, and the field that names the next header."""

    length: int  # bytes of the header
    at: int  # position of the field, from the beginning of the frame
    dtype: np.dtype = UINT16  # of the field
    mask: int = 0xFFFFFFFF  # the bits of the field that matter
    ethertypes: Mapping[int, int] = field(default_factory=dict)  # their value -> EtherType; empty: it is one
    # the bytes that show where a frame was captured: begin, and 4 or 8 of them
    place: tuple[tuple[int, int], ...] = ()


def _either_order(families: dict[int, int]) -> dict[int, int]:
    """Return the table for a number of 32 bits in the byte order of the capturing machine."""
    return families | {number << 24: ethertype for number, ethertype in families.items()}


# AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on macOS.
_AF = _either_order({2: ETHERTYPE_IPV4} | dict.fromkeys((10, 24, 28, 30), ETHERTYPE_IPV6))
_NULL = Link(length=4, at=0, dtype=np.dtype(">u4"), ethertypes=_AF)
_RAW = Link(
    length=0, at=0, dtype=np.dtype("u1"), mask=0xF0, ethertypes={0x40: ETHERTYPE_IPV4, 0x60: ETHERTYPE_IPV6}
)


def _always(ethertype: int) -> Link:
    return Link(length=0, at=0, dtype=np.dtype("u1"), mask=0, ethertypes={0: ethertype})


# By LINKTYPE_ value.
LINKS: Mapping[int, Link] = {
    LINKTYPE_NULL: _NULL,
    LINKTYPE_ETHERNET: Link(length=14, at=12, place=((0, 8), (8, 4))),  # both addresses
    LINKTYPE_PPP: _always(ETHERTYPE_PPP),
    # Of FDDI's frames, those of LLC (frame control 0x50 asynchronous, 0xD0 synchronous) hold IP.
    LINKTYPE_FDDI: Link(
        length=13,
        at=0,
        dtype=np.dtype("u1"),
        mask=0xF0,
        ethertypes={0x50: ETHERTYPE_LLC, 0xD0: ETHERTYPE_LLC},
        place=((1, 8), (9, 4)),
    ),
    **dict.fromkeys(DLT_RAW, _RAW),
    LINKTYPE_PPP_HDLC: _always(ETHERTYPE_PPP),
    LINKTYPE_PPPOE: _always(ETHERTYPE_PPPOE),
    LINKTYPE_RAW: _RAW,
    LINKTYPE_CISCO_HDLC: Link(length=4, at=2),
    LINKTYPE_LOOP: _NULL,  # the same in network byte order
    LINKTYPE_SLL: Link(length=16, at=14, place=((0, 8), (8, 4))),  # packet type and address
    LINKTYPE_IPV4: _always(ETHERTYPE_IPV4),
    LINKTYPE_IPV6: _always(ETHERTYPE_IPV6),
    LINKTYPE_SLL2: Link(length=20, at=0, place=((4, 8), (12, 8))),  # interface's index, packet type, address
}
# Link types whose headers have no fixed length.
WALKED = frozenset({LINKTYPE_IEEE_802_11, LINKTYPE_RADIOTAP, LINKTYPE_PPI, LINKTYPE_NFLOG})


@dataclass(frozen=True, slots=True)
class Networks:
    """Where the network layer of each frame begins; columns with one entry a frame of the batch."""

    position: NDArray[np.int64]  # in the batch's buffer
    ethertype: NDArray[np.uint16]  # of what is there; 0 where the link type is walked
    kind: NDArray[np.uint8]  # a NextHeader; OTHER and CUT are counted already
    vlan: NDArray[np.uint64]  # the identifiers of the tags so far, see above
    place: NDArray[np.uint64]  # see above


def find_networks(frames: Frames, tally: Tally) -> Networks:
    """Return where each frame's network layer begins, behind the link header and up to `TAGS` VLAN tags.

    Args:
        frames: a batch.
        tally: counts those that have no network layer that could hold TCP, or that are cut short before it.
    """
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
    number = gather_padded(buffer, position, link.dtype)
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
    """Return places that differ also where these parts of the frames differ.

    Args:
        place: uint64, one a frame.
        buffer: the batch's.
        position: int64, where each frame begins in it.
        parts: begin in the frame, and 4 or 8 bytes, as in `Link.place`.
    """
    for begin, size in parts:
        place = with_number(place, gather_padded(buffer, position + begin, PART[size]).astype(np.uint64))
    return place


def with_number(place: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return places that differ also where these numbers differ (uint64 both, one a frame)."""
    product = (place ^ number) * np.uint64(0x9E3779B97F4A7C15)
    return product ^ (product >> np.uint64(32))


def with_tag(vlan: int, identifier: int) -> int:
    """Return the VLANs of a frame with one more tag.

    Args:
        vlan: those of the tags in front of it, 16 bits each; of four already the outermost falls out.
        identifier: its VLAN identifier, 12 bits; 0 names none, and is left out.
    """
    return (vlan << 16 | identifier) & (1 << 64) - 1 if identifier else vlan


def _skip_tag(frames: Frames, networks: Networks, tally: Tally) -> None:
    """Move frames' positions behind a VLAN tag (IEEE 802.1Q: two bytes of tag, then the type)."""
    tagged = np.flatnonzero(networks.kind == NextHeader.TAG)
    if not len(tagged):
        return
    networks.position[tagged] += 4
    ethertype = gather_padded(frames.buffer, networks.position[tagged] - 2, UINT16)
    networks.ethertype[tagged] = ethertype
    identifier = (gather_padded(frames.buffer, networks.position[tagged] - 4, UINT16) & 0x0FFF).astype(
        np.uint64
    )
    vlan = networks.vlan[tagged]
    networks.vlan[tagged] = np.where(identifier > 0, vlan << np.uint64(16) | identifier, vlan)
    whole = networks.position[tagged] <= frames.offset[tagged] + frames.captured[tagged]
    networks.kind[tagged] = np.where(whole, KIND_OF_ETHERTYPE[ethertype], NextHeader.CUT)
    tally.skip("not IP", networks.kind[tagged] == NextHeader.OTHER)
