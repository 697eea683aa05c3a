"""The walk of many stretches at once against the plain loop: the same records, and the same errors."""

import random
import struct
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture_files import (
    Packet,
    block,
    enhanced,
    expected,
    interface,
    obsolete,
    pcap,
    pcap_header,
    pcap_record,
    pcapng,
    read_stream,
    section,
    simple,
)
from closeseq.capture import walk as walks
from closeseq.capture.pcap import Form, Lengths, Records
from closeseq.capture.pcapng_blocks import BlockChain

ORDERS = ("<", ">")
SECOND = 1_700_000_000
FORMS = [Form(order, unit, 262_144, lengths) for order in ORDERS for unit in (1, 1000) for lengths in Lengths]


def plain(chain, at, most):
    records, at = chain.plain(at, chain.last + 1, most)
    return np.array(records, np.int64), at


@contextmanager
def small_stretches():
    """Make stretches so short that there are many of them in a few hundred bytes."""
    with patch.multiple(walks, SAMPLE=3, APART=2, FEWEST=2, MOST_ROUNDS=6):
        yield


def agrees(chain, at=0, most=10_000):
    records, end = walks.walk(chain, at, most)
    told, told_end = plain(chain, at, most)
    assert records.tolist() == told.tolist()
    assert len(told) == most or end == told_end


# Records as anybody might write them, and what somebody hostile might put among them

chances = st.integers(0, 2**64 - 1).map(random.Random)
mosts = st.sampled_from([1, 5, 20, 10_000])
ANYWHERE = [0, 1, 3, 12, 16, 4096, 262_144, 0x80000000, 0xFFFFFFFF]


def pieces(chance, make, *arguments):
    """Return pieces one behind the other, of which some kinds are rare, or not so rare."""
    rate = chance.choice([0.0, 0.02, 0.1, 0.4])
    return b"".join(make(chance, chance.random() < rate, *arguments) for _ in range(chance.randrange(150)))


def pcap_piece(chance, odd, order, lengths):
    """A record; or one with headers in its packet, or whose lengths lead anywhere, or any bytes."""
    data = chance.randbytes(chance.randrange(40))
    head = struct.Struct(f"{order}IIII").pack
    times = SECOND + chance.randrange(3), chance.randrange(1000)
    kind = chance.choice(["planted", "lengths", "bytes"]) if odd else "sound"
    if kind == "bytes":
        return data
    if kind == "lengths":
        two = [chance.choice([*ANYWHERE, chance.randrange(100), chance.randrange(2**32)]) for _ in "12"]
        return head(*times, *two) + data
    if kind == "planted":
        data = head(*times, *[chance.randrange(40)] * 2) * chance.randrange(1, 5) + data
    both = [len(data), len(data) + chance.randrange(40)]
    if lengths is Lengths.WIRE_FIRST or (lengths is Lengths.SMALLER_CAPTURED and chance.random() < 0.5):
        both.reverse()
    return head(*times, *both) + data


@given(chances, st.sampled_from(FORMS), mosts)
def test_pcap_records_are_those_of_the_plain_loop(chance, form, most):
    data = pieces(chance, pcap_piece, form.order, form.lengths)
    with small_stretches():
        agrees(Records(memoryview(data), form), chance.choice([0, 0, chance.randrange(40)]), most)


VERSIONS = {
    (2, 4): Lengths.CAPTURED_FIRST,
    (2, 3): Lengths.SMALLER_CAPTURED,
    (2, 2): Lengths.WIRE_FIRST,
}


@given(chances, st.sampled_from(ORDERS), st.booleans(), st.sampled_from(list(VERSIONS)))
def test_a_hostile_pcap_gives_the_same_packets_and_the_same_error(chance, order, nano, version):
    header = pcap_header(order, 0xA1B23C4D if nano else 0xA1B2C3D4, version)
    reads_alike(header + pieces(chance, pcap_piece, order, VERSIONS[version]))


def reads_alike(data):
    """Read many stretches at once and plainly, in one window and in many; the result is the plain one."""
    with patch.object(walks, "walk", plain):
        told = read_stream(data)
    with small_stretches():
        for options in ({}, {"chunk": 300, "batch": 20}):
            got = read_stream(data, **options)
            assert (got.packets, str(got.error)) == (told.packets, str(told.error))


