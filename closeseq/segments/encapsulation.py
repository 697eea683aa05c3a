"""The frames that need a walk of their own: tunnels, extension headers, 802.11, MPLS, PPPoE, LLC, many tags.

The walk (`locate`) goes from header to header until it meets TCP, and returns where the innermost IP header
and the TCP header stand; they are then read like all others.

Each header is a step: it returns the next layer, or raises `Skip`, `Fragmented`, or what unpacking raises
where the frame is cut (dpkt.NeedData, struct.error). The formats of the headers are dpkt's where it has them,
but not its unpacking of what is behind a header: that recurses as deep as a hostile frame wants, and loses
positions.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import dpkt

from closeseq.packets.protocols import (
    AUTHENTICATION,
    ETHERTYPE_BRIDGED,
    ETHERTYPE_E_TAG,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_LLC,
    ETHERTYPE_MPLS,
    ETHERTYPE_MPLS_MULTICAST,
    ETHERTYPE_PPP,
    ETHERTYPE_PPPOE,
    ETHERTYPE_VN_TAG,
    IPV6_EXTENSIONS,
    IPV6_FRAGMENT,
    IPV6_OPTIONS,
    LARGEST_LENGTH,
    LINKTYPE_ETHERNET,
    LINKTYPE_IEEE_802_11,
    LINKTYPE_NFLOG,
    LINKTYPE_RAW,
    PORT_GENEVE,
    PORT_GRE,
    PORT_GTP_U,
    PORT_VXLAN,
    PORT_VXLAN_LINUX,
    PROTOCOL_GRE,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_MPLS,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    VLAN_TAGS,
)
from closeseq.segments import wireless
from closeseq.segments.layers import (
    ETHERTYPE,
    LINK,
    PROTOCOL,
    Aggregate,
    Fragmented,
    Layer,
    Skip,
    dpkt_header,
    header,
    octet,
    pair,
)
from closeseq.segments.links import with_tag

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_PARTS = 64  # of all 802.11 aggregates in a frame, of a chain of GTP-U extensions or NFLOG attributes
ARUBA_TYPES = range(0x8200, 0x8380, 0x10)  # in GRE: 802.11, as access points hand it to their controller
NFLOG_PAYLOAD = 9  # nfnetlink_log.h: NFULA_PAYLOAD
# These may lead to a segment whose end is in another fragment.
UNFINISHED = {PROTOCOL_TCP, AUTHENTICATION, IPV6_OPTIONS}

_ipv4_header = dpkt_header(dpkt.ip.IP)
_ipv6_header = dpkt_header(dpkt.ip6.IP6)
_extension_header = dpkt_header(dpkt.ip6.IP6OptsHeader)
_fragment_header = dpkt_header(dpkt.ip6.IP6FragmentHeader)
_udp_header = dpkt_header(dpkt.udp.UDP)
_gre_header = dpkt_header(dpkt.gre.GRE)
_pppoe_header = dpkt_header(dpkt.pppoe.PPPoE)
_llc_header = dpkt_header(dpkt.llc.LLC)
_mpls_header = dpkt_header(dpkt.ethernet.MPLSlabel)
_tag_header = dpkt_header(dpkt.ethernet.VLANtag8021Q)
_ethernet_header = dpkt_header(dpkt.ethernet.Ethernet)
_snap_header = header("SNAP", (("llc", "3s", b""), ("oui", "3s", b""), ("type", "H", 0)))
_geneve_header = header("Geneve", (("lengths", "B", 0), ("flags", "B", 0), ("type", "H", 0), ("vni", "I", 0)))
_gtp_header = header("GTP", (("flags", "B", 0), ("type", "B", 0), ("length", "H", 0), ("teid", "I", 0)))

DEEPEST = 32  # headers; more make no sense, and each costs time


class Inner(NamedTuple):
    """Where in a frame the innermost IP header and the TCP header behind it begin."""

    version: int  # of IP
    ip: int  # where its header begins, in bytes from the frame's begin
    tcp: int  # and the TCP header
    vlan: int = 0  # as in `links`: of the tags on the way
    place: int = 0  # where the frame was captured, by the link headers on the way


class Piece(NamedTuple):
    """An IP fragment of a packet that holds TCP: where in a frame it is, and which part of the packet."""

    version: int  # of IP
    ip: int  # where its header begins, in bytes from the frame's begin
    data: int  # where its part of the packet's payload begins
    offset: int  # bytes, of this part in the payload
    more: bool  # other fragments follow
    identification: int  # the same for all fragments of a packet
    vlan: int = 0  # as in `Inner`
    place: int = 0  # as in `Inner`


class Walk(NamedTuple):
    """How far the walk along a frame has come, or along a part of it."""

    layer: Layer  # the next header
    steps: int = 0  # headers so far
    ip: Layer | None = None  # the innermost IP header
    vlan: int = 0  # as in `Inner`
    place: int = 0  # as in `Inner`


def locate(frame: bytes, layer: Layer, vlan: int = 0) -> list[Inner | Piece] | str:
    """Return where the TCP headers of a frame are, or fragments of them, or the reason why it has none.

    Only an 802.11 aggregate has more than one.

    Args:
        frame: what was captured of it.
        layer: its first header that is not read yet, with its position in the frame.
        vlan: the VLANs of the tags in front of it, as in `links`.

    Returns:
        At least one place, or a reason as in `Segments.skipped`.
    """
    ways, found, reasons = [Walk(layer, vlan=vlan)], list[Inner | Piece](), list[str]()
    for way in ways:  # parts of aggregates are added while it goes on
        end = _follow(frame, way, ways)
        if isinstance(end, str):
            reasons.append(end)
        elif end is not None:
            found.append(end)
    return found or next(iter(reasons), "not IP")


def _follow(frame: bytes, way: Walk, ways: list[Walk]) -> Inner | Piece | str | None:
    """Go on to where the walk ends: a segment, a fragment, a reason, or None for an aggregate's begin."""
    layer, steps, ip, vlan, place = way
    try:
        for _ in range(DEEPEST - steps):
            if layer.space == ETHERTYPE and layer.number in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
                ip = layer
            elif ip and layer.space == PROTOCOL and layer.number == PROTOCOL_TCP:
                return Inner(4 if ip.number == ETHERTYPE_IPV4 else 6, ip.at, layer.at, vlan, place)
            is_length = layer.space == ETHERTYPE and layer.number <= LARGEST_LENGTH
            step = STEPS.get((layer.space, ETHERTYPE_LLC if is_length else layer.number))
            if step is None:
                return "not TCP" if ip else "not IP"
            following, steps = step(frame, layer.at), steps + 1
            if isinstance(following, Aggregate):
                room = max(0, MOST_PARTS - len(ways))
                ways += [
                    Walk(part, steps, ip, with_tag(vlan, part.tag), place ^ part.place)
                    for part in following.layers[:room]
                ]
                return None
            layer = following
            vlan, place = with_tag(vlan, layer.tag), place ^ layer.place
    except (dpkt.NeedData, struct.error):
        return "encapsulation cut short"
    except Skip as end:
        return str(end)
    except Fragmented as end:
        assert ip is not None
        data, offset, more, identification = end.args
        version = 4 if ip.number == ETHERTYPE_IPV4 else 6
        return Piece(version, ip.at, data, offset, more, identification, vlan, place)
    return "encapsulation too deep"


