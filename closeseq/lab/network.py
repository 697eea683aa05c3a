"""Namespaces for an experiment's network and processes, and what can be done to that network.

The namespaces have no name. One under /run/netns, as `ip netns add` makes it, would outlive a run that is
killed. These do not: the kernel removes them with all that is in them, filter rules, settings, sockets in
TIME_WAIT, when their first process ends; and that one ends with the process that waits for it
(PR_SET_PDEATHSIG).

In the second half: lose packets, slow the line down, mirror it, set timers. All of this belongs to the
namespace and ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.errors import CloseseqError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


class NoNamespaceError(CloseseqError):
    """The system does not permit a network namespace; the text says what is missing."""


def enter(*, processes: bool = False) -> None:
    """Move this process to a fresh network, with loopback up, and mounts of its own.

    Without the rights of root it becomes root of a user namespace of its own first, where those rights
    are good for what belongs to that namespace and for nothing else. Other threads must not run.

    Args:
        processes: also let the children of this process be in a process namespace of their own, of which
            the first one is the root: with it all others end.

    Raises:
        NoNamespaceError: neither is possible.
    """
    if sys.platform != "linux":
        raise NoNamespaceError("the lab needs Linux: it works in network namespaces")
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
        NoNamespaceError: not permitted.
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
        raise NoNamespaceError(_reason(error)) from error


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


TIMEOUT = 20.0  # seconds until something that should have happened counts as failed
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
    """Set one of the namespace's net.ipv4 settings.

    Args:
        name: of a file in /proc/sys/net/ipv4, or a path from there.
        value: what is written to it.
    """
    Path("/proc/sys/net/ipv4", name).write_text(f"{value}\n")


@dataclass
class Loss:
    """A rule that drops what matches, for as long as it exists."""

    table: str  # name of the nftables table that has it

    def wait_for(self, packets: int) -> None:
        """Wait until so many packets have been lost. Raises TimeoutError."""
        deadline = time.monotonic() + TIMEOUT
        while (lost := self.count()) < packets:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {lost} of {packets} packets were lost")
            time.sleep(0.005)

    def count(self) -> int:
        """Return how many packets have been lost so far."""
        objects = json.loads(nft("--json", "list", "table", "inet", self.table))["nftables"]
        (rule,) = (one["rule"] for one in objects if "rule" in one)
        (counter,) = (one["counter"] for one in rule["expr"] if "counter" in one)
        return int(counter["packets"])


@contextlib.contextmanager
def losing(match: str, *, before_capture: bool = False, reset: bool = False) -> Iterator[Loss]:
    """Lose packets while the block runs.

    They are lost after the capture point, which on loopback is where a packet arrives, so that the capture
    shows them and the socket never gets them; or else before it, on the way out.

    Args:
        match: an nftables expression: which packets.
        before_capture: lose them before the capture point.
        reset: answer each by a RST, as a firewall does that rejects.

    Yields:
        The rule, which counts what it has met.

    Raises:
        RuntimeError: nft does not take the rule.
    """
    loss = Loss(f"loss{next(_numbers)}")
    hook = "output" if before_capture else "input"
    answer = "reject with tcp reset" if reset else "drop"
    rule = f"type filter hook {hook} priority 0; {match} counter {answer};"
    nft(f"table inet {loss.table} {{\n chain path {{ {rule} }}\n}}")
    try:
        yield loss
    finally:
        nft(f"delete table inet {loss.table}")


def slow_line() -> None:
    """Let one small packet through every 33 ms or so; what is sent meanwhile queues up, and so crosses.

    The queue lies before the capture point: the capture shows each packet when it arrives.
    """
    from pyroute2 import IPRoute

    with IPRoute() as route:
        (loopback,) = route.link_lookup(ifname="lo")
        route.tc("add", "tbf", loopback, TBF_HANDLE, rate=RATE, burst=BURST, limit=QUEUE)


def occupy_line(times: int = 1) -> None:
    """Use up what the slow line would let through at once, with something that is not TCP.

    Args:
        times: how many such packets; behind the first, each keeps the line for 46 ms.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        for _ in range(times):
            sink.sendto(bytes(50), sink.getsockname())


def mirror() -> None:
    """Have every loopback packet pass a second device as well, as on a bridge."""
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as route:
        try:
            route.link("add", ifname=MIRROR, kind="dummy")
        except NetlinkError:  # a kernel without dummies; this one throws away what it is given, likewise
            route.link("add", ifname=MIRROR, kind="ifb")
    set_up(MIRROR)
    rule = f'type filter hook ingress device "lo" priority 0; dup to "{MIRROR}";'
    nft(f"table netdev mirror {{\n chain copy {{ {rule} }}\n}}")


def nft(*arguments: str) -> str:
    """Call nft, and return what it prints. Raises RuntimeError with its complaint."""
    path = command("nft")
    assert path, "an experiment that loses packets says that it needs nft"
    done = subprocess.run(  # noqa: S603 - rules of ours
        [path, *arguments], check=False, capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr.strip().splitlines()[0]}")
    return done.stdout
