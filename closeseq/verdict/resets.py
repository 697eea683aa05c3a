"""Why a RST was sent: its likely causes in order, each with what speaks for it and against it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from closeseq.tcp.timeline import Certainty
from closeseq.verdict.causes import CAUSES
from closeseq.verdict.found import found
from closeseq.verdict.reset_facts import Reset
from closeseq.verdict.text import packets, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connections.conversation import End, Event
    from closeseq.verdict.case import Case
    from closeseq.verdict.causes import Cause
    from closeseq.verdict.findings import Finding

MOST_CAUSES = 3


def reset_cause(case: Case) -> Iterator[Finding]:
    """One finding for each RST, or for each run of RSTs of one sender that look alike."""
    for _, run in groupby(case.resets, key=_likeness):
        resets = list(run)
        until = resets[-1].time_ns if len(resets) > 1 else None
        summary, advice = _told(case, resets) if case.worded else ("", "")
        yield found(
            "reset-cause",
            resets[0].sender,
            Certainty.ASSUMED,
            since_ns=resets[0].time_ns,
            until_ns=until,
            packets=[r.packet for r in resets],
            summary=summary,
            advice=advice,
        )


def _told(case: Case, resets: Sequence[Event]) -> tuple[str, str]:
    """Return why the first of these RSTs, which look alike, was sent, and what to do about it."""
    first = Reset(case, resets[0])
    causes = likely_causes(first)
    repeated = f" (repeated, {times(len(resets))} in all: {packets(r.packet for r in resets)})"
    summary = (
        f"RST #{resets[0].packet} from the {resets[0].sender} ({first.where})"
        + (repeated if len(resets) > 1 else "")
        + ": "
        + "; or ".join(map(_weighed, causes))
    )
    return summary, causes[0].advice


def _likeness(reset: Event) -> tuple[End, bool, int, bool]:
    """What makes two RSTs look alike: sender, form, and the traits of its sender's stack."""
    return reset.sender, reset.ack is None, reset.ttl, reset.window == 0


def likely_causes(reset: Reset) -> list[Cause]:
    """Return the likeliest causes of a RST, the best first; there is always one."""
    causes = [cause for rule in CAUSES if (cause := rule(reset)) is not None]
    causes.sort(key=lambda cause: -cause.weight)
    return [cause for cause in causes if cause.weight >= 0][:MOST_CAUSES] or causes[:1]


def _weighed(cause: Cause) -> str:
    evidence = [f"for: {', '.join(cause.speaks_for)}"] if cause.speaks_for else []
    evidence += [f"against: {', '.join(cause.speaks_against)}"] if cause.speaks_against else []
    return f"{cause.what} ({'; '.join(evidence)})" if evidence else cause.what
