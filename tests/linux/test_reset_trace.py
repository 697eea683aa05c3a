"""The RSTs that the kernel sends, and why: as it lays them out, and of real connections."""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from closeseq.connections.conversation import Address
from closeseq.errors import KernelError
from closeseq.linux.namespaces import coming_back, enter_new
from closeseq.linux.reset_trace import EVENT, ResetFormat, ResetTrace, pair
from closeseq.linux.reset_wording import WORDS, in_words
from closeseq.linux.tracing import Instance
from machine import EVERYWHERE, needs, tracing_folder, why_not
from places import ROOT

as_root = needs("a network namespace of our own", "the kernel's tracing", root=True)
# The trace is of the whole machine: not the ports of others who run these tests.
PORT = random.randrange(600, 1000, 2)
TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_LINGER2 = 4, 5, 6, 8  # linux/tcp.h

COMMON = """name: tcp_send_reset
ID: 1596
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:const void * skbaddr;	offset:8;	size:8;	signed:0;
	field:const void * skaddr;	offset:16;	size:8;	signed:0;
"""
LINUX_6_18 = (
    COMMON
    + """	field:int state;	offset:24;	size:4;	signed:1;
	field:enum sk_rst_reason reason;	offset:28;	size:4;	signed:0;
	field:__u8 saddr[28];	offset:32;	size:28;	signed:0;
	field:__u8 daddr[28];	offset:60;	size:28;	signed:0;

print fmt: "skbaddr=%p skaddr=%p src=%pISpc dest=%pISpc state=%s reason=%s", REC->skbaddr, REC->skaddr, \
 REC->saddr, REC->daddr, REC->state ? __print_symbolic(REC->state, { 1, "TCP_ESTABLISHED" }, \
 { 8, "TCP_CLOSE_WAIT" }) : \
 "UNKNOWN", __print_symbolic(REC->reason, { 0, "NOT_SPECIFIED" }, { 1, "NO_SOCKET" },\
 { 8, "TCP_ABORT_ON_DATA" }, { 11, "TCP_ABORT_ON_CLOSE" }, { 25, "MAX" })
"""
)
LINUX_6_1 = (
    COMMON
    + """	field:int state;	offset:24;	size:4;	signed:1;
	field:__u16 sport;	offset:28;	size:2;	signed:0;
	field:__u16 dport;	offset:30;	size:2;	signed:0;
	field:__u16 family;	offset:32;	size:2;	signed:0;
	field:__u8 saddr[4];	offset:34;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:38;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:42;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:58;	size:16;	signed:0;

print fmt: "family=%s sport=%hu dport=%hu saddr=%pI4 daddr=%pI4 saddrv6=%pI6c daddrv6=%pI6c state=%s"
"""
)
LINUX_4_16 = (
    COMMON
    + """	field:__u16 sport;	offset:24;	size:2;	signed:0;
	field:__u16 dport;	offset:26;	size:2;	signed:0;
	field:__u8 saddr[4];	offset:28;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:32;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:36;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:52;	size:16;	signed:0;

print fmt: "sport=%hu dport=%hu saddr=%pI4 daddr=%pI4 saddrv6=%pI6c daddrv6=%pI6c"
"""
)
SOCKET = 0xFFFF_8881_0475_B780
HERE, THERE = Address("192.0.2.1", 8080), Address("198.51.100.7", 45678)
HERE6, THERE6 = Address("2001:db8::1", 8080), Address("2001:db8::7", 45678)


def packed(address):
    family = socket.AF_INET6 if ":" in address.address else socket.AF_INET
    return socket.inet_pton(family, address.address)


def mapped(address):
    raw = packed(address)
    return raw if len(raw) == 16 else bytes(10) + b"\xff\xff" + raw


