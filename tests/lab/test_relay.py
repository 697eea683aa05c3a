"""What the relay of a path does to packets, while a test lets the time go by."""

from __future__ import annotations

import socket

import dpkt
import pytest

from closeseq.connections.conversation import End
from closeseq.lab.faults import Action, Conditions, Fault, Leg, PathSettings, SegmentKind
from closeseq.lab.relay import Relay

MILLISECOND = 1_000_000
PORT = 8080
SYN, FIN, RST, PSH, ACK = 2, 1, 4, 8, 16
PATH = PathSettings(tap=0.25, usual=Conditions(80 * MILLISECOND))  # 10 ms to the tap, and 30 ms on
BEFORE_NS, AFTER_NS = 10 * MILLISECOND, 30 * MILLISECOND


class Journey:
    """A relay with its clock, and what it has recorded and delivered."""

    def __init__(self, settings=PATH):
        self.now_ns = 0
        self.recorded = []  # (time, packet)
        self.delivered = []  # (time, end, packet)
        self.relay = Relay(
            settings,
            clock=lambda: self.now_ns,
            record=lambda packet: self.recorded.append((self.now_ns, packet)),
            deliver=lambda end, packet: self.delivered.append((self.now_ns, end, packet)),
        )

    def send(self, packet, sender=End.CLIENT):
        self.relay.send(sender, packet)
        return packet

    def run(self):
        """Let everything happen at its time."""
        while (due_ns := self.relay.next_ns) is not None:
            self.now_ns = max(self.now_ns, due_ns)
            self.relay.work()

    @property
    def captured(self):
        return [packet for _, packet in self.recorded]

    @property
    def arrived(self):
        return [packet for _, _, packet in self.delivered]


def segment(flags=ACK, data=b"", *, sender=End.CLIENT, seq=1000, ack=5000, port=PORT, ip=4, number=0):
    """Return an IP packet with a TCP segment."""
    client, server = 50000, port
    sport, dport = (client, server) if sender is End.CLIENT else (server, client)
    tcp = dpkt.tcp.TCP(sport=sport, dport=dport, seq=seq % 2**32, ack=ack % 2**32, flags=flags, data=data)
    if ip == 6:
        here, there = (socket.inet_pton(socket.AF_INET6, text) for text in ("fd09::1", "fd09::2"))
        return bytes(dpkt.ip6.IP6(src=here, dst=there, nxt=6, plen=len(tcp), data=tcp))
    return bytes(dpkt.ip.IP(src=b"\n\t\0\1", dst=b"\n\t\0\2", p=6, id=number, data=tcp))


def test_a_packet_passes_the_tap_on_its_way_and_arrives_unchanged():
    journey = Journey()
    packet = journey.send(segment(data=b"hello"))
    journey.run()
    assert journey.recorded == [(BEFORE_NS, packet)]
    assert journey.delivered == [(BEFORE_NS + AFTER_NS, End.SERVER, packet)]


def test_one_from_the_server_goes_the_longer_part_first():
    journey = Journey()
    packet = journey.send(segment(sender=End.SERVER), End.SERVER)
    journey.run()
    assert journey.recorded == [(AFTER_NS, packet)]
    assert journey.delivered == [(BEFORE_NS + AFTER_NS, End.CLIENT, packet)]


def test_each_connection_has_a_round_trip_of_its_own_and_the_tap_is_as_far_along_on_each():
    journey = Journey(PathSettings(0.5, Conditions(0), {1: Conditions(20), 2: Conditions(80)}))
    packets = [journey.send(segment(port=port)) for port in (2, 1)]
    journey.run()
    assert journey.recorded == [(5, packets[1]), (20, packets[0])]
    assert [time for time, _, _ in journey.delivered] == [10, 40]


def test_packets_stay_in_their_order():
    journey = Journey()
    packets = []
    for number in range(100):
        packets.append(journey.send(segment(number=number)))
        journey.now_ns += number % 3  # some at the same moment
    journey.run()
    assert journey.captured == journey.arrived == packets


def test_a_relay_that_comes_late_makes_a_packet_late_and_never_shortens_its_way():
    journey = Journey()
    first, second = journey.send(segment(number=1)), segment(number=2)
    journey.now_ns = 2 * BEFORE_NS  # nobody looked after it in the meantime
    journey.send(second)
    journey.run()
    assert journey.recorded == [(2 * BEFORE_NS, first), (3 * BEFORE_NS, second)]
    assert [time for time, _, _ in journey.delivered] == [2 * BEFORE_NS + AFTER_NS, 3 * BEFORE_NS + AFTER_NS]


