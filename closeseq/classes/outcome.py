"""What members of a class have in common: their judgement but for texts and numbers.

This is the promise of a class. Judged by itself, each of its members has

- the same transitions: at the same step, of the same endpoint, between the same states, with the same
  certainty, and with the same cause, up to numbers in it;
- the same verdict, initiator and roles;
- the same findings, in order: code, severity, endpoint and certainty;
- the same errors of programs: code and endpoint;
- the same shape.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.packets.value import value
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from closeseq.connection import Connection
    from closeseq.tcp.states import State
    from closeseq.tcp.timeline import Certainty
    from closeseq.verdict.model import ErrorCode, FindingCode, Initiator, Role, VerdictCode


@value
class FindingOutcome:
    """A finding, but for its texts and numbers."""

    code: FindingCode
    severity: Severity
    endpoint: End | None  # that it is about; None when it is about both or the capture
    certainty: Certainty


@cache
def found(
    code: FindingCode, severity: Severity, endpoint: End | None, certainty: Certainty
) -> FindingOutcome:
    """Return a finding as outcomes have it: of each kind there is one, however many outcomes have it.

    Args:
        code: which finding.
        severity: how grave it is here.
        endpoint: that it is about; None when it is about both or the capture.
        certainty: how we know.
    """
    return FindingOutcome(code, severity, endpoint, certainty)


@value
class Outcome:
    """What holds for all members of a class; the names are those of `Connection`."""

    verdict: VerdictCode
    initiator: Initiator
    client_role: Role
    server_role: Role
    client_state: State  # at the moment for which the connection is judged
    server_state: State
    shape: str
    findings: tuple[FindingOutcome, ...]
    errors: tuple[tuple[ErrorCode, End], ...] = ()  # that programs got, and at which endpoint

    @classmethod
    def of(cls, connection: Connection) -> Outcome:
        """Return the outcome of a connection."""
        verdict, timeline = connection.judgement.verdict, connection.timeline
        return cls(
            verdict.code,
            verdict.initiator,
            verdict.client_role,
            verdict.server_role,
            timeline.state(End.CLIENT),
            timeline.state(End.SERVER),
            connection.shape,
            tuple(found(one.code, one.severity, one.endpoint, one.certainty) for one in connection.findings),
            tuple((one.code, one.endpoint) for one in connection.errors),
        )

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code."""
        return any(finding.code == code for finding in self.findings)

    @property
    def has_problem(self) -> bool:
        """Whether there is something to fix."""
        return any(finding.severity is Severity.PROBLEM for finding in self.findings)
