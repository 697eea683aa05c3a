"""The kernel's filter against `segments`: what that would keep gets in, and hardly anything else.

The kernel itself runs the programs: a socket of any kind can have one, and a message is a frame.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from closeseq.capture import open_capture
from closeseq.capture.live.bpf import (
    IF_EQUAL,
    JUMP,
    LOAD_BYTE,
    NOTHING,
    RETURN,
    FilterLine,
    Instruction,
    assemble,
    attach,
    chain,
    cut,
)
from closeseq.capture.live.devices import Device
from closeseq.capture.live.filter import MOST, FilterRequest, tcp_program
from closeseq.capture.live.ring import COOKED_HEADER
from closeseq.packets.protocols import LINKTYPE_FDDI, LINKTYPE_IEEE_802_11, LINKTYPE_RADIOTAP
from closeseq.packets.segments import ACK
from closeseq.segments import decode
from closeseq.segments.decode import narrow
from dpkt_oracle import Frame, frames_of
from frame_bytes import (
    IPV4_ENDS,
    IPV6_ENDS,
    e_tag,
    ethernet,
    extension,
    fddi,
    fragment_header,
    gre,
    gtp,
    ieee_802_11,
    ipv4,
    ipv6,
    radiotap,
    tcp,
    udp,
    vn_tag,
)
from live_network import filtered
from places import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter programs are for Linux's kernel")

CAPTURES = sorted((ROOT / "captures").glob("*.pcap"))
ETHERNET, RAW, COOKED = 1, 101, 276
SNAP = 4096
SEGMENT = tcp(payload=b"0123456789")
# What the filter passes without knowing whether there is a wanted segment in it.
BROKEN = {
    *("IP fragment", "malformed IP header", "IP header cut short"),
    *("malformed TCP header", "TCP header cut short"),
}
NOBODY = FilterRequest(ports={1}, hosts={"10.0.0.1"})


def device(link_type=ETHERNET):
    return Device("eth0", 2, link_type, loopback=False)


def passes(frame, wanted=FilterRequest(), link_type=ETHERNET):  # noqa: B008  # it is frozen
    with filtered(tcp_program(device(link_type), wanted, SNAP)) as left:
        return bool(left(frame))


def kept(frame, wanted, link_type=ETHERNET):
    """Return whether `segments` finds a wanted segment in it, and why not, if it found none."""
    segments = decode(frames_of([Frame(link_type, frame, len(frame))]))
    return bool(len(narrow(segments, wanted.ports, wanted.hosts))), set(segments.skipped)


WANTED = [
    FilterRequest(),
    FilterRequest(ports={80}),
    FilterRequest(ports={4789}),
    FilterRequest(ports={79, 80, 81, 50001}),
    FilterRequest(hosts={IPV4_ENDS[0]}),
    FilterRequest(hosts={IPV6_ENDS[1]}),
    FilterRequest(ports={80}, hosts={IPV4_ENDS[1], IPV6_ENDS[0], "10.0.0.1", "2001:db8::2"}),
    FilterRequest(ports={1}, hosts={IPV4_ENDS[0]}),
]


def named(wanted):
    """Return a test's name: the same in every process, which the order of a set is not."""
    return " ".join(map(str, [*sorted(wanted.ports), *sorted(wanted.hosts)])) or "everything"


@pytest.mark.parametrize(
    "wanted", [FilterRequest(), FilterRequest(ports={8080}), FilterRequest(hosts={"127.0.0.1"})], ids=named
)
def test_of_real_captures_exactly_what_segments_keeps_gets_in(wanted):
    asked = 0
    for path in CAPTURES:
        with open_capture(path) as capture:
            for frames in capture.batches():
                wanted_numbers = set(narrow(decode(frames), wanted.ports, wanted.hosts).number.tolist())
                cooked = frames.link_type[0] == COOKED
                link_type = ETHERNET if frames.link_type[0] == ETHERNET else RAW
                with filtered(tcp_program(device(link_type), wanted, SNAP)) as left:
                    for row, number in enumerate(frames.number.tolist()):
                        start, size = int(frames.offset[row]), int(frames.captured[row])
                        frame = frames.buffer[start : start + size].tobytes()
                        got = bool(left(frame[COOKED_HEADER.itemsize :] if cooked else frame))
                        assert got == (number in wanted_numbers), (path.name, number)
                        asked += 1
    assert asked > 300