def sockaddr(address, *, as_ipv6=False):
    """Return a struct sockaddr as the kernel writes it in the event."""
    port = address.port.to_bytes(2, "big")
    if as_ipv6 or ":" in address.address:
        return struct.pack("=H2s4x16s4x", socket.AF_INET6, port, mapped(address))
    return struct.pack("=H2s4s20x", socket.AF_INET, port, packed(address))


def header(socket_address):
    return struct.pack("=HBBiQQ", 1596, 0, 0, 77, 0, socket_address)


def new_event(local, remote, *, state=8, reason=8, socket_address=SOCKET, as_ipv6=False):
    """Return an event of Linux 6.10 and later."""
    ends = sockaddr(local, as_ipv6=as_ipv6) + sockaddr(remote, as_ipv6=as_ipv6)
    return header(socket_address) + struct.pack("=iI", state, reason) + ends


@pytest.mark.parametrize(
    ("local", "remote", "as_ipv6"), [(HERE, THERE, False), (HERE, THERE, True), (HERE6, THERE6, False)]
)
def test_an_event_says_who_sent_the_rst_and_why(local, remote, as_ipv6):
    layout = ResetFormat.read(LINUX_6_18)
    found = layout.reset(5, new_event(local, remote, as_ipv6=as_ipv6) + bytes(3))
    assert found == (5, pair(local, remote), "TCP_ABORT_ON_DATA", SOCKET, False)
    assert layout.complete
    assert found.pair != pair(remote, local)


def test_a_reason_newer_than_its_names_is_a_number():
    assert ResetFormat.read(LINUX_6_18).reset(5, new_event(HERE, THERE, reason=99)).reason == "99"


@pytest.mark.parametrize(("state", "counts"), [(1, True), (7, True), (6, False), (12, False)])
def test_what_is_left_of_a_socket_is_none(state, counts):
    found = ResetFormat.read(LINUX_6_18).reset(5, new_event(HERE, THERE, state=state))
    assert found.socket == (SOCKET if counts else 0)


@pytest.mark.parametrize("as_ipv6", [False, True])
def test_a_listeners_rst_has_no_remote_end(as_ipv6):
    nowhere = Address("0.0.0.0", 0)
    event = new_event(HERE, nowhere, state=10, as_ipv6=as_ipv6)
    assert ResetFormat.read(LINUX_6_18).reset(5, event).listener
    assert ResetFormat.read(LINUX_6_18).reset(5, new_event(HERE, nowhere, as_ipv6=as_ipv6)).listener


@pytest.mark.parametrize(
    ("description", "between"), [(LINUX_6_1, ("=iHHH", 8)), (LINUX_4_16, ("=HH",))], ids=["6.1", "4.16"]
)
@pytest.mark.parametrize(("local", "remote"), [(HERE, THERE), (HERE6, THERE6)])
def test_older_kernels_give_no_reason(description, between, local, remote):
    layout = ResetFormat.read(description)
    numbers, *state = between
    family = [2] if state else []
    event = header(SOCKET) + struct.pack(numbers, *state, local.port, remote.port, *family)
    event += bytes(8) + mapped(local) + mapped(remote)
    assert layout.reset(5, event) == (5, pair(local, remote), None, SOCKET, False)
    assert not layout.complete


@pytest.mark.parametrize(
    "description",
    [
        "",
        COMMON,
        LINUX_6_18.replace("[28]", "[4]").replace("size:28", "size:4"),
        LINUX_6_18.replace("skaddr", "sk"),
    ],
)
def test_a_layout_that_is_not_known_is_refused(description):
    with pytest.raises(KernelError, match="laid out in an unknown way"):
        ResetFormat.read(description)


@as_root
def test_each_reason_of_this_kernel_has_words():
    text = (tracing_folder() / "events" / EVENT / "format").read_text()
    layout = ResetFormat.read(text)
    if not layout.complete:
        pytest.skip("this kernel gives no reasons")
    assert set(layout.reasons.values()) - {"MAX"} <= set(WORDS)
    assert len(layout.reasons) > 20


