"""A network of our own: fresh, apart, and gone with the process that is in it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forked import run_code
from machine import needs
from places import ROOT

# Work that is done apart ends without writing what is buffered.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

pytestmark = needs("the lab's namespaces", root=True)

APART = """
import os, socket, sys, time
from pathlib import Path
from closeseq.lab.network import run_apart

def work():
    {work}

sys.exit(run_apart(work))
"""


def apart(work):
    """Return the command that does some work in namespaces of its own."""
    return [sys.executable, "-c", APART.format(work=work)]


def run(work):
    return run_code(APART.format(work=work), text=True, env=ENVIRONMENT)


def test_the_network_is_fresh_and_loopback_is_up():
    done = run(
        "print([name for _, name in socket.if_nameindex()]);"
        " server = socket.create_server(('127.0.0.1', 80));"
        " socket.create_connection(server.getsockname()); return 0"
    )
    assert done.stdout == "['lo']\n"
    assert done.returncode == 0


def test_it_is_another_one_than_ours():
    done = run("print(os.readlink('/proc/self/ns/net'), os.readlink('/proc/self/ns/mnt'), os.getpid())")
    network, mounts, pid = done.stdout.split()
    assert network != str(Path("/proc/self/ns/net").readlink())
    assert mounts != str(Path("/proc/self/ns/mnt").readlink())
    assert pid == "1"


def test_a_setting_stays_inside():
    setting = Path("/proc/sys/net/ipv4/tcp_fin_timeout")
    before = setting.read_text()
    done = run(f"path = Path('{setting}'); path.write_text('7'); print(path.read_text())")
    assert done.stdout.split() == ["7"]
    assert setting.read_text() == before != "7"


def test_the_status_of_the_work_is_returned():
    assert run("return 3").returncode == 3


def test_work_that_fails_says_why_and_has_the_status_of_a_failure():
    done = run("raise ValueError('broken')")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: broken")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_waits_for_it(how):
    work = "os.fork() and print(os.readlink('/proc/self/ns/net'), flush=True); time.sleep(60)"
    with subprocess.Popen(apart(work), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        network = process.stdout.readline().strip()
        assert network in namespaces()
        process.send_signal(how)
        process.wait(30)
        select.select([process.stdout], [], [], 30)
        deadline = time.monotonic() + 30
        while network in namespaces():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def namespaces():
    """Return the network namespaces that processes are in."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found
