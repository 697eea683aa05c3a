"""Segments in IP fragments: put together from whatever order, and hostile ones do no harm."""

from __future__ import annotations

import itertools
import random
import shutil
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.capture.writers import PcapWriter
from closeseq.packets.segments import ACK, FIN
from closeseq.segments import Decoder, decode
from closeseq.segments.fragments import LONGEST_WAIT_NS, MOST_PACKETS, MOST_PIECES
from dpkt_oracle import Frame, frames_of, rows_of
from frame_bytes import NOP_NOP_TIMESTAMPS, ethernet, fragment_header, ipv4, ipv6, tcp, udp

SEGMENT = tcp(NOP_NOP_TIMESTAMPS, bytes(range(200)), flags=FIN | ACK)
MORE = 0x2000
NOTE = "put together from IP fragments"


def piece(begin, end, *, version=4, more=None, segment=SEGMENT, **header):
    """Return the fragment that holds these bytes of the segment."""
    more = end < len(segment) if more is None else more
    part = segment[begin:end]
    if version == 4:
        return ethernet(ipv4(part, fragment=begin // 8 | (MORE if more else 0), **header))
    return ethernet(ipv6(fragment_header(part, 6, offset=begin // 8, more=int(more)), protocol=44))


def pieces(*cuts, version=4, **other):
    edges = [0, *cuts, len(other.get("segment", SEGMENT))]
    return [piece(begin, end, version=version, **other) for begin, end in itertools.pairwise(edges)]


def batch(frames, times=None):
    made = frames_of([Frame(1, data, len(data)) for data in frames])
    if times is not None:
        made.time_ns[:] = times
    return made


WHOLE = {
    version: rows_of(decode(batch([ethernet(make(SEGMENT))])))[0] for version, make in ((4, ipv4), (6, ipv6))
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("cuts", [(8,), (16,), (24, 32), (8, 16, 24, 32, 40), (200,), (96, 104)], ids=str)
def test_a_segment_reads_as_if_it_had_come_in_one_piece(version, cuts):
    for order in itertools.islice(itertools.permutations(pieces(*cuts, version=version)), 24):
        segments = decode(batch(order))
        assert rows_of(segments) == [
            WHOLE[version] | {"number": len(order), "time_ns": rows_of(segments)[0]["time_ns"]}
        ]
        assert segments.skipped == {"IP fragment": len(order) - 1}
        assert segments.notes == {NOTE: 1}


def test_fragments_of_a_segment_may_come_in_several_batches():
    decoder = Decoder()
    parts = [decoder.decode(batch([data])) for data in pieces(8, 16, 64)]
    assert [len(part) for part in parts] == [0, 0, 0, 1]
    assert rows_of(parts[-1])[0]["length"] == 200


def test_options_of_the_fragments_and_a_short_snapshot_do_not_matter():
    frames = [data[:60] for data in pieces(64, options=b"\x94\x04\0\0")]
    made = frames_of([Frame(1, data, 300) for data in frames])
    (row,) = rows_of(decode(made))
    assert (row["length"], row["seq"], row["has_timestamps"]) == (200, WHOLE[4]["seq"], False)
    cut = decode(frames_of([Frame(1, piece(0, 64)[:50], 98), Frame(1, piece(64, 232), 300)]))
    assert (len(cut), cut.skipped) == (0, {"IP fragment": 1, "TCP header cut short": 1})


def test_a_segment_without_its_last_fragment_is_a_gap():
    segments = decode(batch(pieces(64, 128)[:2]))
    assert (len(segments), segments.skipped, segments.notes) == (0, {"IP fragment": 2}, {})


def test_what_the_network_repeats_and_a_mirror_shows_twice_is_read():
    first, second, third = pieces(64, 128)
    segments = decode(batch([first, first, second, second, third, third]))
    assert (len(segments), segments.skipped) == (1, {"IP fragment": 5})


def test_packets_of_one_identification_in_two_vlans_or_long_after_one_another_are_two():
    first, second = pieces(64)
    tagged = [data[:12] + struct.pack(">HH", 0x8100, 7) + data[12:] for data in (first, second)]
    segments = decode(batch([first, tagged[0], second, tagged[1]]))
    assert segments.vlan.tolist() == [0, 7]
    late = [0, LONGEST_WAIT_NS + 1]
    assert len(decode(batch([first, second], late))) == 0
    assert len(decode(batch([first, first, second], [0, *late[1:], late[1]]))) == 1


HOSTILE = {
    "an overlap": [piece(0, 64), piece(56, len(SEGMENT))],
    "an overlap from above": [piece(64, len(SEGMENT)), piece(0, 72)],
    "one within another": [piece(0, 128), piece(8, 16, more=True), piece(128, len(SEGMENT))],
    "a second begin": [piece(0, 64), piece(0, 72, more=True), piece(64, len(SEGMENT))],
    "two ends": [piece(64, 128, more=False), piece(128, len(SEGMENT)), piece(0, 64)],
    "more behind the end": [piece(64, 128, more=False), piece(128, 136, more=True), piece(0, 64)],
    "an end in front of what was there": [piece(128, len(SEGMENT)), piece(64, 120, more=False), piece(0, 64)],
    "no multiple of eight": [piece(0, 60, more=True), piece(64, len(SEGMENT))],
    "beyond the largest packet": [piece(0, 64), ethernet(ipv4(bytes(80), fragment=0x1FFF))],
    "no payload": [ethernet(ipv4(b"", fragment=MORE)), piece(0, 64), ethernet(ipv4(b"", fragment=8))],
    "a length of zero": [ethernet(ipv4(SEGMENT[:64], fragment=MORE, total=0)), piece(64, len(SEGMENT))],
}  # fmt: skip


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
def test_fragments_that_contradict_each_other_give_no_segment(frames):
    segments = decode(batch([*frames, *frames]))
    assert (len(segments), segments.skipped) == (0, {"IP fragment": 2 * len(frames)})


def test_a_packet_too_small_for_a_header_is_malformed():
    segments = decode(batch(pieces(8, segment=SEGMENT[:16])))
    assert segments.skipped == {"IP fragment": 1, "malformed TCP header": 1}


def test_fragments_of_other_protocols_stay_out():
    frames = [ethernet(ipv4(udp(bytes(64), 53), protocol=17, fragment=fragment)) for fragment in (MORE, 9)]
    assert decode(batch(frames)).skipped == {"not TCP": 1, "IP fragment": 1}


def test_memory_is_bounded():
    decoder = Decoder()
    for number in range(2 * MOST_PACKETS):
        data = bytearray(piece(8, 16))
        data[18:20] = struct.pack(">H", number)
        decoder.decode(batch([bytes(data)]))
    assert decoder._fragments is not None
    assert len(decoder._fragments) == MOST_PACKETS
    tiny = [
        piece(begin, begin + 8, segment=bytes(8 * MOST_PIECES + 80))
        for begin in range(0, 8 * MOST_PIECES + 64, 16)
    ]
    decoder.decode(batch(tiny))
    assert all(len(packet.spans) <= MOST_PIECES for packet in decoder._fragments._packets.values())


chunks = st.tuples(st.integers(0, 40), st.integers(0, 64), st.booleans(), st.sampled_from([4, 6]))


@given(st.lists(chunks, max_size=12), st.binary(max_size=8))
def test_any_fragments_give_rows_or_counts_and_nothing_else(some, noise):
    frames = []
    for begin, size, more, version in some:
        data = piece(8 * begin, 8 * begin + size, version=version, more=more, segment=SEGMENT * 3)
        at = len(noise) * 7 % len(data)
        frames.append(data[:at] + noise + data[at + len(noise) :] if more and at > 14 else data)
    segments = decode(batch(frames))
    assert len(segments) + sum(segments.skipped.values()) == len(frames)


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_puts_together_the_same(tmp_path):
    dice = random.Random(7)
    frames = []
    for number in range(60):
        segment = tcp(NOP_NOP_TIMESTAMPS, bytes(dice.randrange(8, 900)), seq=number)
        cuts = sorted({8 * dice.randrange(1, len(segment) // 8) for _ in range(dice.randrange(1, 5))})
        version = dice.choice([4, 6])
        parts = [bytearray(part) for part in pieces(*cuts, version=version, segment=segment)]
        for part in parts:
            part[18:20] = struct.pack(">H", number) if version == 4 else part[18:20]
            if version == 6:
                part[58:62] = struct.pack(">I", number)
        dice.shuffle(parts)
        frames += [bytes(part) for part in parts]
    path = tmp_path / "fragments.pcap"
    writer = PcapWriter(path.open("wb"), 1, snaplen=65535)
    writer.write(batch(frames))
    writer.close()
    fields = [part for field in ("frame.number", "tcp.seq_raw", "tcp.len") for part in ("-e", field)]
    command = ["tshark", "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", *fields]
    read = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode().splitlines()
    ours = rows_of(decode(batch(frames)))
    assert len(ours) == 60
    assert [[int(word) for word in line.split()] for line in read] == [
        [row["number"], row["seq"], row["length"]] for row in ours
    ]


def test_segments_in_pieces_and_whole_ones_keep_their_order():
    whole = ethernet(ipv6(SEGMENT))
    first, second = pieces(64)
    segments = decode(batch([whole, first, whole, second, whole]))
    assert np.array_equal(segments.number, [1, 3, 4, 5])
