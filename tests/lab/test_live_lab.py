"""Experiments of the lab, watched live: the saved capture tells the same again, and the kernel agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from closeseq.lab.experiments import experiments
from closeseq.watch.kernel_view import WHY
from machine import needs
from places import ROOT

PROGRAM = ROOT / "tests" / "support" / "live_beside.py"
TIME_LIMIT = 140

# One of each kind; CLOSESEQ_ALL_EXPERIMENTS=1 runs all, in about a minute.
CHOSEN = (
    *("client-closes", "server-interrupted", "leaky-server", "half-close", "simultaneous-open"),
    *("final-ack-lost", "last-ack-stuck", "time-wait-reused", "challenge-ack", "data-after-close"),
    *("fin-behind-window", "refused", "keepalive-unanswered", "ipv6-client-closes", "seen-twice"),
)
if "CLOSESEQ_ALL_EXPERIMENTS" in os.environ:
    CHOSEN = tuple(experiments())
# Where packets and kernel tell different things for a while, and what the user is told of it. The kernel is
# asked a moment after the packets were read, so it may be a packet ahead.
EXPLAINED = {
    "final-ack-lost": ("an ACK of its FIN has arrived", "the final ACK has not arrived"),
    "time-wait-protected": ("(tcp_rfc1337)",),
    "time-wait-reused": ("a new connection has these addresses",),
    "unanswered": ("has given up",),
    "last-ack-stuck": ("the final ACK has not arrived", "or its kernel has given up"),
    "last-ack-given-up": ("the final ACK has not arrived",),
    "challenge-ack": ("was not accepted", "a FIN arrived at this moment"),
    "forged-reset": ("was not accepted",),
    "server-interrupted": ("lasts longer than assumed",),
    "fin-behind-window": ("its FIN waits behind",),
    "sleeping-reader": ("its FIN waits behind",),
}

pytestmark = needs(
    "nft", "the lab's namespaces", "live packets", "nft's tables", "the kernel's tracing", root=True
)


@pytest.fixture(scope="module")
def watched():
    """What did not fit when the experiments were watched live, side by side: sentences by experiment."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *CHOSEN],
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_explained(name, problem):
    """Return whether this is a difference to the kernel, with the reason that this experiment gives it."""
    return problem.startswith("kernel:") and any(why in problem for why in EXPLAINED.get(name, ()))


@pytest.mark.parametrize("name", CHOSEN)
def test_live_and_saved_captures_tell_the_same_and_the_kernel_agrees(watched, name):
    assert [problem for problem in watched[name] if not is_explained(name, problem)] == []


def test_the_reasons_are_those_that_are_shown():
    shown = "\n".join(WHY.values())
    assert not [why for reasons in EXPLAINED.values() for why in reasons if why not in shown]
