"""A capture again with comments: every other byte is kept, and taking the comments out gives the original."""

from __future__ import annotations

import gzip
import io
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import closeseq
from capture_files import (
    ETHERNET,
    block,
    enhanced,
    interface,
    obsolete,
    option,
    pcap,
    pcap_header,
    pcap_record,
    read_file,
    read_stream,
    section,
    simple,
    statistics,
)
from closeseq.capture import open_capture
from closeseq.wireshark.annotate import annotate
from closeseq.wireshark.comments import OURS, PacketComments, comments
from examples import examples
from places import CAPTURES

FINAL_ACK_LOST = read_file(CAPTURES / "final-ack-lost.pcap").packets


def comments_of(path, **options):
    found = PacketComments()
    for connection in closeseq.analyze(str(path), **options):
        found.add(connection.id, comments(connection))
    return found


def annotated(path, found=None, **options):
    """Return a capture again with comments, those of closeseq or others, and what became of it."""
    target = Path(f"{path}.out")
    with open_capture(str(path)) as capture, target.open("wb") as file:
        done = annotate(capture, comments_of(path) if found is None else found, file, **options)
    return target.read_bytes(), done


def some(*packets):
    """Return comments on these packets."""
    found = PacketComments()
    found.add(7, [(packet, f"said of {packet}") for packet in packets])
    return found


def written(tmp_path, data):
    path = tmp_path / "given.pcapng"
    path.write_bytes(data)
    return path


def walk_blocks(data):
    """Yield each block with its byte order, read by a loop of our own."""
    at, order = 0, "<"
    while at < len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = ">" if data[at + 8 : at + 12] == b"\x1a\x2b\x3c\x4d" else "<"
        (length,) = struct.unpack_from(order + "I", data, at + 4)
        yield order, data[at : at + length]
        at += length
    assert at == len(data)


def without_comments(data):
    """Return a pcapng without our comments, and these by packet: what annotating has added, taken back."""
    pieces, said, packet = [], {}, 0
    for order, one in walk_blocks(data):
        (kind,) = struct.unpack_from(order + "I", one)
        packet += kind in (2, 3, 6)
        if kind not in (2, 6):
            pieces.append(one)
            continue
        (captured,) = struct.unpack_from(order + "I", one, 20)
        at = 28 + captured + -captured % 4
        rest = one[at:-4]
        while rest[4:].startswith(OURS.encode()):
            code, length = struct.unpack_from(order + "HH", rest)
            assert code == 1
            assert rest[4 + length : 4 + length + -length % 4] == bytes(-length % 4)
            said.setdefault(packet, []).append(rest[4 : 4 + length].decode())
            rest = rest[4 + length + -length % 4 :]
        if packet in said and rest == bytes(4):
            rest = b""
        body = one[8:at] + rest
        pieces.append(block(kind, body, order))
    return b"".join(pieces), said


def original(order="<", options=b""):
    """Return a capture with blocks of many kinds between those of a real connection."""
    secrets = block(10, struct.pack(order + "II", 0x544C534B, 5) + b"hello\0\0\0", order)
    custom = block(0xBAD, struct.pack(order + "I", 32473) + b"anything", order)
    names = block(4, struct.pack(order + "HH", 0, 0), order)
    data = section(order) + secrets + interface(order, tsresol=9) + names
    for index, packet in enumerate(FINAL_ACK_LOST):
        own = options if index % 2 else b""
        data += enhanced(packet, order, ticks=packet.time_ns, options=own) + (
            custom if index % 5 == 0 else b""
        )
    return data + statistics(order, ifdrop=0)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kept", [b"", "flags", "flags and comment", "without an end"])
def test_a_pcapng_is_kept_byte_for_byte_but_for_the_comments(tmp_path, order, kept):
    flags, own = option(2, struct.pack(order + "I", 1), order), option(1, b"my own", order)
    options = {b"": b"", "flags": flags + bytes(4), "flags and comment": flags + own + bytes(4)}
    options["without an end"] = own
    data = original(order, options[kept])
    out, done = annotated(written(tmp_path, data))
    back, said = without_comments(out)
    assert back == data
    assert done.comments == len(said) == 13
    assert done.packets == len(FINAL_ACK_LOST)
    (first,) = said[9]
    assert first == f"{OURS}1 client CLOSE_WAIT; server FIN_WAIT_1 -> FIN_WAIT_2 (assumed)"


