"""A capture again as pcapng, with comments on its packets: in one pass, a stretch of blocks at a time.

Of a pcapng every block is copied as it is. A block whose packet gets a comment is made longer by that option
(opt_comment), before the options that it has; if it had none, the end of options is put behind it. Our own
comments of an earlier time are left out, so that annotating twice gives what annotating once does, and
annotating with no comments gives the original back. Two things are not as in the original:

- A section that says how long it is says that no more (its length becomes -1, "unknown").
- A Simple Packet Block has no options. It is copied, and its comment is counted as left out.

A classic pcap becomes a pcapng of one section and one interface, which keeps its resolution of time, its snap
length and the length of its frame check sequence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from closeseq.capture import pcap
from closeseq.capture.interfaces import END_OF_OPTIONS, MICROSECONDS, NANOSECONDS
from closeseq.capture.pcapng import BYTE_ORDERS
from closeseq.capture.pcapng_blocks import HEAD, KINDS, SIMPLE, TRAILER
from closeseq.capture.walk import MAXIMUM_RECORD
from closeseq.capture.writers import (
    OPT_COMMENT,
    UNKNOWN_LENGTH,
    PcapngWriter,
    RecordFile,
    SavedDevice,
    option,
)
from closeseq.errors import CaptureError
from closeseq.packets.gather import gather
from closeseq.wireshark.comments import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from closeseq.capture import Capture
    from closeseq.capture.reader import Stretch
    from closeseq.wireshark.comments import PacketComments

MARK = OURS.encode()
OPTION_HEAD = 4  # bytes: code and length
SECTION_LENGTH_AT = 16  # in a section header
FCS_PRESENT, FCS_SHIFT = 0x04000000, 28  # in a pcap's field for the link type: in units of 16 bits


@dataclass(slots=True)
class Annotated:
    """What became of one file."""

    packets: int = 0  # written
    comments: int = 0  # on them
    left_out: int = 0  # comments that had no place
    error: CaptureError | None = None  # why it was not read to its end


def annotate(
    capture: Capture,
    comments: PacketComments,
    file: BinaryIO,
    *,
    before: int = 0,
    most: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Annotated:
    """Write a capture with comments on its packets.

    Args:
        capture: at its beginning.
        comments: by the packets' numbers.
        file: where to, open for writing; not closed.
        before: packets in files before this one, which are numbered first.
        most: stop behind so many packets.
        progress: is called with the bytes consumed and the size of all, if known.

    Returns:
        How many packets and comments were written. Where the capture is cut short or damaged, these are all
        whole records before, and the error says why.

    Raises:
        OSError: the file does not take everything.
    """
    copy = (
        PcapCopy(file, capture.header) if capture.header else PcapngCopy(file, commented=bool(len(comments)))
    )
    done = Annotated()
    try:
        for stretch in capture.stretches():
            some = stretch if most is None else _shortened(stretch, most - done.packets)
            number = len(some.frames)
            first = before + done.packets + 1
            wanted = comments.among(first, first + number - 1) if number else {}
            rows = {packet - first: texts for packet, texts in wanted.items()}
            done.left_out += copy.add(some, rows)
            done.comments += sum(map(len, rows.values()))
            done.packets += number
            if progress is not None:
                progress(capture.position, capture.size)
            if done.packets == most:
                break
    except CaptureError as error:
        done.error = error
    done.comments -= done.left_out
    return done


def _shortened(stretch: Stretch, most: int) -> Stretch:
    """Return a stretch up to its packet number `most`, at most."""
    frames = stretch.frames
    if len(frames) < most:
        return stretch
    start, offset = int(stretch.begin[most - 1]), int(frames.offset[most - 1])
    if offset - start == pcap.RECORD_HEADER:  # as in no pcapng
        end = offset + int(frames.captured[most - 1])
    else:
        end = start + _head(frames.buffer.data, start).length
    return stretch._replace(
        frames=frames.first(most),
        end=end,
        begin=stretch.begin[:most],
        sections=stretch.sections[stretch.sections < end],
    )


class PcapCopy:
    """A pcap that becomes a pcapng.

    Args:
        file: where to.
        header: the pcap's.
    """

    def __init__(self, file: BinaryIO, header: bytes) -> None:
        order = ">" if int.from_bytes(header[:4], "big") in pcap.NS_PER_UNIT else "<"
        magic, snaplen, link = struct.unpack(f"{order}I12xII", header)
        device = SavedDevice(
            "",
            link & pcap.LINK_TYPE,
            snaplen=snaplen,
            resolution=NANOSECONDS if magic == pcap.NANOSECONDS else MICROSECONDS,
            fcs_bits=(link >> FCS_SHIFT) * 16 if link & FCS_PRESENT else None,
        )
        self._writer = PcapngWriter(file, [device], started_ns=0)

    def add(self, stretch: Stretch, wanted: Mapping[int, Iterable[str]]) -> int:
        """Write packets, some with comments, and return how many comments had no place: none.

        Args:
            stretch: the next packets of the capture.
            wanted: the comments of a packet, by its place among these, from 0.
        """
        end = option(END_OF_OPTIONS, b"")
        options = {row: b"".join(map(_comment, texts)) + end for row, texts in wanted.items()}
        self._writer.write(stretch.frames, options=options)
        return 0


class PcapngCopy:
    """A pcapng that stays one.

    Args:
        file: where to.
        commented: whether any packet gets a comment.
    """

    def __init__(self, file: BinaryIO, *, commented: bool) -> None:
        self._records = RecordFile(file)
        self._commented = commented

    def add(self, stretch: Stretch, wanted: Mapping[int, Iterable[str]]) -> int:
        """Write blocks, some with comments, and return how many comments had no place.

        There is none in a Simple Packet Block, and in a block that would grow beyond MAXIMUM_RECORD.

        Args:
            stretch: the next blocks of the capture.
            wanted: the comments of a packet, by its place among the packets of these blocks, from 0.
        """
        window, at = stretch.frames.buffer.data, stretch.start
        changed = dict.fromkeys([*_commented_before(stretch).tolist(), *wanted])
        places = [(int(stretch.begin[row]), row) for row in changed]
        if self._commented:
            places += [(start, -1) for start in stretch.sections.tolist()]
        pieces: list[bytes | memoryview] = []
        left_out = 0
        for start, row in sorted(places):
            pieces.append(window[at:start])
            at = start
            if row < 0:
                pieces.append(_unmeasured(window, start))
                at += len(pieces[-1])
                continue
            texts = wanted.get(row, ())
            block, end = self._block(stretch, row, texts)
            if block is None:
                left_out += len(list(texts))
            else:
                pieces.append(block)
                at = end
        pieces.append(window[at : stretch.end])
        self._records.append(b"".join(pieces))
        return left_out

    @staticmethod
    def _block(stretch: Stretch, row: int, texts: Iterable[str]) -> tuple[bytes | None, int]:
        """Return a packet's block with comments, None if it takes none; and where in the window it ends."""
        window, frames = stretch.frames.buffer.data, stretch.frames
        start = int(stretch.begin[row])
        head = _head(window, start)
        if head.kind == SIMPLE:
            return None, 0
        options_at = int(frames.offset[row]) + (int(frames.captured[row]) + 3 & ~3)
        end = start + head.length
        rest = bytes(window[options_at : end - TRAILER])
        rest = _without_ours(rest, head.order)
        ours = b"".join(_comment(text, head.order) for text in texts)
        nothing = option(END_OF_OPTIONS, b"")
        bare = b"" if rest == nothing else rest
        options = ours + (rest or nothing) if ours else bare
        length = options_at - start + len(options) + TRAILER
        if length > MAXIMUM_RECORD:
            return None, 0
        begin = struct.pack(f"{head.order}II", head.kind, length)
        again = struct.pack(f"{head.order}I", length)
        return b"".join([begin, window[start + len(begin) : options_at], options, again]), end


