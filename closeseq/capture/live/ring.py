"""A device's packets through a ring of memory that the kernel fills and we read (packet(7), TPACKET_V3).

Nothing is copied on the way to us, and there is no system call a packet: the kernel fills block after
block, and hands one over when it is full, or when it has waited for a while.

A block is a header and a chain of records. A record is a header, the device's address as the kernel has
it, and the frame, of which some bytes may be cut off (linux/if_packet.h). All numbers but those of the frame
are in the machine's own byte order.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.capture.live.bpf import attach, lock
from closeseq.capture.live.devices import check_up, condition, let_nothing_in, not_permitted
from closeseq.errors import DeviceError, NoRingError
from closeseq.packets.frames import Frames
from closeseq.packets.gather import gather, scatter
from closeseq.packets.protocols import ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, VLAN_TAGS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from closeseq.capture.live.bpf import Program
    from closeseq.capture.live.devices import Device, DeviceState

WORD = 4  # bytes; the chain is walked through a view of the memory as words
# Places in a block, in words: its owner, how many packets it has, the offset of the first record.
STATUS, PACKETS, FIRST_RECORD = 2, 3, 4
TO_KERNEL, TO_USER = 0, 1  # its owner: the kernel, to fill it, or we, to read it (the lowest bit)

RECORD = np.dtype(  # struct tpacket3_hdr
    [
        ("next_offset", "=u4"),  # bytes from this record to the next, 0 for the last one of a block
        ("seconds", "=u4"),
        ("nanoseconds", "=u4"),
        ("captured", "=u4"),
        ("wire", "=u4"),
        ("status", "=u4"),
        ("link", "=u2"),  # where the frame begins, in bytes from the record
        ("network", "=u2"),  # where its network layer begins
        ("hash", "=u4"),
        ("tag", "=u4"),
        ("tag_type", "=u2"),
    ]
)
ADDRESS_AT = 48  # bytes from the record
ADDRESS = np.dtype(  # struct sockaddr_ll
    [
        ("family", "=u2"),
        ("protocol", ">u2"),
        ("interface", "=u4"),
        ("hardware", "=u2"),
        ("packet_type", "u1"),
        ("address_length", "u1"),
        ("address", "u1", 8),
    ]
)
COOKED_HEADER = np.dtype(  # LINKTYPE_LINUX_SLL2, as registered by tcpdump.org
    [
        ("protocol", ">u2"),
        ("reserved", ">u2"),
        ("interface", ">u4"),
        ("hardware", ">u2"),
        ("packet_type", "u1"),
        ("address_length", "u1"),
        ("address", "u1", 8),
    ]
)


# The beginning of the network layer: an IP header, or the rest of a VLAN tag and the type of what follows.
BEGINNING = np.dtype([("version", "u1"), ("", "u1"), ("type", ">u2")])

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
    """The packets of one device: a `DeviceSource`.

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

    quiet = QUIET

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
                self.failed()  # clears the error; the next line raises a clearer one
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
            raise NoRingError(f"this kernel has no packet rings: {error.strerror}") from error
        while True:
            frames = wanted * (self._block // _FRAME)
            request = (self._block, wanted, _FRAME, frames, int(HAND_OVER * 1000), 0, 0)
            try:
                self._socket.setsockopt(_SOL_PACKET, _RX_RING, _RING_REQUEST.pack(*request))
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise NoRingError(f"this kernel has no packet rings: {error.strerror}") from error
                if wanted <= 2:  # noqa: PLR2004  # one to fill, one to read
                    raise DeviceError(
                        f"no memory for a ring on {self.device.name}: {error.strerror}"
                    ) from error
                wanted //= 2
            else:
                return wanted

    def _map(self) -> RingMemory:
        octets = memoryview(mmap.mmap(self._socket.fileno(), self._blocks * self._block))
        return RingMemory(octets, octets.cast("I"), np.frombuffer(octets, dtype=np.uint8))

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
        """Return whether `take` has frames to return."""
        return bool(ready(self._memory, self._next * self._block))

    def take(self, most: int, number: int) -> Frames:
        """Return the frames of the blocks that are ready: of one at least, else at most `most` frames.

        Args:
            most: frames; a single block may have more.
            number: of the first frame in the capture; the others count on.

        Returns:
            Frames in the ring itself, good until `release`.
        """
        taken, packets = list[int](), 0
        at = self._next
        while len(self._held) + len(taken) < self._blocks:
            found = ready(self._memory, at * self._block)
            if not found or (taken and packets + found > most):
                break
            taken.append(at * self._block)
            packets += found
            at = (at + 1) % self._blocks
        device = self.device
        frames = read_blocks(self._memory, taken, device.link_type, number, cooked=device.cooked)
        self._next = at
        self._held += taken
        return frames

    def release(self) -> None:
        """Give the memory of all that was taken back to the kernel."""
        for block in self._held:
            self._memory.words[block // WORD + STATUS] = TO_KERNEL
        self._held.clear()

    def failed(self) -> bool:
        """Return whether nothing more will come, because the device is down or gone; true only once."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def condition(self) -> DeviceState:
        """Return the state of the device."""
        return condition(self.device, self._socket)

    def stop(self) -> None:
        """Stop capturing. What is in the ring stays there."""
        let_nothing_in(self.device, self._socket)

    def close(self) -> None:
        """Close the device. Frames that were returned keep the memory as long as they are used."""
        if self._socket.fileno() < 0:
            return
        _ = self.dropped  # for those who ask later
        # The map has a descriptor of its own; while somebody holds frames, it is not to be filled on.
        with contextlib.suppress(OSError):
            self.stop()
        self._socket.close()
        self._memory = RingMemory(memoryview(b""), memoryview(b"").cast("I"), np.empty(0, np.uint8))


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


class RingMemory(NamedTuple):
    """Three views of a ring's memory."""

    octets: memoryview  # unsigned bytes
    words: memoryview  # unsigned 32-bit words
    buffer: NDArray[np.uint8]  # what `Frames.buffer` is


def ready(memory: RingMemory, block: int) -> int:
    """Return the number of packets in a block; 0 while it is the kernel's.

    Args:
        memory: of the ring.
        block: the byte of it at which the block begins.
    """
    at = block // WORD
    return memory.words[at + PACKETS] if memory.words[at + STATUS] & TO_USER else 0


def read_blocks(
    memory: RingMemory, blocks: Iterable[int], link_type: int, number: int, *, cooked: bool
) -> Frames:
    """Return the frames of blocks, where they lie in the ring.

    Of cooked frames the kernel has taken off the link header. The header of Linux cooked capture is put
    in its place, into the ring itself: between the record and the network layer there is room.

    Args:
        memory: of the ring.
        blocks: the bytes of it at which they begin, in the order in which the kernel filled them.
        link_type: LINKTYPE_ value of all frames.
        number: of the first frame in the capture; the others count on.
        cooked: whether the frames have no link header.
    """
    start = _walk(memory.words, blocks)
    record = gather(memory.octets, start, RECORD)
    captured, wire = record["captured"].astype(np.int64), record["wire"].astype(np.int64)
    offset = start + record["link"]
    if cooked:
        offset = start + record["network"] - COOKED_HEADER.itemsize
        captured += COOKED_HEADER.itemsize
        wire += COOKED_HEADER.itemsize
        _write_headers(memory.octets, start, offset)
    return Frames(
        buffer=memory.buffer,
        offset=offset,
        captured=captured,
        wire=wire,
        time_ns=record["seconds"].astype(np.int64) * 1_000_000_000 + record["nanoseconds"],
        number=np.arange(number, number + len(start), dtype=np.int64),
        link_type=np.full(len(start), link_type, dtype=np.uint16),
    )


def _walk(words: memoryview, blocks: Iterable[int]) -> NDArray[np.int64]:
    """Return where the records begin, in bytes.

    This loop is the one thing that runs in Python for every packet; it takes about 100 ns.
    """
    found = list[int]()
    append, word = found.append, WORD
    for block in blocks:
        at = block // WORD
        packets = words[at + PACKETS]
        at += words[at + FIRST_RECORD] // WORD
        for _ in range(packets):
            append(at)
            at += words[at] // word
    return np.array(found, dtype=np.int64) * WORD


def _write_headers(octets: memoryview, start: NDArray[np.int64], offset: NDArray[np.int64]) -> None:
    address = gather(octets, start + ADDRESS_AT, ADDRESS)
    header = np.zeros(len(start), dtype=COOKED_HEADER)
    for name in ("protocol", "interface", "hardware", "packet_type", "address_length"):
        header[name] = address[name]
    # Behind a short address there stands what was there before.
    known = np.arange(address["address"].shape[1]) < address["address_length"][:, np.newaxis]
    header["address"] = np.where(known, address["address"], 0)
    _correct_protocols(header["protocol"], gather(octets, offset + COOKED_HEADER.itemsize, BEGINNING))
    scatter(octets, offset, header)


def _correct_protocols(protocol: NDArray[np.uint16], beginning: NDArray[np.void]) -> None:
    """Correct the EtherTypes that the kernel gives for cooked frames with VLAN tags in them.

    Since Linux 6.11 it gives the type behind the tags, also for a frame that begins with a tag; before, it
    gave a tag's type, also for a sent frame that begins behind the tag. A frame that begins with the version
    of IP of its EtherType is left as it is.
    """
    version = beginning["version"] >> 4
    given = version.copy()
    for number, those in ((4, (ETHERTYPE_IPV4,)), (6, (ETHERTYPE_IPV6,)), (0, VLAN_TAGS)):
        for ethertype in those:
            given[protocol == ethertype] = number
    if (given == version).all():
        return
    typed = np.isin(beginning["type"], (ETHERTYPE_IPV4, ETHERTYPE_IPV6, *VLAN_TAGS))
    protocol[(given > 0) & (given != version) & typed] = ETHERTYPE_VLAN
    for number, meaning in ((4, ETHERTYPE_IPV4), (6, ETHERTYPE_IPV6)):
        protocol[(given == 0) & (version == number) & ~typed] = meaning
