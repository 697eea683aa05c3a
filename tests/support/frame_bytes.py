"""Frames put together byte by byte, for tests: `ethernet(ipv4(tcp(flags=SYN)))`.

Nothing here knows dpkt, scapy or closeseq, so what they read is not what one of them wrote.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from closeseq.packets.segments import ACK

IPV4_ENDS = ("192.0.2.1", "198.51.100.7")
IPV6_ENDS = ("2001:db8::1", "fe80::ffff:2")
NOP_NOP_TIMESTAMPS = bytes.fromhex("0101080a fedcba98 01234567")


def tcp(
    options: bytes = b"",
    payload: bytes = b"",
    *,
    flags: int = ACK,
    seq: int = 0xFFFFFFF0,
    ack: int = 0x80000001,
    words: int | None = None,
    ports: tuple[int, int] = (50001, 80),
) -> bytes:
    """Return a segment; options are padded with END; `words` overrides the data offset."""
    options += bytes(-len(options) % 4)
    offset = 5 + len(options) // 4 if words is None else words
    fixed = struct.pack(">HHIIBBHHH", *ports, seq, ack, offset << 4, flags, 0xFFFE, 0x1234, 0)
    return fixed + options + payload


def udp(payload: bytes, port: int) -> bytes:
    return struct.pack(">HHHH", 50001, port, 8 + len(payload), 0) + payload


def ipv4(
    payload: bytes,
    options: bytes = b"",
    *,
    protocol: int = 6,
    fragment: int = 0x4000,
    total: int | None = None,
    first: int | None = None,
) -> bytes:
    """Return a packet; `total` overrides the total length, `first` the byte of version and header length."""
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    total = words * 4 + len(payload) if total is None else total
    source, destination = (ip_address(end).packed for end in IPV4_ENDS)
    first = 0x40 | words if first is None else first
    header = struct.pack(">BBHHHBBH", first, 0, total & 0xFFFF, 0xABCD, fragment, 63, protocol, 0)
    return header + source + destination + options + payload


def ipv6(payload: bytes, *, protocol: int = 6, length: int | None = None, first: int = 0x6F) -> bytes:
    """Return a packet; `length` overrides the payload length, `first` the first byte."""
    length = len(payload) if length is None else length
    source, destination = (ip_address(end).packed for end in IPV6_ENDS)
    return struct.pack(">BBHHBB", first, 0xFF, 0xFFFF, length, protocol, 64) + source + destination + payload


def extension(payload: bytes, protocol: int, *, units: int = 0) -> bytes:
    """Return an IPv6 extension header of 8 + 8 * `units` bytes (RFC 8200 4.3) and what follows it."""
    return struct.pack(">BB6x", protocol, units) + bytes(8 * units) + payload


def fragment_header(payload: bytes, protocol: int, *, offset: int = 0, more: int = 0) -> bytes:
    return struct.pack(">BxHI", protocol, offset << 3 | more, 0x1234) + payload


def ethertype_of(packet: bytes) -> int:
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def ethernet(packet: bytes, tags: tuple[int, ...] = (), *, ethertype: int | None = None) -> bytes:
    """Return a frame, with a VLAN tag of each type in `tags`."""
    ethertype = ethertype_of(packet) if ethertype is None else ethertype
    types = [*tags, ethertype]
    vlan = b"".join(struct.pack(">HH", 0x2064, kind) for kind in types[1:])
    return bytes(range(12)) + struct.pack(">H", types[0]) + vlan + packet


def cooked(packet: bytes, tags: tuple[int, ...] = (), *, ethertype: int | None = None) -> bytes:
    """Return the packet behind a header of Linux cooked capture (link type 113)."""
    return struct.pack(">HHH8s", 4, 1, 6, b"\x02" * 8) + ethernet(packet, tags, ethertype=ethertype)[12:]


def cooked2(packet: bytes, *, ethertype: int | None = None) -> bytes:
    """Return the packet behind a header of Linux cooked capture, version 2 (link type 276)."""
    ethertype = ethertype_of(packet) if ethertype is None else ethertype
    return struct.pack(">HHIHBB8s", ethertype, 0, 7, 772, 4, 6, b"\x02" * 8) + packet


def llc(packet: bytes) -> bytes:
    """Return the packet behind LLC and SNAP (RFC 1042)."""
    return bytes.fromhex("aaaa03 000000") + struct.pack(">H", ethertype_of(packet)) + packet


def fddi(packet: bytes, control: int = 0x50) -> bytes:
    return bytes([control]) + bytes(range(12)) + llc(packet)


def ieee_802_11(
    packet: bytes, *, control: int = 0x08, flags: int = 0x01, qos: bytes = b"", pad: int = 0
) -> bytes:
    """Return a data frame of 802.11; `qos` are the QoS and HT control fields, `pad` zeros behind them."""
    fourth = bytes(6) if flags & 3 == 3 else b""
    head = bytes([control, flags, 0, 0]) + bytes(range(18)) + b"\x30\x12" + fourth + qos + bytes(pad)
    return head + llc(packet)


def aggregate(*packets: bytes) -> bytes:
    """Return an A-MSDU of 802.11 with a part for each packet, all but the last padded to four bytes."""
    parts = [bytes(range(12)) + struct.pack(">H", len(llc(packet))) + llc(packet) for packet in packets]
    body = b"".join(part + bytes(-len(part) % 4) for part in parts[:-1]) + parts[-1]
    return bytes([0x88, 0x02, 0, 0]) + bytes(range(18)) + b"\x30\x12" + b"\x80\x00" + body


def radiotap(frame: bytes, present: int = 0, fields: bytes = b"") -> bytes:
    """Return a frame of 802.11 behind a radiotap header; `fields` are more words of bits and the fields."""
    return struct.pack("<BxHI", 0, 8 + len(fields), present) + fields + frame


def ppi(frame: bytes, link_type: int = 105, fields: bytes = b"") -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), link_type) + fields + frame


def nflog(packet: bytes, order: str = "<", *, kind: int = 9) -> bytes:
    """Return the packet behind a header of NFLOG and two attributes, of which the first one is padded."""

    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack(f"{order}HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    family = 2 if packet[0] >> 4 == 4 else 10
    return struct.pack(">BBH", family, 0, 5) + attribute(10, b"prefix\0") + attribute(kind, packet)


def gre(payload: bytes, ethertype: int, *, words: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">HH", flags, ethertype) + bytes(4 * words) + payload


def gtp(packet: bytes, *, flags: int = 0x30, optional: bytes = b"", kind: int = 0xFF) -> bytes:
    """Return the packet behind a header of GTP-U; `optional` are sequence number, extension headers, ..."""
    return struct.pack(">BBHI", flags, kind, len(optional) + len(packet), 0x1234) + optional + packet


def e_tag(packet: bytes) -> bytes:
    """Return an Ethernet frame with an E-Tag (IEEE 802.1BR)."""
    return ethernet(
        bytes.fromhex("0123 0456 0000") + struct.pack(">H", ethertype_of(packet)) + packet, ethertype=0x893F
    )


def vn_tag(packet: bytes) -> bytes:
    """Return an Ethernet frame with a VN-Tag."""
    return ethernet(
        bytes.fromhex("80120034") + struct.pack(">H", ethertype_of(packet)) + packet, ethertype=0x8926
    )
