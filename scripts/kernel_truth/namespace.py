"""A network of our own: a namespace without a name, which ends with the last process in it."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC_PRIVATE = 0x4000 | 0x40000
PR_SET_PDEATHSIG = 1

TRACING = Path("/sys/kernel/tracing")

_libc = ctypes.CDLL(None, use_errno=True)


def enter_namespace() -> None:
    """Move this process to a fresh network (and mount) namespace with loopback up.

    A namespace under /run/netns would outlive a killed run. This one has no name: the kernel removes
    it, with its nft tables and its TIME_WAIT sockets, when our last process and socket are gone.
    The mounts are private for the same reason: mounting tracefs here leaves no mount behind.
    """
    _check(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare (are we root?)")
    _check(_libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None), "make mounts private")
    if not (TRACING / "instances").is_dir():
        _check(_libc.mount(b"tracefs", bytes(TRACING), b"tracefs", 0, None), "mount tracefs")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)


def die_with_parent() -> None:
    """In a child about to exec: have the kernel end it when we end, even by SIGKILL."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
