"""Numbers that note: any computation goes the same way wherever what it noted comes out alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.classes.evaluation import LEAST, MOST, Columns, OneRow, Sums
from closeseq.classes.forms import NOW, Forms
from closeseq.classes.numbers import Number, Scaled, Tape
from closeseq.classes.shadows import greatest, least, shadowed, shadows, whole
from closeseq.classes.tree import ReplayResult, Tree
from closeseq.connections.skeleton import Leaf
from closeseq.units import span
from closeseq.verdict.findings import stuck
from examples import examples


class Table:
    """Rows of numbers, in place of the connections of a skeleton."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def column(self, leaf):
        return np.array([row[leaf.place] for row in self.rows], np.int64)

    def value(self, leaf, row):
        return self.rows[row][leaf.place]


def run(program, numbers):
    """Run a program; return all that it decided and the way it went."""
    stack, way = list(numbers), []
    for name, a, b, constant in program:
        x, y = stack[a % len(stack)], stack[b % len(stack)]
        if name in STEPS:
            stack.append(STEPS[name](x, y, constant))
        else:
            way.append(QUESTIONS[name](x, y, constant))
            if way[-1] is True:  # what comes next depends on it
                stack.append(x - y)
    return way


def keyed(x, y, _):
    """Use numbers as keys, as a cache does, and a set."""
    cache = {x: "x"}
    cache.setdefault(y, "y")
    return cache[x], cache[y], len({x, y, x + 1})


STEPS = {
    "add": lambda x, y, _: x + y,
    "subtract": lambda x, y, _: x - y,
    "shift": lambda x, _, c: c - x,
    "times": lambda x, _, c: x * (c % 7 - 3),
    "opposite": lambda x, *_: -x,
    "size": lambda x, *_: abs(x),
    "mask": lambda x, _, c: x & (c & 0xFFFF),
    "wrap": lambda x, y, _: ((x - y + (1 << 31)) & 0xFFFFFFFF) - (1 << 31),
    "rest": lambda x, _, c: x % (abs(c) % 1000 + 1),
    "part": lambda x, _, c: x // (abs(c) % 1000 + 1),
    "least": lambda x, y, _: least(x, y),
    "greatest": lambda x, y, c: greatest([x, y, c]),
    "patience": lambda x, *_: whole(x * 2.5),
}
QUESTIONS = {
    "less": lambda x, y, _: x < y,
    "at most": lambda x, y, _: x <= y,
    "more": lambda x, _, c: x > c,
    "at least": lambda x, y, _: x >= y,
    "equal": lambda x, y, _: x == y,
    "unequal": lambda x, _, c: x != c,
    "any": lambda x, *_: bool(x),
    "longer": lambda x, y, _: y - x < x * 2.5,
    "tuples": lambda x, y, c: (x, c) < (y, 3),
    "real": lambda x, _, c: (x < c + 0.5, x <= c - 0.5, x > c / 8, x >= 1e300, x == float(c), x == 0.5),
    "order": lambda x, y, c: [int(one > c) for one in sorted([x, y])],
    "key": keyed,
    "index": lambda x, *_: 1 << whole(x % 5).__index__(),
    "range": lambda x, *_: len(range(x % 3)),
}
constants = st.sampled_from([0, 1, 2, 3, -1, 7, 60 * 10**9, 1 << 32, 1 << 62])
programs = st.lists(
    st.tuples(
        st.sampled_from([*STEPS, *QUESTIONS, *QUESTIONS]), st.integers(0, 9), st.integers(0, 9), constants
    ),
    min_size=1,
    max_size=12,
)
small, times = st.integers(-3, 6), st.integers(1_700_000_000 * 10**9, 1_700_000_090 * 10**9)
values = st.one_of(small, small, times, st.sampled_from([LEAST, MOST, 1 << 53, (1 << 53) + 1, 1 << 61]))
tables = st.lists(st.tuples(values, values, values), min_size=2, max_size=16)


