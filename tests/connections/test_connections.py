"""The rules of connections, one by one: which packets are one connection, and what their numbers mean."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.connections import Connections, grouping
from closeseq.connections.conversation import Address, End, Event, Opener, Position, Traffic
from closeseq.connections.duplicates import MOST_APART
from closeseq.packets.segments import ACK, FIN, MODULUS, RST, SYN
from closeseq.script import NUMBERS, segments
from closeseq.script import conversation as told
from examples import examples
from segment_rows import MILLISECOND, A, B, C, columns, conversations, joined, row

OPEN = "C:S S:SA C:A "
CLOSE = " C:FA S:A S:FA C:A"


def of(script, **options):
    """Return the connections of a script."""
    return conversations(segments(script, **options))


def copied(given, *, after_ns, row_number, **other):
    """Return segments in which one row comes a second time, a while after itself, with other values."""
    again = given.take([row_number])
    again = dataclasses.replace(again, time_ns=again.time_ns + after_ns)
    for name, value in other.items():
        getattr(again, name)[:] = value
    return joined([given.take(slice(0, row_number + 1)), again, given.take(slice(row_number + 1, None))])


# Which packets are one connection


def test_both_directions_are_one_connection():
    (one,) = of(OPEN + "~" + CLOSE)
    assert (str(one.client), str(one.server)) == ("192.0.2.1:40000", "198.51.100.2:80")
    assert (one.id, one.incarnation, one.opener) == (1, 1, Opener.SEEN)
    assert (one.client_bytes, one.server_bytes) == (100, 200)
    assert one.client_packets + one.server_packets == len(segments(OPEN + "~" + CLOSE))
    assert one.successor is None


def test_connections_come_in_the_order_of_their_first_packets():
    rows = [row(C, B, SYN, 5), row(A, B, SYN, 9), row(B, C, SYN | ACK, 1, 6), row(B, A, SYN | ACK, 1, 10)]
    assert [one.client.port for one in conversations(columns(rows))] == [C[3], A[3]]


def test_a_syn_with_another_number_opens_the_next_incarnation():
    first, second = of(OPEN + CLOSE + " +70s " + OPEN)
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert first.successor is not None
    assert first.successor.packet == second.steps[0].packet
    assert len(second.events) == 3


def test_a_syn_with_another_number_replaces_a_connection_that_was_never_seen_to_end():
    first, second = of(OPEN + "~ C:S S:SA")
    assert [event.fin for event in first.events] == [False] * 3
    assert first.successor.time_ns == second.first_ns


def test_the_same_syn_again_is_a_retransmission():
    (one,) = of("C:S! +1s C:S* S:SA C:A")
    assert [event.position for event in one.events[:2]] == [Position.NEW, Position.RETRANSMISSION]


def test_a_syn_that_arrives_late_and_fits_in_front_belongs_to_the_connection():
    rows = [row(A, B, ACK, 101, 501, length=10), row(B, A, ACK, 501, 111), row(A, B, SYN, 100)]
    (one,) = conversations(columns(rows))
    assert one.opener is Opener.SEEN
    assert [(event.letters, event.seq) for event in one.events] == [("S", 0)]


def test_a_syn_that_arrives_late_and_does_not_fit_opens_the_next_incarnation():
    rows = [row(A, B, ACK, 101, 501, length=10), row(B, A, ACK, 501, 111), row(A, B, SYN, 99)]
    assert [one.incarnation for one in conversations(columns(rows))] == [1, 2]


def test_packets_that_trail_behind_a_close_belong_to_it():
    (one,) = of(OPEN + CLOSE + " +5s S:FA* C:A S:R")
    assert [event.letters for event in one.events][-3:] == ["FA", "A", "R"]


def test_a_rst_never_opens_a_connection_on_a_known_pair():
    rows = [row(A, B, SYN, 1), row(B, A, RST | ACK, 0, 2), row(A, B, SYN | RST, 77)]
    assert len(conversations(columns(rows))) == 1


def test_both_ends_sending_syn_first_is_one_simultaneous_open():
    (one,) = of("C:S|S:S C:SA|S:SA")
    assert one.client.port == 40000
    assert [event.letters for event in one.events] == ["S", "S", "SA", "SA"]


def test_a_syn_of_the_server_after_more_than_syns_opens_the_next_incarnation():
    rows = [row(A, B, SYN, 1), row(A, B, ACK, 2, 8), row(B, A, SYN, 70)]
    assert [one.client.port for one in conversations(columns(rows))] == [A[3], B[3]]


# Which end is the client


def test_the_sender_of_a_syn_ack_is_the_server():
    (one,) = of("C:S? S:SA C:A")
    assert (one.client.port, one.opener) == (40000, Opener.SEEN)


LOW, HIGH = (4, 0, 1, 6000), (4, 0, 2, 7000)  # port 6000 would be taken for the server's


def test_the_port_asked_for_is_the_servers():
    rows = columns([row(LOW, HIGH, length=1), row(HIGH, LOW, length=1)])
    (one,) = conversations(rows, ports=frozenset({7000}))
    assert (one.server.port, one.opener) == (7000, Opener.INFERRED)


def test_a_port_that_several_clients_talk_to_is_the_servers():
    one, _ = conversations(columns([row(HIGH, LOW), row(C, HIGH)]))
    assert one.server.port == 7000


def test_the_lower_port_is_the_servers():
    (one,) = conversations(columns([row(LOW, HIGH)]))
    assert one.server.port == 6000


def test_with_equal_ports_the_first_sender_is_the_client():
    (one,) = conversations(columns([row((4, 0, 9, 179), (4, 0, 8, 179))]))
    assert one.client == Address("0.0.0.9", 179)


def test_an_ipv4_address_and_the_same_number_as_ipv6_are_two_pairs():
    rows = [row((4, 0, 1, 5), (4, 0, 2, 6), SYN), row((6, 0, 1, 5), (6, 0, 2, 6), SYN)]
    assert [one.client.address for one in conversations(columns(rows))] == ["0.0.0.1", "::1"]


def test_a_hash_that_collides_merges_nothing(monkeypatch):
    script = segments(OPEN + "~" + CLOSE)
    other = dataclasses.replace(script, src_high=script.src_high + 1, dst_high=script.dst_high + 1)
    both = joined([script, dataclasses.replace(other, version=other.version + 2)])
    expected = conversations(both)
    assert len(expected) == 2
    monkeypatch.setattr(grouping, "FACTOR", grouping.FACTOR - grouping.FACTOR)  # every hash is the same
    assert conversations(both) == expected


# Copies


def test_identical_packets_within_a_moment_are_one_packet():
    given = segments(OPEN + "C:FA")
    (one,) = conversations(copied(given, row_number=3, after_ns=MILLISECOND // 2))
    assert (one.copies, len(one.events)) == (1, 4)


def test_a_packet_with_another_ip_id_is_a_retransmission():
    (one,) = conversations(copied(segments(OPEN + "C:FA"), row_number=3, after_ns=1000, ip_id=999))
    assert (one.copies, one.events[-1].position) == (0, Position.RETRANSMISSION)


@pytest.mark.parametrize(("after_ns", "copies"), [(MILLISECOND, 1), (MILLISECOND + 1, 0)])
def test_without_ip_id_and_timestamps_the_time_decides(after_ns, copies):
    given = segments(OPEN + "C:FA")
    given.ip_id[:] = 0
    (one,) = conversations(copied(given, row_number=3, after_ns=after_ns))
    assert one.copies == copies


@pytest.mark.parametrize(("after_ns", "copies"), [(10 * MILLISECOND, 1), (10 * MILLISECOND + 1, 0)])
def test_where_a_mark_would_tell_a_retransmission_copies_may_come_later(after_ns, copies):
    (one,) = conversations(copied(segments(OPEN + "C:FA"), row_number=3, after_ns=after_ns), size=1)
    assert one.copies == copies


@pytest.mark.parametrize(("apart", "copies"), [(MOST_APART, 1), (MOST_APART + 1, 0)])
@pytest.mark.parametrize("size", [MOST_APART + 2, 10_000])
def test_a_copy_is_not_looked_for_among_all_packets_of_a_clock_that_stands_still(apart, copies, size):
    given = segments(OPEN).take(np.full(apart + 1, 2))
    given.time_ns[:] = given.time_ns[0]
    given.number[:] = np.arange(apart + 1) + 1
    given.ip_id[:] = np.arange(apart + 1) + 1
    given.ip_id[-1] = 1
    connections = Connections()
    for begin in range(0, len(given), size):
        connections.feed(given.take(np.arange(begin, min(begin + size, len(given)))))
    assert connections.copies == copies


def test_copies_are_counted_in_all():
    connections = Connections()
    connections.feed(copied(segments(OPEN), row_number=0, after_ns=5))
    assert connections.copies == 1


# Numbers and positions


def positions(script):
    return [(event.letters, event.position.value) for event in told(script).events][3:]


def test_numbers_count_from_the_syn():
    events = told(OPEN + "C:FA+10 S:FA C:A").events
    assert [(e.seq, e.ack, e.end) for e in events] == [
        *[(0, None, 1), (0, 1, 1), (1, 1, 1)],
        *[(1, 1, 12), (1, 12, 2), (12, 2, 12)],
    ]


@examples(20)
@given(st.integers(0, MODULUS - 1), st.integers(0, MODULUS - 1))
def test_shifting_the_initial_numbers_changes_nothing(client, server):
    script = OPEN + "~ C:FA! +300ms C:FA* S:A ~ S:FA C:A"
    assert told(script, numbers=(client, server)) == told(script, numbers=NUMBERS)


def test_numbers_beyond_4_gib_do_not_wrap():
    gib = 1 << 30
    one = told(OPEN + f"C:A+{gib} S:A " * 5 + "C:FA S:A")
    assert one.events[-2].seq == 1 + 5 * gib
    assert one.events[-1].ack == 2 + 5 * gib
    assert one.client_bytes == 5 * gib


def test_without_a_syn_the_first_byte_seen_is_1():
    one = told("C:A+10 S:A C:FA")
    assert one.opener is Opener.INFERRED
    assert [(event.seq, event.ack) for event in one.events] == [(11, 1)]


def test_one_direction_is_enough():
    one = told("C:S (S:SA) C:A C:A+10 (S:A+20) C:A C:FA (S:FA) C:A")
    assert (one.client_packets, one.server_packets) == (6, 0)
    assert one.opener is Opener.SEEN
    assert one.events[-1].ack == 22


def test_a_repeated_fin_is_a_retransmission():
    assert positions(OPEN + "C:FA! +300ms C:FA*") == [("FA", "new"), ("FA", "retransmission")]


def test_bytes_that_were_not_captured_are_a_gap():
    assert positions(OPEN + "C:A+10? C:FA") == [("FA", "gap")]


def test_a_segment_with_old_and_new_bytes_is_an_overlap():
    rows = [row(A, B, SYN, 0), row(A, B, FIN | ACK, 1, 1), row(A, B, FIN | ACK, 1, 1, length=5)]
    (one,) = conversations(columns(rows))
    assert one.events[-1].position is Position.OVERLAP


def test_a_keepalive_is_a_probe():
    (traffic,) = (step for step in told(OPEN + "+60s C:K S:A").steps if isinstance(step, Traffic))
    assert (traffic.client.probes, traffic.server.probes) == (1, 0)


def test_a_pure_ack_one_past_everything_betrays_a_fin_that_was_not_captured():
    assert positions(OPEN + "C:FA? +1s C:A") == [("A", "gap")]


def test_an_ack_past_everything_seen_is_an_event():
    assert positions(OPEN + "(C:A+10) S:A") == [("A", "new")]


def test_an_ack_covers_a_fin_once_and_again_when_the_fin_comes_again():
    rows = [row(A, B, SYN), row(A, B, FIN | ACK, 1, 1), row(B, A, ACK, 1, 2)]
    rows += [row(B, A, ACK, 1, 2, length=1)] * 40 + [row(A, B, FIN | ACK, 1, 41), row(B, A, ACK, 41, 2)]
    (one,) = conversations(columns(rows))
    assert [event.letters for event in one.events][-2:] == ["FA", "A"]


# What is kept


def test_traffic_is_one_step_with_its_digest():
    one = told(OPEN + "C:A+10 C:A+20 S:A+5/0 C:A C:FA")
    (traffic,) = (step for step in one.steps if isinstance(step, Traffic))
    client, server = traffic.client, traffic.server
    assert (client.segments, client.bytes, client.first_packet, client.last_packet) == (3, 30, 4, 7)
    assert (client.end, client.ack) == (31, 6)
    assert client.unanswered == 0  # its last segment is an ACK, which calls for no answer
    assert (server.segments, server.bytes, server.zero_windows, server.unanswered) == (1, 5, 1, 0)


def test_a_download_after_one_fin_costs_nothing():
    one = told(OPEN + "C:FA S:A " + "S:A+1000 C:A " * 500)
    assert len(one.events) < 40
    assert one.server_bytes == 500_000
    assert isinstance(one.steps[-1], Traffic)


def test_plain_python_is_all_that_leaves():
    def plain(value):
        if dataclasses.is_dataclass(value):
            return all(plain(getattr(value, field.name)) for field in dataclasses.fields(value))
        if isinstance(value, tuple):
            return all(plain(one) for one in value)
        return type(value) in (int, bool, str, type(None), End, Opener, Position)

    one = told(OPEN + "~" + CLOSE + " C:S", timestamps=True)
    assert plain(one)
    assert any(isinstance(step, Event) for step in one.steps)


def test_nothing_gives_no_connection():
    connections = Connections()
    connections.feed(segments(""))
    assert len(connections) == 0
    assert list(connections.skeletons()) == []


def test_the_connections_to_which_a_batch_added_are_named():
    connections = Connections()
    connections.feed(columns([row(A, B, SYN), row(C, B, SYN)]))
    assert connections.touched.tolist() == [0, 1]
    connections.feed(columns([row(B, C, SYN | ACK, 0, 1)]))
    assert connections.touched.tolist() == [1]
