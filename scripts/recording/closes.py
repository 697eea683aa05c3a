"""Experiments on an intact path: every order in which two programs can close."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from recording.applications import echo, echo_server, endless_server, keep_alive, read_to_end
from recording.bench import CLIENT_PORT, PORT
from recording.registry import experiment

if TYPE_CHECKING:
    from recording.bench import Bench

SMALL_BUFFER = 4096


@experiment()
def client_closes(bench: Bench) -> None:
    """Echo; the client closes first, the server when it reads end of file."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def ipv6_client_closes(bench: Bench) -> None:
    """Echo over IPv6; the client closes first."""
    client, server = bench.connection("::1")
    echo(client, server)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def server_closes(bench: Bench) -> None:
    """Echo; the server closes first and keeps its port in TIME_WAIT."""
    client, server = bench.connection()
    echo(client, server)
    server.close()
    bench.step("server closed")
    read_to_end(client)
    client.close()
    bench.step("client closed")


@experiment()
def server_killed(bench: Bench) -> None:
    """Kill the server while the client sleeps, and let the client go on sleeping."""
    listener = bench.listen()
    server = bench.process(echo_server, listener)
    client = bench.connect()
    client.sendall(b"hello")
    client.recv(100)
    bench.step("client sleeps")
    server.kill()
    server.join()
    bench.step("server killed")
    bench.step("client still sleeps", wait=1)


@experiment()
def slow_close(bench: Bench) -> None:
    """Let the server take its time, 1.5 s, to close after the client did."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("client closed", wait=1.5)
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def half_close_with_data(bench: Bench) -> None:
    """Shut the client's writing side; the server sends 5 x 1000 bytes on, then closes."""
    client, server = bench.connection()
    client.sendall(b"all of it, please")
    client.shutdown(socket.SHUT_WR)
    bench.step("client shut down its writing side")
    read_to_end(server)
    for _ in range(5):
        server.sendall(bytes(1000))
        time.sleep(0.1)
    server.close()
    assert read_to_end(client) == 5000  # noqa: PLR2004 - 5 x 1000
    bench.step("server closed")


@experiment()
def three_segment_close(bench: Bench) -> None:
    """Close the server the moment it reads end of file: its FIN carries the ACK of the client's."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    read_to_end(server)
    server.close()
    bench.step("both closed")


@experiment()
def fin_with_data(bench: Bench) -> None:
    """Hold data back (MSG_MORE) until the close, so that the FIN rides on it."""
    client, server = bench.connection()
    echo(client, server)
    client.send(b"the last words", socket.MSG_MORE)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def simultaneous_close(bench: Bench) -> None:
    """Close both ends on a slow line, so that the FINs cross."""
    client, server = bench.connection()
    echo(client, server)
    bench.slow_line()
    client.sendall(b"last")  # takes the line, so that the FIN after it waits
    client.close()
    server.recv(100)
    server.close()
    bench.step("both closed", wait=0.02)
    bench.step("the line is empty", wait=1)


@experiment()
def simultaneous_open(bench: Bench) -> None:
    """Connect two sockets to each other on a slow line, so that the SYNs cross; one closes first."""
    bench.slow_line()
    first, second = (bench.keep(socket.socket()) for _ in range(2))
    first.bind(("127.0.0.1", CLIENT_PORT))
    second.bind(("127.0.0.1", PORT))
    bench.occupy_line()
    for opener, to in (first, second), (second, first):
        opener.setblocking(False)
        opener.connect_ex(to.getsockname())
    bench.step("both connect", wait=0.02)
    bench.step("both connected", wait=1)
    for opener in first, second:
        opener.setblocking(True)
    first.close()
    bench.step("the first closed", wait=0.3)
    read_to_end(second)
    second.close()
    bench.step("the second closed", wait=0.3)


@experiment()
def keepalive(bench: Bench) -> None:
    """Leave the connection idle with SO_KEEPALIVE; every probe is answered; then the client closes."""
    client, server = bench.connection()
    keep_alive(client, probes=3)
    echo(client, server)
    bench.step("client probed three times", wait=3.5)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")


@experiment()
def time_wait_reused(bench: Bench) -> None:
    """Reconnect from the same port while the server is in TIME_WAIT: the SYN reopens the pair."""
    listener = bench.listen()
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    echo(client, server)
    server.close()
    bench.step("server closed")
    client.close()
    bench.step("client closed, server in TIME_WAIT")
    client = bench.connect(port=CLIENT_PORT)
    server = bench.accept(listener)
    echo(client, server)
    client.close()
    bench.step("connected again, client closed")
    server.close()
    bench.step("server closed")


@experiment()
def sleeping_reader(bench: Bench) -> None:
    """Write to a client that sleeps until its window is zero, then kill the server.

    The kernel closes the dead server's socket, but the FIN queues up behind data for which there is no
    window, and never reaches the wire: only window probes do.
    """
    listener = bench.listen()
    server = bench.process(endless_server, listener)
    bench.connect(receive_buffer=SMALL_BUFFER)
    bench.step("client sleeps, server writes", wait=1)
    server.kill()
    server.join()
    bench.step("server killed")
    bench.step("client still sleeps", wait=2)


@experiment()
def window_reopened(bench: Bench) -> None:
    """Close the server while the client's window is zero; the FIN comes when the client reads on."""
    listener = bench.listen()
    client = bench.connect(receive_buffer=SMALL_BUFFER)
    server = bench.accept(listener)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    server.setblocking(False)
    try:
        while True:
            server.send(bytes(1024))
    except BlockingIOError:
        bench.step("client sleeps, server filled its window")
    server.close()
    bench.step("server closed, FIN waits for a window", wait=1)
    read_to_end(client)
    bench.step("client read everything")
    client.close()
    bench.step("client closed")


@experiment(device="any")
def seen_twice(bench: Bench) -> None:
    """Capture on the "any" device while loopback is mirrored: each packet is there twice."""
    bench.mirror()
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("client closed")
    read_to_end(server)
    server.close()
    bench.step("server closed")
