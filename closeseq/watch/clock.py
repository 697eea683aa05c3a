"""What time it is for a watch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closeseq.packets.frames import Frames

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
