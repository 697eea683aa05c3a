"""A device's packets through scapy's socket: on systems without Linux's ring, and on request.

The packets are read as they are, without scapy's dissection. Each costs a few microseconds of Python all
the same, and its time is rounded to a quarter of a microsecond, which is what scapy's numbers can hold.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import struct
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.capture.live.bpf import NOTHING, attach, lock
from closeseq.capture.live.devices import (
    ANY,
    DeviceState,
    check_up,
    condition,
    let_nothing_in,
    not_permitted,
)
from closeseq.errors import DeviceError, FilterError
from closeseq.packets.frames import Frames
from closeseq.packets.protocols import LINKTYPE_RAW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.capture.live.bpf import Program
    from closeseq.capture.live.devices import Device
    from closeseq.capture.live.filter import FilterRequest

LARGEST = 0xFFFF  # bytes read of a packet: its length on the wire is known from what was read only
FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")  # where scapy makes folders of its own
_RECEIVE_BUFFER = 33  # SO_RCVBUFFORCE, asm-generic/socket.h: as much as wanted, for the privileged
_SOL_PACKET, _STATISTICS = 263, 6
_COUNTERS = struct.Struct("2I")  # struct tpacket_stats: packets, drops
_LINUX = sys.platform == "linux"


class Sniffer:
    """The packets of one device: a `DeviceSource`.

    Args:
        device: which. On systems other than Linux its link type is the one that scapy reports.
        program: what the kernel's filter runs, on Linux. It must not cut packets.
        text: the same as an expression, for other systems; empty: everything.
        snap_length: bytes to keep of each frame.
        size: bytes of memory for packets that wait to be read, where the system lets one choose.

    Raises:
        NotPermittedError: the process may not capture.
        DeviceError: the device is gone or down, or scapy cannot read this kind of device.
        FilterError: scapy cannot use the text.
    """

    quiet = 0.0  # seconds: what was captured is readable at once

    def __init__(self, device: Device, program: Program, text: str, snap_length: int, size: int) -> None:
        if device.cooked:
            what = "all interfaces at once: name them" if device.name == ANY else f"{device.name}'s link type"
            raise DeviceError(f"scapy's socket cannot read {what}")
        self._snap_length = snap_length
        self._dropped = 0
        self._stopped_at = math.inf  # seconds since the epoch
        self._over = False  # nothing more will be taken
        self._failed = False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            check_up(device, any_socket)
        self._conf = load_scapy()
        self._socket = _open(self._conf, device, "" if _LINUX else text)
        self.device = device if _LINUX else replace(device, link_type=_link_type(self._conf, self._socket))
        try:
            if _LINUX:
                self._begin(program, size)
                check_up(device, self._socket.ins)
        except BaseException:
            self._socket.close()
            raise

    def _begin(self, program: Program, size: int) -> None:
        """Drop what came in before there was a filter, and get room for more than scapy asks for."""
        attach(self._socket.ins, NOTHING)
        while select.select([self._socket.ins], [], [], 0)[0] and not self.failed():
            self._socket.ins.recv(1)
        try:
            self._socket.ins.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER, size)
        except PermissionError:  # has the right to read packets, but no others
            self._socket.ins.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        attach(self._socket.ins, program)
        lock(self._socket.ins)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to read."""
        number: int = self._socket.fileno()
        return number

    @property
    def dropped(self) -> int:
        """Packets lost so far because nobody read them in time; 0 where the system does not count them."""
        if self._socket.closed:
            return self._dropped
        if _LINUX:
            answer = self._socket.ins.getsockopt(_SOL_PACKET, _STATISTICS, _COUNTERS.size)
            self._dropped += _COUNTERS.unpack(answer)[1]  # the kernel begins anew at each asking
        elif hasattr(self._socket, "get_stats"):
            self._dropped = self._socket.get_stats()[1] or 0
        return self._dropped

    def ready(self) -> bool:
        """Return whether `take` has frames to return."""
        return not self._over and bool(self._socket.select([self._socket], 0))

    def take(self, most: int, number: int) -> Frames:
        """Return the packets that are there, at most `most`; the first one gets this `number`."""
        pieces, wire, time_ns = list[bytes](), list[int](), list[int]()
        while len(pieces) < most and self.ready():
            try:
                _, frame, moment = self._socket.recv_raw(LARGEST)
            except OSError:  # the device is down; the system reports it once
                self._failed = True
                break
            if frame is None:
                break
            if moment > self._stopped_at:
                self._over = True
                break
            pieces.append(frame[: self._snap_length])
            wire.append(len(frame))
            time_ns.append(round(moment * 1e9))
        captured = np.array([len(piece) for piece in pieces], dtype=np.int64)
        return Frames(
            buffer=np.frombuffer(b"".join(pieces), dtype=np.uint8),
            offset=np.cumsum(captured) - captured,
            captured=captured,
            wire=np.array(wire, dtype=np.int64),
            time_ns=np.array(time_ns, dtype=np.int64),
            number=np.arange(number, number + len(pieces), dtype=np.int64),
            link_type=np.full(len(pieces), self.device.link_type, dtype=np.uint16),
        )

    def release(self) -> None:
        """Do nothing: frames are in memory of their own."""

    def failed(self) -> bool:
        """Return whether nothing more will come, because the device is down or gone."""
        if _LINUX and self._socket.ins.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed = True
        return self._failed

    def condition(self) -> DeviceState:
        """Return the state of the device; on systems that do not report it, it is gone."""
        if not _LINUX:
            return DeviceState.GONE
        self._failed = False
        return condition(self.device, self._socket.ins)

    def stop(self) -> None:
        """Stop capturing. What was captured can still be taken."""
        if _LINUX:
            let_nothing_in(self.device, self._socket.ins)
        else:
            self._stopped_at = time.time()

    def close(self) -> None:
        """Close the device."""
        if not self._socket.closed:
            _ = self.dropped  # for those who ask later
            self._socket.close()


