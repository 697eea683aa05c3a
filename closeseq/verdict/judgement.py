"""The verdict and the findings of one timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.packets.value import value
from closeseq.verdict.case import Case
from closeseq.verdict.findings import Finding, Severity
from closeseq.verdict.limits import Limits
from closeseq.verdict.outcome import verdict
from closeseq.verdict.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.packets.files import Gap
    from closeseq.tcp.timeline import Timeline
    from closeseq.verdict.findings import Verdict

DEFAULT_LIMITS = Limits()


@value
class Judgement:
    """How a connection ended, and what deserves attention."""

    verdict: Verdict
    findings: tuple[Finding, ...]  # in the order of rules.RULES


def judge(
    timeline: Timeline,
    limits: Limits = DEFAULT_LIMITS,
    *,
    dropped: int = 0,
    gaps: Sequence[Gap] = (),
    worded: bool = True,
) -> Judgement:
    """Judge one connection.

    Args:
        timeline: both ends' states, as replayed; what it is judged for is its `now_ns`.
        limits: from when on a wait counts.
        dropped: packets that the capture itself reports lost, anywhere. What rests on the absence of a
            packet is then no more than assumed.
        gaps: between the files of the capture. They change no judgement: what is missing may be due to one.
        worded: False leaves texts out that take long, where only the codes are asked for.
    """
    case = Case(timeline, limits, dropped, gaps, worded=worded)
    findings = [finding for rule in RULES.values() for finding in rule(case)]
    return Judgement(verdict(case), tuple(one_problem_a_fault(findings)))


# One end does not close, and both wait for that.
WAITS_FOR_THE_OTHER = frozenset({"stuck-close-wait", "stuck-fin-wait-2"})


def one_problem_a_fault(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings, of which the first that shows a fault is the problem, and the others are notices.

    They show the same fault if the same packets show it, or if one end waits for the other.
    """
    problems: list[Finding] = []
    for finding in findings:
        if finding.severity is not Severity.PROBLEM:
            yield finding
        elif any(_same_fault(finding, problem) for problem in problems):
            yield lesser(finding)
        else:
            problems.append(finding)
            yield finding


def lesser(finding: Finding) -> Finding:
    """Return a finding as a notice."""
    f = finding
    since_ns, duration_ns = f.since_ns, f.duration_ns
    return Finding(
        *(f.code, Severity.NOTICE, f.endpoint, f.certainty, since_ns, duration_ns),
        *(f.packets, f.summary, f.advice),
    )


def _same_fault(one: Finding, other: Finding) -> bool:
    mutual = {one.code, other.code} == WAITS_FOR_THE_OTHER and one.endpoint is not other.endpoint
    return mutual or bool(set(one.packets) & set(other.packets))
