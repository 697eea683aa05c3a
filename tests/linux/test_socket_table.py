"""The kernel's table of sockets, asked on real sockets in a network of our own."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from closeseq.connections.conversation import Address
from closeseq.linux.namespaces import coming_back, enter_new
from closeseq.linux.socket_table import SocketTable
from closeseq.tcp.states import State
from closeseq.watch.kernel_view import KernelAnswer
from machine import EVERYWHERE, needs
from places import ROOT

pytestmark = needs("a network namespace of our own", root=True)

NFT = shutil.which("nft", path=EVERYWHERE)
IP = shutil.which("ip", path=EVERYWHERE)
needs_ip = needs("ip")
needs_nft = needs("nft", "nft's tables")
HOSTS = ("127.0.0.1", "::1")
FIN_TIMEOUT = Path("/proc/sys/net/ipv4/tcp_fin_timeout")


@pytest.fixture(scope="module", autouse=True)
def network():
    with coming_back():
        enter_new()
        yield


@pytest.fixture
def table():
    with SocketTable() as opened:
        yield opened


@pytest.fixture
def world():
    with ExitStack() as sockets:
        yield World(sockets)


class World:
    """Real sockets, closed behind the test. What a test has closed itself may be closed again."""

    def __init__(self, sockets):
        self.sockets = sockets

    def listener(self, host=HOSTS[0], backlog=5):
        one = socket.create_server((host, 0), family=family(host), backlog=backlog)
        return self.sockets.enter_context(one)

    def connect(self, listener):
        one = socket.create_connection(listener.getsockname()[:2], timeout=20)
        return self.sockets.enter_context(one)

    def pair(self, host=HOSTS[0]):
        """Return the client's and the server's end of a connection."""
        listener = self.listener(host)
        client = self.connect(listener)
        return client, self.sockets.enter_context(listener.accept()[0])


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def ends(one):
    """Return a socket's two addresses, to be kept from before it is closed."""
    return Address(*one.getsockname()[:2]), Address(*one.getpeername()[:2])


def inode(one):
    return os.fstat(one.fileno()).st_ino


def wait_for(table, addresses, state):
    """Return the socket as soon as it has this state; loopback is quick, but it is not at once."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = table.lookup(*addresses)
        if found is not None and found.state is state:
            return found
        time.sleep(0.001)
    raise AssertionError(f"{addresses} is {found}, not {state}")


def connect_when_routed(client, where):
    """Connect to a new address: its route comes a moment after it, from a work queue of the kernel's."""
    deadline = time.monotonic() + 10
    while code := client.connect_ex(where):
        assert code == errno.ENETUNREACH, os.strerror(code)
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fill(one):
    """Send until neither end has room for more."""
    one.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            one.send(bytes(65536))


@pytest.fixture
def drop():
    """Return a function that has the network drop what an nft expression matches."""

    def now(expression):
        # Where packets come in: one dropped on its way out is not lost but refused, and the sender knows.
        chain = "add table inet t; add chain inet t c { type filter hook input priority 0; }"
        subprocess.run([NFT, f"{chain}; add rule inet t c {expression} drop"], check=True, timeout=60)

    yield now
    subprocess.run([NFT, "delete table inet t"], check=True, timeout=60)


@pytest.mark.parametrize("host", HOSTS)
def test_both_ends_of_a_connection_are_found_with_their_inodes(world, table, host):
    for one in world.pair(host):
        found = table.lookup(*ends(one))
        assert (found.local, found.remote) == ends(one)
        assert (found.state, found.inode, found.uid) == (State.ESTABLISHED, inode(one), 0)
        assert not found.orphaned
        assert not found.unaccepted
        assert found in table.sockets()


@needs_ip
def test_a_socket_bound_to_an_interface_is_found_through_it(world, table):
    add = "address add fe80::77/64 dev lo nodad"
    subprocess.run([IP, *add.split()], check=True, timeout=60)
    interface = socket.if_nametoindex("lo")
    where = ("fe80::77", 0, 0, interface)
    listener = world.sockets.enter_context(socket.socket(socket.AF_INET6))
    listener.bind(where)
    listener.listen()
    client = world.sockets.enter_context(socket.socket(socket.AF_INET6))
    connect_when_routed(client, listener.getsockname())
    local, remote = ends(client)
    assert local.address == "fe80::77"
    assert table.lookup(local, remote).inode == inode(client)
    assert table.lookup(local, remote).interface == interface
    assert table.lookup(local, remote, interface + 1) is None
    assert table.destroy(table.lookup(local, remote)) is True


