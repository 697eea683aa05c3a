"""The judgement of a connection at which closeseq itself failed, and how many of them there are."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from closeseq.verdict.judgement import Judgement
from closeseq.verdict.model import Initiator, Role, Verdict, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from closeseq.connections.conversation import Conversation

CODE = VerdictCode.NOT_JUDGED
REPORT = f"'closeseq explain {CODE}' shows how to report it"
MOST_NAMED = 3  # connections


def not_judged(conversation: Conversation, fault: Exception, *, failed_to: str = "judge") -> Judgement:
    """Return the judgement that there is none, with the place in closeseq where it failed.

    Args:
        conversation: the connection.
        fault: what was raised.
        failed_to: a verb: "judge" or "show".
    """
    verdict = Verdict(
        CODE,
        Initiator.NONE,
        Role.NONE,
        Role.NONE,
        f"closeseq failed to {failed_to} this connection: {place(fault)}; {REPORT}",
        tuple(step.packet for step in conversation.steps[-1:]),
    )
    return Judgement(verdict, ())


def place(fault: Exception) -> str:
    """Return what a fault was and where it happened: `IndexError in replay.py, line 12`."""
    frames = traceback.extract_tb(fault.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(fault).__name__}{where}"


class Faults:
    """The connections at which closeseq itself has failed, each counted once."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}  # the first of them by number: what happened, and where
        self._connections: set[int] = set()  # their numbers
        self._dropped = 0  # how many more there are

    def __len__(self) -> int:
        return len(self._connections) + self._dropped

    @property
    def named(self) -> list[str]:
        """The first of them by number, each with what happened and where."""
        return [f"#{number}: {where}" for number, where in sorted(self._places.items())]

    def add(self, connection: int, fault: Exception) -> None:
        """Note that closeseq failed at the connection with this number.

        Args:
            connection: its number, as `Connection.id`.
            fault: what was raised; of a connection the first one counts.
        """
        if connection not in self._connections:
            self._connections.add(connection)
            self._name(connection, place(fault))

    def merge(self, others: Faults) -> None:
        """Note the connections at which another process failed, each counted once."""
        for connection, where in others._places.items():
            if connection not in self._connections:
                self._name(connection, where)
        self._connections |= others._connections

    def _name(self, connection: int, where: str) -> None:
        self._places[connection] = where
        if len(self._places) > MOST_NAMED:
            del self._places[max(self._places)]

    def add_all(self, connections: Iterable[int], fault: Exception) -> None:
        """Note that closeseq failed at a result for all these connections together.

        Args:
            connections: their numbers.
            fault: what was raised.
        """
        for connection in connections:
            self.add(connection, fault)

    def forget(self, present: Container[int]) -> None:
        """Drop the numbers of the connections that are not among `present`; they still count."""
        gone = {one for one in self._connections if one not in present}
        self._connections -= gone
        self._dropped += len(gone)


class Uncontained(Faults):
    """In place of an analysis's `faults` it raises each fault as the exception it is, for debugging."""

    def add(self, connection: int, fault: Exception) -> NoReturn:  # noqa: ARG002 - it gets no further
        """Raise the fault, whatever the connection."""
        raise fault
