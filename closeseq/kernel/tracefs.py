"""Files of tracefs, the kernel's tracing, where it is mounted and where it is not."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.kernel.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))

# The same on all processors; the C library has no names for them before glibc 2.36.
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
CREATE = 6  # FSCONFIG_CMD_CREATE
CLOEXEC = 1

REFUSED = "only root may read the kernel's tracing (tracefs), which tells the transitions of sockets"


def read_event(event: str) -> tuple[int, str]:
    """Return the number of a tracepoint ("group/name") and the description of its fields.

    Raises:
        KernelError: the kernel has no such tracepoint, or does not let us see it.
    """
    for place in PLACES:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                return _read(place / "events" / event)
            except PermissionError:
                raise KernelError(REFUSED) from None
    with _mounted() as place:
        try:
            return _read(place / "events" / event)
        except OSError:
            raise KernelError(f"this kernel has no tracepoint {event.replace('/', ':')}") from None


def _read(folder: Path) -> tuple[int, str]:
    return int((folder / "id").read_text()), (folder / "format").read_text()


@contextmanager
def _mounted() -> Iterator[Path]:
    """Mount tracefs where no path leads to, so that nothing is left and nobody else sees it."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: object) -> int:
        result: int = libc.syscall(ctypes.c_long(number), *arguments)
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.EACCES):
            raise KernelError(REFUSED)
        raise KernelError(
            f"tracefs is not mounted, and cannot be: {os.strerror(code)}; as root: "
            "mount -t tracefs nodev /sys/kernel/tracing"
        )

    context = call(FSOPEN, b"tracefs", CLOEXEC)
    try:
        call(FSCONFIG, context, CREATE, None, None, 0)
        mount = call(FSMOUNT, context, CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        yield Path(f"/proc/self/fd/{mount}")
    finally:
        os.close(mount)
