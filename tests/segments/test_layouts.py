"""Every layout of headers, and every capture: the column decoder and dpkt read the same out of each frame."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from closeseq.packets.segments import ACK, FIN
from closeseq.segments import decode
from dpkt_oracle import Frame, assert_agreement, frames_in, frames_of, rows_of
from frame_bytes import (
    NOP_NOP_TIMESTAMPS,
    cooked,
    cooked2,
    ethernet,
    ethertype_of,
    extension,
    ipv4,
    ipv6,
    tcp,
    udp,
)
from places import ROOT

CAPTURES = sorted((ROOT / "captures").glob("*.pcap*"))


def of_family(number_ipv4, number_ipv6, pattern):
    def link(packet):
        return struct.pack(pattern, number_ipv4 if packet[0] >> 4 == 4 else number_ipv6) + packet

    return link


LINKS = {
    "Ethernet": (1, ethernet),
    "Ethernet, a VLAN tag": (1, lambda packet: ethernet(packet, (0x8100,))),
    "Ethernet, 802.1ad": (1, lambda packet: ethernet(packet, (0x88A8, 0x8100))),
    "Ethernet, QinQ": (1, lambda packet: ethernet(packet, (0x9100, 0x8100))),
    "Ethernet, two plain tags": (1, lambda packet: ethernet(packet, (0x8100, 0x8100))),
    "Ethernet, three tags": (1, lambda packet: ethernet(packet, (0x88A8, 0x8100, 0x8100))),
    "null, little endian, Linux": (0, of_family(2, 10, "<I")),
    "null, little endian, NetBSD": (0, of_family(2, 24, "<I")),
    "null, big endian, FreeBSD": (0, of_family(2, 28, ">I")),
    "null, little endian, macOS": (0, of_family(2, 30, "<I")),
    "loop": (108, of_family(2, 24, ">I")),
    "raw IP": (101, bytes),
    "raw IP, numbered 12": (12, bytes),
    "raw IP, numbered 14": (14, bytes),
    "cooked": (113, cooked),
    "cooked, a VLAN tag": (113, lambda packet: cooked(packet, (0x8100,))),
    "cooked 2": (276, cooked2),
    "Cisco HDLC": (104, lambda packet: struct.pack(">HH", 0x0F00, ethertype_of(packet)) + packet),
    "PPP": (9, of_family(0xFF030021, 0xFF030057, ">I")),
    "PPPoE": (51, of_family(0x0021, 0x0057, ">6xH")),
}
TOLD = {
    name: LINKS[name] for name in LINKS if "PPP" not in name
}  # dpkt does not tell where a cut PPP frame ends
INTERNETS = {
    "IPv4": ipv4,
    "IPv4 with a short option": lambda segment: ipv4(segment, b"\x94\x04\0\0"),
    "IPv4 with all options": lambda segment: ipv4(segment, bytes([1]) * 40),
    "IPv6": ipv6,
}
OPTIONS = {
    "none": b"",
    "timestamps": NOP_NOP_TIMESTAMPS,
    "SYN as Linux sends it": bytes.fromhex("020405b4 0402 080a 00000001 00000000 01 030307"),
    "timestamps and a D-SACK": NOP_NOP_TIMESTAMPS + bytes.fromhex("0101050a 7ffffff1 80000001"),
    "a SACK of four blocks": bytes.fromhex("0101 0522") + bytes(range(32)),
    "broken": bytes.fromhex("0101 0801 080a 00000001 00000002"),
    "forty bytes": bytes([1]) * 30 + NOP_NOP_TIMESTAMPS[2:],
}


def every_layout():
    segments = [
        tcp(options, bytes(payload), flags=ACK | (FIN if payload else 0))
        for options, payload in itertools.product(OPTIONS.values(), (0, 1, 700))
    ]
    for (link_type, link), internet in itertools.product(LINKS.values(), INTERNETS.values()):
        for segment in segments:
            data = link(internet(segment))
            yield Frame(link_type, data, len(data))
            yield Frame(link_type, data + bytes(6), len(data) + 6)  # Ethernet's padding
            yield Frame(link_type, data[: len(data) - len(segment) + 34], len(data))  # cut within the options


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_every_capture_reads_as_dpkt_reads_it(path):
    assert_agreement(frames_in(path))


def test_every_layout_reads_as_dpkt_reads_it():
    segments = assert_agreement(frames_of(list(every_layout())))
    assert segments.skipped == {}


@pytest.mark.parametrize("internet", INTERNETS.values(), ids=INTERNETS)
@pytest.mark.parametrize(("link_type", "link"), TOLD.values(), ids=TOLD)
def test_a_frame_cut_anywhere_reads_as_dpkt_reads_it(link_type, link, internet):
    data = link(internet(tcp(OPTIONS["timestamps and a D-SACK"], b"payload")))
    frames = frames_of([Frame(link_type, data[:cut], len(data)) for cut in range(len(data) + 1)])
    segments = assert_agreement(frames)
    assert segments.length.tolist() == [7] * len(segments)
    assert len(segments) == len(data) - data.index(tcp()[:12]) - 20 + 1


def slices(frames, cuts):
    columns = ("offset", "captured", "wire", "time_ns", "number", "link_type")
    for begin, end in itertools.pairwise([0, *cuts, len(frames)]):
        yield type(frames)(frames.buffer, *(getattr(frames, name)[begin:end] for name in columns))


def test_a_batch_cut_at_any_point_gives_the_same_rows_and_counts():
    packets = [link(ipv4(tcp(b"", b"x" * size))) for size, (_, link) in enumerate(LINKS.values())]
    whole = frames_of(
        [Frame(kind, data, len(data)) for data, (kind, _) in zip(packets, LINKS.values(), strict=True)]
        + [Frame(147, b"abc", 3), Frame(1, ethernet(ipv4(udp(b"", 53), protocol=17)), 42)]
    )
    expected = decode(whole)
    assert len(expected) == len(LINKS)
    for cut in range(len(whole) + 1):
        parts = [decode(part) for part in slices(whole, [cut])]
        assert [row for part in parts for row in rows_of(part)] == rows_of(expected)
        reasons = set(expected.skipped)
        assert {r: sum(part.skipped.get(r, 0) for part in parts) for r in reasons} == expected.skipped


def test_rows_stay_in_capture_order_whatever_the_layouts():
    kinds = [ethernet(ipv4(tcp())), ethernet(ipv6(tcp())), ethernet(ipv6(extension(tcp(), 6), protocol=60))]
    frames = frames_of([Frame(1, kinds[at % 3], 200) for at in range(30)])
    assert decode(frames).number.tolist() == list(range(1, 31))
    assert decode(frames).version.tolist() == [4, 6, 6] * 10


def test_an_empty_batch_gives_no_rows():
    segments = decode(frames_of([]))
    assert len(segments) == 0
    assert segments.skipped == {}


def test_frames_that_end_with_the_buffer_are_read_whole():
    data = ipv4(tcp(), total=0)[:40]
    frames = frames_of([Frame(101, data, 3000)], gap=0)
    assert decode(frames).length.tolist() == [2960]


def test_the_columns_do_not_hold_on_to_the_buffer():
    data = ethernet(ipv6(tcp(NOP_NOP_TIMESTAMPS)))
    frames = frames_of([Frame(1, data, len(data))])
    segments = decode(frames)
    assert not any(
        np.shares_memory(getattr(segments, name), frames.buffer) for name in ("seq", "src_low", "tsval")
    )
