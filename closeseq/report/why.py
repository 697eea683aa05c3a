"""What `analyze --why ERROR` prints: which program got an error, in which connection, at which packet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from closeseq.report.containment import bare_lines, contained
from closeseq.report.problems import not_shown, program
from closeseq.report.summary import what_was_read
from closeseq.report.text import printable
from closeseq.units import count
from closeseq.verdict.model import ErrorCode, FindingCode
from closeseq.verdict.vocabulary.foreign import foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.report.selection import Selection
    from closeseq.report.text import Style
    from closeseq.verdict.program_errors import ProgramError

MOST_PLACES = 5  # programs named for each error


def why(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield which programs got the errors that are asked for, and where.

    Args:
        selection: the connections in which a program got one of `wanted.errors`.
        style: how text may look: width, colours, ASCII only.
        most: how many connections to show; None for all.
    """
    yield from what_was_read(selection, style)
    if not len(selection.analysis):
        return
    errors = selection.wanted.errors
    yield ""
    if not len(selection):
        yield from _nobody(selection, style)
        return
    total: Counter[ErrorCode] = Counter()
    yield from _programs(selection, total, style)
    yield ""
    yield style.paint("Connections", "heading")
    for connection in selection.analysis.judged(selection.indices[:most]):
        yield from contained(
            connection,
            lambda one: [
                line for error in one.errors if error.code in errors for line in _told(one, error, style)
            ],
            lambda one: bare_lines(one, style),
        )
    yield from not_shown(0 if most is None else len(selection) - most, style, "connections")
    yield ""
    yield from style.wrap(f"What it means: closeseq explain {' '.join(total)}")


def _programs(selection: Selection, total: Counter[ErrorCode], style: Style) -> Iterator[str]:
    """Yield the errors, and how many connections of each program got each; count them in `total`."""
    counts: Counter[tuple[ErrorCode, str]] = Counter()
    for outcome, members in selection.classes:
        asked = [(code, end) for code, end in outcome.errors if code in selection.wanted.errors]
        for code in {code for code, _ in asked}:
            total[code] += len(members)
        for code, end in dict.fromkeys(asked):
            for address, indices in selection.analysis.places(members, end):
                counts[code, program(end, address)] += len(indices)
    for code, number in total.most_common():
        meaning = foreign(code)[0].meaning
        for line in style.wrap(f"{code} in {count(number, 'connection')}: {meaning}", then="  "):
            yield style.paint(line, "heading")
        places = [(where, times) for (of, where), times in counts.most_common() if of is code]
        for where, times in places[:MOST_PLACES]:
            yield from style.wrap(f"at {where}", first=f"{times:>7,}  ")
        if len(places) > MOST_PLACES:
            rest = sum(times for _, times in places[MOST_PLACES:])
            yield f"{rest:>7,}  at {count(len(places) - MOST_PLACES, 'other program')}"


def _told(connection: Connection, error: ProgramError, style: Style) -> list[str]:
    """Return the lines about one error."""
    conversation = connection.conversation
    who = f"{conversation.client} {style.to} {conversation.server}"
    text = f"{error.code} at the {error.endpoint} by #{error.packet} ({error.certainty}): {error.text}"
    lines = style.wrap(f"{who}: {connection.files.text(printable(text))}", first=f"  #{connection.id}  ")
    for finding in connection.findings:
        if finding.code is FindingCode.RESET_CAUSE and error.packet in finding.packets:
            cause = connection.files.text(printable(finding.summary))
            lines += style.wrap(cause, first="      ")
    return lines


def _nobody(selection: Selection, style: Style) -> Iterator[str]:
    """Yield that no program got any of the errors asked for, and which others they got."""
    asked = " or ".join(sorted(selection.wanted.errors))
    yield from style.wrap(f"No program got {asked}, as far as these packets show.")
    others: Counter[ErrorCode] = Counter()
    for one in selection.analysis.classes:
        for code in {code for code, _ in one.outcome.errors}:
            others[code] += len(one.members)
    if others:
        named = ", ".join(f"{code} ({count(number, 'connection')})" for code, number in others.most_common())
        yield from style.wrap(f"Errors that programs got: {named}")
