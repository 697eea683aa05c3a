"""Drive real connections through random programs, and write their packets and the kernel's truth."""

import asyncio
import json
import os
import random
import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from closeseq.lab.kernel_answers import Trace, by_ends
from closeseq.lab.network import enter
from closeseq.linux.tracepoint import SocketTransition
from kernel_truth.networks import Network, loopback, over_path
from kernel_truth.programs import PATHS, SIDES, Step, random_program

PORTS = range(10000, 32000)  # of servers: below those the kernel gives to clients
STARTS = 60  # connections started a second
WAITS = (0.5, 1.5)  # seconds, after the last step
RECEIVE_TIMEOUT = 1.0  # seconds an application waits for data
TIME_LIMIT = 60  # seconds a recording may take after the last start
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST


@dataclass
class Connection:
    """One connection: its program, its two sockets while they are open, and what was seen of it."""

    number: int
    server_port: int
    program: list[Step]
    client_port: int = 0
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    end: float = 0.0

    def ports(self, side: str) -> tuple[int, int]:
        """Return the ports of this side and of the other."""
        pair = (self.client_port, self.server_port)
        return pair if side == "client" else pair[::-1]


def record(capture: Path, *, connections: int, seed: int, loss: str, ip: int, singly: float = 0.0) -> Path:
    """Write the file `capture` and, beside it, the truth; return the truth's path.

    `loss` is a key of PLACES: where packets get lost on loopback, or the kind of a path. The programs depend
    on the arguments alone; what the kernel makes of them differs a little from run to run. Must run as root
    and in the main thread, before other threads are started.
    """
    enter()
    _allow_open_files(4 * connections + 100)
    dice = random.Random(f"{seed} {loss} {ip}")
    ports = _ports(connections)
    jobs = [Connection(number, port, random_program(dice, loss, singly)) for number, port in enumerate(ports)]
    network_of = over_path(loss, dice) if loss in PATHS else loopback
    with ExitStack() as at_end:
        # The sockets left open are closed last: closing them must add neither packets nor transitions.
        for job in jobs:
            at_end.callback(_close_all, job)
        trace = at_end.enter_context(Trace(ports))
        with network_of(capture, ports, ip) as network:
            asyncio.run(_drive(jobs, network))
            network.check()
            capture_end = time.time()
            transitions = _transitions(trace)
            facts = {job.number: _facts(network, job) for job in jobs}
        return _write_truth(capture, jobs, transitions, facts, capture_end)


def _transitions(trace: Trace) -> list[SocketTransition]:
    """Return all transitions. Raises RuntimeError if they may be incomplete, or at wrong times."""
    trace.catch_up()
    if doubt := trace.refusal or trace.doubt:
        raise RuntimeError(doubt)
    return trace.transitions


def _allow_open_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), max(hard, needed)))


