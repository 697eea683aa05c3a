"""The kernel's transitions, of real connections in a network of our own."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from closeseq.connections.conversation import Address
from closeseq.kernel.errors import KernelError
from closeseq.kernel.namespaces import coming_back, enter_new
from closeseq.kernel.ports import ranges
from closeseq.kernel.tracepoint import Tracepoint
from closeseq.tcp.states import State

ROOT = Path(__file__).resolve().parent.parent
PORT = 20  # privileged, so that no program of the machine has it by chance: the tracepoint sees them all
TRACING = Path("/sys/kernel/tracing")

CLIENT = ["CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSED"]
SERVER = ["LISTEN", "SYN_RECEIVED", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]


@pytest.fixture(scope="module", autouse=True)
def network():
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("tracing needs root, on Linux")
    try:
        Tracepoint().close()
    except KernelError as error:
        pytest.skip(f"no tracepoints here: {error}")
    with coming_back():
        enter_new()
        yield


@pytest.fixture
def trace():
    with Tracepoint(range(PORT, PORT + 2)) as running:
        yield running


def connect(host="127.0.0.1", port=PORT, listen=None):
    """Have a connection opened, and closed by the client first; return both ends' addresses."""
    family = socket.AF_INET6 if ":" in (listen or host) else socket.AF_INET
    dual = listen == "::"
    with socket.create_server((listen or host, port), family=family, dualstack_ipv6=dual) as listener:
        with socket.create_connection((host, port), timeout=5) as client:
            server, _ = listener.accept()
            addresses = Address(*client.getsockname()[:2]), Address(*client.getpeername()[:2])
        with server:
            assert server.recv(1) == b""
    return addresses


def path(transitions):
    """Return the states one after another, if each begins where the one before ended."""
    assert [one.before for one in transitions[1:]] == [one.after for one in transitions[:-1]]
    return [transitions[0].before, *(one.after for one in transitions)]


@pytest.mark.parametrize(("host", "listen"), [("127.0.0.1", None), ("::1", None), ("127.0.0.1", "::")])
def test_both_ends_are_followed_from_state_to_state(trace, host, listen):
    began = time.time_ns()
    client, server = connect(host, listen=listen)
    ended = time.time_ns()
    found = trace.transitions()
    opens = next(one for one in found if one.after is State.SYN_SENT)
    assert opens.local.port in (0, client.port)  # not chosen yet, mostly
    assert path([one for one in found if one.socket == opens.socket]) == CLIENT
    assert path([one for one in found if (one.local, one.remote) == (server, client)]) == SERVER
    assert [one.after for one in found if one.remote.port == 0] == [State.LISTEN, State.CLOSED]
    times = [one.time_ns for one in found]
    assert times == sorted(times)
    assert began - 50_000 < times[0] < times[-1] < ended + 50_000
    assert trace.transitions() == []
    assert trace.lost == 0
    assert not trace.clock_was_set


def test_other_ports_are_not_followed(trace):
    connect(port=PORT + 2)
    assert trace.transitions() == []
    many = set(range(PORT, 500, 2))  # more ranges than the kernel's filter can say
    with Tracepoint(many) as other:
        connect(port=PORT + 1)
        assert other.transitions() == []
        connect(port=PORT)
        assert len(other.transitions()) == 12


def test_without_ports_every_socket_is_followed():
    with Tracepoint() as everything:
        client, server = connect(port=PORT)
        connections = {(one.local, one.remote) for one in everything.transitions()}
    assert {(client, server), (server, client)} <= connections


def test_what_finds_no_room_is_counted(monkeypatch):
    monkeypatch.setattr("closeseq.kernel.tracepoint.ring_size", lambda _: mmap.PAGESIZE)
    with Tracepoint({PORT}) as small:
        for _ in range(30):
            connect()
        given = len(small.transitions())
        assert 0 < given < 360
        assert given + small.lost == 360
        connect()
        assert len(small.transitions()) == 12  # there is room again
        assert given + small.lost == 360


def test_a_ring_that_goes_round_loses_nothing(monkeypatch):
    monkeypatch.setattr("closeseq.kernel.tracepoint.ring_size", lambda _: mmap.PAGESIZE)
    with Tracepoint({PORT}) as small:
        for _ in range(50):
            connect()
            states = [(one.before, one.after) for one in small.transitions()]
            assert len(states) == 12
        assert small.lost == 0


def test_closing_again_does_no_harm(trace):
    trace.close()
    trace.close()


def perf_descriptors(pid):
    return sum("perf_event" in str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir())


def test_a_killed_tracer_leaves_nothing_behind():
    program = """
import sys
from closeseq.kernel.tracepoint import Tracepoint
with Tracepoint():
    print(flush=True)
    sys.stdin.read()
"""
    instances = [*TRACING.glob("instances/*")]
    events = enabled()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as tracer:
        tracer.stdout.readline()
        assert perf_descriptors(tracer.pid) > 0
        assert instances == [*TRACING.glob("instances/*")]
        assert events == enabled()
        tracer.kill()
    # What a process has open ends with it, and nothing else was ever there.
    assert not Path(f"/proc/{tracer.pid}").exists()
    assert instances == [*TRACING.glob("instances/*")]
    assert events == enabled()


def enabled():
    """Return what the kernel's tracing is set to, as far as files say it."""
    names = ("set_event", "events/sock/inet_sock_set_state/enable", "events/sock/inet_sock_set_state/filter")
    return [(TRACING / name).read_text() for name in names if (TRACING / name).exists()]


def run_elsewhere(before):
    """Run a tracer in mounts of its own, without tracefs."""
    program = f"""
import os
from closeseq.kernel.errors import KernelError
from closeseq.kernel.tracepoint import Tracepoint
{before}
try:
    with Tracepoint():
        print("traced")
except KernelError as error:
    print(error)
"""
    unmount = (
        'mount --make-rprivate /; umount -R /sys/kernel/tracing /sys/kernel/debug 2>/dev/null; exec "$@"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", unmount, "sh", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_tracefs_need_not_be_mounted():
    assert run_elsewhere("assert not os.path.exists('/sys/kernel/tracing/events')") == "traced"


def test_who_is_not_permitted_is_told_so():
    expected = "only root may read the kernel's tracing (tracefs), which tells the transitions of sockets"
    assert run_elsewhere("os.setgid(65534); os.setuid(65534)") == expected


def test_a_tracer_can_give_up_root(trace):
    program = """
import os, socket
from closeseq.kernel.tracepoint import Tracepoint
with Tracepoint({20}) as trace, socket.socket() as listener:
    listener.bind(("127.0.0.1", 20))
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    listener.listen()
    print([str(one.after) for one in trace.transitions()])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "['LISTEN']\n", done.stderr


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((), []),
        ({7}, [(7, 7)]),
        (range(7, 10), [(7, 9)]),
        ({9, 7, 8, 1, 65535, 65534}, [(1, 1), (7, 9), (65534, 65535)]),
        ([0, 0, 1], [(0, 1)]),
    ],
)
def test_ports_are_put_as_few_ranges(ports, expected):
    assert ranges(ports) == expected


@pytest.mark.parametrize("ports", [{-1}, {65536}, range(65530, 65540)])
def test_what_is_no_port_is_refused(ports):
    with pytest.raises(ValueError, match="a port is a number from 0 to 65535"):
        ranges(ports)
