"""Client and server are far apart, and the capture point lies somewhere between them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import echo, read_to_end
from closeseq.lab.faults import Action, Conditions, Fault, Leg, PathSettings, SegmentKind
from closeseq.lab.registry import experiment
from closeseq.settings import SECOND
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

ROUND_TRIP_NS = SECOND // 5
# So late that a FIN is sent again, 0.6 s after the first, and too early for the next ACK to overtake it.
LATE_NS = 53 * SECOND // 100
SETTLED = 0.5  # seconds after which all has arrived, and been answered
FAR = Conditions(ROUND_TRIP_NS)
IN_THE_MIDDLE = PathSettings(0.5, FAR)
NEAR_THE_CLIENT = PathSettings(0.02, FAR)
IPV6_NEAR_THE_SERVER = PathSettings(0.98, FAR, ip=6)
IPV6_IN_THE_MIDDLE = PathSettings(0.5, FAR, ip=6)

# What becomes of a TIME_WAIT that acknowledges a second FIN of an end which is CLOSED by then.
ANSWERED_BY_RST = "reset-cause time-wait-assassinated time-wait-restarted"


@experiment("simultaneous", "both", "bind-blocked", path=NEAR_THE_CLIENT)
def crossing_fins(bench: Bench) -> None:
    """Both ends close within one round trip of 200 ms, captured near the client: the FINs cross.

    The server's FIN passes the capture point 0.1 s after the client's. That is too soon for an answer: from
    there to the server and back takes 0.2 s.
    """
    close_both(bench)


@experiment("simultaneous", "both", "bind-blocked", path=IPV6_IN_THE_MIDDLE)
def ipv6_crossing_fins(bench: Bench) -> None:
    """The same over IPv6, captured in the middle of the way: the FINs pass it within a few milliseconds."""
    close_both(bench)


def close_both(bench: Bench) -> None:
    """Echo, and close both ends before the FIN of either can have arrived."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back", wait=SETTLED)
    client.close()
    server.close()
    bench.step("both close at once; the FINs cross", wait=SETTLED)
    states = {bench.end(end).kernel for end in End}
    bench.check("both ends are in TIME_WAIT", states == {State.TIME_WAIT})


