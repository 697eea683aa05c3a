"""The connections that the page shows whole, with ladder and record: not all of a hundred thousand fit.

First of each problem some, shared out among its causes and places; then one of each way to end, the most
frequent first; then the first ones. Together they may take so many bytes; what is too long alone is left out.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from closeseq.report.containment import contained
from closeseq.report.pictures.ladder import ladder
from closeseq.report.pictures.svg import drawn_svg
from closeseq.report.problems import shares
from closeseq.report.records import json_record
from closeseq.report.text import printable
from closeseq.units import span
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.report.page.overview import Overview
    from closeseq.report.selection import Selection
    from closeseq.verdict.model import Finding

MOST_STEPS = 1000  # of a ladder; a longer one is for `timeline`
MOST_NAMED = 12  # packets of one finding
MOST_BYTES = 8_000_000  # of all ladders and records


class ShownFinding(NamedTuple):
    """A finding of an example, with the packets that show it."""

    letter: str  # that stands in the ladder beside these packets
    code: str
    problem: bool
    where: str  # empty if at no one endpoint
    known: str  # its certainty, and how long it lasted
    summary: str
    packets: tuple[tuple[int, str], ...]  # running number, and name as people look it up
    more: int  # packets that are not named
    advice: str


class WholeConnection(NamedTuple):
    """A connection that is shown whole."""

    id: int
    svg: str  # empty where it could not be drawn
    evidence: tuple[ShownFinding, ...]  # the gravest first
    record: str  # JSON

    @property
    def size(self) -> int:
        """About its bytes in the page."""
        return len(self.svg) + 2 * len(self.record)  # the evidence is in the record too


def examples(selection: Selection, overview: Overview, most: int) -> list[WholeConnection]:
    """Return connections to show whole, by number.

    Args:
        selection: the connections that are asked for.
        overview: of the same.
        most: how many at most; fewer if they would take more than MOST_BYTES.
    """
    order = list(islice(_by_need(selection, overview, most), most))
    drawn = dict(zip(sorted(order), selection.analysis.drawn(example, sorted(order)), strict=True))
    kept, size = [], 0
    for index in order:
        one = drawn[index]
        if one is not None and size + one.size <= MOST_BYTES:
            kept.append(one)
            size += one.size
    return sorted(kept)


def example(connection: Connection) -> WholeConnection | None:
    """Return a connection's ladder, findings and record; None where they are too long."""
    if len(connection.conversation.steps) > MOST_STEPS:
        return None
    svg, evidence = contained(connection, _drawn, lambda _: ("", ()))
    return WholeConnection(connection.id, svg, evidence, json_record(connection))


def _drawn(connection: Connection) -> tuple[str, tuple[ShownFinding, ...]]:
    one = ladder(connection)
    found = tuple(_evidence(connection, *told) for told in one.findings)
    return drawn_svg(one, style=False, findings=False), found


def _evidence(connection: Connection, letter: str, finding: Finding, sentence: str) -> ShownFinding:
    packets = list(dict.fromkeys(finding.packets))
    lasted = f", {span(finding.duration_ns)}" if finding.duration_ns else ""
    return ShownFinding(
        letter,
        str(finding.code),
        finding.severity is Severity.PROBLEM,
        f" at the {finding.endpoint}" if finding.endpoint is not None else "",
        f"{finding.certainty}{lasted}",
        sentence,
        tuple((packet, connection.files.name(packet)) for packet in packets[:MOST_NAMED]),
        max(len(packets) - MOST_NAMED, 0),
        connection.files.text(printable(finding.advice)),
    )


def _by_need(selection: Selection, overview: Overview, most: int) -> Iterator[int]:
    """Yield indices, those to be shown before others first; each once."""
    told: set[int] = set()

    def new(indices: Sequence[int]) -> Iterator[int]:
        for index in indices:
            if index not in told:
                told.add(index)
                yield index

    found = overview.causes
    for cause, numbers in zip(found, shares(found, -(-most // 2)), strict=True):
        for group, number in zip(cause.groups, numbers, strict=True):
            yield from new(sorted(group.indices)[:number])
    ways = sorted(overview.examples.items(), key=lambda way: (-overview.shapes[way[0][1]], way[1]))
    yield from new([index for _, index in ways])
    yield from new(overview.troubled)
    yield from new(selection.indices)
