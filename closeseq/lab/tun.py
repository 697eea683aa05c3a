"""A TUN device: what the kernel sends through it we read, and what we write to it the kernel receives.

It carries IP packets without a link header, and is gone when its descriptor is closed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path

from closeseq.errors import CloseseqError

DEVICE = Path("/dev/net/tun")
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
REQUEST = struct.Struct("16sH22x")  # struct ifreq

QUEUE = 10_000  # packets that the device keeps for us
NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h: the address can be used at once


class TunError(CloseseqError):
    """This system has no TUN devices for us; the text says what is missing."""


def open_tun(name: str, address: str, prefix: int) -> int:
    """Make a TUN device in this network namespace, up and ready, and return its descriptor. Close it.

    Args:
        name: of the device, at most 15 characters.
        address: its own, IPv4 or IPv6.
        prefix: length in bits of the network's prefix, all of which is reached through the device.

    Raises:
        TunError: the system has none, or does not permit it.
    """
    import fcntl

    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise TunError(_reason(error)) from None
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, REQUEST.pack(name.encode(), IFF_TUN | IFF_NO_PI))
        _configure(name, address, prefix)
    except OSError as error:
        os.close(descriptor)
        raise TunError(_reason(error)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def missing_tun() -> str:
    """Say why there are no TUN devices for us; empty if it seems that there are."""
    if not DEVICE.exists():
        return _reason(FileNotFoundError(errno.ENOENT, ""))
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return _reason(PermissionError(errno.EACCES, ""))
    return ""


def packets_lost(name: str) -> int:
    """Return how many packets a device of this network namespace has dropped, in either direction."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        device, _, counters = line.partition(":")
        if device.strip() == name:
            numbers = counters.split()
            return int(numbers[3]) + int(numbers[11])
    return 0


def _configure(name: str, address: str, prefix: int) -> None:
    """Give a device its address, and bring it up."""
    from pyroute2 import IPRoute, NetlinkError

    flags = {"flags": NODAD} if ":" in address else {}
    with contextlib.suppress(FileNotFoundError):  # a system without IPv6
        # No link-local address, and so no solicitations either: nothing comes but what we send.
        Path("/proc/sys/net/ipv6/conf", name, "addr_gen_mode").write_text("1")
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=name)
        try:
            route.link("set", index=index, state="up", txqlen=QUEUE)
            route.addr("add", index=index, address=address, prefixlen=prefix, **flags)
        except NetlinkError as error:
            raise OSError(error.code, f"{address}: {os.strerror(error.code)}") from None


def _reason(error: OSError) -> str:
    """Say why there is no TUN device for us, and what would help."""
    if error.errno in (errno.EPERM, errno.EACCES):
        if os.geteuid():
            return f"only root may use {DEVICE} here; run it as root"
        return (
            f"this root may not use {DEVICE} (CAP_NET_ADMIN); in a container, start it with "
            f"--device {DEVICE} --cap-add NET_ADMIN"
        )
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"this system has no TUN devices ({DEVICE}): modprobe tun; in a container, --device {DEVICE}"
    return f"a TUN device cannot be made: {error.strerror or error}"
