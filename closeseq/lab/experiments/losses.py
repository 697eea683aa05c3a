"""Packets get lost, or a path dies."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import close_both_on_a_slow_line, echo, keep_alive, read_to_end
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import losing, set_parameter
from closeseq.lab.registry import experiment

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

TO_SERVER = f"tcp dport {PORT}"
TO_CLIENT = f"tcp sport {PORT}"
FIN = "tcp flags & fin == fin"
# A kernel that gives up sends nothing; on a busy machine we may come to look only then.
GIVEN_UP = {End.CLIENT: "its kernel has given up, and nothing is sent then"}
PURE_ACK = "tcp flags & (fin | syn | rst | psh | ack) == ack"


def server_closes_up_to_last_ack(bench: Bench) -> tuple[socket.socket, socket.socket]:
    """Connect, echo, close the server: the client is in CLOSE_WAIT, and its own close is next."""
    client, server = bench.connection()
    echo(client, server)
    server.close()
    bench.step("the server closes")
    read_to_end(client)
    return client, server


@experiment("unanswered", "none", needs="nft")
def unanswered(bench: Bench) -> None:
    """Every SYN is lost on its way to the server, until the client's kernel gives up (ETIMEDOUT).

    Linux repeats a SYN four times a second apart (tcp_syn_linear_timeouts), and doubles the time only then.
    With tcp_syn_retries at 1 instead of 6 it gives up after three seconds; no packet tells that it has.
    """
    set_parameter("tcp_syn_retries", 1)
    bench.listen()
    with losing(TO_SERVER):
        client = bench.keep(socket.socket())
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", PORT))
        bench.step("the client connects; all its SYNs get lost", wait=1.5, hidden=GIVEN_UP)
        bench.step("the client's kernel gives up", wait=1.5, hidden=GIVEN_UP)
    error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    bench.check(f"connect() failed with ETIMEDOUT (errno {error})", error == 110)  # noqa: PLR2004 - its number


@experiment("graceful", "client", "fin-lost", needs="nft")
def fin_lost(bench: Bench) -> None:
    """The client's FIN is lost twice; the third one gets through.

    The first two are 0.2 s and 0.4 s too early. Which of the three it was that arrived, its timestamp
    tells, which the server's ACK echoes.
    """
    client, server = bench.connection()
    echo(client, server)
    with losing(f"{TO_SERVER} {FIN}") as fin:
        client.close()
        bench.step("the client closes; its FIN is lost", wait=0.02)
        fin.wait_for(2)
    read_to_end(server)
    bench.step("the path is well again; the FIN arrives")
    server.close()
    bench.step("the server closes")


@experiment("closing", "client", "stuck-fin-wait-1", needs="nft", stuck_after=1)
def fin_unanswered(bench: Bench) -> None:
    """From before the client's FIN on, everything to the server gets lost, until the kernel gives up.

    Nobody holds the client's socket any more, and its FIN is not acknowledged. tcp_orphan_retries, here 2,
    is no count of repetitions but stands for a time, in which there are four. Then the kernel forgets the
    connection, and sends nothing.
    """
    set_parameter("tcp_orphan_retries", 2)
    client, server = bench.connection()
    echo(client, server)
    with losing(TO_SERVER):
        client.close()
        bench.step("the client closes; its FIN is lost")
        bench.step("the client sends its FIN again and again", wait=1.7, hidden=GIVEN_UP)
        bench.step("the client's kernel gives up", wait=2.2, hidden=GIVEN_UP)


@experiment(
    *("closing", "both", "bind-blocked stuck-closing time-wait-restarted"), needs="nft", stuck_after=2
)
def closing_stuck(bench: Bench) -> None:
    """The FINs cross, and all that acknowledges the client's is lost: it stays in CLOSING."""
    client, server = bench.connection()
    echo(client, server)
    with losing(f"{TO_CLIENT} {PURE_ACK}"):
        close_both_on_a_slow_line(client, server)
        bench.step("both close; the ACKs of the client's FIN are lost", wait=0.6)
        bench.step("the client sends its FIN again and again", wait=4)


@experiment(
    *("closing", "server", "bind-blocked final-ack-lost stuck-last-ack time-wait-restarted"),
    needs="nft",
    stuck_after=2,
)
def last_ack_stuck(bench: Bench) -> None:
    """Every final ACK is lost: the client stays in LAST_ACK, and sends its FIN again and again.

    The server, in TIME_WAIT, answers each of them, and begins its 2MSL anew each time.
    """
    client, _ = server_closes_up_to_last_ack(bench)
    with losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.close()
        bench.step("the client closes; the final ACK is lost")
        bench.step("the client sends its FIN again and again", wait=4.5)


@experiment("graceful", "server", "bind-blocked final-ack-lost time-wait-restarted", needs="nft")
def last_ack_given_up(bench: Bench) -> None:
    """Every final ACK is lost, until the client's kernel gives up (tcp_orphan_retries, here 2).

    No packet tells that it has given up. It falls silent just as if the last ACK had arrived after all,
    and that is what one must assume.
    """
    set_parameter("tcp_orphan_retries", 2)
    client, _ = server_closes_up_to_last_ack(bench)
    with losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.close()
        bench.step("the client closes; the final ACK is lost")
        why = "whether the last ACK arrived, its silence will not tell from giving up"
        bench.step("the client sends its FIN again and again", wait=1.7, hidden={End.CLIENT: why})
        bench.step("the client's kernel gives up", wait=2.2)


@experiment("open", "none", "half-open", needs="nft", stuck_after=1)
def half_open(bench: Bench) -> None:
    """The path dies while the client sends: repetitions without an answer, until its kernel gives up.

    The client's program gets ETIMEDOUT, here after 3 s (tcp_retries2 is 2 instead of 15, which takes a
    quarter of an hour). The server, which has nothing to send, stays ESTABLISHED for ever: only keepalive
    would tell it.
    """
    set_parameter("tcp_retries2", 2)
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    with losing(TO_SERVER):
        client.sendall(b"anyone there?")
        bench.step("the path dies; the client sends again and again", wait=2, hidden=GIVEN_UP)
        bench.step("the client's kernel gives up", wait=2.2, hidden=GIVEN_UP)
    error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    bench.check(f"the client's next call fails with ETIMEDOUT (errno {error})", error == 110)  # noqa: PLR2004


@experiment("graceful", "client", "keepalive")
def keepalive(bench: Bench) -> None:
    """An idle connection with SO_KEEPALIVE: every probe is answered. Then the client closes.

    A probe is one number below the next one, without data, so that it must be answered. The defaults are
    two hours of silence, then 9 probes 75 s apart; here it is a second.
    """
    client, server = bench.connection()
    keep_alive(client, probes=3)
    echo(client, server)
    bench.step("nobody says anything; the client probes three times", wait=3.5)
    client.close()
    bench.step("the client closes")
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment("reset", "client", "half-open keepalive reset-cause", needs="nft")
def keepalive_unanswered(bench: Bench) -> None:
    """The path of an idle connection dies: the client's keepalive gives up after three probes.

    It then sends a RST, which does not arrive either; the program gets ETIMEDOUT. The server stays
    ESTABLISHED.
    """
    client, server = bench.connection()
    keep_alive(client, probes=3)
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    with losing(TO_SERVER):
        bench.step("the path dies; the client probes in vain", wait=4.5)
    with contextlib.suppress(TimeoutError):
        client.recv(100)
        bench.check("the client's next call fails with ETIMEDOUT", truth=False)