@dataclass(frozen=True, slots=True)
class BlockHead:
    """The head of a packet block, and the byte order in which it is written."""

    order: str  # "<" or ">", as in `struct`
    kind: int  # the block type, pcapng section 4
    length: int  # bytes of the whole block


def _head(window: memoryview, start: int) -> BlockHead:
    for order in "<>":
        kind, length = struct.unpack_from(f"{order}II", window, start)
        if kind in KINDS:  # none of these reads as another one the other way round
            break
    return BlockHead(order, kind, length)


def _comment(text: str, order: str = "<") -> bytes:
    return option(OPT_COMMENT, text.encode(), order)


def _commented_before(stretch: Stretch) -> NDArray[np.int64]:
    """Return the packets, by their place, whose first option is a comment of ours."""
    frames, begin = stretch.frames, stretch.begin
    if not len(frames):
        return np.empty(0, np.int64)
    head = gather(frames.buffer, begin, HEAD)
    known = np.isin(head["kind"], KINDS)
    length = np.where(known, head["length"], head["length"].byteswap()).astype(np.int64)
    options = frames.offset + (frames.captured + 3 & ~3)
    room = begin + length - TRAILER - options
    rows: NDArray[np.int64] = np.flatnonzero(room >= OPTION_HEAD + len(MARK))
    marks = gather(frames.buffer, options[rows] + OPTION_HEAD, np.dtype(f"V{len(MARK)}"))
    codes = gather(frames.buffer, options[rows], np.dtype("<u2"))
    comment = np.where(known[rows], codes, codes.byteswap()) == OPT_COMMENT
    found: NDArray[np.int64] = rows[comment & (marks == np.void(MARK))]
    return found


def _without_ours(options: bytes, order: str) -> bytes:
    """Return options without the comments of ours that they begin with."""
    while options[OPTION_HEAD:].startswith(MARK):
        code, length = struct.unpack_from(f"{order}HH", options)
        behind = OPTION_HEAD + (length + 3 & ~3)
        if code != OPT_COMMENT or behind > len(options):
            break
        options = options[behind:]
    return options


def _unmeasured(window: memoryview, start: int) -> bytes:
    """Return a section header up to and with its length, which is unknown now."""
    order = BYTE_ORDERS[bytes(window[start + 8 : start + 12])]
    return bytes(window[start : start + SECTION_LENGTH_AT]) + struct.pack(f"{order}q", UNKNOWN_LENGTH)
