"""The ring, held against tcpdump, and against what was really sent."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import subprocess
import threading
import time

import numpy as np
import pytest

from closeseq.capture import open_capture
from closeseq.capture.live import open_live
from closeseq.capture.live import ring as ring_module
from closeseq.capture.live.live_capture import MOST
from closeseq.segments import decode
from closeseq.segments.decode import narrow
from frame_bytes import ethernet, extension, fragment_header, ipv4, ipv6, tcp
from live_network import (
    PORT,
    finish,
    make_pair,
    needs_network,
    opened,
    own_network,
    packets_of,
    received,
    send_frames,
    talk,
    wait_for,
)
from machine import needs

pytestmark = needs_network


@pytest.fixture(autouse=True)
def _network():
    with own_network():
        yield


@contextlib.contextmanager
def tcpdump(path, *options):
    """Capture at the same time with tcpdump."""
    command = ["tcpdump", "-Z", "root", "--time-stamp-precision=nano", "--immediate-mode", "-s", "256"]
    command += ["-U", "-w", str(path), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert any("listening" in line for line in process.stderr)
            yield
            time.sleep(0.1)
        finally:
            process.terminate()


def read_pcap(path):
    with open_capture(str(path)) as capture:
        return [packet for frames in capture.batches() for packet in packets_of(frames)]


def assert_same_times(ours, theirs):
    """Check that both looked at the clock, one right after the other, for each packet."""
    apart = sorted(abs(one.time_ns - other.time_ns) for one, other in zip(ours, theirs, strict=True))
    assert apart[len(apart) // 2] < 100_000
    assert apart[-1] < 100_000_000


def numbered(count, first=0):
    """Give frames of segments that are told apart by their sequence numbers."""
    whole = ethernet(ipv4(tcp(ports=(50001, PORT), seq=0)))
    at = whole.index(struct.pack(">HH", 50001, PORT)) + 4
    for number in range(first, first + count):
        yield whole[:at] + number.to_bytes(4, "big") + whole[at + 4 :]


@needs("tcpdump")
def test_on_loopback_each_packet_is_what_tcpdump_captures(tmp_path):
    path = tmp_path / "lo.pcap"
    with tcpdump(path, "-i", "lo", f"tcp port {PORT}"), open_live(["lo"], ports={PORT}) as capture:
        talk(20)
        talk(20, host="::1", data=bytes(range(250)) * 400)
        ours = finish(capture)
    theirs = read_pcap(path)
    assert len(ours) == received("lo") > 300
    assert [(p.wire, p.link_type, p.data) for p in ours] == [
        (p.wire, p.link_type, p.data[:192]) for p in theirs
    ]
    assert_same_times(ours, theirs)
    assert [packet.number for packet in ours] == list(range(1, len(ours) + 1))
    assert max(packet.wire for packet in ours) > 9000  # segments as big as loopback's packets


@needs("tcpdump")
def test_on_any_each_packet_is_what_tcpdump_captures_there(tmp_path):
    path = tmp_path / "any.pcap"
    make_pair()
    packet = ipv6(tcp(ports=(50001, PORT), payload=bytes(300)))
    with (
        tcpdump(path, "-i", "any", "-y", "LINUX_SLL2", f"tcp port {PORT}"),
        open_live(["any"], ports={PORT}) as capture,
    ):
        talk(5)
        send_frames([ethernet(packet), *numbered(3)])
        talk(5, host="::1")
        ours = finish(capture)
    theirs = read_pcap(path)
    assert len(ours) == received("lo") + 2 * 4

    def seen(packet):
        # Behind an address of 6 bytes, tcpdump leaves in the 8 what happened to be there.
        return packet.wire, packet.link_type, packet.data[:18] + b"\0\0" + packet.data[20:212]

    assert [seen(packet) for packet in ours] == [seen(packet) for packet in theirs]
    assert_same_times(ours, theirs)
    assert {packet.data[10] for packet in ours} == {0, 3, 4}  # to us; to others; sent


def test_nothing_is_lost_between_opening_and_the_first_read():
    with open_live(["lo"]) as capture:
        talk(300)
        assert len(finish(capture)) == received("lo") == capture.packets > 2000
        assert capture.dropped == 0
    assert capture.dropped == 0  # can still be asked


def test_nothing_but_the_wanted_gets_in():
    with open_live(["lo"], ports={PORT + 1}, hosts={"127.0.0.1"}) as capture:
        talk(3)
        talk(2, port=PORT + 1)
        talk(4, port=PORT + 1, host="::1")
        capture.stop()
        segments = decode(capture.read(1).frames)
    assert opened(segments) == 2
    assert set(segments.version) == {4}
    assert ((segments.src_port == PORT + 1) | (segments.dst_port == PORT + 1)).all()


def test_a_read_waits_for_as_long_as_it_is_told():
    with open_live(["lo"]) as capture:
        begin = time.monotonic()
        assert capture.read(0.2) is None
        assert 0.2 <= time.monotonic() - begin < 2
        begin = time.monotonic()
        assert capture.read(0) is None
        assert time.monotonic() - begin < 0.1


@pytest.mark.parametrize("device", ["lo", "any"])
def test_a_read_ends_when_something_has_come(device):
    with open_live([device]) as capture:
        timer = threading.Timer(0.1, talk)
        timer.start()
        begin = time.monotonic()
        batch = capture.read(30)
        assert time.monotonic() - begin < 5
        timer.join()
        assert len(batch.frames) > 0
        assert capture.devices[batch.device].name == device


def test_a_waiting_read_can_be_woken():
    with open_live(["lo"]) as capture:
        timer = threading.Timer(0.1, capture.wake)
        timer.start()
        begin = time.monotonic()
        assert capture.read(30) is None
        assert time.monotonic() - begin < 5
        timer.join()
        capture.wake()
        assert capture.read(30) is None  # also when it begins to wait only then
        assert capture.read(0.1) is None
    capture.wake()  # nobody is there any more


def test_a_capture_that_is_stopped_gives_what_it_has_and_nothing_after_that():
    with open_live(["lo"]) as capture:
        talk(2)
        capture.stop()
        before = received("lo")
        talk(5)
        assert len(capture.read(0).frames) == before
        begin = time.monotonic()
        assert capture.read(30) is None
        assert capture.read(30) is None
        assert time.monotonic() - begin < 1


def test_a_descriptor_tells_when_there_is_something_to_read():
    with open_live(["lo"]) as capture:
        (descriptor,) = capture.filenos()
        poll = polling(descriptor)
        assert not poll.poll(150)
        talk()
        assert poll.poll(5000)
        assert capture.read(0).frames
        assert not capture.read(0.2)
        capture.release()
        assert not poll.poll(0)


def polling(descriptor):
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll


def test_a_backlog_comes_in_batches_of_bounded_size():
    make_pair()
    count = MOST + 5000
    with open_live(["veth1"]) as capture:
        send_frames(numbered(count))
        capture.stop()
        sizes, numbers = [], []
        while batch := capture.read(10):
            sizes.append(len(batch.frames))
            numbers += batch.frames.number.tolist()
            assert capture.packets == len(numbers)
        assert capture.dropped == 0
    assert numbers == list(range(1, count + 1))
    assert MOST - 1000 < sizes[0] == max(sizes) <= MOST
    assert len(sizes) <= 4


def test_what_a_full_ring_cannot_hold_is_counted():
    make_pair()
    with open_live(["veth1"], buffer_bytes=1) as capture:  # the least there is: two blocks
        send_frames(numbered(10_000))
        assert capture.dropped > 5000
        held = finish(capture)
        assert len(held) > 1000
        assert len(held) + capture.dropped == 10_000
    assert len(held) + capture.dropped == 10_000


def test_after_losses_the_capture_goes_on():
    make_pair()
    with open_live(["veth1"], buffer_bytes=1) as capture:
        send_frames(numbered(5000))
        lost, before = capture.dropped, 0
        while batch := capture.read(0.3):
            before += len(batch.frames)
        send_frames(numbered(100, first=7000))
        after: list[int] = []
        while len(after) < 100 and (batch := capture.read(5)):  # a busy machine hands them over in parts
            after += decode(batch.frames).seq.tolist()
        assert after == list(range(7000, 7100))
        assert before + lost == 5000


def test_what_was_decoded_stays_when_the_memory_is_used_again():
    make_pair()
    parts = []
    with open_live(["veth1"], buffer_bytes=4 << 17) as capture:
        # Through all of the memory several times. More at once might not get as far as the socket: the
        # kernel queues 1,000 (net.core.netdev_max_backlog).
        for first in range(0, 10_000, 500):
            send_frames(numbered(500, first))
            while sum(map(len, parts)) < first + 500 and (batch := capture.read(20)):
                parts.append(decode(batch.frames))
        assert capture.dropped == 0
    assert len(parts) >= 10
    assert np.concatenate([part.seq for part in parts]).tolist() == list(range(10_000))


def test_frames_that_someone_still_holds_survive_the_end():
    with open_live(["lo"]) as capture:
        talk()
        frames = capture.read(5).frames
        before = packets_of(frames)
    talk(5)
    assert packets_of(frames) == before


def test_frames_are_cut_behind_the_headers_and_keep_their_length():
    make_pair()
    with open_live(["veth1"]) as capture:
        send_frames([ethernet(ipv6(tcp(bytes(40), bytes(1000))))])
        (packet,) = finish(capture)
        assert len(packet.data) == 192
        assert packet.wire == 14 + 40 + 60 + 1000


@pytest.mark.parametrize(
    ("device", "times"), [("veth0", 1), ("veth1", 1), ("any", 2)], ids=["sent", "received", "on any"]
)
def test_segments_in_vlans_are_found(device, times):
    make_pair()
    for tags in ((), (0x8100,), (0x88A8, 0x8100), (0x88A8, 0x8100, 0x8100)):
        frames = [
            ethernet(make(tcp(payload=b"x" * size, ports=ports)), tags)
            for make in (ipv4, ipv6)
            for size in (1, 1300)
            for ports in ((50001, PORT), (PORT, 50001), (1, 2))
        ]
        with open_live([device], ports={PORT}, buffer_bytes=1 << 20) as capture:
            send_frames(frames)
            capture.stop()
            segments = decode(capture.read(5).frames)
        wanted = narrow(segments, {PORT}, frozenset())
        assert len(wanted) == times * 8
        assert set(wanted.version) == {4, 6}
        assert set(wanted.length) == {1, 1300}
        # What is tagged more than once may also get in for `segments` to decide.
        assert len(segments) == len(wanted) or len(tags) > 1


def test_segments_behind_extension_headers_and_fragments_get_in():
    make_pair()
    segment = tcp(ports=(50001, PORT))
    frames = [
        ethernet(ipv6(extension(segment, 6), protocol=0)),
        ethernet(ipv6(fragment_header(segment, 6), protocol=44)),
        ethernet(ipv4(segment, fragment=50)),
        ethernet(ipv4(segment, protocol=17)),
    ]
    with open_live(["veth1"], ports={PORT}) as capture:
        send_frames(frames)
        capture.stop()
        segments = decode(capture.read(5).frames)
    assert len(segments) == 2
    assert segments.skipped == {"IP fragment": 1}


def test_several_devices_are_captured_at_once_and_told_apart():
    make_pair()
    with open_live(["veth1", "lo", "veth1"], ports={PORT}) as capture:
        assert [device.name for device in capture.devices] == ["veth1", "lo"]
        assert [device.loopback for device in capture.devices] == [False, True]
        send_frames(numbered(10))
        talk(2)
        packets = finish(capture)
    assert [packet.device for packet in packets].count(0) == 10
    assert [packet.device for packet in packets].count(1) == received("lo")
    assert [packet.number for packet in packets] == list(range(1, len(packets) + 1))


def test_a_busy_device_does_not_hide_the_others():
    make_pair()
    with open_live(["veth1", "lo"], ports={PORT}) as capture:
        send_frames(numbered(2 * MOST))
        talk()
        wait_for(lambda: all(source.ready() for source in capture._sources))
        assert {capture.read(1).device, capture.read(1).device} == {0, 1}


def test_times_are_those_of_the_clock():
    with open_live(["lo"]) as capture:
        before = time.time_ns()
        talk()
        after = time.time_ns()
        times = [packet.time_ns for packet in finish(capture)]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after
    assert {moment % 1000 for moment in times} != {0}


@pytest.mark.parametrize("room", [1 << 20, 1 << 17])
def test_with_less_memory_than_wanted_a_smaller_ring_has_to_do(monkeypatch, room):
    class Poor(socket.socket):
        def setsockopt(self, level, option, value):
            if option == ring_module._RX_RING and level == ring_module._SOL_PACKET:
                block, blocks, *_ = struct.unpack("7I", value)
                if block * blocks > room:
                    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            super().setsockopt(level, option, value)

    monkeypatch.setattr(ring_module.socket, "socket", Poor)
    if room < 2 * ring_module.BLOCK:
        with pytest.raises(ring_module.DeviceError, match="no memory"):
            open_live(["lo"])
        return
    with open_live(["lo"]) as capture:
        assert capture._sources[0].size == room
        monkeypatch.undo()
        talk()
        assert len(finish(capture)) == received("lo")


def test_where_the_kernel_has_no_rings_scapy_takes_over_unless_a_ring_is_demanded(monkeypatch):
    class Plain(socket.socket):
        def setsockopt(self, level, option, value):
            if (level, option) == (ring_module._SOL_PACKET, ring_module._VERSION):
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
            super().setsockopt(level, option, value)

    with open_live(["lo"], source="scapy"):  # import it with the real socket
        pass
    monkeypatch.setattr(ring_module.socket, "socket", Plain)
    with pytest.raises(ring_module.DeviceError, match="this kernel has no packet rings: Protocol not"):
        open_live(["lo"], source="ring")
    with open_live(["lo"]) as capture:
        monkeypatch.undo()
        talk()
        assert len(finish(capture)) == received("lo")
