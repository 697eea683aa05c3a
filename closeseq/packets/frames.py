"""Frames: what was captured, before anyone looks inside."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

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
    # uint32, the interface's number within its capture; 0 everywhere where that is not told
    interface: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))

    def __post_init__(self) -> None:
        if len(self.interface) != len(self.offset):
            object.__setattr__(self, "interface", np.zeros(len(self.offset), np.uint32))

    def __len__(self) -> int:
        return len(self.offset)

    def first(self, count: int) -> Frames:
        """Return the first `count` frames, or all where there are fewer."""
        if count >= len(self):
            return self
        columns = (getattr(self, f.name)[:count] for f in fields(self) if f.name != "buffer")
        return Frames(self.buffer, *columns)
