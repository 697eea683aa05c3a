"""The network devices of this machine: their link types, and whether they are up."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
import struct
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from closeseq.errors import DeviceError, NotPermittedError
from closeseq.packets.protocols import (
    LINKTYPE_ETHERNET,
    LINKTYPE_FDDI,
    LINKTYPE_IEEE_802_11,
    LINKTYPE_RADIOTAP,
    LINKTYPE_RAW,
    LINKTYPE_SLL2,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

ANY = "any"  # all devices of the network namespace at once, also those that come later

LOOPBACK_HARDWARE = 772  # ARPHRD_LOOPBACK
# Linux's ARPHRD_ -> LINKTYPE_. Of all other hardware the kernel takes off the link header ("cooked").
# NONE (tun, wireguard) and RAWIP (modems) have no link header.
# The last two: 802.11 in monitor mode.
_LINK_TYPES = {
    1: LINKTYPE_ETHERNET,
    LOOPBACK_HARDWARE: LINKTYPE_ETHERNET,
    0xFFFE: LINKTYPE_RAW,
    519: LINKTYPE_RAW,
    774: LINKTYPE_FDDI,
    801: LINKTYPE_IEEE_802_11,
    803: LINKTYPE_RADIOTAP,
}

_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8910, 0x8913, 0x8927  # linux/sockios.h
# struct ifreq: the name, and a union: of an index, or of a short number, flags or a type of hardware
_OF_INDEX, _OF_NUMBER = struct.Struct("=16si20x"), struct.Struct("=16sH22x")
_IFF_UP = 0x1
_NO_PROTOCOL = 0x88B5  # an EtherType for local experiments (IEEE 802): TCP never has it
_LONGEST_NAME = 15  # bytes, IFNAMSIZ without the zero at the end


@dataclass(frozen=True, slots=True)
class Device:
    """A network device, or `any`, as a capture sees it."""

    name: str
    index: int  # the system's number for it; 0 is `any`
    link_type: int  # LINKTYPE_ value of the frames captured there
    loopback: bool  # every packet passes twice, going out and coming in

    @property
    def cooked(self) -> bool:
        """Whether the kernel takes the link header off, and a header of our own stands in its place."""
        return self.link_type == LINKTYPE_SLL2


def find_devices(names: Iterable[str]) -> tuple[Device, ...]:
    """Return the devices of these names, each once, in the order named; `any` includes all others.

    Raises:
        DeviceError: no device has one of these names.
    """
    wanted = list(dict.fromkeys(names))
    if ANY in wanted:
        return (Device(ANY, 0, LINKTYPE_SLL2, loopback=False),)
    return tuple(_find(name) for name in wanted)


def check_up(device: Device, packets: socket.socket) -> None:
    """Check that a device is up, in the namespace of a socket. Only Linux is asked.

    Args:
        device: which; of `any` nothing is asked.
        packets: any socket of the network namespace.

    Raises:
        DeviceError: the device is down or gone.
    """
    if sys.platform == "linux" and device.index:
        name, flags = _look_up(device, packets)
        if name is None:
            raise DeviceError(f"{device.name} is gone")
        if not flags & _IFF_UP:
            raise DeviceError(f"{name} is down; `ip link set {shlex.quote(name)} up` brings it up")


class DeviceState(Enum):
    """Whether a device that is captured on is up."""

    UP = "up"
    DOWN = "down"  # it may come up again, and a socket that is bound to it then goes on
    GONE = "gone"  # for good, though another one may get its name


def condition(device: Device, packets: socket.socket) -> DeviceState:
    """Return the state of a device, by the name that it has now. Only for Linux.

    Args:
        device: which, by its index.
        packets: any socket of the network namespace.
    """
    name, flags = _look_up(device, packets)
    if name is None:
        return DeviceState.GONE
    return DeviceState.UP if flags & _IFF_UP else DeviceState.DOWN


def let_nothing_in(device: Device, packets: socket.socket) -> None:
    """Stop a packet socket's input; what came before stays there. Its filter may be locked.

    The socket is bound to a protocol that no packet has; the kernel returns when none is on its way to it.

    Args:
        device: that the socket captures on; of `any` no name is bound.
        packets: the socket.
    """
    with contextlib.suppress(OSError):  # the device is gone, and with it what would come
        packets.bind((device.name if device.index else "", _NO_PROTOCOL))


def _look_up(device: Device, packets: socket.socket) -> tuple[str | None, int]:
    """Return the name that the device has now, None if it is gone, and its flags."""
    import fcntl  # is not there on every system

    try:
        answer = fcntl.ioctl(packets, _SIOCGIFNAME, _OF_INDEX.pack(b"", device.index))
        name = _OF_INDEX.unpack(answer)[0].rstrip(b"\0")
        flags = _ask(packets, name, _SIOCGIFFLAGS)
    except OSError:
        return None, 0
    return name.decode(errors="replace"), flags


def _find(name: str) -> Device:
    try:
        index = socket.if_nametoindex(name)
    except (OSError, ValueError):  # the second for what cannot be a name
        raise DeviceError(_unknown(name)) from None
    if sys.platform != "linux":
        return Device(name, index, LINKTYPE_ETHERNET, loopback=name.startswith("lo"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            hardware = _ask(any_socket, os.fsencode(name), _SIOCGIFHWADDR)
        except OSError:
            raise DeviceError(_unknown(name)) from None
    return Device(
        name, index, _LINK_TYPES.get(hardware, LINKTYPE_SLL2), loopback=hardware == LOOPBACK_HARDWARE
    )


def _unknown(name: str) -> str:
    there = ", ".join(sorted(known for _, known in socket.if_nameindex()))
    every = f", and {ANY} for all of them" if sys.platform == "linux" else ""
    return f"there is no interface {name!r}; there are {there or 'none'}{every}"


def _ask(any_socket: socket.socket, name: bytes, request: int) -> int:
    """Return the number with which the kernel answers a question about a device. Raises OSError."""
    import fcntl  # is not there on every system

    if len(name) > _LONGEST_NAME:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    answer = fcntl.ioctl(any_socket, request, _OF_NUMBER.pack(name, 0))
    number: int = _OF_NUMBER.unpack(answer)[1]
    return number


def not_permitted(device: Device) -> NotPermittedError:
    """Return the error for a device on which the process may not capture."""
    return NotPermittedError(f"capturing on {device.name} needs the right to read packets")
