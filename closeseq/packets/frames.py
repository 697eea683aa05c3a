"""Frames: what was captured, before anyone looks inside."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Frames:
    """A batch of captured frames: one buffer, and where in it each frame lies.

    The columns have equal length, one entry a frame, in the order of capture. The buffer may be a view
    of a ring of kernel memory: whoever keeps bytes beyond the batch copies them.
    """

    buffer: np.ndarray  # uint8, holds every frame of the batch, and other things between them
    offset: np.ndarray  # int64, of the frame's first byte in the buffer
    captured: np.ndarray  # int64, bytes of the frame that are in the buffer
    wire: np.ndarray  # int64, bytes the frame had on the wire, at least `captured`
    time_ns: np.ndarray  # int64, nanoseconds since the Unix epoch
    number: np.ndarray  # int64, the packet's number in its capture, counted from 1
    link_type: np.ndarray  # uint16, LINKTYPE_ value as registered by tcpdump.org

    def __len__(self) -> int:
        return len(self.offset)

    def first(self, count: int) -> Frames:
        """Return the first `count` frames, or all where there are fewer."""
        if count >= len(self):
            return self
        columns = (getattr(self, f.name)[:count] for f in fields(self) if f.name != "buffer")
        return Frames(self.buffer, *columns)
