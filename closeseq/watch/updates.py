"""Updates: connections with something new to report, grouped by the pattern of their judgement."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from closeseq.connection import Connection
from closeseq.tcp.states import State
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.classes import Outcome
    from closeseq.connections.conversation import End
    from closeseq.verdict.model import FindingCode, VerdictCode


@dataclass(frozen=True, slots=True)
class Pattern:
    """A judgement without addresses, packets and times: equal for connections that closed alike."""

    verdict: VerdictCode
    initiator: str  # the value of an Initiator
    shape: str  # its events in one line, as `Connection.shape`
    client: State  # now, as of the judgement
    server: State
    problems: frozenset[tuple[FindingCode, End | None]]  # code, and the endpoint it is about
    notices: frozenset[tuple[FindingCode, End | None]]  # likewise

    @classmethod
    def of(cls, outcome: Outcome) -> Pattern:
        """Return the pattern of connections with this outcome."""
        found = {
            severity: frozenset(
                (finding.code, finding.endpoint)
                for finding in outcome.findings
                if finding.severity is severity
            )
            for severity in Severity
        }
        return cls(
            outcome.verdict,
            outcome.initiator.value,
            outcome.shape,
            outcome.client_state,
            outcome.server_state,
            found[Severity.PROBLEM],
            found[Severity.NOTICE],
        )

    @property
    def ended(self) -> bool:
        """Whether the connection is over, but for TIME_WAIT."""
        return self.verdict.ended

    @property
    def gone(self) -> bool:
        """Whether the connection is over and no timer runs."""
        return self.ended and self.client is State.CLOSED and self.server is State.CLOSED

    @property
    def stuck(self) -> frozenset[tuple[FindingCode, End | None]]:
        """The problems that are reported before the connection is over."""
        return frozenset((code, end) for code, end in self.problems if code.arises_with_time)

    @property
    def claims(self) -> tuple[object, ...]:
        """What makes an earlier report wrong if it changes."""
        return (self.verdict, self.initiator, self.problems, self.notices)


class Patterns:
    """Patterns, by number."""

    def __init__(self) -> None:
        self._number: dict[Pattern, int] = {}
        self._patterns: list[Pattern] = []

    def __getitem__(self, number: int) -> Pattern:
        return self._patterns[number]

    def __len__(self) -> int:
        return len(self._patterns)

    def number(self, outcome: Outcome) -> int:
        """Return the number of an outcome's pattern; a new one if it was not seen before."""
        pattern = Pattern.of(outcome)
        number = self._number.setdefault(pattern, len(self._patterns))
        if number == len(self._patterns):
            self._patterns.append(pattern)
        return number

    def keep(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Keep only these patterns, given by ascending numbers, and renumber them.

        Returns:
            the new number by the old one, -1 for those that are dropped; at -1, which is no number, -1.
        """
        new = np.full(len(self._patterns) + 1, -1, np.int32)
        new[numbers] = np.arange(len(numbers))
        self._patterns = [self._patterns[number] for number in numbers.tolist()]
        self._number = {pattern: number for number, pattern in enumerate(self._patterns)}
        return new


class UpdateKind(StrEnum):
    """Why a connection is reported."""

    CLOSED = "closed"  # it is over, but for TIME_WAIT
    STUCK = "stuck"  # an endpoint waits in vain
    REVISED = "revised"  # the earlier report was an assumption, and later packets contradict it
    OPEN = "open"  # monitoring ends, and the connection has not
    MORE = "more"  # monitoring ends; packets came after the last report, and change nothing in it


class Update(Connection):
    """A connection as it stood when it was reported."""

    kind: UpdateKind  # why it was reported
    as_of_ns: int  # the moment of the report, since the Unix epoch


# Yields the connections with these ascending indices, as updates of this kind.
Look: TypeAlias = "Callable[[Sequence[int], UpdateKind], Iterator[Update]]"


class Updates:
    """Connections with the same kind of update and the same pattern, each made when it is asked for.

    Valid until the monitor is fed again.

    Args:
        kind: why they are reported.
        pattern: their judgement, which they have in common.
        indices: their rows in the monitor, ascending.
        look: makes the updates.
    """

    def __init__(self, kind: UpdateKind, pattern: Pattern, indices: Sequence[int], look: Look) -> None:
        self.kind = kind
        self.pattern = pattern
        self.indices = indices
        self._look = look

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Update]:
        return self._look(self.indices, self.kind)

    def __getitem__(self, place: int) -> Update:
        return next(self._look([self.indices[place]], self.kind))
