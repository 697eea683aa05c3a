"""A network namespace of a test's own, with real traffic in it, and the kernel's filter without a network."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from closeseq.capture.live.bpf import attach
from closeseq.packets.segments import ACK, SYN
from machine import needs

NEW_NETWORK = 0x40000000  # CLONE_NEWNET, linux/sched.h
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40  # linux/sockios.h, linux/if.h
PORT = 8080

needs_network = needs("ip", "live packets")


@contextlib.contextmanager
def own_network():
    """Move into a new network namespace, where loopback is up, and back at the end."""
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home:
        if library.unshare(NEW_NETWORK):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link set lo up")
            yield
        finally:
            assert library.setns(home.fileno(), NEW_NETWORK) == 0


def ip(line):
    subprocess.run(["ip", *line.split()], check=True, capture_output=True, timeout=30)


def make_pair(one="veth0", other="veth1"):
    """Make two devices that are the ends of one cable, and wait until they carry something."""
    ip(f"link add {one} type veth peer name {other}")
    for name in (one, other):
        ip(f"link set {name} addrgenmode none up")
    wait_until_running(one, other)


def wait_until_running(*names):
    """Wait until frames that are sent on these devices are no longer thrown away."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:

        def running(name):
            answer = fcntl.ioctl(asking, SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
            return struct.unpack_from("16xH", answer)[0] & IFF_RUNNING

        wait_for(lambda: all(map(running, names)))


def talk(connections=1, *, port=PORT, host="127.0.0.1", data=b"x" * 100):
    """Open that many connections to a server here, one after the other, and close them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        for _ in range(connections):
            client = socket.create_connection((host, port), timeout=10)
            served, _ = server.accept()
            with client, served:
                client.sendall(data)
                assert len(served.recv(len(data), socket.MSG_WAITALL)) == len(data)
    return connections


def send_frames(frames, device="veth0"):
    """Put frames onto a device as they are."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((device, 0))
        for frame in frames:
            raw.send(frame)


def received(device="lo"):
    """Return how many packets the device has received, as the kernel counts."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (counts,) = (line.split(":")[1].split() for line in lines if line.split(":")[0].strip() == device)
    return int(counts[1])


@contextlib.contextmanager
def filtered(program):
    """Give a function that returns what the kernel leaves of a frame, b"" if nothing."""
    inlet, outlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with inlet, outlet:
        outlet.setblocking(False)
        attach(outlet, program)

        def left(frame):
            inlet.send(frame)
            with contextlib.suppress(BlockingIOError):
                return outlet.recv(1 << 18)
            return b""

        yield left


class Captured(NamedTuple):
    """A packet, copied out of its batch."""

    number: int
    time_ns: int
    wire: int
    link_type: int
    data: bytes
    device: int


def packets_of(frames, device=0):
    columns = (frames.number, frames.time_ns, frames.wire, frames.link_type, frames.offset, frames.captured)
    return [
        Captured(number, moment, wire, link, frames.buffer[at : at + size].tobytes(), device)
        for number, moment, wire, link, at, size in zip(*(c.tolist() for c in columns), strict=True)
    ]


def opened(segments):
    """Return how many connections were opened: SYNs without ACK."""
    return int(np.count_nonzero(segments.flags & (SYN | ACK) == SYN))


def finish(capture):
    """Stop a live capture, and return all that it still has to give."""
    capture.stop()
    packets = []
    while batch := capture.read(10):
        packets += packets_of(*batch)
    return packets


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)
