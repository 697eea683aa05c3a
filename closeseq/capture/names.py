"""Which files a user's names stand for: a directory, a pattern, a list of names on standard input."""

from __future__ import annotations

import glob
import os
import re
import select
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from closeseq.capture import source
from closeseq.capture.chains import natural
from closeseq.capture.reader import STANDARD_INPUT, open_capture
from closeseq.capture.source import Piped, is_url, standard_input
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW = 1 << 16  # bytes of a file that show whether it is a capture
GLANCE = 4096  # bytes of standard input that show whether it is a list of names
TRIED = 10  # names of a list, of which one at least must be there
# A file with such a name claims to be a capture, and is reported when it is none.
CAPTURE = re.compile(r"\.(pcapng|pcap|cap|dmp)\d*(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)


class NamedFiles(NamedTuple):
    """The files that names stand for."""

    paths: list[str]  # as they are to be opened
    broken: list[CaptureError]  # one for each name that stands for no file
    notices: list[str]  # lines, such as which files of a directory are left out
    several: bool  # whether the names could have stood for more than one file, however many there are


def files_named(named: Iterable[str]) -> NamedFiles:
    """Return the files that names stand for.

    A directory stands for the captures in it (not for those in directories below), without files whose names
    begin with a dot. A name that is not there and has a `*`, `?` or `[` in it is a pattern, in which `**`
    stands for directories of any depth. `-` is standard input: a capture, or a list of names, one a line or
    with null bytes between them, as `find -print0` writes it. A URL may be such a pattern or a directory too.

    Args:
        named: as the user wrote them; of several, what each stands for comes in this order.
    """
    found = NamedFiles([], [], [], several=False)
    given = list(named)
    several = len(given) > 1
    for name in given:
        listed = _listed() if name == STANDARD_INPUT else None
        several |= listed is not None
        for one in [name] if listed is None else listed:
            several |= _add(one, found)
    return found._replace(several=several)


def _add(name: str, found: NamedFiles) -> bool:
    """Add the files that a name stands for; return whether it could be more than one."""
    if name == "":  # an unset shell variable; to the system it is the working directory
        problem, remedy = "a capture without a name", "name the capture, or . for this directory"
        found.broken.append(CaptureError(problem, path="''", remedy=remedy))
        return False
    if is_url(name):
        urls = sorted(source.found(name), key=natural)
        found.paths.extend(urls)
        return urls != [name]
    try:
        path = Path(name)
        if path.is_dir():
            _add_directory(path, name, found)
            return True
        matching = [] if path.exists() else _matching(name)
    except (OSError, ValueError):  # opening it raises the error
        matching = []
    found.paths.extend(matching or [name])
    return bool(matching)


def _matching(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return []
    return sorted((one for one in glob.iglob(pattern, recursive=True) if Path(one).is_file()), key=natural)  # noqa: PTH207 - the names as they were written


def _add_directory(directory: Path, name: str, found: NamedFiles) -> None:
    try:
        entries = [entry for entry in os.listdir(directory) if not entry.startswith(".")]  # noqa: PTH208 - names
    except OSError as error:
        problem = f"the directory cannot be read: {error.strerror}"
        found.broken.append(CaptureError(problem, path=name, remedy="name the captures in it"))
        return
    files = sorted((os.path.join(name, entry) for entry in entries), key=natural)  # noqa: PTH118 - as it was written
    files = [file for file in files if Path(file).is_file()]
    captures = [file for file in files if CAPTURE.search(file) or is_capture(file)]
    found.paths.extend(captures)
    if not captures:
        problem = "there is no capture in this directory"
        found.broken.append(CaptureError(problem, path=name, remedy="name the captures or their directory"))
    elif len(captures) < len(files):
        left_out = f"{len(files) - len(captures)} of {len(files)} files are not captures, and are left out"
        found.notices.append(f"{name}: {left_out}")


def is_capture(path: str) -> bool:
    """Whether a file begins as a capture does, whatever its name."""
    try:
        open_capture(path, window=WINDOW).close()
    except CaptureError:
        return False
    return True


def _listed() -> list[str] | None:
    """Return the names that standard input lists; None if it is something else, which is still to be read."""
    file = standard_input()
    if file is None or file.isatty():
        return None
    head = _glance(file)
    separator = b"\0" if b"\0" in head else b"\n"
    if not any(map(_is_there, _split(head, separator)[:TRIED])):
        return None
    return _split(_rest(file), separator)


def _split(data: bytes, separator: bytes) -> list[str]:
    return [os.fsdecode(one.removesuffix(b"\r")) for one in data.split(separator) if one.strip()]


def _rest(file: BinaryIO) -> bytes:
    piped, data, room = Piped(file), bytearray(), bytearray(WINDOW)
    while got := piped.readinto(memoryview(room)):
        data += room[:got]
    return bytes(data)


def _glance(file: BinaryIO) -> bytes:
    """Return the first bytes of standard input, which stay to be read."""
    if hasattr(file, "peek"):
        while not (head := bytes(file.peek(GLANCE))):
            try:
                ready = select.select([file], [], [])[0]  # it may be non-blocking
            except (OSError, ValueError):
                break
            if ready and not file.peek(GLANCE):  # it is ready, and has nothing: its end
                break
        return head[:GLANCE]
    if not file.seekable():
        return b""
    at = file.tell()
    head = file.read(GLANCE)
    file.seek(at)
    return head


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False
