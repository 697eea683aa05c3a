"""A capture that something else is still writing, read as it grows."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Self

from closeseq.capture import compressed, formats
from closeseq.capture.formats import HEAD, recognise
from closeseq.capture.live.live import Batch
from closeseq.capture.reader import BATCH, STANDARD_INPUT, open_file, walked_frames
from closeseq.capture.records import Trouble, Walker
from closeseq.capture.tail import Tail, open_tail
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.packets.frames import Frames

MAGIC = 4  # bytes that tell the format
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
        return GrowingCapture(path, open_tail(file, None if path == STANDARD_INPUT else path))
    except BaseException:
        if path != STANDARD_INPUT:
            file.close()
        raise


class GrowingCapture:
    """A capture that is being followed, from its beginning. Use it in a `with` statement, or `close` it.

    Args:
        path: the file, as the user named it.
        tail: its bytes.

    Raises:
        CaptureError: what is there of the first bytes is not the beginning of a capture.
    """

    def __init__(self, path: str, tail: Tail) -> None:
        self.path = path
        self.packets = 0  # delivered so far
        self.ended = False  # whether nothing more will come
        self.notices = list[str]()  # why it ended, if it did not end as it should: one line
        self._tail = tail
        self._at = 0  # the first byte of the window that is not done with
        self._woken = False
        self._stopped = False
        self._last_look = False  # whether it was taken
        self._walker: Walker | None = None
        self._more(1)
        self._walker = self._recognised()
        self._batches = self._follow()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Batches that were delivered stay good."""
        self.ended = True
        self._tail.close()

    @property
    def dropped(self) -> int:
        """Packets that the capture itself says were lost, as far as it was read; see `Capture`."""
        return self._walker.dropped if self._walker else 0

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, as far as it says so already; see `Capture`."""
        return self._walker.ended_ns if self._walker else None

    def read(self, timeout: float) -> Batch | None:
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
                return Batch(frames, 0)
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
        while self._walker is None:
            if not self._more(len(self._tail.window) + 1):
                yield None
            self._walker = self._recognised()
            if self._walker is None and self._tail.over is not None:
                self._note()
                return
        self._at = self._walker.begins
        while True:
            walked = self._walker.walk(self._tail.window, self._at, BATCH)
            moved = walked.end > self._at
            self._at = walked.end
            if len(walked.offset):
                frames = walked_frames(walked, self._tail.window, self.packets)
                self.packets += len(frames)
                yield frames
            if walked.trouble:
                raise self._error(walked.trouble)
            while not moved and not self._more(walked.wanted):
                if self._tail.over is not None:
                    self._finish(self._walker)
                    return
                yield None

    def _more(self, wanted: int) -> bool:
        if self._last_look:
            return False
        self._last_look = self._stopped
        try:
            moved = self._tail.more(self._at, wanted)
        except OSError as error:
            problem = f"reading failed: {error.strerror}"
            raise self._error(Trouble(problem, self._at, "what was read before it is good")) from None
        if moved:
            self._at = 0
        return moved

    def _recognised(self) -> Walker | None:
        """Return the walker, as soon as the first bytes tell which.

        Raises:
            CaptureError: they tell that there is none, or end too early.
        """
        head = bytes(self._tail.window[:HEAD])
        ended = self._tail.over == ""  # a pipe
        if head.startswith(compressed.MAGIC):
            raise CaptureError(
                "a compressed capture cannot be followed", path=self.path, remedy=WHEN_COMPLETE
            )
        undecided = len(head) < MAGIC or (head[:MAGIC] in formats.PCAP and len(head) < HEAD)
        if undecided and not ended:
            return None
        walker = recognise(head)
        if isinstance(walker, Trouble):
            raise CaptureError(walker.problem, path=self.path, remedy=walker.remedy)
        return walker

    def _finish(self, walker: Walker) -> None:
        """Say how it ended, unless that is as it should be."""
        window = self._tail.window
        cut = walker.cut(window, self._at) if self._at < len(window) else None
        if self._tail.over:
            self._note()
        elif cut:
            raise self._error(cut)

    def _note(self) -> None:
        self.notices.append(f"{self.path}: {self._tail.over}; what was read before that is good")

    def _error(self, trouble: Trouble) -> CaptureError:
        return CaptureError(
            trouble.problem,
            path=self.path,
            packet=self.packets + 1,
            byte=self._tail.base + trouble.at,
            remedy=trouble.remedy,
        )
