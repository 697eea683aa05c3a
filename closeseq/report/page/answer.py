"""The sentence at the top of the page: who is to blame, how often, since when; and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.report.problems import MOST_GROUPS, advice_of, program, where_of
from closeseq.report.summary import nothing
from closeseq.report.text import when
from closeseq.units import count, listed, span
from closeseq.verdict import vocabulary
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.report.page.overview import Overview
    from closeseq.report.problems import ProblemCause
    from closeseq.report.selection import Selection
    from closeseq.verdict.population.rules import PopulationFinding

DIGITS = 3  # of a second
MOST_EXAMPLES = 3


@dataclass(frozen=True)
class Answer:
    """What a reader must know first."""

    kind: str  # problem, waiting, or good
    sentence: str
    short: str  # for the title of a window
    how_often: str = ""
    advice: str = ""
    code: str = ""  # of the problem
    number: int = 0  # of connections that have it
    examples: Sequence[int] = ()  # their numbers


@dataclass(frozen=True)
class OtherProblem:
    """A problem that is not the worst, in short."""

    number: int  # of connections
    code: str
    where: str  # with its preposition; empty for both endpoints
    meaning: str
    since: str  # when it was first so, in UTC
    advice: str


def answer(selection: Selection, overview: Overview, together: Sequence[PopulationFinding]) -> Answer:
    """Return what to know first: the worst problem; else of many connections; else that there is none.

    Args:
        selection: the connections that are asked for.
        overview: of the same.
        together: what they show together, warnings first.
    """
    if not overview.number:
        return Answer("good", _sentence(nothing(selection)), "no connections")
    if overview.causes:
        return _blamed(selection, overview, overview.causes[0])
    for one in together:
        if vocabulary.lookup(one.code).severity is Severity.PROBLEM:
            return Answer("problem", _sentence(one.summary), str(one.code), advice=_sentence(one.advice))
    if overview.waiting:
        return _waiting(overview, selection.analysis.settings.limits.stuck_after_ns)
    ended = count(overview.number, "connection was", "connections were")
    return Answer("good", "No problems found.", "no problems", f"{ended} looked at.")


def _blamed(selection: Selection, overview: Overview, cause: ProblemCause) -> Answer:
    where, meaning = where_of(cause), vocabulary.lookup(cause.code).meaning
    since = when(overview.since_ns(cause), DIGITS)
    advice = _advice(selection, cause)
    if len(cause.groups) > 1:
        advice += "; likewise at the others"
    worst = cause.groups[0]
    return Answer(
        "problem",
        _sentence(f"{where}: {meaning}" if where else meaning),
        f"{cause.code} at {where}" if where else cause.code,
        f"{cause.code} in {cause.number:,} of {count(overview.number, 'connection')}, since {since}.",
        _sentence(advice),
        cause.code,
        overview.findings[cause.code],
        [selection.analysis.numbers[index] for index in sorted(worst.indices)[:MOST_EXAMPLES]],
    )


def _waiting(overview: Overview, stuck_after_ns: int) -> Answer:
    """Return which programs had not closed, which is no problem yet."""
    found = overview.waiting.most_common(MOST_GROUPS)
    alone = len(found) == 1
    places = [
        program(end, address) if alone else f"{program(end, address)} ({number:,})"
        for (end, address), number in found
    ]
    if len(overview.waiting) > MOST_GROUPS:
        places.append(f"{len(overview.waiting) - MOST_GROUPS:,} other places")
    number = overview.waiting.total()
    return Answer(
        "waiting",
        f"{count(number, 'socket')} in CLOSE_WAIT when the capture ended, at {listed(places)}.",
        "no problem yet",
        "No problem yet: the peer has closed, and the program there has not closed its socket. It counts as "
        f"a problem after {span(stuck_after_ns)} (--stuck-after changes that).",
    )


def other_problems(selection: Selection, overview: Overview) -> list[OtherProblem]:
    """Return the problems after the worst one, each in short; together with that, at most MOST_GROUPS.

    Args:
        selection: the connections that are asked for.
        overview: of the same.
    """
    found = overview.causes[1:]
    told = []
    for cause in found[: MOST_GROUPS - 1]:
        where = where_of(cause)
        told.append(
            OtherProblem(
                cause.number,
                cause.code,
                f"at {where}" if where else "",
                vocabulary.lookup(cause.code).meaning,
                when(overview.since_ns(cause), DIGITS),
                _sentence(_advice(selection, cause)),
            )
        )
    return told


def _advice(selection: Selection, cause: ProblemCause) -> str:
    """Return what to do, from the first connection of the worst place."""
    worst = cause.groups[0]
    try:
        worst.connections = [selection.analysis[min(worst.indices)]]
        return advice_of(worst)
    except Exception:  # noqa: BLE001 - closeseq failed at this connection: the general advice
        return vocabulary.lookup(cause.code).advice


def _sentence(text: str) -> str:
    """Return a text that begins with a capital and ends with a full stop."""
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""
