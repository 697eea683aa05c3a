"""Bytes that one task hands on to another: as they are, or in a file that all machines can read."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Held: TypeAlias = bytes | str  # the bytes, or the URL of a file that holds them


def put(folder: str | None, name: str, data: bytes) -> Held:
    """Put bytes into a folder, under a name that nobody else uses; return them if there is none."""
    if folder is None:
        return data
    url = f"{folder}/{name}-{secrets.token_hex(8)}"  # a task that runs twice writes two of them
    files, path = file_system(url)
    with files.open(path, "wb") as file:
        file.write(data)
    return url


def get(held: Held, begin: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes, or those from `begin` up to `end`.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(held, bytes):
        return held[begin:end]
    files, path = file_system(held)
    data: bytes = files.cat_file(path, start=begin, end=end)
    return data


def file_system(url: str) -> tuple[Any, str]:
    """Return what reads and writes there, and the path by which it knows it."""
    from fsspec.core import url_to_fs  # of the extra `cluster`

    found: tuple[Any, str] = url_to_fs(url)
    return found


def write_whole(url: str, pieces: Iterator[str]) -> None:
    """Write a file, under another name until it is whole."""
    files, path = file_system(url)
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}-{secrets.token_hex(8)}"
    try:
        with files.open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece.encode("utf-8", "backslashreplace"))
        files.mv(temporary, path)
    except BaseException:
        if files.exists(temporary):
            files.rm(temporary)
        raise
