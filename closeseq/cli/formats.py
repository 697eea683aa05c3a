"""The six formats of a report: pieces of text for one capture after the other."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import TYPE_CHECKING

from closeseq.report.contained import bare_lines, contained
from closeseq.report.records import SCHEMA, csv_header, csv_lines, json_object, jsonl
from closeseq.report.summary import summary, title
from closeseq.report.table import table
from closeseq.report.timeline import format_timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.report.selection import Selection
    from closeseq.report.text import Style


def pieces(
    form: str, selections: Iterable[Selection], style: Style, *, most: int | None, several: bool
) -> Iterator[str]:
    """Yield the report on captures in one of options.FORMATS.

    Args:
        form: the format.
        selections: what is to be shown of each capture, as they are read one after the other.
        style: how text may look.
        most: of how many problem connections, or timelines; None for all.
        several: whether more than one capture was asked for, whatever became of them.
    """
    if form == "json":
        yield from _json(selections, several=several)
    elif form == "jsonl":
        yield from chain.from_iterable(map(jsonl, selections))
    elif form == "csv":
        yield csv_header()
        yield from chain.from_iterable(map(csv_lines, selections))
    else:
        yield from _text(form, selections, style, most=most, several=several)


def _json(selections: Iterable[Selection], *, several: bool) -> Iterator[str]:
    if not several:
        for selection in selections:
            yield from json_object(selection)
            yield "\n"
        return
    yield f'{{"schema": {json.dumps(SCHEMA)}, "captures": ['
    between = "\n"
    for selection in selections:
        yield between
        yield from json_object(selection)
        between = ",\n"
    yield "\n]}\n"


def _text(
    form: str, selections: Iterable[Selection], style: Style, *, most: int | None, several: bool
) -> Iterator[str]:
    between = ""
    for selection in selections:
        yield between
        between = "\n"
        if several and form != "summary":
            yield style.paint(title(selection.analysis.reading), "heading") + "\n\n"
        for line in _lines(form, selection, style, most):
            yield line + "\n"


def _lines(form: str, selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    if form == "summary":
        return summary(selection, style, most)
    return table(selection, style) if form == "table" else timelines(selection, style, most)


def timelines(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield the timelines of the selected connections; of too many those with a problem first."""
    number = len(selection)
    named = bool(selection.wanted.ids)
    some = most is not None and number > most and not named
    chosen = first_of(selection, most) if some and most is not None else [selection.indices]

    def draw(connection: Connection) -> str:
        return contained(
            connection,
            lambda one: format_timeline(one, width=style.width, ascii=style.ascii, color=style.color),
            lambda one: "\n".join(bare_lines(one, style)),
        ).removesuffix("\n")

    for index, text in enumerate(chain.from_iterable(selection.analysis.drawn(draw, one) for one in chosen)):
        if index:
            yield ""
        yield text
    if most is not None and number > most and not named:
        yield ""
        rest = (
            f"{number - most:,} more of {number:,} connections are not shown, those with a problem come first"
        )
        yield from style.wrap(f"{rest}: --all shows every one, --connection ID one of them")


def first_of(selection: Selection, most: int) -> list[Sequence[int]]:
    """Return which connections to show of too many: those with a problem, then others as they come."""
    problems = selection.problems()[:most]
    shown = set(problems)
    others = (index for index in selection.indices if index not in shown)
    return [problems, list(islice(others, most - len(problems)))]
