"""What becomes of a frame: a row with the right length, or one count under the right reason."""

from __future__ import annotations

import struct
import subprocess
import sys
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.packets.protocols import LARGEST_LENGTH, TUNNEL_PORTS
from closeseq.packets.segments import ACK, COLUMNS, DTYPES, FIN, PSH
from closeseq.segments import decode, encapsulation
from closeseq.segments.links import KIND_OF_ETHERTYPE, KIND_OF_PROTOCOL, LINKS, NextHeader
from dpkt_oracle import OFFLOAD, TOO_LONG, Frame, assert_agreement, frames_of, rows_of
from frame_bytes import (
    IPV4_ENDS,
    IPV6_ENDS,
    cooked,
    ethernet,
    extension,
    fragment_header,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from places import ROOT

SEGMENT = tcp(payload=b"0123456789", flags=PSH | ACK)
INNER = ipv4(SEGMENT)
INNER6 = ipv6(SEGMENT)
MORE = 0x2000


def decode_one(data, *, link_type=1, wire=None):
    return decode(frames_of([Frame(link_type, data, max(len(data), wire or 0))]))


def test_a_segment_is_read_field_by_field():
    data = ethernet(ipv4(tcp(payload=b"abc", flags=FIN | ACK | 0x80)))
    (row,) = rows_of(decode_one(data))
    assert row == {
        "number": 1, "time_ns": 1_700_000_000_000_000_000, "version": 4,
        "src_high": 0, "src_low": int(ip_address(IPV4_ENDS[0])),
        "dst_high": 0, "dst_low": int(ip_address(IPV4_ENDS[1])),
        "src_port": 50001, "dst_port": 80, "seq": 0xFFFFFFF0, "ack": 0x80000001,
        "flags": 0x91, "window": 0xFFFE, "length": 3, "ttl": 63, "ip_id": 0xABCD,
        "has_timestamps": False, "tsval": 0, "tsecr": 0, "dsack_left": 0, "dsack_right": 0,
        "sacked": 0, "syn_options": 0,
    }  # fmt: skip


def test_an_ipv6_address_is_two_halves():
    (row,) = rows_of(decode_one(ethernet(ipv6(tcp()))))
    ends = [(row["src_high"] << 64) + row["src_low"], (row["dst_high"] << 64) + row["dst_low"]]
    assert ends == [int(ip_address(end)) for end in IPV6_ENDS]
    assert (row["version"], row["ttl"], row["ip_id"]) == (6, 64, -1)


def test_every_column_has_the_dtype_it_is_declared_with():
    batches = [[], [ethernet(INNER)], [ethernet(INNER), ethernet(INNER6)], [ethernet(udp(b"", 1))]]
    for batch in batches:
        segments = decode(frames_of([Frame(1, data, 100) for data in batch]))
        assert {name: getattr(segments, name).dtype for name in COLUMNS} == DTYPES


LENGTHS = {  # packet, length on the wire (None: of the packet), payload, remark
    "padding is no payload": (ipv4(tcp()) + bytes(6), None, 0, None),
    "a cut frame has its whole payload": (ipv4(tcp(payload=bytes(999)))[:60], 1039, 999, None),
    "IPv4 length 0 is offload": (ipv4(tcp(), total=0), 65575, 65535, OFFLOAD),
    "BIG TCP over IPv4": (ipv4(tcp(), total=0), 180_040, 180_000, OFFLOAD),
    "BIG TCP over IPv6": (ipv6(tcp(), length=0), 180_060, 180_000, OFFLOAD),
    "IPv6 jumbo option": (
        ipv6(extension(tcp(), 6), protocol=0, length=0), 180_068, 180_000, OFFLOAD,
    ),
    "an IP length beyond the frame": (
        ipv4(tcp(), total=1500), None, 1460, TOO_LONG,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("packet", "wire", "payload", "note"), LENGTHS.values(), ids=LENGTHS)
def test_the_payload_length_comes_from_ip(packet, wire, payload, note):
    wire = len(packet) if wire is None else wire
    segments = assert_agreement(frames_of([Frame(1, ethernet(packet), 14 + wire)]))
    assert segments.length.tolist() == [payload]
    assert segments.notes == ({note: 1} if note else {})


SKIPPED = {
    "link type 147 not known": [(147, b"anything")],
    "link header cut short": [
        (1, b""),
        (1, ethernet(INNER)[:13]),
        (101, b""),
        (276, bytes(19)),
        (0, b"\2\0\0"),
    ],
    "not IP": [
        (1, ethernet(bytes(28), ethertype=0x0806)),
        (1, ethernet(bytes(28), (0x8100,), ethertype=0x0806)),
        (1, ethernet(bytes.fromhex("424203") + bytes(40), ethertype=43)),  # spanning tree
        (1, ethernet(bytes.fromhex("11090000 0000 c021"), ethertype=0x8864)),
        (0, struct.pack("<I", 7) + INNER),
        (101, b"\x05" + INNER),
        (113, cooked(bytes(28), ethertype=0x0806)),
    ],
    "IP header cut short": [(1, ethernet(INNER)[:33]), (1, ethernet(INNER6)[:53]), (101, b"\x45")],
    "malformed IP header": [
        (1, ethernet(ipv4(tcp(), first=0x44))),
        (1, ethernet(ipv4(tcp(), first=0x65), ethertype=0x0800)),
        (1, ethernet(ipv6(tcp(), first=0x45), ethertype=0x86DD)),
        (1, ethernet(ipv4(tcp(), total=19))),
        (1, ethernet(ipv4(tcp(), total=0))),  # too small for offload: the padding cannot be told apart
    ],
    "IP fragment": [
        (1, ethernet(ipv4(SEGMENT, fragment=0x0002))),
        (1, ethernet(ipv4(SEGMENT, fragment=MORE))),
        (1, ethernet(ipv4(INNER, fragment=0x0002, protocol=4))),
        (1, ethernet(ipv6(fragment_header(SEGMENT, 6, offset=2), protocol=44))),
        (1, ethernet(ipv6(fragment_header(SEGMENT, 6, more=1), protocol=44))),
    ],
    "not TCP": [
        (1, ethernet(ipv4(udp(b"", 53), protocol=17))),
        (1, ethernet(ipv4(bytes(8) + INNER, protocol=1))),  # an ICMP error quotes a segment
        (1, ethernet(ipv6(bytes(8) + INNER6, protocol=58))),
        (1, ethernet(ipv6(extension(udp(b"", 53), 17), protocol=60))),
    ],
    "encapsulation cut short": [
        (1, ethernet(ipv4(INNER, protocol=4))[:50]),
        (1, ethernet(ipv6(b"\x06", protocol=0))),
    ],
    "encapsulation too deep": [(1, ethernet(b"".join([bytes(4)] * 40), ethertype=0x8847))],
    "TCP header cut short": [(1, ethernet(INNER)[:53]), (1, ethernet(ipv4(SEGMENT, bytes(40)))[:60])],
    "malformed TCP header": [
        (1, ethernet(ipv4(tcp(words=4)))),
        (1, ethernet(ipv4(tcp(words=6)))),
        (1, ethernet(ipv4(tcp()[:19]))),
        (1, ethernet(ipv6(tcp(), length=19))),
    ],
}


@pytest.mark.parametrize(("reason", "frames"), SKIPPED.items(), ids=SKIPPED)
def test_a_frame_without_a_segment_is_counted_with_its_reason(reason, frames):
    for link_type, data in frames:
        wire = 60 if reason == "malformed IP header" else 2000
        segments = decode_one(data, link_type=link_type, wire=wire)
        assert (len(segments), dict(segments.skipped)) == (0, {reason: 1})


def gre(packet, flags=0, protocol=0x0800, extra=b""):
    return struct.pack(">HH", flags, protocol) + extra + packet


def pppoe(packet, protocol):
    return struct.pack(">BBHH", 0x11, 0, 5, len(packet) + len(protocol)) + protocol + packet


def snap(packet):
    return bytes.fromhex("aaaa03 000000 0800") + packet


VXLAN = struct.pack(">II", 0x08000000, 0x00002A00)
GENEVE = struct.pack(">BBHI", 1, 0, 0x6558, 0x2A00) + bytes(4)
NESTED = {
    "IPv4 in IPv4": ethernet(ipv4(INNER, protocol=4)),
    "IPv6 in IPv4": ethernet(ipv4(INNER6, protocol=41)),
    "IPv4 in IPv6": ethernet(ipv6(INNER, protocol=4)),
    "IPv6 in IPv6 behind an extension header": ethernet(ipv6(extension(INNER6, 41, units=2), protocol=60)),
    "GRE": ethernet(ipv4(gre(INNER), protocol=47)),
    "GRE with checksum, key and number": ethernet(ipv4(gre(INNER, 0xB000, extra=bytes(12)), protocol=47)),
    "GRE with Ethernet in it": ethernet(ipv4(gre(ethernet(INNER, (0x8100,)), protocol=0x6558), protocol=47)),
    "IPv6 hop-by-hop options": ethernet(ipv6(extension(SEGMENT, 6, units=1), protocol=0)),
    "IPv6 routing header": ethernet(ipv6(extension(SEGMENT, 6, units=2), protocol=43)),
    "three IPv6 extension headers": ethernet(
        ipv6(extension(fragment_header(extension(SEGMENT, 6), 60), 44), protocol=0)
    ),
    "IPv6 atomic fragment": ethernet(ipv6(fragment_header(SEGMENT, 6), protocol=44)),
    "authentication header": ethernet(ipv6(b"\x06\x04" + bytes(22) + SEGMENT, protocol=51)),
    "authentication header on IPv4": ethernet(
        ipv4(struct.pack(">BB", 6, 4) + bytes(22) + SEGMENT, protocol=51)
    ),
    "the first fragment of a tunnel": ethernet(ipv4(INNER, protocol=4, fragment=MORE)),
    "VXLAN": ethernet(ipv4(udp(VXLAN + ethernet(INNER), 4789), protocol=17)),
    "VXLAN as Linux had it, over IPv6": ethernet(ipv6(udp(VXLAN + ethernet(INNER6), 8472), protocol=17)),
    "Geneve": ethernet(ipv4(udp(GENEVE + ethernet(INNER), 6081), protocol=17)),
    "PPPoE": ethernet(pppoe(INNER, b"\0\x21"), ethertype=0x8864),
    "PPPoE with IPv6 and a compressed protocol": ethernet(pppoe(INNER6, b"\x57"), ethertype=0x8864),
    "MPLS": ethernet(bytes.fromhex("0001003f 0002013f") + INNER, ethertype=0x8847),
    "MPLS with Ethernet behind a control word": ethernet(
        bytes.fromhex("0001013f 00000000") + ethernet(INNER), ethertype=0x8847
    ),
    "LLC and SNAP": ethernet(snap(INNER), ethertype=8 + len(INNER)),
    "LLC with IP": ethernet(bytes.fromhex("060603") + INNER, ethertype=3 + len(INNER)),
    "PPPoE behind a VLAN tag": ethernet(pppoe(INNER, b"\0\x21"), (0x8100,), ethertype=0x8864),
}
IPV6_INSIDE = {
    "IPv6 in IPv4", "IPv6 in IPv6 behind an extension header", "IPv6 hop-by-hop options",
    "IPv6 routing header",
    "three IPv6 extension headers", "IPv6 atomic fragment", "authentication header",
    "VXLAN as Linux had it, over IPv6", "PPPoE with IPv6 and a compressed protocol",
}  # fmt: skip
NO_ORACLE = {  # dpkt does not see into these
    "GRE of PPTP": ethernet(ipv4(gre(b"\xff\x03\0\x21" + INNER, 0x3081, 0x880B, bytes(12)), protocol=47)),
    "MPLS in IP": ethernet(ipv4(bytes.fromhex("0001013f") + INNER, protocol=137)),
    "PPPoE in VXLAN in IP in MPLS": ethernet(
        bytes.fromhex("0001013f")
        + ipv4(udp(VXLAN + ethernet(pppoe(INNER, b"\0\x21"), ethertype=0x8864), 4789), protocol=17),
        ethertype=0x8847,
    ),
    "four tags": ethernet(INNER, (0x88A8, 0x8100, 0x8100, 0x9200)),
    "MPLS and an IP header with options": ethernet(
        bytes.fromhex("0001013f") + ipv4(SEGMENT, b"\x94\x04\0\0"), ethertype=0x8848
    ),
}


@pytest.mark.parametrize(("name", "data"), (NESTED | NO_ORACLE).items(), ids=NESTED | NO_ORACLE)
def test_the_innermost_segment_is_read(name, data):
    (row,) = rows_of(decode_one(data))
    assert (row["src_port"], row["flags"], row["length"]) == (50001, PSH | ACK, 10)
    assert (row["version"], row["ttl"]) == ((6, 64) if name in IPV6_INSIDE else (4, 63))


@pytest.mark.parametrize("data", NESTED.values(), ids=NESTED)
def test_the_innermost_segment_is_the_one_dpkt_reads(data):
    assert_agreement(frames_of([Frame(1, data, len(data)), Frame(1, data + bytes(8), len(data) + 8)]))


@pytest.mark.parametrize("data", (NESTED | NO_ORACLE).values(), ids=NESTED | NO_ORACLE)
def test_a_nested_frame_cut_anywhere_is_a_row_or_counted(data):
    frames = frames_of([Frame(1, data[:cut], len(data)) for cut in range(len(data) + 1)])
    segments = decode(frames)
    assert len(segments) + sum(segments.skipped.values()) == len(frames)
    assert len(segments) == 11  # the header is whole, and from none to all of the payload is there
    assert set(segments.length.tolist()) == {10}


def test_every_number_that_is_called_nested_has_a_step():
    for space, kinds in (
        (encapsulation.ETHERTYPE, KIND_OF_ETHERTYPE),
        (encapsulation.PROTOCOL, KIND_OF_PROTOCOL),
    ):
        named = {
            number
            for number, kind in enumerate(kinds.tolist())
            if kind not in (NextHeader.OTHER, NextHeader.TCP)
        }
        lengths = set(range(1, LARGEST_LENGTH + 1)) if space == encapsulation.ETHERTYPE else set()
        assert {number for of, number in encapsulation.STEPS if of == space} == named - lengths
    assert set(encapsulation.TUNNELS) == set(TUNNEL_PORTS)


def test_dpkt_is_imported_only_when_a_frame_needs_it():
    script = "import sys, closeseq.segments; sys.exit('dpkt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


# Frames that look enough like something to get past the first checks.
BEGINNINGS = [b"", ethernet(b"", ethertype=0x0800), ethernet(b"", ethertype=0x86DD), ethernet(INNER)[:34]]
BEGINNINGS += [data[:at] for data in (NESTED | NO_ORACLE).values() for at in (14, 20, 34, 54)]
link_types = st.sampled_from([*LINKS, 147, 65535]) | st.just(1)
octets = st.builds(bytes.__add__, st.sampled_from(BEGINNINGS), st.binary(max_size=120))
any_frame = st.builds(
    lambda kind, data, more: Frame(kind, data, len(data) + more),
    link_types, octets, st.integers(0, 70) | st.just(100_000),
)  # fmt: skip


@given(st.lists(any_frame, max_size=12), st.integers(0, 2))
def test_any_bytes_give_a_row_or_are_counted_once(batch, gap):
    frames = frames_of(batch, gap)
    segments = decode(frames)
    assert len(segments) + sum(segments.skipped.values()) == len(frames)
    assert all(count > 0 for count in segments.skipped.values())
    assert np.all(segments.length >= 0)
    assert np.all(np.diff(segments.number) > 0)


@given(st.data(), st.sampled_from([INNER, INNER6, ipv4(SEGMENT, bytes([1] * 8))]))
def test_a_header_with_bytes_changed_reads_as_dpkt_reads_it(data, packet):
    changed = bytearray(packet)
    spared = 6 if packet[0] >> 4 == 6 else 9  # the protocol: what it opens, dpkt sees in its own ways
    at = st.integers(0, len(packet) - 1).filter(lambda at: at != spared)
    for place, value in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), max_size=4)):
        changed[place] = value
    cut = data.draw(st.integers(0, len(packet)) | st.just(len(packet)))
    ethertype = 0x86DD if packet is INNER6 else 0x0800
    frame = ethernet(bytes(changed), ethertype=ethertype)
    assert_agreement(frames_of([Frame(1, frame[: 14 + cut], len(frame))]))
