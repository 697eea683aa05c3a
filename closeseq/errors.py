"""Every exception that closeseq raises on purpose. Its text is one line: where, what, and what to do.

What is merely strange *inside* a capture is no exception: it is counted and shown.

    CaptureError                     reading a saved capture
    SaveError                        saving a live one
    TablesError                      writing tables
    NotPermittedError, DeviceError,
    NoRingError, FilterError         capturing live
    KernelError                      asking the kernel for its sockets
    WorkerError                      a worker process
    ScriptError, UnknownWordError    what `from_script` and `explain` were given
"""

from __future__ import annotations

import sys
from typing import Any, Self

KILLED = 9  # SIGKILL, on every system


class CloseseqError(Exception):
    """The base of all exceptions here. It can be pickled, and so be handed from one process to another."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default pickle calls the class with the text, which is not what these take.
        return self._again, (self.args, self.__dict__)

    @classmethod
    def _again(cls, args: tuple[Any, ...], attributes: dict[str, Any]) -> Self:
        made = cls.__new__(cls, *args)
        made.__dict__.update(attributes)
        return made


class CaptureError(CloseseqError):
    """A capture cannot be read, or not to its end: `FILE: packet N, byte N: PROBLEM; REMEDY`.

    The packets before it have already been delivered and stay good.

    Args:
        problem: what is wrong, as a clause without a full stop.
        path: the file, as the user named it.
        packet: the number in its file of the packet at which reading stopped, from 1.
        byte: the offset of the problem in the (uncompressed) file.
        remedy: what to do, as a clause.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str,
        packet: int | None = None,
        byte: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.path = path
        self.packet = packet
        self.byte = byte
        self.remedy = remedy
        where = [f"packet {packet}"] if packet is not None else []
        where += [f"byte {byte}"] if byte is not None else []
        text = f"{path}: {', '.join(where)}: {problem}" if where else f"{path}: {problem}"
        super().__init__(f"{text}; {remedy}" if remedy else text)


class SaveError(CloseseqError):
    """Captured packets cannot be saved, or no longer: `FILE: PROBLEM; N packets were saved before`.

    Args:
        problem: what is wrong, as a clause without a full stop.
        path: the file, as the user named it, or its name in a rotation.
        packets: how many packets were saved before, in all files; these stay good.
        errno: the system's error number, if the system reported it.
    """

    def __init__(self, problem: str, *, path: str, packets: int = 0, errno: int | None = None) -> None:
        self.problem = problem
        self.path = path
        self.packets = packets
        self.errno = errno
        saved = f"; {packets:,} packets were saved before" if packets else ""
        super().__init__(f"{path}: {problem}{saved}")


class TablesError(CloseseqError):
    """Tables cannot be written: something is there already, or the library for it is missing."""


class WorkerError(CloseseqError):
    """A worker process ended before its work was done.

    Args:
        status: its exit status; below zero the number of the signal that ended it; None if unknown.
    """

    def __init__(self, status: int | None) -> None:
        self.status = status
        how = "its executor reports no reason" if status is None else f"status {status}"
        if status is not None and status < 0:
            how = f"signal {-status}"
        if status == -KILLED:
            how += ": probably the system was out of memory"
        super().__init__(
            f"a worker process ended before its work was done ({how}), so the output is incomplete; "
            "use fewer processes, as with --jobs 1: they need less memory"
        )


class ScriptError(CloseseqError):
    """A script for `from_script` has a word that is none, or that no segment can follow."""


class UnknownWordError(CloseseqError):
    """`explain` does not know this word."""


class NotPermittedError(CloseseqError):
    """The system lets only privileged users open this."""


class DeviceError(CloseseqError):
    """A device cannot be captured on: there is none of that name, it is down, or it is gone."""


class NoRingError(DeviceError):
    """The kernel has no packet ring (TPACKET_V3)."""


class FilterError(CloseseqError):
    """A filter expression cannot be used: it is wrong, or libpcap, which compiles it, is missing."""


class KernelError(CloseseqError):
    """The kernel cannot be asked, or refuses; the text names what is missing."""


def lacking(error: Exception) -> str | None:
    """Return one line about a package that closeseq needs and this Python has not; None for other errors."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    if package == __name__.partition(".")[0]:  # a module of our own: a bug
        return None
    return (
        f"{package}, which closeseq needs, is not installed for {sys.executable}; install closeseq with "
        "`python3 -m pip install .` in its folder, and run it with that Python"
    )
