"""Tables that grow: what was written stays, and all else is what the columns declare."""

from __future__ import annotations

import numpy as np

from closeseq.connections.state import ColumnTable, column


class Made(ColumnTable):
    plain: np.ndarray = column(np.int64)
    wide: np.ndarray = column(np.uint32, 7, width=2)


def test_rows_keep_what_was_written_and_the_others_are_as_declared():
    """Also where only few parts of a column hold anything but zero."""
    made, plain, wide = Made(), np.zeros(0, np.int64), np.zeros((0, 2), np.uint32)
    chance = np.random.default_rng(3)
    for count in (1, 300, 20_000, 50, 90_000):
        given = np.zeros(count, np.int64)
        made.grow(count, plain=given)
        plain, wide = np.append(plain, given), np.append(wide, np.full((count, 2), 7, np.uint32), axis=0)
        place = int(chance.integers(len(made)))
        made.plain[place] = plain[place] = place + 1
        made.wide[place, 1] = wide[place, 1] = 0
        assert (made.plain == plain).all()
        assert (made.wide == wide).all()


def test_rows_after_some_were_let_go_are_as_declared():
    made = Made()
    made.grow(1000, plain=np.arange(1000), wide=np.ones((1000, 2)))
    made.keep(np.arange(0, 1000, 2))
    made.grow(700)
    assert made.plain.tolist() == [*range(0, 1000, 2), *[0] * 700]
    assert made.wide.tolist() == [*[[1, 1]] * 500, *[[7, 7]] * 700]
