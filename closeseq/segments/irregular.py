"""The frames that need a walk of their own: tunnels, IPv6 extension headers, MPLS, PPPoE, LLC, many tags.

The walk goes from header to header until it meets TCP, and says where the innermost IP header and the TCP
header stand; they are then read like all others. The formats of the headers are dpkt's, but not its
unpacking of what is behind a header: that recurses as deep as a hostile frame wants, and loses positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dpkt

from closeseq.segments.links import ETHERTYPE_IPV4, ETHERTYPE_IPV6, LARGEST_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

DEEPEST = 32  # headers; more make no sense, and each costs time


class Inner(NamedTuple):
    """Where in a frame the innermost IP header and the TCP header behind it begin."""

    version: int
    ip: int
    tcp: int


class Layer(NamedTuple):
    """The next header: a number, the space the number is from, and its position in the frame."""

    space: str  # ETHERTYPE or PROTOCOL
    number: int
    at: int


class Skip(Exception):  # noqa: N818  # no error, but the end of a walk
    """The walk ends here; the argument is the reason as in `Segments.skipped`."""


ETHERTYPE, PROTOCOL = "EtherType", "IP protocol"
ETHERNET = 0x6558  # the EtherType of bridged Ethernet
LLC = 0  # stands for all numbers that are a length instead of an EtherType
MPLS = 0x8847
TCP = 6
UNFINISHED = {TCP, 51, 60}  # what may lead to a segment whose end is in another fragment


def locate(frame: bytes, ethertype: int, at: int) -> Inner | str:
    """Return where the TCP header of a frame is, or the reason why it has none to read.

    `frame` is what was captured, `at` where its network layer of type `ethertype` begins.
    """
    layer = Layer(ETHERTYPE, ethertype, at)
    ip: Layer | None = None
    try:
        for _ in range(DEEPEST):
            if layer.space == ETHERTYPE and layer.number in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
                ip = layer
            elif ip and layer.space == PROTOCOL and layer.number == TCP:
                return Inner(4 if ip.number == ETHERTYPE_IPV4 else 6, ip.at, layer.at)
            is_length = layer.space == ETHERTYPE and layer.number <= LARGEST_LENGTH
            step = STEPS.get((layer.space, LLC if is_length else layer.number))
            if step is None:
                return "not TCP" if ip else "not IP"
            layer = step(frame, layer.at)
    except dpkt.NeedData:
        return "encapsulation cut short"
    except Skip as end:
        return str(end)
    return "encapsulation too deep"


def _header(name: str, fields: Any, bits: Any = None) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks one header, and nothing behind it. It raises dpkt.NeedData."""
    header = type(dpkt.Packet)(name, (dpkt.Packet,), {"__hdr__": fields, "__bit_fields__": bits or {}})
    size = header.__hdr_len__
    return lambda frame, at: header(frame[at : at + size])


