"""One live session: a packet source and a monitor, driven by a clock: read, decode, feed, report.

First the two clocks (of the system, or of the packets in a file), then the session.
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
    """The system's clock, with which the kernel stamps live packets."""

    def __init__(self) -> None:
        self._apart_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time since the Unix epoch."""
        return time.time_ns()

    def see(self, frames: Frames) -> None:
        """Take in the times of packets; this clock needs none."""

    def jump_ns(self) -> int:
        """Return by how much the clock has jumped since the last call: it was set, or the machine slept.

        The monotonic clock stops while a machine sleeps, as its TCP timers do.
        """
        apart_ns = time.time_ns() - time.monotonic_ns()
        jump, self._apart_ns = apart_ns - self._apart_ns, apart_ns
        return jump if abs(jump) >= JUMP_NS else 0


class PacketClock:
    """A clock that runs on from the newest packet: for a file that another program is writing.

    In a file that is written now, it is close to the system's clock; in an old file, it is the time there.
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
        """Return 0: this clock does not jump."""
        return 0


TICK = 0.25  # seconds between two reads of the source
NAP = 0.05  # seconds within which `wake` takes effect
LAST_JUDGED = 1.5  # seconds for judging at the end, when a person waits
MOMENT = 0.1  # seconds that a portion of judging should take
SMALLEST_PORTION = 8  # connections
LAST_WAIT = 0.5  # seconds for packets that were captured and not handed over yet


class DeviceFrames(Protocol):
    """Frames of one device."""

    @property
    def frames(self) -> Frames:
        """Valid until the next `read`."""

    @property
    def device(self) -> int:
        """Which of the source's devices, counted from 0."""


class PacketSource(Protocol):
    """Where packets come from: a live capture, or a file that grows."""

    packets: int  # read so far
    notices: list[str]  # for a person, one line each: what happened to the devices

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""

    @property
    def dropped(self) -> int:
        """How many packets were lost so far."""

    def read(self, timeout: float) -> DeviceFrames | None:
        """Return the next batch; None if none came for so many seconds.

        Args:
            timeout: seconds; 0 does not wait.

        Raises:
            CaptureError: the file that grows cannot be read on.
            DeviceError: the last device has disappeared.
        """

    def release(self) -> None:
        """Take back the last batch."""

    def stop(self) -> None:
        """Capture nothing more; what was captured can still be read."""

    def close(self) -> None:
        """Close the device or file."""


class Clock(Protocol):
    """A clock for the monitor's timers."""

    def now_ns(self) -> int:
        """Return the time since the Unix epoch."""

    def see(self, frames: Frames) -> None:
        """Take in the times of packets."""

    def jump_ns(self) -> int:
        """Return by how much it jumped since the last call."""


class Session:
    """Feeds a monitor from a packet source, and asks it for updates.

    Args:
        source: of packets; closed with the session.
        monitor: is fed the packets.
        clock: sets the time for the monitor's timers.
        save: is called with each batch and its device, counted from 0, before it is decoded.
        count: stop after so many packets; None: never.
    """

    def __init__(
        self,
        source: PacketSource,
        monitor: Monitor,
        clock: Clock,
        *,
        save: Callable[[Frames, int], None] | None = None,
        count: int | None = None,
    ) -> None:
        self.source = source
        self.monitor = monitor
        self.clock = clock
        self._decoder = Decoder()
        self.over = False  # no more packets will come
        self.unsaved: SaveError | None = None  # why packets are no longer saved
        self.unread: CloseseqError | None = None  # why the last packets could not be read
        self._save = save
        self._left = count
        self._next_tick = time.monotonic() + TICK
        self._awake = False
        self._portion = 256  # connections to judge at once
        self._age_ns = 0  # of the newest packet when it was read; below zero if its clock is another

    def step(self, most: int | None = None) -> list[Updates]:
        """Wait for the next tick, read what was captured, and return updates.

        Args:
            most: of at most so many connections, the gravest first. The next steps return the others, and do
                not wait.
        """
        if not self.monitor.backlog:
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
        """Whether the last batch was recent: later packets can then wait for the next tick.

        Few large batches cost less than many small ones.
        """
        return 0 <= self._age_ns < TICK * SECOND

    def _rest(self) -> None:
        """Wait for the next tick, or for `wake`."""
        while not self._awake and (left := self._next_tick - time.monotonic()) > 0:
            time.sleep(min(left, NAP))
        self._awake = False

    def tick(self, most: int | None = None) -> list[Updates]:
        """Judge what is due for at most TICK seconds, so that packets are read too; return updates."""
        now_ns = self.clock.now_ns()
        if not now_ns:
            return []
        self._judge(now_ns, time.monotonic() + TICK)
        return self.monitor.report(most)

    def end(self, *, hurried: bool = False) -> list[Updates]:
        """Read what was captured until now, and return all remaining updates.

        If that cannot all be read, `unread` says why.

        Args:
            hurried: a person waits: judge for LAST_JUDGED seconds only. Connections that were never judged
                by then are not reported; `Monitor.unjudged` counts them.
        """
        self.source.stop()
        try:
            while self._read(LAST_WAIT):
                pass
        except (CaptureError, DeviceError) as error:
            self.unread = error
        now_ns = self.clock.now_ns()
        self.monitor.begin_end(now_ns)
        self._judge(now_ns, time.monotonic() + LAST_JUDGED if hurried else math.inf)
        return self.monitor.last_updates()

    def _judge(self, now_ns: int, until: float) -> None:
        """Judge what is due until then (monotonic time), in portions of MOMENT seconds.

        A connection that closed like others costs next to nothing, one with strange packets milliseconds.
        """
        while True:
            asked, began = self._portion, time.monotonic()
            judged = self.monitor.judge(now_ns, asked)
            now = time.monotonic()
            if now - began > MOMENT:
                self._portion = max(SMALLEST_PORTION, asked // 4)
            elif judged == asked:
                self._portion = 2 * asked
            if judged < asked or now >= until:
                return

    def wake(self) -> None:
        """End the wait of `step`. For signal handlers and other threads."""
        self._awake = True

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def _read(self, timeout: float = 0.0) -> bool:
        """Read one batch and feed it to the monitor; return whether there was one."""
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
        self.monitor.reading.dropped = self.source.dropped
        self.monitor.feed(len(frames), self._decoder.decode(frames))
        self.source.release()
        return True

    def _keep(self, frames: Frames, device: int) -> None:
        """Save a batch, unless saving has failed before."""
        if self._save is None or self.unsaved is not None:
            return
        try:
            self._save(frames, device)
        except SaveError as error:
            self.unsaved = error
