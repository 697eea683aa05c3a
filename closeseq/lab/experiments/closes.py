"""Both programs close, and every packet arrives."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from closeseq.lab.actions import close_both_on_a_slow_line, echo, read_to_end
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import occupy_line, slow_line
from closeseq.lab.registry import experiment

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench


@experiment("graceful", "client")
def client_closes(bench: Bench) -> None:
    """An echo server and its client talk; the client quits.

    The textbook's close, in four segments: FIN, ACK, FIN, ACK. Who closes first pays with TIME_WAIT. Here
    it is the client, whose port nobody else wants, so that it does no harm.
    """
    bench.start("echo-server", "--pause", 0.1)
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client has sent a line, and the server has sent it back")
    client.quit()
    bench.step("the client quits; the server reads end of file, and closes 0.1 s later", wait=0.3)


@experiment("graceful", "client", "three-segment-close")
def client_interrupted(bench: Bench) -> None:
    """The client of an echo server gets SIGINT (Ctrl-C) while it waits for its user.

    It makes no difference: whether a program calls close(), returns from main() or dies of a signal, the
    kernel closes its sockets, and sends the same FIN.
    """
    bench.start("echo-server")
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client waits for its user")
    client.interrupt()
    bench.step("Ctrl-C at the client; the server reads end of file, and closes at once")


@experiment("graceful", "server", "bind-blocked")
def server_closes(bench: Bench) -> None:
    """The server closes first, the client when it reads end of file.

    Now TIME_WAIT stays at the server, on the port that it listens on.
    """
    client, server = bench.connection()
    echo(client, server)
    server.close()
    bench.step("the server closes")
    read_to_end(client)
    client.close()
    bench.step("the client closes")


@experiment("graceful", "client")
def ipv6_client_closes(bench: Bench) -> None:
    """The same over IPv6, from ::1 to ::1: the client closes first."""
    client, server = bench.connection("::1")
    echo(client, server)
    client.close()
    bench.step("the client closes")
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment("graceful", "client", "slow-close")
def slow_close(bench: Bench) -> None:
    """The server takes its time, 1.5 s, to close after the client did."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("the client closes; the server has other things to do", wait=1.5)
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment("graceful", "client", "half-close")
def half_close(bench: Bench) -> None:
    """The client shuts its writing side down, and goes on reading what the server sends.

    The client's FIN says "I have sent everything", not "I am gone". The server sends 5 x 1000 bytes to an
    end in FIN_WAIT_2, which takes and acknowledges them all. Such a FIN_WAIT_2 has an owner, and no timer.
    """
    client, server = bench.connection()
    client.sendall(b"all of it, please")
    client.shutdown(socket.SHUT_WR)
    bench.step("the client sends a request and shuts its writing side down")
    read_to_end(server)
    for _ in range(5):
        server.sendall(bytes(1000))
        time.sleep(0.1)
    bench.step("the server sends 5 x 1000 bytes")
    server.close()
    received = read_to_end(client)
    bench.step("the server closes")
    bench.check("all 5000 bytes have arrived", received == 5 * 1000)


@experiment("graceful", "client", "three-segment-close")
def three_segment_close(bench: Bench) -> None:
    """The server closes the moment it reads end of file: its FIN carries the ACK of the client's."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    read_to_end(server)
    server.close()
    bench.step("the client closes, and the server at once")


@experiment("graceful", "client", "fin-with-data")
def fin_with_data(bench: Bench) -> None:
    """The client holds its last words back (MSG_MORE) and closes: the FIN rides on them."""
    client, server = bench.connection()
    echo(client, server)
    client.send(b"the last words", socket.MSG_MORE)
    client.close()
    bench.step("the client sends its last words and closes")
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment("simultaneous", "both", "bind-blocked")
def simultaneous_close(bench: Bench) -> None:
    """Both ends close on a slow line, so that the FINs cross.

    Each gets the other's FIN before the ACK of its own: FIN_WAIT_1, CLOSING, TIME_WAIT, at both ends.
    """
    client, server = bench.connection()
    echo(client, server)
    close_both_on_a_slow_line(client, server)
    bench.step("both close; the FINs cross", wait=0.7)


@experiment("graceful", "client")
def simultaneous_open(bench: Bench) -> None:
    """Two sockets connect to each other on a slow line, so that the SYNs cross; neither listens.

    Rare, and allowed (RFC 9293 3.5): both go from SYN_SENT to SYN_RECEIVED, and it is one connection.
    """
    slow_line()
    first, second = (bench.keep(socket.socket()) for _ in range(2))
    first.bind(("127.0.0.1", bench.client_port))
    second.bind(("127.0.0.1", PORT))
    occupy_line(3)
    for opener, to in (first, second), (second, first):
        opener.setblocking(False)
        opener.connect_ex(to.getsockname())
    bench.step("both connect; the SYNs cross", wait=0.5)
    for opener in first, second:
        opener.setblocking(True)
    first.close()
    bench.step("the first one closes", wait=0.2)
    read_to_end(second)
    second.close()
    bench.step("the second one closes", wait=0.2)
