"""RFC 9293's state diagram (figure 5), drawn from the transition table.

Where the states stand, and which way a line goes from one to the next, is data here. Which lines there are,
and what is written beside them, comes from the table (tcp/states.py): a transition without a line, or a line
without a transition, is an error. What every state has in common, RST above all, stands in words below.
"""

from __future__ import annotations

from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from closeseq.tcp.states import ANSWERS, TRANSITIONS, Signal, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Table = Mapping[State, Mapping[Signal, State]]
    Point = tuple[int, int]  # column and row

WIDTH = 80  # columns
HEADING = "The states of an endpoint (RFC 9293, figure 5). Beside each line: signal / answer."

# Left side and top of each state's box. CLOSED has two: a connection begins in one and ends in the other.
BOXES: dict[State, tuple[Point, ...]] = {
    State.LISTEN: ((7, 2),),
    State.CLOSED: ((61, 2), (63, 32)),
    State.SYN_RECEIVED: ((4, 8),),
    State.SYN_SENT: ((60, 8),),
    State.ESTABLISHED: ((33, 14),),
    State.FIN_WAIT_1: ((5, 20),),
    State.CLOSE_WAIT: ((59, 20),),
    State.FIN_WAIT_2: ((5, 26),),
    State.CLOSING: ((35, 26),),
    State.LAST_ACK: ((60, 26),),
    State.TIME_WAIT: ((34, 32),),
}


class Label(NamedTuple):
    """Where the text of one signal stands."""

    column: int  # of its first character, from 0
    row: int  # of its first line, from 0, the top
    width: int = 24  # columns


class Line(NamedTuple):
    """The way from one state to another: points in turn, and a label for each signal that goes this way."""

    points: tuple[Point, ...]
    labels: tuple[Label, ...]


LINES: dict[tuple[State, State], Line] = {
    (State.LISTEN, State.SYN_RECEIVED): Line(((12, 5), (12, 7)), (Label(14, 6),)),
    (State.LISTEN, State.SYN_SENT): Line(((17, 3), (56, 3), (56, 6), (62, 6), (62, 7)), (Label(32, 2),)),
    (State.CLOSED, State.SYN_SENT): Line(((66, 5), (66, 7)), (Label(68, 6),)),
    (State.SYN_SENT, State.SYN_RECEIVED): Line(((59, 9), (20, 9)), (Label(29, 8),)),
    (State.SYN_SENT, State.ESTABLISHED): Line(((66, 11), (66, 12), (43, 12), (43, 13)), (Label(43, 11),)),
    (State.SYN_RECEIVED, State.ESTABLISHED): Line(((15, 11), (15, 12), (37, 12), (37, 13)), (Label(17, 11),)),
    (State.SYN_RECEIVED, State.FIN_WAIT_1): Line(((8, 11), (8, 19)), (Label(10, 15),)),
    # Round the outside, so that no two lines cross.
    (State.SYN_RECEIVED, State.CLOSE_WAIT): Line(
        ((3, 9), (1, 9), (1, 0), (78, 0), (78, 21), (73, 21)), (Label(3, 1),)
    ),
    (State.ESTABLISHED, State.FIN_WAIT_1): Line(((37, 17), (37, 18), (15, 18), (15, 19)), (Label(22, 17),)),
    (State.ESTABLISHED, State.CLOSE_WAIT): Line(((43, 17), (43, 18), (66, 18), (66, 19)), (Label(45, 17),)),
    (State.FIN_WAIT_1, State.FIN_WAIT_2): Line(((12, 23), (12, 25)), (Label(14, 24),)),
    (State.FIN_WAIT_1, State.CLOSING): Line(((19, 21), (40, 21), (40, 25)), (Label(20, 20),)),
    (State.CLOSE_WAIT, State.LAST_ACK): Line(((66, 23), (66, 25)), (Label(68, 24),)),
    (State.FIN_WAIT_2, State.TIME_WAIT): Line(((12, 29), (12, 33), (33, 33)), (Label(14, 32),)),
    (State.FIN_WAIT_2, State.CLOSED): Line(((7, 29), (7, 40), (66, 40), (66, 35)), (Label(9, 39),)),
    (State.CLOSING, State.TIME_WAIT): Line(((40, 29), (40, 31)), (Label(42, 30),)),
    (State.LAST_ACK, State.CLOSED): Line(((66, 29), (66, 31)), (Label(68, 29, 12),)),
    (State.TIME_WAIT, State.TIME_WAIT): Line(((37, 35), (37, 36), (43, 36), (43, 35)), (Label(18, 36),)),
    (State.TIME_WAIT, State.CLOSED): Line(((47, 33), (62, 33)), (Label(48, 32), Label(48, 34, 13))),
}
HEADS = {(1, 0): ">", (-1, 0): "<", (0, 1): "v", (0, -1): "^"}
IN_WORDS = (Signal.SENDS_RST, Signal.RECEIVES_RST)  # they end nearly every state