def pcapng_piece(chance, odd, order):
    """A packet; or one with blocks in it, or a block of another kind, or whose length leads anywhere."""
    packet = Packet(SECOND * 10**9 + chance.randrange(1000), chance.randbytes(chance.randrange(40)))
    kinds = ["simple", "obsolete", "unknown", "interface", "planted", "lengths", "section", "bytes"]
    kind = chance.choice(kinds) if odd else "enhanced"
    if kind == "planted":
        inner = enhanced(packet, order) * chance.randrange(1, 5)
        return enhanced(Packet(packet.time_ns, inner), order)
    if kind == "lengths":
        length = chance.choice([*ANYWHERE, chance.randrange(0, 100, 4), chance.randrange(2**32)])
        return struct.pack(f"{order}II", chance.choice([1, 3, 6]), length) + bytes(24)
    return {
        "enhanced": lambda: enhanced(packet, order),
        "simple": lambda: simple(packet, order),
        "obsolete": lambda: obsolete(packet, order),
        "unknown": lambda: block(0xBAD, bytes(16), order),
        "interface": lambda: interface(order),
        "section": lambda: section(order) + interface(order),
        "bytes": lambda: packet.data,
    }[kind]()


@given(chances, st.sampled_from(ORDERS), mosts)
def test_pcapng_blocks_are_those_of_the_plain_loop(chance, order, most):
    with small_stretches():
        agrees(BlockChain(memoryview(pieces(chance, pcapng_piece, order)), order), most=most)


@given(chances, st.sampled_from(ORDERS), st.sampled_from(ORDERS))
def test_a_hostile_pcapng_gives_the_same_packets_and_the_same_error(chance, order, other):
    parts = (section(one) + interface(one) + pieces(chance, pcapng_piece, one) for one in (order, other))
    reads_alike(b"".join(parts))


@given(st.binary(max_size=600), st.sampled_from([pcap_header(), section() + interface()]))
def test_any_bytes_give_the_same_packets_and_the_same_error(data, begin):
    reads_alike(begin + data)


# Cut and grown

ALIKE = [Packet((SECOND + i) * 10**9, bytes([i]) * (i % 5)) for i in range(16)]


@pytest.mark.parametrize("whole", [pcap(ALIKE), pcapng(ALIKE)], ids=["pcap", "pcapng"])
def test_a_file_cut_at_any_byte_gives_the_same_packets_and_the_same_error(whole):
    for cut in range(24 if whole == pcap(ALIKE) else 28, len(whole)):
        reads_alike(whole[:cut])


# With stretches as long as they are


def many(number, seed=1):
    """Return packets of very unequal lengths, in some of which there is a whole capture."""
    chance = random.Random(seed)
    nested = b"".join(pcap_record(Packet((SECOND + i) * 10**9, bytes(20))) for i in range(100))
    packets = []
    for i in range(number):
        data = nested if chance.random() < 0.002 else chance.randbytes(chance.choice([0, 54, 66, 66, 1514]))
        packets.append(Packet((SECOND + i // 100) * 10**9, data))
    return packets


class Counted:
    """A chain that counts what its plain loop walked."""

    def __init__(self, chain):
        self._chain = chain
        self.last, self.following, self.plausible = chain.last, chain.following, chain.plausible
        self.walked = 0

    def plain(self, at, before, most):
        records, at = self._chain.plain(at, before, most)
        self.walked += len(records)
        return records, at


def pcap_chain(packets, order):
    data = b"".join(pcap_record(p, order) for p in packets)
    return Records(memoryview(data), Form(order, 1000, 262_144, Lengths.CAPTURED_FIRST))


def pcapng_chain(packets, order):
    return BlockChain(memoryview(b"".join(enhanced(p, order) for p in packets)), order)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [pcap_chain, pcapng_chain])
def test_nearly_all_records_are_walked_in_stretches(make, order):
    packets = many(20_000)
    counted = Counted(make(packets, order))
    records, end = walks.walk(counted, 0, 30_000)
    assert (len(records), end) == (len(packets), counted.last + (16 if make is pcap_chain else 8))
    agrees(make(packets, order))
    assert counted.walked < len(packets) / 5


def test_guesses_that_are_all_wrong_cost_the_plain_loop_and_nothing_else():
    inner = b"".join(pcap_record(Packet((SECOND + i) * 10**9, bytes(7))) for i in range(40))
    packets = [Packet(SECOND * 10**9, inner)] * 3000
    assert read_stream(pcap(packets)) == (expected(packets), None, 0)
    agrees(pcap_chain(packets, "<"))


def test_records_shorter_than_the_sample_leave_much_to_the_plain_loop():
    long = [Packet(SECOND * 10**9, bytes(2000))] * walks.SAMPLE
    agrees(pcap_chain([*long, *[Packet(SECOND * 10**9, b"")] * 60_000], "<"))


def test_many_small_sections_are_not_each_looked_through_to_the_end():
    """Each would cost as much as the whole window."""
    packets = [Packet(SECOND * 10**9, b"x")] * (walks.SAMPLE + 1)
    data = pcapng(packets) * 60
    calls = []
    guesses = walks._guesses
    with patch.object(walks, "_guesses", lambda *given: calls.append(given) or guesses(*given)):
        assert len(read_stream(data).packets) == 60 * len(packets)
    assert len(calls) <= 2
