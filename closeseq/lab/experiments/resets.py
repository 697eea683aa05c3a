"""A RST ends it, or does not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab import actions
from closeseq.lab.actions import abort, echo, read_to_end
from closeseq.lab.experiments.losses import TO_CLIENT, TO_SERVER
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import losing
from closeseq.lab.registry import experiment

if TYPE_CHECKING:
    import socket

    from closeseq.lab.bench import Bench


@experiment("refused", "server", "reset-cause")
def refused(bench: Bench) -> None:
    """Nobody listens on the port: the SYN is answered by RST (ECONNREFUSED)."""
    with contextlib.suppress(ConnectionRefusedError):
        bench.connect()
    bench.step("the client tries to connect")


@experiment("reset", "client", "reset-cause")
def linger_zero(bench: Bench) -> None:
    """The client closes with SO_LINGER 0: RST instead of FIN, and no TIME_WAIT anywhere."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    abort(client)
    bench.step("the client closes with SO_LINGER 0")


@experiment("reset", "server", "reset-cause")
def unread_data_reset(bench: Bench) -> None:
    """The server closes while data lies unread in its receive queue: RST instead of FIN.

    Who closes without having read what was sent throws data away, and Linux says so to the sender (RFC
    2525 2.17).
    """
    client, server = bench.connection()
    client.sendall(b"nobody reads this")
    bench.step("the client sends something")
    server.close()
    bench.step("the server closes without having read it")


@experiment("reset", "client", "data-after-close reset-cause")
def data_after_close(bench: Bench) -> None:
    """The client closes fully while the server still has something to send: it is answered by RST."""
    client, server = bench.connection()
    client.sendall(b"a question")
    server.recv(100)
    client.close()
    bench.step("the client asks, and closes")
    server.sendall(b"an answer that nobody awaits")
    bench.step("the server answers")


@experiment("graceful", "client", "challenge-ack reset-cause")
def challenge_ack(bench: Bench) -> None:
    """A forged RST whose number is within the window, but not the expected one, is challenged (RFC 5961).

    The server answers it with an ACK, and goes on. Had the RST been genuine, the ACK would have brought
    another one, with the right number.
    """
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    ack = actions.last_segment(bench, lambda tcp: tcp.dport == PORT)
    actions.send_reset_like(ack, ahead=1000)
    bench.step("a forged RST arrives")
    echo(client, server)
    client.close()
    bench.step("they talk on, and the client closes")
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment("reset", "client", "data-after-close reset-cause")
def forged_reset(bench: Bench) -> None:
    """A forged RST with exactly the expected number is believed, and the true client learns it later.

    What gives it away is its IP id, and often its TTL: they do not go with the client's other packets.
    """
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    ack = actions.last_segment(bench, lambda tcp: tcp.dport == PORT)
    actions.send_reset_like(ack)
    why = "the RST was not its own: it knows nothing of it yet"
    bench.step("a forged RST arrives", hidden={End.CLIENT: why})
    client.sendall(b"still here")
    bench.step("the client sends on")


@experiment("aborted-open", "client", "reset-cause")
def syn_scan(bench: Bench) -> None:
    """A SYN comes for which there is no socket, as port scanners send it: its answer is answered by RST."""
    bench.listen()
    bench.answers.handmade = (End.CLIENT,)
    actions.send_syn(bench.client_port, to=PORT)
    bench.step("a SYN made by hand arrives")


@experiment(
    "replaced graceful", "none client", "blocked-by-old-connection challenge-ack reset-cause", needs="nft"
)
def client_returns(bench: Bench) -> None:
    """The client's machine crashes and comes back with the same port (RFC 9293 3.5.1, figure 9).

    The server, still ESTABLISHED, challenges the SYN; the client's kernel does not know what that ACK is
    about and answers RST; the SYN sent again then finds a listening port.
    """
    listener = bench.listen()
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    crash(client)
    bench.step("the client's machine crashes", hidden={End.CLIENT: "who loses power sends nothing"})
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    bench.step("the client connects again, from the same port")
    echo(client, server)
    client.close()
    bench.step("they talk, and the client closes")
    server.close()
    bench.step("the server closes")


@experiment("replaced graceful", "none client", needs="nft")
def replaced(bench: Bench) -> None:
    """Both machines crash, and the client connects anew from the same port.

    No packet shows how the first connection ended.
    """
    listener = bench.listen()
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    crash(client)
    crash(server)
    bench.step("both machines crash", hidden=dict.fromkeys(End, "who loses power sends nothing"))
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    client.close()
    bench.step("the client connects again, they talk, and the client closes")
    server.close()
    bench.step("the server closes")


def crash(victim: socket.socket) -> None:
    """End a socket while its RST, which a machine without power would not send, gets lost."""
    direction = TO_CLIENT if victim.getsockname()[1] == PORT else TO_SERVER
    with losing(direction, before_capture=True), contextlib.suppress(OSError):
        abort(victim)
