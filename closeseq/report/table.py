"""The table: one line a connection; columns that do not fit are left out, or rows are stacked."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from closeseq.report.containment import bare_row, contained
from closeseq.report.selection import troubles
from closeseq.units import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.report.selection import Selection
    from closeseq.report.text import Style

HEADERS = (
    "id",
    "client",
    "server",
    "verdict",
    "closed by",
    "client state",
    "server state",
    "lasted",
    "problems",
)
RIGHT = ("id", "lasted")
DISPENSABLE = ("lasted", "closed by")
PAGE = 10_000  # rows whose columns are fitted together; a capture may have a million connections


def table(selection: Selection, style: Style) -> Iterator[str]:
    """Yield the lines of the table; nothing when there is no connection.

    Args:
        selection: the connections that are asked for.
        style: how text may look: width, colours, ASCII only.
    """
    rows = selection.drawn(lambda connection: contained(connection, lambda one: row(one, style), bare_row))
    columns: list[int] = []
    while page := list(islice(rows, PAGE)):
        columns = columns or fitting(page, style)
        if not columns:
            yield from (line for cells in page for line in stacked(cells, style))
            continue
        yield from _fitted([[cells[i] for i in columns] for cells in page], columns, style)


def fitting(page: list[tuple[str, ...]], style: Style) -> list[int]:
    """Return the columns to show, by number: in a narrow terminal without the dispensable ones.

    Empty if the others do not fit either: then each connection gets lines of its own.

    Args:
        page: the cells of HEADERS, one tuple a connection; at least one.
        style: its width is to be kept.
    """
    widths = [
        max(len(HEADERS[i]), *(len(_plain(cells[i])) for cells in page)) + 2 for i in range(len(HEADERS))
    ]
    columns = list(range(len(HEADERS)))
    for dispensable in DISPENSABLE:
        if sum(widths[i] for i in columns) - 2 > style.width:
            columns.remove(HEADERS.index(dispensable))
    return columns if sum(widths[i] for i in columns) - 2 <= style.width else []


def stacked(cells: tuple[str, ...], style: Style) -> Iterator[str]:
    """Yield the lines of one connection where a row does not fit: addresses, verdict, states, problems.

    Args:
        cells: those of HEADERS.
        style: how text may look: width, colours, ASCII only.
    """
    said = dict(zip(HEADERS, (_plain(cell) for cell in cells), strict=True))
    first = f"{said['client']} {style.to} {said['server']}"
    yield from (
        style.paint(line, "heading") for line in style.wrap(first, first=f"#{said['id']}  ", then="    ")
    )
    closed = f"{said['verdict']}, closed by {said['closed by']}, lasted {said['lasted']}"
    yield from style.wrap(closed, first="    ")
    yield from style.wrap(f"client {said['client state']}, server {said['server state']}", first="    ")
    if said["problems"]:
        yield from (style.paint(line, "problem") for line in style.wrap(said["problems"], first="    "))


def _plain(cell: str) -> str:
    return cell.split("m", 1)[1].removesuffix("\x1b[0m") if cell.startswith("\x1b[") else cell


def row(connection: Connection, style: Style) -> tuple[str, ...]:
    """Return the cells of one connection, those of HEADERS.

    Args:
        connection: judged.
        style: the verdict and the problems may be coloured.
    """
    problems = dict.fromkeys(finding.code for finding in troubles(connection))
    return (
        str(connection.id),
        str(connection.conversation.client),
        str(connection.conversation.server),
        style.paint(connection.verdict, "good") if connection.verdict == "graceful" else connection.verdict,
        str(connection.initiator),
        str(connection.client.state),
        str(connection.server.state),
        span(connection.conversation.last_ns - connection.conversation.first_ns),
        style.paint(" ".join(problems), "problem"),
    )


def _fitted(page: list[list[str]], columns: list[int], style: Style) -> list[str]:
    from tabulate import tabulate  # costs 50 ms, and only tables need it

    headers = [HEADERS[i] for i in columns]
    align = ["right" if header in RIGHT else "left" for header in headers]
    text = tabulate(page, headers, tablefmt="plain", colalign=align, disable_numparse=True)
    lines = text.split("\n")
    return [style.paint(lines[0], "heading"), *(line.rstrip() for line in lines[1:])]
