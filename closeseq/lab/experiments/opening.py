"""The open is slow, the server's program does not take the connection, or an older one is in its way."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import echo, read_to_end
from closeseq.lab.experiments.losses import TO_SERVER
from closeseq.lab.experiments.resets import crash
from closeseq.lab.faults import Action, Conditions, Fault, Leg, PathSettings, SegmentKind
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import losing, set_parameter
from closeseq.lab.registry import experiment
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

NEAR_THE_SERVER = PathSettings(0.98, Conditions(SECOND // 5))
LONG_WAY = PathSettings(0.5, Conditions(6 * SECOND // 10))
SETTLED = 0.5  # seconds after which all has arrived, and been answered
ESTABLISHED = 1  # net/tcp_states.h
SYN = "tcp flags & (syn | ack) == syn"
RST = "tcp flags & rst == rst"


def begin_to_connect(bench: Bench, host: str = "127.0.0.1") -> socket.socket:
    """Send a SYN, and wait for nothing.

    Args:
        bench: of the experiment.
        host: an IPv4 address.
    """
    client = bench.keep(socket.socket())
    client.setblocking(False)
    client.connect_ex((host, PORT))
    return client


def connected(client: socket.socket, bench: Bench) -> socket.socket:
    """Return a socket that has begun to connect, when that is done.

    Args:
        client: as `begin_to_connect` returns it.
        bench: of the experiment.
    """
    client.settimeout(20)
    while client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
        time.sleep(0.005)
    return bench.keep(client)


def close_both(bench: Bench, client: socket.socket, server: socket.socket, wait: float = 0.1) -> None:
    """Close the client first, and the server when all has arrived.

    Args:
        bench: of the experiment.
        client: one end of a connection.
        server: its other end.
        wait: seconds after each.
    """
    client.close()
    bench.step("the client closes", wait=wait)
    read_to_end(server)
    server.close()
    bench.step("the server closes", wait=wait)


@experiment("graceful", "client", "slow-open", needs="nft")
def slow_open(bench: Bench) -> None:
    """The client's SYN is lost, and the one that it sends a second later gets through.

    Every lost SYN costs a second. A server whose accept queue is full drops SYNs as well, which looks the
    same.
    """
    listener = bench.listen()
    with losing(f"{TO_SERVER} {SYN}") as syn:
        client = begin_to_connect(bench)
        syn.wait_for(1)
        bench.step("the client connects; its SYN is lost", wait=0.3)
    client = connected(client, bench)
    server = bench.accept(listener)
    bench.step("a second after the first the client sends its SYN again")
    echo(client, server)
    close_both(bench, client, server)


@experiment("graceful", "client", path=LONG_WAY)
def long_way(bench: Bench) -> None:
    """The opposite: the open takes 0.6 s, because the way is so long. No SYN is sent again."""
    client, server = bench.connection()
    bench.step("the client connects", wait=SETTLED)
    echo(client, server)
    client.close()
    read_to_end(server)
    time.sleep(0.1)  # longer than its kernel delays an ACK
    server.close()
    bench.step("they talk, the client closes, and when the server has read that, so does it", wait=0.8)


def two_clients_for_one_place(bench: Bench) -> tuple[socket.socket, socket.socket, socket.socket]:
    """Have two clients connect at once where the accept queue has room for one, and return the listener too.

    A queue of listen(1) takes two connections, and one is in it already. Both SYNs are answered, since it is
    not full yet. (Behind listen(0) the second SYN ACK would be a SYN cookie, which never comes again.)
    """
    with bench.at(End.SERVER):
        listener = bench.keep(socket.create_server((bench.host(End.SERVER), PORT), backlog=1))
    bench.connect()
    time.sleep(SETTLED)
    host = bench.host(End.SERVER)
    first, second = begin_to_connect(bench, host), begin_to_connect(bench, host)
    return listener, connected(first, bench), connected(second, bench)


@experiment("open graceful", "none client", "accept-queue-full", path=NEAR_THE_SERVER)
def accept_queue_full(bench: Bench) -> None:
    """A server calls accept() late, and its accept queue has room for one of two clients.

    Both SYNs are answered. The first ACK fills the queue; the second one, and the request behind it, are
    dropped, though they arrive: SYN ACK comes again, as if they had been lost. The second client is
    ESTABLISHED all the time. When the program at last accepts, there is room.
    """
    listener, _, second = two_clients_for_one_place(bench)
    second.sendall(b"anyone there?")
    bench.step("two clients connect, and the second one asks", wait=1.6)
    for _ in range(2):
        bench.accept(listener)
    bench.step("the program accepts those in the queue")
    server = bench.accept(listener)
    bench.step("SYN ACK comes again, or the request, and now there is room", wait=SETTLED)
    server.recv(100)
    close_both(bench, second, server, wait=SETTLED)


@experiment("graceful", "client", path=NEAR_THE_SERVER)
def handshake_ack_lost(bench: Bench) -> None:
    """The opposite: SYN ACK comes again because the client's ACK was lost beyond the capture point."""
    with bench.injected(Fault(Action.LOSE, End.CLIENT, Leg.AFTER, SegmentKind.PURE_ACK, times=1)) as ack:
        listener = bench.listen()
        client = bench.connect()
        ack.wait_for(1)
        server = bench.accept(listener)
        bench.step("the client connects; its ACK is lost", wait=SETTLED)
    echo(client, server)
    close_both(bench, client, server, wait=SETTLED)


@experiment("open aborted-open", "none server", "accept-queue-full reset-cause", path=NEAR_THE_SERVER)
def accept_queue_reset(bench: Bench) -> None:
    """As accept-queue-full, with tcp_abort_on_overflow set: the second client gets RST.

    The RST answers the ACK that completes the handshake. connect() has succeeded by then, so the program
    gets ECONNRESET from its first read or write.
    """
    with bench.at(End.SERVER):
        set_parameter("tcp_abort_on_overflow", 1)
    _, _, second = two_clients_for_one_place(bench)
    bench.step("two clients connect", wait=SETTLED)
    error = second.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    bench.check(f"the second one has ECONNRESET (errno {error})", error == 104)  # noqa: PLR2004 - its number


@experiment("graceful", "client", "slow-close", stuck_after=2)
def silent_reader(bench: Bench) -> None:
    """The opposite of never-accepted: a server that reads to the end, has nothing to say, and closes."""
    client, server = bench.connection()
    client.sendall(b"only for the record")
    client.close()
    bench.step("the client sends something, and closes", wait=1.1)
    read_to_end(server)
    server.close()
    bench.step("the server has read it, and closes")


@experiment("replaced open", "client none", "blocked-by-old-connection reset-cause", needs="nft")
def blocked_by_old_connection(bench: Bench) -> None:
    """The client comes back with the same port, and the server is still in CLOSE_WAIT.

    The server's kernel answers the SYN with an ACK of the old connection. The client answers that with RST,
    which would end it (as in client-returns); here a firewall drops the RST, so that no SYN opens anything.
    """
    listener = bench.listen()
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    client.shutdown(socket.SHUT_WR)
    bench.step("the client has closed its side; the server's program ignores it")
    crash(client)
    with losing(f"{TO_SERVER} {RST}"):
        again = bench.keep(socket.socket())
        again.setblocking(False)
        again.bind(("127.0.0.1", bench.client_port))
        again.connect_ex(("127.0.0.1", PORT))
        bench.step(
            "the client's machine crashes and comes back; its SYN finds the old connection",
            wait=1.5,
            hidden={End.SERVER: "the socket is that of the old connection"},
        )
