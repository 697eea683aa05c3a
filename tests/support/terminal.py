"""A terminal of so many columns for the command to write to, and what then stands on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios

COLOUR = re.compile(r"\x1b\[[\d;]*m")


@contextlib.contextmanager
def opened(columns, rows=50):
    """Give both ends of a terminal: what is read of it, and what a program takes for its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        with contextlib.suppress(OSError):
            os.close(theirs)


def drain(ours):
    """Return what was written until nobody has the other end open any more."""
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode()


def written(shown):
    """Return each line that was ever on the terminal, also those that others were written over."""
    plain = COLOUR.sub("", shown).replace("\r\n", "\n")
    return [piece.rstrip() for line in plain.split("\n") for piece in line.split("\r")]