@pytest.mark.parametrize("order", "<>")
def test_annotating_again_replaces_the_comments_and_with_none_gives_the_original_back(tmp_path, order):
    data = original(order, option(1, b"my own", order) + bytes(4))
    out, _ = annotated(written(tmp_path, data))
    again, _ = annotated(written(tmp_path, out))
    assert again == out
    other, _ = annotated(written(tmp_path, out), some(3))
    assert without_comments(other)[1] == {3: [f"{OURS}7 said of 3"]}
    stripped, done = annotated(written(tmp_path, out), PacketComments())
    assert stripped == data
    assert done.comments == 0


def test_sections_of_both_byte_orders_and_a_section_of_known_length(tmp_path):
    one, two = original("<"), original(">")
    measured = bytearray(two)
    struct.pack_into(">q", measured, 16, len(two) - 28)
    number = len(FINAL_ACK_LOST)
    out, _ = annotated(written(tmp_path, one + bytes(measured)), some(1, number + 2))
    back, said = without_comments(out)
    assert set(said) == {1, number + 2}
    assert back == one + two  # whose length is unknown again
    # without any comment it stays what it was
    assert annotated(written(tmp_path, one + bytes(measured)), PacketComments())[0] == one + bytes(measured)


def test_obsolete_blocks_take_comments_and_simple_ones_do_not(tmp_path):
    packet = FINAL_ACK_LOST[0]
    data = section() + interface() + obsolete(packet) + simple(packet) + enhanced(packet)
    out, done = annotated(written(tmp_path, data), some(1, 2, 3))
    back, said = without_comments(out)
    assert back == data
    assert set(said) == {1, 3}
    assert (done.comments, done.left_out) == (2, 1)


def test_two_comments_on_one_packet_stand_in_the_order_of_their_connections(tmp_path):
    found = some(2)
    found.add(3, [(2, "more")])
    data = section() + interface() + enhanced(FINAL_ACK_LOST[0]) * 3
    out, done = annotated(written(tmp_path, data), found)
    assert without_comments(out) == (data, {2: [f"{OURS}3 more", f"{OURS}7 said of 2"]})
    assert done.comments == 2


@pytest.mark.parametrize("cut", [1, 7, 30, 90])
def test_of_a_capture_that_is_cut_short_all_whole_blocks_are_written(tmp_path, cut):
    data = original()[: -len(statistics(ifdrop=0))]
    path = written(tmp_path, data[:-cut])
    out, done = annotated(path, some(1, len(FINAL_ACK_LOST) - 1, len(FINAL_ACK_LOST)))
    back, said = without_comments(out)
    assert data.startswith(back)
    assert len(back) >= len(data) - 150
    assert set(said) == {1, len(FINAL_ACK_LOST) - 1}
    assert "the file ends inside" in str(done.error)


