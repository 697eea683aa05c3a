"""The process behind OwnerService: it keeps two of the powers that the capture gives up, and does one thing.

Each line in is a JSON list of socket inode numbers; each line out is a JSON object that says who holds them.
Anything else in, and it ends.

Of root's powers it keeps reading any folder, as /proc/PID/fd is one, and looking into any process: without
the second the kernel does not show where the links in that folder lead (proc_fd_access_allowed()). It
becomes the user nobody, so that it cannot write what is root's either.
"""

from __future__ import annotations

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

from closeseq.kernel.capabilities import Capability, keep_only
from closeseq.kernel.owners import owners

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
