"""Captures: from a file's bytes, or a network device, to `Frames`.

In the order the data goes:

    names          which files are meant: a directory, a pattern, a list of names
    chains         which files continue each other, by the times of their packets
    source         where the bytes come from: a file, a stream or a URL, read piece by piece
    compression    gzip, bzip2, xz and zstd, by content
    walk           the walk along record headers, for any format
    pcap           the classic format
    pcapng         the newer one: its sections; pcapng_blocks: its blocks
    interfaces     pcapng's interfaces: link type, clock, packets lost
    reader         open a capture by name, read it in batches; begin reading here
    tail           the bytes of a file that is still being written, and the file that follows it
    follow         a capture that is still being written
    live/          packets from a device, as they come
    writers        write pcapng and pcap
    saver          save a live capture, in one file or several in turn

Nothing here looks inside a frame.
"""

from closeseq.capture.reader import Capture, open_capture

__all__ = ["Capture", "open_capture"]
