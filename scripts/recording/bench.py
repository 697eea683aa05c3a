"""The workplace of one experiment: its capture, its lost packets, its slow line, its socket table."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess
    from types import TracebackType

PORT = 8080
CLIENT_PORT = 40000  # where a client has to come back from the same port
PAUSE = 0.1  # seconds; longer than Linux delays an ACK (40 ms), so that a step's packets belong to it
PATIENCE = 15.0  # seconds until something that should have happened is given up
SNAP_LENGTH = 128  # bytes; whole headers with options, also over IPv6, and little of the data

# ss abbreviates two states that the rest of the project spells out.
STATES = {"ESTAB": "ESTABLISHED", "SYN-RECV": "SYN_RECEIVED"}


def run(*command: str) -> str:
    """Run a command that has to succeed and give what it printed."""
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=PATIENCE).stdout


@dataclass
class Loss:
    """An nftables table that drops what matches, for as long as it exists."""

    table: str

    def wait_for(self, packets: int) -> None:
        """Wait until so many packets have been lost."""
        deadline = time.monotonic() + PATIENCE
        while self.count() < packets:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {self.count()} of {packets} packets were lost")
            time.sleep(0.005)

    def count(self) -> int:
        """Say how many packets have been lost so far."""
        counter = re.search(r"counter packets (\d+)", run("nft", "list", "table", "inet", self.table))
        assert counter, "the rule counts what it drops"
        return int(counter[1])


@dataclass
class Bench:
    """A capture in progress, and what an experiment needs besides sockets.

    Used in a network namespace of its own: it changes the kernel's settings there and takes the
    namespace's whole socket table for its own.
    """

    path: Path  # of the capture; the socket table's history is written beside it
    filter: str
    device: str
    sockets: list[socket.socket] = field(default_factory=list)  # kept open beyond the capture's end
    history: list[dict[str, object]] = field(default_factory=list)
    losses: int = 0

    def __enter__(self) -> Self:
        """Set loopback up and begin to capture."""
        run("ip", "link", "set", "lo", "up")
        # The recording host may prefer another, such as bbr, which paces; reno is allowed everywhere.
        self.set("tcp_congestion_control", "reno")
        command = ["tcpdump", "-i", self.device, "-n", "-U", "--immediate-mode", "-Z", "root"]
        command += ["--time-stamp-precision=nano", "-s", str(SNAP_LENGTH), "-w", str(self.path), self.filter]
        self._tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._tcpdump.stderr, "its standard error is a pipe"
        for line in self._tcpdump.stderr:
            if "listening on" in line:
                return self
        raise RuntimeError("tcpdump did not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the capture, and only then let go of the sockets."""
        time.sleep(PAUSE)
        self._tcpdump.send_signal(signal.SIGINT)
        _, said = self._tcpdump.communicate(timeout=PATIENCE)
        if kind is None and "\n0 packets dropped by kernel" not in said:
            raise RuntimeError(f"tcpdump lost packets: {said}")
        lines = [json.dumps(entry) + "\n" for entry in self.history]
        self.path.with_suffix(".kernel.jsonl").write_text("".join(lines))
        for each in self.sockets:
            each.close()

    def set(self, name: str, value: int | str) -> None:
        """Set one of the namespace's net.ipv4 settings."""
        Path("/proc/sys/net/ipv4", name).write_text(f"{value}\n")

    def step(self, what: str, *, wait: float = PAUSE) -> None:
        """Let the packets of what was just done go by, then note what the socket table says."""
        time.sleep(wait)
        now = time.time_ns()
        table = []
        for line in run("ss", "--no-header", "--tcp", "--all", "--numeric").splitlines():
            state, _, _, local, peer = line.split()[:5]
            if state != "LISTEN":
                name = STATES.get(state, state.replace("-", "_"))
                table.append({"local": local, "peer": peer, "state": name})
        self.history.append({"time_ns": now, "after": what, "sockets": table})

    # ------------------------------------------------------------------------------- sockets

    def listen(self, address: str = "127.0.0.1") -> socket.socket:
        """Open a listening socket on the experiment's port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, PORT), family=family)
        listener.settimeout(PATIENCE)
        return self.keep(listener)

    def connect(self, address: str = "127.0.0.1", *, port: int = 0, receive_buffer: int = 0) -> socket.socket:
        """Connect to the experiment's port, from a chosen port if one is given."""
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        client.settimeout(PATIENCE)
        if receive_buffer:  # has to be set before the handshake, which announces the window scale
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.bind((address, port))
        client.connect((address, PORT))
        return self.keep(client)

    def connection(self, address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """Give both ends of a new connection, client first, in this process."""
        with self.listen(address) as listener:
            client = self.connect(address)
            return client, self.accept(listener)

    def accept(self, listener: socket.socket) -> socket.socket:
        """Accept the next connection."""
        server, _ = listener.accept()
        server.settimeout(PATIENCE)
        return self.keep(server)

    def keep(self, kept: socket.socket) -> socket.socket:
        """Hold on to a socket, lest its being collected as garbage close it within the capture."""
        self.sockets.append(kept)
        return kept

    def process(self, target: Callable[..., None], *arguments: object) -> BaseProcess:
        """Start a program of its own, which can be killed."""
        process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
        process.start()
        return process

    # --------------------------------------------------------------------------- the network

    @contextlib.contextmanager
    def losing(self, match: str, *, before_capture: bool = False) -> Iterator[Loss]:
        """Lose the packets that an nftables expression matches.

        They are lost after the capture point, which on loopback is where a packet arrives, so that the
        capture shows them and the socket never gets them; or else before it, on the way out.
        """
        self.losses += 1
        loss = Loss(f"loss{self.losses}")
        hook = "output" if before_capture else "input"
        run("nft", "add", "table", "inet", loss.table)
        chain = "{ type filter hook %s priority 0; }" % hook  # noqa: UP031 - the braces are nft's own
        run("nft", "add", "chain", "inet", loss.table, "path", chain)
        run("nft", "add", "rule", "inet", loss.table, "path", f"{match} counter drop")
        try:
            yield loss
        finally:
            run("nft", "delete", "table", "inet", loss.table)

    def slow_line(self) -> None:
        """Let one small packet through every 33 ms or so; what is sent meanwhile queues up, and so crosses.

        The queue lies before the capture point: the capture shows each packet when it arrives.
        """
        rate = ["rate", "16kbit", "burst", "100", "latency", "2s"]
        run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", *rate)

    def occupy_line(self) -> None:
        """Use up what the slow line would let through at once, with something that is not TCP."""
        with socket.socket(type=socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            sink.sendto(bytes(50), sink.getsockname())

    def mirror(self) -> None:
        """Have every loopback packet pass a second device as well, as on a bridge."""
        run("ip", "link", "add", "mirror", "type", "ifb")
        run("ip", "link", "set", "mirror", "up")
        run("tc", "qdisc", "add", "dev", "lo", "clsact")
        everything = ["protocol", "all", "u32", "match", "u32", "0", "0"]
        copy = ["action", "mirred", "egress", "mirror", "dev", "mirror"]
        run("tc", "filter", "add", "dev", "lo", "ingress", *everything, *copy)

    def forget(self, state: str) -> None:
        """Destroy the server's socket in this state without a packet, as a reboot would."""
        run("ss", "--kill", "--no-header", "--tcp", "--numeric", "state", state, f"sport = :{PORT}")