@experiment("graceful", "client", path=IN_THE_MIDDLE)
def fin_overtaken(bench: Bench) -> None:
    """The client's FIN takes longer than the ACK that the client sends after it.

    The ACK is numbered one past the data, so that a FIN has gone out before it. The capture shows the FIN
    behind it, in its old place: nothing was lost, and nothing is sent again.
    """
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back", wait=SETTLED)
    with bench.injected(
        Fault(Action.DELAY, End.CLIENT, Leg.BEFORE, SegmentKind.FIN, times=1, delay_ns=SECOND // 4)
    ):
        server.sendall(b"one more thing")  # arrives 0.1 s after the client has closed its side
        client.shutdown(socket.SHUT_WR)
        bench.step(
            "the server sends a line; the client shuts its writing side down; its FIN takes longer than the "
            "ACK of the line",
            wait=SETTLED,
        )
    read_to_end(server)
    server.close()
    read_to_end(client)
    client.close()
    bench.step("the server closes", wait=SETTLED)


@experiment("graceful", "client", path=IN_THE_MIDDLE)
def data_overtaken(bench: Bench) -> None:
    """The client's first line takes longer than its second: for a moment there is a hole in what it sent.

    The line comes soon after, with an earlier IP identification than the one that overtook it. Nothing was
    lost, and the capture is complete.
    """
    client, server = bench.connection()
    with bench.injected(
        Fault(Action.DELAY, End.CLIENT, Leg.BEFORE, SegmentKind.DATA, times=1, delay_ns=SECOND // 25)
    ):
        send_lines(client, b"first", b"second")
        bench.step("the client sends two lines; the first one takes 40 ms longer", wait=2 * SETTLED)
    close_one_after_the_other(bench, client, server)


@experiment("graceful", "client", path=IN_THE_MIDDLE)
def data_lost_before_capture(bench: Bench) -> None:
    """The client's first line is lost before the capture point, and sent again after duplicate ACKs.

    The capture is complete: until the line comes again, no acknowledgement covers it.
    """
    client, server = bench.connection()
    with bench.injected(Fault(Action.LOSE, End.CLIENT, Leg.BEFORE, SegmentKind.DATA, times=1)):
        send_lines(client, b"first", b"second", b"third", b"fourth")
        bench.step("the client sends four lines; the first one is lost", wait=2 * SETTLED)
    close_one_after_the_other(bench, client, server)


def send_lines(client: socket.socket, *lines: bytes) -> None:
    """Send a segment for each line at once: with TCP_NODELAY none waits for the ACK of another.

    Args:
        client: the socket that sends.
        lines: the data of each segment, in order.
    """
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for line in lines:
        client.sendall(line)


def close_one_after_the_other(bench: Bench, client: socket.socket, server: socket.socket) -> None:
    """Close the client first, and the server when all has arrived.

    Args:
        bench: of the experiment.
        client: one end of a connection.
        server: its other end.
    """
    client.close()
    bench.step("the client closes", wait=SETTLED)
    read_to_end(server)
    server.close()
    bench.step("the server closes", wait=SETTLED)


@experiment("simultaneous", "both", "bind-blocked fin-lost", path=IN_THE_MIDDLE)
def fin_lost_before_capture(bench: Bench) -> None:
    """Both ends close at once, and the client's FIN is lost before the capture point.

    The capture shows the server's FIN first, and at once the client's ACK of it, numbered one past the data:
    by then the client had closed. So it went to CLOSING, and not to CLOSE_WAIT, though its FIN is seen only
    when it comes again.
    """
    lose_the_clients_first_fin(bench)


@experiment("simultaneous", "both", "bind-blocked fin-lost", path=IPV6_NEAR_THE_SERVER)
def ipv6_fin_lost_before_capture(bench: Bench) -> None:
    """The same over IPv6, captured near the server."""
    lose_the_clients_first_fin(bench)


def lose_the_clients_first_fin(bench: Bench) -> None:
    """Echo, and close both ends at once, of which the client's FIN gets lost before the capture point."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back", wait=SETTLED)
    with bench.injected(Fault(Action.LOSE, End.CLIENT, Leg.BEFORE, SegmentKind.FIN, times=1)) as fin:
        client.close()
        server.close()
        fin.wait_for(1)
        bench.step(
            "both close at once; the client's FIN is lost before the capture point, and sent again",
            wait=3 * SETTLED,
        )
    states = {bench.end(end).kernel for end in End}
    bench.check("both ends are in TIME_WAIT", states == {State.TIME_WAIT})


@experiment("graceful", "client", "reset-cause time-wait-assassinated duplicate-packets", path=IN_THE_MIDDLE)
def duplicate_fin(bench: Bench) -> None:
    """The network delivers the server's FIN a second time, 0.3 s later: it meets the client's TIME_WAIT.

    TIME_WAIT acknowledges it again, as it would a retransmission. The server, long CLOSED, answers this ACK
    by RST, and the RST ends TIME_WAIT early (RFC 1337). No final ACK was lost: the second FIN is the first
    one, down to its IP identification.
    """
    duplicate_the_servers_fin(bench)


@experiment("graceful", "client", ANSWERED_BY_RST, path=IPV6_IN_THE_MIDDLE)
def ipv6_duplicate_fin(bench: Bench) -> None:
    """The same over IPv6, which has no identification: its timestamp tells that it is the first one."""
    duplicate_the_servers_fin(bench)


def client_closes(bench: Bench) -> socket.socket:
    """Echo, close the client, and return the server's socket, which has read end of file."""
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("the client closes", wait=SETTLED)
    read_to_end(server)
    return server


def duplicate_the_servers_fin(bench: Bench) -> None:
    """Have the client close first, and the server's FIN delivered twice."""
    server = client_closes(bench)
    with bench.injected(
        Fault(Action.DUPLICATE, End.SERVER, Leg.BEFORE, SegmentKind.FIN, delay_ns=3 * SECOND // 10)
    ):
        server.close()
        bench.step("the server closes; the network delivers its FIN twice", wait=2 * SETTLED)
    bench.check("the client's TIME_WAIT is gone", bench.end(End.CLIENT).entry is None)


@experiment("graceful", "client", ANSWERED_BY_RST, path=IN_THE_MIDDLE)
def final_ack_crosses_fin(bench: Bench) -> None:
    """The final ACK takes half a second longer than usual: the server sends its FIN again, and the two cross.

    Both are captured, and both arrive; nothing was lost. TIME_WAIT acknowledges the second FIN too; that
    ACK finds the server CLOSED, and the RST that answers it ends TIME_WAIT.
    """
    delay_the_final_ack(bench)


@experiment("graceful", "client", ANSWERED_BY_RST, path=IPV6_IN_THE_MIDDLE)
def ipv6_final_ack_crosses_fin(bench: Bench) -> None:
    """The same over IPv6."""
    delay_the_final_ack(bench)


def delay_the_final_ack(bench: Bench) -> None:
    """Have the client close first, and the ACK of the server's FIN take longer from the capture point on."""
    server = client_closes(bench)
    late = Fault(Action.DELAY, End.CLIENT, Leg.AFTER, SegmentKind.ACK_OF_FIN, times=1, delay_ns=LATE_NS)
    with bench.injected(late):
        server.close()
        bench.step(
            "the server closes; the final ACK is late, and crosses the FIN that is sent again", wait=1.5
        )
    bench.check("the client's TIME_WAIT is gone", bench.end(End.CLIENT).entry is None)
