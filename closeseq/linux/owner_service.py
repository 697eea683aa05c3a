"""Finds the owners of sockets without root's privileges in this process, and without waiting."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from closeseq.errors import KernelError
from closeseq.linux.owner_server import MOST_INODES
from closeseq.linux.owners import Owner

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WAITING = 65536  # questions; more are not taken
PIECE = 65536  # bytes
ENDS_WITHIN = 2.0  # seconds; it takes some milliseconds


class OwnerService:
    """A separate process that finds the owners of sockets; make it before dropping root's privileges.

    A live capture drops root's privileges before it decodes any packet, but only root may inspect the
    processes of other users. The separate process keeps the two capabilities that this takes. It accepts only
    lists of inode numbers, ends with this process however that ends, and takes at most 5 % of one processor:
    after each search it rests in proportion to its time.

    `Owner.namespace` is relative to the network namespace in which the service was made, or to the one
    entered before `moved` was called.

    Raises:
        KernelError: it cannot be started.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise KernelError("the owners of sockets cannot be looked for: there is no Python to start")
        self._peer, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _start(theirs.fileno())
            except OSError as error:
                self._peer.close()
                raise KernelError(
                    f"the owners of sockets cannot be looked for: {error.strerror or error}"
                ) from None
        self._home = self._here = _network_namespace()
        self._peer.setblocking(False)
        self._waiting: dict[int, None] = {}  # asked by the caller, not yet sent, in order
        self._sent: frozenset[int] = frozenset()  # sent, not yet answered; one question at a time
        self._unsent = b""
        self._received = b""
        self._open = True

    def close(self) -> None:
        """End the process. May be called again."""
        self._open = False
        self._peer.close()
        # It may be another user's by now: it cannot be killed, but ends by itself.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDS_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether answers can be expected: the process may have been killed."""
        return self._open

    def fileno(self) -> int:
        """Return the descriptor that is readable when `answers` has something to take in."""
        return self._peer.fileno()

    def moved(self) -> None:
        """Note that this process has entered another network namespace, so that owners there are local."""
        self._here = _network_namespace()

    def ask(self, inodes: Iterable[int]) -> None:
        """Ask for the owners of these sockets, by inode, without waiting; 0 is no inode and is left out."""
        for inode in inodes:
            if len(self._waiting) < MOST_WAITING and inode and inode not in self._sent:
                self._waiting[inode] = None
        self._send()

    def answers(self) -> dict[int, list[Owner]]:
        """Return the owners found since the last call, by inode, without waiting."""
        found = {}
        for line in self._receive():
            found.update(self._read_answer(line))
            self._sent = frozenset()
        self._send()
        return found

    def owners(self, inodes: Iterable[int], timeout: float) -> dict[int, list[Owner]]:
        """Ask, and wait at most so many seconds. Owners found later are returned by `answers`.

        Args:
            inodes: of the sockets; 0 is no inode and is left out.
            timeout: seconds.

        Returns:
            by inode, what has been found by then, also of sockets asked for earlier; an empty list where no
            process holds the socket. An inode that is missing has not been looked for yet.
        """
        import select

        asked = {inode for inode in inodes if inode}
        found: dict[int, list[Owner]] = {}
        deadline = time.monotonic() + timeout
        self.ask(asked)
        while self._open and not asked <= found.keys():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self], [], [], left)[0]:
                break
            found.update(self.answers())
        return found

    def _read_answer(self, line: bytes) -> dict[int, list[Owner]]:
        answer: dict[str, Any] = json.loads(line)
        processes = {one["pid"]: self._from_here(Owner(**one)) for one in answer["processes"]}
        return {int(inode): [processes[pid] for pid in pids] for inode, pids in answer["holders"].items()}

    def _from_here(self, owner: Owner) -> Owner:
        if self._here == self._home:
            return owner
        theirs = self._home if owner.namespace is None else owner.namespace
        return replace(owner, namespace=None if theirs == self._here else theirs)

    def _send(self) -> None:
        """Send the next question if there is none on its way."""
        if not self._sent and self._waiting:
            asked = list(self._waiting)[:MOST_INODES]
            for inode in asked:
                del self._waiting[inode]
            self._sent = frozenset(asked)
            self._unsent = json.dumps(asked).encode() + b"\n"
        while self._open and self._unsent:
            try:
                self._unsent = self._unsent[self._peer.send(self._unsent, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                return
            except OSError:
                self._open = False

    def _receive(self) -> list[bytes]:
        """Return the whole lines that have come."""
        while self._open:
            try:
                piece = self._peer.recv(PIECE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            self._open = bool(piece)
            self._received += piece
        *lines, self._received = self._received.split(b"\n")
        return lines


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    """Start the server with our import path, but never the current folder: it may be anybody's."""
    path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
    return subprocess.Popen(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-P", "-m", "closeseq.linux.owner_server", str(descriptor), str(os.getpid())],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # the terminal's Ctrl-C does not reach it, not even before it can ignore it
    )


def _network_namespace() -> int | None:
    """Return the inode number of the network namespace that this thread is in."""
    with suppress(OSError):
        return Path("/proc/thread-self/ns/net").stat().st_ino
    return None
