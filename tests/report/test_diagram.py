"""The state diagram is the table: its lines are followed in the text, as a reader would."""

from __future__ import annotations

import re
from textwrap import wrap

import pytest
from click.testing import CliRunner

from closeseq.cli.main import cli
from closeseq.report.diagram import BOXES, IN_WORDS, LINES, WIDTH, diagram, label_of
from closeseq.tcp.states import TRANSITIONS, Signal, State

BACK = {">": (-1, 0), "<": (1, 0), "v": (0, -1), "^": (0, 1)}  # from an arrow's head to where it comes from
EDGES = {(before, signal, after) for before, row in TRANSITIONS.items() for signal, after in row.items()}
IN_TEXT = re.compile(r"(?P<label>.+?): (?P<states>.+) -> (?P<after>\w+)")


def drawing() -> list[str]:
    """Return the rows between the heading and the sentences below."""
    _, drawn, _ = "\n".join(diagram()).split("\n\n", 2)
    return [f"{row:{WIDTH}}" for row in drawn.split("\n")]


def boxes(rows: list[str]) -> dict[tuple[int, int], State]:
    """Return which state's box each cell belongs to; a box is a name between bars."""
    found = {}
    for y, row in enumerate(rows):
        for match in re.finditer(r"\| ([A-Z_12]+) \|", row):
            for below in (y - 1, y, y + 1):
                found |= {(x, below): State(match[1]) for x in range(match.start(), match.end())}
    return found


def arrows(rows: list[str]) -> list[tuple[State, State]]:
    """Follow each line from its head back to where it begins."""
    cells, found = boxes(rows), []
    for y, row in enumerate(rows):
        for match in re.finditer(r"(?<![a-z])[<>v^](?![a-z])", row):
            dx, dy = BACK[match[0]]
            x, at = match.start(), y
            after = cells[x - dx, at - dy]
            while (x + dx, at + dy) not in cells:
                x, at = x + dx, at + dy
                if rows[at][x] == "+":
                    dx, dy = turn(rows, x, at, dx, dy)
                assert rows[at][x] in "-|+"
            found.append((cells[x + dx, at + dy], after))
    return found


def turn(rows: list[str], x: int, y: int, dx: int, dy: int) -> tuple[int, int]:
    """Return where a line goes on behind a corner; there is one way only."""
    ways = [(0, 1), (0, -1)] if dx else [(1, 0), (-1, 0)]
    (way,) = [(a, b) for a, b in ways if 0 <= y + b < len(rows) and rows[y + b][x + a] == ("|" if b else "-")]
    return way


def test_the_lines_lead_from_state_to_state_as_the_table_does():
    drawn = {(before, after) for before, signal, after in EDGES if signal not in IN_WORDS}
    found = arrows(drawing())
    assert len(found) == len(set(found))
    assert set(found) == {way for way in drawn if way[0] is not State.UNKNOWN}


def without(text: str, row: str, column: int) -> str:
    """Return a row without a text that stands in this column."""
    assert row[column:].startswith(text)
    return row[:column] + " " * len(text) + row[column + len(text) :]


def test_every_line_has_its_signals_beside_it_and_no_other_word_is_drawn():
    rows = drawing()
    for (before, after), line in LINES.items():
        signals = [signal for signal, then in TRANSITIONS[before].items() if then is after]
        for signal, label in zip([s for s in signals if s not in IN_WORDS], line.labels, strict=True):
            for down, text in enumerate(wrap(label_of(signal), label.width), label.row):
                rows[down] = without(text, rows[down], label.column)
    for state, places in BOXES.items():
        for column, row in places:
            rows[row + 1] = without(state, rows[row + 1], column + 2)
    assert set("".join(rows)) <= set(" -|+<>v^")


def test_all_eleven_states_are_drawn():
    assert set(boxes(drawing()).values()) == set(State) - {State.UNKNOWN}


def test_what_is_not_drawn_stands_below_in_words():
    found = set()
    signals = {label_of(signal): signal for signal in Signal}
    for line in "\n".join(diagram()).split("\n\n", 2)[2].splitlines()[:-1]:
        match = IN_TEXT.fullmatch(line)
        names = match["states"].removeprefix("every state but ").split(" and ")
        states = {State(name) for name in names}
        if match["states"].startswith("every state but "):
            states = set(State) - states
        found |= {(state, signals[match["label"]], State(match["after"])) for state in states}
    assert found == {edge for edge in EDGES if edge[1] in IN_WORDS or edge[0] is State.UNKNOWN}


def test_it_fits_a_terminal_of_eighty_columns_and_is_plain_ascii():
    text = "\n".join(diagram())
    assert max(map(len, text.splitlines())) <= WIDTH == 80
    assert text.isascii()


@pytest.mark.parametrize(
    ("state", "signal", "after"),
    [
        (State.FIN_WAIT_1, Signal.RECEIVES_FIN, State.TIME_WAIT),
        (State.CLOSE_WAIT, Signal.RECEIVES_FIN, State.LAST_ACK),
        (State.TIME_WAIT, Signal.RECEIVES_SYN, State.CLOSED),
        (State.LISTEN, Signal.RECEIVES_SYN, None),
        (State.TIME_WAIT, Signal.CLOCK_RAN_OUT, None),
    ],
    ids=["another end", "a second signal", "a third signal", "a line less", "a signal less"],
)
def test_another_table_breaks_the_drawing(state, signal, after):
    table = {before: dict(row) for before, row in TRANSITIONS.items()}
    if after is None:
        del table[state][signal]
    else:
        table[state][signal] = after
    with pytest.raises(ValueError, match=r"table differ|no place"):
        list(diagram(table))


def test_another_rst_changes_the_words():
    table = {before: dict(row) for before, row in TRANSITIONS.items()}
    del table[State.TIME_WAIT][Signal.RECEIVES_RST]  # RFC 1337
    assert "received RST: every state but CLOSED and LISTEN and TIME_WAIT -> CLOSED" in diagram(table)


def test_explain_draws_it():
    shown = CliRunner().invoke(cli, ["explain", "diagram"])
    assert shown.exit_code == 0
    assert shown.output.splitlines() == list(diagram())


def test_explain_draws_it_among_words():
    shown = CliRunner().invoke(cli, ["explain", "CLOSING", "diagram"]).output
    assert shown.startswith("CLOSING")
    assert shown.endswith("\n".join(diagram()) + "\n")