@pytest.mark.parametrize(("leg", "captured", "arrived"), [(Leg.BEFORE, 0, 0), (Leg.AFTER, 1, 0)])
def test_what_is_lost_before_the_tap_is_not_captured_and_what_is_lost_after_it_is(leg, captured, arrived):
    for sender in End:
        journey = Journey()
        journey.relay.inject(Fault(Action.LOSE, sender, leg))
        journey.send(segment(sender=sender), sender)
        other = journey.send(segment(sender=sender.peer), sender.peer)
        journey.run()
        assert len(journey.captured) == captured + 1
        assert len(journey.arrived) == arrived + 1
        assert other in journey.arrived


@pytest.mark.parametrize("leg", list(Leg))
def test_a_delayed_packet_is_overtaken_where_it_is_delayed(leg):
    journey = Journey()
    journey.relay.inject(Fault(Action.DELAY, End.CLIENT, leg, times=1, delay_ns=MILLISECOND))
    first, second = journey.send(segment(number=1)), journey.send(segment(number=2))
    journey.run()
    assert journey.captured == ([second, first] if leg is Leg.BEFORE else [first, second])
    assert journey.arrived == [second, first]
    assert journey.now_ns == BEFORE_NS + AFTER_NS + MILLISECOND


@pytest.mark.parametrize(("leg", "captured"), [(Leg.BEFORE, 2), (Leg.AFTER, 1)])
def test_a_duplicate_arrives_twice_and_is_captured_twice_if_it_came_into_being_before_the_tap(leg, captured):
    journey = Journey()
    journey.relay.inject(Fault(Action.DUPLICATE, End.CLIENT, leg, delay_ns=MILLISECOND))
    packet = journey.send(segment())
    journey.run()
    assert journey.captured == [packet] * captured
    assert journey.delivered == [
        (BEFORE_NS + AFTER_NS, End.SERVER, packet),
        (BEFORE_NS + AFTER_NS + MILLISECOND, End.SERVER, packet),
    ]


LAST = 2**32 - 1  # after which numbers wrap around
KINDS = {
    SegmentKind.SYN: segment(SYN),
    SegmentKind.DATA: segment(ACK | PSH, b"x"),
    SegmentKind.FIN: segment(FIN | ACK),
    SegmentKind.RST: segment(RST | ACK),
    SegmentKind.PURE_ACK: segment(ACK),
}
IPV6_KINDS = {
    SegmentKind.DATA: segment(ACK | PSH, b"x", ip=6),
    SegmentKind.FIN: segment(FIN | ACK, ip=6),
    SegmentKind.PURE_ACK: segment(ACK, ip=6),
}


@pytest.mark.parametrize(
    ("kind", "packets"),
    [*((kind, KINDS) for kind in KINDS), *((kind, IPV6_KINDS) for kind in IPV6_KINDS)],
)
def test_a_fault_meets_segments_of_its_kind_only(kind, packets):
    journey = Journey()
    number = journey.relay.inject(Fault(Action.LOSE, End.CLIENT, Leg.BEFORE, kind))
    for packet in packets.values():
        journey.send(packet)
    journey.run()
    assert journey.arrived == [packet for name, packet in packets.items() if name is not kind]
    assert journey.relay.count(number) == 1


def test_an_ack_of_the_peers_fin_is_told_from_those_before_it_also_where_numbers_wrap():
    journey = Journey()
    number = journey.relay.inject(Fault(Action.LOSE, End.SERVER, Leg.BEFORE, SegmentKind.ACK_OF_FIN))
    before = segment(sender=End.SERVER, ack=LAST)  # covers the data, and not the FIN
    covers = segment(sender=End.SERVER, ack=LAST + 1)
    journey.send(before, End.SERVER)
    journey.send(segment(FIN | ACK, b"ab", seq=LAST - 2))  # the FIN itself is numbered LAST
    journey.send(before, End.SERVER)
    journey.send(covers, End.SERVER)
    journey.send(segment(FIN | ACK, sender=End.SERVER, ack=LAST + 1), End.SERVER)  # no pure ACK
    journey.run()
    assert journey.relay.count(number) == 1
    assert covers not in journey.arrived
    assert journey.arrived.count(before) == 2


def test_the_fin_of_an_earlier_connection_of_these_ports_is_forgotten_at_the_next_syn():
    journey = Journey()
    number = journey.relay.inject(Fault(Action.LOSE, End.SERVER, Leg.BEFORE, SegmentKind.ACK_OF_FIN))
    journey.send(segment(FIN | ACK, seq=100))
    journey.send(segment(SYN, seq=2000))
    journey.send(segment(sender=End.SERVER, ack=2001), End.SERVER)
    assert journey.relay.count(number) == 0


