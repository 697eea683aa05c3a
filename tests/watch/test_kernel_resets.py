"""Why the kernel sent a RST that was captured: what is certain of it, and what `live` shows."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import sys
import time
from dataclasses import replace

import pytest

from closeseq.connections.conversation import Address, End, Traffic
from closeseq.linux.namespaces import coming_back, enter_new, open_ours, return_to
from closeseq.linux.reset_trace import ResetTrace, SentReset, Taken, pair
from closeseq.linux.socket_table import SocketTable
from closeseq.report.live_text import reset_text
from closeseq.script import conversation
from closeseq.settings import SECOND
from closeseq.watch import kernel_resets
from closeseq.watch.kernel_resets import KernelReset, KernelResets
from live_namespace import PATIENCE, ended
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from machine import needs, tracing_folder
from record_schema import assert_valid

CLIENT, SERVER = Address("127.0.0.1", 40_000), Address("127.0.0.1", 8080)
MILLISECOND = SECOND // 1000
ALIVE = object()  # stands for a socket that is in the table


def captured(script, at_ns, client=CLIENT, server=SERVER):
    """Return a conversation whose last packet, the RST that matters, was captured at this time."""
    found = conversation(script)
    later_ns = at_ns - found.last_ns

    def moved(step):
        return step if isinstance(step, Traffic) else replace(step, time_ns=step.time_ns + later_ns)

    return replace(
        found,
        client=client,
        server=server,
        steps=tuple(moved(step) for step in found.steps),
        first_ns=found.first_ns + later_ns,
        last_ns=at_ns,
    )


ABORTED = "C:S S:SA C:A S:R"
TWICE = "C:S S:SA C:A S:R C:A+5 S:R"


class Kernel:
    """A trace that gives what it is told to."""

    def __init__(self):
        self.complete = True
        self.lost = 0
        self.everything = True
        self.clock_was_set = False
        self.now_ns = time.time_ns()
        self._waiting = []

    def sends(self, reason, *, after=0, ends=(SERVER, CLIENT), socket=1, listener=False):
        """Send a RST so many milliseconds after the one that was captured."""
        at_ns = self.now_ns + after * MILLISECOND
        self._waiting.append(SentReset(at_ns, pair(*ends), reason, socket, listener))

    def read(self, seconds):
        assert seconds > 0
        found, self._waiting = self._waiting, []
        was_set, self.clock_was_set = self.clock_was_set, False
        return Taken(sorted(found), self.everything, was_set)


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that is traced since long before the RST that was captured."""
    made = Kernel()
    monkeypatch.setattr(kernel_resets.time, "time_ns", lambda: made.now_ns - 3600 * SECOND)
    made.resets = KernelResets(made)
    monkeypatch.setattr(kernel_resets.time, "time_ns", lambda: made.now_ns)
    return made


def said(kernel, script=ABORTED, end=End.SERVER, socket=None):
    return kernel.resets.about(captured(script, kernel.now_ns), end, socket)


def why(*reasons):
    return KernelReset(sent=True, reasons=reasons)


NOT_SENT = KernelReset(sent=False, reasons=())


def test_the_reason_is_that_of_the_rst_with_these_ends_at_this_time(kernel):
    kernel.sends("TCP_STATE", after=1)
    kernel.sends("NO_SOCKET", ends=(SERVER, Address("127.0.0.1", 40_001)))
    assert said(kernel) == why("TCP_STATE")
    assert said(kernel, end=End.CLIENT) is None  # it sent none that was captured


@pytest.mark.parametrize("after", [-1500, 1500])
def test_one_of_another_time_says_nothing(kernel, after):
    kernel.sends("TCP_STATE", after=after)
    assert said(kernel) is None
    assert said(kernel, socket=ALIVE) is None  # and denies nothing: it is too near


def test_one_before_the_connection_was_an_earlier_ones(kernel):
    kernel.sends("TCP_STATE", after=-900)
    long_ago = captured(ABORTED, kernel.now_ns)
    assert kernel.now_ns - long_ago.first_ns < 900 * MILLISECOND
    assert said(kernel) is None
    # Of a connection that was captured from its RST only, it is not known when it began.
    assert said(kernel, script="S:R") == why("TCP_STATE")


def test_several_reasons_come_in_their_order(kernel):
    kernel.sends("NO_SOCKET", after=2, socket=0)
    kernel.sends("TCP_ABORT_ON_CLOSE", after=1)
    kernel.sends("NO_SOCKET", after=3, socket=0)
    assert said(kernel, "C:S S:SA C:A S:R C:A+5 S:R C:A+6 S:R") == why("TCP_ABORT_ON_CLOSE", "NO_SOCKET")


