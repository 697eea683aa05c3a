"""Old connections that keep a port, and how to get it nevertheless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import echo
from closeseq.lab.network import set_parameter
from closeseq.lab.registry import experiment
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from closeseq.lab.bench import Bench

IN_USE = "Address already in use"  # EADDRINUSE
FIN_TIMEOUT = 5  # seconds


def restart(bench: Bench) -> None:
    """Try to start the server again, without SO_REUSEADDR and with it; what is found must have said so."""
    blocked = bench.finding("bind-blocked")
    bench.check(
        f"bind-blocked has said so: {blocked.summary if blocked else 'it has not'}",
        blocked and "EADDRINUSE" in blocked.summary,
    )
    said = bench.fails_to_start("echo-server")
    bench.check("bind() without SO_REUSEADDR fails with EADDRINUSE", IN_USE in said)
    again = bench.start("echo-server", "--reuse")
    bench.step("the server is restarted: without SO_REUSEADDR in vain, with it at once")
    again.interrupt()


@experiment("closing", "server", "stuck-close-wait stuck-fin-wait-2", fin_timeout=FIN_TIMEOUT)
def server_interrupted(bench: Bench) -> None:
    """The server gets SIGINT (Ctrl-C) while the client waits for its user; then it is restarted.

    The client's program hears nothing of it: CLOSE_WAIT, and FIN_WAIT_2 at the server, whose port that
    keeps. Without SO_REUSEADDR bind() fails until FIN_WAIT_2 has expired (here after 5 s instead of 60);
    with it, in the old run as well as in the new one, it succeeds at once.
    """
    set_parameter("tcp_fin_timeout", FIN_TIMEOUT)
    server = bench.start("echo-server", "--reuse")
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client waits for its user")
    server.interrupt()
    bench.step("Ctrl-C at the server")
    restart(bench)
    bench.step("the server's FIN_WAIT_2 expires", wait=FIN_TIMEOUT)
    bench.check("bind-blocked is not found any more", bench.finding("bind-blocked") is None)
    bench.start("echo-server")
    bench.step("the server is restarted without SO_REUSEADDR, and gets its port")


@experiment("graceful", "server", "bind-blocked slow-close")
def time_wait_blocks_bind(bench: Bench) -> None:
    """The server closes first, then the client; TIME_WAIT holds the server's port. Then it is restarted.

    Both ends have done everything right, and the port is still taken for a minute, unless SO_REUSEADDR
    is set.
    """
    server = bench.start("echo-server", "--reuse")
    client = bench.start("echo-client")
    client.say("hello")
    bench.step("the client waits for its user")
    server.interrupt()
    bench.step("Ctrl-C at the server", wait=1)
    client.quit()
    bench.step("the client quits")
    bench.check("the server is in TIME_WAIT", bench.end(End.SERVER).kernel is State.TIME_WAIT)
    restart(bench)


@experiment("graceful", "server", "bind-blocked slow-close")
def reuse_must_be_set_before(bench: Bench) -> None:
    """A server ran without SO_REUSEADDR, and is restarted with it: too late.

    On Linux the socket that waits must have had SO_REUSEADDR as well; what the new run sets does not help
    against what the old run left behind in FIN_WAIT_2, nor in TIME_WAIT.
    """
    server = bench.start("echo-server")
    client = bench.start("echo-client")
    client.say("hello")
    server.interrupt()
    bench.step("Ctrl-C at the server", wait=1)
    said = bench.fails_to_start("echo-server", "--reuse")
    bench.check("in FIN_WAIT_2: bind() fails with EADDRINUSE, though it sets SO_REUSEADDR", IN_USE in said)
    client.quit()
    bench.step("the client quits")
    said = bench.fails_to_start("echo-server", "--reuse")
    bench.check("in TIME_WAIT: bind() fails with EADDRINUSE, though it sets SO_REUSEADDR", IN_USE in said)


@experiment("graceful", "server client", "time-wait-reused")
def time_wait_reused(bench: Bench) -> None:
    """A client comes back from the same port while the server is in TIME_WAIT: its SYN reopens the pair.

    The SYN has a higher sequence number and a newer timestamp than all that was before, so that no old
    segment can be taken for a new one (RFC 9293 3.6.1, RFC 6191).
    """
    listener = bench.listen()
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    server.close()
    bench.step("the server closes")
    client.close()
    bench.step("the client closes; the server is in TIME_WAIT")
    client = bench.connect(port=bench.client_port)
    server = bench.accept(listener)
    echo(client, server)
    bench.step("the client connects again, from the same port")
    client.close()
    bench.step("the client closes, now as the first")
    server.close()
    bench.step("the server closes")
