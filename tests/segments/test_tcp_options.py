"""Timestamps and D-SACK out of TCP options, in any arrangement and however broken."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.packets.segments import ACK, RST
from closeseq.segments import decode
from dpkt_oracle import Frame, assert_agreement, frames_of
from frame_bytes import NOP_NOP_TIMESTAMPS, ethernet, ipv4, tcp

STAMPS = (0xFEDCBA98, 0x01234567)
TIMESTAMPS = NOP_NOP_TIMESTAMPS[2:]


def decode_options(options, *, ack=1000, flags=ACK, cut=0):
    data = ethernet(ipv4(tcp(options, flags=flags, ack=ack)))
    return decode(frames_of([Frame(1, data[: len(data) - cut], len(data))]))


TIMESTAMPS_IN = {
    "as RFC 7323 advises": (NOP_NOP_TIMESTAMPS, STAMPS),
    "first, with NOPs behind": (TIMESTAMPS + b"\1\1", STAMPS),
    "behind other options": (bytes.fromhex("020405b4 0402") + TIMESTAMPS + bytes.fromhex("01030307"), STAMPS),
    "behind an unknown option": (bytes.fromhex("fe04abcd") + TIMESTAMPS, STAMPS),
    "twice: the last counts": (bytes.fromhex("080a 00000001 00000002") + TIMESTAMPS, STAMPS),
    "in the last bytes there are": (b"\1" * 30 + TIMESTAMPS, STAMPS),
    "none": (b"", None),
    "with a wrong length": (bytes.fromhex("0809 00000001 000000 00"), None),
    "behind the end of the list": (b"\0\1\1\1" + NOP_NOP_TIMESTAMPS, None),
    "behind a length of 0": (bytes.fromhex("02000101") + NOP_NOP_TIMESTAMPS, None),
    "behind a length of 1": (bytes.fromhex("02010101") + NOP_NOP_TIMESTAMPS, None),
    "running over the end": (bytes.fromhex("01010101 01010101 080a0000"), None),
    "with the length missing": (b"\1\1\1\x08", None),
}


@pytest.mark.parametrize(("options", "stamps"), TIMESTAMPS_IN.values(), ids=TIMESTAMPS_IN)
def test_timestamps_are_found_where_they_are(options, stamps):
    segments = decode_options(options)
    assert segments.has_timestamps.tolist() == [stamps is not None]
    assert (segments.tsval.tolist(), segments.tsecr.tolist()) == (
        [(stamps or (0, 0))[0]],
        [(stamps or (0, 0))[1]],
    )


@pytest.mark.parametrize("cut", range(1, 13))
def test_an_option_that_the_snap_length_cuts_is_not_read_but_those_before_it_are(cut):
    segments = decode_options(NOP_NOP_TIMESTAMPS + bytes.fromhex("0101050a 00000064 000000c8"), cut=cut)
    assert segments.has_timestamps.tolist() == [True]
    assert segments.dsack_right.tolist() == [0]
    assert decode_options(NOP_NOP_TIMESTAMPS, cut=cut).has_timestamps.tolist() == [False]


def sack(*edges):
    return b"\1\1" + struct.pack(f">BB{len(edges)}I", 5, 2 + 4 * len(edges), *edges)


SACKS = {  # edges, what is reported twice; all acknowledge 1000
    "below the acknowledgment": ((500, 600), (500, 600)),
    "up to the acknowledgment": ((500, 1000), (500, 1000)),
    "above it: an ordinary SACK": ((1500, 2000), None),
    "across it": ((500, 1500), None),
    "within the second block": ((1500, 1600, 1400, 2000), (1500, 1600)),
    "equal to the second block": ((1400, 2000, 1400, 2000), (1400, 2000)),
    "around the second block": ((1400, 2000, 1500, 1600), None),
    "two ordinary blocks": ((3000, 4000, 1500, 2000), None),
    "below, with others behind it": ((500, 600, 1500, 2000, 3000, 4000), (500, 600)),
    "empty": ((500, 500), None),
    "inside out": ((600, 500), None),
    "before the number wrapped": ((0xFFFFFF00, 16), (0xFFFFFF00, 16)),
    "half a block": ((500,), None),
}


@pytest.mark.parametrize(("edges", "twice"), SACKS.values(), ids=SACKS)
def test_a_first_block_that_was_there_already_is_a_dsack(edges, twice):
    segments = decode_options(sack(*edges))
    assert (segments.dsack_left.tolist(), segments.dsack_right.tolist()) == tuple(
        [edge] for edge in twice or (0, 0)
    )


def test_without_the_ack_flag_there_is_no_dsack():
    segments = decode_options(sack(500, 600), flags=RST)
    assert segments.dsack_right.tolist() == [0]


kind_and_length = st.sampled_from(
    [(0, 0), (1, 0), (8, 10), (8, 9), (5, 10), (5, 18), (5, 34), (5, 12), (2, 4)]
)
option = st.one_of(
    st.just(b"\1"),
    st.builds(lambda of, rest: (bytes(of) + rest)[: max(of[1], 2)], kind_and_length, st.binary(min_size=32)),
    st.builds(lambda of, near: bytes(of) + struct.pack(">4I", *near), kind_and_length,
              st.tuples(*[st.integers(0x7FFFFFF0, 0x80000010)] * 4)),
    st.binary(max_size=6),
)  # fmt: skip


@given(st.lists(st.lists(option, max_size=8).map(b"".join), min_size=1, max_size=6), st.integers(0, 40))
def test_any_options_read_as_dpkt_reads_them(several, cut):
    frames = [ethernet(ipv4(tcp(options[:40], ack=0x80000001))) for options in several]
    assert_agreement(frames_of([Frame(1, data, len(data)) for data in frames]))
    assert_agreement(frames_of([Frame(1, data[: max(54, len(data) - cut)], len(data)) for data in frames]))
