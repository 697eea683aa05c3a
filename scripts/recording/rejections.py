"""Experiments that end in RST, and those that only look like it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from recording import crafted
from recording.applications import abort, echo, read_to_end
from recording.bench import CLIENT_PORT, PORT
from recording.losses import TO_CLIENT, TO_SERVER
from recording.registry import experiment

if TYPE_CHECKING:
    import socket

    from recording.bench import Bench


@experiment()
def refused(bench: Bench) -> None:
    """Connect to a port where nobody listens."""
    with contextlib.suppress(ConnectionRefusedError):
        bench.connect()
    bench.step("connection refused")


@experiment()
def linger_zero(bench: Bench) -> None:
    """Echo; the client closes with SO_LINGER 0, which sends RST instead of FIN."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("echoed")
    abort(client)
    bench.step("client aborted")


@experiment()
def unread_data_reset(bench: Bench) -> None:
    """Close the server while data lies unread in its receive queue: RST instead of FIN."""
    client, server = bench.connection()
    client.sendall(b"nobody reads this")
    bench.step("client sent")
    server.close()
    bench.step("server closed without reading")


@experiment()
def data_after_close(bench: Bench) -> None:
    """Close the client fully while the server still has something to send: it is answered by RST."""
    client, server = bench.connection()
    client.sendall(b"a question")
    server.recv(100)
    client.close()
    bench.step("client closed")
    server.sendall(b"an answer that nobody awaits")
    bench.step("server answered")


@experiment()
def write_only_client(bench: Bench) -> None:
    """Let a client that never reads write on after the server has closed."""
    client, server = bench.connection()
    for number in range(3):
        client.sendall(b"line %d\n" % number)
        server.recv(100)
        time.sleep(0.05)
    server.close()
    bench.step("server closed")
    client.sendall(b"line 3\n")
    bench.step("client wrote on")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(b"line 4\n")
    bench.step("client wrote again, in vain")


@experiment()
def leaky_server(bench: Bench) -> None:
    """Let a server ignore end of file from five clients until their FIN_WAIT_2 has expired."""
    bench.set("tcp_fin_timeout", 3)
    listener = bench.listen()
    servers = []
    for _ in range(5):
        client = bench.connect()
        servers.append(bench.accept(listener))
        echo(client, servers[-1])
        client.close()
        time.sleep(0.05)
    bench.step("five clients closed")
    bench.step("their FIN_WAIT_2 has expired", wait=4)
    servers[0].sendall(b"late data")
    bench.step("server sends data to the first")
    servers[1].close()
    bench.step("server closes the second")


@experiment()
def time_wait_assassinated(bench: Bench) -> None:
    """Let an old duplicate reach the server's TIME_WAIT (RFC 1337).

    TIME_WAIT acknowledges what it did not expect; the client, long CLOSED, answers this ACK by RST; and
    the RST ends TIME_WAIT early, because Linux has tcp_rfc1337 switched off by default.
    """
    client, server = bench.connection()
    echo(client, server)
    old = crafted.last_segment(bench, lambda tcp: tcp.dport == PORT and b"hello" in bytes(tcp.payload))
    server.close()
    bench.step("server closed")
    read_to_end(client)
    client.close()
    bench.step("client closed, server in TIME_WAIT", wait=0.7)
    crafted.send_again(old)
    bench.step("an old duplicate arrived")


@experiment()
def challenge_ack(bench: Bench) -> None:
    """Send a RST whose number is within the window, but not the expected one (RFC 5961)."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("echoed")
    ack = crafted.last_segment(bench, lambda tcp: tcp.dport == PORT)
    crafted.send_reset_like(ack, ahead=1000)
    bench.step("a forged RST arrived and was challenged")
    echo(client, server)
    client.close()
    bench.step("echoed again, client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def forged_reset(bench: Bench) -> None:
    """Send a RST with exactly the expected number: believed, and the true client learns it later."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("echoed")
    ack = crafted.last_segment(bench, lambda tcp: tcp.dport == PORT)
    crafted.send_reset_like(ack)
    bench.step("a forged RST arrived and was believed")
    client.sendall(b"still here")
    bench.step("client sent on")


@experiment()
def syn_scan(bench: Bench) -> None:
    """Send a SYN for which there is no socket: the answer is answered by RST."""
    bench.listen()
    crafted.send_syn(CLIENT_PORT, to=PORT)
    bench.step("SYN, SYN+ACK, RST")


@experiment()
def client_returns(bench: Bench) -> None:
    """Crash the client without a packet and reconnect from its port (RFC 9293 3.5.1, figure 9).

    The server, still ESTABLISHED, challenges the SYN; the client's kernel does not know what that ACK
    is about and answers RST; the SYN sent again then finds a listening port.
    """
    listener = bench.listen()
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    echo(client, server)
    bench.step("echoed")
    crash(bench, client)
    bench.step("client crashed")
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    bench.step("client came back")
    echo(client, server)
    client.close()
    bench.step("client closed")
    server.close()
    bench.step("server closed")


@experiment()
def replaced(bench: Bench) -> None:
    """Crash both ends without a packet and connect anew from the same port."""
    listener = bench.listen()
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    echo(client, server)
    bench.step("echoed")
    crash(bench, client)
    crash(bench, server)
    bench.step("both crashed")
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    echo(client, server)
    client.close()
    bench.step("connected again, client closed")
    server.close()
    bench.step("server closed")


def crash(bench: Bench, victim: socket.socket) -> None:
    """End a socket while its RST, which a machine without power would not send, gets lost."""
    direction = TO_CLIENT if victim.getsockname()[1] == PORT else TO_SERVER
    with bench.losing(direction, before_capture=True), contextlib.suppress(OSError):
        abort(victim)