@pytest.mark.parametrize("wanted", WANTED, ids=named)
@pytest.mark.parametrize(
    "tags", [(), (0x8100,), (0x88A8, 0x8100)], ids=["untagged", "tagged", "twice tagged"]
)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("ports", [(50001, 80), (80, 50001), (1, 2), (65535, 4789)], ids=str)
def test_a_plain_segment_gets_in_exactly_if_it_is_wanted(wanted, tags, version, ports):
    segment = tcp(payload=b"x", ports=ports)
    frame = ethernet(ipv4(segment, b"\x94\x04") if version == 4 else ipv6(segment), tags)
    assert passes(frame, wanted) == kept(frame, wanted)[0]


@pytest.mark.parametrize("packet", [ipv4(SEGMENT), ipv6(SEGMENT)], ids=["IPv4", "IPv6"])
def test_a_device_without_link_header_is_judged_by_the_version(packet):
    assert passes(packet, FilterRequest(ports={80}), RAW)
    assert not passes(packet, FilterRequest(ports={81}), RAW)
    assert not passes(b"\x50" + packet[1:], FilterRequest(), RAW)


VXLAN = ethernet(ipv4(udp(bytes(8) + ethernet(ipv4(SEGMENT)), 4789), protocol=17))
UNREADABLE = {
    "extension header": ethernet(ipv6(extension(SEGMENT, 6), protocol=0)),
    "two extension headers": ethernet(ipv6(extension(extension(SEGMENT, 6), 60, units=2), protocol=43)),
    "fragment header": ethernet(ipv6(fragment_header(SEGMENT, 6), protocol=44)),
    "VXLAN": VXLAN,
    "IP in IP": ethernet(ipv4(ipv4(SEGMENT), protocol=4)),
    "IPv6 in IPv4": ethernet(ipv4(ipv6(SEGMENT), protocol=41)),
    "three VLAN tags": ethernet(ipv4(SEGMENT), (0x88A8, 0x8100, 0x8100)),
    "VN-Tag": vn_tag(ipv4(SEGMENT)),
    "E-Tag": e_tag(ipv6(SEGMENT)),
    "GRE over UDP": ethernet(ipv4(udp(gre(ipv4(SEGMENT), 0x0800), 4754), protocol=17)),
    "GTP-U": ethernet(ipv6(udp(gtp(ipv4(SEGMENT)), 2152), protocol=17)),
    "Aruba GRE": ethernet(ipv4(gre(ieee_802_11(ipv4(SEGMENT)), 0x8210), protocol=47)),
    "PPPoE": ethernet(b"\x11\x00\x00\x01\x00\x40\x00\x21" + ipv4(SEGMENT), ethertype=0x8864),
}


@pytest.mark.parametrize("frame", UNREADABLE.values(), ids=UNREADABLE)
def test_what_needs_a_walk_gets_in_for_segments_to_decide(frame):
    for wanted in (FilterRequest(ports={80}), FilterRequest(ports={81}), FilterRequest(hosts={"10.0.0.1"})):
        assert passes(frame, wanted)
    assert kept(frame, FilterRequest(ports={80}))[0]


WIRELESS_AND_FDDI = {
    LINKTYPE_FDDI: fddi(ipv4(SEGMENT)),
    LINKTYPE_IEEE_802_11: ieee_802_11(ipv6(SEGMENT)),
    LINKTYPE_RADIOTAP: radiotap(ieee_802_11(ipv4(SEGMENT))),
}


