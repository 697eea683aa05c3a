"""Which processes own a socket, from /proc, as `ss -p` and `lsof` do.

Only root may inspect the processes of other users; without root, these are left out.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

COMMAND_LENGTH = 80  # characters
CONTAINER_DIGITS = 12  # of a container's id, as `docker ps` shows it

SOCKET = "socket:["
# A container's id is in the names of its control groups, whatever made it: docker-ID.scope,
# cri-containerd-ID.scope, libpod-ID.scope, kubepods/.../ID. conmon only supervises a container.
CONTAINER = re.compile(r"(?<!conmon-)(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that owns a socket: it has an open descriptor of it."""

    pid: int
    name: str  # of the program
    user: str  # name, or number if it has none
    command: str  # with its arguments, cut to 80 characters
    container: str | None = None  # the first 12 digits of its id
    namespace: int | None = None  # inode number of its network namespace if it is another one than ours


def owners(inodes: Collection[int]) -> dict[int, list[Owner]]:
    """Return for each socket the processes that hold it, by the socket's inode number.

    Several do after a fork; the oldest process, most often the one that opened it, is the first. The list is
    empty if there is none, or none that we may look into. This looks through all open files of all
    processes: see OwnerService for where that must not hold anything up.
    """
    import psutil

    holders: dict[int, list[int]] = {inode: [] for inode in inodes}
    for pid in psutil.pids():
        for inode in holders.keys() & _sockets(pid):
            holders[inode].append(pid)
    known = _facts({pid for pids in holders.values() for pid in pids})
    return {inode: [known[pid] for pid in known if pid in pids] for inode, pids in holders.items()}


def _sockets(pid: int) -> set[int]:
    """Return the inode numbers of a process's open sockets; none if it is gone or not to be looked into."""
    found = set()
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):  # closed meanwhile
                target = os.readlink(descriptor.path)  # noqa: PTH115  # a Path takes twice as long
                if target.startswith(SOCKET):
                    found.add(int(target[len(SOCKET) : -1]))
    return found


def _facts(pids: Iterable[int]) -> dict[int, Owner]:
    """Return what is known of each process that is still there, the oldest first."""
    import psutil

    found = []
    for pid in pids:
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            with process.oneshot():
                name = _plain(process.name())
                command = _plain(" ".join(process.cmdline())) or name
                owner = Owner(pid, name, process.username(), command, _container(pid), _namespace(pid))
                found.append((process.create_time(), pid, owner))
    return {pid: owner for _, pid, owner in sorted(found, key=lambda one: one[:2])}


def _plain(text: str) -> str:
    """Return what a process says of itself without what could steer a terminal, and not too long."""
    plain = "".join(c if c.isprintable() else "?" for c in text[: 2 * COMMAND_LENGTH]).strip()
    return plain if len(plain) <= COMMAND_LENGTH else plain[: COMMAND_LENGTH - 3] + "..."


def _container(pid: int) -> str | None:
    try:
        ids = CONTAINER.findall(Path(f"/proc/{pid}/cgroup").read_text(errors="replace"))
    except OSError:
        return None
    return ids[-1][:CONTAINER_DIGITS] if ids else None  # of nested ones the innermost


def _namespace(pid: int) -> int | None:
    """Return the inode number of a process's network namespace; None if ours, or not to be seen."""
    try:
        theirs = Path(f"/proc/{pid}/ns/net").stat().st_ino
        return None if theirs == Path("/proc/self/ns/net").stat().st_ino else theirs
    except OSError:
        return None
