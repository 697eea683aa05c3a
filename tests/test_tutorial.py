"""The tutorial's server leaks as the tutorial says, closeseq names it, and the tutorial's fix mends it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time

import pytest

from live_namespace import PATIENCE, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from places import ROOT

DOCS = ROOT / "scripts" / "docs"
SERVER = (DOCS / "leaky.py").read_text()
PAGE = (DOCS / "tutorial.md").read_text()
CLIENT = """
import socket
with socket.create_connection(("127.0.0.1", 8080)) as server:
    server.sendall(b"hello\\n")
    assert server.recv(100) == b"HELLO\\n"
"""
THE_BUG, THE_FIX = re.findall(r"```python\n(        request = .*?)```", PAGE, re.DOTALL)


def test_the_lines_that_the_tutorial_names_are_those():
    lines = SERVER.splitlines()
    for function, number in set(re.findall(r"(\S+) \(leaky.py:(\d+)\)", PAGE)):
        named = lines[int(number) - 1]
        assert ("sleep" if function == "serve" else "accept") in named
    assert THE_BUG in SERVER


@contextlib.contextmanager
def serving(net, source):
    with subprocess.Popen(net.inside(sys.executable, "-c", source)) as server:
        try:
            deadline = time.monotonic() + PATIENCE
            while "127.0.0.1:8080" not in net.run("ss", "-tln"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield server
        finally:
            server.kill()


def watched(net, *options):
    """Watch while three clients come and go; return the exit status and what was printed."""
    with net.live("-p", "8080", "--stuck-after", "1", "--duration", "5", *options) as live:
        net.wait_for_capture(live)
        for _ in range(3):
            net.run(sys.executable, "-c", CLIENT)
        out, _ = live.communicate(timeout=PATIENCE)
    return live.returncode, out


@needs_network
def test_closeseq_names_the_leaking_process(net):
    with serving(net, SERVER) as server:
        status, out = watched(net, "--fail-on", "stuck-close-wait")
    assert status == 1
    assert out.count("! stuck-close-wait (server)") == 3
    assert re.search(rf"kernel  server: CLOSE_WAIT, everything read, held by \S+ \(pid {server.pid}, ", out)
    assert "3 sockets" in out


@needs_network
def test_the_fix_mends_it(net):
    with serving(net, SERVER.replace(THE_BUG, THE_FIX)):
        status, out = watched(net, "--fail-on", "stuck-close-wait")
    assert status == 0
    assert "stuck-close-wait" not in out
    assert re.search(r"3 +graceful", out)


def test_the_way_to_say_end_of_stream_is_an_empty_result():
    """Which is what the tutorial's explanation rests on."""
    one, other = socket.socketpair()
    with one, other:
        one.shutdown(socket.SHUT_WR)
        assert other.recv(100) == b""
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(100, socket.MSG_DONTWAIT)