def _ipv4(frame: bytes, at: int) -> Layer:
    head = _ipv4_header(frame, at)
    if head.v != 4 or head.hl < 5:  # noqa: PLR2004  # RFC 791 3.1
        raise Skip("malformed IP header")
    behind = at + head.hl * 4
    _check_fragment(behind, head.offset * 8, head.mf, head.p, head.id)
    return Layer(PROTOCOL, head.p, behind)


def _ipv6(frame: bytes, at: int) -> Layer:
    head = _ipv6_header(frame, at)
    if head.v != 6:  # noqa: PLR2004
        raise Skip("malformed IP header")
    return Layer(PROTOCOL, head.nxt, at + 40)


def _extension(frame: bytes, at: int) -> Layer:
    head = _extension_header(frame, at)
    return Layer(PROTOCOL, head.nxt, at + 8 + head.len * 8)  # RFC 8200 4.3


def _authentication(frame: bytes, at: int) -> Layer:
    head = _extension_header(frame, at)
    return Layer(PROTOCOL, head.nxt, at + 8 + head.len * 4)  # RFC 4302 2.2


def _fragment(frame: bytes, at: int) -> Layer:
    head = _fragment_header(frame, at)
    _check_fragment(at + 8, head.frag_off * 8, head.m_flag, head.nxt, head.id)
    return Layer(PROTOCOL, head.nxt, at + 8)


def _check_fragment(behind: int, offset: int, more: int, protocol: int, identification: int) -> None:
    """Let pass what is whole, and the first fragment of a tunnel, whose inner header is whole."""
    if protocol == PROTOCOL_TCP and (offset or more):
        raise Fragmented(behind, offset, bool(more), identification)
    if offset or (more and protocol in UNFINISHED):
        raise Skip("IP fragment")