def _ports(count: int) -> range:
    """Choose a port for each server.

    The tracepoint shows the sockets of all namespaces, so runs at the same time had better not use
    the same ports. The kernel gives processes numbers in turn: neighbours get different ranges.
    """
    first = PORTS.start + os.getpid() % (len(PORTS) // count) * count
    return range(first, first + count)


def _close_all(job: Connection) -> None:
    for open_socket in job.sockets.values():
        open_socket.close()
    job.sockets.clear()


def _facts(network: Network, job: Connection) -> dict[str, Any]:
    return {"host": network.host("server"), **network.facts(job.server_port)}


async def _drive(jobs: list[Connection], network: Network) -> None:
    """Run all connections, one starting shortly after the other."""
    with ThreadPoolExecutor(2) as closers:
        driver = _Driver(network, closers)
        async with asyncio.timeout(len(jobs) / STARTS + TIME_LIMIT), asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(driver.run(job))
                await asyncio.sleep(1 / STARTS)


class _Driver:
    """Takes connections through their programs step by step."""

    def __init__(self, network: Network, closers: ThreadPoolExecutor) -> None:
        self._network = network
        self._closers = closers

    async def run(self, job: Connection) -> None:
        """Open the connection, take every step of its program, and keep looking for two seconds more."""
        await self._open(job)
        await asyncio.sleep(0.05)
        self._look(job, "connect")
        for step in job.program:
            name = await self._take(job, step)
            if name is not None:
                job.done.append(name)
                await asyncio.sleep(step.pause)
                self._look(job, name)
        for wait in WAITS:
            await asyncio.sleep(wait)
            self._look(job, f"wait {wait}")
        job.end = time.time()

    def _look(self, job: Connection, after: str) -> None:
        """Record both endpoints' states in the socket table now."""
        states = {side: self._network.state(side, *job.ports(side)) for side in SIDES}
        job.snapshots.append({"time": time.time(), **states, "after": after})

    async def _open(self, job: Connection) -> None:
        loop, host = asyncio.get_running_loop(), self._network.host("server")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self._network.at("server"):
            listener = socket.socket(family)
        with self._network.at("client"):
            client = job.sockets["client"] = socket.socket(family)
        with listener:
            listener.setblocking(False)
            listener.bind((host, job.server_port))
            listener.listen(1)
            client.setblocking(False)
            await loop.sock_connect(client, (host, job.server_port))
            job.sockets["server"], peer = await loop.sock_accept(listener)
            job.client_port = peer[1]

    async def _take(self, job: Connection, step: Step) -> str | None:
        """Take one step; return its name, with the error if it failed, or None if there was no socket."""
        if step.place:
            self._disturb(job, step)
            return str(step)
        wanted = SIDES if step.side == "both" else (step.side,)
        if any(side not in job.sockets for side in wanted):
            return None
        try:
            if step.side == "both":
                await self._close_both(job)
            else:
                await _act(job, step)
        except OSError as error:
            return f"{step} !{error.errno}"  # !None when RECEIVE_TIMEOUT ended (TimeoutError)
        return str(step)

    def _disturb(self, job: Connection, step: Step) -> None:
        """Do to the network what a step says."""
        ports = job.ports(step.side)
        if step.action == "lose":
            self._network.lose(step.place, step.side, step.kind, *ports)
        elif step.action == "drop":
            self._network.drop(step.place, step.side, *ports)
        else:
            self._network.heal(step.place, step.side, *ports)

    async def _close_both(self, job: Connection) -> None:
        """Close both ends in two threads that wait for each other, so that now and then FINs cross."""
        loop, barrier = asyncio.get_running_loop(), threading.Barrier(2, timeout=5)

        def close(one: socket.socket) -> None:
            barrier.wait()
            one.close()

        ends = [job.sockets.pop(side) for side in SIDES]
        await asyncio.gather(*(loop.run_in_executor(self._closers, close, end) for end in ends))


async def _act(job: Connection, step: Step) -> None:
    """Do what an application does with its socket."""
    own = job.sockets[step.side]
    if step.action == "send":
        own.send(b"x" * step.size)
    elif step.action == "recv":
        await asyncio.wait_for(asyncio.get_running_loop().sock_recv(own, 1 << 20), RECEIVE_TIMEOUT)
    elif step.action == "shutdown":
        own.shutdown(socket.SHUT_WR)
    else:
        if step.action == "abort":
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        del job.sockets[step.side]
        own.close()


def _write_truth(
    capture: Path,
    jobs: list[Connection],
    transitions: list[SocketTransition],
    facts: dict[int, dict[str, Any]],
    capture_end: float,
) -> Path:
    path = capture.with_suffix(".truth.jsonl")
    of = by_ends(transitions)
    with path.open("w") as lines:
        for job in jobs:
            truth = {
                "connection": job.number,
                "client_port": job.client_port,
                "server_port": job.server_port,
                **facts[job.number],
                "program": job.done,
                "snapshots": job.snapshots,
                "end": job.end,
                "left_open": sorted(job.sockets),
                "transitions": {
                    side: [_transition(one) for one in of.get(job.ports(side), [])] for side in SIDES
                },
                "capture_end": capture_end,
            }
            lines.write(json.dumps(truth) + "\n")
    return path


def _transition(one: SocketTransition) -> tuple[float, str, str]:
    """Return the Unix time, the state before, and the one after."""
    return round(one.time_ns / 1e9, 6), str(one.before), str(one.after)