def test_it_stops_behind_as_many_packets_as_are_asked_for(tmp_path):
    for data in (original(), pcap(FINAL_ACK_LOST, nano=True)):
        out, done = annotated(written(tmp_path, data), some(1, 2, 5), most=2)
        assert done.packets == 2
        assert set(without_comments(out)[1]) == {1, 2}
        assert len(read_stream(out).packets) == 2
    assert without_comments(annotated(written(tmp_path, original()), some(1), most=2)[0])[0] in original()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pcap_becomes_a_pcapng_with_the_same_packets(tmp_path, order, nano, pack):
    packets = FINAL_ACK_LOST
    if not nano:
        packets = [p._replace(time_ns=p.time_ns // 1000 * 1000) for p in packets]
    path = written(tmp_path, pack(pcap(packets, order, nano=nano)))
    out, done = annotated(path)
    assert read_stream(out).packets == packets
    _, said = without_comments(out)
    assert len(said) == done.comments == 13
    assert said == without_comments(annotated(written(tmp_path, original()))[0])[1]
    described = [one for _, one in walk_blocks(out)][1]
    assert option(9, bytes([9 if nano else 6])) in described


def test_snap_length_and_frame_check_sequence_of_a_pcap_are_kept(tmp_path):
    link = ETHERNET | 0x04000000 | 2 << 28
    data = pcap_header(snaplen=96, link=link) + pcap_record(FINAL_ACK_LOST[0])
    out, _ = annotated(written(tmp_path, data), some(1))
    described = [one for _, one in walk_blocks(out)][1]
    assert struct.unpack_from("<HHI", described, 8) == (ETHERNET, 0, 96)
    assert option(13, bytes([32])) in described


def test_a_hostile_comment_that_looks_like_ours_is_no_trouble(tmp_path):
    lying = struct.pack("<HH", 1, 0xFFF0) + OURS.encode() + bytes(1)
    other_code = option(2988, OURS.encode() + b"x")
    packet = FINAL_ACK_LOST[0]
    data = section() + interface() + enhanced(packet, options=lying) + enhanced(packet, options=other_code)
    assert annotated(written(tmp_path, data), PacketComments())[0] == data
    out, done = annotated(written(tmp_path, data), some(1, 2))
    assert done.comments == 2
    assert len(read_stream(out).packets) == 2


BLOCKS = st.lists(
    st.one_of(
        st.tuples(st.just(6), st.binary(max_size=70), st.sampled_from(["", "flags", "comment", "ours"])),
        st.tuples(st.sampled_from([2, 3]), st.binary(max_size=70), st.just("")),
        st.tuples(st.just(0x0BAD), st.binary(max_size=40), st.just("")),
        st.just((0x0A0D0D0A, b"", "")),
    ),
    max_size=40,
)


@examples(60)
@given(BLOCKS, st.sets(st.integers(1, 40)), st.sampled_from([1, 3, 1 << 15]), st.sampled_from([40, 1 << 20]))
def test_any_blocks_come_back(tmp_path_factory, blocks, chosen, batch, window):
    """Whatever the blocks, however the reading is divided."""
    dice = random.Random(len(blocks))
    order, data, packets = "<", section() + interface(), 0
    for kind, body, options in blocks:
        packet = FINAL_ACK_LOST[0]._replace(data=body, wire=len(body))
        if kind == 0x0A0D0D0A:
            order = dice.choice("<>")
            data += section(order) + interface(order)
        elif kind == 6:
            own = {
                "": b"",
                "flags": option(2, bytes(4), order) + bytes(4),
                "comment": option(1, b"x" * len(body), order),
                "ours": option(1, OURS.encode() + body.hex().encode(), order) + option(1, b"y", order),
            }
            data += enhanced(packet, order, options=own[options])
        elif kind == 2:
            data += obsolete(packet, order)
        elif kind == 3:
            data += simple(packet, order)
        else:
            data += block(kind, body + bytes(-len(body) % 4), order)
        packets += kind in (2, 3, 6)
    folder = tmp_path_factory.mktemp("any")
    path, target = written(folder, data), io.FileIO(folder / "out", "wb")
    with open_capture(str(path), batch=batch, window=window) as capture, target:
        annotate(capture, some(*chosen), target)
    back, said = without_comments((folder / "out").read_bytes())
    plain, _ = without_comments(data)
    assert back == plain
    assert set(said) <= {one for one in chosen if one <= packets}
    with open_capture(str(folder / "out")) as one, open_capture(str(path)) as two:
        lengths = [frames.captured.tolist() for capture in (one, two) for frames in capture.batches()]
    assert sum(map(len, lengths)) == 2 * packets


def test_more_comments_than_are_sorted_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("closeseq.wireshark.comments.PENDING", 50)
    monkeypatch.setattr("closeseq.wireshark.comments.MOST_KNOWN", 10)
    dice, found, expected = random.Random(3), PacketComments(), {}
    for connection in range(1, 400):
        said = sorted(dice.sample(range(1, 1000), 5))
        found.add(connection, [(packet, f"text {packet % 17}") for packet in said])
        for packet in said:
            expected.setdefault(packet, []).append(f"{OURS}{connection} text {packet % 17}")
    assert len(found) == 399 * 5
    assert found.among(1, 1000) == expected
    assert found.among(100, 120) == {p: texts for p, texts in expected.items() if 100 <= p <= 120}
    assert found.among(2000, 3000) == {}
