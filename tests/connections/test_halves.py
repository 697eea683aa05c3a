"""Assigning segments in one process and following in another: the same tables as in one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.connections import Connections, pairs
from examples import examples
from segment_rows import CAPTURES, captured, fed, soups


def handed_over(item):
    return pickle.loads(pickle.dumps(item))


def followed(segments, size, scratch=False):
    """Return connections fed in two halves, with nothing in common but what is handed over."""
    assigning, following = Connections(scratch=scratch), Connections(scratch=scratch)
    for first in range(0, len(segments), size):
        batch = assigning.assign(segments.take(np.arange(first, min(first + size, len(segments)))))
        following.follow(handed_over(batch))
    for part in assigning.parts():
        following.join(handed_over(part))
    return following


def assert_equal(found, expected):
    assert found.copies == expected.copies
    for name, table in expected.tables.items():
        assert len(found.tables[name]) == len(table), name
        for column in table.declared():
            ours, theirs = getattr(found.tables[name], column), getattr(table, column)
            assert np.array_equal(ours, theirs), f"{name}.{column}"
    everything = np.arange(len(expected))
    assert list(found.conversations(everything)) == list(expected.conversations(everything))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_capture_is_the_same(path):
    segments = captured(path)
    for size in (7, 100_000):
        assert_equal(followed(segments, size), fed(segments, size))


@pytest.mark.parametrize("part", [1, 5, 1 << 16])
def test_random_rows_are_the_same_however_they_are_handed_over(part, monkeypatch):
    monkeypatch.setattr(pairs, "PART", part)

    @examples(50)
    @given(soups(), st.integers(1, 20))
    def property_holds(segments, size):
        assert_equal(followed(segments, size), fed(segments, size))

    property_holds()


def test_so_are_columns_on_disk(monkeypatch):
    from closeseq.connections import state

    monkeypatch.setattr(state, "LARGE_BYTES", 4096)
    for path in CAPTURES[::5]:
        assert_equal(followed(captured(path), 40, scratch=True), fed(captured(path), 40))


def test_nothing_more_can_be_fed_afterwards():
    segments = captured(CAPTURES[0])
    with pytest.raises(AssertionError):
        followed(segments, 40).feed(segments)


def test_nothing_of_a_batch_may_count():
    found = Connections()
    found.follow(found.assign(captured(CAPTURES[0]).take(np.arange(0))))
    assert len(found) == 0
