"""The rules of the findings, one module a topic. Each rule is a generator: a `Case` in, findings out.

stuck         an endpoint waits in CLOSE_WAIT, FIN_WAIT_2 or another state of the close
vanished      an endpoint whose peer no longer answers: half-open
loss          a FIN or the last ACK was lost
opening       the open: slow, not taken by the server, blocked by an older connection
idle          idle connections: a request that meets a close, or a path that forgot the connection
time_wait     what happens to an endpoint in TIME_WAIT
data          data after a FIN: accepted, refused, or none for a long time
reset_causes  why an endpoint sent RST, most likely first; reset_facts: what happened before it
notices       good to know: challenge ACKs, keepalives, what the capture missed

`found` makes a finding: what all cases of a code have in common comes from the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from closeseq.verdict import vocabulary
from closeseq.verdict.model import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from closeseq.connections.conversation import End
    from closeseq.tcp.timeline import Certainty
    from closeseq.verdict.case import Case
    from closeseq.verdict.model import FindingCode, Severity

Rule: TypeAlias = "Callable[[Case], Iterator[Finding]]"


def found(
    code: FindingCode,
    endpoint: End | None,
    certainty: Certainty,
    *,
    since_ns: int,
    until_ns: int | None,
    packets: Iterable[int],
    summary: str,
    advice: str,
    severity: Severity | None = None,
) -> Finding:
    """Return a finding, its packets in order and each named once.

    Args:
        code: which finding.
        endpoint: that it is about; None when it is about both or the capture.
        certainty: how we know.
        since_ns: when it began, since the Unix epoch.
        until_ns: when it ended, or until when it has lasted; None for what has no duration.
        packets: that show it, in any order.
        summary: one line: what is wrong, where, shown by which packets.
        advice: what to do about it, one line.
        severity: None for the vocabulary's; else this case is less grave than most.
    """
    severity = severity or vocabulary.lookup(code).severity
    assert severity is not None, f"{code} is no finding"
    return Finding(
        code,
        severity,
        endpoint,
        certainty,
        since_ns,
        None if until_ns is None else until_ns - since_ns,
        tuple(sorted(set(packets))),
        summary,
        advice,
    )
