"""Experiments on which packets get lost, or the capture point misses them."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from recording.applications import echo, keep_alive, read_to_end
from recording.bench import PORT
from recording.registry import experiment

if TYPE_CHECKING:
    from recording.bench import Bench

TO_SERVER = f"tcp dport {PORT}"
TO_CLIENT = f"tcp sport {PORT}"
FIN = "tcp flags & fin == fin"
PURE_ACK = "tcp flags & (fin | syn | rst | psh | ack) == ack"


def server_closes_up_to_last_ack(bench: Bench) -> tuple[socket.socket, socket.socket]:
    """Connect, echo, close the server: the client is in CLOSE_WAIT, and its own close is next."""
    client, server = bench.connection()
    echo(client, server)
    server.close()
    bench.step("server closed")
    read_to_end(client)
    return client, server


@experiment()
def unanswered(bench: Bench) -> None:
    """Lose every SYN on its way to the server; the client gives up after 3.5 s."""
    bench.listen()
    with bench.losing(TO_SERVER), contextlib.suppress(TimeoutError):
        socket.create_connection(("127.0.0.1", PORT), timeout=3.5)
    bench.step("client gave up")


@experiment()
def final_ack_lost(bench: Bench) -> None:
    """Lose the final ACK until the client has sent its FIN four times; the next ACK gets through."""
    client, _ = server_closes_up_to_last_ack(bench)
    with bench.losing(f"{TO_CLIENT} {PURE_ACK}") as final_ack:
        client.close()
        bench.step("client closed, final ACK lost")
        final_ack.wait_for(3)
    bench.step("path healed, FIN sent again and acknowledged", wait=2)


@experiment()
def final_ack_lost_unseen(bench: Bench) -> None:
    """Lose the final ACK before the capture point; the repeated FIN is acknowledged."""
    client, _ = server_closes_up_to_last_ack(bench)
    with bench.losing(f"{TO_CLIENT} {PURE_ACK}", before_capture=True) as final_ack:
        client.close()
        final_ack.wait_for(1)
        bench.step("client closed, final ACK lost")
    bench.step("path healed, FIN sent again and acknowledged", wait=2)


@experiment()
def final_ack_lost_reset(bench: Bench) -> None:
    """Lose the final ACK and forget the server's TIME_WAIT: the repeated FIN is answered by RST."""
    client, _ = server_closes_up_to_last_ack(bench)
    with bench.losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.close()
        bench.step("client closed, final ACK lost", wait=0.02)
        bench.forget("time-wait")
        bench.step("server forgot its TIME_WAIT", wait=0.01)
        bench.step("FIN sent again, answered by RST", wait=0.5)


@experiment()
def last_ack_stuck(bench: Bench) -> None:
    """Lose every final ACK until the capture ends."""
    client, _ = server_closes_up_to_last_ack(bench)
    with bench.losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.close()
        bench.step("client closed, final ACK lost")
        bench.step("client sends its FIN again and again", wait=7)


@experiment()
def fin_lost(bench: Bench) -> None:
    """Lose the client's FIN twice; the third gets through."""
    client, server = bench.connection()
    echo(client, server)
    with bench.losing(f"{TO_SERVER} {FIN}") as fin:
        client.close()
        bench.step("client closed, FIN lost", wait=0.02)
        fin.wait_for(2)
    read_to_end(server)
    bench.step("path healed, FIN arrived")
    server.close()
    bench.step("server closed")


@experiment()
def fin_unanswered(bench: Bench) -> None:
    """Lose everything on its way to the server from before the client's FIN on."""
    client, server = bench.connection()
    echo(client, server)
    with bench.losing(TO_SERVER):
        client.close()
        bench.step("client closed, FIN lost")
        bench.step("client sends its FIN again and again", wait=4)


@experiment()
def closing_stuck(bench: Bench) -> None:
    """Let the FINs cross and lose all that acknowledges the client's: it stays in CLOSING."""
    client, server = bench.connection()
    echo(client, server)
    bench.slow_line()
    with bench.losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.sendall(b"last")  # takes the line, so that the FIN after it waits
        client.close()
        server.recv(100)
        server.close()
        bench.step("both closed, ACKs of the client's FIN lost", wait=1)
        bench.step("client sends its FIN again and again", wait=5)


@experiment()
def half_open(bench: Bench) -> None:
    """Cut the path while the client sends: retransmissions without an answer."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("echoed")
    with bench.losing(TO_SERVER):
        client.sendall(b"anyone there?")
        bench.step("path cut, client sends again and again", wait=4)


@experiment()
def keepalive_unanswered(bench: Bench) -> None:
    """Cut the path of an idle connection: the client's keepalive gives up after three probes."""
    client, server = bench.connection()
    keep_alive(client, probes=3)
    echo(client, server)
    bench.step("echoed")
    with bench.losing(TO_SERVER):
        bench.step("path cut, client probed in vain", wait=4.5)


@experiment(capture=f"tcp and not (dst port {PORT} and tcp[tcpflags] & tcp-fin != 0)")
def fin_not_captured(bench: Bench) -> None:
    """Keep the client's FIN out of the capture; it arrives all the same."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment(capture=f"tcp dst port {PORT}")
def one_direction(bench: Bench) -> None:
    """Capture only what the client sends; it closes first."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")
