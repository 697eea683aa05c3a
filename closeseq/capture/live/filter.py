"""Filter programs for TCP with some ports and hosts (classic BPF), put together without libpcap.

A program decides for every frame before it is copied, so what it drops costs next to nothing. It may only
look for TCP where that is cheap and certain. It passes what it cannot judge: tunnels and IPv6 extension
headers, whose walk has loops; the fragments of segments, which `segments` counts. So it passes everything
that `segments` would find and narrow to the same ports and hosts, and little else.

    the frame is     a TCP segment          with the ports, from or to the hosts: pass, else drop
                     a later fragment of one    with the hosts: pass (its ports are in the first one)
                     a tunnel, an extension header, LLC, MPLS, PPPoE, ...: pass
                     anything else: drop
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from closeseq.capture.live.bpf import (
    ADD,
    ADD_X,
    AND,
    COPY_FROM_X,
    COPY_TO_X,
    HARDWARE,
    IF_AT_LEAST,
    IF_BITS,
    IF_EQUAL,
    IF_GREATER,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_X,
    LOAD_HALF,
    LOAD_HALF_X,
    LOAD_WORD,
    LOAD_WORD_X,
    OUTGOING,
    PACKET_TYPE,
    PROTOCOL,
    RETURN,
    SET_X,
    SHIFT_LEFT,
    FilterLine,
    Program,
    assemble,
)
from closeseq.capture.live.devices import LOOPBACK_HARDWARE
from closeseq.packets.protocols import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    FRAGMENT_OFFSET,
    LARGEST_LENGTH,
    LINKTYPE_FDDI,
    LINKTYPE_IEEE_802_11,
    LINKTYPE_RADIOTAP,
    LINKTYPE_RAW,
    LINKTYPE_SLL2,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TUNNEL_PORTS,
    VLAN_TAGS,
    WALKED_ETHERTYPES,
    WALKED_PROTOCOLS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from closeseq.capture.live.devices import Device

# Instructions. The kernel allows 4096, and older ones give a socket 20 kB for options of all kinds.
MOST = 1000

# `segments` walks along these: what must be walked anyway, and a third VLAN tag.
UNJUDGED_TYPES = (*WALKED_ETHERTYPES, *VLAN_TAGS)


@dataclass(frozen=True, slots=True)
class FilterRequest:
    """The ports and hosts whose TCP a program shall pass."""

    ports: AbstractSet[int] = frozenset()  # at either end; empty: all
    hosts: AbstractSet[str] = frozenset()  # IP addresses, at either end; empty: all


def tcp_program(device: Device, wanted: FilterRequest, snap_length: int) -> Program:
    """Return the program that passes the wanted TCP of a device.

    If ports or hosts make it too long it leaves them out, and passes more than is wanted.

    Args:
        device: its link type decides where the headers are.
        wanted: ports and hosts.
        snap_length: bytes to keep of each frame that passes.
    """
    for some in (wanted, FilterRequest(hosts=wanted.hosts), FilterRequest(ports=wanted.ports)):
        program = assemble(_tcp(device, some, snap_length))
        if len(program) <= MOST:
            return program
    return assemble(_tcp(device, FilterRequest(), snap_length))


def _tcp(device: Device, wanted: FilterRequest, snap_length: int) -> Iterator[FilterLine | str]:
    if device.link_type in (
        LINKTYPE_FDDI,
        LINKTYPE_IEEE_802_11,
        LINKTYPE_RADIOTAP,
    ):  # headers of other lengths in front of everything
        yield FilterLine(JUMP, then="pass")
        yield from _ends(snap_length)
        return
    addresses = [ip_address(host) for host in sorted(wanted.hosts)]
    narrow = bool(addresses)
    yield from _once(device)
    yield from _network(device.link_type)
    yield from _judge_type()
    yield from _ipv4([int(address) for address in addresses if isinstance(address, IPv4Address)], narrow)
    yield from _ipv6([int(address) for address in addresses if isinstance(address, IPv6Address)], narrow)
    yield from _datagram()
    yield from _segment(wanted.ports)
    yield from _ends(snap_length)


def _ends(snap_length: int) -> list[FilterLine | str]:
    return ["pass", FilterLine(RETURN, snap_length), "drop", FilterLine(RETURN, 0)]


def _once(device: Device) -> Iterator[FilterLine | str]:
    """Drop what loopback sends: the same comes in at once. `any` includes loopback."""
    if device.loopback or device.cooked:
        yield FilterLine(LOAD_WORD, PACKET_TYPE)
        yield FilterLine(IF_EQUAL, OUTGOING, else_="once")
        yield FilterLine(LOAD_WORD, HARDWARE)
        yield FilterLine(IF_EQUAL, LOOPBACK_HARDWARE, then="drop")
        yield "once"


def _network(link_type: int) -> Iterator[FilterLine | str]:
    """Set X to the network layer, behind up to two VLAN tags, and A to its EtherType."""
    if link_type == LINKTYPE_RAW:
        yield from _by_version("drop")
        return
    if link_type == LINKTYPE_SLL2:
        yield FilterLine(SET_X, 0)
        yield FilterLine(LOAD_WORD, PROTOCOL)
        yield from _if_tag("tag")
        yield FilterLine(JUMP, then="type")
        yield "tag"
        # Of what is received, the network layer begins with the tag; of what is sent, behind it.
        yield FilterLine(LOAD_HALF, 2)
        yield from _if_tag("pass")
        yield FilterLine(IF_EQUAL, ETHERTYPE_IPV4, then="pass")
        yield FilterLine(IF_EQUAL, ETHERTYPE_IPV6, then="pass")
        yield from _by_version("pass")
    else:
        for end in (14, 18):
            yield FilterLine(SET_X, end)
            yield FilterLine(LOAD_HALF, end - 2)
            yield from _if_tag(f"tag at {end}")
            yield FilterLine(JUMP, then="type")
            yield f"tag at {end}"
        yield FilterLine(SET_X, 22)
        yield FilterLine(LOAD_HALF, 20)
    yield "type"


def _if_tag(then: str) -> Iterator[FilterLine | str]:
    for ethertype in VLAN_TAGS:
        yield FilterLine(IF_EQUAL, ethertype, then=then)


def _by_version(otherwise: str) -> Iterator[FilterLine | str]:
    """Branch by the version in the first byte of what must be an IP header."""
    yield FilterLine(SET_X, 0)
    yield FilterLine(LOAD_BYTE, 0)
    yield FilterLine(AND, 0xF0)
    yield FilterLine(IF_EQUAL, 0x40, then="IPv4")
    yield FilterLine(IF_EQUAL, 0x60, then="IPv6")
    yield FilterLine(JUMP, then=otherwise)


def _judge_type() -> Iterator[FilterLine | str]:
    """Branch by the EtherType that is in A."""
    yield FilterLine(IF_EQUAL, ETHERTYPE_IPV4, then="IPv4")
    yield FilterLine(IF_EQUAL, ETHERTYPE_IPV6, then="IPv6")
    yield FilterLine(IF_GREATER, LARGEST_LENGTH, else_="pass")
    for ethertype in UNJUDGED_TYPES:
        yield FilterLine(IF_EQUAL, ethertype, then="pass")
    yield FilterLine(JUMP, then="drop")


def _ipv4(hosts: list[int], narrow: bool) -> Iterator[FilterLine | str]:
    """Branch by an IPv4 header (RFC 791 3.1); `narrow`: only some hosts are wanted."""
    yield "IPv4"
    yield FilterLine(LOAD_BYTE_X, 9)
    yield from _judge_protocol("IPv4")
    yield "IPv4 TCP"
    if narrow:
        for at in (12, 16):
            yield FilterLine(LOAD_WORD_X, at)
            for host in hosts:
                yield FilterLine(IF_EQUAL, host, then="IPv4 TCP wanted")
        yield FilterLine(JUMP, then="drop")
    yield "IPv4 TCP wanted"
    yield FilterLine(LOAD_HALF_X, 6)
    yield FilterLine(IF_BITS, FRAGMENT_OFFSET, then="pass")
    yield from _behind_ipv4()
    yield FilterLine(JUMP, then="TCP")
    yield "IPv4 UDP"
    yield FilterLine(LOAD_HALF_X, 6)
    yield FilterLine(IF_BITS, FRAGMENT_OFFSET, then="drop")
    yield from _behind_ipv4()
    yield FilterLine(JUMP, then="UDP")


def _behind_ipv4() -> Iterator[FilterLine | str]:
    """Set X behind the header, whose length is in the low half of its first byte, in words."""
    yield FilterLine(LOAD_BYTE_X, 0)
    yield FilterLine(AND, 0x0F)
    yield FilterLine(SHIFT_LEFT, 2)
    yield FilterLine(ADD_X)
    yield FilterLine(COPY_TO_X)


def _ipv6(hosts: list[int], narrow: bool) -> Iterator[FilterLine | str]:
    """Branch by an IPv6 header (RFC 8200 3); `narrow`: only some hosts are wanted."""
    yield "IPv6"
    yield FilterLine(LOAD_BYTE_X, 6)
    yield from _judge_protocol("IPv6")
    yield "IPv6 TCP"
    if narrow:
        for at in (8, 24):
            for host in hosts:
                other = f"not {at} {host}"
                for word in range(4):
                    yield FilterLine(LOAD_WORD_X, at + 4 * word)
                    yield FilterLine(IF_EQUAL, host >> (96 - 32 * word) & 0xFFFFFFFF, else_=other)
                yield FilterLine(JUMP, then="IPv6 TCP wanted")
                yield other
        yield FilterLine(JUMP, then="drop")
    yield "IPv6 TCP wanted"
    yield from _behind_ipv6()
    yield FilterLine(JUMP, then="TCP")
    yield "IPv6 UDP"
    yield from _behind_ipv6()
    yield FilterLine(JUMP, then="UDP")


def _behind_ipv6() -> Iterator[FilterLine | str]:
    yield FilterLine(COPY_FROM_X)
    yield FilterLine(ADD, 40)
    yield FilterLine(COPY_TO_X)


def _judge_protocol(version: str) -> Iterator[FilterLine | str]:
    """Branch by the protocol that is in A."""
    yield FilterLine(IF_EQUAL, PROTOCOL_TCP, then=f"{version} TCP")
    yield FilterLine(IF_EQUAL, PROTOCOL_UDP, then=f"{version} UDP")
    for protocol in WALKED_PROTOCOLS:
        yield FilterLine(IF_EQUAL, protocol, then="pass")
    yield FilterLine(JUMP, then="drop")


def _datagram() -> Iterator[FilterLine | str]:
    """Branch by the destination port of a UDP datagram at X: it may be a tunnel."""
    yield "UDP"
    yield FilterLine(LOAD_HALF_X, 2)
    for port in TUNNEL_PORTS:
        yield FilterLine(IF_EQUAL, port, then="pass")
    yield FilterLine(JUMP, then="drop")


def _segment(ports: AbstractSet[int]) -> Iterator[FilterLine | str]:
    """Branch by the two ports of a TCP segment at X."""
    yield "TCP"
    if not ports:
        return
    for at in (0, 2):
        yield FilterLine(LOAD_HALF_X, at)
        for low, high in _ranges(ports):
            if low == high:
                yield FilterLine(IF_EQUAL, low, then="pass")
            else:
                other = f"not {at} {low}"
                yield FilterLine(IF_AT_LEAST, low, else_=other)
                yield FilterLine(IF_GREATER, high, else_="pass")
                yield other
    yield FilterLine(JUMP, then="drop")


def _ranges(ports: AbstractSet[int]) -> Iterator[tuple[int, int]]:
    """Return the ports as ranges, first and last one included."""
    known = sorted(ports)
    gaps = [(low, high) for low, high in pairwise(known) if high > low + 1]
    return zip((known[0], *(high for _, high in gaps)), (*(low for low, _ in gaps), known[-1]), strict=True)
