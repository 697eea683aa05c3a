"""A source of packets and a watch, driven together: read, decode, feed, and tick when it is time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from closeseq.errors import SaveError
from closeseq.segments import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.packets.frames import Frames
    from closeseq.watch.news import News
    from closeseq.watch.watch import Watch

TICK = 0.25  # seconds between two looks at the source and the clock
NAP = 0.05  # seconds after which someone who wants to end it is noticed
LAST_WAIT = 0.5  # seconds for what was captured and has not been handed over


class Batch(Protocol):
    """Frames of one device."""

    @property
    def frames(self) -> Frames:
        """Good until the next `read`."""

    @property
    def device(self) -> int:
        """Which of the source's devices."""


class Source(Protocol):
    """Where packets come from: a live capture, or a file that grows."""

    packets: int
    notices: list[str]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    @property
    def dropped(self) -> int:
        """Packets that were lost so far."""

    def read(self, timeout: float) -> Batch | None:
        """Return what has come; None if nothing did for so many seconds."""

    def release(self) -> None:
        """Take back the last batch."""

    def stop(self) -> None:
        """Let nothing more in; what was captured can still be read."""

    def close(self) -> None:
        """Let go."""


class Clock(Protocol):
    """What time it is."""

    def now_ns(self) -> int:
        """Since the Unix epoch."""

    def see(self, frames: Frames) -> None:
        """Take in the times of packets."""

    def jump_ns(self) -> int:
        """By how much it leapt since it was asked last."""


class Session:
    """A source being watched, until someone has seen enough.

    Args:
        source: is closed with the session.
        watch: is fed what comes.
        clock: what time it is.
        save: is called with each batch, before anyone looks into it.
        count: stop after so many packets.
    """

    def __init__(
        self,
        source: Source,
        watch: Watch,
        clock: Clock,
        *,
        save: Callable[[Frames, int], None] | None = None,
        count: int | None = None,
    ) -> None:
        self.source = source
        self.watch = watch
        self.clock = clock
        self._decoder = Decoder()
        self.over = False  # nothing more will come
        self.unsaved: SaveError | None = None  # why what comes is no longer saved
        self._save = save
        self._left = count
        self._next_tick = time.monotonic() + TICK
        self._awake = False

    def step(self, most: int | None = None) -> list[News]:
        """Wait for the next tick, take in what has come, and let time pass.

        Args:
            most: judge at most so many connections now, the longest due; the others at the next tick.
        """
        self._rest()
        while self._read() and time.monotonic() < self._next_tick + TICK:
            pass
        self._next_tick = time.monotonic() + TICK
        return self.tick(most)

    def _rest(self) -> None:
        """Wait for the next tick. What comes meanwhile waits too: few large batches cost less than many."""
        while not self._awake and (left := self._next_tick - time.monotonic()) > 0:
            time.sleep(min(left, NAP))
        self._awake = False

    def tick(self, most: int | None = None) -> list[News]:
        """Let time pass."""
        now_ns = self.clock.now_ns()
        return self.watch.tick(now_ns, most) if now_ns else []

    def end(self) -> list[News]:
        """Take in what was captured until now, and let the watch say the rest."""
        self.source.stop()
        while self._read(LAST_WAIT):
            pass
        return self.watch.end(self.clock.now_ns())

    def wake(self) -> None:
        """Let a `step` that waits go on. For signal handlers and other threads."""
        self._awake = True

    def close(self) -> None:
        """Let go of the source."""
        self.source.close()

    def _read(self, timeout: float = 0.0) -> bool:
        """Take in one batch; return whether there was one."""
        if self.over:
            return False
        batch = self.source.read(timeout)
        if batch is None:
            self.over = self.source.ended
            return False
        frames = batch.frames
        if self._left is not None:
            frames = frames.first(self._left)
            self._left -= len(frames)
            self.over = not self._left
        self._keep(frames, batch.device)
        self.clock.see(frames)
        self.watch.reading.dropped = self.source.dropped
        self.watch.feed(len(frames), self._decoder.decode(frames))
        self.source.release()
        return True

    def _keep(self, frames: Frames, device: int) -> None:
        """Save a batch, as long as that is possible."""
        if self._save is None or self.unsaved is not None:
            return
        try:
            self._save(frames, device)
        except SaveError as error:
            self.unsaved = error