def test_words_stand_behind_the_kernels_own():
    assert in_words("TCP_ABORT_ON_CLOSE") == (
        "TCP_ABORT_ON_CLOSE: the program closed the socket with data unread"
    )
    assert in_words("MPTCP_RST_EMIDDLEBOX").endswith("gave up this subflow: middlebox interference")
    assert in_words("99") == "99"


# On the real kernel


class Pair:
    """A connection on loopback in this namespace: its listener and both ends."""

    def __init__(self, port, host="127.0.0.1", listen=None):
        family = socket.AF_INET6 if ":" in (listen or host) else socket.AF_INET
        self.listener = socket.create_server(
            (listen or host, port), family=family, dualstack_ipv6=listen == "::"
        )
        self.client = socket.create_connection((host, port), timeout=5)
        self.server, _ = self.listener.accept()
        self.addresses = Address(host, self.client.getsockname()[1]), Address(host, port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in (self.server, self.client, self.listener):
            one.close()


def abort(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def linger_zero(ends):
    abort(ends.server)


def unread_data(ends):
    ends.client.sendall(b"question")
    wait_for(lambda: ends.server.recv(1, socket.MSG_PEEK))
    ends.server.close()


def data_after_close(ends):
    ends.server.close()
    assert ends.client.recv(1) == b""
    ends.client.sendall(b"too late")


def data_long_after_close(ends):
    ends.server.close()
    assert ends.client.recv(1) == b""
    time.sleep(0.2)  # so that its FIN has been acknowledged
    ends.client.sendall(b"too late")


def fin_wait_2_with_linger2(ends):
    ends.server.setsockopt(socket.IPPROTO_TCP, TCP_LINGER2, -1)
    ends.server.shutdown(socket.SHUT_WR)
    assert ends.client.recv(1) == b""
    time.sleep(0.1)  # so that its FIN has been acknowledged
    ends.server.close()


def never_accepted(ends):
    """The listener closes with a connection in its queue; the pair's own went before."""
    later = socket.create_connection(ends.client.getpeername()[:2], timeout=5)
    ends.addresses = Address("127.0.0.1", later.getsockname()[1]), ends.addresses[1]
    ends.listener.close()
    later.close()


def wait_for(happens):
    until = time.monotonic() + 5
    while not happens():
        assert time.monotonic() < until


@pytest.fixture(scope="module")
def network():
    with coming_back():
        enter_new()
        yield


@pytest.fixture
def trace(network):
    with ResetTrace() as running:
        if not running.complete:
            pytest.skip("this kernel gives no reasons")
        yield running


def sent(trace, local, remote):
    """Return the reasons of the RSTs that were sent from one end to the other."""
    return [one.reason for one in trace.read().resets if one.pair == pair(local, remote)]


@as_root
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (linger_zero, "TCP_STATE"),
        (unread_data, "TCP_ABORT_ON_CLOSE"),
        (data_long_after_close, "TCP_TIMEWAIT_SOCKET"),
        (fin_wait_2_with_linger2, "TCP_ABORT_ON_LINGER"),
        (never_accepted, "TCP_STATE"),
    ],
)
def test_the_kernel_says_why(trace, ending, reason):
    began = time.time_ns()
    with Pair(PORT) as ends:
        ending(ends)
        client, server = ends.addresses
        resets = [one for one in trace.read().resets if one.pair == pair(server, client)]
    assert [one.reason for one in resets] == [reason]
    assert began < resets[0].time_ns < time.time_ns()
    assert trace.lost == 0


@as_root
def test_data_that_acknowledges_the_fin_comes_before_fin_wait_2(trace):
    found = set()
    for _ in range(5):  # on a busy machine the ACK may go before it
        with Pair(PORT) as ends:
            data_after_close(ends)
            client, server = ends.addresses
            (reason,) = sent(trace, server, client)
        found.add(reason)
        if reason == "TCP_ABORT_ON_DATA":
            break
    assert "TCP_ABORT_ON_DATA" in found
    assert found <= {"TCP_ABORT_ON_DATA", "TCP_TIMEWAIT_SOCKET"}


