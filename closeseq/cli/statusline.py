"""One line on standard error that is drawn again and again, and never stands in the way of the report."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time

INTERVAL = 0.5  # seconds between two pictures


class StatusLine:
    """Draws only where standard error is a terminal. Clear it before anything else is written."""

    def __init__(self) -> None:
        self.wanted = sys.stderr.isatty()
        self._due = 0.0
        self._drawn = 0

    @property
    def due(self) -> bool:
        """Whether it is time for another picture."""
        return self.wanted and time.monotonic() >= self._due

    def draw(self, text: str) -> None:
        """Draw this text instead of what stood there."""
        if self.wanted:
            self._due = time.monotonic() + INTERVAL
            self._write(text[: max(0, shutil.get_terminal_size().columns - 1)])

    def clear(self) -> None:
        """Remove the line; the next picture is due at once."""
        if self._drawn:
            self._write("")
            self._due = 0.0

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            sys.stderr.write("\r" + text.ljust(self._drawn) + "\r" + text)
            sys.stderr.flush()
        self._drawn = len(text)