def _udp(frame: bytes, at: int) -> Layer:
    tunnel = TUNNELS.get(_udp_header(frame, at).dport)
    if tunnel is None:
        raise Skip("not TCP")
    return tunnel(frame, at + 8)


def _vxlan(_frame: bytes, at: int) -> Layer:
    return Layer(ETHERTYPE, ETHERTYPE_BRIDGED, at + 8)  # RFC 7348 5


def _gtp(frame: bytes, at: int) -> Layer:
    """3GPP TS 29.281 5.1 and 5.2: version 1; any of three flags adds four bytes; then come extensions."""
    head = _gtp_header(frame, at)
    if head.flags >> 4 != 0x3 or head.type != 0xFF:  # noqa: PLR2004  # GTP version 1; a user's packet
        raise Skip("not TCP")
    at += 8
    if head.flags & 0x07:
        extension, at = octet(frame, at + 3).value, at + 4
        for _ in range(MOST_PARTS):
            if not extension:
                break
            size = octet(frame, at).value * 4
            if not size:
                raise Skip("not TCP")
            extension, at = octet(frame, at + size - 1).value, at + size
        else:
            raise Skip("encapsulation too deep")
    return _by_version(frame, at)


def _nflog(frame: bytes, at: int) -> Layer:
    """Linux's nfnetlink_log: attributes with a length and a type in the byte order of their machine."""
    for order in "<", ">":
        attribute = struct.Struct(f"{order}HH")
        place = at + 4
        for _ in range(MOST_PARTS):
            if place + attribute.size > len(frame):
                break
            length, kind = attribute.unpack_from(frame, place)
            if length < attribute.size:
                break  # it is in the other order
            if kind & 0x7FFF == NFLOG_PAYLOAD:
                return _by_version(frame, place + attribute.size)
            place += length + 3 & ~3
    raise Skip("not IP")


def _by_version(frame: bytes, at: int) -> Layer:
    """Return the layer of what should be an IP packet, by its first four bits."""
    ethertype = {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}.get(octet(frame, at).value >> 4)
    if ethertype is None:
        raise Skip("not IP")
    return Layer(ETHERTYPE, ethertype, at)


def _geneve(frame: bytes, at: int) -> Layer:
    head = _geneve_header(frame, at)
    return Layer(ETHERTYPE, head.type, at + 8 + (head.lengths & 0x3F) * 4)  # RFC 8926 3.4


def _gre(frame: bytes, at: int) -> Layer:
    """RFC 2784 and 2890: an optional word each for checksum, key and number; PPTP has its own order."""
    head = _gre_header(frame, at)
    if head.flags & dpkt.gre.GRE_RP:
        raise Skip("not TCP")  # RFC 1701's source routes; RFC 2784 2.3: discard it
    bits = (dpkt.gre.GRE_CP, dpkt.gre.GRE_KP, dpkt.gre.GRE_SP, dpkt.gre.GRE_AP if head.flags & 7 else 0)
    behind = at + 4 + 4 * sum(bool(head.flags & bit) for bit in bits)
    if head.p in ARUBA_TYPES:
        return Layer(LINK, LINKTYPE_IEEE_802_11, behind)
    return Layer(ETHERTYPE, head.p, behind)


def _mpls(frame: bytes, at: int) -> Layer:
    """RFC 3032 names no protocol behind the bottom of the stack; RFC 4928: its first 4 bits show it."""
    if not _mpls_header(frame, at).s:  # more labels follow
        return Layer(ETHERTYPE, ETHERTYPE_MPLS, at + 4)
    guess = {
        4: (ETHERTYPE_IPV4, 4),
        6: (ETHERTYPE_IPV6, 4),
        0: (ETHERTYPE_BRIDGED, 8),
    }  # 0: RFC 4385's control word
    ethertype, behind = guess.get(octet(frame, at + 4).value >> 4, (ETHERTYPE_BRIDGED, 4))
    return Layer(ETHERTYPE, ethertype, at + behind)


def _tag(frame: bytes, at: int) -> Layer:
    head = _tag_header(frame, at)
    return Layer(ETHERTYPE, head.type, at + 4, tag=head.id)


def _e_tag(frame: bytes, at: int) -> Layer:
    """IEEE 802.1BR 7: six bytes that name ports of a port extender, not VLANs."""
    return Layer(ETHERTYPE, pair(frame, at + 6).value, at + 8, place=crc32(frame[at : at + 6]))