@as_root
@pytest.mark.parametrize(("host", "listen"), [("::1", None), ("127.0.0.1", "::")])
def test_ipv6_sockets_too(trace, host, listen):
    with Pair(PORT, host, listen) as ends:
        linger_zero(ends)
        client, server = ends.addresses
        assert sent(trace, server, client) == ["TCP_STATE"]


@as_root
def test_a_port_where_nobody_listens(trace):
    with socket.socket() as client:
        client.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", PORT))
        local = Address(*client.getsockname())
    assert sent(trace, Address("127.0.0.1", PORT), local) == ["NO_SOCKET"]


@as_root
def test_what_is_left_in_fin_wait_2_is_no_socket_of_a_program(trace):
    with Pair(PORT) as ends:
        data_long_after_close(ends)
        client, server = ends.addresses
        (found,) = [one for one in trace.read().resets if one.pair == pair(server, client)]
    assert found.reason == "TCP_TIMEWAIT_SOCKET"
    assert found.socket == 0


@as_root
def test_keepalives_that_are_not_answered(trace):
    """The client sends nothing any more: it is a program of its own that is stopped, behind a filter."""
    if not shutil.which("nft", path=EVERYWHERE) or why_not("nft's tables"):
        pytest.skip("needs nft")
    with Pair(PORT) as ends:
        client, server = ends.addresses
        drop = "add table ip t; add chain ip t c { type filter hook input priority 0; }; "
        drop += f"add rule ip t c tcp sport {client.port} tcp dport {server.port} drop"
        nft(drop)
        try:
            for option, value in ((TCP_KEEPIDLE, 1), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 1)):
                ends.server.setsockopt(socket.IPPROTO_TCP, option, value)
            ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            ends.server.settimeout(10)
            with pytest.raises(TimeoutError, match="timed out"):
                ends.server.recv(1)
            assert sent(trace, server, client) == ["TCP_KEEPALIVE_TIMEOUT"]
        finally:
            nft("delete table ip t")


def nft(commands):
    subprocess.run(["nft", commands], check=True, timeout=10, env={"PATH": EVERYWHERE})


@as_root
def test_reading_may_stop_and_go_on(trace):
    number = 200
    for _ in range(number):
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", PORT)) != 0
    first = trace.read(0.0)
    assert not first.everything
    found, rounds = list(first.resets), 0
    while not (taken := trace.read(0.0)).everything:
        found += taken.resets
        rounds += 1
    found += taken.resets
    local = pair(Address("127.0.0.1", PORT), Address("0.0.0.0", 0))[:6]
    assert sum(one.pair.startswith(local) for one in found) == number
    assert rounds > 0


@as_root
def test_nothing_is_left_in_the_kernel():
    with ResetTrace():
        (mine,) = tracing_folder().glob(f"instances/closeseq.{os.getpid()}.*")
        assert (mine / "events" / EVENT / "enable").read_text() == "1\n"
    assert not mine.exists()


@as_root
def test_an_unknown_layout_leaves_nothing_either(monkeypatch):
    monkeypatch.setattr(Instance, "_describe", lambda *_: COMMON)
    with pytest.raises(KernelError, match="laid out in an unknown way"):
        ResetTrace()
    assert not list(tracing_folder().glob(f"instances/closeseq.{os.getpid()}.*"))


@as_root
def test_it_can_be_read_without_root(network):
    program = f"""
import os, socket
from closeseq.linux.reset_trace import ResetTrace
with ResetTrace() as trace:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", {PORT}))
    print(sum(one.pair[:6] == bytes.fromhex("{PORT:04x}7f000001") for one in trace.read().resets), trace.lost)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "1 0\n", done.stderr