def text_filter(wanted: FilterRequest, expression: str | None) -> str:
    """Return the filter expression for the wanted ports and hosts and this expression; "" for everything."""
    parts = [f"({expression})"] if expression else []
    for word, values in (("port", wanted.ports), ("host", wanted.hosts)):
        if values:
            parts.append("(" + " or ".join(f"{word} {value}" for value in sorted(values, key=str)) + ")")
    return " and ".join(parts)


def load_scapy() -> Any:
    """Import the parts of scapy that are used here, and return its configuration."""
    with quiet_scapy():
        import scapy.arch
        import scapy.layers.l2  # noqa: F401  # makes the link types known
        from scapy.config import conf
    return conf


@contextlib.contextmanager
def quiet_scapy() -> Iterator[None]:
    """Keep scapy, imported in this block, from printing anything and from leaving a cache.

    Under sudo, it would leave folders and files of root's in the home of the user, and load what it finds
    there. It is given a folder that cannot be made, so nobody can put anything into it.
    """
    logging.getLogger("scapy").setLevel(logging.CRITICAL)
    before = {name: os.environ.get(name) for name in FOLDERS}
    os.environ.update(dict.fromkeys(FOLDERS, f"{os.devnull}/none"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _open(conf: Any, device: Device, text: str) -> Any:
    from scapy.error import Scapy_Exception

    try:
        return conf.L2listen(iface=device.name, promisc=False, **({"filter": text} if text else {}))
    except PermissionError:
        raise not_permitted(device) from None
    except OSError as error:
        raise DeviceError(f"cannot capture on {device.name}: {error.strerror or error}") from error
    except Scapy_Exception as error:
        problem = " ".join(str(error).split())
        if "ermission" in problem:
            raise not_permitted(device) from None
        raise (FilterError if text else DeviceError)(f"cannot capture on {device.name}: {problem}") from error


def _link_type(conf: Any, opened: Any) -> int:
    """Return the LINKTYPE_ value for the kind of packet that scapy says it reads."""
    number: int = conf.l2types.layer2num.get(opened.LL, LINKTYPE_RAW)
    return number