def _dpkt(packet: Any) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks the header of a dpkt class, and nothing behind it."""
    return _header(packet.__name__, packet.__hdr__, getattr(packet, "__bit_fields__", None))


_ipv4_header = _dpkt(dpkt.ip.IP)
_ipv6_header = _dpkt(dpkt.ip6.IP6)
_extension_header = _dpkt(dpkt.ip6.IP6OptsHeader)
_fragment_header = _dpkt(dpkt.ip6.IP6FragmentHeader)
_udp_header = _dpkt(dpkt.udp.UDP)
_gre_header = _dpkt(dpkt.gre.GRE)
_pppoe_header = _dpkt(dpkt.pppoe.PPPoE)
_llc_header = _dpkt(dpkt.llc.LLC)
_mpls_header = _dpkt(dpkt.ethernet.MPLSlabel)
_tag_header = _dpkt(dpkt.ethernet.VLANtag8021Q)
_ethernet_header = _dpkt(dpkt.ethernet.Ethernet)
_snap_header = _header("SNAP", (("llc", "3s", b""), ("oui", "3s", b""), ("type", "H", 0)))
_geneve_header = _header(
    "Geneve", (("lengths", "B", 0), ("flags", "B", 0), ("type", "H", 0), ("vni", "I", 0))
)
_octet = _header("Octet", (("value", "B", 0),))
_pair = _header("Pair", (("value", "H", 0),))


def _ipv4(frame: bytes, at: int) -> Layer:
    header = _ipv4_header(frame, at)
    if header.v != 4 or header.hl < 5:  # noqa: PLR2004  # RFC 791 3.1
        raise Skip("malformed IP header")
    _check_fragment(header.offset, header.mf, header.p)
    return Layer(PROTOCOL, header.p, at + header.hl * 4)


def _ipv6(frame: bytes, at: int) -> Layer:
    header = _ipv6_header(frame, at)
    if header.v != 6:  # noqa: PLR2004
        raise Skip("malformed IP header")
    return Layer(PROTOCOL, header.nxt, at + 40)


def _extension(frame: bytes, at: int) -> Layer:
    header = _extension_header(frame, at)
    return Layer(PROTOCOL, header.nxt, at + 8 + header.len * 8)  # RFC 8200 4.3


def _authentication(frame: bytes, at: int) -> Layer:
    header = _extension_header(frame, at)
    return Layer(PROTOCOL, header.nxt, at + 8 + header.len * 4)  # RFC 4302 2.2


def _fragment(frame: bytes, at: int) -> Layer:
    header = _fragment_header(frame, at)
    _check_fragment(header.frag_off, header.m_flag, header.nxt)
    return Layer(PROTOCOL, header.nxt, at + 8)


def _check_fragment(offset: int, more: int, protocol: int) -> None:
    """Let pass what is whole, and the first fragment of a tunnel, whose inner header is whole."""
    if offset or (more and protocol in UNFINISHED):
        raise Skip("IP fragment")


def _udp(frame: bytes, at: int) -> Layer:
    tunnel = TUNNELS.get(_udp_header(frame, at).dport)
    if tunnel is None:
        raise Skip("not TCP")
    return tunnel(frame, at + 8)


def _vxlan(_frame: bytes, at: int) -> Layer:
    return Layer(ETHERTYPE, ETHERNET, at + 8)  # RFC 7348 5


def _geneve(frame: bytes, at: int) -> Layer:
    header = _geneve_header(frame, at)
    return Layer(ETHERTYPE, header.type, at + 8 + (header.lengths & 0x3F) * 4)  # RFC 8926 3.4


def _gre(frame: bytes, at: int) -> Layer:
    """RFC 2784 and 2890: an optional word each for checksum, key and number; PPTP has its own order."""
    header = _gre_header(frame, at)
    if header.flags & dpkt.gre.GRE_RP:
        raise Skip("not TCP")  # RFC 1701's source routes; RFC 2784 2.3: discard it
    bits = (dpkt.gre.GRE_CP, dpkt.gre.GRE_KP, dpkt.gre.GRE_SP, dpkt.gre.GRE_AP if header.flags & 7 else 0)
    return Layer(ETHERTYPE, header.p, at + 4 + 4 * sum(bool(header.flags & bit) for bit in bits))


def _mpls(frame: bytes, at: int) -> Layer:
    """RFC 3032: what is behind the bottom of the stack is not said; RFC 4928: the first 4 bits tell."""
    if not _mpls_header(frame, at).s:  # more labels follow
        return Layer(ETHERTYPE, MPLS, at + 4)
    guess = {4: (ETHERTYPE_IPV4, 4), 6: (ETHERTYPE_IPV6, 4), 0: (ETHERNET, 8)}  # 0: RFC 4385's control word
    ethertype, behind = guess.get(_octet(frame, at + 4).value >> 4, (ETHERNET, 4))
    return Layer(ETHERTYPE, ethertype, at + behind)


def _tag(frame: bytes, at: int) -> Layer:
    return Layer(ETHERTYPE, _tag_header(frame, at).type, at + 4)


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
    number, size = _octet(frame, at).value, 1
    if not number & dpkt.ppp.PFC_BIT:
        number, size = _pair(frame, at).value, 2
    ethertypes = {dpkt.ppp.PPP_IP: ETHERTYPE_IPV4, dpkt.ppp.PPP_IP6: ETHERTYPE_IPV6, 0x0281: MPLS}
    if number not in ethertypes:
        raise Skip("not IP")
    return Layer(ETHERTYPE, ethertypes[number], at + size)


def _llc(frame: bytes, at: int) -> Layer:
    """IEEE 802.2; RFC 1042: SNAP with an OUI of zeros holds an EtherType."""
    header = _llc_header(frame, at)
    if header.dsap == 0x06:  # noqa: PLR2004  # the service access point of IP
        return Layer(ETHERTYPE, ETHERTYPE_IPV4, at + 3)
    if (header.dsap, header.ssap, header.ctl) != (0xAA, 0xAA, 3):
        raise Skip("not IP")
    snap = _snap_header(frame, at)
    if snap.oui != bytes(3):
        raise Skip("not IP")
    return Layer(ETHERTYPE, snap.type, at + 8)


STEPS: dict[tuple[str, int], Callable[[bytes, int], Layer]] = {
    (ETHERTYPE, LLC): _llc,
    (ETHERTYPE, ETHERTYPE_IPV4): _ipv4,
    (ETHERTYPE, ETHERNET): _ethernet,
    (ETHERTYPE, 0x8100): _tag,
    (ETHERTYPE, ETHERTYPE_IPV6): _ipv6,
    (ETHERTYPE, MPLS): _mpls,
    (ETHERTYPE, 0x8848): _mpls,
    (ETHERTYPE, 0x8864): _pppoe,
    (ETHERTYPE, 0x880B): _ppp,
    (ETHERTYPE, 0x88A8): _tag,
    (ETHERTYPE, 0x9100): _tag,
    (ETHERTYPE, 0x9200): _tag,
    (PROTOCOL, 0): _extension,
    (PROTOCOL, 4): lambda _frame, at: Layer(ETHERTYPE, ETHERTYPE_IPV4, at),
    (PROTOCOL, 17): _udp,
    (PROTOCOL, 41): lambda _frame, at: Layer(ETHERTYPE, ETHERTYPE_IPV6, at),
    (PROTOCOL, 43): _extension,
    (PROTOCOL, 44): _fragment,
    (PROTOCOL, 47): _gre,
    (PROTOCOL, 51): _authentication,
    (PROTOCOL, 60): _extension,
    (PROTOCOL, 135): _extension,
    (PROTOCOL, 137): lambda _frame, at: Layer(ETHERTYPE, MPLS, at),
    (PROTOCOL, 139): _extension,
    (PROTOCOL, 140): _extension,
}
TUNNELS: dict[int, Callable[[bytes, int], Layer]] = {4789: _vxlan, 8472: _vxlan, 6081: _geneve}