@pytest.mark.parametrize(("link_type", "frame"), WIRELESS_AND_FDDI.items(), ids=str)
def test_of_links_with_headers_of_many_lengths_all_gets_in(link_type, frame):
    assert passes(frame, FilterRequest(ports={81}, hosts={"10.0.0.1"}), link_type)
    assert kept(frame, FilterRequest(ports={80}), link_type)[0]


OTHERS = {
    "UDP": ethernet(ipv4(udp(SEGMENT, 80), protocol=17)),
    "UDP, IPv6": ethernet(ipv6(udp(SEGMENT, 80), protocol=17)),
    "ICMP": ethernet(ipv4(SEGMENT, protocol=1)),
    "ICMP, IPv6": ethernet(ipv6(SEGMENT, protocol=58)),
    "ARP": ethernet(bytes(28), ethertype=0x0806),
    "a later fragment of UDP": ethernet(ipv4(udp(SEGMENT, 4789), protocol=17, fragment=100)),
    "nothing": b"\0",
    "an Ethernet header alone": ethernet(ipv4(SEGMENT))[:14],
}


@pytest.mark.parametrize("frame", OTHERS.values(), ids=OTHERS)
def test_what_holds_no_tcp_stays_out(frame):
    assert not passes(frame)


def test_later_fragments_get_in_whatever_their_port_to_be_counted():
    frame = ethernet(ipv4(SEGMENT, fragment=100))
    assert passes(frame, FilterRequest(ports={1}))
    assert passes(frame, FilterRequest(hosts={IPV4_ENDS[0]}))
    assert not passes(frame, FilterRequest(hosts={"10.0.0.1"}))
    assert kept(frame, FilterRequest()) == (False, {"IP fragment"})


@st.composite
def frames(draw):
    """Give a frame out of the headers there are, often with a wrong one, often cut short."""
    ports = draw(st.sampled_from([(50001, 80), (80, 4789), (7, 9)]))
    options = draw(st.sampled_from([b"", b"\x94\x04\0\0", bytes(40)]))
    payload = draw(
        st.sampled_from([tcp(ports=ports), udp(ethernet(ipv4(SEGMENT)), ports[1]), ipv6(SEGMENT), b"\x45"])
    )
    protocol = draw(st.sampled_from([6, 6, 6, 17, 4, 41, 0, 43, 44, 51, 60, 1, 58, 59, 255]))
    fragment = draw(st.sampled_from([0, 0x4000, 0x2000, 0x2001, 0x1FFF, 0x8000]))
    packet = draw(
        st.sampled_from(
            [
                ipv4(payload, options, protocol=protocol, fragment=fragment),
                ipv6(payload, protocol=protocol),
                ipv6(extension(payload, 6), protocol=protocol),
            ]
        )
    )
    tags = draw(st.sampled_from([(), (0x8100,), (0x88A8, 0x8100), (0x9100, 0x9200, 0x8100)]))
    frame = ethernet(packet, tags)
    if draw(st.booleans()):
        at, value = draw(st.integers(12, 60)), draw(st.integers(0, 255))
        frame = frame[:at] + bytes([value]) + frame[at + 1 :]
    return frame[: draw(st.integers(1, len(frame)))] if draw(st.booleans()) else frame


@given(frames(), st.sampled_from(WANTED))
@example(VXLAN, WANTED[1])
def test_whatever_segments_keeps_gets_in(frame, wanted):
    got, (keeps, skipped) = passes(frame, wanted), kept(frame, wanted)
    if keeps:
        assert got
    elif got:  # only what cannot be judged, and what is wanted but broken
        assert passes(frame, NOBODY) or skipped & BROKEN


@given(st.binary(min_size=1, max_size=120), st.sampled_from([ETHERNET, RAW]))
def test_noise_that_segments_keeps_gets_in(frame, link_type):
    assert passes(frame, FilterRequest(), link_type) or not kept(frame, FilterRequest(), link_type)[0]


