"""Forgetting: what stays is as if nothing had been forgotten."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from closeseq.connections import Connections
from closeseq.script import segments
from examples import examples
from segment_rows import CAPTURES, captured, joined, soups

OPEN = "C:S S:SA C:A "


def shifted(script, seconds, client_port):
    """Return a script's segments so much later, from another port."""
    given = segments(script, start_ns=1_700_000_000 * 10**9 + round(seconds * 1e9))
    for name in ("src_port", "dst_port"):
        column = getattr(given, name)
        column[column == 40000] = client_port
    return given


def looked_at(connections):
    return {one.id: one for one in map(connections.conversation, range(len(connections)))}


def test_forgotten_connections_are_gone_and_the_others_keep_their_numbers():
    connections = Connections()
    for port in range(5):
        connections.feed(shifted(OPEN, port, 50_000 + port))
    stays = connections.forget(np.array([True, False, True, False, True]))
    assert stays.tolist() == [0, 2, 4]
    assert {i: one.client.port for i, one in looked_at(connections).items()} == {
        1: 50_000,
        3: 50_002,
        5: 50_004,
    }


def test_a_new_connection_after_forgetting_gets_the_next_number():
    connections = Connections()
    connections.feed(shifted(OPEN, 0, 50_000))
    connections.forget(np.array([False]))
    connections.feed(shifted(OPEN, 1, 50_001))
    assert list(looked_at(connections)) == [2]


def test_the_earlier_connections_of_a_pair_are_forgotten_with_its_newest():
    connections = Connections()
    connections.feed(segments(f"{OPEN} C:FA S:FA C:A +70s {OPEN}"))
    assert connections.forget(np.array([True, False])).tolist() == []


def test_a_copy_of_a_packet_before_the_forgetting_is_still_known():
    connections = Connections()
    rows = joined([shifted(OPEN, 0, 50_000), shifted(OPEN, 0.1, 50_001)])
    connections.feed(rows)
    connections.forget(np.array([False, True]))
    again = rows.take([len(rows) - 1])
    again.time_ns[:] += 100_000
    connections.feed(again)
    assert looked_at(connections)[2].copies == 1
    assert connections.copies == 1


@examples(30)
@given(soups(), st.integers(1, 12), st.lists(st.integers(0, 3), min_size=1, max_size=8), st.data())
def test_what_stays_goes_on_as_if_nothing_had_been_forgotten(rows, size, choices, data):
    """Only connections of pairs that send nothing more are forgotten, as a watch does with what is over."""
    whole, some = Connections(ports=frozenset({80})), Connections(ports=frozenset({80}))
    batches = [rows.take(slice(first, first + size)) for first in range(0, len(rows), size)]
    of_batches = list(map(pairs, batches))
    whole.feed(rows)
    for place, batch in enumerate(batches):
        some.feed(batch)
        if choices[place % len(choices)]:
            continue
        later = set().union(*of_batches[place + 1 :])
        mask = [
            frozenset((one.client, one.server)) in later or data.draw(st.booleans())
            for one in map(some.conversation, range(len(some)))
        ]
        some.forget(np.array(mask, np.bool_))
    expected = looked_at(whole)
    for number, one in looked_at(some).items():
        # How many others an end talks to, which the guess of the client looks at, goes with the forgotten.
        if one.opener == "seen" and expected[number].opener == "seen":
            assert one.steps == expected[number].steps


def pairs(rows):
    fed = Connections()
    fed.feed(rows)
    return {frozenset((one.client, one.server)) for one in map(fed.conversation, range(len(fed)))}


def test_skeletons_of_some_connections_are_those_of_all():
    connections = Connections()
    connections.feed(joined([captured(path) for path in CAPTURES]))
    among = np.arange(0, len(connections), 2)
    whole = {one.key: one.connection[one.connection % 2 == 0].tolist() for one in connections.skeletons()}
    some = {one.key: one.connection.tolist() for one in connections.skeletons(among)}
    assert some == {key: members for key, members in whole.items() if members}
