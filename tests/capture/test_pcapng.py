"""pcapng: sections, interfaces, clocks, every kind of packet block, and every way to contradict itself."""

import struct
from datetime import UTC, datetime

import dpkt
import pytest
import scapy.utils
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether

from capture_files import (
    COOKED,
    ETHERNET,
    PACKETS,
    RAW,
    Packet,
    block,
    enhanced,
    expected,
    interface,
    obsolete,
    option,
    pcapng,
    read_file,
    read_stream,
    section,
    simple,
    statistics,
)
from closeseq.capture import open_capture
from closeseq.capture.interfaces import InterfaceClock, times

ORDERS = ("<", ">")
HEAD = section() + interface()
ONE = Packet(1_700_000_000_123_456_000, b"one")
TWO = Packet(1_700_000_000_123_457_000, b"two!")


@pytest.mark.parametrize("order", ORDERS)
def test_both_byte_orders_give_the_same_packets(order):
    assert read_stream(pcapng(order=order)) == (expected(), None, 0)


def test_the_byte_order_may_change_from_section_to_section():
    data = b"".join(pcapng([packet], order) for packet, order in zip(PACKETS, "<><>", strict=True))
    assert read_stream(data) == (expected(), None, 0)


def test_each_section_has_its_own_interfaces():
    first = section() + interface(link=RAW) + interface(link=COOKED) + enhanced(ONE, ident=1)
    got = read_stream(first + section() + interface(link=ETHERNET) + enhanced(TWO, ident=0))
    assert [p.link_type for p in got.packets] == [COOKED, ETHERNET]
    got = read_stream(first + section() + interface() + enhanced(TWO, ident=1))
    assert [p.link_type for p in got.packets] == [COOKED]
    assert "packet 2, byte" in str(got.error)
    assert "interface 1 is not declared in this section" in str(got.error)


def test_sections_share_a_batch(tmp_path):
    parts = [section(o) + interface(o, tsresol=n % 10, tsoffset=n) + enhanced(ONE, o, ticks=n) for n, o in
             enumerate(ORDERS * 500)]  # fmt: skip
    (tmp_path / "f").write_bytes(b"".join(parts))
    with open_capture(str(tmp_path / "f")) as capture:
        (frames,) = capture.batches()
    assert frames.time_ns.tolist() == [n * 10**9 + n * 10 ** (9 - n % 10) for n in range(1000)]


def test_interfaces_may_be_declared_between_packets_but_before_their_own():
    data = section() + interface(link=RAW) + enhanced(ONE) + interface(link=COOKED) + enhanced(TWO, ident=1)
    assert [p.link_type for p in read_stream(data).packets] == [RAW, COOKED]
    early = section() + interface() + enhanced(ONE) + enhanced(TWO, ident=1) + interface()
    assert read_stream(early).packets == expected([ONE])
    assert "interface 1 is not declared" in str(read_stream(early).error)


@pytest.mark.parametrize("kind", [enhanced, obsolete, simple, statistics])
def test_nothing_can_refer_to_an_interface_before_the_first(kind):
    got = read_stream(section() + (kind() if kind is statistics else kind(ONE)))
    assert got.packets == []
    assert "packet 1, byte 28" in str(got.error)
    assert "interface 0 is not declared" in str(got.error)


NOON = 1_700_000_000


