"""Captures: from a file's bytes, or a network device, to `Frames`, in the order the data goes.

    names         which files are meant: a directory, a pattern, a list of names
    chains        which of them continue each other; extent: from when until when each goes
    source        where the bytes come from: a file or a stream, read piece by piece
    remote        files that have a URL: in object stores, on other machines
    unpacking     the four ways in which it may be compressed, unpacked as it is read
    compressed    of these, gzip
    formats       what the first bytes say the file is, and what to do if it is nothing we read
    pcap, pcapng  the walk along the record headers of the two formats
    lockstep      the same walk from many places at once
    pcaprecords, pcapngchain   what it has to know of each format
    packetblocks, interfaces   what pcapng says of packets, and of the interfaces they came from
    records       what the walks have in common
    reader        the capture as its user sees it
    tail, growing, succession  a capture that something else is still writing, and its next file
    live                       the packets of a device, as they come
    assembly, recordfile, writers, rotation, saver   what is captured, written down

Nothing here looks inside a frame.
"""

from closeseq.capture.reader import Capture, open_capture

__all__ = ["Capture", "open_capture"]