def test_a_listener_is_shown_on_request_only_and_is_nobodys_connection(world, table):
    listener = world.listener(backlog=7)
    address = Address(*listener.getsockname())
    ports = frozenset({address.port})
    assert table.sockets(ports) == []
    (shown,) = table.sockets(ports, listeners=True)
    assert (shown.state, shown.send_queue, shown.remote.port) == (State.LISTEN, 7, 0)
    assert table.lookup(address, Address("127.0.0.1", 9)) is None


def test_a_dual_stack_servers_end_is_shown_and_found_as_ipv4(world, table):
    listener = world.sockets.enter_context(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    port = listener.getsockname()[1]
    client = world.sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
    server = world.sockets.enter_context(listener.accept()[0])
    assert server.getpeername()[0] == "::ffff:127.0.0.1"
    local, remote = ends(client)[::-1]
    assert table.lookup(local, remote).inode == inode(server)
    assert {one.local for one in table.sockets(frozenset({port}))} == set(ends(client))


def test_unread_bytes_and_an_unread_end_of_file_stand_in_the_receive_queue(world, table):
    for data in (b"x" * 1000, b""):
        client, server = world.pair()
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        stuck = wait_for(table, ends(server), State.CLOSE_WAIT)
        assert stuck.receive_queue == len(data) + 1
        assert server.recv(1001) == data
        assert server.recv(1) == b""
        assert table.lookup(*ends(server)).receive_queue == 0


def test_a_half_closed_end_stays_its_programs_and_has_no_timer(world, table):
    client, _server = world.pair()
    client.shutdown(socket.SHUT_WR)
    waiting = wait_for(table, ends(client), State.FIN_WAIT_2)
    assert (waiting.inode, waiting.timer, waiting.orphaned) == (inode(client), None, False)


@pytest.mark.parametrize(
    ("seconds", "kind", "left"),
    # tcp_close(): up to 60 s the socket is kept like one in TIME_WAIT, beyond that it waits in full first.
    [(60, "time-wait", 60), (20, "time-wait", 20), (90, "keepalive", 30)],
)
def test_a_closed_end_that_waits_for_the_peers_fin_is_ownerless_with_a_timer(
    world, table, seconds, kind, left
):
    before = FIN_TIMEOUT.read_text()
    FIN_TIMEOUT.write_text(str(seconds))
    try:
        client, _server = world.pair()
        addresses = ends(client)
        client.close()
        waiting = wait_for(table, addresses, State.FIN_WAIT_2)
    finally:
        FIN_TIMEOUT.write_text(before)
    assert waiting.orphaned
    assert waiting.inode == 0
    assert waiting.timer.kind == kind
    assert left - 2 < waiting.timer.expires_ms / 1000 <= left + 1
    assert waiting in table.sockets() or table.lookup(*addresses).timer.expires_ms < waiting.timer.expires_ms


@pytest.mark.parametrize("host", HOSTS)
def test_time_wait_shows_the_time_it_has_left(world, table, host):
    client, server = world.pair(host)
    addresses = ends(client)
    client.close()
    server.close()
    first = wait_for(table, addresses, State.TIME_WAIT)
    assert (first.timer.kind, first.orphaned) == ("time-wait", True)
    assert 57_000 < first.timer.expires_ms <= 60_100
    time.sleep(0.05)
    assert table.lookup(*addresses).timer.expires_ms < first.timer.expires_ms - 30
    ports = frozenset({addresses[0].port})
    assert table.sockets(ports, time_wait=False) == []
    assert [one.state for one in table.sockets(ports)] == [State.TIME_WAIT]


@needs_nft
def test_2msl_starts_again_when_a_lost_last_acknowledgement_has_the_fin_repeated(world, table, drop):
    client, server = world.pair()
    addresses, peer = ends(client), ends(server)
    client.close()
    wait_for(table, addresses, State.FIN_WAIT_2)
    drop(f"tcp sport {addresses[0].port} tcp flags ack")
    server.close()
    repeating = wait_for(table, peer, State.LAST_ACK)
    assert (repeating.timer.kind, repeating.send_queue, repeating.orphaned) == ("retransmission", 1, True)
    left = [wait_for(table, addresses, State.TIME_WAIT).timer.expires_ms]
    deadline = time.monotonic() + 10
    while left[-1] <= min(left) + 50 and time.monotonic() < deadline:
        time.sleep(0.01)
        left.append(table.lookup(*addresses).timer.expires_ms)
    assert left[-1] > min(left) + 50


@needs_nft
def test_crossing_fins_of_which_one_is_lost_leave_closing(world, table, drop):
    client, server = world.pair()
    addresses = ends(client)
    drop(f"tcp sport {addresses[0].port} tcp flags & fin == fin")
    client.close()
    assert wait_for(table, addresses, State.FIN_WAIT_1).timer.kind == "retransmission"
    server.close()
    assert wait_for(table, addresses, State.CLOSING).orphaned


def test_a_close_behind_unread_data_stands_in_fin_wait_1(world, table):
    client, server = world.pair()
    addresses = ends(client)
    fill(client)
    client.close()
    stuck = wait_for(table, addresses, State.FIN_WAIT_1)
    assert stuck.orphaned
    assert stuck.send_queue > 1
    assert stuck.timer.kind in ("probe", "retransmission")
    assert table.lookup(*ends(server)).receive_queue > 0


def test_a_second_close_behind_unread_data_stands_in_last_ack(world, table):
    client, server = world.pair()
    addresses = ends(client)
    server.shutdown(socket.SHUT_WR)
    wait_for(table, addresses, State.CLOSE_WAIT)
    fill(client)
    client.close()
    assert wait_for(table, addresses, State.LAST_ACK).orphaned


def test_an_unanswered_connect_is_in_syn_sent(world, table):
    full = world.listener(backlog=0)
    world.connect(full)  # the one that the queue has room for
    waiting = world.sockets.enter_context(socket.socket())
    waiting.setblocking(False)
    assert waiting.connect_ex(full.getsockname()) == errno.EINPROGRESS
    addresses = Address(*waiting.getsockname()), Address(*full.getsockname())
    found = wait_for(table, addresses, State.SYN_SENT)
    assert (found.timer.kind, found.inode) == ("retransmission", inode(waiting))


@pytest.mark.parametrize("inferred", [State.TIME_WAIT, State.CLOSED])
def test_a_socket_where_a_connection_is_over_may_be_the_next_ones(world, table, inferred):
    client, _ = world.pair()
    answer = KernelAnswer(inferred, table.lookup(*ends(client)), (), remembered=False)
    assert not answer.agrees
    assert "a new connection has these addresses" in answer.why


def test_what_is_not_accepted_yet_has_no_owner_and_is_not_orphaned(world, table):
    listener = world.listener()
    client = world.connect(listener)
    addresses = ends(client)[::-1]
    queued = table.lookup(*addresses)
    assert (queued.state, queued.inode, queued.unaccepted, queued.orphaned) == (
        *(State.ESTABLISHED, 0, True, False),
    )
    client.close()
    assert wait_for(table, addresses, State.CLOSE_WAIT).unaccepted


@pytest.mark.parametrize("host", HOSTS)
def test_a_listener_shows_how_full_its_accept_queue_is(world, table, host):
    listener = world.listener(host, backlog=1)
    where = Address(*listener.getsockname()[:2])
    client = world.connect(listener)
    one = table.listener(where)
    assert (one.local, one.receive_queue, one.send_queue) == (where, 1, 1)
    world.connect(listener)
    assert table.listener(where).receive_queue == 2
    listener.accept()[0].close()
    assert table.listener(where).receive_queue == 1
    listener.close()
    assert table.listener(where) is None
    assert table.listener(ends(client)[0]) is None


def test_a_listener_at_all_addresses_is_found_for_each_of_them(world, table):
    everywhere = world.listener("0.0.0.0")
    port = everywhere.getsockname()[1]
    assert table.listener(Address("127.0.0.2", port)).local == Address("0.0.0.0", port)
    dual = world.sockets.enter_context(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )
    port = dual.getsockname()[1]
    assert table.listener(Address("127.0.0.1", port)).local == Address("::", port)


def test_of_listeners_that_share_a_port_none_is_named(world, table):
    first = world.sockets.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
    where = Address(*first.getsockname())
    assert table.listener(where).local == where
    world.sockets.enter_context(socket.create_server(first.getsockname(), reuse_port=True))
    assert table.listener(where) is None


def test_a_half_open_connection_is_in_syn_received(world, table):
    listener = world.listener()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 10)
    client = world.connect(listener)
    found = wait_for(table, ends(client)[::-1], State.SYN_RECEIVED)
    assert found.unaccepted
    assert found.timer.kind == "retransmission"
    assert found.local in [one.local for one in table.sockets() if one.state is State.SYN_RECEIVED]


