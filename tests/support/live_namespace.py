"""A network namespace for live captures to be tested in, and what talks there."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forked import Forked, run_code
from machine import needs
from places import ROOT

PATIENCE = 20.0  # seconds until something that should have happened is given up

needs_network = needs("ip", "nsenter", "unshare", "live packets")

# What connects, says hello, and closes; then the ends wait as told. argv: who closes first, seconds, port.
TALK = """
import socket, sys, time
first, wait, port = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with socket.create_server(("127.0.0.1", port)) as listener:
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = listener.accept()
    client.sendall(b"hello")
    server.sendall(server.recv(100))
    client.recv(100)
    order = [client, server] if first == "client" else [server, client]
    order[0].close()
    time.sleep(wait)
    order[1].recv(100)
    order[1].close()
"""


class Net:
    """A network namespace with loopback up, which a process of ours keeps."""

    def __init__(self):
        ready = "ip link set lo up && echo ready && exec sleep 120"
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", ready], stdout=subprocess.PIPE, text=True
        )
        assert self._keeper.stdout.readline() == "ready\n"
        self.pid = self._keeper.pid

    def close(self):
        self._keeper.kill()
        self._keeper.wait()
        self._keeper.stdout.close()

    def inside(self, *command):
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *map(str, command)]

    def run(self, *command):
        if command[:2] == (sys.executable, "-c"):
            done = run_code(*command[2:], network=self.pid, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout
        done = subprocess.run(
            self.inside(*command), check=True, capture_output=True, text=True, timeout=PATIENCE
        )
        return done.stdout

    def talk(self, first="client", wait=0.0, port=8080):
        self.run(sys.executable, "-c", TALK, first, wait, port)

    @contextlib.contextmanager
    def talking(self, first="client", wait=0.0, port=8080):
        """Let it talk in the background."""
        command = self.inside(sys.executable, "-c", TALK, first, wait, port)
        with subprocess.Popen(command) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def live(self, *arguments, command="live", wrapper=None, **options):
        """Run `closeseq live` there; it captures when the block begins, unless it has ended.

        The wrapper is a command that runs the one behind it. With one, also an empty one, Python is started
        afresh, as it must be where it matters what was imported when root was given up.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT} | options
        if wrapper is None:
            started = Forked([command, *arguments], network=self.pid, **options)
        else:
            run = self.inside(*wrapper, sys.executable, "-m", "closeseq", command, *arguments)
            started = subprocess.Popen(run, **options)
        with started as process:
            try:
                process.said = process.stderr.readline() if process.stderr else ""
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def wait_for_capture(self, process):
        """Wait until something captures in the namespace, or the process has ended."""
        table = Path(f"/proc/{self.pid}/net/packet")
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            _, *sockets = (line.split() for line in table.read_text().splitlines())
            if any(running == "1" for _, _, _, _, _, running, *_ in sockets):
                return
            assert time.monotonic() < deadline, "it did not begin to capture"
            time.sleep(0.02)


def ended(process, number=signal.SIGINT):
    """End a capture with a signal, and return what it printed on both streams."""
    process.send_signal(number)
    return process.communicate(timeout=PATIENCE)


@pytest.fixture
def net():
    made = Net()
    yield made
    made.close()
