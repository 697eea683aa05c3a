"""A progress bar on standard error, for reading that takes long enough to ask oneself."""

from __future__ import annotations

import sys
import time
from pathlib import PurePath

from closeseq.cli.screen import columns
from closeseq.report.text import printable

PATIENCE = 0.5  # seconds before anything is shown
INTERVAL = 0.1  # seconds between two pictures
BAR = 30


class Progress:
    """Call it with the position reached and the size, both in bytes; size None if it is not known.

    Draws only where standard error is a terminal.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else printable(PurePath(path).name)
        self.wanted = sys.stderr.isatty()
        self.due = time.monotonic() + PATIENCE
        self.drawn = 0

    def __call__(self, position: int, size: int | None) -> None:
        """Draw how far reading has come, if it is time to."""
        now = time.monotonic()
        if self.wanted and now >= self.due:
            self.due = now + INTERVAL
            self._draw(picture(self.name, position, size, columns(sys.stderr) - 1))

    def clear(self) -> None:
        """Remove the bar, so that nothing of it stands before the report."""
        if self.drawn:
            self._draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _draw(self, text: str) -> None:
        text = text[: columns(sys.stderr) - 1]
        sys.stderr.write("\r" + text.ljust(self.drawn))
        sys.stderr.flush()
        self.drawn = len(text)


def picture(name: str, position: int, size: int | None, width: int = 80) -> str:
    """Return one line: `reading x.pcap [#####-----]  50 %`; where it has no room, the bar goes first."""
    if not size:
        whole, short = f"reading {name}  {position / 1e6:,.1f} MB", f"{position / 1e6:,.1f} MB read"
        return whole if len(whole) <= width else short
    share = min(position / size, 1.0)
    done = round(share * BAR)
    bar = f"[{'#' * done}{'-' * (BAR - done)}]"
    parts = (f"reading {name} {bar} {share:4.0%}", f"reading {name} {share:4.0%}", f"{share:.0%} read")
    return next((text for text in parts if len(text) <= width), parts[-1])
