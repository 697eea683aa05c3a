"""The making of a finding: what is the same for every case of a code comes from the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from closeseq.verdict import vocabulary
from closeseq.verdict.model import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from closeseq.connections.conversation import End
    from closeseq.tcp.timeline import Certainty
    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Severity

Rule: TypeAlias = "Callable[[Case], Iterator[Finding]]"


def found(
    code: str,
    end: End | None,
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

    Its severity is the vocabulary's, unless this case is less grave than most.
    """
    severity = severity or vocabulary.lookup(code).severity
    assert severity is not None, f"{code} is no finding"
    return Finding(
        code,
        severity,
        end,
        certainty,
        since_ns,
        None if until_ns is None else until_ns - since_ns,
        tuple(sorted(set(packets))),
        summary,
        advice,
    )
