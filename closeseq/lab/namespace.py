"""A network and processes of our own: namespaces without a name, which end with the last process in them.

A namespace under /run/netns, as `ip netns add` makes it, would outlive a run that is killed. These do not:
the kernel removes them with all that is in them, filter rules, settings, sockets in TIME_WAIT, when their
first process ends; and this one ends with the process that waits for it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.errors import CloseseqError

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/sched.h, linux/mount.h, linux/prctl.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
INTERFACE_FLAGS = struct.Struct("16sh22x")  # struct ifreq
IFF_UP = 1

# Where a system says that it lets nobody but root make user namespaces, and the value that says so.
FORBIDDEN = {
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "kernel.unprivileged_userns_clone": "0",
    "user.max_user_namespaces": "0",
}


class NamespaceError(CloseseqError):
    """The system does not let us have a network of our own; the text says what is missing."""


def enter(*, processes: bool = False) -> None:
    """Move this process to a fresh network, with loopback up, and mounts of its own.

    Without the rights of root it becomes root of a user namespace of its own first, where those rights
    are good for what belongs to that namespace and for nothing else. Other threads must not run.

    Args:
        processes: also let the children of this process be in a process namespace of their own, of which
            the first one is the root: with it all others end.

    Raises:
        NamespaceError: neither is possible.
    """
    if sys.platform != "linux":
        raise NamespaceError("the lab needs Linux: it works in network namespaces")
    wanted = CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWPID if processes else 0)
    try:
        _call("unshare", wanted)
    except PermissionError:
        _become_root_of_our_own(wanted)
    # What is mounted here must not appear outside.
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    set_up("lo")


def run_apart(work: Callable[[], int]) -> int:
    """Do some work in namespaces of its own, as their first process, and return its exit status.

    This process moves to the namespaces too and can do nothing else afterwards. When it ends, by whatever
    signal, the work ends, and all processes that it has started.

    Raises:
        NamespaceError: not permitted.
    """
    enter(processes=True)
    gone, alive = os.pipe()
    first = os.fork()
    if first:
        os.close(gone)
        return _wait(first)
    os.close(alive)  # the parent alone holds this end: the other one is at its end when the parent is gone
    die_with_parent()
    parent_is_gone = select.select([gone], [], [], 0)[0]  # before it could be arranged
    os.close(gone)
    os._exit(1 if parent_is_gone else _done(work))


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when the thread that started it ends, however it does."""
    _call("prctl", PR_SET_PDEATHSIG, int(how), 0, 0, 0)


def set_up(interface: str) -> None:
    """Bring a network interface up, as `ip link set NAME up` does."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = INTERFACE_FLAGS.pack(interface.encode(), 0)
        _, flags = INTERFACE_FLAGS.unpack(fcntl.ioctl(any_socket, SIOCGIFFLAGS, asked))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, INTERFACE_FLAGS.pack(interface.encode(), flags | IFF_UP))


def _become_root_of_our_own(wanted: int) -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", CLONE_NEWUSER | wanted)
        # user_namespaces(7): one who has no rights outside may map only himself, and set no groups.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise NamespaceError(_reason(error)) from error


def _reason(error: OSError) -> str:
    """Say why there is no namespace for us, and what would help."""
    if os.geteuid() == 0:
        return (
            "this root has no right to make network namespaces (CAP_SYS_ADMIN); in a container, start it "
            "with --privileged, or with --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt "
            "seccomp=unconfined --security-opt apparmor=unconfined"
        )
    for setting, value in FORBIDDEN.items():
        path = Path("/proc/sys", setting.replace(".", "/"))
        if path.exists() and path.read_text().strip() == value:
            return f"this system lets only root make namespaces ({setting} is {value})"
    if error.errno in (errno.ENOSYS, errno.EINVAL):
        return "this kernel has no user namespaces (CONFIG_USER_NS); only root can do it"
    return f"this system lets only root make namespaces ({error.strerror})"


def _wait(first: int) -> int:
    """Wait for the work to end; a signal to end that comes here ends the work."""

    def end(*_: object) -> None:
        os.kill(first, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        _, status = os.waitpid(first, 0)
        return os.waitstatus_to_exitcode(status)


def _done(work: Callable[[], int]) -> int:
    """Do the work; whatever goes wrong must not reach what the forked process was about to do itself."""
    status = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001 - nobody is there to catch it
        traceback.print_exc()
    return status


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library, and raise OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
