"""What can go wrong in using closeseq: an exception with file, packet, byte and remedy, and nothing else.

What is merely strange *inside* a capture is no exception: it is counted and shown.

What can keep a live capture from beginning, or from going on.

What can go wrong in asking the kernel.
"""

from __future__ import annotations

from typing import Any, Self

KILLED = 9  # SIGKILL, on every system


class CloseseqError(Exception):
    """Everything closeseq raises on purpose. Its text is one line for a person.

    It can be pickled, and so be handed from one process to another.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is else made anew by calling its class with its text, which is not what these take.
        return self._again, (self.args, self.__dict__)

    @classmethod
    def _again(cls, args: tuple[Any, ...], attributes: dict[str, Any]) -> Self:
        made = cls.__new__(cls, *args)
        made.__dict__.update(attributes)
        return made


class CaptureError(CloseseqError):
    """A capture cannot be read, or not to its end.

    What was read before it has already been delivered and stays good.

    Args:
        problem: what is wrong, as a clause without a full stop.
        path: the file, as the user named it.
        packet: the number of the packet at which reading stopped, counted from 1.
        byte: the offset in the (uncompressed) file at which the trouble lies.
        remedy: what to do about it, as a clause.
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
    """What is captured cannot be saved, or no longer.

    What was saved before it stays good.

    Args:
        problem: what is wrong, as a clause without a full stop.
        path: the file, as the user named it or as rotation made it of that name.
        packets: how many packets were saved before, in all files.
        errno: what the system said, if it was the system.
    """

    def __init__(self, problem: str, *, path: str, packets: int = 0, errno: int | None = None) -> None:
        self.problem = problem
        self.path = path
        self.packets = packets
        self.errno = errno
        saved = f"; {packets:,} packets were saved before" if packets else ""
        super().__init__(f"{path}: {problem}{saved}")


class WorkerError(CloseseqError):
    """A process that did a part of the work ended before it was done.

    Args:
        status: its exit status; below zero the number of the signal that ended it; None if it is not known.
    """

    def __init__(self, status: int | None) -> None:
        self.status = status
        how = "its executor tells no more" if status is None else f"status {status}"
        if status is not None and status < 0:
            how = f"signal {-status}"
        if status == -KILLED:
            how += ", which is how the system takes memory back"
        super().__init__(
            f"a worker process ended before its work was done ({how}), so that what was written is not all; "
            "with fewer processes, as with --jobs 1, less memory is needed"
        )


class ScriptError(CloseseqError):
    """A script for `from_script` says something that no segment can."""


class UnknownWordError(CloseseqError):
    """`explain` was asked about a word it does not know."""


class NotPermittedError(CloseseqError):
    """The system lets only privileged users open this."""


class DeviceError(CloseseqError):
    """A device cannot be captured on: there is none of that name, it is down, or it went away."""


class NoRingError(DeviceError):
    """The kernel has no ring of memory for captured packets."""


class FilterError(CloseseqError):
    """A filter expression cannot be used: it is wrong, or what compiles it is missing."""


class KernelError(CloseseqError):
    """The kernel cannot be asked, or refuses; the text is one line that says what is missing."""
