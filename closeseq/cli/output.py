"""Where the report goes: standard output, or a file that is replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from closeseq.cli.terminal import Refusal, columns
from closeseq.report.text import NARROWEST, Style

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DRAWN = "─◀▶→~"
AT_ONCE = 1 << 16  # characters that are written together, where more follow


class Output:
    """An open stream or file. A file is kept only if `keep` is set.

    Args:
        stream: open for writing; closed by who opened it.
        path: of the file as the user named it; None for standard output or standard error.
    """

    def __init__(self, stream: TextIO, path: str | None) -> None:
        self.stream = stream
        self.path = path
        self.keep = False

    def write(self, pieces: Iterable[str], *, within: float = math.inf) -> None:
        """Write pieces of text.

        Args:
            pieces: taken one after the other.
            within: seconds: pieces that come within them are written together. By default AT_ONCE characters
                are.
        """
        waiting: list[str] = []
        size, until = 0, time.monotonic() + within
        try:
            for piece in pieces:
                waiting.append(piece)
                size += len(piece)
                if size >= AT_ONCE or time.monotonic() >= until:
                    text, size = "".join(waiting), 0
                    waiting.clear()
                    self._put(text)
                    until = time.monotonic() + within
        finally:  # what there was before an error is still shown
            self._put("".join(waiting))

    def _put(self, text: str) -> None:
        """Write all of a text.

        With PYTHONUNBUFFERED, which container images set, Python's streams do not check how much write(2) has
        taken: if a signal comes while the pipe is full, the rest is lost.
        """
        self.stream.flush()
        try:
            descriptor = self.stream.fileno() if os.name == "posix" else None
        except OSError:  # it only looks like a file
            descriptor = None
        if descriptor is None:
            self.stream.write(text)
            self.stream.flush()
            return
        rest = memoryview(text.encode(self.stream.encoding, self.stream.errors or "strict"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def style(self, *, ascii_only: bool) -> Style:
        """Return the style for this stream: colour and the whole width only on a terminal.

        Args:
            ascii_only: draw with ASCII also where the stream's encoding has line-drawing characters.
        """
        terminal = self.path is None and self.stream.isatty()
        width = columns(self.stream, 100) if terminal else 100
        color = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        return Style(max(width, NARROWEST), ascii_only or not self._draws(), color)

    def _draws(self) -> bool:
        try:
            DRAWN.encode(self.stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True


def streamed(stream: TextIO) -> Output:
    """Return an output to a stream."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return Output(stream, None)


@contextmanager
def opened(path: str | None, *, force: bool = False, captures: Iterable[str] = ()) -> Iterator[Output]:
    """Open the output.

    A regular file is written under another name beside it, and renamed when the block ends with `keep` set: a
    run that fails leaves no half file, and does not change an existing one.

    Args:
        path: of the file; None or "-" for standard output.
        force: whether an existing file may be replaced.
        captures: files that are read, and never replaced.

    Raises:
        Refusal: it cannot be written, or exists already.
    """
    if path is None or path == "-":
        yield streamed(sys.stdout)
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # /dev/null, a named pipe
        with naming(path), target.open("w", encoding="utf-8") as stream:
            yield Output(stream, path)
        return
    target = Path(os.path.realpath(path))  # a link stays one, and what it points to is written
    _refuse(path, target, force=force, captures=captures)
    # Its name is known before it is there: a signal may come right after it was made.
    temporary = target.parent / f".closeseq.{secrets.token_hex(8)}"
    try:
        try:
            created = _created(temporary)
        except OSError as error:
            raise Refusal(f"{click.format_filename(path)} cannot be written: {error.strerror}") from error
        with naming(path), created as stream:
            output = Output(stream, path)
            yield output
        if output.keep:
            _refuse(path, target, force=force, captures=captures)
            temporary.chmod(_mode(target))
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or there never was one
            temporary.unlink()


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Have an error of the output, such as a full disk, name the file as the user did."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def _created(path: Path) -> TextIO:
    """Return a new file, open for writing, that nobody else may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")


def _refuse(path: str, target: Path, *, force: bool, captures: Iterable[str]) -> None:
    if not target.exists():
        return
    name = click.format_filename(path)
    if any(capture != "-" and Path(capture).exists() and target.samefile(capture) for capture in captures):
        raise Refusal(f"{name} is one of the captures; nothing was written")
    if not force:
        raise Refusal(f"{name} exists already; --force overwrites it")


def _mode(target: Path) -> int:
    """Return the permissions that the file would have if it had been opened in place."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