@pytest.mark.parametrize(
    ("tsresol", "ticks", "time_ns"),
    [
        (None, NOON * 10**6 + 1, NOON * 10**9 + 1000),
        (0, NOON, NOON * 10**9),
        (3, NOON * 1000 + 7, NOON * 10**9 + 7_000_000),
        (9, NOON * 10**9 + 123_456_789, NOON * 10**9 + 123_456_789),
        (10, NOON * 10**10 + 19, NOON * 10**9 + 1),
        (19, 18 * 10**18, 1_800_000_000),
        (28, 2**64 - 1, 1),
        (127, 2**64 - 1, 0),
        (0x80, NOON, NOON * 10**9),
        (0x8A, NOON * 1024 + 1, NOON * 10**9 + 976_562),
        (0xA0, (NOON << 32) + 1, NOON * 10**9),
        (0xA0, (NOON << 32) + 2**31, NOON * 10**9 + 500_000_000),
        (0xBF, 2**64 - 1, 1_999_999_999),
        (0xFF, 2**64 - 1, 0),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_any_resolution_gives_nanoseconds(tsresol, ticks, time_ns, order):
    data = section(order) + interface(order, tsresol=tsresol) + enhanced(ONE, order, ticks=ticks)
    (only,) = read_stream(data).packets
    assert only.time_ns == time_ns


@given(st.integers(0, 255), st.integers(-(2**63), 2**63 - 1), st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_a_column_of_ticks_is_what_exact_arithmetic_says(resolution, offset, ticks):
    import numpy as np

    column = np.full(len(ticks), offset, np.int64)
    column[len(ticks) // 2 :] = 7
    found, beyond = times(resolution, column, np.array(ticks, np.uint64))
    for tick, seconds, time, out in zip(ticks, column.tolist(), found.tolist(), beyond.tolist(), strict=True):
        exact = InterfaceClock(resolution, seconds).nanoseconds(tick)
        assert out == (not -(2**63) <= exact < 2**63)
        assert out or time == exact


@pytest.mark.parametrize(("seconds", "order"), [(3600, "<"), (-3600, ">"), (-4_000_000_000, "<")])
def test_an_offset_of_seconds_is_added(seconds, order):
    data = section(order) + interface(order, tsresol=9, tsoffset=seconds) + enhanced(ONE, order, ticks=5)
    (only,) = read_stream(data).packets
    assert only.time_ns == seconds * 10**9 + 5


def test_each_interface_has_its_own_clock():
    interfaces = interface(tsresol=9) + interface() + interface(tsresol=0x80, tsoffset=1)
    blocks = [enhanced(ONE, ident=i % 3, ticks=i) for i in range(9)]
    times = [p.time_ns for p in read_stream(section() + interfaces + b"".join(blocks)).packets]
    assert times == [0, 1000, 3 * 10**9, 3, 4000, 6 * 10**9, 6, 7000, 9 * 10**9]


def test_a_time_beyond_all_years_is_damage():
    data = HEAD + enhanced(ONE) + enhanced(TWO, ticks=2**63)
    got = read_stream(data)
    assert got.packets == expected([ONE])
    assert f"packet 2, byte {len(HEAD + enhanced(ONE)) + 12}: the packet's time is outside" in str(got.error)


@pytest.mark.parametrize("order", ORDERS)
def test_all_kinds_of_packet_blocks_keep_their_order(order):
    made = [Packet(NOON * 10**9 + i * 1000, bytes([i]) * i) for i in range(1, 10)]
    kinds = [enhanced, obsolete, enhanced, obsolete, obsolete, enhanced, enhanced, obsolete, enhanced]
    body = b"".join(kind(packet, order) for kind, packet in zip(kinds, made, strict=True))
    assert read_stream(section(order) + interface(order) + body) == (expected(made), None, 0)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_simple_packet_bears_the_time_of_the_one_before(batch):
    data = HEAD + simple(ONE) + enhanced(ONE) + simple(TWO) + simple(TWO) + enhanced(TWO)
    got = read_stream(data, batch=batch)
    late, later = ONE.time_ns, TWO.time_ns
    assert [(p.data, p.time_ns) for p in got.packets] == [
        (b"one", 0), (b"one", late), (b"two!", late), (b"two!", late), (b"two!", later)
    ]  # fmt: skip


def test_packets_without_a_time_are_counted(tmp_path):
    (tmp_path / "f").write_bytes(HEAD + simple(ONE) + enhanced(ONE) + simple(TWO))
    with open_capture(str(tmp_path / "f")) as capture:
        list(capture.batches())
        assert capture.untimed == 2


def test_a_simple_packet_is_cut_at_the_snapshot_length_of_the_first_interface():
    data = section() + interface(snaplen=5, link=RAW) + interface(link=COOKED)
    (only,) = read_stream(data + simple(Packet(0, b"12345", wire=1500))).packets
    assert only == Packet(0, b"12345", 1500, RAW)


def test_more_captured_than_was_on_the_wire_counts_as_on_the_wire():
    body = struct.pack("<IIIII", 0, 0, 7, 5, 3) + b"12345\0\0\0"
    assert read_stream(HEAD + block(6, body)).packets == [Packet(7000, b"12345", 5)]


def test_unknown_blocks_and_options_are_skipped():
    custom, secrets, future = block(0xBAD, b"1234" * 9), block(10, b"4321"), block(0x80000001, b"")
    described = interface(
        more=option(2, b"eth0") + option(1, b"a comment") + option(999, b"?") + option(0, b"")
    )
    data = custom + enhanced(ONE, options=option(1, b"hello")) + secrets + future + enhanced(TWO)
    assert read_stream(section() + described + data) == (expected([ONE, TWO]), None, 0)


NINE_LOST = option(4, struct.pack("<Q", 9))
DROPS = {
    "nothing is said": (b"", 0),
    "by the interface": (statistics(ifdrop=3), 3),
    "by the system": (statistics(osdrop=4), 4),
    "by both": (statistics(ifdrop=3, osdrop=4), 7),
    "said twice, the latest counts": (statistics(ifdrop=3) + statistics(ifdrop=5), 5),
    "statistics without drops": (statistics(ifdrop=3) + statistics(), 3),
    "on two interfaces": (interface() + statistics(ifdrop=3) + statistics(ident=1, osdrop=5), 8),
    "by a packet": (enhanced(ONE, options=NINE_LOST), 9),
    "by a packet, behind other options": (
        enhanced(ONE, options=option(1, b"why") + option(2, b"flag") + NINE_LOST + option(0, b"")),
        9,
    ),
    "by two packets": (enhanced(ONE, options=NINE_LOST) * 2, 18),
    "by packets and statistics, which is the same": (
        enhanced(ONE, options=NINE_LOST) + statistics(ifdrop=11),
        11,
    ),
    "behind the end of options": (enhanced(ONE, options=option(0, b"") + NINE_LOST), 0),
    "by an obsolete block": (obsolete(ONE, lost=6), 6),
    "not known to an obsolete block": (obsolete(ONE, lost=0xFFFF), 0),
}  # fmt: skip


@pytest.mark.parametrize(("blocks", "dropped"), DROPS.values(), ids=DROPS)
def test_the_capture_says_what_it_lost(blocks, dropped):
    got = read_stream(HEAD + blocks)
    assert (got.error, got.dropped) == (None, dropped)


def test_losses_of_several_sections_add_up():
    assert read_stream((HEAD + statistics(ifdrop=2)) * 3).dropped == 6


# When the capture ended


def ended(end, order="<", ident=0):
    """Make a statistics block with an isb_endtime in ticks."""
    told = option(3, struct.pack(order + "II", end >> 32, end & 0xFFFFFFFF), order)
    return block(5, struct.pack(order + "III", ident, 0, 0) + told, order)


SECOND, YEARS_S = 10**9, 10 * 365 * 86_400
LAST = ONE.time_ns
US, NS, FRACTION = LAST // 1000, LAST, NOON << 32
BY_US = interface() + enhanced(ONE)
BY_NS = interface(tsresol=9) + enhanced(ONE, ticks=NS)
# Of a capture on loopback by dumpcap 4.0.17, whose if_tsresol says nanoseconds, 3 s after its last packet.
DUMPCAP = bytes.fromhex(
    "05000000 6c000000 00000000 bf600600d13928b6"
    "01001c00 436f756e746572732070726f7669646564206279206475 6d70636170 0200 0800 bf600600487de7b5"
    "03000800 bf6006008f3928b6 04000800 0600000000000000 05000800 0000000000000000 00000000 6c000000"
)
DUMPCAP_LAST = 1_795_226_368_441_752_037
ENDS = {
    "nothing is said": (BY_US + statistics(ifdrop=3), None),
    "in microseconds": (BY_US + ended(US + 12_000_000), LAST + 12 * SECOND),
    "in nanoseconds": (BY_NS + ended(NS + 7), LAST + 7),
    "in microseconds where it should be nanoseconds": (BY_NS + ended(US + 7), LAST + 7000),
    "by dumpcap": (
        interface(tsresol=9) + enhanced(ONE, ticks=DUMPCAP_LAST) + DUMPCAP, 1_795_226_371_373_455_000
    ),
    "in fractions of two": (
        interface(tsresol=0xA0) + enhanced(ONE, ticks=FRACTION) + ended(FRACTION + (1 << 31)),
        NOON * SECOND + SECOND // 2,
    ),
    "with an offset": (
        interface(tsoffset=3600) + enhanced(ONE, ticks=US - 3600 * 10**6) + ended(US - 3599 * 10**6),
        LAST + SECOND,
    ),
    "with the last packet": (BY_NS + ended(NS), LAST),
    "before the last packet": (BY_US + ended(US - 1), None),
    "before the latest, which came earlier": (BY_US + enhanced(TWO) + enhanced(ONE) + ended(US), None),
    "at nought": (BY_US + ended(0), None),
    "ten years later": (BY_US + ended(US + YEARS_S * 10**6), LAST + YEARS_S * SECOND),
    "more than ten years later": (BY_US + ended(US + YEARS_S * 10**6 + 1), None),
    "beyond all years": (BY_NS + interface(tsresol=0) + ended(2**64 - 1, ident=1), None),
    "on two interfaces": (BY_US + interface(tsresol=9) + ended(US + 1) + ended(NS + 5, ident=1), LAST + 1000),
    "on two, one gone before": (BY_US + interface() + ended(US + 9) + ended(US - 9, ident=1), LAST + 9000),
    "said twice, the later block counts": (BY_US + ended(US + 9) + ended(US + 5), LAST + 5000),
    "said first, then not": (BY_US + ended(US + 9) + statistics(ifdrop=1), LAST + 9000),
    "without times": (interface() + simple(ONE) + ended(US), None),
    "without packets": (interface() + ended(US), None),
}  # fmt: skip


def end_of(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    with open_capture(str(tmp_path / "f"), batch=1) as capture:
        assert capture.ended_ns is None
        list(capture.batches())
        return capture.ended_ns


@pytest.mark.parametrize(("blocks", "ended_ns"), ENDS.values(), ids=ENDS)
def test_the_capture_says_when_it_ended(tmp_path, blocks, ended_ns):
    assert end_of(tmp_path, section() + blocks) == ended_ns


def test_the_end_is_read_in_the_order_of_its_section(tmp_path):
    data = section(">") + interface(">") + enhanced(ONE, ">") + ended(US + 5, ">")
    assert end_of(tmp_path, data) == LAST + 5000


def test_an_end_with_packets_behind_it_is_none(tmp_path):
    first = HEAD + enhanced(ONE) + ended(US)
    assert end_of(tmp_path, first) == LAST
    assert end_of(tmp_path, first + enhanced(TWO)) is None
    assert end_of(tmp_path, first + HEAD + enhanced(TWO)) is None


def test_the_end_that_an_earlier_section_says_may_be_the_last(tmp_path):
    late = HEAD + enhanced(TWO) + ended(US + 500)
    assert end_of(tmp_path, late + HEAD + enhanced(ONE) + ended(US + 9)) == LAST + 500_000
    assert end_of(tmp_path, late + HEAD + enhanced(ONE)) == LAST + 500_000


def with_length(data, length, *, trailing=None):
    """Rewrite a block's total length."""
    trailing = length if trailing is None else trailing
    return data[:4] + struct.pack("<I", length) + data[8:-4] + struct.pack("<I", trailing)


GOOD = enhanced(ONE)
DAMAGED = {
    "length zero": (with_length(GOOD, 0), "claims 0 bytes, and has at least 32"),
    "length four": (with_length(GOOD, 4), "claims 4 bytes, and has at least 32"),
    "a packet block without room for its fields": (block(6, b"1234"), "claims 16 bytes, and has at least 32"),
    "an unaligned length": (with_length(GOOD, len(GOOD) + 1), "not a multiple of 4"),
    "an enormous length": (with_length(GOOD, 0xFFFFFFFC), "at most 134217728 make sense"),
    "lengths that disagree": (with_length(GOOD, len(GOOD), trailing=40), "and 40 at its end"),
    "more captured than there is room for": (
        block(6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + b"1234"),
        "5 captured bytes cannot be in a block with room for 4",
    ),
    "a simple packet longer than its block": (
        block(3, struct.pack("<I", 99) + b"1234"),
        "Simple Packet Block: 99 captured bytes cannot be in a block with room for 4",
    ),
    "an undeclared interface": (enhanced(ONE, ident=7), "Enhanced Packet Block: interface 7 is not declared"),
    "statistics of an undeclared interface": (statistics(ident=7), "interface 7 is not declared"),
    "an option longer than its block": (
        block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HH", 9, 60)),
        "Interface Description Block: option 9 claims 60 bytes, 0 are left in its block",
    ),
    "a resolution of four bytes": (interface(more=option(9, b"1234")), "if_tsresol has 4 bytes instead of 1"),
    "an offset of four bytes": (interface(more=option(14, b"1234")), "if_tsoffset has 4 bytes instead of 8"),
    "an end of four bytes": (
        block(5, bytes(12) + option(3, b"1234")),
        "Interface Statistics Block: isb_endtime has 4 bytes instead of 8",
    ),
    "a damaged byte-order magic": (section().replace(b"\x2b", b"\x2c"), "byte-order magic"),
    "an unknown version": (section(version=(2, 0)), "pcapng version 2.0 is not known"),
    "a section header of length zero": (with_length(section(), 0), "claims 0 bytes, and has at least 28"),
    "a section header whose lengths disagree": (with_length(section(), 28, trailing=32), "32 at its end"),
}  # fmt: skip


@pytest.mark.parametrize(("damaged", "line"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("chunk", [7, 8_000_000])
def test_damage_is_named_after_everything_before_it_was_read(damaged, line, chunk):
    before = HEAD + enhanced(ONE)
    got = read_stream(before + damaged + enhanced(TWO) * 20, chunk)
    assert got.packets == expected([ONE])
    assert line in str(got.error)
    assert len(before) <= got.error.byte < len(before) + 12
    assert got.error.packet == 2


def test_a_file_cut_anywhere_gives_the_whole_packets_before_the_cut():
    packets = [ONE, TWO, ONE, TWO]
    blocks = [
        section(">"), interface(">"), enhanced(ONE, ">"), obsolete(TWO, ">"), statistics(">"),
        section("<"), interface("<"), enhanced(ONE, "<"), block(99, b"?!?!"), enhanced(TWO, "<"),
    ]  # fmt: skip
    data = b"".join(blocks)
    ends = [len(b"".join(blocks[:n])) for n in range(1, len(blocks) + 1)]
    packet_ends = [ends[i] for i in (2, 3, 7, 9)]
    for cut in range(len(data)):
        got = read_stream(data[:cut])
        whole = sum(end <= cut for end in packet_ends)
        assert got.packets == expected(packets[:whole])
        assert (got.error is None) == (cut in ends)
        assert got == read_stream(data[:cut], batch=1)._replace(error=got.error)
        assert str(got.error) == str(read_stream(data[:cut], chunk=5).error)


def test_a_file_cut_anywhere_gives_the_same_as_a_stream(tmp_path):
    data = pcapng()
    for cut in range(len(data)):
        (tmp_path / "f").write_bytes(data[:cut])
        filed, streamed = read_file(tmp_path / "f"), read_stream(data[:cut])
        assert filed.packets == streamed.packets
        assert str(filed.error).replace(str(tmp_path / "f"), "piped") == str(streamed.error)


blocks_of_one_order = st.sampled_from(ORDERS).flatmap(
    lambda order: st.lists(
        st.sampled_from([
            interface(order, link=RAW, tsresol=9), interface(order, snaplen=3), enhanced(ONE, order),
            enhanced(TWO, order, ident=1, options=option(4, struct.pack(order + "Q", 2), order)),
            obsolete(ONE, order, lost=2), simple(Packet(0, b"abc"), order), statistics(order, ifdrop=1),
            block(77, b"", order),
        ]),
        max_size=12,
    ).map(lambda blocks: section(order) + interface(order) + interface(order) + b"".join(blocks))
)  # fmt: skip
files = st.lists(blocks_of_one_order, min_size=1, max_size=3).map(b"".join)


@given(files, st.sampled_from([1, 7, 61, 100_000]), st.sampled_from([1, 2, 7, 100_000]))
def test_neither_pieces_nor_batches_change_what_is_read(data, chunk, batch):
    got = read_stream(data)
    assert got.error is None
    assert read_stream(data, chunk, batch) == got


@given(files, st.data())
def test_flipped_bytes_give_packets_or_a_capture_error_and_nothing_else(data, draw):
    damaged = bytearray(data)
    for at in draw.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=6)):
        damaged[at] ^= draw.draw(st.integers(1, 255))
    whole = read_stream(bytes(damaged))
    pieces = read_stream(bytes(damaged), chunk=7, batch=2)
    assert (whole.packets, str(whole.error)) == (pieces.packets, str(pieces.error))


def test_a_hostile_count_of_options_costs_no_time():
    many = enhanced(ONE, options=option(1, b"") * 2_000_000 + NINE_LOST)
    assert read_stream(HEAD + many) == (expected([ONE]), None, 0)


@pytest.mark.parametrize("writer", ["scapy", "dpkt"])
def test_what_others_write_is_read_alike(tmp_path, writer):
    path = tmp_path / "f"
    start = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp())
    frames = [b"\x02" * 6 + b"\x04" * 6 + b"\x08\x00" + bytes([i]) * (46 + i) for i in range(9)]
    if writer == "scapy":
        made = [Ether(frame) for frame in frames]
        for i, frame in enumerate(made):
            frame.time = start + i
        scapy.utils.wrpcapng(str(path), made)
    else:
        with path.open("wb") as file:
            dumper = dpkt.pcapng.Writer(file)
            for i, frame in enumerate(frames):
                dumper.writepkt(frame, ts=start + i)
    got = read_file(path)
    assert got.error is None
    assert [(p.data, p.time_ns) for p in got.packets] == [
        (frame, (start + i) * 10**9) for i, frame in enumerate(frames)
    ]
