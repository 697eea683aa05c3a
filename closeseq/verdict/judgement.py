"""The verdict and the findings of one timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.verdict.case import Case
from closeseq.verdict.limits import Limits
from closeseq.verdict.outcome import verdict
from closeseq.verdict.rules import RULES

if TYPE_CHECKING:
    from closeseq.tcp.timeline import Timeline
    from closeseq.verdict.findings import Finding, Verdict

DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a connection ended, and what deserves attention."""

    verdict: Verdict
    findings: tuple[Finding, ...]  # in the order of rules.RULES


def judge(timeline: Timeline, limits: Limits = DEFAULT_LIMITS, *, dropped: int = 0) -> Judgement:
    """Judge one connection.

    Args:
        timeline: both ends' states, as replayed; what it is judged for is its `now_ns`.
        limits: from when on a wait counts.
        dropped: packets that the capture itself reports lost, anywhere. What rests on the absence of a
            packet is then no more than assumed.
    """
    case = Case(timeline, limits, dropped)
    findings = tuple(finding for rule in RULES.values() for finding in rule(case))
    return Judgement(verdict(case), findings)
