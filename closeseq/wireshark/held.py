"""A live capture whose packets wait a moment for their comments.

A comment stands in the packet's own block, so once the block is written nothing can be added. A packet is
therefore held back for a while (a second, usually), and written with what is known of it by then: packets
that came meanwhile often show whether it arrived. What turns out later is not written: a state that was
assumed stays so, and a wait in vain, which no packet brings about, gets no comment. The capture that
Wireshark saves can be annotated again, as a whole.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from closeseq.capture.interfaces import END_OF_OPTIONS
from closeseq.capture.writers import OPT_COMMENT, PcapngWriter, SavedDevice, compacted, option
from closeseq.segments import Decoder
from closeseq.watch.updates import UpdateKind
from closeseq.wireshark.comments import OURS, comments

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.capture.live import LiveCapture
    from closeseq.packets.frames import Frames
    from closeseq.watch.monitor import Monitor
    from closeseq.watch.session import SystemClock

TICK = 0.1  # seconds between two looks at what is to be written
LATE = 2.0  # seconds behind their time, from which on packets are written without a look at them
PORTION = 256  # connections whose timers are looked at in a tick
MOST_HELD = 256 << 20  # bytes of packets; of more the oldest are written before their time
LAST_WAIT = 0.5  # seconds for packets that were captured and not handed over yet


class HeldBatch(NamedTuple):
    """Packets that are to be written, and the connections they belong to."""

    frames: Frames
    device: int  # which of the source's, counted from 0
    connections: NDArray[np.int64]  # their numbers, ascending
    due: float  # monotonic time


class HeldCapture:
    """Writes what is captured as pcapng, after a while and with comments.

    Args:
        source: of the packets; closed by its opener.
        monitor: judges connections.
        clock: sets the time for the monitor's timers.
        file: where to; closed at the end.
        hold: seconds for which a packet is held back.
        snap_length: bytes that are kept of each packet.

    Raises:
        OSError: the file does not take its beginning.
    """

    def __init__(
        self,
        source: LiveCapture,
        monitor: Monitor,
        clock: SystemClock,
        file: BinaryIO,
        *,
        hold: float,
        snap_length: int,
    ) -> None:
        self.hurried = 0  # packets that were written without a look, since there was no time
        self._source = source
        self._monitor = monitor
        self._clock = clock
        self._hold = hold
        self._decoder = Decoder()
        self._waiting: deque[HeldBatch] = deque()
        self._held_bytes = 0
        devices = [SavedDevice(one.name, one.link_type, snaplen=snap_length) for one in source.devices]
        self._writer = PcapngWriter(file, devices, started_ns=clock.now_ns())

    def run(self, over: Callable[[], bool]) -> None:
        """Capture until it is over, then write all that is left.

        Args:
            over: whether it is; asked ten times a second.

        Raises:
            OSError: the file takes no more.
            DeviceError: the last device is gone; what was captured before has been written.
        """
        try:
            while not over() and not self._source.ended:
                self._read(TICK)
                self._monitor.judge(self._clock.now_ns(), PORTION)
                self._monitor.report()  # nobody reads it; connections that were reported may be dropped
                self._write_due(time.monotonic())
            self._source.stop()
            while self._read(LAST_WAIT):
                pass
        finally:
            self._monitor.begin_end(self._clock.now_ns())
            while self._waiting:
                self._write(self._next())
            self._writer.finish(self._clock.now_ns(), [self._source.dropped])

    def _read(self, timeout: float) -> bool:
        """Read one batch; return whether there was one."""
        batch = self._source.read(timeout)
        if batch is None:
            return False
        frames = compacted(batch.frames)
        self._source.release()
        self._monitor.reading.dropped = self._source.dropped
        self._monitor.feed(len(frames), self._decoder.decode(frames))
        due = time.monotonic() + self._hold
        self._waiting.append(HeldBatch(frames, batch.device, self._monitor.changed, due))
        self._held_bytes += frames.buffer.size
        return True

    def _next(self) -> HeldBatch:
        batch = self._waiting.popleft()
        self._held_bytes -= batch.frames.buffer.size
        return batch

    def _write_due(self, now: float) -> None:
        while self._waiting and (self._waiting[0].due <= now or self._held_bytes > MOST_HELD):
            batch = self._next()
            late = time.monotonic() - batch.due > LATE
            self._write(batch, looked_at=not late)

    def _write(self, batch: HeldBatch, *, looked_at: bool = True) -> None:
        frames = batch.frames
        if not len(frames):
            return
        first, last = int(frames.number[0]), int(frames.number[-1])
        said: dict[int, bytes] = {}
        if looked_at:
            for connection in self._monitor.numbered(batch.connections, UpdateKind.OPEN):
                for packet, text in comments(connection):
                    if first <= packet <= last:
                        comment = option(OPT_COMMENT, f"{OURS}{connection.id} {text}".encode())
                        said[packet - first] = said.get(packet - first, b"") + comment
        else:
            self.hurried += len(frames)
        end = option(END_OF_OPTIONS, b"")
        self._writer.write(frames, batch.device, {row: found + end for row, found in said.items()})