def _vn_tag(frame: bytes, at: int) -> Layer:
    """Four bytes that name virtual ports, not VLANs."""
    return Layer(ETHERTYPE, pair(frame, at + 4).value, at + 6, place=crc32(frame[at : at + 4]))


def _ethernet(frame: bytes, at: int) -> Layer:
    return Layer(ETHERTYPE, _ethernet_header(frame, at).type, at + 14)


def _pppoe(frame: bytes, at: int) -> Layer:
    if _pppoe_header(frame, at).code != dpkt.pppoe.PPPoE_SESSION:
        raise Skip("not IP")
    return _ppp(frame, at + 6)


def _ppp(frame: bytes, at: int) -> Layer:
    """RFC 1662 3.1 and 6: address and control may be left out; an odd first byte is the whole protocol."""
    if frame[at : at + 2] == b"\xff\x03":
        at += 2
    number, size = octet(frame, at).value, 1
    if not number & dpkt.ppp.PFC_BIT:
        number, size = pair(frame, at).value, 2
    ethertypes = {dpkt.ppp.PPP_IP: ETHERTYPE_IPV4, dpkt.ppp.PPP_IP6: ETHERTYPE_IPV6, 0x0281: ETHERTYPE_MPLS}
    if number not in ethertypes:
        raise Skip("not IP")
    return Layer(ETHERTYPE, ethertypes[number], at + size)


def _llc(frame: bytes, at: int) -> Layer:
    """IEEE 802.2; RFC 1042: SNAP with an OUI of zeros holds an EtherType."""
    head = _llc_header(frame, at)
    if head.dsap == 0x06:  # noqa: PLR2004  # the service access point of IP
        return Layer(ETHERTYPE, ETHERTYPE_IPV4, at + 3)
    if (head.dsap, head.ssap, head.ctl) != (0xAA, 0xAA, 3):
        raise Skip("not IP")
    snap = _snap_header(frame, at)
    if snap.oui != bytes(3):
        raise Skip("not IP")
    return Layer(ETHERTYPE, snap.type, at + 8)


STEPS: dict[tuple[str, int], Callable[[bytes, int], Layer | Aggregate]] = {
    **{(LINK, number): step for number, step in wireless.STEPS.items()},
    (LINK, LINKTYPE_ETHERNET): _ethernet,
    (LINK, LINKTYPE_RAW): _by_version,
    (LINK, LINKTYPE_NFLOG): _nflog,
    (ETHERTYPE, ETHERTYPE_LLC): _llc,
    (ETHERTYPE, ETHERTYPE_IPV4): _ipv4,
    (ETHERTYPE, ETHERTYPE_BRIDGED): _ethernet,
    (ETHERTYPE, ETHERTYPE_IPV6): _ipv6,
    (ETHERTYPE, ETHERTYPE_PPP): _ppp,
    (ETHERTYPE, ETHERTYPE_MPLS): _mpls,
    (ETHERTYPE, ETHERTYPE_MPLS_MULTICAST): _mpls,
    (ETHERTYPE, ETHERTYPE_PPPOE): _pppoe,
    (ETHERTYPE, ETHERTYPE_VN_TAG): _vn_tag,
    (ETHERTYPE, ETHERTYPE_E_TAG): _e_tag,
    **{(ETHERTYPE, number): _tag for number in VLAN_TAGS},
    (PROTOCOL, PROTOCOL_IPV4): lambda _frame, at: Layer(ETHERTYPE, ETHERTYPE_IPV4, at),
    (PROTOCOL, PROTOCOL_UDP): _udp,
    (PROTOCOL, PROTOCOL_IPV6): lambda _frame, at: Layer(ETHERTYPE, ETHERTYPE_IPV6, at),
    (PROTOCOL, IPV6_FRAGMENT): _fragment,
    (PROTOCOL, PROTOCOL_GRE): _gre,
    (PROTOCOL, AUTHENTICATION): _authentication,
    (PROTOCOL, PROTOCOL_MPLS): lambda _frame, at: Layer(ETHERTYPE, ETHERTYPE_MPLS, at),
    **{(PROTOCOL, number): _extension for number in IPV6_EXTENSIONS},
}
TUNNELS: dict[int, Callable[[bytes, int], Layer]] = {
    PORT_VXLAN: _vxlan,
    PORT_VXLAN_LINUX: _vxlan,
    PORT_GENEVE: _geneve,
    PORT_GRE: _gre,
    PORT_GTP_U: _gtp,
}
