"""`judge`: the verdict and the findings of one timeline.

`RULES` lists the findings in the order in which they are reported: problems before notices. A rule takes a
case and yields the findings of its code, in most cases none. What a code means, and how grave it is, stands
in the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.packets.value import value
from closeseq.settings import Limits
from closeseq.verdict.case import Case
from closeseq.verdict.ending import verdict
from closeseq.verdict.findings.data import data_after_close, half_close, slow_close
from closeseq.verdict.findings.idle import half_close_cut, idle_cut, keepalive_race
from closeseq.verdict.findings.loss import fin_lost, final_ack_lost
from closeseq.verdict.findings.notices import (
    capture_incomplete,
    challenge_ack,
    duplicate_packets,
    fin_with_data,
    keepalive,
    three_segment_close,
)
from closeseq.verdict.findings.opening import (
    accept_queue_full,
    blocked_by_old_connection,
    never_accepted,
    slow_open,
)
from closeseq.verdict.findings.reset_causes import reset_cause
from closeseq.verdict.findings.stuck import (
    stuck_close_wait,
    stuck_closing,
    stuck_fin_wait_1,
    stuck_fin_wait_2,
    stuck_last_ack,
)
from closeseq.verdict.findings.time_wait import (
    bind_blocked,
    time_wait_assassinated,
    time_wait_restarted,
    time_wait_reused,
)
from closeseq.verdict.findings.vanished import half_open
from closeseq.verdict.model import Finding, FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.packets.frames import Gap
    from closeseq.tcp.timeline import Timeline
    from closeseq.verdict.findings import Rule
    from closeseq.verdict.model import Verdict

RULES: dict[FindingCode, Rule] = {
    # an endpoint waits in vain
    FindingCode.STUCK_CLOSE_WAIT: stuck_close_wait,
    FindingCode.STUCK_FIN_WAIT_2: stuck_fin_wait_2,
    FindingCode.STUCK_FIN_WAIT_1: stuck_fin_wait_1,
    FindingCode.STUCK_LAST_ACK: stuck_last_ack,
    FindingCode.STUCK_CLOSING: stuck_closing,
    FindingCode.HALF_OPEN: half_open,
    FindingCode.IDLE_CUT: idle_cut,
    FindingCode.HALF_CLOSE_CUT: half_close_cut,
    # the open
    FindingCode.BLOCKED_BY_OLD_CONNECTION: blocked_by_old_connection,
    FindingCode.ACCEPT_QUEUE_FULL: accept_queue_full,
    # something was lost
    FindingCode.KEEPALIVE_RACE: keepalive_race,
    FindingCode.DATA_AFTER_CLOSE: data_after_close,
    FindingCode.FINAL_ACK_LOST: final_ack_lost,
    FindingCode.FIN_LOST: fin_lost,
    # TIME_WAIT
    FindingCode.TIME_WAIT_ASSASSINATED: time_wait_assassinated,
    FindingCode.TIME_WAIT_RESTARTED: time_wait_restarted,
    FindingCode.TIME_WAIT_REUSED: time_wait_reused,
    FindingCode.BIND_BLOCKED: bind_blocked,
    # how the open went
    FindingCode.NEVER_ACCEPTED: never_accepted,
    FindingCode.SLOW_OPEN: slow_open,
    # how the close went
    FindingCode.RESET_CAUSE: reset_cause,
    FindingCode.CHALLENGE_ACK: challenge_ack,
    FindingCode.SLOW_CLOSE: slow_close,
    FindingCode.HALF_CLOSE: half_close,
    FindingCode.THREE_SEGMENT_CLOSE: three_segment_close,
    FindingCode.FIN_WITH_DATA: fin_with_data,
    FindingCode.KEEPALIVE: keepalive,
    # what the capture misses
    FindingCode.CAPTURE_INCOMPLETE: capture_incomplete,
    FindingCode.DUPLICATE_PACKETS: duplicate_packets,
}


DEFAULT_LIMITS = Limits()


@value
class Judgement:
    """How a connection ended, and what deserves attention."""

    verdict: Verdict
    findings: tuple[Finding, ...]  # problems before notices, each in the order of RULES


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
        timeline: both endpoints' states, as replayed; it is judged for the moment `now_ns`.
        limits: how long a wait must be to count.
        dropped: packets that the capture itself reports lost, anywhere. What rests on the absence of a
            packet is then no more than assumed.
        gaps: between the files of the capture. They change texts only: what is missing may lie in one.
        worded: False: texts that take long are left out, where only the codes are needed.

    Returns:
        The verdict, and the findings in the order of `RULES`, problems before notices.
    """
    case = Case(timeline, limits, dropped, gaps, worded=worded)
    findings = [finding for rule in RULES.values() for finding in rule(case)]
    found = [*one_problem_a_fault(findings)]
    found.sort(key=_is_notice)
    return Judgement(verdict(case), tuple(found))


# One endpoint does not close, and both wait for that.
WAITS_FOR_THE_OTHER = frozenset({FindingCode.STUCK_CLOSE_WAIT, FindingCode.STUCK_FIN_WAIT_2})


def one_problem_a_fault(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings, of which the first that shows a fault is the problem, and the others are notices.

    They show the same fault if the same packets show it, or if one endpoint waits for the other.
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


def _is_notice(finding: Finding) -> bool:
    return finding.severity is Severity.NOTICE


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
