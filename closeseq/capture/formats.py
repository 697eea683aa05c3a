"""What a file is, by its first bytes."""

from __future__ import annotations

import struct

from closeseq.capture import pcap, pcapng, pcapngchain
from closeseq.capture.records import Trouble, Walker
from closeseq.capture.unpacking import COMPRESSIONS

HEAD = pcap.FILE_HEADER  # bytes that `recognise` wants to see, if the file has as many

UNPACK = "unpack it first, for example: `{} FILE | closeseq analyze -`"
CONVERT = "convert it first, for example with `editcap -F pcapng FILE NEW`"
RECORD_AGAIN = "record it again with `tcpdump -w FILE`, or convert it with `editcap -F pcapng FILE NEW`"
COPY_BINARY = "copy it again in binary mode"

# First bytes -> what such a file is, what to do about it.
FOREIGN = {
    **{  # these are unpacked once
        magic: (f"compressed twice, with {one.name} inside", UNPACK.format(one.tool))
        for one in COMPRESSIONS
        for magic in one.magics
    },
    b"\x04\x22\x4d\x18": ("compressed with lz4", UNPACK.format("lz4cat")),
    b"\x1f\x9d": ("compressed with compress", UNPACK.format("zcat")),
    b"PK\x03\x04": ("a zip archive", UNPACK.format("unzip -p")),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", UNPACK.format("7z x -so")),
    b"snoop\x00\x00\x00": ("a Solaris snoop capture", CONVERT),
    b"btsnoop\x00": ("a Bluetooth capture (btsnoop)", "there is no TCP in it"),
    b"RTSS": ("a Microsoft Network Monitor capture", CONVERT),
    b"GMBU": ("a Microsoft Network Monitor capture", CONVERT),
    b"TRSNIFF data    \x1a": ("a Sniffer capture", CONVERT),
    b"XCP\x00": ("a NetXRay capture", CONVERT),
    b"iptrace ": ("an AIX iptrace capture", CONVERT),
    b"\x0a\x0d\x0a": ("a pcapng file whose line ends were rewritten", COPY_BINARY),
    b"\x0d\x0a\x0d": ("a pcapng file whose line ends were rewritten", COPY_BINARY),
    **{
        struct.pack(order + "I", magic): (what, CONVERT)
        for order in "<>"
        for magic, what in (
            (0xA1B2CD34, "a modified pcap (Kuznetzov's, of old Linux patches)"),
            (0xA1B234CD, "a modified pcap (Mesquita's)"),
            (0xA12B3C4D, "a modified pcap (Navtel's)"),
            (0x1C0001AC, "a modified pcap (Ixia lcap, hardware)"),
            (0x1C0001AB, "a modified pcap (Ixia lcap, software)"),
        )
    },
}
PCAP = {struct.pack(order + "I", magic) for order in "<>" for magic in pcap.NS_PER_UNIT}
PCAPNG = struct.pack("<I", pcapngchain.SECTION)  # the same in both byte orders
TEXT = frozenset(b"\t\n\r\x1b" + bytes(range(0x20, 0x7F)))


def recognise(head: bytes) -> Walker | Trouble:
    """Return the walker for the file that begins with these bytes (`HEAD` of them, or all there are).

    If it is no capture, or none that can be read, the answer says what it is and what to do.
    """
    magic = head[:4]
    if magic == PCAPNG:
        return pcapng.PcapngWalker()
    if magic in PCAP:
        return pcap.begin(head)
    if not head:
        return Trouble("the file is empty", 0, "nothing was captured, or nothing was written yet")
    for begin, (what, remedy) in FOREIGN.items():
        if head.startswith(begin):
            return Trouble(f"not a pcap or pcapng capture: it is {what}", 0, remedy)
    if TEXT.issuperset(head):
        return Trouble(
            "not a capture: it is text", 0, "give what `tcpdump -w FILE` wrote, not what was printed from it"
        )
    return Trouble(f"not a pcap or pcapng capture: it begins with {head[:8].hex(' ')}", 0, RECORD_AGAIN)
