"""What a packet that comes twice was: captured twice, or delivered twice; and what is said of it."""

from __future__ import annotations

import pytest

import closeseq
from closeseq.connection import Connection
from closeseq.connections.conversation import Duplicates
from closeseq.packets.segments import ACK, FIN, PSH, RST, SYN
from closeseq.report.records import record
from closeseq.settings import Settings
from record_schema import assert_valid
from segment_rows import CAPTURES, MILLISECOND, START_NS, A, B, captured, columns, conversations, joined, row

STAMPS = {"has_timestamps": True, "tsval": 5, "tsecr": 6}


def packets(*, last=()):
    """Return a connection closed by A, a packet each 20 ms, and what comes after."""
    made = [
        row(A, B, SYN, 100, ip_id=1),
        row(B, A, SYN | ACK, 500, 101),
        row(A, B, ACK, 101, 501, ip_id=2),
        row(A, B, PSH | ACK, 101, 501, length=10, ip_id=3),
        row(B, A, ACK, 501, 111, ip_id=71),
        row(B, A, FIN | ACK, 501, 111, ip_id=72),
        row(A, B, FIN | ACK, 111, 502, ip_id=4),
        row(B, A, ACK, 502, 112, ip_id=73),
        *last,
    ]
    for at, one in enumerate(made):
        one["time_ns"] = START_NS + 20 * MILLISECOND * at
    return [one | STAMPS for one in made]


def again(rows, at, after_ns, **changed):
    """Put a packet into the rows once more, so much later and with these values."""
    copy = rows[at] | {"time_ns": rows[at]["time_ns"] + after_ns} | changed
    return sorted([*rows, copy], key=lambda one: one["time_ns"])


def one(rows, size=1000):
    (found,) = conversations(columns(rows), size)
    return found


SIZES = pytest.mark.parametrize("size", [1, 3, 1000])
PLACES = {
    "another interface, direction or link address": {"place": 9},
    "another VLAN": {"vlan": 10},
    "another TTL: routed in between": {"ttl": 63},
}


