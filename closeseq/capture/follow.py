"""A capture that something else is still writing, read as it grows, and on into the next file."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from closeseq.capture import reader
from closeseq.capture.compression import compression_of
from closeseq.capture.live.live_capture import LiveBatch
from closeseq.capture.reader import BATCH, HEAD, STANDARD_INPUT, open_file, recognise, walked_frames
from closeseq.capture.tail import CHANGED, CurrentFile, Tail, candidates, open_tail, successor
from closeseq.capture.walk import Trouble, Walked, Walker
from closeseq.errors import CaptureError
from closeseq.packets.frames import Files

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from closeseq.packets.frames import Frames

MAGIC = 4  # bytes that show the format
LOOK = 0.5  # seconds between two looks for the next file
GRACE = 2.0  # seconds that the next file may take to get its first packet, when this one is gone
WHEN_COMPLETE = "follow what writes it, or read it with `closeseq analyze` when it is complete"


def open_growing(path: str) -> GrowingCapture:
    """Open a capture that is still being written: pcap or pcapng, in a file or coming through a pipe.

    Args:
        path: the file's name, or "-" for standard input. It may still be empty.

    Raises:
        CaptureError: there is no such file, it cannot be read, or what it has of its first bytes is not
            the beginning of a capture that can be followed.
    """
    # A named pipe would hold up its opening until someone writes to it.
    file = open_file(path, getattr(os, "O_NONBLOCK", 0))
    try:
        return GrowingCapture(path, _tail(file, path))
    except BaseException:
        if path != STANDARD_INPUT:
            file.close()
        raise


def _tail(file: BinaryIO, path: str) -> Tail:
    return open_tail(file, None if path == STANDARD_INPUT else path)


class GrowingCapture:
    """A capture that is being followed, from its beginning. Use it in a `with` statement, or `close` it.

    At the end of a file it goes on in the next one of its rotation, if there is one (see `tail.successor`).

    Args:
        path: the file, as the user named it; later the one that it has come to.
        tail: its bytes.

    Raises:
        CaptureError: what is there of the first bytes is not the beginning of a capture.
    """

    def __init__(self, path: str, tail: Tail) -> None:
        self.path = path
        self.packets = 0  # delivered so far
        self.ended = False  # whether nothing more will come
        self.notices = list[str]()  # lines: what happened to the file, and where the capture goes on
        self.incomplete = False  # whether it ended, or went on, with something missing
        self.files = Files()  # in which packets have come so far
        self._tail = tail
        self._at = 0  # the first byte of the window that is not done with
        self._woken = False
        self._stopped = False
        self._last_look = False  # whether it was taken
        self._walker: Walker | None = None
        self._file = self.files.add(path, 0)
        self._earlier = 0  # packets of the files before
        self._dropped_before = 0  # in these
        self._first_ns: int | None = None  # time of the first packet of the latest file that has one
        self._last_ns: int | None = None  # of the latest packet
        self._next_look = 0.0  # for the next file of the rotation, by the monotonic clock
        self._more(1)
        self._walker = self._recognised()
        if self._walker is not None:
            self._at = self._walker.begins
        self._batches = self._follow()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Batches that were delivered stay good."""
        self.ended = True
        self._tail.close()

    @property
    def dropped(self) -> int:
        """Packets that were lost, as the capture itself reports, as far as it was read; see `Capture`."""
        return self._dropped_before + (self._walker.dropped if self._walker else 0)

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, if it has reported that yet; see `Capture`."""
        return self._walker.ended_ns if self._walker else None

    def read(self, timeout: float) -> LiveBatch | None:
        """Return the next packets, at most `BATCH`, as those of device 0; wait for them if there are none.

        Args:
            timeout: for how many seconds at most.

        Returns:
            None if nothing came, or nothing more will come: then `ended` is set. A batch's buffer stays
            good for as long as it is held.

        Raises:
            CaptureError: the capture is damaged, is none, or ends within a packet. After that it has ended.
        """
        deadline = time.monotonic() + timeout
        while not self.ended:
            try:
                frames = next(self._batches)
            except StopIteration:
                break
            except CaptureError:
                self.ended = True
                raise
            if frames is not None:
                return LiveBatch(frames, 0)
            if self._stopped:
                break
            left = deadline - time.monotonic()
            if left <= 0 or self._woken:
                self._woken = False
                return None
            self._tail.wait(left)
        self.ended = True
        return None

    def wake(self) -> None:
        """Let a `read` that waits return soon; may be called from a signal's handler or another thread."""
        self._woken = True

    def release(self) -> None:
        """Do nothing: a batch's buffer is its own."""

    def stop(self) -> None:
        """Take one last look at the file; may be called like `wake`.

        What is there by then (of a long file that had not been caught up with, the next megabytes) can
        still be read, until `read` returns None.
        """
        self._stopped = True

    def _follow(self) -> Iterator[Frames | None]:
        """Give packets as they come, and None whenever there are none for the moment."""
        following: str | None = self.path
        while following is not None:
            following = yield from self._follow_file()
            if following is not None:
                self._go_on(following)

    def _follow_file(self) -> Generator[Frames | None, None, str | None]:
        """Give the packets of one file as they come; return the next one, None if there is none."""
        while True:
            yield from self._new()
            if self._tail.over is not None:
                return (yield from self._after_the_end(self._tail.over))
            following = self._following()
            if following is not None:
                yield from self._new()  # what came before the next file was begun
                if following == self._following(at_once=True):
                    self._conclude(None)
                    return following
            yield None

    def _new(self) -> Iterator[Frames]:
        """Give the packets that are there now."""
        while self._walker is None:
            more = self._more(len(self._tail.window) + 1)
            self._walker = self._recognised()
            if self._walker is not None:
                self._at = self._walker.begins
            elif not more:
                return
        while True:
            walked = self._walker.walk(self._tail.window, self._at, BATCH)
            moved = walked.end > self._at
            self._at = walked.end
            if len(walked.offset):
                yield self._frames(walked)
            if walked.trouble:
                raise self._error(walked.trouble)
            if not moved and not self._more(walked.wanted):
                return

    def _frames(self, walked: Walked) -> Frames:
        frames = walked_frames(walked, self._tail.window, self.packets)
        if self.packets == self._earlier:
            self._first_ns = int(walked.time_ns[0])
        latest_ns = int(walked.time_ns.max())
        self._last_ns = latest_ns if self._last_ns is None else max(latest_ns, self._last_ns)
        self._file.add(len(frames), int(walked.time_ns.min()), latest_ns)
        self.packets += len(frames)
        return frames

    def _following(self, *, missed: bool = False, at_once: bool = False) -> str | None:
        """Look for the next file of the rotation, now and then."""
        now = time.monotonic()
        if self.path == STANDARD_INPUT or (now < self._next_look and not at_once):
            return None
        self._next_look = now + LOOK
        changed_ns = None
        if not missed:  # else its name is gone, or another file's
            with contextlib.suppress(OSError):
                changed_ns = Path(self.path).stat().st_mtime_ns
        return successor(CurrentFile(self.path, changed_ns, self._first_ns, self._last_ns), missed=missed)

    def _after_the_end(self, over: str) -> Generator[None, None, str | None]:
        """Return the file to go on in after one that is gone, or was changed; wait a little for it."""
        following, deadline = None, time.monotonic() + GRACE
        while over and not self._stopped and candidates(self.path, missed=True):
            following = self._following(missed=True, at_once=True)
            if following is not None or time.monotonic() > deadline:
                break
            yield None
        self._conclude(over if following is None or over == CHANGED else None)
        return following

    def _conclude(self, problem: str | None) -> None:
        """Report what is missing at the end of a file: a problem, or the rest of a packet.

        Raises:
            CaptureError: a pipe ended within a packet.
        """
        window = self._tail.window
        cut = self._walker.cut(window, self._at) if self._walker and self._at < len(window) else None
        if cut and self._tail.over == "":  # a pipe
            raise self._error(cut)
        if cut and not problem:
            problem = cut.problem
        if problem:
            self.notices.append(f"{self.path}: {problem}; the packets before that are good")
            self.incomplete = True

    def _go_on(self, path: str) -> None:
        """Follow another file from its beginning."""
        file = open_file(path)
        self._tail.close()
        self._dropped_before, self._earlier = self.dropped, self.packets
        self._walker, self._at = None, 0
        self.path, self._tail = path, _tail(file, path)
        self._file = self.files.add(path, self.packets)
        self.notices.append(f"going on in {path}")

    def _more(self, wanted: int) -> bool:
        if self._last_look:
            return False
        self._last_look = self._stopped
        try:
            moved = self._tail.more(self._at, wanted)
        except OSError as error:
            problem = f"reading failed: {error.strerror}"
            raise self._error(Trouble(problem, self._at, "the packets before it are good")) from None
        if moved:
            self._at = 0
        return moved

    def _recognised(self) -> Walker | None:
        """Return the walker, as soon as the first bytes show which; None before that.

        Raises:
            CaptureError: they are not the beginning of a capture, or end too early.
        """
        head = bytes(self._tail.window[:HEAD])
        ended = self._tail.over == ""  # a pipe
        compression = compression_of(head)
        if compression is not None:
            problem = f"a compressed capture cannot be followed: it is compressed with {compression.name}"
            raise CaptureError(problem, path=self.path, remedy=WHEN_COMPLETE)
        undecided = len(head) < MAGIC or (head[:MAGIC] in reader.PCAP and len(head) < HEAD)
        if undecided and not ended:
            return None
        walker = recognise(head)
        if isinstance(walker, Trouble):
            raise CaptureError(walker.problem, path=self.path, remedy=walker.remedy)
        return walker

    def _error(self, trouble: Trouble) -> CaptureError:
        return CaptureError(
            trouble.problem,
            path=self.path,
            packet=self.packets - self._earlier + 1,
            byte=self._tail.base + trouble.at,
            remedy=trouble.remedy,
        )
