"""Reading a capture: its files one after the other, decoded batch by batch, and what was met in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.errors import CaptureError
from closeseq.packets.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from closeseq.capture import Capture
    from closeseq.packets.files import File
    from closeseq.packets.frames import Frames
    from closeseq.packets.segments import Segments


@dataclass(slots=True)
class Reading:
    """What was read of a capture."""

    path: str  # of several files the first one
    packets: int = 0
    segments: int = 0  # TCP segments, before --port and --host choose among them
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> frames
    notes: dict[str, int] = field(default_factory=dict)  # remark -> segments
    dropped: int = 0  # packets that the capture itself says it lost
    copies: int = 0  # packets captured or delivered more than once and counted once
    first_ns: int | None = None  # time of the earliest packet, since the Unix epoch
    last_ns: int | None = None  # time of the latest packet
    ended_ns: int | None = None  # when the capture ended, if it says so
    error: CaptureError | None = None  # why reading stopped early; what was read is analysed
    files: Files = field(default_factory=Files)  # that were read, in the order of their times
    empty: tuple[str, ...] = ()  # files beside them that hold no packet
    beside: tuple[str, ...] = ()  # other captures named with it, which overlap it in time

    @property
    def end_ns(self) -> int | None:
        """When the capture ended: as it says itself (a pcapng may), or else its latest packet's time."""
        known = [one for one in (self.last_ns, self.ended_ns) if one is not None]
        return max(known, default=None)

    def add(self, packets: int, segments: Segments) -> None:
        """Count a batch."""
        self.packets += packets
        self.segments += len(segments)
        self.skipped = dict(Counter(self.skipped) + Counter(segments.skipped))
        self.notes = dict(Counter(self.notes) + Counter(segments.notes))


class Reader:
    """Reads the files of a capture, one after the other.

    Args:
        reading: what was read is noted there.
        feed: takes the segments, batch by batch.
        count: stop after this many packets.
        progress: is called after each batch with the bytes consumed and the size of all, if known.
    """

    def __init__(
        self,
        reading: Reading,
        feed: Callable[[Segments], None],
        count: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        from closeseq.segments import Decoder

        self._reading = reading
        self._feed = feed
        self._count = count
        self._progress = progress
        self._size: int | None = None  # bytes of several files, if known
        self._done = 0  # bytes of the files before
        self._decoder = Decoder()  # one for all: the fragments of a packet may lie in two files

    @property
    def _enough(self) -> bool:
        return self._count is not None and self._reading.packets >= self._count

    def read(self, paths: Sequence[str]) -> None:
        """Read the files. What is wrong with one is noted with it, and the others are read."""
        from closeseq.capture import open_capture

        self._size = _size(paths)
        for path in paths:
            file = self._reading.files.go_on(path, self._reading.packets)
            try:
                with open_capture(path) as capture:
                    self._read(capture, file)
            except CaptureError as error:
                file.error = error
            if self._enough:
                return

    def _read(self, capture: Capture, file: File) -> None:
        reading = self._reading
        dropped_before, ended_before_ns = reading.dropped, reading.ended_ns
        try:
            for frames in capture.batches():
                self._add(frames, file)
                if self._progress is not None:
                    size = capture.size if self._size is None else self._size
                    self._progress(self._done + capture.position, size)
                if self._enough:
                    return
        finally:
            self._done += capture.position
            reading.dropped = dropped_before + capture.dropped
            known = [one for one in (ended_before_ns, capture.ended_ns) if one is not None]
            reading.ended_ns = max(known, default=None)

    def _add(self, frames: Frames, file: File) -> None:
        reading, batch = self._reading, frames
        if file.before:
            batch = replace(frames, number=frames.number + file.before)
        if self._count is not None:
            batch = batch.first(self._count - reading.packets)
        if len(batch):
            file.add(len(batch), int(batch.time_ns.min()), int(batch.time_ns.max()))
        segments = self._decoder.decode(batch)
        reading.add(len(batch), segments)
        self._feed(segments)


def _size(paths: Sequence[str]) -> int | None:
    """Return the bytes of several files together; None of a single one, whose reader tells, or if unknown."""
    if len(paths) == 1:
        return None
    try:
        return sum(Path(path).stat().st_size for path in paths)
    except (OSError, ValueError):
        return None