def diagram(table: Table = TRANSITIONS) -> Iterator[str]:
    """Yield the lines of the diagram, of at most `WIDTH` columns.

    Args:
        table: the transitions to draw.

    Raises:
        ValueError: the table has a transition that the drawing has no place for, or the other way round.
    """
    ways = ways_between(table)
    if ways.keys() != LINES.keys():
        odd = sorted(f"{before} to {after}" for before, after in ways.keys() ^ LINES.keys())
        raise ValueError(f"the drawing and the table differ: {', '.join(odd)}")
    canvas = Canvas()
    for state, places in BOXES.items():
        for column, row in places:
            canvas.box(column, row, state)
    for way, line in LINES.items():
        canvas.line(line.points)
        if len(ways[way]) != len(line.labels):
            raise ValueError(f"the drawing has no place for all signals from {way[0]} to {way[1]}")
        for signal, label in zip(ways[way], line.labels, strict=True):
            for row, text in enumerate(wrap(label_of(signal), label.width), label.row):
                canvas.write(label.column, row, text)
    yield from wrap(HEADING, WIDTH)
    yield ""
    yield from canvas.rows()
    yield ""
    yield from in_words(table)
    yield f"{State.UNKNOWN}: the capture began in the middle of the connection."


def label_of(signal: Signal) -> str:
    """Return what is written beside a line: the signal, and what an endpoint sends in answer to it."""
    return f"{signal} / {ANSWERS[signal]}" if signal in ANSWERS else str(signal)


def ways_between(table: Table) -> dict[tuple[State, State], list[Signal]]:
    """Return the signals that lead from one state to another, for those transitions that are drawn."""
    found: dict[tuple[State, State], list[Signal]] = {}
    for before, row in table.items():
        for signal, after in row.items():
            if before is not State.UNKNOWN and signal not in IN_WORDS:
                found.setdefault((before, after), []).append(signal)
    return found


def in_words(table: Table) -> Iterator[str]:
    """Yield a line for each group of transitions that is not drawn."""
    for signal in IN_WORDS:
        for after in State:
            states = [state for state in State if table[state].get(signal) is after]
            others = [str(state) for state in State if state not in states]
            if len(states) > len(others):
                yield f"{label_of(signal)}: every state but {' and '.join(others)} -> {after}"
            elif states:
                yield f"{label_of(signal)}: {' and '.join(map(str, states))} -> {after}"
    for signal, after in table[State.UNKNOWN].items():
        if signal not in IN_WORDS:
            yield f"{label_of(signal)}: {State.UNKNOWN} -> {after}"


class Canvas:
    """Characters by row and column; nothing is written over."""

    def __init__(self) -> None:
        self._cells: dict[Point, str] = {}

    def write(self, column: int, row: int, text: str) -> None:
        """Write a text from one cell on to the right.

        Args:
            column: of the first character, from 0.
            row: from 0, the top.
            text: of one line.

        Raises:
            ValueError: a cell is beyond WIDTH, or is written already.
        """
        for at, character in enumerate(text, column):
            if at >= WIDTH or (at, row) in self._cells:
                raise ValueError(f"{text!r} has no room in column {at} of row {row}")
            self._cells[at, row] = character

    def box(self, column: int, row: int, name: str) -> None:
        """Draw a box of three rows round a name.

        Args:
            column: of its left side.
            row: of its top.
            name: what stands in it.

        Raises:
            ValueError: as in `write`.
        """
        edge = f"+{'-' * (len(name) + 2)}+"
        for down, text in enumerate((edge, f"| {name} |", edge)):
            self.write(column, row + down, text)

    def line(self, points: tuple[Point, ...]) -> None:
        """Draw a line from point to point, straight across or down, with a head at its end.

        Args:
            points: columns and rows; two in turn have one of both in common.

        Raises:
            ValueError: as in `write`.
        """
        direction = 0, 0
        for start, stop in pairwise(points):
            direction = _sign(stop[0] - start[0]), _sign(stop[1] - start[1])
            across = range(start[0], stop[0], direction[0]) if direction[0] else ()
            down = range(start[1], stop[1], direction[1]) if direction[1] else ()
            way = [(column, start[1]) for column in across] or [(start[0], row) for row in down]
            for column, row in way:
                corner = (column, row) == start != points[0]
                self.write(column, row, "+" if corner else "-" if direction[0] else "|")
        self.write(*points[-1], HEADS[direction])

    def rows(self) -> Iterator[str]:
        """Yield the rows, from the top, without blanks at their ends."""
        last = max(row for _, row in self._cells)
        for row in range(last + 1):
            yield "".join(self._cells.get((column, row), " ") for column in range(WIDTH)).rstrip()


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
