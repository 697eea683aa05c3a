"""Reading a capture: its files one after the other, decoded batch by batch, and what they contain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from closeseq.errors import CaptureError
from closeseq.packets.frames import File, Files
from closeseq.workers.pool import can_fork, made_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from closeseq.packets.frames import Frames
    from closeseq.packets.segments import Segments
    from closeseq.segments import Decoder

LARGE = 4 << 20  # bytes of files, from which on a process that reads them is worth while


@dataclass(slots=True)
class Reading:
    """What was read of a capture: counts, times, files, and why reading stopped."""

    path: str  # of several files the first one
    packets: int = 0  # captured ones, of all protocols
    segments: int = 0  # TCP segments, before --port and --host choose among them
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> frames
    notes: dict[str, int] = field(default_factory=dict)  # remark -> segments
    dropped: int = 0  # packets that were lost, as the capture itself reports
    copies: int = 0  # packets captured or delivered more than once and counted once
    first_ns: int | None = None  # time of the earliest TCP segment, since the Unix epoch
    last_ns: int | None = None  # and of the latest one
    ended_ns: int | None = None  # when the capture ended, if it reports that
    error: CaptureError | None = None  # why reading stopped early; what was read is analysed
    files: Files = field(default_factory=Files)  # that were read, in the order of their times
    empty: tuple[str, ...] = ()  # files beside them that hold no packet
    beside: tuple[str, ...] = ()  # other captures named with it, which overlap it in time

    @property
    def end_ns(self) -> int | None:
        """When the capture ended: as it reports itself (a pcapng may), or else its latest packet's time."""
        known = [one for one in (self.last_ns, self.ended_ns) if one is not None]
        return max(known, default=None)

    def see(self, batch: BatchCounts) -> None:
        """Take in the times of a batch's segments, those that were asked for and all others."""
        if batch.times is not None:
            first, last = batch.times
            self.first_ns = first if self.first_ns is None else min(first, self.first_ns)
            self.last_ns = last if self.last_ns is None else max(last, self.last_ns)

    def add(self, packets: int, batch: BatchCounts) -> None:
        """Count a batch.

        Args:
            packets: captured packets in it, also those that gave no segment.
            batch: what was decoded of them; its counts of skipped frames and remarks are added.
        """
        self.packets += packets
        self.segments += batch.segments
        self.skipped = dict(Counter(self.skipped) + Counter(batch.skipped))
        self.notes = dict(Counter(self.notes) + Counter(batch.notes))


class BatchCounts(NamedTuple):
    """What there is to count of a batch."""

    segments: int
    skipped: Mapping[str, int]  # as in Segments
    notes: Mapping[str, int]  # likewise
    times: tuple[int, int] | None  # of the earliest segment and the latest, since the Unix epoch

    @classmethod
    def of(cls, segments: Segments) -> Self:
        """Count the segments of a batch."""
        time_ns = segments.time_ns
        times = (int(time_ns.min()), int(time_ns.max())) if len(segments) else None
        return cls(len(segments), segments.skipped, segments.notes, times)


class Halves(NamedTuple):
    """How batches are fed in two halves, of which another process does the first."""

    first: Callable[[Segments], Any]
    second: Callable[[Any], None]  # is given what the first one returned
    left: Callable[[], Iterator[Any]]  # what all first halves leave, at the end
    join: Callable[[Any], None]  # takes in each of these


class Begun(NamedTuple):
    """A file is opened next."""

    path: str


class Decoded(NamedTuple):
    """A batch of that file."""

    counts: BatchCounts
    fed: Any  # its segments, or what the first half made of them
    packets: int  # frames in the batch, also those that gave no segment
    first_ns: int  # time of its earliest packet; 0 without any
    last_ns: int  # and of its latest
    position: int  # bytes of the file that were used so far
    size: int | None  # bytes of it, if known


class Left(NamedTuple):
    """All files are read, and the first halves have left this."""

    part: Any


class Ended(NamedTuple):
    """The file is at its end, or cannot be read any further."""

    position: int  # bytes of it that were used
    dropped: int  # packets that were lost, as it reports
    ended_ns: int | None  # when the capture ended, if it reports that
    error: CaptureError | None  # why it cannot be read to its end


Step: TypeAlias = Begun | Decoded | Ended | Left


