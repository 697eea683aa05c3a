"""Captures in object stores and on other machines: whatever has a URL that fsspec knows, such as s3://."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
INSTALL = "pip install 'closeseq[cluster]' (s3:// also needs s3fs, gs:// gcsfs)"


def is_url(path: str) -> bool:
    """Whether this is a URL and no file's name."""
    return URL.match(os.fspath(path)) is not None


class Remote:
    """A remote file, read from its begin; whatever goes wrong is an OSError.

    Args:
        file: as fsspec opens it.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.size: int | None = getattr(file, "size", None)

    def readinto(self, room: memoryview) -> int:
        """Fill the begin of this room; return how many bytes came, 0 at the end."""
        try:
            return int(self._file.readinto(room) or 0)
        except OSError:
            raise
        except Exception as error:  # whatever the protocol's library raises
            raise OSError(None, _reason(error)) from error

    def read_at(self, place: int, size: int) -> bytes:
        """Return so many bytes from a place on."""
        try:
            self._file.seek(place)
            data: bytes = self._file.read(size)
        except OSError:
            raise
        except Exception as error:
            raise OSError(None, _reason(error)) from error
        return data

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def open_url(url: str) -> BinaryIO:
    """Open a remote file for reading.

    Raises:
        CaptureError: it cannot be.
    """
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        return Remote(files.open(path, "rb"))  # type: ignore[return-value]
    except ImportError as error:
        raise CaptureError(f"cannot be opened: {error}", path=url, remedy=INSTALL) from None
    except FileNotFoundError:
        raise CaptureError("no such file", path=url, remedy="check its name") from None
    except PermissionError:
        remedy = "check the credentials that its protocol uses"
        raise CaptureError("not permitted to read it", path=url, remedy=remedy) from None
    except Exception as error:  # noqa: BLE001 - whatever the protocol's library raises
        problem = f"cannot be opened: {_reason(error)}"
        raise CaptureError(
            problem, path=url, remedy="check its name, and whether the server answers"
        ) from None


def found(url: str) -> Iterator[str]:
    """Yield the files that a URL stands for: those that match its pattern, those in it, or itself."""
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url)
        if any(sign in path for sign in "*?["):
            matching = [name for name in files.glob(path) if not files.isdir(name)]
        elif files.isdir(path):
            matching = [one["name"] for one in files.ls(path, detail=True) if one["type"] == "file"]
        else:
            matching = []
    except Exception:  # noqa: BLE001 - opening it will tell
        matching = []
    protocol = url.split("://", maxsplit=1)[0]
    yield from (_named(files, protocol, one) for one in sorted(matching)) if matching else (url,)


def _named(files: Any, protocol: str, path: str) -> str:
    named = str(files.unstrip_protocol(path))
    return named if named.startswith(f"{protocol}:") else f"{protocol}://{named.rpartition('://')[2]}"


def _reason(error: Exception) -> str:
    """Return what is wrong, in one line."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text.splitlines()[0][:200]
