"""Puts closeseq into a user's Wireshark: plugin, colours, buttons, extcap program; and takes them out again.

What is taken out is what was put in. The plugin and the program carry a digest of themselves, so that one
which was changed since is noticed, and left where it is. Of colours and buttons our lines are taken out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.errors import CloseseqError
from closeseq.wireshark.lines import BUTTON_FILE, COLOR_FILE, MADE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.wireshark.folders import Folders
    from closeseq.wireshark.lines import LineFile

SEAL = re.compile(rb"^(?:#|--) closeseq wireshark --install: ([0-9a-f]{64})\n", re.MULTILINE)
PLUGIN, PROGRAM = "closeseq.lua", "closeseq"
READABLE, EXECUTABLE = 0o644, 0o755


class InstallError(CloseseqError):
    """A file in Wireshark's folders cannot be read or written, or is not ours to write."""


def install(
    folders: Folders, command: Sequence[str], *, profile: str | None = None, force: bool = False
) -> Iterator[str]:
    """Put everything in; what is there already stays.

    Args:
        folders: of the user.
        command: what runs this closeseq: program and arguments.
        profile: the profile that gets colours and buttons; None for the default one.
        force: overwrite a plugin or program of these names that is not as we wrote it.

    Yields:
        A line for each file: what was done.

    Raises:
        InstallError: a file cannot be read or written, or there is no such profile.
    """
    place = folders.profile(profile)
    if profile is not None and not place.is_dir():
        raise InstallError(f"there is no profile {profile}: {place} is not there; make it in Wireshark first")
    yield _put(folders.plugins / PLUGIN, plugin(), READABLE, force=force)
    if not folders.lua:
        yield "this Wireshark runs no Lua, so it does not load the plugin, and colours and buttons do nothing"
    yield _put(folders.extcap / PROGRAM, program(command), EXECUTABLE, force=force)
    yield _add_lines(place / COLOR_FILE.name, COLOR_FILE, folders.common)
    yield _add_lines(place / BUTTON_FILE.name, BUTTON_FILE, folders.common)


def uninstall(folders: Folders, *, force: bool = False) -> Iterator[str]:
    """Take everything out, in all profiles.

    Args:
        folders: of the user.
        force: also remove a plugin or program that was changed since.

    Yields:
        A line for each file: what was done.

    Raises:
        InstallError: a file cannot be read or written.
    """
    old = folders.personal / "extcap"  # of Wireshark before 4.2, from where it may since have been updated
    for path in dict.fromkeys([folders.plugins / PLUGIN, folders.extcap / PROGRAM, old / PROGRAM]):
        yield from _take(path, force=force)
    for place in folders.profiles():
        for kind in (COLOR_FILE, BUTTON_FILE):
            yield from _remove_lines(place / kind.name, kind, folders.common)


def plugin() -> bytes:
    """Return the plugin as it is installed."""
    return _sealed(files("closeseq.wireshark").joinpath(PLUGIN).read_bytes(), "--")


def program(command: Sequence[str]) -> bytes:
    """Return the extcap program as it is installed: a script that runs this closeseq.

    Args:
        command: how to run it: the program, and arguments before `extcap`.
    """
    return _sealed(f'#!/bin/sh\nexec {shlex.join(command)} extcap "$@"\n'.encode(), "#")


def _sealed(data: bytes, comment: str) -> bytes:
    """Return a script with a line, after the first one, that has the digest of all others."""
    first, rest = data.split(b"\n", 1)
    digest = hashlib.sha256(data).hexdigest()
    return first + f"\n{comment} closeseq wireshark --install: {digest}\n".encode() + rest


def _is_ours(data: bytes) -> bool:
    """Return whether a script is one that we wrote, of whatever version, and unchanged."""
    seal = SEAL.search(data)
    if seal is None:
        return False
    rest = data[: seal.start()] + data[seal.end() :]
    return hashlib.sha256(rest).hexdigest().encode() == seal[1]


def _put(path: Path, data: bytes, mode: int, *, force: bool) -> str:
    there = _read(path)
    if there == data:
        return f"{path}: is there"
    if there is not None and not _is_ours(there) and not force:
        raise InstallError(f"{path} is there, and not as closeseq wrote it; --force overwrites it")
    _write(path, data, mode)
    return f"{path}: written"


def _take(path: Path, *, force: bool) -> Iterator[str]:
    there = _read(path)
    if there is None:
        return
    if not force and not _is_ours(there):
        yield f"{path}: was changed since, and is left; --force removes it"
        return
    _remove(path)
    yield f"{path}: removed"


def _add_lines(path: Path, kind: LineFile, common: Path | None) -> str:
    there = base = _read(path)
    if base is None and kind.from_common:
        # Wireshark's own rules hold only as long as the user has no such file.
        base = None if common is None else _read(common / kind.name)
        if base is None:
            return f"{path}: left out, for Wireshark's own rules, which would no longer hold, are not found"
    if base is not None and base.lstrip().startswith((b"{", b"[")):
        return f"{path}: left out, for it has a form that is not known"
    new = kind.added(MADE + (base or b"") if there is None else there)
    if new == there:
        return f"{path}: is there"
    _write(path, new, READABLE)
    return f"{path}: written" if there is None else f"{path}: lines added"


def _remove_lines(path: Path, kind: LineFile, common: Path | None) -> Iterator[str]:
    there = _read(path)
    if there is None or not kind.has(there):
        return
    rest = kind.removed(there)
    unchanged = (_read(common / kind.name) if common is not None else None) if kind.from_common else b""
    if MADE in there and rest == unchanged:
        _remove(path)
        yield f"{path}: removed"
    else:
        _write(path, rest, READABLE)
        yield f"{path}: lines removed"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InstallError(f"{path}: cannot be read: {error.strerror}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file as a whole or not at all. A link stays one; a file that is there keeps its permissions."""
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".closeseq.{secrets.token_hex(8)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        if target.exists():
            shutil.copymode(target, temporary)
        else:
            temporary.chmod(mode)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InstallError(f"{path}: cannot be written: {error.strerror}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise InstallError(f"{path}: cannot be removed: {error.strerror}") from error
