"""The kernel's transitions, of real connections in a network of our own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from closeseq.connections.conversation import Address
from closeseq.linux.namespaces import coming_back, enter_new
from closeseq.linux.socket_table import ranges
from closeseq.linux.tracepoint import Tracepoint
from closeseq.linux.tracing import PageFormat
from closeseq.tcp.states import State
from machine import needs, tracing_folder
from places import ROOT

pytestmark = needs("a network namespace of our own", "the kernel's tracing", root=True)

# Privileged, so that no program of the machine has it by chance: the tracepoint sees them all. And not always
# the same, because others may run these tests on the machine.
PORT = random.randrange(20, 500, 4)
EVENT = "events/sock/inet_sock_set_state"

CLIENT = ["CLOSED", "SYN_SENT", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSED"]
SERVER = ["LISTEN", "SYN_RECEIVED", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]


@pytest.fixture(scope="module", autouse=True)
def network():
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
    many = set(range(PORT, PORT + 480, 2))  # more ranges than the kernel's filter can say
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


@pytest.fixture
def small(monkeypatch):
    """Follow with room for a few dozen transitions only."""
    monkeypatch.setattr("closeseq.linux.tracing.LEAST", 8192)
    monkeypatch.setattr("closeseq.linux.tracepoint.ROOM", 8192)
    with Tracepoint({PORT}) as running:
        yield running


def test_what_finds_no_room_is_counted(small):
    for _ in range(60):
        connect()
    first = small.transitions()
    assert 0 < len(first) < 720
    assert len(first) + small.lost == 720
    connect()
    assert len(small.transitions()) == 12  # there is room again
    assert len(first) + small.lost == 720
    small.close()
    assert len(first) + small.lost == 720


def test_buffers_that_go_round_lose_nothing(small):
    for _ in range(100):
        connect()
        assert len(small.transitions()) == 12
    assert small.lost == 0


def test_pages_are_read_while_the_kernel_writes_them(trace):
    """Every transition comes once: what is read while it is written is neither lost nor told again."""
    rounds, piece = 500, 1024
    told, tells = os.pipe()
    fcntl.fcntl(tells, fcntl.F_SETPIPE_SZ, 4 * piece)  # the worker is some rounds ahead at most
    worker = os.fork()
    if not worker:
        try:
            os.close(told)
            with socket.create_server(("127.0.0.1", PORT)) as listener:
                for _ in range(rounds):
                    client = socket.create_connection(("127.0.0.1", PORT), timeout=5)
                    server, _ = listener.accept()
                    client.close()  # first: the port is wanted again
                    server.close()
                    os.write(tells, bytes(piece))
        finally:
            os._exit(0)
    os.close(tells)
    found, looks = [], 0
    while os.read(told, piece):
        new = trace.transitions()
        found += new
        looks += bool(new)
    os.close(told)
    os.waitpid(worker, 0)
    found += trace.transitions()
    assert looks > rounds / 10
    kinds = Counter((str(one.before), str(one.after)) for one in found)
    assert set(kinds.values()) == {1, rounds}
    assert len(found) == 10 * rounds + 2  # five of either end, and two of the listener
    assert len({(one.time_ns, one.socket, one.after) for one in found}) == len(found)
    assert trace.lost == 0


def test_the_kernel_tells_the_same_as_text(trace):
    """The binary pages are understood as the kernel itself understands them."""
    with other_instance() as other:
        connect()
        connect("::1")
        time.sleep(0.2)  # longer than the 134 ms that a time of 27 bits can say
        connect()
        text = TEXT.findall((other / "trace").read_text())
    found = trace.transitions()
    assert len(found) == len(text) == 36
    offset_us = found[0].time_ns // 1000 - microseconds(text[0])
    for one, line in zip(found, sorted(text, key=microseconds), strict=True):
        assert (one.local.port, one.remote.port) == (int(line[1]), int(line[2]))
        assert abs(one.time_ns // 1000 - offset_us - microseconds(line)) < 50


def test_what_is_no_event_in_a_page_is_passed_over():
    """The kernel takes an event back that an interrupt kept it from filtering out before it was written."""

    def word(kind, delta):
        bits = delta << 5 | kind if sys.byteorder == "little" else kind << 27 | delta
        return bits.to_bytes(4, sys.byteorder)

    def number(value, size=4):
        return value.to_bytes(size, sys.byteorder)

    parts = [
        *(word(1, 0), b"once"),
        *(word(29, 5), number(8), b"gone"),
        *(word(30, 3), number(2)),  # a longer time, for the next
        *(word(0, 1), number(12), b"and", b"again"),
        *(word(31, 7), number(1 << 20)),  # the time itself
        *(word(2, 0), b"at last!"),
        *(word(29, 0), b"rest"),
    ]
    data = b"".join(parts)
    moment = 5 << 59 | 1000
    layout = PageFormat(time=slice(0, 8), used=slice(8, 16), data=slice(16, 16 + len(data) + 9))
    page = number(moment, 8) + number(1 << 31 | len(data), 8) + data + bytes(9)
    assert list(layout.events(page)) == [
        (moment, b"once"),
        (moment + 5 + (2 << 27) + 3 + 1, b"andagain"),
        (5 << 59 | 1 << 47 | 7, b"at last!"),
    ]


TEXT = re.compile(r" (\d+\.\d+): inet_sock_set_state: .*sport=(\d+) dport=(\d+) ")


def microseconds(line):
    return round(float(line[0]) * 1_000_000)


@contextlib.contextmanager
def other_instance():
    """Have the kernel write the same transitions as text."""
    other = tracing_folder() / f"instances/closeseq-test-{os.getpid()}"
    other.mkdir()
    try:
        (other / "trace_clock").write_text("mono")
        (other / EVENT / "filter").write_text(f"sport == {PORT} || dport == {PORT}")
        (other / EVENT / "enable").write_text("1")
        yield other
    finally:
        other.rmdir()


def test_closing_again_does_no_harm(trace):
    trace.close()
    trace.close()


def test_closing_leaves_nothing_behind():
    before = machine()
    tracer = Tracepoint({PORT})
    (mine,) = instances(os.getpid())
    assert (mine / EVENT / "enable").read_text() == "1\n"
    assert machine() == before  # nobody else's tracing is changed
    guardian = guardian_of(os.getpid())
    tracer.close()
    assert not mine.exists()
    assert not Path(f"/proc/{guardian}").exists()  # and we have waited for it
    assert machine() == before


def test_a_process_that_is_forked_may_read_and_end():
    tracer = Tracepoint({PORT})
    worker = os.fork()
    if not worker:
        connect()
        found = len(tracer.transitions())
        tracer.close()
        os._exit(found)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 12
    connect()
    assert len(tracer.transitions()) == 12
    tracer.close()
    assert instances(os.getpid()) == []


PROGRAM = """
import sys
from closeseq.linux.tracepoint import Tracepoint
with Tracepoint():
    print(flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def tracing_program():
    """Give a process that traces, and its instance."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as tracer:
        tracer.stdout.readline()
        (mine,) = instances(tracer.pid)
        yield tracer, mine
        tracer.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_tracer_leaves_nothing_behind(how):
    before = machine()
    with tracing_program() as (tracer, mine):
        guardian = guardian_of(tracer.pid)
        # It holds nothing of ours open, and does not end before its work is done.
        assert len([*Path(f"/proc/{guardian}/fd").iterdir()]) == 2
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(guardian, one)
        tracer.send_signal(how)
        tracer.wait(10)
        wait_until(lambda: not mine.exists())
        wait_until(lambda: ended(guardian))
    assert machine() == before


def test_what_a_tracer_killed_with_its_guardian_left_is_removed_by_the_next():
    with tracing_program() as (_, others), tracing_program() as (tracer, left):
        os.kill(guardian_of(tracer.pid), signal.SIGKILL)
        tracer.kill()
        tracer.wait(10)
        assert left.exists()
        Tracepoint().close()
        assert not left.exists()
        assert others.exists()  # whoever is alive keeps theirs


def test_a_guardian_that_was_killed_is_not_needed_to_close():
    tracer = Tracepoint({PORT})
    os.kill(guardian_of(os.getpid()), signal.SIGKILL)
    tracer.close()
    assert instances(os.getpid()) == []


def guardian_of(pid):
    """Return the number of the process that cleans up after a tracer."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [child for child in children if comm(child) == "closeseq-guard"]
    return int(found)


def comm(pid):
    return Path(f"/proc/{pid}/comm").read_text().strip()


def ended(pid):
    """Whether a process has ended; process 1, which inherits it, may not have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(so):
    until = time.monotonic() + 10
    while not so():
        assert time.monotonic() < until
        time.sleep(0.01)


def instances(pid):
    """Return the tracings that a process has under way."""
    return sorted(tracing_folder().glob(f"instances/closeseq.{pid}.*"))


def machine():
    """Return what the kernel's tracing is set to outside of instances, as far as files say it."""
    names = ("set_event", f"{EVENT}/enable", f"{EVENT}/filter", "trace_clock", "buffer_size_kb")
    return [(tracing_folder() / name).read_text() for name in names if (tracing_folder() / name).exists()]


def run_elsewhere(before):
    """Run a tracer in mounts of its own, without tracefs."""
    program = f"""
import os
from closeseq.errors import KernelError
from closeseq.linux.tracepoint import Tracepoint
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


@needs("unshare")
def test_tracefs_need_not_be_mounted():
    assert run_elsewhere("assert not os.path.exists('/sys/kernel/tracing/events')") == "traced"


@needs("unshare")
def test_who_is_not_permitted_is_told_so():
    expected = "only root may use the kernel's tracing (tracefs)"
    assert run_elsewhere("os.setgid(65534); os.setuid(65534)") == expected


def test_a_tracer_can_give_up_root(trace):
    program = """
import os, socket
from closeseq.linux.tracepoint import Tracepoint
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
