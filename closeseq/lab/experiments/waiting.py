"""One program closes or dies, and the other one does not notice."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import fill_window, read_to_end
from closeseq.lab.network import set_parameter
from closeseq.lab.registry import experiment
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

SMALL_BUFFER = 4096  # bytes


@experiment("graceful", "client", "three-segment-close")
def killed_peer(bench: Bench) -> None:
    """The client is killed (SIGKILL), and the server closes.

    No program can clean up after SIGKILL, so the kernel does: it closes the dead program's socket. What
    was killed, and what called close(), packets cannot tell: it is the same FIN.
    """
    bench.start("echo-server")
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client waits for its user")
    client.kill()
    bench.step("kill -9 at the client")


@experiment("closing", "server", "bind-blocked")
def server_killed(bench: Bench) -> None:
    """The server is killed while the client sleeps, and the client sleeps on.

    The kernel closes the dead server's socket: FIN, ACK, and then nothing more. The server's end waits in
    FIN_WAIT_2 without an owner, the client's in CLOSE_WAIT; the bug, if it is one, is the client's.
    """
    server = bench.start("echo-server")
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client waits for its user")
    server.kill()
    bench.step("kill -9 at the server")
    bench.step("the client still waits for its user", wait=1)


@experiment("closing", "server", "bind-blocked")
def sleeping_reader(bench: Bench) -> None:
    """A server writes to a client that sleeps; the server is killed.

    What was sent lies in the client's receive queue, the FIN behind it. The client's kernel has
    acknowledged all of it, so that the server's end is in FIN_WAIT_2; its program has read none of it, so
    that it cannot know that there is an end of file.
    """
    # So slowly that a busy machine, on which this takes seconds, does not fill the client's window.
    server = bench.start("endless-server", "--pause", 0.2)
    bench.start("sleeping-client")
    bench.step("the server writes, the client sleeps", wait=0.3)
    server.kill()
    bench.step("kill -9 at the server")
    view = bench.end(End.CLIENT)
    bench.check(
        f"the client has unread data in CLOSE_WAIT: {view.entry.receive_queue if view.entry else 0} bytes",
        view.entry and view.entry.state is State.CLOSE_WAIT and view.entry.receive_queue,
    )
    bench.step("the client still sleeps", wait=1)


@experiment("open", "none")
def fin_behind_window(bench: Bench) -> None:
    """A server writes until the sleeping client's window is zero, and is killed: its FIN stays behind.

    The kernel closes the dead server's socket, but the FIN queues up behind data for which there is no
    window. It never reaches the wire: only window probes do, which look like keepalives. Some have no
    answer, because Linux answers them at most every 0.5 s (tcp_invalid_ratelimit), not because they were
    lost.
    """
    server = bench.start("endless-server")
    bench.start("sleeping-client", "--buffer", SMALL_BUFFER)
    bench.step("the server writes, the client sleeps", wait=1)
    server.kill()
    hidden = {
        End.SERVER: "its FIN waits behind data that the client has no window for, and is not on the wire"
    }
    bench.step("kill -9 at the server", hidden=hidden)
    bench.step("the client still sleeps", wait=2, hidden=hidden)


@experiment("graceful", "server", "bind-blocked fin-with-data")
def window_reopened(bench: Bench) -> None:
    """The server closes while the client's window is zero; the FIN comes when the client reads on.

    As in fin-behind-window the close is not on the wire for a second. When the client reads, the window
    opens, and the FIN comes with the last of the data.
    """
    listener = bench.listen()
    client = bench.connect(receive_buffer=SMALL_BUFFER)
    server = bench.accept(listener)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
    fill_window(server)
    bench.step("the client sleeps, and the server fills its window", wait=0.3)
    server.close()
    why = "its FIN waits for a window, and is not on the wire"
    bench.step("the server closes", wait=1, hidden={End.SERVER: why})
    read_to_end(client)
    bench.step("the client reads everything")
    client.close()
    bench.step("the client closes")


@experiment("reset", "server", "data-after-close reset-cause")
def write_only_client(bench: Bench) -> None:
    """A client that only writes does not learn that its server has closed.

    End of file is learnt by reading. One who never reads stands in CLOSE_WAIT without knowing it. The next
    write still succeeds, and is answered by RST; the one after that fails with EPIPE, and is not on the
    wire at all.
    """
    listener = bench.listen()
    client = bench.start("writing-client")
    server = bench.accept(listener)
    for number in range(3):
        client.say(f"line {number}")
        server.recv(100)
        time.sleep(0.05)
    server.close()
    bench.step("the client has written three lines; the server closes")
    bench.check("the next write succeeds", client.say("line 3") == "written")
    bench.step("the client writes on")
    said = client.say("line 4")
    bench.check(f"the one after it fails: {said}", "Broken pipe" in said)
    bench.step("the client's program ends")


@experiment("closing open", "client none", "never-accepted stuck-close-wait stuck-fin-wait-2", stuck_after=1)
def never_accepted(bench: Bench) -> None:
    """A server listens and never calls accept(); its client asks, and closes.

    The kernel does the handshake, takes the question, and acknowledges the FIN, all without the program. Up
    to the backlog of listen() such sockets wait in its queue; nobody owns them, so that no tool names a
    process for them.
    """
    bench.listen()
    client = bench.connect()
    client.sendall(b"anyone there?")
    bench.step("the client connects and asks")
    client.close()
    bench.step("the client closes", wait=1.2)
    entry = bench.end(End.SERVER).entry
    bench.check("the server's end waits for accept()", entry and entry.unaccepted and not entry.owner)
    bench.connect()
    bench.step("another client connects")


def clients_of_a_leaky_server(bench: Bench) -> None:
    """Have five clients that ask, get their answer, and close."""
    for _ in range(5):
        client = bench.connect()
        client.sendall(b"hello")
        client.recv(100)
        client.close()
        time.sleep(0.05)


@experiment(
    *("reset closing", "client"),
    "data-after-close reset-cause slow-close stuck-close-wait stuck-fin-wait-2",
    stuck_after=2,
    fin_timeout=3,
)
def leaky_server(bench: Bench) -> None:
    """A server ignores end of file from five clients, until their FIN_WAIT_2 has expired.

    It collects sockets in CLOSE_WAIT, and no timer ever ends those. The clients' ends have no owner any
    more; Linux drops them after tcp_fin_timeout, here 3 s instead of 60, without a packet. When the server
    then does send or close, there is nobody left: RST.
    """
    set_parameter("tcp_fin_timeout", 3)
    server = bench.start("leaky-server")
    clients_of_a_leaky_server(bench)
    bench.step("five clients ask, get their answer, and close")
    owners = {view.entry.owner for view in bench.views if view.entry and view.end is End.SERVER}
    bench.check(
        "the kernel names who holds the sockets in CLOSE_WAIT: leaky-server", owners == {"leaky-server"}
    )
    bench.step("the clients' FIN_WAIT_2 expires", wait=4)
    server.say("send 1")
    bench.step("the server sends something to the first client")
    server.say("close 2")
    bench.step("the server closes the second one's socket")


@experiment("graceful", "client", "slow-close")
def leaky_server_restarted(bench: Bench) -> None:
    """A server ignores end of file from five clients, and is restarted.

    The kernel closes the killed server's sockets. This time the clients' ends are still there, in
    FIN_WAIT_2: they get their FIN, and go to TIME_WAIT. A restart frees the sockets, and mends nothing.
    """
    server = bench.start("leaky-server", "--reuse")
    clients_of_a_leaky_server(bench)
    bench.step("five clients ask, get their answer, and close", wait=1)
    server.kill()
    bench.step("kill -9 at the server")
    bench.start("leaky-server", "--reuse")
    bench.step("the server is started again")
