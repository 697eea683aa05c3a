"""scapy's socket as a source, held against the ring at the same time."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest

from closeseq.capture.live import DeviceError, open_live
from closeseq.capture.live.bpf import compile_expression
from closeseq.capture.live.devices import Device
from closeseq.capture.live.filter import FilterRequest
from closeseq.capture.live.scapy_socket import load_scapy, text_filter
from closeseq.segments import decode
from frame_bytes import IPV4_ENDS, IPV6_ENDS, ethernet, ipv4, ipv6, tcp
from live_network import (
    PORT,
    filtered,
    finish,
    make_pair,
    needs_network,
    opened,
    own_network,
    received,
    send_frames,
    talk,
)
from places import ROOT

pytestmark = needs_network

FRAME = ethernet(ipv4(tcp(ports=(50001, PORT), payload=b"x" * 500)))


@pytest.fixture(autouse=True)
def _network():
    with own_network():
        yield


def test_it_gives_what_the_ring_gives():
    make_pair()
    devices = ["lo", "veth1"]
    with (
        open_live(devices, ports={PORT}) as ring,
        open_live(devices, ports={PORT}, source="scapy") as sniffer,
    ):
        assert sniffer.devices == ring.devices
        talk(20, data=b"x" * 3000)
        talk(5, host="::1")
        talk(5, port=PORT + 1)
        send_frames([FRAME] * 10)
        fast, slow = finish(ring), finish(sniffer)
        assert (ring.dropped, sniffer.dropped) == (0, 0)
    for device in (0, 1):
        ours, theirs = ([p for p in packets if p.device == device] for packets in (slow, fast))
        assert [(p.wire, p.data, p.link_type) for p in ours] == [
            (p.wire, p.data, p.link_type) for p in theirs
        ]
        apart = sorted(abs(one.time_ns - other.time_ns) for one, other in zip(ours, theirs, strict=True))
        assert apart[len(apart) // 2] < 100_000
    assert [packet.number for packet in slow] == list(range(1, len(slow) + 1))
    assert len(slow) > 25 * 7 + 10


def test_nothing_gets_in_before_the_filter_and_all_after_it():
    with open_live(["lo"], hosts={"127.0.0.1"}, source="scapy") as capture:
        talk(3, host="::1")
        talk(300)
        capture.stop()
        talk(3)
        connections = 0
        while batch := capture.read(1):
            segments = decode(batch.frames)
            connections += opened(segments)
            assert set(segments.version) == {4}
        assert connections == 300
        assert capture.dropped == 0


def test_what_its_memory_cannot_hold_is_counted():
    make_pair()
    with open_live(["veth1"], source="scapy", buffer_bytes=10_000) as capture:
        send_frames([FRAME] * 2000)
        assert capture.dropped > 1000
        held = len(finish(capture))
        assert held > 5
        assert held + capture.dropped == 2000
    assert held + capture.dropped == 2000


def test_a_vlan_tag_is_no_obstacle():
    make_pair()
    with open_live(["veth1"], ports={PORT}, source="scapy") as capture:
        send_frames([FRAME[:12] + b"\x81\0\0\x05" + FRAME[12:]] * 2)
        capture.stop()
        assert len(decode(capture.read(1).frames)) == 2


def test_what_it_cannot_read_is_refused():
    with pytest.raises(DeviceError, match="scapy's socket cannot read all interfaces at once: name them"):
        open_live(["any"], source="scapy")
    odd = Device("odd0", 7, 276, loopback=False)
    with pytest.raises(DeviceError, match="scapy's socket cannot read odd0's link type"):
        open_sniffer(odd)


def open_sniffer(device):
    from closeseq.capture.live.scapy_socket import Sniffer

    return Sniffer(device, (), "", 192, 1 << 20)


@pytest.mark.skipif(not ctypes.util.find_library("pcap"), reason="libpcap is not installed")
def test_where_there_is_no_program_a_text_says_the_same():
    wanted = FilterRequest(ports={80, 443}, hosts={IPV4_ENDS[0], IPV6_ENDS[1]})
    text = text_filter(wanted, "tcp[13] & 2 != 0 or ip6")
    assert text == (
        "(tcp[13] & 2 != 0 or ip6) and (port 443 or port 80) "
        f"and (host {IPV4_ENDS[0]} or host {IPV6_ENDS[1]})"
    )
    with filtered(compile_expression(text, Device("eth0", 2, 1, loopback=False))) as left:
        assert left(ethernet(ipv4(tcp(flags=2))))
        assert left(ethernet(ipv6(tcp(ports=(443, 1)))))
        assert not left(ethernet(ipv4(tcp(flags=16))))
        assert not left(ethernet(ipv6(tcp(ports=(81, 82)))))
    assert text_filter(FilterRequest(), None) == ""


def test_scapy_says_nothing_and_leaves_nothing_in_the_home(tmp_path):
    code = (
        "import os; from closeseq.capture.live import open_live; before = dict(os.environ);"
        "open_live(['lo'], ports={80}, source='scapy').close(); assert dict(os.environ) == before"
    )
    for more in ({}, {"XDG_CACHE_HOME": str(tmp_path / "cache")}):
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **more}
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", code],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not list(tmp_path.iterdir())


def test_scapy_is_not_imported_as_a_whole():
    load_scapy()
    code = (
        "import sys; from closeseq.capture.live.scapy_socket import load_scapy; load_scapy();"
        "assert 'scapy.all' not in sys.modules"
    )
    assert not subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode
    assert received("lo") == 0