@examples(400)
@given(programs, tables, st.booleans())
def test_rows_for_which_all_that_was_noted_comes_out_alike_go_the_same_way(program, rows, kept):
    forms, tree, ways = Forms(), Tree(), []
    for half in (rows[: len(rows) // 2], rows) if kept else (rows,):
        columns, result = Columns(forms, Table(half), {}), ReplayResult(len(half))

        def learn(parted, half=half):
            tape = Tape(forms)
            row = half[int(parted.rows[0])]
            numbers = [
                Number(value, forms.leaf(Leaf(place, "x")), 0, tape) for place, value in enumerate(row)
            ]
            ways.append(run(program, numbers))
            assert tree.fits(parted, tape.conditions)
            return tree.grow(parted, tape.conditions, len(ways) - 1)

        tree.follow(columns, result, learn)
        for row, path in zip(half, result.path.tolist(), strict=True):
            assert run(program, row) == ways[path]
        assert_sums(columns, forms, half)
    assert len(ways) <= len(rows)


def assert_sums(columns, forms, rows):
    """Compare forms that are computed at once with each by itself."""
    parts = [(form, constant) for form in range(len(forms)) for constant in (0, -5, MOST)]
    found = columns.sums(Sums(forms, parts), np.arange(len(rows)))
    for row, values in enumerate(found.tolist()):
        one = OneRow(columns, row)
        assert values == [one.form(form) + constant for form, constant in parts]


def test_what_follows_from_what_was_noted_is_not_noted_again():
    tape = Tape(Forms())
    a, b = (Number(value, tape.forms.leaf(Leaf(place, "x")), 0, tape) for place, value in enumerate((5, 9)))
    assert a < b
    assert a < b + 1
    assert not a > b
    assert not b <= a
    assert a != b
    assert b - a >= 1
    assert len(tape.conditions) == 1
    assert b - a > 2
    assert len(tape.conditions) == 2


def test_packets_of_different_steps_are_in_order_without_looking():
    tape = Tape(Forms())
    first, last, event = (
        Number(value, tape.forms.leaf(Leaf(place, name, 0)), 0, tape)
        for value, place, name in ((3, 1, "first_number"), (5, 1, "last_number"), (6, 2, "number"))
    )
    assert len({first, last, event}) == 3
    assert sorted([event, last, first])[2] is event
    assert {condition.form for condition in tape.conditions} == {tape.forms.subtract(first.form, last.form)}


def test_which_of_two_is_least_is_asked_late():
    tape = Tape(Forms())
    a, b, c = (Number(v, tape.forms.leaf(Leaf(p, "x")), 0, tape) for p, v in enumerate((5, 9, 1)))
    found = least(a + 2, b)
    assert found.value == 7
    assert found <= b
    assert not tape.conditions
    assert found > c
    assert len(tape.conditions) == 1
    assert least([a]) is a
    assert least(3, 2) == 2
    assert greatest([], default=4) == 4
    assert least([(a, 1), (b, 0)]) == (a, 1)


def filled(text, wording):
    """Return a text with what its numbers are put into the holes."""
    parts = []
    for piece in wording.pieces(text):
        given = [] if isinstance(piece, str) else [getattr(one, "value", one) for one in piece.given]
        parts.append(piece if isinstance(piece, str) else piece.how(*given))
    return "".join(parts)


def test_texts_note_nothing_and_show_no_number():
    tape = Tape(Forms())
    a = Number(61 * 10**9, tape.forms.leaf(Leaf(0, "x")), 0, tape)
    with shadowed():
        told = f"{stuck.span(a)}, {a:,}, {a}"
    assert stuck.span is span
    assert "61" not in told
    assert filled(told, tape.wording) == "61 s, 61,000,000,000, 61000000000"
    assert not tape.conditions


def test_what_stands_in_for_builtins_does_the_same_for_plain_numbers():
    assert least(2, 1) == min(2, 1)
    assert greatest([3, 9], key=lambda one: -one) == 3
    assert whole("7") == 7
    assert whole(2.5) == 2
    assert type(whole(True)) is int
    assert isinstance(3, whole)
    assert not isinstance(3.5, whole)
    for _, mine, own in shadows():
        assert mine.keys() == own.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a < "1",
        lambda a: a << 0.5,
        lambda a: a.bit_length(),
        lambda a: hash(a * 2.5),
        lambda a: a**2,
    ],
)
def test_what_is_not_written_down_is_an_error(wrong):
    tape = Tape(Forms())
    with pytest.raises((TypeError, AttributeError)):
        wrong(Number(5, tape.forms.leaf(Leaf(0, "x")), 0, tape))


def test_a_number_times_a_float_is_exact_or_its_very_value():
    tape = Tape(Forms())
    a, huge = (Number(v, tape.forms.leaf(Leaf(p, "x")), 0, tape) for p, v in enumerate((3, 1 << 60)))
    assert isinstance(a * 2.5, Scaled)
    assert a * 2.5 > 7
    assert a * 2.5 < 8
    assert whole(a * 2.5) + 0 == 7
    assert whole(a * -2.5) + 0 == -7
    assert huge * 0.1 == (1 << 60) * 0.1


def test_when_time_changes_a_condition_is_computed():
    forms, tree = Forms(), Tree()
    rows = [(100,), (160,), (185,)]
    columns, result = Columns(forms, Table(rows), {NOW: 200}), ReplayResult(len(rows))

    def learn(parted):
        tape = Tape(forms)
        now = Number(200, forms.leaf(NOW), 0, tape)
        since = Number(rows[int(parted.rows[0])][0], forms.leaf(Leaf(0, "x")), 0, tape)
        return tree.grow(parted, tape.conditions, int(now - since >= 50))

    tree.follow(columns, result, learn)
    assert result.holds_ns.tolist() == [np.iinfo(np.int64).max, 10, 35]
