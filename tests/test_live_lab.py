"""Experiments of the lab, watched live: the saved capture tells the same again, and the kernel agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from closeseq.lab.registry import experiments
from machine import needs

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).with_name("live_beside.py")
AT_ONCE = 6  # they mostly sleep
TIME_LIMIT = 100

# One of each kind; CLOSESEQ_ALL_EXPERIMENTS=1 runs all, in about a minute.
CHOSEN = (
    *("client-closes", "server-interrupted", "leaky-server", "half-close", "simultaneous-open"),
    *("final-ack-lost", "last-ack-stuck", "time-wait-reused", "challenge-ack", "data-after-close"),
    *("fin-behind-window", "refused", "keepalive-unanswered", "ipv6-client-closes", "seen-twice"),
)
# Where packets and kernel tell different things for a while, and what the user is told of it. The kernel is
# asked a moment after the packets were read, so it may be a packet ahead.
EXPLAINED = {
    "final-ack-lost": ("has arrived after all",),
    "time-wait-protected": ("(tcp_rfc1337)",),
    "unanswered": ("has given up",),
    "last-ack-stuck": ("the final ACK has not arrived",),
    "last-ack-given-up": ("the final ACK has not arrived",),
    "challenge-ack": ("was not believed", "a FIN came in this moment"),
    "forged-reset": ("was not believed",),
    "server-interrupted": ("lasts longer than is assumed",),
    "fin-behind-window": ("its FIN waits behind",),
    "sleeping-reader": ("its FIN waits behind",),
}

pytestmark = needs(
    "nft", "the lab's namespaces", "live packets", "nft's tables", "the kernel's tracing", root=True
)


def watched(name, number):
    """Return what did not fit when this experiment was watched live."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(20_000 + 100 * number)],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else [done.stderr]


def is_explained(name, problem):
    """Return whether this is a difference to the kernel, with the reason that this experiment gives it."""
    return problem.startswith("kernel:") and any(why in problem for why in EXPLAINED.get(name, ()))


def test_live_and_saved_captures_tell_the_same_and_the_kernel_agrees():
    names = experiments() if "CLOSESEQ_ALL_EXPERIMENTS" in os.environ else CHOSEN
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(names, pool.map(watched, names, range(len(names))), strict=True))
    unexplained = {
        name: [one for one in problems if not is_explained(name, one)] for name, problems in found.items()
    }
    assert unexplained == {name: [] for name in names}, json.dumps(unexplained, indent=1)
