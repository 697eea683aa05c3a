"""A device's packets through a ring of memory that the kernel fills and we read (packet(7), TPACKET_V3).

Nothing is copied on the way to us, and there is no system call a packet: the kernel fills block after
block, and hands one over when it is full, or when it has waited for a while.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import struct
from typing import TYPE_CHECKING

import numpy as np

from closeseq.capture.live import blocks
from closeseq.capture.live.devices import check_up, condition, let_nothing_in
from closeseq.capture.live.instructions import attach, lock
from closeseq.capture.live.problems import DeviceError, NoRingError, not_permitted

if TYPE_CHECKING:
    from closeseq.capture.live.devices import Condition, Device
    from closeseq.capture.live.instructions import Program
    from closeseq.packets.frames import Frames

# Bytes: eight hundred packets. A block is used up when it waited long enough, however little is in it, so
# with few large ones a reader that is held up for seconds would lose packets of the slowest traffic.
BLOCK = 1 << 17
# How long a packet waits in a block that does not fill, in seconds: once to twice this.
HAND_OVER = 0.05
# After this nothing is left in a block that is not handed over.
QUIET = 3 * HAND_OVER

_SOL_PACKET = 263
_RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 5, 6, 10, 23  # linux/if_packet.h
_TPACKET_V3 = 2
_RING_REQUEST = struct.Struct("7I")  # struct tpacket_req3
_STATISTICS_ANSWER = struct.Struct("3I")  # struct tpacket_stats_v3
_FRAME = 2048  # bytes; of no meaning for this version, but it has to divide the block
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL


class Ring:
    """The packets of one device.

    Args:
        device: which.
        program: what the kernel's filter runs from the first packet on.
        size: bytes of memory to have; less is taken if the kernel has not as much.
        block: bytes in a block.

    Raises:
        NotPermittedError: the process has no CAP_NET_RAW.
        DeviceError: the device is gone or down, or there is no memory.
        NoRingError: the kernel has no such rings.
    """

    quiet = QUIET  # seconds after which nothing can be left that was captured before

    def __init__(self, device: Device, program: Program, size: int, block: int = BLOCK) -> None:
        self.device = device
        self._dropped = 0
        self._block = block
        self._next = 0  # the block that is read next, by its number
        self._held = list[int]()  # the blocks that frames handed out lie in, in bytes from the start
        self._socket = _open(device)
        try:
            attach(self._socket, program)
            lock(self._socket)
            self._blocks = self._allocate(max(2, size // block))
            self._memory = self._map()
            if device.loopback:
                with contextlib.suppress(OSError):  # before Linux 4.20 the filter does it, at some cost
                    self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            if device.index:
                self._socket.bind((device.name, _ALL_PROTOCOLS))
                self.failed()  # the next line says it better
            check_up(device, self._socket)
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"cannot capture on {device.name}: {error.strerror}") from error
        except BaseException:
            self._socket.close()
            raise

    def _allocate(self, wanted: int) -> int:
        """Get memory for that many blocks, or for a half, a quarter of it; return how many there are."""
        try:
            self._socket.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V3)
        except OSError as error:
            raise NoRingError(f"this kernel has no rings for packets: {error.strerror}") from error
        while True:
            frames = wanted * (self._block // _FRAME)
            request = (self._block, wanted, _FRAME, frames, int(HAND_OVER * 1000), 0, 0)
            try:
                self._socket.setsockopt(_SOL_PACKET, _RX_RING, _RING_REQUEST.pack(*request))
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise NoRingError(f"this kernel has no rings for packets: {error.strerror}") from error
                if wanted <= 2:  # noqa: PLR2004  # one to fill, one to read
                    raise DeviceError(f"no memory to capture in: {error.strerror}") from error
                wanted //= 2
            else:
                return wanted

    def _map(self) -> blocks.Memory:
        octets = memoryview(mmap.mmap(self._socket.fileno(), self._blocks * self._block))
        return blocks.Memory(octets, octets.cast("I"), np.frombuffer(octets, dtype=np.uint8))

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to read."""
        return self._socket.fileno()

    @property
    def size(self) -> int:
        """Bytes of memory in the ring."""
        return self._blocks * self._block

    @property
    def dropped(self) -> int:
        """Packets lost so far because the ring was full."""
        if self._socket.fileno() >= 0:
            answer = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, _STATISTICS_ANSWER.size)
            self._dropped += _STATISTICS_ANSWER.unpack(answer)[1]  # the kernel begins anew at each asking
        return self._dropped

    def ready(self) -> bool:
        """Return whether `take` has something to give."""
        return bool(blocks.ready(self._memory, self._next * self._block))

    def take(self, most: int, number: int) -> Frames:
        """Return the frames of the blocks that are ready: of one at least, else at most `most` frames.

        The first one gets this `number`. They are good until `release`.
        """
        taken, packets = list[int](), 0
        at = self._next
        while len(self._held) + len(taken) < self._blocks:
            found = blocks.ready(self._memory, at * self._block)
            if not found or (taken and packets + found > most):
                break
            taken.append(at * self._block)
            packets += found
            at = (at + 1) % self._blocks
        device = self.device
        frames = blocks.read_blocks(self._memory, taken, device.link_type, number, cooked=device.cooked)
        self._next = at
        self._held += taken
        return frames

    def release(self) -> None:
        """Give the memory of all that was taken back to the kernel."""
        for block in self._held:
            self._memory.words[block // blocks.WORD + blocks.STATUS] = blocks.TO_KERNEL
        self._held.clear()

    def failed(self) -> bool:
        """Return whether nothing more will come, because the device is down or gone; it is told once."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def condition(self) -> Condition:
        """Return how the device is."""
        return condition(self.device, self._socket)

    def stop(self) -> None:
        """Let nothing more in. What is in the ring stays there."""
        let_nothing_in(self.device, self._socket)

    def close(self) -> None:
        """Let go of the device. Frames handed out keep the memory as long as they are used."""
        if self._socket.fileno() < 0:
            return
        _ = self.dropped  # for those who ask later
        # The map has a descriptor of its own; while somebody holds frames, it is not to be filled on.
        with contextlib.suppress(OSError):
            self.stop()
        self._socket.close()
        self._memory = blocks.Memory(memoryview(b""), memoryview(b"").cast("I"), np.empty(0, np.uint8))


def _open(device: Device) -> socket.socket:
    kind = socket.SOCK_DGRAM if device.cooked else socket.SOCK_RAW
    # Protocol 0: nothing comes in before all is set up and the socket is bound. For all devices no binding
    # is needed, and things come in at once; what came before there was a filter is not in the ring, because
    # the kernel empties the socket when it gets one.
    protocol = 0 if device.index else socket.htons(_ALL_PROTOCOLS)
    try:
        return socket.socket(socket.AF_PACKET, kind, protocol)
    except PermissionError:
        raise not_permitted(device) from None
    except OSError as error:
        raise DeviceError(f"cannot capture on {device.name}: {error.strerror}") from error
