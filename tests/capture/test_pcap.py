"""pcap: every byte order and resolution, and every way to be cut or damaged."""

import shutil
import struct
import subprocess

import dpkt
import pytest
import scapy.config
import scapy.utils
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from capture_files import (
    ETHERNET,
    PACKETS,
    Packet,
    expected,
    pcap,
    pcap_header,
    pcap_record,
    read_file,
    read_stream,
)
from closeseq.capture import open_capture

ORDERS = ("<", ">")
VARIANTS = [(order, nano) for order in ORDERS for nano in (False, True)]

packets = st.builds(
    Packet,
    st.integers(0, 2**32 * 10**6 - 1).map(lambda us: us * 1000),
    st.binary(max_size=80),
    st.integers(0, 2**32 - 1),
    st.just(ETHERNET),
)


@pytest.mark.parametrize(("order", "nano"), VARIANTS)
def test_all_byte_orders_and_resolutions_give_the_same_packets(order, nano):
    assert read_stream(pcap(order=order, nano=nano)) == (expected(), None, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_nanoseconds_are_kept_to_the_last(order):
    precise = [Packet(1_700_000_000_123_456_789, b"x"), Packet(999_999_999, b"y")]
    assert read_stream(pcap(precise, order, nano=True)).packets == expected(precise)


@given(st.lists(packets, max_size=20), st.sampled_from(VARIANTS))
def test_what_is_written_is_read(written, variant):
    order, nano = variant
    assert read_stream(pcap(written, order, nano=nano)) == (expected(written), None, 0)


@given(
    st.lists(packets, max_size=12), st.sampled_from([1, 7, 23, 10_000]), st.sampled_from([1, 2, 7, 100_000])
)
def test_neither_pieces_nor_batches_change_what_is_read(written, chunk, batch):
    assert read_stream(pcap(written), chunk, batch) == read_stream(pcap(written))


@pytest.mark.parametrize("batch", [1, 7, 100_000])
def test_a_mapped_file_reads_as_a_stream_does(tmp_path, batch):
    written = [Packet(i * 1000, bytes(i % 50)) for i in range(300)]
    (tmp_path / "f").write_bytes(pcap(written))
    assert read_file(tmp_path / "f", batch) == (expected(written), None, 0)


def test_a_file_without_packets_ends_cleanly(tmp_path):
    (tmp_path / "f").write_bytes(pcap([]))
    assert read_file(tmp_path / "f") == ([], None, 0)


@pytest.mark.parametrize(("order", "nano"), VARIANTS)
def test_a_file_cut_anywhere_gives_the_whole_packets_before_the_cut(order, nano):
    data = pcap(order=order, nano=nano)
    ends = [len(pcap(PACKETS[:n])) for n in range(len(PACKETS) + 1)]
    for cut in range(len(data)):
        got = read_stream(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert got.packets == expected(PACKETS[:whole])
        assert (got.error is None) == (cut in ends)
        if cut > ends[0] and got.error:
            assert (got.error.packet, got.error.byte) == (whole + 1, ends[whole])


def test_a_mapped_file_cut_anywhere_gives_the_same_as_a_stream(tmp_path):
    data = pcap()
    for cut in range(len(data)):
        (tmp_path / "f").write_bytes(data[:cut])
        mapped, streamed = read_file(tmp_path / "f"), read_stream(data[:cut])
        assert mapped.packets == streamed.packets
        assert str(mapped.error).replace(str(tmp_path / "f"), "piped") == str(streamed.error)


@pytest.mark.parametrize(
    ("cut", "line"),
    [
        (10, "piped: the file ends inside its header (10 of 24 bytes); "),
        (30, "piped: packet 1, byte 24: the file ends inside the packet's header (6 of 16 bytes); "),
        (50, "piped: packet 1, byte 24: the file ends inside the packet (10 of 60 bytes); "),
    ],
)
def test_a_cut_names_the_packet_and_the_byte(cut, line):
    assert str(read_stream(pcap()[:cut]).error).startswith(line)


@given(st.data())
def test_flipped_bytes_give_packets_or_a_capture_error_and_nothing_else(data):
    damaged = bytearray(pcap(order=data.draw(st.sampled_from(ORDERS))))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    whole = read_stream(bytes(damaged))
    pieces = read_stream(bytes(damaged), chunk=7, batch=2)
    assert (whole.packets, str(whole.error)) == (pieces.packets, str(pieces.error))


@pytest.mark.parametrize("captured", [0xFFFFFFFF, 0x80000000, 300_000])
@pytest.mark.parametrize("order", ORDERS)
def test_a_record_longer_than_any_packet_is_damage(captured, order):
    first = pcap(PACKETS[:1], order)
    bad = struct.pack(order + "IIII", 1, 2, captured, captured) + bytes(400_000)
    got = read_stream(first + bad)
    assert got.packets == expected(PACKETS[:1])
    assert f"packet 2, byte {len(first) + 8}: the record claims {captured} captured bytes" in str(got.error)


@pytest.mark.parametrize(
    ("snaplen", "captured", "sound"),
    [
        (96, 1514, True),  # writers keep to it less than they should
        (0, 262_144, True),
        (0, 262_145, False),
        (500_000, 400_000, True),
        (0xFFFFFFFF, 400_000, True),
        (0xFFFFFFFF, 0xFFFFFFFF, False),
    ],
)
def test_the_snapshot_length_is_believed_within_reason(snaplen, captured, sound):
    data = pcap_header(snaplen=snaplen) + struct.pack("<IIII", 1, 2, captured, captured) + bytes(400_000)
    got = read_stream(data[: 24 + 16 + captured])
    assert (len(got.packets) == 1) == (got.error is None) == sound


def test_more_captured_than_was_on_the_wire_counts_as_on_the_wire():
    record = struct.pack("<IIII", 1, 2, 5, 3) + b"12345"
    assert read_stream(pcap_header() + record).packets == [Packet(1_000_002_000, b"12345", 5)]


@pytest.mark.parametrize(
    ("field", "link_type"),
    [(1, 1), (0x24000001, 1), (0xF4000071, 113), (0xFFFF, 0xFFFF)],
)
def test_the_length_of_a_checksum_is_no_part_of_the_link_type(field, link_type):
    (only,) = read_stream(pcap_header(link=field) + pcap_record(PACKETS[0])).packets
    assert only.link_type == link_type


@pytest.mark.parametrize("field", [0x00010001, 0x08000001])
def test_reserved_bits_of_the_link_type_are_refused(field):
    assert "link type field" in str(read_stream(pcap_header(link=field)).error)


@pytest.mark.parametrize("version", [(2, 5), (1, 4), (3, 0), (543, 1)])
def test_other_versions_are_refused(version):
    error = read_stream(pcap_header(version=version) + pcap_record(PACKETS[0])).error
    assert f"pcap version {version[0]}.{version[1]} is not known" in str(error)


CUT = [Packet(i * 10**9, bytes(range(60 + i)), 60 + 500 * i) for i in range(5)]


def old_pcap(version, order="<", *, swapped=True):
    """Return a capture of an old version, with the length on the wire in front of the captured one."""
    out = pcap_header(order, version=version)
    for packet in CUT:
        record = pcap_record(packet, order)
        out += record[:8] + (record[12:16] + record[8:12] if swapped else record[8:16]) + record[16:]
    return out


OLD = [((2, minor), True) for minor in (0, 1, 2, 3)] + [((2, 3), False), ((543, 0), True)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("version", "swapped"), OLD, ids=str)
def test_old_versions_have_their_lengths_the_other_way_round(version, swapped, order):
    data = old_pcap(version, order, swapped=swapped)
    assert read_stream(data) == (expected(CUT), None, 0)
    for cut in range(24, len(data)):
        got = read_stream(data[:cut])
        assert got.packets == expected(CUT)[: len(got.packets)]
        assert (got.error is None) == (cut == 24 + sum(16 + len(p.data) for p in CUT[: len(got.packets)]))
    assert "(0 of 60 bytes)" in str(read_stream(data[:40]).error)


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
@pytest.mark.parametrize(("version", "swapped"), OLD, ids=str)
def test_libpcap_reads_old_versions_the_same(tmp_path, version, swapped):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(old_pcap(version, swapped=swapped))
    subprocess.run(["tcpdump", "-r", old, "-w", new], check=True, capture_output=True, timeout=60)
    assert read_file(new) == read_file(old)


@pytest.mark.parametrize("writer", ["scapy", "dpkt"])
@pytest.mark.parametrize("nano", [False, True])
def test_what_others_write_is_read_alike(tmp_path, writer, nano):
    path = tmp_path / "f"
    frames = [b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + bytes([i]) * (46 + i) for i in range(9)]
    if writer == "scapy":
        made = [Ether(frame) for frame in frames]
        for i, frame in enumerate(made):
            frame.time = 1_700_000_000 + i
        scapy.utils.wrpcap(str(path), made, nano=nano)
    else:
        with path.open("wb") as file:
            dumper = dpkt.pcap.Writer(file, nano=nano)
            for i, frame in enumerate(frames):
                dumper.writepkt(frame, ts=1_700_000_000 + i)
    got = read_file(path)
    assert got.error is None
    assert [(p.data, p.time_ns) for p in got.packets] == [
        (frame, (1_700_000_000 + i) * 10**9) for i, frame in enumerate(frames)
    ]


def test_the_counts_follow_the_batches(tmp_path):
    (tmp_path / "f").write_bytes(data := pcap())
    with open_capture(str(tmp_path / "f"), batch=3) as capture:
        assert (capture.size, capture.position, capture.packets) == (len(data), 24, 0)
        batches = capture.batches()
        assert len(next(batches)) == 3
        assert (capture.position, capture.packets) == (len(pcap(PACKETS[:3])), 3)
        assert len(next(batches)) == 1
        assert next(batches, None) is None
        assert (capture.position, capture.packets) == (len(data), 4)
        assert (capture.dropped, capture.untimed) == (0, 0)
