"""Enter the network namespace of a container, or one that `ip netns` made.

A network namespace belongs to a thread: these functions move the one that calls, and the threads and
processes that it starts afterwards. A program should enter before it starts others. A socket stays in the
namespace in which it was opened.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = Path("/run/netns")  # ip-netns(8)
CLONE_NEWNET = 0x40000000
OURS = "/proc/thread-self/ns/net"
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
IFREQ = struct.Struct("16sH22x")  # name, flags
MOST_NAMES = 10  # in a message


class NamespaceError(KernelError):
    """A network namespace cannot be entered."""


class NamespaceNotPermittedError(NamespaceError):
    """Only root may enter it."""


def enter_named(name: str) -> None:
    """Enter the network namespace that `ip netns` knows by this name.

    Raises:
        NamespaceError: there is none, or it is not permitted.
    """
    # A name is one component of a path, and nothing that leads elsewhere.
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise NamespaceError(f"{name!r} cannot be the name of a network namespace; {_existing()}")
    try:
        _enter(NAMED / name)
    except FileNotFoundError:
        raise NamespaceError(f"no network namespace {name!r}; {_existing()}") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NamespaceError(f"{NAMED / name} is no network namespace") from None
        raise _refusal(f"network namespace {name!r}", error) from None


def enter_of(pid: int) -> None:
    """Enter the network namespace of a process, as of one in a container.

    Args:
        pid: of the process, as this process's namespace of processes numbers it.

    Raises:
        NamespaceError: there is no such process, or it is not permitted.
    """
    try:
        _enter(Path(f"/proc/{pid:d}/ns/net"))
    except (FileNotFoundError, ProcessLookupError):
        raise NamespaceError(f"no process {pid}, or it has ended") from None
    except OSError as error:
        raise _refusal(f"network namespace of process {pid}", error) from None


def enter_new() -> None:
    """Enter a fresh network namespace, with loopback up and nothing else.

    It has no name, so it ends with its last process and socket, however they end.

    Raises:
        NamespaceError: it is not permitted.
    """
    try:
        _call("unshare", CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))
    except OSError as error:
        raise _refusal("a network namespace of our own", error) from None


@contextmanager
def coming_back() -> Iterator[None]:
    """Enter other network namespaces within the block, and come back to this one behind it.

    Raises:
        NamespaceError: coming back is not permitted any more.
    """
    ours = open_ours()
    try:
        yield
    finally:
        try:
            return_to(ours)
        finally:
            os.close(ours)


def open_ours() -> int:
    """Return a descriptor of the network namespace that we are in, which keeps it. Close it."""
    return os.open(OURS, os.O_RDONLY | os.O_CLOEXEC)


def return_to(descriptor: int) -> None:
    """Enter a network namespace that was opened while we were in it.

    Raises:
        NamespaceError: it is not permitted any more.
    """
    try:
        _setns(descriptor)
    except OSError as error:
        raise _refusal("the network namespace we came from", error) from None


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(descriptor)
    finally:
        os.close(descriptor)


def _setns(descriptor: int) -> None:
    _call("setns", descriptor, CLONE_NEWNET)


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns and os.unshare came with Python 3.12
    if libc[function](*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _refusal(what: str, error: OSError) -> NamespaceError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return NamespaceNotPermittedError(f"{what}: permitted to root (CAP_SYS_ADMIN) only")
    return NamespaceError(f"{what}: {error.strerror or error}")


def _existing() -> str:
    names = sorted(path.name for path in NAMED.iterdir()) if NAMED.is_dir() else []
    if not names:
        return "there is none with a name (`ip netns` lists them)"
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"there are: {', '.join(names[:MOST_NAMES])}{more}"
