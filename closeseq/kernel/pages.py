"""Pages of the kernel's trace buffers, as the files trace_pipe_raw give them.

The files events/header_page and events/header_event of tracefs describe them. A page begins with the time
of its first event and the length of what is used of it. An event is a word, of which five bits say what it is
and the others how many nanoseconds it is later than the one before; then its data.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELD = re.compile(r"(\w+)(?:\[\d+\])?;\s*offset:(\d+);\s*size:(\d+);")

USED = (1 << 20) - 1  # of the page's length; above are flags
WORD = 4  # bytes
LENGTH_FOLLOWS, PADDING, TIME_EXTEND, TIME_STAMP = 0, 29, 30, 31  # RINGBUF_TYPE_; others are words of data
DELTA_BITS = 27
STAMP_BITS = 59  # of a TIME_STAMP; the uppermost ones are those of the time before


def fields(description: str) -> dict[str, slice]:
    """Return where each field is, by a `format` file of tracefs."""
    return {
        name: slice(int(offset), int(offset) + int(size)) for name, offset, size in FIELD.findall(description)
    }


@dataclass(frozen=True, slots=True)
class PageFormat:
    """How this kernel lays out its pages."""

    time: slice
    used: slice
    data: slice

    @classmethod
    def read(cls, description: str) -> PageFormat:
        """Make it from the file events/header_page."""
        found = fields(description)
        return cls(found["timestamp"], found["commit"], found["data"])

    @property
    def size(self) -> int:
        """Bytes of a page."""
        return int(self.data.stop)

    def events(self, page: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the time of each event, in nanoseconds of the buffer's clock, and its data.

        The data may be followed by up to three bytes of nothing.
        """
        moment = _number(page[self.time])
        at = self.data.start
        end = min(at + (_number(page[self.used]) & USED), len(page))
        while at + WORD <= end:
            kind, delta = _split(_number(page[at : at + WORD]))
            at += WORD
            first = _number(page[at : at + WORD])
            if kind == TIME_STAMP:
                moment = moment >> STAMP_BITS << STAMP_BITS | first << DELTA_BITS | delta
                at += WORD
            elif kind == TIME_EXTEND:
                moment += first << DELTA_BITS | delta
                at += WORD
            elif kind == PADDING:
                if not delta:
                    return  # the rest of the page
                moment += delta
                at += first  # an event that was taken back
            elif kind == LENGTH_FOLLOWS:
                moment += delta
                yield moment, page[at + WORD : at + first]
                at += first
            else:
                moment += delta
                yield moment, page[at : at + kind * WORD]
                at += kind * WORD


def _split(word: int) -> tuple[int, int]:
    """Return an event's kind and its time after the one before: bit fields, laid out as by C."""
    if sys.byteorder == "little":
        return word & 31, word >> 5
    return word >> DELTA_BITS, word & (1 << DELTA_BITS) - 1


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, sys.byteorder)