def test_more_than_were_captured_may_be_another_namespaces(kernel):
    kernel.sends("TCP_STATE")
    kernel.sends("TCP_STATE", socket=0)
    assert said(kernel) is None


def test_two_sockets_are_of_two_namespaces(kernel):
    kernel.sends("TCP_STATE", after=-1, socket=1)
    kernel.sends("TCP_STATE", socket=2)
    assert said(kernel, TWICE) is None


def test_a_kernel_without_reasons_only_confirms(kernel):
    kernel.complete = False
    kernel.sends(None)
    assert said(kernel) == why()


def test_a_kernel_that_does_not_tell_all_denies_nothing(kernel):
    kernel.complete = False
    assert said(kernel, socket=ALIVE) is None


def test_while_its_socket_lives_a_rst_that_is_not_in_the_trace_was_not_sent(kernel):
    kernel.sends("TCP_STATE", ends=(Address("127.0.0.1", 9), CLIENT))
    assert said(kernel, socket=ALIVE) == NOT_SENT


def test_a_listeners_rst_may_have_been_it(kernel):
    kernel.sends("INVALID_SYN", ends=(SERVER, Address("0.0.0.0", 0)), listener=True)
    assert said(kernel, socket=ALIVE) is None


def test_without_a_socket_a_second_must_have_passed(kernel, monkeypatch):
    assert said(kernel) is None
    rst_ns = kernel.now_ns
    monkeypatch.setattr(kernel_resets.time, "time_ns", lambda: rst_ns + SECOND)
    assert said(kernel) == NOT_SENT
    kernel.sends("NO_SOCKET", ends=(CLIENT, SERVER))  # the other end's is no translation of it
    assert said(kernel) == NOT_SENT
    kernel.sends("NO_SOCKET", ends=(Address("10.0.0.9", 80), CLIENT), after=900)  # by another namespace, say
    assert said(kernel) is None


def test_what_was_lost_may_have_been_it(kernel):
    kernel.lost = 1
    assert said(kernel, socket=ALIVE) is None
    kernel.now_ns += 3 * SECOND
    assert said(kernel, socket=ALIVE) == NOT_SENT  # nothing was lost since


def test_what_is_not_read_yet_may_be_it(kernel):
    kernel.everything = False
    assert said(kernel, socket=ALIVE) is None


def test_what_was_sent_before_the_trace_began_is_not_known():
    kernel = Kernel()
    kernel.resets = KernelResets(kernel)
    assert said(kernel, socket=ALIVE) is None
    kernel.now_ns += 2 * SECOND
    assert said(kernel, socket=ALIVE) == NOT_SENT


def test_times_before_the_clock_was_set_are_not_to_be_trusted(kernel):
    kernel.sends("TCP_STATE")
    kernel.clock_was_set = True
    assert said(kernel) is None
    assert said(kernel, socket=ALIVE) is None


def test_an_end_that_talks_with_itself_is_left_out(kernel):
    kernel.sends("TCP_STATE", ends=(SERVER, SERVER))
    itself = captured(ABORTED, kernel.now_ns, client=SERVER)
    assert kernel.resets.about(itself, End.SERVER, None) is None


def test_only_the_newest_are_kept(kernel, monkeypatch):
    monkeypatch.setattr(kernel_resets, "MOST_KEPT", 100)
    for number in range(150):
        kernel.sends(
            "NO_SOCKET", ends=(SERVER, Address("127.0.0.1", 50_000 + number % 60)), after=number - 3000
        )
    kernel.sends("TCP_STATE")
    kernel.resets.look()
    assert said(kernel) == why("TCP_STATE")
    kernel.now_ns -= 2900 * MILLISECOND
    assert said(kernel, socket=ALIVE) is None  # those of that time are not all known any more
    kernel.now_ns += 6000 * MILLISECOND
    for number in range(1000):
        kernel.sends("NO_SOCKET", ends=(SERVER, Address("127.0.0.1", 50_000 + number)))
        kernel.resets.look()
    assert len(kernel.resets._resets) == sum(map(len, kernel.resets._by_pair.values())) <= 100


def test_a_storm_takes_no_more_than_its_share(kernel, monkeypatch):
    used = [0.0]
    monkeypatch.setattr(kernel_resets.time, "thread_time", lambda: used[0])
    monkeypatch.setattr(kernel_resets.time, "monotonic", lambda: now[0])
    now = [kernel.resets._then]

    def read(seconds):
        used[0] += seconds * 1.1  # the last portion goes a little beyond
        return Taken([], everything=False, clock_was_set=False)

    kernel.read = read
    for _ in range(400):
        now[0] += 0.25
        kernel.resets.look()
        kernel.resets.look()
    assert used[0] < 100 * kernel_resets.SHARE + 2 * kernel_resets.MOST_SAVED
    assert used[0] > 50 * kernel_resets.SHARE


