"""Links and tunnels that need a walk: a segment reads the same in each of them as on its own."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.capture import open_capture
from closeseq.capture.writers import PcapngWriter, SavedDevice
from closeseq.packets.segments import ACK, FIN, PSH
from closeseq.segments import decode
from closeseq.segments.links import LINKS, WALKED
from dpkt_oracle import Frame, frames_of, rows_of
from frame_bytes import (
    NOP_NOP_TIMESTAMPS,
    aggregate,
    cooked,
    cooked2,
    e_tag,
    ethernet,
    fddi,
    gre,
    gtp,
    ieee_802_11,
    ipv4,
    ipv6,
    nflog,
    ppi,
    radiotap,
    tcp,
    udp,
    vn_tag,
)

SEGMENT = tcp(NOP_NOP_TIMESTAMPS, b"0123456789", flags=PSH | ACK)
PACKETS = {"IPv4": ipv4(SEGMENT), "IPv6": ipv6(SEGMENT)}


def in_udp(port):
    return lambda payload: ethernet(ipv4(udp(payload, port), protocol=17))


def in_gre(payload, ethertype, **header):
    return ethernet(ipv4(gre(payload, ethertype, **header), protocol=47))


GTP_EXTENSIONS = bytes.fromhex("0007 00 85 01 1009 c0 02 00000000 0000 00")
CARRIERS = {
    "FDDI": (10, fddi),
    "FDDI, synchronous": (10, lambda packet: fddi(packet, 0xD1)),
    "802.11": (105, ieee_802_11),
    "802.11 with a QoS header": (105, lambda p: ieee_802_11(p, control=0x88, flags=2, qos=b"\5\0")),
    "802.11 with a QoS and an HT header": (
        105,
        lambda p: ieee_802_11(p, control=0x88, flags=0x82, qos=b"\5\0" + bytes(4)),
    ),
    "802.11 relayed": (105, lambda packet: ieee_802_11(packet, flags=3)),
    "802.11 sent again": (105, lambda packet: ieee_802_11(packet, flags=0x0A)),
    "an 802.11 aggregate of one": (105, aggregate),
    "radiotap": (127, lambda packet: radiotap(ieee_802_11(packet))),
    "radiotap with a timer, flags and a check sequence": (
        127,
        lambda p: radiotap(ieee_802_11(p) + bytes(4), 3, bytes(8) + b"\x10" + bytes(3)),
    ),
    "radiotap, its timer aligned, a padded header": (
        127,
        lambda p: radiotap(
            ieee_802_11(p, control=0x88, qos=b"\0\0", pad=2),
            1 << 31 | 3,
            struct.pack("<I", 0) + bytes(4) + bytes(8) + b"\x20",
        ),
    ),
    "PPI": (192, lambda packet: ppi(ieee_802_11(packet), fields=bytes.fromhex("0200 1400") + bytes(20))),
    "PPI of Ethernet": (192, lambda packet: ppi(ethernet(packet, (0x8100,)), 1)),
    "NFLOG, little endian": (239, nflog),
    "NFLOG, big endian": (239, lambda packet: nflog(packet, ">")),
    "GRE over UDP": (1, lambda packet: in_udp(4754)(gre(packet, 0x0800 if packet[0] < 0x60 else 0x86DD))),
    "GRE over UDP with a key": (
        1,
        lambda p: in_udp(4754)(gre(p, 0x0800 if p[0] < 0x60 else 0x86DD, words=1, flags=0x2000)),
    ),
    "Aruba GRE": (1, lambda packet: in_gre(ieee_802_11(packet), 0x8200)),
    "Aruba GRE, the last type": (1, lambda packet: in_gre(ieee_802_11(packet), 0x8370)),
    "GTP-U": (1, lambda packet: in_udp(2152)(gtp(packet))),
    "GTP-U with a sequence number": (1, lambda p: in_udp(2152)(gtp(p, flags=0x32, optional=bytes(4)))),
    "GTP-U with two extension headers": (
        1,
        lambda packet: in_udp(2152)(gtp(packet, flags=0x36, optional=GTP_EXTENSIONS)),
    ),
    "E-Tag": (1, e_tag),
    "VN-Tag": (1, vn_tag),
}  # fmt: skip
NOTHING = {
    "FDDI's own frames": (10, fddi(PACKETS["IPv4"], 0x41), "not IP"),
    "802.11 encrypted": (105, ieee_802_11(PACKETS["IPv4"], flags=0x41), "802.11 encrypted"),
    "802.11 without data": (105, ieee_802_11(PACKETS["IPv4"], control=0x48), "not IP"),
    "an 802.11 beacon": (105, ieee_802_11(PACKETS["IPv4"], control=0x80), "not IP"),
    "a later 802.11 fragment": (
        105,
        ieee_802_11(PACKETS["IPv4"])[:22] + b"\x31\x12" + bytes(99),
        "802.11 fragment",
    ),
    "an empty aggregate": (105, aggregate(PACKETS["IPv4"])[:30], "not IP"),
    "radiotap that ends within itself": (127, b"\0\0\7\0\0\0\0\0", "not IP"),
    "PPI of something else": (192, ppi(bytes(60), 147), "not IP"),
    "NFLOG without the packet": (239, nflog(PACKETS["IPv4"], kind=12), "not IP"),
    "NFLOG of ARP": (239, nflog(b"\0" * 28), "not IP"),
    "a message of GTP-U itself": (1, in_udp(2152)(gtp(b"", kind=1)), "not TCP"),
    "GTP' of charging": (1, in_udp(2152)(gtp(PACKETS["IPv4"], flags=0x20)), "not TCP"),
    "GTP-U extension of no length": (
        1,
        in_udp(2152)(gtp(PACKETS["IPv4"], flags=0x34, optional=bytes.fromhex("000000 85 00000000"))),
        "not TCP",
    ),
    "GTP-U with endless extensions": (
        1,
        in_udp(2152)(
            gtp(b"", flags=0x34, optional=bytes.fromhex("00000085") + bytes.fromhex("01000085") * 900)
        ),
        "encapsulation too deep",
    ),
    "NFLOG with endless attributes": (239, b"\2\0\0\5" + struct.pack("<HH", 4, 1) * 900, "not IP"),
    "GTP-U of Ethernet": (1, in_udp(2152)(gtp(bytes(60))), "not IP"),
    "GRE over UDP, encrypted (DTLS)": (1, in_udp(4755)(gre(PACKETS["IPv4"], 0x0800)), "not TCP"),
}


def rows(link_type, data):
    return rows_of(decode(frames_of([Frame(link_type, data, len(data))])))


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
@pytest.mark.parametrize(("link_type", "carrier"), CARRIERS.values(), ids=CARRIERS)
def test_a_segment_reads_as_on_its_own(link_type, carrier, packet):
    assert rows(link_type, carrier(packet)) == rows(101, packet)


@pytest.mark.parametrize(("link_type", "data", "reason"), NOTHING.values(), ids=NOTHING)
def test_what_holds_no_segment_says_why(link_type, data, reason):
    segments = decode(frames_of([Frame(link_type, data, len(data))]))
    assert (len(segments), segments.skipped) == (0, {reason: 1})


@pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)
@pytest.mark.parametrize(("link_type", "carrier"), CARRIERS.values(), ids=CARRIERS)
def test_a_frame_cut_anywhere_is_read_from_the_fixed_header_on_and_else_counted(link_type, carrier, packet):
    data = carrier(packet)
    whole = rows(101, packet)[0]
    begin = data.index(SEGMENT)
    for cut in range(len(data)):
        segments = decode(frames_of([Frame(link_type, data[:cut], len(data))]))
        assert len(segments) + sum(segments.skipped.values()) == 1
        assert len(segments) == (cut >= begin + 20)
        for row in rows_of(segments):
            assert {name: row[name] for name in ("seq", "length", "ttl")} == {
                name: whole[name] for name in ("seq", "length", "ttl")
            }


def test_an_aggregate_gives_a_row_for_each_of_its_packets():
    inside = [ipv4(tcp(payload=bytes(size))) for size in (0, 1, 2, 3, 700)]
    data = aggregate(*inside)
    got = rows(105, data)
    assert [row["length"] for row in got] == [0, 1, 2, 3, 700]
    assert [row | {"number": 1} for row in got] == [rows(101, packet)[0] for packet in inside]


def test_of_an_aggregate_what_is_no_segment_is_left_out():
    data = aggregate(ipv4(udp(b"", 53), protocol=17), ipv4(SEGMENT), bytes(40))
    segments = decode(frames_of([Frame(105, data, len(data))]))
    assert (len(segments), segments.skipped) == (1, {})


def test_aggregates_within_aggregates_end():
    data = ipv4(SEGMENT)
    for _ in range(8):
        data = ipv4(gre(aggregate(data, data), 0x8200), protocol=47)
    frames = frames_of([Frame(101, data, len(data))])
    assert len(decode(frames)) <= 64


def test_packets_crafted_by_scapy_read_as_on_their_own():
    from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
    from scapy.layers.dot11 import Dot11, Dot11QoS, RadioTap
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import GRE, LLC, SNAP, Ether

    inner = (
        IP(src="10.1.1.1", dst="10.1.1.2", id=7) / TCP(sport=1, dport=2, seq=3, ack=4, flags="FA") / b"xyz"
    )
    wireless = Dot11(type=2, subtype=8, FCfield=1) / Dot11QoS() / LLC() / SNAP() / inner
    outer = Ether() / IP(src="10.9.9.1", dst="10.9.9.2")
    crafted = [
        (127, RadioTap(present="TSFT+Flags+Rate+Channel", Rate=2, ChannelFrequency=2412) / wireless),
        (105, wireless),
        (1, outer / GRE(proto=0x8210) / wireless),
        (1, outer / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=1) / inner),
        (
            1,
            outer
            / UDP(sport=2152, dport=2152)
            / GTP_U_Header(teid=1, E=1, next_ex=0x85)
            / GTPPDUSessionContainer(type=1, QFI=9)
            / inner,
        ),
        (1, outer / UDP(sport=40000, dport=4754) / GRE(proto=0x0800, key_present=1, key=9) / inner),
    ]
    expected = rows(101, bytes(inner))
    assert expected[0]["flags"] == FIN | ACK
    for link_type, packet in crafted:
        assert rows(link_type, bytes(packet)) == expected, packet.summary()


def changed(data, at, value):
    return data[:at] + bytes([value]) + data[at + 1 :]


PACKET = PACKETS["IPv4"]
ELSEWHERE = {
    "another source address": (1, ethernet(PACKET), 11),
    "another destination address": (1, ethernet(PACKET), 0),
    "sent, not received": (113, cooked(PACKET), 1),
    "another address in cooked capture": (113, cooked(PACKET), 11),
    "another interface": (276, cooked2(PACKET), 7),
    "sent, not received, version 2": (276, cooked2(PACKET), 10),
    "FDDI": (10, fddi(PACKET), 3),
    "an access point": (105, ieee_802_11(PACKET), 12),
    "sent again over the air": (105, ieee_802_11(PACKET), 1),
    "another port of an extender": (1, e_tag(PACKET), 17),
    "another virtual port": (1, vn_tag(PACKET), 15),
}


@pytest.mark.parametrize(("link_type", "data", "at"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_link_header_tells_where_a_frame_was_captured(link_type, data, at):
    other = changed(data, at, 9)
    segments = decode(frames_of([Frame(link_type, one, len(one)) for one in (data, other, data)]))
    here, there, again = segments.place.tolist()
    assert here == again != there


def test_a_packet_in_a_tunnel_is_at_another_place_than_alone():
    frames = [ethernet(PACKET), in_gre(PACKET, 0x0800)]
    assert len(set(decode(frames_of([Frame(1, one, len(one)) for one in frames])).place.tolist())) == 2


def test_interfaces_of_a_pcapng_are_places(tmp_path):
    path = tmp_path / "two.pcapng"
    devices = [SavedDevice(name, 1, snaplen=65535) for name in ("eth0", "br0")]
    writer = PcapngWriter(path.open("wb"), devices, started_ns=0)
    for device in (0, 1, 0):
        writer.write(frames_of([Frame(1, ethernet(PACKET), 100)]), device)
    writer.close()
    with open_capture(path) as capture:
        (batch,) = capture.batches()
        assert batch.interface.tolist() == [0, 1, 0]
        here, there, again = decode(batch).place.tolist()
    assert here == again != there


FIELDS = ["tcp.srcport", "tcp.seq_raw", "tcp.len", "tcp.flags"]
# It reads synchronous FDDI not at all, and NFLOG only in the byte order of the file.
UNKNOWN_TO_TSHARK = {"FDDI, synchronous", "NFLOG, big endian"}


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_the_same(tmp_path):
    carriers = [carrier for name, carrier in CARRIERS.items() if name not in UNKNOWN_TO_TSHARK]
    frames = [(link_type, carrier(packet)) for link_type, carrier in carriers for packet in PACKETS.values()]
    frames.append((105, aggregate(*PACKETS.values())))
    numbers = sorted({link_type for link_type, _ in frames})
    path = tmp_path / "all.pcapng"
    devices = [SavedDevice(str(number), number, snaplen=65535) for number in numbers]
    writer = PcapngWriter(path.open("wb"), devices, started_ns=0)
    for link_type, data in frames:
        writer.write(frames_of([Frame(link_type, data, len(data))]), numbers.index(link_type))
    writer.close()
    fields = [part for field in FIELDS for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=;", *fields]
    read = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode().splitlines()
    theirs = [
        one for line in read for one in zip(*(word.split(",") for word in line.split(";")), strict=True)
    ]
    with open_capture(path) as capture:
        segments = [row for batch in capture.batches() for row in rows_of(decode(batch))]
    ours = [(row["src_port"], row["seq"], row["length"], row["flags"]) for row in segments]
    assert len(ours) == len(frames) + 1
    assert [tuple(int(word, 0) for word in line) for line in theirs] == ours


noise = st.one_of(
    st.binary(max_size=120),
    st.builds(
        lambda carrier, at, value: (
            carrier[: at % len(carrier)] + value + carrier[at % len(carrier) + len(value) :]
        ),
        st.sampled_from([carrier(packet) for _, carrier in CARRIERS.values() for packet in PACKETS.values()]),
        st.integers(0, 200),
        st.binary(min_size=1, max_size=4),
    ),
)


@given(noise, st.sampled_from(sorted(WALKED | set(LINKS))))
def test_noise_gives_rows_or_counts_and_nothing_else(data, link_type):
    segments = decode(frames_of([Frame(link_type, data, len(data))]))
    assert len(segments) + sum(segments.skipped.values()) >= 1
    assert len(segments) == 0 or not segments.skipped or link_type in WALKED