@SIZES
@pytest.mark.parametrize("changed", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("after_ns", [0, 20_000, 8 * MILLISECOND])
def test_at_another_place_it_was_captured_twice(changed, after_ns, size):
    found = one(again(packets(), 3, after_ns, **changed), size)
    assert (found.copies, found.duplicates) == (1, Duplicates(captured=1))


@SIZES
def test_at_the_same_place_at_once_it_may_be_either(size):
    found = one(again(packets(), 3, MILLISECOND), size)
    assert (found.copies, found.duplicates) == (1, Duplicates(unclear=1))


@SIZES
def test_at_the_same_place_later_it_was_delivered_twice(size):
    found = one(again(packets(), 3, MILLISECOND + 1), size)
    assert (found.copies, found.duplicates) == (1, Duplicates(delivered=1))


@SIZES
def test_of_three_two_may_be_at_one_place(size):
    rows = again(packets(), 3, 10_000, place=9)
    rows = again(again(rows, 3, 20_000), 3, 30_000, place=9)
    assert one(rows, size).duplicates == Duplicates(captured=1, unclear=2)


def test_where_nearly_all_come_twice_the_capture_saw_them_twice():
    rows = packets()
    for at in range(8):
        rows = again(rows, 2 * at, 10_000)
    found = one(rows)
    assert (found.copies, found.duplicates) == (8, Duplicates(captured=8))


@SIZES
@pytest.mark.parametrize("after_ns", [10_000, 3 * MILLISECOND, 300 * MILLISECOND])
def test_a_fin_from_the_network_again_that_time_wait_answers_was_delivered_twice(after_ns, size):
    rows = packets()
    answer = rows[7] | {"ip_id": 0, "time_ns": rows[6]["time_ns"] + max(after_ns, 20 * MILLISECOND) + 100_000}
    rows = sorted([*again(rows, 6, after_ns), answer], key=lambda each: each["time_ns"])
    found = one(rows, size)
    numbers = [at + 1 for at, each in enumerate(rows) if each["ip_id"] == 4], rows.index(answer) + 1
    assert found.duplicates == Duplicates(delivered=1, packets=(numbers[0][1], numbers[1]))
    assert [event.packet for event in found.events if event.fin and event.ip_id == 4] == [numbers[0][0]]
    connection = Connection(found, Settings(), found.last_ns)
    (finding,) = [each for each in connection.findings if each.code == "duplicate-packets"]
    assert finding.packets == (numbers[0][1], numbers[1])
    assert f"delivered twice (#{numbers[0][1]}, answered by #{numbers[1]})" in finding.summary
    assert "final-ack-lost" not in {each.code for each in connection.findings}


@SIZES
def test_a_fin_that_comes_twice_and_is_answered_once_may_be_either(size):
    assert one(again(packets(), 6, 10_000), size).duplicates == Duplicates(unclear=1)


@SIZES
def test_a_retransmitted_fin_is_none_and_its_answer_answers_it(size):
    rows = again(packets(), 6, 10_000)
    retransmitted = rows[6] | {"ip_id": 5, "tsval": 9, "time_ns": rows[-1]["time_ns"] + 200 * MILLISECOND}
    answer = rows[-1] | {"ip_id": 0, "time_ns": retransmitted["time_ns"] + 1000}
    found = one([*rows, retransmitted, answer], size)
    assert found.duplicates == Duplicates(unclear=1)
    assert [event.ip_id for event in found.events if event.fin] == [72, 4, 5]


@SIZES
def test_a_d_sack_tells_that_data_were_delivered_twice(size):
    rows = again(packets(), 3, 10_000)
    answer = rows[5] | {
        "dsack_left": 101,
        "dsack_right": 111,
        "time_ns": rows[5]["time_ns"] + 1000,
        "ip_id": 80,
    }
    rows.insert(6, answer)
    assert one(rows, size).duplicates == Duplicates(delivered=1)
    resent = rows[3] | {"ip_id": 99, "time_ns": rows[4]["time_ns"] + 5000}
    assert one([*rows[:5], resent, *rows[5:]], size).duplicates == Duplicates(unclear=1)


@SIZES
def test_resets_without_a_mark_may_each_answer_something(size):
    reset = row(B, A, RST, 501)
    rows = [*packets()[:4], *(reset | {"time_ns": START_NS + 65 * MILLISECOND + ns} for ns in (0, 5, 9))]
    found = one(rows, size)
    assert (found.copies, found.duplicates) == (2, Duplicates(resets=2))
    assert one([*rows, rows[-1] | {"place": 4}], size).duplicates == Duplicates(captured=1, resets=2)


@SIZES
def test_a_late_syn_or_fin_is_a_duplicate_only_if_id_and_timestamps_tell(size):
    late = 500 * MILLISECOND
    assert one(again(packets(), 0, late), size).duplicates == Duplicates(delivered=1)
    for changed in ({"ip_id": 9}, {"tsval": 9}, {"ttl": 60}):
        assert one(again(packets(), 0, late, **changed), size).copies == 0
    assert one(again(packets(), 0, 1001 * MILLISECOND), size).copies == 0
    assert one(again(packets(), 1, late), size).copies == 0  # a SYN+ACK without identification
    assert one(again(packets(), 3, late), size).copies == 0  # data


def test_the_record_counts_the_kinds_and_names_the_vlans():
    rows = again(again(packets(), 3, 10_000, vlan=10 << 16 | 7), 4, 2 * MILLISECOND)
    rows = [each | {"vlan": each["vlan"] or 20} if each["src_low"] == A[2] else each for each in rows]
    found = one(rows)
    told = record(Connection(found, Settings(), found.last_ns))
    assert told["duplicates"] == {"captured": 1, "delivered": 1, "unclear": 0, "resets": 0}
    assert told["vlans"] == {"client": [20], "server": []}
    assert_valid(told)
    assert not {"vlans", "duplicates"} & set(record(closeseq.from_script("C:S S:SA C:A")))


def test_what_is_not_known_is_not_said():
    rows = packets()
    for at, (after_ns, changed) in enumerate([(10_000, {"place": 1}), (2 * MILLISECOND, {}), (10_000, {})]):
        rows = again(rows, [3, 3, 8][at], after_ns, **changed)
    found = one(rows)
    (finding,) = [
        each
        for each in Connection(found, Settings(), found.last_ns).findings
        if each.code == "duplicate-packets"
    ]
    assert finding.summary == (
        "1 packet was captured twice, and counted once; 1 packet was duplicated by the network and delivered "
        "twice; 1 packet was captured twice, or delivered twice"
    )


def test_seen_twice_on_any_was_captured_twice():
    (path,) = [path for path in CAPTURES if path.stem == "seen-twice"]
    (found,) = conversations(joined([captured(path)]))
    assert found.duplicates == Duplicates(captured=11)
