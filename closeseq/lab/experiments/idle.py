"""Nothing is sent for a while; then one end closes when the other sends, or the path has forgotten them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import echo, read_to_end
from closeseq.lab.experiments.losses import GIVEN_UP, TO_CLIENT, TO_SERVER
from closeseq.lab.faults import Conditions, PathSettings
from closeseq.lab.network import losing, set_parameter
from closeseq.lab.registry import experiment
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

FAR = Conditions(SECOND // 5)
NEAR_THE_CLIENT, NEAR_THE_SERVER = PathSettings(0.02, FAR), PathSettings(0.98, FAR)
SETTLED = 0.5  # seconds after which all has arrived, and been answered
IDLE = 1.2  # seconds
REQUEST = b"GET / HTTP/1.1\r\nHost: pool.example\r\nConnection: keep-alive\r\n\r\n"
GOODBYE = bytes(31)  # as long as a TLS close_notify


def idle_connection(bench: Bench, wait: float = IDLE) -> tuple[socket.socket, socket.socket]:
    """Connect, echo, and be silent for a while.

    Args:
        bench: of the experiment.
        wait: seconds of silence.

    Returns:
        client and server.
    """
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back; then they idle", wait=wait)
    return client, server


def request_meets_fin(bench: Bench) -> None:
    """Have the server close an idle connection at the moment at which the client sends a request."""
    client, server = idle_connection(bench)
    client.sendall(REQUEST)
    server.close()
    bench.step("the server closes, and at once the client sends its next request", wait=SETTLED)


@experiment("reset", "server", "keepalive-race data-after-close reset-cause", path=NEAR_THE_SERVER)
def request_crosses_fin(bench: Bench) -> None:
    """The server closes an idle connection, and the client's next request is under way by then.

    The server's program never sees it: the kernel answers with RST, as it does after close(). Nobody did
    anything wrong; the server's timeout was the shorter one. The client may send the request again.
    """
    request_meets_fin(bench)


@experiment("reset", "server", "keepalive-race reset-cause", path=NEAR_THE_CLIENT)
def fin_crosses_request(bench: Bench) -> None:
    """The same captured near the client, where the request passes before the FIN."""
    request_meets_fin(bench)


@experiment("reset", "server", "keepalive-race data-after-close reset-cause")
def stale_pool(bench: Bench) -> None:
    """The server closes an idle connection, and half a second later the client still sends a request on it.

    Its kernel has acknowledged the FIN; its program has not looked (recv() would return 0).
    """
    client, server = idle_connection(bench)
    server.close()
    bench.step("the server closes", wait=SETTLED)
    client.sendall(REQUEST)
    bench.step("the client takes the connection from its pool and sends a request")


@experiment("reset", "server", "data-after-close reset-cause")
def goodbye_after_close(bench: Bench) -> None:
    """The opposite: the server closes an idle connection, and the client only says goodbye, as TLS does."""
    client, server = idle_connection(bench)
    server.close()
    bench.step("the server closes", wait=SETTLED)
    client.sendall(GOODBYE)
    bench.step("the client sends a goodbye of 31 bytes")


@experiment("open", "none", "half-open idle-cut", needs="nft", stuck_after=1)
def idle_cut(bench: Bench) -> None:
    """The path forgets an idle connection, as a NAT does: what the client then sends gets no answer.

    Here a silence of a second counts as long, and the kernel gives up after 3 s. half-open is the opposite,
    where the path dies while they talk.
    """
    set_parameter("tcp_retries2", 2)
    client, _ = idle_connection(bench)
    with losing(TO_SERVER):
        client.sendall(REQUEST)
        bench.step("the path has forgotten them; the client sends again and again", wait=2, hidden=GIVEN_UP)
        bench.step("the client's kernel gives up", wait=2.2, hidden=GIVEN_UP)


@experiment("reset", "server", "idle-cut reset-cause", needs="nft", stuck_after=1)
def idle_cut_reset(bench: Bench) -> None:
    """A firewall has forgotten an idle connection, and answers what the client then sends with RST.

    The RST bears the server's address, and the server knows nothing of it: it stays ESTABLISHED.
    """
    client, _ = idle_connection(bench)
    with losing(TO_SERVER, reset=True):
        client.sendall(REQUEST)
        why = "the RST is the firewall's, which sends it in the server's name"
        bench.step("the firewall has forgotten them; the client sends", hidden={End.SERVER: why})


@experiment("graceful", "client", stuck_after=1)
def idle_survived(bench: Bench) -> None:
    """The opposite: after the same silence the request is answered."""
    client, server = idle_connection(bench)
    echo(client, server)
    client.close()
    bench.step("they talk again, and the client closes")
    read_to_end(server)
    server.close()
    bench.step("the server closes")


@experiment(
    *("closing", "client", "half-open half-close-cut stuck-close-wait stuck-fin-wait-2"),
    needs="nft",
    stuck_after=1,
)
def half_close_cut(bench: Bench) -> None:
    """The client half-closes and waits for the answer, and the path forgets the two before it comes.

    half-close is the opposite.
    """
    set_parameter("tcp_retries2", 2)
    client, server = bench.connection()
    client.sendall(REQUEST)
    client.shutdown(socket.SHUT_WR)
    read_to_end(server)
    bench.step("the client asks, and closes its side; the server thinks", wait=IDLE)
    gone = {End.SERVER: "its kernel has given up, and nothing is sent then"}
    with losing(TO_CLIENT):
        server.sendall(b"the answer")
        bench.step("the path has forgotten them; the server sends again and again", wait=2, hidden=gone)
        bench.step("the server's kernel gives up", wait=2.2, hidden=gone)
