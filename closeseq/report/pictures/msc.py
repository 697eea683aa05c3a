"""The ladder as a message sequence chart for mscgen, with each state in its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.pictures.ladder import closing_lines, pauses
from closeseq.report.pictures.palette import LIGHT, PROBLEM
from closeseq.tcp.timeline import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.report.pictures.ladder import Ladder, Rung, StateChange

COLUMN = {End.CLIENT: "client_states", End.SERVER: "server_states"}  # outside, clear of the arrows
ARCS = {Arrival.PROVED: "=>", Arrival.ASSUMED: ">>", Arrival.NO: "-x", None: "=>"}


def msc(ladder: Ladder) -> str:
    """Return one chart; a file for mscgen holds no more than one."""
    rows = [f"--- {_label(f'#{ladder.number} {ladder.title}')}", f"||| {_label(ladder.began)}"]
    rows += _boxes([(end, str(state), LIGHT[state].fill) for end, state in ladder.first.items()])
    arrows: list[tuple[int, Rung]] = []  # with the rows in which they begin
    for rung, pause in pauses(ladder):
        rows += [f"... {_label(pause)}"] if pause else []
        rows += _changes(rung.sent)
        arrows.append((len(rows), rung))
        rows.append("" if rung.sender is not None else f"||| {_label(rung.text)}")
        rows += _changes(rung.received)
    for index, (row, rung) in enumerate(arrows):
        if rung.sender is not None:
            rows[row] = _arrow(rung, arrows[index + rung.lands][0] - row)
    rows += [
        f"{COLUMN[End.CLIENT]} note {COLUMN[End.SERVER]} {_label(line)}" for line in closing_lines(ladder)
    ]
    ends = [f"{end} {_label(f'{end} {ladder.address(end)}')}" for end in End]
    columns = [f"{name} {_label('', linecolour='#ffffff')}" for name in COLUMN.values()]
    entities = ", ".join([columns[0], *ends, columns[1]])
    head = 'msc {\n  width="1200", arcgradient="8", wordwraparcs="1";\n'
    return head + "".join(f"  {row};\n" for row in (entities, *rows)) + "}\n"


def quoted(text: str) -> str:
    r"""Return a text in quotes: mscgen knows `\"` and breaks lines at `\n`; a backslash it cannot print."""
    return '"{}"'.format(text.replace("\\", "/").replace('"', '\\"'))


def _label(text: str, **others: str) -> str:
    """Return the attributes of a row."""
    given = {"label": text} | others
    return f"[{', '.join(f'{name}={quoted(value)}' for name, value in given.items())}]"


def _arrow(rung: Rung, rows: int) -> str:
    """Return the arrow of a segment; one that crossed others falls so many rows."""
    text = f"#{rung.packet} {rung.flags}, {rung.numbers}{f' - {rung.remark}' if rung.remark else ''}"
    others = {"arcskip": str(rows)} if rows else {}
    others |= {"linecolour": PROBLEM["light"]} if rung.rst or rung.arrived is Arrival.NO else {}
    assert rung.sender is not None
    return f"{rung.sender} {ARCS[rung.arrived]} {rung.sender.peer} {_label(text, **others)}"


def _changes(changes: Sequence[StateChange]) -> Iterator[str]:
    return _boxes([(one.end, one.name, LIGHT[one.state].fill) for one in changes])


def _boxes(states: Sequence[tuple[End, str, str]]) -> Iterator[str]:
    """Yield a row for each state; one row where the next state is the other endpoint's."""
    waiting: list[str] = []
    before: End | None = None
    for end, name, fill in states:
        if waiting and (len(waiting) > 1 or before is end):
            yield ", ".join(waiting)
            waiting = []
        waiting.append(f"{COLUMN[end]} rbox {COLUMN[end]} {_label(name, textbgcolour=fill)}")
        before = end
    if waiting:
        yield ", ".join(waiting)
