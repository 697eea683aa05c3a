"""Filter expressions: compiled by libpcap, run by the kernel, held against tcpdump where it reads files."""

from __future__ import annotations

import ctypes.util
import os
import sys

import pytest

from closeseq.capture.live import FilterError, libpcap, open_live
from closeseq.capture.live import bpf as expression_module
from closeseq.capture.live.bpf import RETURN, compile_expression
from closeseq.capture.live.devices import Device
from closeseq.packets.segments import ACK, FIN, SYN
from closeseq.segments import decode
from frame_bytes import ethernet, extension, ipv4, ipv6, tcp
from live_network import PORT, finish, make_pair, needs_network, own_network, received, send_frames, talk

pytestmark = [
    needs_network,
    pytest.mark.skipif(not ctypes.util.find_library("pcap"), reason="libpcap is not installed"),
]

ETHERNET = Device("eth0", 2, 1, loopback=False)
ALL = Device("any", 0, 276, loopback=False)
SOURCES = ("ring", "scapy")


@pytest.fixture(autouse=True)
def _network():
    with own_network():
        yield


@pytest.mark.parametrize(
    ("device", "source"), [("lo", "ring"), ("any", "ring"), ("lo", "scapy")], ids=["lo", "any", "scapy"]
)
def test_an_expression_chooses_among_what_ports_and_hosts_choose(device, source):
    expression = f"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and src port {PORT}"
    with open_live([device], hosts={"127.0.0.1"}, expression=expression, source=source) as capture:
        talk(3)
        talk(5, host="::1")
        talk(5, port=PORT + 1)
        capture.stop()
        flags, ports = list[int](), set[int]()
        while batch := capture.read(10):  # of several ring blocks each is a batch
            segments = decode(batch.frames)
            flags += segments.flags.tolist()
            ports |= set(segments.src_port.tolist())
    assert sorted(flags) == sorted(3 * [SYN | ACK] + 3 * [FIN | ACK])
    assert ports == {PORT}


@pytest.mark.parametrize("expression", ["inbound", "outbound"])
def test_on_any_an_expression_may_ask_for_the_direction(expression):
    make_pair()
    frame = ethernet(ipv4(tcp(ports=(50001, PORT))))
    with open_live(["any"], expression=expression) as capture:
        send_frames([frame] * 3)
        talk()
        packets = finish(capture)
    assert len(packets) == (received("lo") + 3 if expression == "inbound" else 3)


@pytest.mark.parametrize("device", ["veth1", "any"])
def test_tunnels_and_extension_headers_are_for_the_expression_to_judge(device):
    make_pair()
    frame = ethernet(ipv6(extension(tcp(ports=(50001, PORT)), 6), protocol=0))
    for expression, found in (("ip6 and inbound", 1), ("ip", 0)):
        with open_live([device], ports={PORT}, expression=expression) as capture:
            send_frames([frame])
            assert len(finish(capture)) == found


@pytest.mark.parametrize(("expression", "count"), [("vlan 100", 3), ("vlan 101", 0), ("not vlan", 2)])
def test_an_expression_may_ask_for_a_vlan_although_the_kernel_takes_the_tag_off(expression, count):
    make_pair()
    plain = ethernet(ipv4(tcp()))
    tagged = plain[:12] + b"\x81\0\0\x64" + plain[12:]
    with open_live(["veth1"], expression=expression) as capture:
        send_frames([tagged] * 3 + [plain] * 2)
        assert len(finish(capture)) == count


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("tcp port", "syntax error"),
        ("and", "syntax error"),
        ("port 80)", "syntax error"),
        ("port 99999999", "port"),
        ("host no.such.name.invalid", "unknown host"),
        ("tcp\nport [", "syntax error"),
        ("proto \N{SNOWMAN}", ""),
        ("tcp\0or udp", "zero byte"),
        ("\udcff", ""),
        ("ip6 protochain 6", "has a loop"),
        ("tcp or " * 100, "syntax error"),
    ],
)
def test_a_wrong_expression_is_told_in_one_line_with_the_reason(expression, reason, source):
    with pytest.raises(FilterError) as error:
        open_live(["lo"], expression=expression, source=source)
    text = str(error.value)
    assert text.startswith("filter expression ")
    assert reason in text
    assert text.encode(errors="replace").isascii() or "\N{SNOWMAN}" in text
    assert "\n" not in text
    assert len(text) < 250


def test_a_program_that_is_too_long_for_the_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(expression_module, "LONGEST", 5)  # for the real limit libpcap works for many seconds
    with pytest.raises(FilterError, match="too long for the kernel"):
        open_live(["lo"], expression="tcp port 80")


def test_what_cannot_be_asked_about_all_devices_is_an_error():
    with pytest.raises(FilterError, match="vlan"):
        open_live(["any"], expression="vlan 5")
    with pytest.raises(FilterError, match="no link header to look into"):
        compile_expression("link[13] = 5", ALL)


@pytest.mark.parametrize("expression", ["", "  ", None])
def test_an_empty_expression_is_none(expression):
    with open_live(["lo"], expression=expression) as capture:
        talk()
        assert len(finish(capture)) == received("lo")


def test_compiling_needs_no_rights_and_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "scapy"]:
        monkeypatch.delitem(sys.modules, name)
    libpcap.libpcap.cache_clear()
    program = compile_expression("tcp port 80", ETHERNET)
    assert any(step.code == RETURN and step.k for step in program)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert "scapy" not in sys.modules


def test_the_system_is_asked_where_libpcap_has_another_name(monkeypatch):
    libpcap.libpcap.cache_clear()
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap-that-is-not-there.so",))
    assert compile_expression("tcp port 80", ETHERNET)
    libpcap.libpcap.cache_clear()


def test_where_libpcap_is_missing_it_is_said_what_works_without(monkeypatch):
    libpcap.libpcap.cache_clear()
    monkeypatch.setattr(libpcap, "NAMES", ("libpcap-that-is-not-there.so",))
    monkeypatch.setattr(libpcap, "find_library", lambda _name: None)
    with pytest.raises(FilterError) as error:
        open_live(["lo"], expression="tcp")
    assert str(error.value) == (
        "a filter expression needs libpcap, which is not installed here (on Debian and Ubuntu it is the "
        "package libpcap0.8); ports and hosts can be chosen without it"
    )
    with open_live(["lo"], ports={PORT}, hosts={"127.0.0.1"}) as capture:
        talk()
        assert len(finish(capture)) == received("lo")
    assert os.geteuid() == 0
