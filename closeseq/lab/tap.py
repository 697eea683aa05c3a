"""The capture of one experiment, kept in a file: by our own ring on a device, or by a path's relay."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Self

from closeseq.capture.live import open_live
from closeseq.capture.writers import PcapWriter
from closeseq.packets.frames import Frames
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.lab.path import PathNetwork
    from closeseq.lab.registry import Keep

SNAP_LENGTH = 128  # bytes; whole headers with options, also over IPv6, and little of the data
RING = 16 << 20  # bytes, in blocks of a megabyte, of which a packet that comes alone takes a whole one
QUIET = 0.15  # seconds after which the ring has handed over everything that was captured before
WRITE_IN = 0.02  # seconds after which a read looks again whether it is time to return


class Tap:
    """A capture that is being written.

    Args:
        path: of the file, a pcap with nanoseconds.
        device: what to capture on.
        keep: which segments to keep; all, if not said.
    """

    def __init__(self, path: Path, device: str, keep: Keep | None) -> None:
        self._live = open_live([device], snap_length=SNAP_LENGTH, buffer_bytes=RING)
        self._keep = keep
        self._times: list[int] = []
        self._writer = PcapWriter(path.open("wb"), self._live.devices[0].link_type, snaplen=SNAP_LENGTH)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.close()
        self._writer.close()

    @property
    def dropped(self) -> int:
        """Packets that the capture itself lost."""
        return self._live.dropped

    def catch_up(self) -> None:
        """Take in everything that has been captured by now."""
        self.listen(QUIET)

    def listen(self, seconds: float) -> None:
        """Let time go by, and take in what is captured meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            batch = self._live.read(min(left, WRITE_IN))
            if batch is not None:
                self._write(batch.frames)

    def near(self, time_ns: int, distance_ns: int) -> bool:
        """Whether a packet in the file was captured so near to a moment that the order is unclear.

        Args:
            time_ns: the moment, since the Unix epoch.
            distance_ns: nearer than so many nanoseconds.
        """
        return any(abs(one - time_ns) < distance_ns for one in self._times)

    def _write(self, frames: Frames) -> None:
        if self._keep is not None:
            frames = _some(frames, self._kept(frames))
        self._writer.write(frames)
        self._times += frames.time_ns.tolist()

    def _kept(self, frames: Frames) -> NDArray[np.bool_]:
        """Return a mask of the frames to keep."""
        import numpy as np

        from closeseq.segments import decode

        assert self._keep is not None, "asked only where not all are kept"
        segments = decode(frames)
        kept: NDArray[np.bool_] = np.isin(frames.number, segments.number[self._keep(segments)])
        return kept


class PathTap:
    """The capture that a path's relay writes.

    Args:
        path: of the file.
        network: the path.
        one_way_ns: how long packets take between client and capture point, and between that and the server.
    """

    def __init__(self, path: Path, network: PathNetwork, one_way_ns: tuple[int, int]) -> None:
        self._path, self._network = path, network
        self._away_ns = max(one_way_ns)

    @property
    def dropped(self) -> int:
        """Packets that never came to the capture point because a device had no room for them."""
        return self._network.dropped

    def catch_up(self) -> None:
        """Let everything pass the capture point that has been sent by now."""
        self.listen(QUIET + self._away_ns / SECOND)

    def listen(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)

    def near(self, time_ns: int, distance_ns: int) -> bool:
        """Whether a packet was under way at a moment, or so near to it that the order is unclear.

        Args:
            time_ns: as in `Tap.near`.
            distance_ns: as in `Tap.near`; the longer way to an end is added.
        """
        from closeseq.capture import open_capture

        distance_ns += self._away_ns
        with open_capture(str(self._path)) as capture:
            return any((abs(one.time_ns - time_ns) < distance_ns).any() for one in capture.batches())


def _some(frames: Frames, rows: NDArray[np.bool_]) -> Frames:
    columns = (getattr(frames, field.name)[rows] for field in fields(frames) if field.name != "buffer")
    return Frames(frames.buffer, *columns)