def test_passed_frames_are_cut_to_the_snap_length():
    frame = ethernet(ipv4(tcp(payload=bytes(500))))
    with filtered(tcp_program(device(), FilterRequest(), 192)) as left:
        assert left(frame) == frame[:192]
        assert left(frame[:60]) == frame[:60]


@pytest.mark.parametrize("count", [1, 100, 120, 200, 300])
def test_jumps_reach_over_any_number_of_ports_and_hosts(count):
    ports = set(range(1000, 1000 + 3 * count, 3))
    hosts = {str(ip_address(IPV4_ENDS[0]) + 2 * number) for number in range(count)}
    hosts |= {str(ip_address(IPV6_ENDS[0]) + 2 * number) for number in range(min(count, 20))}
    wanted = FilterRequest(ports, hosts)
    program = tcp_program(device(), wanted, SNAP)
    assert len(program) <= MOST
    whole = len(program) > 2 * count
    with filtered(program) as left:
        for port in (min(ports), max(ports), max(ports) - 1):
            for packet in (ipv4(tcp(ports=(9, port))), ipv6(tcp(ports=(port, 9)))):
                assert bool(left(ethernet(packet))) == kept(ethernet(packet), wanted)[0] or not whole


def test_too_many_ports_for_a_program_are_left_to_segments():
    wanted = FilterRequest(ports=set(range(1, 65535, 2)), hosts={IPV4_ENDS[0]})
    assert len(tcp_program(device(), wanted, SNAP)) <= MOST
    assert passes(ethernet(ipv4(tcp(ports=(2, 4)))), wanted)
    assert not passes(ethernet(ipv6(tcp(ports=(1, 3)))), wanted)  # hosts were not too many


def test_ports_in_a_row_take_no_more_room_than_two():
    few = len(tcp_program(device(), FilterRequest(ports={1, 3}), SNAP))
    assert len(tcp_program(device(), FilterRequest(ports=set(range(1024, 65536))), SNAP)) <= few
    for port, inside in ((1023, False), (1024, True), (40000, True), (65535, True)):
        frame = ethernet(ipv4(tcp(ports=(1, port))))
        assert passes(frame, FilterRequest(ports=set(range(1024, 65536)))) == inside


def jump_table(gap):
    """Return a program that keeps 7 bytes of what begins with 1, and else 9, over a gap."""
    filler = [FilterLine(LOAD_BYTE, 0)] * gap
    return assemble(
        [
            *(FilterLine(LOAD_BYTE, 0), FilterLine(IF_EQUAL, 1, then="one", else_="other")),
            *(*filler, "one", FilterLine(RETURN, 7), *filler, "other", FilterLine(RETURN, 9)),
        ]
    )


@pytest.mark.parametrize("gap", [0, 1, 126, 127, 128, 253, 254, 255, 256, 257, 300])
def test_a_jump_that_is_too_far_for_a_condition_goes_by_a_plain_one(gap):
    with filtered(jump_table(gap)) as left:
        assert len(left(b"\1" + bytes(20))) == 7
        assert len(left(b"\2" + bytes(20))) == 9


def test_a_chain_passes_what_both_pass():
    first = tcp_program(device(), FilterRequest(ports={80}), SNAP)
    second = cut(tcp_program(device(), FilterRequest(hosts={IPV4_ENDS[0]}), SNAP), 60)
    with filtered(chain(first, second)) as left:
        assert len(left(ethernet(ipv4(tcp(payload=bytes(9)))))) == 60
        assert not left(ethernet(ipv4(tcp(ports=(1, 2)))))
        assert not left(ethernet(ipv6(SEGMENT)))
    assert any(step.code == JUMP for step in chain(first, second))
    with filtered(chain(first, NOTHING)) as left:
        assert not left(ethernet(ipv4(SEGMENT)))


def test_the_kernel_refuses_what_is_no_program():
    inlet, outlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with inlet, outlet, pytest.raises(OSError, match="Invalid argument"):
        attach(outlet, (Instruction(JUMP, 5), Instruction(RETURN, ACK)))
