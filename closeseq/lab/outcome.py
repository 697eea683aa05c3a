"""What can come of an experiment."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """What can come of an experiment; it is the exit status of the process that carries it out."""

    AGREED = 0  # inference and kernel agree, and all that was expected is so
    DISAGREED = 1
    AGREED_WHERE_TOLD = 3  # likewise, wherever packets can tell
    NOT_PERMITTED = 5  # there is no network of our own to be had
    LEFT_OUT = 6  # a command that it needs is not installed
    FAILED = 70  # it could not be carried out to its end

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self in (Outcome.AGREED, Outcome.AGREED_WHERE_TOLD)
