"""Held against the kernel's own record of its sockets: real connections, driven at random, captured here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from machine import needs

ROOT = Path(__file__).resolve().parent.parent
pytestmark = needs(
    "tcpdump", "nft", "the lab's namespaces", "nft's tables", "the kernel's tracing", root=True
)


@pytest.mark.parametrize(
    ("loss", "ip", "sequences", "moments"),
    # Of 120 ends one may differ: two programs that close in the same microseconds on two processors.
    [("none", 4, 99.0, 99.5), ("after", 4, 90.0, 92.0), ("before", 6, 88.0, 85.0)],
)
def test_nothing_called_observed_or_proved_is_wrong(loss, ip, sequences, moments):
    command = [sys.executable, "scripts/verify_against_kernel", "--connections", "60", "--seed", "5"]
    command += ["--loss", loss, "--ip", str(ip)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shares = {name: float(share) for name, share in re.findall(r"(\w+)\s+([\d.]+) %", done.stdout)}
    assert re.search(r"overclaims\s+0\b", done.stdout)
    assert shares["sequences"] >= sequences
    assert shares["moments"] >= moments
