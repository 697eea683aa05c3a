"""The process behind OwnerService: it finds the owners of sockets, with two of root's capabilities.

Each line in is a JSON list of socket inode numbers; each line out is a JSON object with their owners. It ends
if anything else comes in.

Of root's capabilities (capabilities(7)) it keeps those to read any folder, as /proc/PID/fd is one, and to
inspect any process: without the second the kernel does not show where the links in that folder lead
(proc_fd_access_allowed()). It becomes the user nobody, so that it cannot write root's files either.

First the dropping of the other capabilities. Python has no calls for it, and the libraries that have need a
compiler or libcap's headers; it takes the three system calls below.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from enum import IntEnum
from typing import TYPE_CHECKING

from closeseq.linux.owners import owners

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT, NOBODY = 0, 65534

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 8, 38, 24, 47  # linux/prctl.h
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: 64 bits in two words
_MOST = 63  # numbers that fit these words; the kernel has 41 so far


class Capability(IntEnum):
    """A power of root's, by its number in linux/capability.h."""

    DAC_READ_SEARCH = 2  # read any file and folder
    SYS_PTRACE = 19  # look into any process


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    """32 capabilities, each one bit in each of the sets."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(*capabilities: Capability) -> None:
    """Keep of our powers only these, for good; root also becomes nobody.

    What this process starts, or becomes by exec, has none. Call it before any thread is started: powers
    are a thread's own. In a user namespace with no other user, root stays root, without its powers.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for number in range(_MOST + 1):
        with suppress(OSError):  # no such number, or we may not, and so cannot get it back either
            _call(libc.prctl, _PR_CAPBSET_DROP, number, 0, 0, 0)
    with suppress(OSError):  # before Linux 4.3 there are none
        _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.geteuid() == ROOT:
        _call(libc.prctl, _PR_SET_KEEPCAPS, 1, 0, 0, 0)
        with suppress(OSError):  # this namespace has no such user
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        _call(libc.prctl, _PR_SET_KEEPCAPS, 0, 0, 0, 0)
    header, words = _Header(_VERSION_3, 0), (_Word * 2)()
    _call(libc.capget, ctypes.byref(header), words)
    for at, word in enumerate(words):
        wanted = sum(1 << one % 32 for one in capabilities if one // 32 == at)
        word.permitted &= wanted
        word.effective, word.inheritable = word.permitted, 0
    _call(libc.capset, ctypes.byref(header), words)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


MOST_INODES = 2048  # in one line
MOST_BYTES = 32768  # of one line: an inode number has at most 10 digits
LARGEST_INODE = (1 << 32) - 1
SHARE = 0.05  # of one processor, at most


def main() -> None:
    """Answer on the socket whose descriptor is the first argument; the second is our parent's pid."""
    descriptor, parent = (int(argument) for argument in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the capture, which then ends us
    import psutil  # noqa: F401  # here, as nobody may not be able to read root's Python

    os.chdir("/")
    try:
        keep_only(Capability.DAC_READ_SEARCH, Capability.SYS_PTRACE)
    except OSError as error:
        sys.exit(f"closeseq: the owners of sockets are not looked for, as root cannot be given up: {error}")
    with socket.socket(fileno=descriptor) as peer:
        threading.Thread(target=_end_with, args=(peer, parent), daemon=True).start()
        with suppress(ConnectionError):  # our peer has ended while we looked, or in the middle of a question
            serve(peer)
        os._exit(0)  # at once, as the other thread does: it may just be about to use the socket


def serve(peer: socket.socket) -> None:
    """Answer until the peer closes. Raises ConnectionError if it does so before an answer."""
    with peer.makefile("rb") as lines:
        while line := lines.readline(MOST_BYTES + 1):
            if len(line) <= MOST_BYTES and not line.endswith(b"\n"):
                return  # it ended within the question
            asked = read_question(line)
            began = time.process_time()
            peer.sendall(answer(asked))
            time.sleep((time.process_time() - began) * (1 / SHARE - 1))


def read_question(line: bytes) -> list[int]:
    """Return the inode numbers that a line asks about.

    Raises:
        ValueError: it is anything but a short list of them.
    """
    if len(line) > MOST_BYTES:
        raise ValueError("the question is too long")
    asked = json.loads(line)
    if not isinstance(asked, list) or len(asked) > MOST_INODES:
        raise ValueError("the question is not a short list")
    if not all(type(inode) is int and 0 < inode <= LARGEST_INODE for inode in asked):
        raise ValueError("the question is not about inode numbers")
    return asked


def answer(asked: list[int]) -> bytes:
    """Return a line with each process once, the oldest first, and for each inode the pids that hold it."""
    found = owners(asked)
    processes = {one.pid: asdict(one) for holders in found.values() for one in holders}
    holders = {inode: [one.pid for one in several] for inode, several in found.items()}
    return json.dumps({"processes": list(processes.values()), "holders": holders}).encode() + b"\n"


def _end_with(peer: socket.socket, parent: int) -> None:
    """End this process at once when its peer closes or its parent ends, whatever it is doing then."""
    poll = select.poll()
    poll.register(peer, select.POLLRDHUP)
    with suppress(OSError):  # Linux before 5.3, or it has ended
        poll.register(os.pidfd_open(parent))  # another process may hold the peer's descriptor too
    if os.getppid() == parent:
        poll.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