class Reader:
    """Reads the files of a capture, one after the other.

    Args:
        reading: is filled in with what was read.
        feed: takes the segments, batch by batch.
        count: stop after this many packets.
        progress: is called after each batch with the bytes consumed and the size of all, if known.
        halves: how to feed while another process reads large files, decodes them, and does the first half.
        decoder: decodes, and keeps the fragments of unfinished packets; by default a new one.
    """

    def __init__(
        self,
        reading: Reading,
        feed: Callable[[Segments], None],
        count: int | None = None,
        progress: Callable[[int, int | None], None] | None = None,
        *,
        halves: Halves | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self._reading = reading
        self._feed = feed
        self._count = count
        self._progress = progress
        self._halves = halves
        self._decoder = decoder
        self._size: int | None = None  # bytes of several files, if known
        self._done = 0  # bytes of the files before

    def read(self, paths: Sequence[str]) -> None:
        """Read the files. An error in one is kept as its `File.error`, and the others are read.

        Args:
            paths: names or URLs of the files, in the order of their times; "-" is standard input.

        Raises:
            WorkerError: the process that reads ended before its work was done.
        """
        size = _size(paths)
        self._size = size if len(paths) > 1 else None  # a single file's comes with each batch
        steps: Iterator[Step] = _steps(paths, self._count, self._decoder)
        halves, feed = self._halves, self._feed
        if halves is not None and can_fork() and size is not None and size >= LARGE:
            steps, feed = made_ahead(_half_fed(steps, halves)), halves.second
        file = File("", 0)
        for step in steps:
            if isinstance(step, Begun):
                file = self._reading.files.add(step.path, self._reading.packets)
            elif isinstance(step, Decoded):
                self._add(step, file, feed)
            elif isinstance(step, Ended):
                self._end(step, file)
            elif halves is not None:
                halves.join(step.part)

    def _add(self, batch: Decoded, file: File, feed: Callable[[Any], None]) -> None:
        if batch.packets:
            file.add(batch.packets, batch.first_ns, batch.last_ns)
        self._reading.add(batch.packets, batch.counts)
        self._reading.see(batch.counts)
        feed(batch.fed)
        if self._progress is not None:
            size = batch.size if self._size is None else self._size
            self._progress(self._done + batch.position, size)

    def _end(self, ended: Ended, file: File) -> None:
        reading = self._reading
        self._done += ended.position
        reading.dropped += ended.dropped
        known = [one for one in (reading.ended_ns, ended.ended_ns) if one is not None]
        reading.ended_ns = max(known, default=None)
        file.error = ended.error


def _steps(paths: Sequence[str], count: int | None, given: Decoder | None) -> Iterator[Step]:
    """Yield what is read of files, up to `count` packets."""
    from closeseq.capture import open_capture
    from closeseq.segments import Decoder

    packets, decoder = 0, given or Decoder()  # one for all: the fragments of a packet may lie in two files
    for path in paths:
        yield Begun(path)
        try:
            capture = open_capture(path)
        except CaptureError as error:
            yield Ended(0, 0, None, error)
            continue
        before, trouble = packets, None
        with capture:
            try:
                for frames in capture.batches():
                    batch = replace(frames, number=frames.number + before) if before else frames
                    if count is not None:
                        batch = batch.first(count - packets)
                    packets += len(batch)
                    first_ns, last_ns = _times(batch)
                    segments = decoder.decode(batch)
                    counts, place = BatchCounts.of(segments), (capture.position, capture.size)
                    yield Decoded(counts, segments, len(batch), first_ns, last_ns, *place)
                    if packets == count:
                        break
            except CaptureError as error:
                trouble = error
            yield Ended(capture.position, capture.dropped, capture.ended_ns, trouble)
        if packets == count:
            return


def _half_fed(steps: Iterator[Step], halves: Halves) -> Iterator[Step]:
    """Yield the same, after the first half; at the end what that leaves."""
    for step in steps:
        yield step._replace(fed=halves.first(step.fed)) if isinstance(step, Decoded) else step
    yield from map(Left, halves.left())


def _times(frames: Frames) -> tuple[int, int]:
    return (int(frames.time_ns.min()), int(frames.time_ns.max())) if len(frames) else (0, 0)


def _size(paths: Sequence[str]) -> int | None:
    """Return the bytes of files together; None if unknown."""
    try:
        found = [Path(path).stat() for path in paths]
    except (OSError, ValueError):
        return None
    return sum(one.st_size for one in found) if all(S_ISREG(one.st_mode) for one in found) else None