def test_it_is_put_in_words():
    assert reset_text(why("TCP_ABORT_ON_CLOSE", "NO_SOCKET")) == (
        "sent RST: TCP_ABORT_ON_CLOSE: the program closed the socket with data unread; then NO_SOCKET: "
        "a segment came for which there is no socket: nobody listens, or the connection is gone"
    )
    assert reset_text(why()) == "sent RST; this kernel gives no reasons"
    assert reset_text(NOT_SENT).startswith("this kernel's TCP did not send its RST: ")


# Two network namespaces that use the same addresses

as_root = needs("a network namespace of our own", "the kernel's tracing", root=True)


@pytest.fixture(scope="module")
def two_networks():
    """Two namespaces with nothing but loopback, as descriptors, and we are in the first."""
    with coming_back():
        enter_new()
        first = open_ours()
        enter_new()
        second = open_ours()
        return_to(first)
        yield first, second


@pytest.fixture
def real(two_networks):
    with ResetTrace() as trace:
        if not trace.complete:
            pytest.skip("this kernel gives no reasons")
        yield KernelResets(trace)


def connected(port):
    """Return a connection from port + 1, to be closed: the client, the server, the listener."""
    listener = socket.create_server(("127.0.0.1", port))
    client = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=("127.0.0.1", port + 1))
    return client, listener.accept()[0], listener


def aborted(port, *, unread=False):
    """Have the server abort a connection from port + 1; return when."""
    client, server, listener = connected(port)
    with client, listener:
        if unread:
            client.sendall(b"unread")
            assert server.recv(1, socket.MSG_PEEK)
        else:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        at_ns = time.time_ns()
        server.close()
    return at_ns


def told(resets, port, at_ns, socket=None):
    ends = Address("127.0.0.1", port + 1), Address("127.0.0.1", port)
    return resets.about(captured("S:R", at_ns, *ends), End.SERVER, socket)


@as_root
def test_nothing_is_said_where_two_namespaces_could_be_meant(real, two_networks):
    first, second = two_networks
    port = 6100
    assert told(real, port, aborted(port, unread=True)) == why("TCP_ABORT_ON_CLOSE")
    for _ in range(20):  # until both happen within the time in which they may be mistaken
        port += 2
        at_ns = aborted(port, unread=True)
        return_to(second)
        other_ns = aborted(port)
        return_to(first)
        found = told(real, port, at_ns)
        if other_ns - at_ns < SECOND // 2:
            break
    assert other_ns - at_ns < SECOND // 2
    assert found is None


@as_root
def test_a_rst_that_a_live_socket_did_not_send(real):
    time.sleep(1.1)  # so that the trace was on for long enough
    port = 6200
    client, server, listener = connected(port)
    with client, server, listener, SocketTable() as table:
        mine = table.lookup(Address("127.0.0.1", port), Address("127.0.0.1", port + 1))
        assert mine is not None
        for _ in range(20):  # unless a listener anywhere on this machine sends a RST just now
            found = told(real, port, time.time_ns(), mine)
            if found is not None:
                break
            time.sleep(0.3)
    assert found == NOT_SENT


# What `live` shows

needs_live = needs("ip", "nsenter", "unshare", "live packets", "the kernel's tracing", root=True)

ENDINGS = """
import socket, struct, time

def connected(port):
    listener = socket.create_server(("127.0.0.1", port))
    client = socket.create_connection(("127.0.0.1", port))
    return listener, client, listener.accept()[0]

def abort(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()

with socket.socket() as client:
    client.connect_ex(("127.0.0.1", 8001))
_, client, server = connected(8002)
abort(server)
_, client3, server = connected(8003)
client3.sendall(b"unread")
server.recv(1, socket.MSG_PEEK)
server.close()
_, client4, server = connected(8004)
server.close()
client4.recv(1)
time.sleep(0.2)
client4.sendall(b"too late")
_, client5, server5 = connected(8005)
client5.close()
server5.close()
"""
REASONS = {
    8001: ["NO_SOCKET"],
    8002: ["TCP_STATE"],
    8003: ["TCP_ABORT_ON_CLOSE"],
    8004: ["TCP_TIMEWAIT_SOCKET"],
    8005: None,
}


