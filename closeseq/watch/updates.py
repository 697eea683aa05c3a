"""What is told of connections that closed alike, whatever their addresses and times.

What a watch tells: connections of which there is something new to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from closeseq.connection import Connection
from closeseq.tcp.states import State
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from closeseq.classes import Outcome
    from closeseq.connections.conversation import End
    from closeseq.verdict.model import FindingCode, VerdictCode


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a judgement says but for addresses, packets and times."""

    verdict: VerdictCode
    initiator: str
    shape: str
    client: State
    server: State
    problems: frozenset[tuple[FindingCode, End | None]]  # code, and the end it is about
    notices: frozenset[tuple[FindingCode, End | None]]

    @classmethod
    def of(cls, outcome: Outcome) -> Pattern:
        """Return what is told of connections with this outcome."""
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
        """Whether no clock changes anything any more."""
        return self.ended and self.client is State.CLOSED and self.server is State.CLOSED

    @property
    def stuck(self) -> frozenset[tuple[FindingCode, End | None]]:
        """The problems that are news before the connection is over."""
        return frozenset((code, end) for code, end in self.problems if code.arises_with_time)

    @property
    def said(self) -> tuple[object, ...]:
        """What would have to be taken back if it changed."""
        return (self.verdict, self.initiator, self.problems, self.notices)


class Labels:
    """All labels that there were, by number."""

    def __init__(self) -> None:
        self._number: dict[Pattern, int] = {}
        self._labels: list[Pattern] = []

    def __getitem__(self, number: int) -> Pattern:
        return self._labels[number]

    def __len__(self) -> int:
        return len(self._labels)

    def number(self, outcome: Outcome) -> int:
        """Return the number of the label of connections with this outcome."""
        label = Pattern.of(outcome)
        number = self._number.setdefault(label, len(self._labels))
        if number == len(self._labels):
            self._labels.append(label)
        return number

    def keep(self, numbers: np.ndarray) -> np.ndarray:
        """Keep only these labels, given by their numbers, ascending; they get new ones.

        Returns:
            by old number the new one, -1 for those that are let go; at -1, which is no number, -1.
        """
        new = np.full(len(self._labels) + 1, -1, np.int32)
        new[numbers] = np.arange(len(numbers))
        self._labels = [self._labels[number] for number in numbers.tolist()]
        self._number = {label: number for number, label in enumerate(self._labels)}
        return new


class UpdateKind(StrEnum):
    """Why there is something to say."""

    CLOSED = "closed"  # it is over, but for TIME_WAIT
    STUCK = "stuck"  # an end waits in vain
    REVISED = "revised"  # what was said of it was assumed, and later packets tell otherwise
    OPEN = "open"  # the watch ends, and the connection has not
    MORE = "more"  # the watch ends, and more packets have come since it was told; they change nothing


class Update(Connection):
    """A connection as it stood when there was something to say of it."""

    kind: UpdateKind
    as_of_ns: int  # the moment for which it holds, since the Unix epoch


# Gives the connections with these ascending indices, of which there is that to say.
Look: TypeAlias = "Callable[[Sequence[int], UpdateKind], Iterator[Update]]"


class Updates:
    """Connections of which the same is to be said; they are looked at when they are asked for.

    It holds until the watch is fed again.
    """

    def __init__(self, kind: UpdateKind, label: Pattern, indices: Sequence[int], look: Look) -> None:
        self.kind = kind
        self.label = label
        self.indices = indices
        self._look = look

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Update]:
        return self._look(self.indices, self.kind)

    def __getitem__(self, place: int) -> Update:
        return next(self._look([self.indices[place]], self.kind))