def test_only_the_asked_ports_are_given(world, table):
    ports = [world.pair()[1].getsockname()[1] for _ in range(3)]
    wanted = {*ports[:2]}
    several = [wanted, wanted | set(range(1, 200, 2))]  # more ranges than the kernel shall compare
    for asked in several:
        found = table.sockets(frozenset(asked))
        assert len(found) == 4
        assert {port for one in found for port in (one.local.port, one.remote.port)} & set(ports) == wanted
    assert table.sockets(frozenset({1, 65535})) == []


def test_the_table_agrees_with_proc(world, table):
    pairs = [world.pair(host) for host in HOSTS]
    pairs[0][0].sendall(b"unread")
    pairs[1][0].close()
    time.sleep(0.01)
    found = {(one.local, one.remote): one for one in table.sockets(listeners=True)}
    said = [line.split() for name in ("tcp", "tcp6") for line in proc(name)]
    assert {(end(line[1]), end(line[2])) for line in said} == set(found)
    for _, local, remote, state, queues, _, _, uid, _, number, *_ in said:
        one = found[end(local), end(remote)]
        send, receive = (int(length, 16) for length in queues.split(":"))
        assert (one.receive_queue, one.inode, one.uid) == (receive, int(number), int(uid))
        assert one.send_queue == send or one.state is State.LISTEN  # there proc does not show the backlog
        assert (one.state is State.LISTEN) == (state == "0A")


