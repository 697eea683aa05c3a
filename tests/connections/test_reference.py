"""Two roads, one answer: the columns against tests/support/reference.py, in batches of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from closeseq.connections import Connections, shape
from examples import examples
from segment_rows import CAPTURES, at_once, captured, conversations, fed, joined, soups


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_captures_give_what_the_reference_gives(path):
    segments = captured(path)
    expected = reference.conversations(segments)
    for size in (7, 100_000):
        assert conversations(segments, size) == expected


def test_all_captures_at_once_one_row_at_a_time_give_what_the_reference_gives():
    segments = joined([captured(path) for path in CAPTURES[::4]])
    assert conversations(segments, 1) == reference.conversations(segments)


PORTS = st.sampled_from([frozenset(), frozenset({80}), frozenset({80, 1000})])


@examples(75)
@given(soups(), st.integers(1, 20), PORTS)
def test_random_rows_in_random_batches_give_what_the_reference_gives(segments, size, ports):
    expected = reference.conversations(segments, ports)
    connections = fed(segments, size, ports)
    assert [connections.conversation(index) for index in range(len(connections))] == expected
    assert list(connections.conversations(np.arange(len(connections)))) == expected  # made at once
    assert conversations(segments, ports=ports) == expected


def test_all_captures_made_at_once_give_what_the_reference_gives():
    segments = joined([captured(path) for path in CAPTURES])
    expected = reference.conversations(segments)
    made = at_once(segments)
    assert made == expected
    assert repr(made) == repr(expected)  # True is not 1 here, nor 1.0


@examples(50)
@given(soups())
def test_the_shape_is_made_of_the_major_events_of_the_reference(segments):
    assert [shape(one) for one in conversations(segments)] == reference.shapes(segments)


@examples(30)
@given(soups(most=20), st.integers(1, 8))
def test_connections_can_be_looked_at_between_batches(segments, size):
    connections = Connections()
    for first in range(0, len(segments), size):
        connections.feed(segments.take(slice(first, first + size)))
        expected = reference.conversations(segments.take(slice(0, first + size)))
        assert [connections.conversation(index) for index in range(len(connections))] == expected
