"""From blocks of a ring of kernel memory to `Frames`.

A block is a header and a chain of records. A record is a header, the device's address as the kernel has
it, and the frame, of which some bytes may be cut off (linux/if_packet.h, TPACKET_V3). All numbers but
those of the frame are in the machine's own byte order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.capture.records import gather
from closeseq.packets.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD = 4  # bytes; the chain is walked through a view of the memory as words
# Places in a block, in words: whose it is, how many packets it has, the offset of the first record.
STATUS, PACKETS, FIRST_RECORD = 2, 3, 4
TO_KERNEL, TO_USER = 0, 1  # whose it is: the kernel's to fill, or ours to read (the lowest bit)

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


IPV4, IPV6 = 0x0800, 0x86DD  # EtherTypes
VLAN = 0x8100
TAGS = (VLAN, 0x88A8, 0x9100, 0x9200)
# The beginning of the network layer: an IP header, or the rest of a VLAN tag and the type of what follows.
BEGINNING = np.dtype([("version", "u1"), ("", "u1"), ("type", ">u2")])


class Memory(NamedTuple):
    """A ring's memory, seen in three ways."""

    octets: memoryview  # unsigned bytes
    words: memoryview  # unsigned 32-bit words
    buffer: np.ndarray  # uint8


def ready(memory: Memory, block: int) -> int:
    """Return the number of packets in the block that begins at this byte; 0 while it is the kernel's."""
    at = block // WORD
    return memory.words[at + PACKETS] if memory.words[at + STATUS] & TO_USER else 0


def read_blocks(
    memory: Memory, blocks: Iterable[int], link_type: int, number: int, *, cooked: bool
) -> Frames:
    """Return the frames of the blocks that begin at these bytes; the first gets this `number`.

    Of cooked frames the kernel has taken off the link header. The header of Linux cooked capture is put
    in its place, into the ring itself: between the record and the network layer there is room.
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


def _walk(words: memoryview, blocks: Iterable[int]) -> np.ndarray:
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


def _write_headers(octets: memoryview, start: np.ndarray, offset: np.ndarray) -> None:
    address = gather(octets, start + ADDRESS_AT, ADDRESS)
    header = np.zeros(len(start), dtype=COOKED_HEADER)
    for name in ("protocol", "interface", "hardware", "packet_type", "address_length"):
        header[name] = address[name]
    # Behind a short address there stands what was there before.
    known = np.arange(address["address"].shape[1]) < address["address_length"][:, np.newaxis]
    header["address"] = np.where(known, address["address"], 0)
    width = COOKED_HEADER.itemsize
    _correct_protocols(header["protocol"], gather(octets, offset + width, BEGINNING))
    everywhere = np.ndarray((len(octets) - width + 1,), f"V{width}", octets, strides=(1,))
    everywhere[offset] = header.view(f"V{width}")


def _correct_protocols(protocol: np.ndarray, beginning: np.ndarray) -> None:
    """Put right what cooked frames with VLAN tags in them are said to be.

    Since Linux 6.11 such a frame is said to be what is behind its tags, also if it begins with a tag;
    before, to be a tag, also if what was sent begins behind it. Of what begins with the version of IP that
    it is said to be, nothing is changed.
    """
    version = beginning["version"] >> 4
    said = version.copy()
    for number, those in ((4, (IPV4,)), (6, (IPV6,)), (0, TAGS)):
        for ethertype in those:
            said[protocol == ethertype] = number
    if (said == version).all():
        return
    typed = np.isin(beginning["type"], (IPV4, IPV6, *TAGS))
    protocol[(said > 0) & (said != version) & typed] = VLAN
    for number, meaning in ((4, IPV4), (6, IPV6)):
        protocol[(said == 0) & (version == number) & ~typed] = meaning