def by_port(out):
    records = [json.loads(line) for line in out.splitlines()]
    return {one["server"]["port"]: one for one in records}


@needs_live
@pytest.mark.parametrize("user", [(), ("--user", "nobody")])
def test_records_have_the_kernels_reasons(net, user):
    with net.live("-f", "jsonl", "--kernel", *user, wrapper=()) as process:
        net.run(sys.executable, "-c", ENDINGS)
        time.sleep(0.8)
        out, err = ended(process)
    assert err == ""
    found = by_port(out)
    assert {
        port: one["live"]["kernel"]["server"].get("reset_reasons") for port, one in found.items()
    } == REASONS
    for one in found.values():
        assert_valid(one)
    assert [one["live"]["kernel"]["client"].get("reset_reasons") for one in found.values()] == [None] * 5


@needs_live
def test_the_text_says_it_in_words(net):
    with net.live("-p", "8003", "--ascii") as process:
        net.run(sys.executable, "-c", ENDINGS)
        time.sleep(0.8)
        out, _ = ended(process)
    assert "kernel  server: sent RST: TCP_ABORT_ON_CLOSE: the program closed the socket with data unread" in (
        re.sub(r"\n {14}", " ", out)
    )


@needs_live
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_in_the_kernel_however_it_ends(net, how):
    with net.live("-p", "8080", "--user", "nobody") as process:
        (mine,) = tracing_folder().glob(f"instances/closeseq.{process.pid}.*")
        process.send_signal(how)
        process.wait(PATIENCE)
        until = time.monotonic() + PATIENCE
        while mine.exists() and time.monotonic() < until:
            time.sleep(0.05)
    assert not mine.exists()


FORGED = """
import socket, struct, sys, time

listener = socket.create_server(("127.0.0.1", 8080))
client = socket.create_connection(("127.0.0.1", 8080))
server, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: for the sequence number that the client expects
client.setsockopt(socket.IPPROTO_TCP, 20, 1)  # TCP_REPAIR_QUEUE: TCP_RECV_QUEUE
expected, = struct.unpack("=I", client.getsockopt(socket.IPPROTO_TCP, 21, 4))  # TCP_QUEUE_SEQ
client.setsockopt(socket.IPPROTO_TCP, 19, 0)
lo = socket.inet_aton("127.0.0.1")
header = bytearray(struct.pack("!HHIIBBHHH", 8080, client.getsockname()[1], expected, 0, 0x50, 4, 0, 0, 0))
whole = sum(struct.unpack("!16H", lo + lo + struct.pack("!BBH", 0, 6, 20) + header))
struct.pack_into("!H", header, 16, ~((whole >> 16) + (whole & 0xFFFF)) & 0xFFFF)
time.sleep(1.2)  # the trace has been on for longer than the clocks can be apart
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
    raw.sendto(header, ("127.0.0.1", 0))
try:
    client.recv(1)
except ConnectionResetError:
    print("reset")
time.sleep(float(sys.argv[1]))
"""


@needs_live
def test_a_forged_rst_was_not_sent_by_this_kernel(net):
    for _ in range(4):  # unless a listener anywhere on this machine sent one at this moment
        with net.live("-p", "8080") as process:
            assert net.run(sys.executable, "-c", FORGED, "1") == "reset\n"
            out, _ = ended(process)
        if "did not send" in out:
            break
    whole = re.sub(r"\n {14}", " ", out)
    assert "kernel  server: this kernel's TCP did not send its RST: another host did, or a firewall" in whole
    assert "server: sent RST:" not in whole


@needs_live
@needs("setpriv")
def test_without_root_the_reasons_are_absent(net):
    """Who may capture and not trace is told why only if the kernel was asked for."""
    wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    wrapper += ["--inh-caps=+net_raw", "--ambient-caps=+net_raw"]
    for option, reason in ((), ""), (("--kernel",), "only root may use the kernel's tracing (tracefs)"):
        with net.live("-f", "jsonl", *option, wrapper=wrapper) as process:
            said = [process.said]
            while not said[-1].startswith("closeseq: watching"):
                assert said[-1]
                said.append(process.stderr.readline())
            net.run(sys.executable, "-c", ENDINGS)
            time.sleep(0.8)
            out, err = ended(process)
        expected = [f"closeseq: the kernel's reasons for RSTs are not shown: {reason}\n"] if reason else []
        assert [line for line in said if "RST" in line] == expected
        assert err == ""
        found = by_port(out)
        assert found.keys() == REASONS.keys()
        assert all("reset_reasons" not in one["live"]["kernel"]["server"] for one in found.values())
