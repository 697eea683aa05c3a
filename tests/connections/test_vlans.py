"""The same addresses and ports in two VLANs: one connection where the numbers go on, and else two."""

from __future__ import annotations

import numpy as np
import pytest

from closeseq.connections import Connections
from closeseq.packets.segments import ACK, FIN, PSH, RST, SYN
from closeseq.segments import decode
from dpkt_oracle import Frame, frames_of
from frame_bytes import IPV4_ENDS, e_tag, ethernet, ipv4, tcp, vn_tag
from segment_rows import MILLISECOND, START_NS, A, B, columns, conversations, fed, row

VLANS = {0: (), 10: (10,), 20: (20,), 30: (30,), 510: (5, 10), 520: (5, 20)}
NUMBERS = (0x10000000, 0x70000000)  # where each end begins
OTHERS = (0x90000000, 0xD0000000)


def close(numbers=NUMBERS, *, data=True):
    """Return a connection as (sender, flags, relative number, relative acknowledgement, bytes)."""
    shape = [(0, SYN, 0, None, 0), (1, SYN | ACK, 0, 1, 0), (0, ACK, 1, 1, 0)]
    if data:
        shape += [(0, PSH | ACK, 1, 1, 100), (1, ACK, 1, 101, 0), (1, PSH | ACK, 1, 101, 3000)]
    last = (101, 3001) if data else (1, 1)
    shape += [
        (0, FIN | ACK, *last, 0),
        (1, FIN | ACK, last[1], last[0] + 1, 0),
        (0, ACK, last[0] + 1, last[1] + 1, 0),
    ]
    return [(*one, numbers) for one in shape]


def rows_in(vlans, packets, *, ids=(100, 9000)):
    """Return rows of these packets; `vlans` gives the VLAN of each end's, or a function does of the index."""
    made, count = [], list(ids)
    for index, (sender, flags, seq, ack, length, numbers) in enumerate(packets):
        count[sender] += 1
        made.append(
            row(
                (A, B)[sender],
                (B, A)[sender],
                flags,
                numbers[sender] + seq,
                0 if ack is None else numbers[1 - sender] + ack,
                length=length,
                ip_id=count[sender],
                vlan=vlans(index, sender) if callable(vlans) else vlans[sender],
            )
        )
    return made


def mixed(*several):
    """Return rows of several connections in turns."""
    longest = max(len(one) for one in several)
    return [one[at] for at in range(longest) for one in several if at < len(one)]


SIZES = pytest.mark.parametrize("size", [1, 2, 7, 1000])


def ends(rows, size):
    """Return for each connection how many packets each end sent, and how many copies were left out."""
    found = conversations(columns(rows), size)
    return [(one.client_packets, one.server_packets, one.copies) for one in found]


WHOLE = (5, 4, 0)


@SIZES
def test_two_vlans_with_the_same_addresses_are_two_connections(size):
    rows = mixed(rows_in((10, 10), close()), rows_in((20, 20), close(OTHERS)))
    assert ends(rows, size) == [WHOLE, WHOLE]
    assert [one.incarnation for one in conversations(columns(rows), size)] == [1, 1]
    assert [one.successor for one in conversations(columns(rows), size)] == [None, None]


@SIZES
def test_one_of_the_two_may_be_untagged(size):
    rows = mixed(rows_in((0, 0), close()), rows_in((20, 20), close(OTHERS)))
    assert ends(rows, size) == [WHOLE, WHOLE]


@SIZES
@pytest.mark.parametrize("vlans", [(10, 20), (0, 20), (20, 0)], ids=str)
def test_each_direction_in_another_vlan_is_one_connection(vlans, size):
    assert ends(rows_in(vlans, close()), size) == [WHOLE]


@SIZES
@pytest.mark.parametrize("begin", [1, 3, 4, 5])
def test_each_direction_in_another_vlan_is_one_connection_from_the_middle_on(begin, size):
    ((client, server, copies),) = ends(rows_in((10, 20), close()[begin:]), size)
    assert client + server == 9 - begin
    assert copies == 0


@SIZES
def test_two_connections_of_which_each_direction_is_in_another_vlan_are_two(size):
    rows = mixed(rows_in((10, 11), close()), rows_in((20, 21), close(OTHERS)))
    assert ends(rows, size) == [WHOLE, WHOLE]


@SIZES
def test_two_connections_that_share_the_vlan_of_one_direction_are_two(size):
    rows = mixed(rows_in((10, 0), close()), rows_in((20, 0), close(OTHERS)))
    assert ends(rows, size) == [WHOLE, WHOLE]


@SIZES
def test_a_packet_before_and_after_routing_is_one_packet(size):
    inside, outside = rows_in((10, 20), close()), rows_in((20, 10), close())
    outside = [one | {"ttl": 63} for one in outside]
    for at, (first, second) in enumerate(zip(inside, outside, strict=True)):
        first["time_ns"] = START_NS + at * 20 * MILLISECOND
        second["time_ns"] = first["time_ns"] + 30_000
    assert ends(mixed(inside, outside), size) == [(5, 4, 9)]


@SIZES
def test_where_one_of_the_two_was_not_captured_the_other_counts(size):
    inside, outside = rows_in((10, 20), close()), rows_in((20, 10), close())
    for at, (first, second) in enumerate(zip(inside, outside, strict=True)):
        first["time_ns"] = START_NS + at * 20 * MILLISECOND
        second["time_ns"] = first["time_ns"] + 30_000
    both = mixed(inside, outside)
    del both[8], both[2]  # each once
    assert ends(both, size) == [(5, 4, 7)]


