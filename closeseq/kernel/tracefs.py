"""The folder of tracefs, the kernel's tracing, where it is mounted and where it is not."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress

from closeseq.kernel.errors import KernelError

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
INSTANCES = "instances"  # where a folder that is made is a tracing of its own

# The same on all processors; the C library has no names for them before glibc 2.36.
FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432
CREATE = 6  # FSCONFIG_CMD_CREATE
CLOEXEC = 1

REFUSED = "only root may use the kernel's tracing (tracefs), which tells the transitions of sockets"


def open_tracefs() -> int:
    """Return a descriptor of the folder of tracefs. Close it.

    Raises:
        KernelError: the kernel has none, or does not let us see it.
    """
    for place in PLACES:
        with suppress(FileNotFoundError, NotADirectoryError):
            try:
                folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            except PermissionError:
                raise KernelError(REFUSED) from None
            if _is_of_use(folder):
                return folder
            os.close(folder)
    return _mount()


def _is_of_use(folder: int) -> bool:
    """Whether it is tracefs and not the empty folder for it, and not mounted read-only as in containers."""
    read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
    return not read_only and os.access(INSTANCES, os.F_OK, dir_fd=folder)


def _mount() -> int:
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
        return call(FSMOUNT, context, CLOEXEC, 0)
    finally:
        os.close(context)
