"""What can be done to the network that we are in: lose packets, slow it down, mirror it, set timers.

All of it belongs to the namespace and ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0  # seconds until what should have happened is given up
# Where commands are that only root has in the search path.
EVERYWHERE = "/usr/local/sbin:/usr/sbin:/sbin"
PACKAGES = {"nft": "nftables"}  # commands that experiments call, and the package that has each

MIRROR = "mirror"
TBF_HANDLE = 0x10000
BURST = 100  # bytes that a slow line lets through at once: one small packet
RATE = "16kbit"  # in which such a packet takes 33 ms
QUEUE = 4000  # bytes that wait for the line

_numbers = count(1)


def command(name: str) -> str | None:
    """Return the path of a command; None if it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{EVERYWHERE}")


def set_parameter(name: str, value: int | str) -> None:
    """Set one of the namespace's net.ipv4 settings."""
    Path("/proc/sys/net/ipv4", name).write_text(f"{value}\n")


@dataclass
class Loss:
    """A rule that drops what matches, for as long as it exists."""

    table: str

    def wait_for(self, packets: int) -> None:
        """Wait until so many packets have been lost. Raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE
        while (lost := self.count()) < packets:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {lost} of {packets} packets were lost")
            time.sleep(0.005)

    def count(self) -> int:
        """Return how many packets have been lost so far."""
        objects = json.loads(_nft("--json", "list", "table", "inet", self.table))["nftables"]
        (rule,) = (one["rule"] for one in objects if "rule" in one)
        (counter,) = (one["counter"] for one in rule["expr"] if "counter" in one)
        return int(counter["packets"])


@contextlib.contextmanager
def losing(match: str, *, before_capture: bool = False) -> Iterator[Loss]:
    """Lose the packets that an nftables expression matches, while the block runs.

    They are lost after the capture point, which on loopback is where a packet arrives, so that the
    capture shows them and the socket never gets them; or else before it, on the way out.
    """
    loss = Loss(f"loss{next(_numbers)}")
    hook = "output" if before_capture else "input"
    rule = f"type filter hook {hook} priority 0; {match} counter drop;"
    _nft(f"table inet {loss.table} {{\n chain path {{ {rule} }}\n}}")
    try:
        yield loss
    finally:
        _nft(f"delete table inet {loss.table}")


def slow_line() -> None:
    """Let one small packet through every 33 ms or so; what is sent meanwhile queues up, and so crosses.

    The queue lies before the capture point: the capture shows each packet when it arrives.
    """
    from pyroute2 import IPRoute

    with IPRoute() as route:
        (loopback,) = route.link_lookup(ifname="lo")
        route.tc("add", "tbf", loopback, TBF_HANDLE, rate=RATE, burst=BURST, limit=QUEUE)


def occupy_line() -> None:
    """Use up what the slow line would let through at once, with something that is not TCP."""
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.sendto(bytes(50), sink.getsockname())


def mirror() -> None:
    """Have every loopback packet pass a second device as well, as on a bridge."""
    from pyroute2 import IPRoute, NetlinkError

    from closeseq.lab.namespace import set_up

    with IPRoute() as route:
        try:
            route.link("add", ifname=MIRROR, kind="dummy")
        except NetlinkError:  # a kernel without dummies; this one throws away what it is given, likewise
            route.link("add", ifname=MIRROR, kind="ifb")
    set_up(MIRROR)
    rule = f'type filter hook ingress device "lo" priority 0; dup to "{MIRROR}";'
    _nft(f"table netdev mirror {{\n chain copy {{ {rule} }}\n}}")


def _nft(*arguments: str) -> str:
    """Call nft, and return what it prints. Raises RuntimeError with its complaint."""
    path = command("nft")
    assert path, "an experiment that loses packets says that it needs nft"
    done = subprocess.run(  # noqa: S603 - rules of ours
        [path, *arguments], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr.strip().splitlines()[0]}")
    return done.stdout
