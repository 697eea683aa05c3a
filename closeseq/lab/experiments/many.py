"""What many connections show together: idle timeouts, ports that run out, resets by habit."""

from __future__ import annotations

import errno
import time
from functools import partial
from typing import TYPE_CHECKING

from closeseq.lab.actions import abort, echo, read_to_end
from closeseq.lab.network import set_parameter
from closeseq.lab.registry import experiment

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from closeseq.lab.bench import Bench

    Pair = tuple[socket.socket, socket.socket]  # client, server

CONNECTIONS = 6
APART = 0.06  # seconds between two connections: longer than an ACK is delayed
TIMEOUT = 1.2  # seconds for which the server keeps an idle connection
PORTS = 24  # for clients; of an odd number, connect() may leave one out


def opened(bench: Bench, number: int) -> list[Pair]:
    """Open connections to one listener, one after the other, and echo once on each.

    Args:
        bench: of the experiment.
        number: how many.

    Returns:
        client and server of each, in the order of opening.
    """
    pairs = []
    with bench.listen() as listener:
        for _ in range(number):
            client = bench.connect()
            pairs.append((client, bench.accept(listener)))
            echo(*pairs[-1])
            time.sleep(APART)
    bench.step(f"{number} clients connect; each sends a line, and the server sends it back", wait=0)
    return pairs


def at_times(plan: Iterable[tuple[float, Callable[[], object]]]) -> None:
    """Do things at their moments, given in seconds of the monotonic clock."""
    for moment, act in sorted(plan, key=lambda one: one[0]):
        time.sleep(max(0.0, moment - time.monotonic()))
        act()


def closed_after(pairs: list[Pair], idle: list[float], *, again: float) -> None:
    """Have each client use its connection again, then the server close it, and its client a moment later.

    Args:
        pairs: the connections.
        idle: seconds from the last echo of each until the server closes it.
        again: seconds between the first echo and another.
    """
    plan: list[tuple[float, Callable[[], object]]] = []
    began = time.monotonic()
    for place, ((client, server), seconds) in enumerate(zip(pairs, idle, strict=True)):
        first = began + APART * place
        last = first + again
        plan += [
            (first, partial(echo, client, server)),
            (last, partial(echo, client, server)),
            (last + seconds, server.close),
            (last + seconds + APART, partial(follow, client)),
        ]
    at_times(plan)


def follow(client: socket.socket) -> None:
    """Read end of file, and close as well."""
    read_to_end(client)
    client.close()


@experiment("graceful", "server", "bind-blocked", population="idle-timeout")
def server_closes_idle(bench: Bench) -> None:
    """The server closes every connection that has been idle for 1.2 s; its clients use them again sooner."""
    pairs = opened(bench, CONNECTIONS)
    closed_after(pairs, [TIMEOUT] * CONNECTIONS, again=0.3)
    bench.step(
        "each sends two more lines soon; then the server closes after 1.2 s of idleness, and its client"
    )


@experiment("graceful", "server", "bind-blocked", population="idle-timeout timeouts-in-wrong-order")
def pool_outlives_server(bench: Bench) -> None:
    """The same, but clients use connections again after 1.1 s, shortly before the server would close them.

    It went well six times; a little later, and the request meets the server's FIN (see keepalive-race).
    """
    pairs = opened(bench, CONNECTIONS)
    closed_after(pairs, [TIMEOUT] * CONNECTIONS, again=1.1)
    bench.step(
        "two more lines each, 1.1 s apart; then the server closes after 1.2 s of idleness, and its client"
    )


@experiment("graceful", "server", "bind-blocked")
def server_closes_when_done(bench: Bench) -> None:
    """The opposite: the server closes after another silence each time, so that no timer can be seen in it."""
    pairs = opened(bench, CONNECTIONS)
    closed_after(pairs, [1.05 + 0.37 * place for place in range(CONNECTIONS)], again=0.3)
    bench.step("each sends two more lines; then the server closes when its work is done, and its client")


def few_ports(bench: Bench) -> None:
    """Give clients PORTS ports, of which none in TIME_WAIT is used again."""
    set_parameter("ip_local_port_range", f"{bench.client_port + 1} {bench.client_port + PORTS}")
    set_parameter("tcp_tw_reuse", 0)


@experiment("graceful", "client", population="port-pressure", ephemeral_ports=PORTS)
def ports_run_out(bench: Bench) -> None:
    """A client opens a connection for every request and closes it first, until it has no port left.

    Here the kernel has 24 ports for clients (net.ipv4.ip_local_port_range) instead of 28,232, and
    net.ipv4.tcp_tw_reuse is 0. Each TIME_WAIT holds one of them for 60 s.
    """
    few_ports(bench)
    each_request(bench, first=0)
    bench.step("the client has opened 24 connections, and closed each first")
    with bench.listen():
        try:
            bench.connect()
            said = "connect() succeeded"
        except OSError as error:
            said = f"connect() failed with {errno.errorcode[error.errno or 0]}"
    bench.step("it connects once more")
    bench.check(said, said.endswith("EADDRNOTAVAIL"))


@experiment("graceful", "server", "bind-blocked", ephemeral_ports=PORTS)
def server_keeps_time_wait(bench: Bench) -> None:
    """The opposite: the server closes as many connections first, and no port of the client waits."""
    few_ports(bench)
    each_request(bench, first=1)
    bench.step("the client has opened 24 connections, and the server has closed each first")


def each_request(bench: Bench, first: int) -> None:
    """Open PORTS connections, one for each request, and close the same side of each first.

    Args:
        bench: of the experiment.
        first: the side: 0 the client, 1 the server.
    """
    with bench.listen() as listener:
        pairs = []
        for _ in range(PORTS):
            client = bench.connect()
            pairs.append((client, bench.accept(listener)))
            echo(*pairs[-1])
        time.sleep(APART)
        for pair in pairs:
            pair[first].close()
        time.sleep(APART)
        for pair in pairs:
            read_to_end(pair[1 - first])
            pair[1 - first].close()


@experiment("reset", "client", "reset-cause", population="resets-by-habit")
def health_checks_reset(bench: Bench) -> None:
    """A health check ends each of its connections with RST (SO_LINGER 0), after it has its answer.

    All data was acknowledged, and nobody misses anything: it is its habit.
    """
    for client, _ in opened(bench, CONNECTIONS):
        abort(client)
    bench.step("each client closes with SO_LINGER 0")


@experiment("reset graceful", "client", "reset-cause")
def some_clients_reset(bench: Bench) -> None:
    """The opposite: as many connections end with RST, and two more do not, so it is no habit."""
    pairs = opened(bench, CONNECTIONS + 2)
    for client, _ in pairs[:CONNECTIONS]:
        abort(client)
    for client, server in pairs[CONNECTIONS:]:
        client.close()
        time.sleep(APART)
        server.close()
    bench.step("six clients close with SO_LINGER 0, and two simply close, as their server then does")
