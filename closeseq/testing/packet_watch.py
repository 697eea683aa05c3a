"""The packets that a test makes assertions about: captured while it runs, or read from a capture.

What is captured is written to a file as it comes, and the file is analysed when something is asserted. So a
message's packet numbers are those that Wireshark shows for the file.

The capture needs no thread: the kernel keeps packets until they are read, which a test does when it asserts
something, and at its end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self

from closeseq.analysis import Analysis, analyze
from closeseq.capture.live import open_live
from closeseq.capture.live.live_capture import SNAP_LENGTH
from closeseq.capture.saver import Saver
from closeseq.capture.writers import SavedDevice
from closeseq.settings import SECOND
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.packets.frames import Frames


class PacketWatch(Protocol):
    """Packets, and how those at some ports closed."""

    path: str  # of the capture

    @property
    def grows(self) -> bool:
        """Whether more packets may come."""

    def analysis(self, ports: Sequence[int], hosts: Sequence[str], stuck_after: float) -> Analysis:
        """Return the connections up to now.

        Args:
            ports: only connections with one of these at either end.
            hosts: only connections with one of these IP addresses; empty: with any.
            stuck_after: seconds from which a wait counts as stuck.

        Raises:
            CaptureError: nothing can be read.
            ValueError: a host is no IP address.
        """


class LivePackets:
    """Packets that are captured from now on, until `close`.

    Args:
        interfaces: where to capture.
        path: a pcapng file to write, which must not be there yet.

    Raises:
        NotPermittedError: the process may not capture.
        DeviceError: no device has this name, or it is down.
        SaveError: the file cannot be written.
    """

    def __init__(self, interfaces: Sequence[str], path: str) -> None:
        self.path = path
        self._source = open_live(interfaces)
        self._saver: Saver | None = None
        try:
            devices = [
                SavedDevice(device.name, device.link_type, snaplen=SNAP_LENGTH)
                for device in self._source.devices
            ]
            self._saver = Saver(path, devices)
        finally:
            if self._saver is None:
                self._source.close()
        self._ended_ns: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def grows(self) -> bool:
        """Whether packets are still captured."""
        return self._ended_ns is None

    @property
    def packets(self) -> int:
        """How many packets are in the file."""
        return 0 if self._saver is None else self._saver.packets

    def analysis(self, ports: Sequence[int], hosts: Sequence[str], stuck_after: float) -> Analysis:
        """Return the connections of all packets captured before this call. As in `PacketWatch.analysis`."""
        now_ns = time.time_ns() if self._ended_ns is None else self._ended_ns
        self._take_in(now_ns)
        found = analyze(self.path, port=ports, host=hosts, stuck_after=stuck_after)
        found.reading.ended_ns = now_ns  # nothing came after the last packet: that too was watched
        found.reading.dropped = self._source.dropped
        return found

    def _take_in(self, until_ns: int) -> None:
        """Write to the file all packets that were captured before then (since the Unix epoch)."""
        until = time.monotonic() + self._source.quiet
        while self._ended_ns is None:
            batch = self._source.read(max(0.0, until - time.monotonic()))
            if batch is not None:
                self._save(batch.frames, batch.device)
                if int(batch.frames.time_ns.min()) > until_ns + self._source.quiet * SECOND:
                    return  # so much comes that there is no end of it
            elif time.monotonic() >= until:
                return

    def _save(self, frames: Frames, device: int) -> None:
        if self._saver is not None:
            self._saver.write(frames, device)

    def close(self, *, whole: bool = True) -> None:
        """End the capture.

        Args:
            whole: whether the file is to have all that was captured until now, and how many packets were
                lost; else it ends where it was read last.
        """
        if self._ended_ns is not None or self._saver is None:
            return
        self._source.stop()
        while whole and (batch := self._source.read(0)) is not None:
            self._save(batch.frames, batch.device)
        self._ended_ns = time.time_ns()
        self._saver.lost(0, self._source.dropped)
        self._saver.close(self._ended_ns)
        self._source.close()


class SavedPackets:
    """The packets of a capture.

    Args:
        path: as for `closeseq.analyze`.
        more: likewise.
    """

    grows = False

    def __init__(self, path: str, *more: str) -> None:
        self.path = path
        self._paths = (path, *more)

    def analysis(self, ports: Sequence[int], hosts: Sequence[str], stuck_after: float) -> Analysis:
        """Return the connections of the capture. As in `PacketWatch.analysis`."""
        return analyze(*self._paths, port=ports, host=hosts, stuck_after=stuck_after)


def losses(analysis: Analysis) -> list[str]:
    """Return what the capture lacks, one line each: a connection may then look worse than it was."""
    reading = analysis.reading
    found = [str(error) for error in reading.files.errors()]
    if reading.dropped:
        found.append(f"the capture lost {count(reading.dropped, 'packet')}")
    return found