def test_a_fault_is_over_after_its_times_or_when_it_is_removed_and_leaves_other_connections_alone():
    journey = Journey()
    once = journey.relay.inject(Fault(Action.LOSE, End.CLIENT, Leg.BEFORE, server_port=1, times=2))
    always = journey.relay.inject(Fault(Action.LOSE, End.CLIENT, Leg.AFTER, server_port=2))
    for _ in range(3):
        journey.send(segment(port=1))
        journey.send(segment(port=2))
        journey.send(segment(port=3))
    journey.run()
    assert journey.arrived == [segment(port=3)] * 2 + [segment(port=1), segment(port=3)]
    assert (journey.relay.count(once), journey.relay.remove(always)) == (2, 3)
    journey.send(segment(port=2))
    journey.run()
    assert journey.arrived[-1] == segment(port=2)


def test_what_is_not_tcp_is_carried_and_not_recorded():
    journey = Journey()
    journey.relay.inject(Fault(Action.LOSE, End.CLIENT, Leg.BEFORE))
    udp = dpkt.ip.IP(src=b"\n\t\0\1", dst=b"\n\t\0\2", p=17, data=dpkt.udp.UDP(sport=1, dport=PORT))
    packet = journey.send(bytes(udp))
    journey.run()
    assert journey.arrived == [packet]
    assert journey.captured == []


@pytest.mark.parametrize("length", [21, 33])
def test_nor_is_a_packet_too_short_to_hold_a_tcp_header(length):
    journey = Journey()
    packet = journey.send(segment()[:length])
    journey.run()
    assert journey.arrived == [packet]
    assert journey.captured == []


# By chance

MANY = 4000


def journeys(conditions, seed="1"):
    """Send many packets a second apart, so that nothing overtakes but what was sent at the same time."""
    journey = Journey(PathSettings(0.25, conditions, seed=seed))
    sent = []
    for number in range(MANY):
        sent.append(journey.send(segment(number=number)))
        if number % 2:
            journey.run()
            journey.now_ns += 1000 * MILLISECOND
    return journey, sent


def test_packets_get_lost_as_often_as_asked_half_of_them_on_either_side_of_the_tap():
    journey, sent = journeys(Conditions(80 * MILLISECOND, loss=0.05))
    before = len(sent) - len(journey.captured)
    after = len(journey.captured) - len(journey.arrived)
    # 100 each are expected; 40 is four standard deviations.
    assert 60 < before < 140
    assert 60 < after < 140
    assert set(journey.arrived) <= set(journey.captured) <= set(sent)


def test_without_loss_everything_arrives_however_it_is_reordered_and_repeated():
    journey, sent = journeys(Conditions(80 * MILLISECOND, reordering=0.1, duplication=0.05))
    assert set(journey.captured) == set(journey.arrived) == set(sent)
    assert journey.captured != sent
    repeated = len(journey.arrived) - len(sent)
    assert 140 < repeated < 260  # 200 are expected
    assert 60 < len(journey.captured) - len(sent) < 140  # half of them before the tap
    overtaken = [
        a
        for a, b in zip(sent[::2], sent[1::2], strict=True)
        if journey.arrived.index(b) < journey.arrived.index(a)
    ]
    assert 120 < len(overtaken) < 240  # every other one of 4000 can be, and a tenth is delayed


def test_nothing_happens_by_chance_that_was_not_asked_for():
    journey, sent = journeys(Conditions(80 * MILLISECOND))
    assert journey.captured == journey.arrived == sent


def test_the_same_seed_does_the_same_to_the_same_packets_whatever_other_connections_do():
    conditions = Conditions(80 * MILLISECOND, loss=0.3, duplication=0.2)
    alone, sent = journeys(conditions)
    among = Journey(PathSettings(0.25, conditions, seed="1"))
    for packet in sent:
        among.send(packet)
        among.send(segment(port=1))
        among.send(segment(sender=End.SERVER), End.SERVER)
    among.run()
    of_these = [packet for _, end, packet in among.delivered if end is End.SERVER and packet in set(sent)]
    assert sorted(of_these) == sorted(alone.arrived)
    assert journeys(conditions, seed="2")[0].arrived != alone.arrived


def test_what_happens_to_one_direction_says_nothing_of_the_other():
    journey = Journey(PathSettings(0.25, Conditions(0, loss=0.5)))
    for number in range(200):
        for sender in End:
            journey.send(segment(sender=sender, number=number), sender)
    journey.run()
    survivors = {end: [dpkt.ip.IP(p).id for _, to, p in journey.delivered if to is end] for end in End}
    assert survivors[End.CLIENT] != survivors[End.SERVER]