@SIZES
@pytest.mark.parametrize("moves", [(4, 4), (4, 99), (99, 5)], ids=str)
def test_a_connection_that_moves_to_another_vlan_stays_one(moves, size):
    rows = rows_in(lambda index, sender: 20 if index >= moves[sender] else 10, close())
    assert ends(rows, size) == [WHOLE]


@SIZES
def test_a_syn_sent_again_through_another_vlan_is_a_retransmission(size):
    packets = close()
    rows = rows_in(lambda index, _: 20 if index == 1 else 10, [packets[0], *packets])
    assert ends(rows, size) == [(6, 4, 0)]


@SIZES
def test_the_next_connection_in_another_vlan_is_one_of_its_own(size):
    for vlans in ((20, 20), (20, 10), (10, 20)):
        rows = rows_in((10, 10), close()) + rows_in(vlans, close(OTHERS))
        assert ends(rows, size) == [WHOLE, WHOLE]


@SIZES
def test_a_firewall_that_changes_the_numbers_has_a_connection_on_either_side(size):
    rows = mixed(rows_in((10, 10), close()), rows_in((20, 20), close((NUMBERS[0] + 0x30000000, NUMBERS[1]))))
    assert ends(rows, size) == [WHOLE, WHOLE]


@SIZES
def test_two_connections_from_the_middle_on_are_told_apart(size):
    rows = mixed(rows_in((10, 10), close()[3:]), rows_in((20, 20), close(OTHERS)[4:]))
    assert sorted(client + server for client, server, _ in ends(rows, size)) == [5, 6]


@SIZES
def test_a_reset_with_any_number_in_its_own_vlan_stays_there(size):
    reset = (0, RST, 0x50000000, None, 0, NUMBERS)
    rows = mixed(rows_in((10, 10), [*close()[:5], reset]), rows_in((20, 20), close(OTHERS)[:6]))
    assert [client + server for client, server, _ in ends(rows, size)] == [6, 6]


def test_no_vlan_nothing_is_looked_at_one_by_one(monkeypatch):
    from closeseq.connections.vlans import Lanes

    monkeypatch.setattr(Lanes, "_sort_out", None)
    for vlans in ((0, 0), (10, 10), (10, 20), (0, 20)):
        assert len(conversations(columns(rows_in(vlans, close())), 3)) == 1


@SIZES
def test_connections_in_two_vlans_are_forgotten_and_remembered_apart(size):
    rows = mixed(rows_in((10, 10), close()), rows_in((20, 20), close(OTHERS)))
    for keep in ([True, False], [False, True]):
        connections = fed(columns(rows[:10]), size)
        connections.forget(np.array(keep))
        connections.feed(columns(rows[10:]))
        found = [connections.conversation(index) for index in range(len(connections))]
        assert found[0].id == keep.index(True) + 1
        assert (found[0].client_packets, found[0].server_packets) == (5, 4)
        assert [one.client_packets + one.server_packets for one in found[1:]] == [4]
        connections.forget(np.zeros(len(found), np.bool_))
        assert len(connections) == 0
        connections.feed(columns(rows_in((10, 20), close())))
        assert len(connections) == 1


def frame(tags, **segment):
    made = ethernet(ipv4(tcp(**segment)), (0x88A8, 0x8100)[-len(tags) :] if tags else ())
    for place, tag in enumerate(tags):
        at = 14 + 4 * place
        made = made[:at] + (0x2000 | tag).to_bytes(2, "big") + made[at + 2 :]
    return made


def test_tags_are_read_from_frames():
    data = [frame(tags) for tags in VLANS.values()] + [frame((0,)), frame((0, 10))]
    segments = decode(frames_of([Frame(1, one, len(one)) for one in data]))
    assert segments.vlan.tolist() == [0, 10, 20, 30, 5 << 16 | 10, 5 << 16 | 20, 0, 10]


def test_a_stack_of_more_tags_than_are_a_layout_is_read_too():
    tags = (0x88A8, 0x8100, 0x8100, 0x9100, 0x8100)
    data = ethernet(ipv4(tcp()), tags)
    segments = decode(frames_of([Frame(1, data, len(data))]))
    assert segments.vlan.tolist() == [0x0064_0064_0064_0064]


def test_tags_that_name_ports_are_no_vlans():
    packet = ipv4(tcp())
    made = [ethernet(packet), e_tag(packet), vn_tag(packet)]
    segments = decode(frames_of([Frame(1, one, len(one)) for one in made]))
    assert segments.vlan.tolist() == [0, 0, 0]
    assert len(set(segments.place.tolist())) == 3


def test_frames_in_two_customers_vlans_are_two_connections():
    connections = Connections()
    for customer, begin in ((100, 5), (200, 0x60000000)):
        made = [
            frame((7, customer), flags=SYN, seq=begin),
            frame((7, customer), seq=begin + 1, ack=begin + 9),
        ]
        connections.feed(decode(frames_of([Frame(1, one, len(one)) for one in made])))
    assert [connections.conversation(index).client.address for index in range(2)] == [IPV4_ENDS[0]] * 2
    assert len(connections) == 2