def proc(name):
    return Path("/proc/thread-self/net", name).read_text().splitlines()[1:]


def end(text):
    """Return an address as /proc/net/tcp writes it: words of 32 bits, each in this machine's order."""
    address, port = text.split(":")
    words = [bytes.fromhex(address[at : at + 8]) for at in range(0, len(address), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ip_address(packed)
    return Address(str(getattr(address, "ipv4_mapped", None) or address), int(port, 16))


def test_a_destroyed_socket_is_gone_and_its_program_learns_it(world, table):
    _client, server = world.pair()
    found = table.lookup(*ends(server))
    assert table.destroy(found) is True
    assert table.lookup(found.local, found.remote) is None
    assert table.destroy(found) is False
    with pytest.raises(ConnectionAbortedError):
        server.recv(1)


def test_time_wait_can_be_destroyed(world, table):
    client, server = world.pair()
    addresses = ends(client)
    client.close()
    server.close()
    assert table.destroy(wait_for(table, addresses, State.TIME_WAIT)) is True
    assert table.lookup(*addresses) is None


def test_a_new_connection_between_the_same_addresses_is_another_socket(world, table):
    listener = world.listener()
    client = world.connect(listener)
    addresses = ends(client)
    old = table.lookup(*addresses)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # with a RST: the port is free at once
    again = world.sockets.enter_context(
        socket.create_connection(addresses[1], timeout=5, source_address=addresses[0])
    )
    assert ends(again) == addresses
    assert table.lookup(*addresses).cookie != old.cookie
    assert table.destroy(old) is False
    assert table.lookup(*addresses).state is State.ESTABLISHED


def test_a_question_after_one_that_was_left_in_the_middle_is_answered(world, table):
    for pairs in (1, 300):  # the answer has one part, and several
        for _ in range(pairs):
            client, _server = world.pair()
        for _ in range(3):
            assert next(table._kernel.dump(socket.AF_INET, 0xFFF)) is not None
            assert table.lookup(*ends(client)).inode == inode(client)
            assert len(table.sockets()) >= 2 * pairs


def test_it_works_within_a_running_event_loop(world):
    world.pair()

    async def ask():
        with SocketTable() as table:
            return table.sockets()

    assert asyncio.run(ask())


def test_reading_needs_no_privilege_and_destroying_does(world):
    _client, server = world.pair()
    local, remote = ends(server)
    program = f"""
import os, sys
from closeseq.connections.conversation import Address
from closeseq.errors import KernelError
from closeseq.linux.socket_table import SocketTable
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with SocketTable() as table:
    found = table.lookup(Address{tuple(local)}, Address{tuple(remote)})
    assert found in table.sockets()
    print(found.inode)
    try:
        table.destroy(found)
    except KernelError as error:
        print(error)
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        str(inode(server)),
        "the kernel lets only root (CAP_NET_ADMIN) end another program's socket",
    ], done.stderr
    assert done.stderr == ""
