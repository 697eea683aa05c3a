"""What time it is for a watch.

A source of packets and a watch, driven together: read, decode, feed, and tick when it is time.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Protocol

from closeseq.errors import CaptureError, CloseseqError, DeviceError, SaveError
from closeseq.segments import Decoder
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.packets.frames import Frames
    from closeseq.watch.monitor import Monitor
    from closeseq.watch.updates import Updates

JUMP_NS = 1_000_000_000  # more than any clock is corrected at once by NTP's slewing


class SystemClock:
    """The clock that the kernel stamps live packets with."""

    def __init__(self) -> None:
        self._apart_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time since the Unix epoch."""
        return time.time_ns()

    def see(self, frames: Frames) -> None:
        """Take in the times of packets; this clock needs none."""

    def jump_ns(self) -> int:
        """Return by how much the clock has leapt since it was asked last: it was set, or the machine slept.

        A machine's monotonic clock stands still while it sleeps, as its TCP timers do.
        """
        apart_ns = time.time_ns() - time.monotonic_ns()
        jump, self._apart_ns = apart_ns - self._apart_ns, apart_ns
        return jump if abs(jump) >= JUMP_NS else 0


class PacketClock:
    """A clock that goes on from the newest packet: for a file that something else is writing.

    For a file of the present it is about the system's clock; for an old one it is the time within it.
    """

    def __init__(self) -> None:
        self._last_ns = 0
        self._seen_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time since the Unix epoch; 0 before any packet."""
        return self._last_ns + time.monotonic_ns() - self._seen_ns if self._last_ns else 0

    def see(self, frames: Frames) -> None:
        """Take in the times of packets."""
        if len(frames):
            now_ns = self.now_ns()
            self._last_ns = max(int(frames.time_ns.max()), now_ns)
            self._seen_ns = time.monotonic_ns()

    def jump_ns(self) -> int:
        """Return 0: this clock does not leap."""
        return 0


TICK = 0.25  # seconds between two looks at the source and the clock
NAP = 0.05  # seconds after which someone who wants to end it is noticed
LAST_JUDGED = 1.5  # seconds for judging at the end, when somebody waits for it
MOMENT = 0.1  # seconds that a portion of judging should take
SMALLEST_PORTION = 8  # connections
LAST_WAIT = 0.5  # seconds for what was captured and has not been handed over


class DeviceFrames(Protocol):
    """Frames of one device."""

    @property
    def frames(self) -> Frames:
        """Good until the next `read`."""

    @property
    def device(self) -> int:
        """Which of the source's devices."""


class PacketSource(Protocol):
    """Where packets come from: a live capture, or a file that grows."""

    packets: int
    notices: list[str]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    @property
    def dropped(self) -> int:
        """Packets that were lost so far."""

    def read(self, timeout: float) -> DeviceFrames | None:
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
        source: PacketSource,
        watch: Monitor,
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
        self.unread: CloseseqError | None = None  # why what had come by the end could not be read
        self._save = save
        self._left = count
        self._next_tick = time.monotonic() + TICK
        self._awake = False
        self._portion = 256  # connections to judge at once
        self._age_ns = 0  # of the newest packet when it was read; below zero if its clock is another

    def step(self, most: int | None = None) -> list[Updates]:
        """Wait for the next tick, take in what has come, and let time pass.

        Args:
            most: tell of at most so many connections now, the gravest first. The others are told by the
                next steps, which then do not wait.
        """
        if not self.watch.backlog:
            self._rest()
        until, behind = self._next_tick + TICK, False
        while self._read() and time.monotonic() < until:
            behind |= not self._is_present
            if not behind:
                break
        self._next_tick = time.monotonic() + TICK
        return self.tick(most)

    @property
    def _is_present(self) -> bool:
        """Whether what was read last had just come: what has come since can wait for the next tick.

        Few large batches cost less than many small ones.
        """
        return 0 <= self._age_ns < TICK * SECOND

    def _rest(self) -> None:
        """Wait for the next tick. What comes meanwhile waits too: few large batches cost less than many."""
        while not self._awake and (left := self._next_tick - time.monotonic()) > 0:
            time.sleep(min(left, NAP))
        self._awake = False

    def tick(self, most: int | None = None) -> list[Updates]:
        """Let time pass. What cannot be judged in a moment stays due, so that packets are looked at too."""
        now_ns = self.clock.now_ns()
        if not now_ns:
            return []
        self._judge(now_ns, time.monotonic() + TICK)
        return self.watch.tell(most)

    def end(self, *, hurried: bool = False) -> list[Updates]:
        """Take in what was captured until now, and let the watch say the rest.

        If that cannot all be read, `unread` says why.

        Args:
            hurried: somebody waits: judge for a moment only. The connections that were never judged then are
                not told of; `Watch.unjudged` counts them.
        """
        self.source.stop()
        try:
            while self._read(LAST_WAIT):
                pass
        except (CaptureError, DeviceError) as error:
            self.unread = error
        now_ns = self.clock.now_ns()
        self.watch.begin_end(now_ns)
        self._judge(now_ns, time.monotonic() + LAST_JUDGED if hurried else math.inf)
        return self.watch.last_news()

    def _judge(self, now_ns: int, until: float) -> None:
        """Judge what is due, in portions that take a moment each, until then.

        A connection that closed as others did costs next to nothing, one with strange packets some
        milliseconds.
        """
        while True:
            asked, began = self._portion, time.monotonic()
            judged = self.watch.judge(now_ns, asked)
            now = time.monotonic()
            if now - began > MOMENT:
                self._portion = max(SMALLEST_PORTION, asked // 4)
            elif judged == asked:
                self._portion = 2 * asked
            if judged < asked or now >= until:
                return

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
        self._age_ns = time.time_ns() - int(frames.time_ns.max()) if len(frames) else -1
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
