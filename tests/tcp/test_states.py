"""The transition table: total, closed, and the same for both ends."""

from __future__ import annotations

import pytest

from closeseq.tcp.states import _IGNORED, IGNORED, TRANSITIONS, Signal, State, follow

S, E = State, Signal

# RFC 9293 3.3.2, figure 5, and 3.10.7, as (state, signal, state).
FIGURE = [
    (S.CLOSED, E.SENDS_SYN, S.SYN_SENT),
    (S.LISTEN, E.RECEIVES_SYN, S.SYN_RECEIVED),
    (S.SYN_SENT, E.RECEIVES_SYN, S.SYN_RECEIVED),
    (S.SYN_SENT, E.RECEIVES_SYN_ACK, S.ESTABLISHED),
    (S.SYN_RECEIVED, E.RECEIVES_ACK_OF_SYN, S.ESTABLISHED),
    (S.SYN_RECEIVED, E.SENDS_FIN, S.FIN_WAIT_1),
    (S.ESTABLISHED, E.SENDS_FIN, S.FIN_WAIT_1),
    (S.ESTABLISHED, E.RECEIVES_FIN, S.CLOSE_WAIT),
    (S.FIN_WAIT_1, E.RECEIVES_ACK_OF_FIN, S.FIN_WAIT_2),
    (S.FIN_WAIT_1, E.RECEIVES_FIN, S.CLOSING),
    (S.FIN_WAIT_2, E.RECEIVES_FIN, S.TIME_WAIT),
    (S.CLOSING, E.RECEIVES_ACK_OF_FIN, S.TIME_WAIT),
    (S.CLOSE_WAIT, E.SENDS_FIN, S.LAST_ACK),
    (S.LAST_ACK, E.RECEIVES_ACK_OF_FIN, S.CLOSED),
    (S.TIME_WAIT, E.CLOCK_RAN_OUT, S.CLOSED),
    (S.TIME_WAIT, E.RECEIVES_FIN, S.TIME_WAIT),
]


@pytest.mark.parametrize(("before", "signal", "after"), FIGURE)
def test_the_table_has_every_arrow_of_the_rfcs_figure(before, signal, after):
    assert follow(before, signal) is after


def test_the_table_is_total_over_the_states():
    assert set(TRANSITIONS) == set(State)


PAIRS = [(state, signal) for state in State for signal in Signal]

# No end sends its SYN twice as a signal, and none is told of its peer's when it knows it (tcp/replay.py).
IMPOSSIBLE = {
    (S.SYN_SENT, E.SENDS_SYN),
    (S.UNKNOWN, E.RECEIVES_SYN_ACK),
    (S.UNKNOWN, E.RECEIVES_ACK_OF_SYN),
    *(
        (state, signal)
        for state in set(State) - {S.CLOSED, S.LISTEN, S.SYN_SENT, S.UNKNOWN}
        for signal in (E.SENDS_SYN, E.RECEIVES_SYN, E.RECEIVES_SYN_ACK)
    ),
}


def test_each_pair_is_in_the_table_or_ignored_or_impossible_and_only_one_of_these():
    table = {(state, signal) for state, signal in PAIRS if signal in TRANSITIONS[state]}
    ignored = {(state, signal) for state, signal in PAIRS if signal in IGNORED[state]}
    assert not table & ignored
    assert set(PAIRS) - table - ignored == IMPOSSIBLE


def test_what_is_ignored_changes_nothing_and_has_a_reason():
    assert set(IGNORED) == set(State)
    for state, row in IGNORED.items():
        for signal, why in row.items():
            assert follow(state, signal) is state
            assert len(why) > 20


def test_no_pair_is_ignored_for_two_reasons():
    listed = [(state, signal) for states, signals, _ in _IGNORED for state in states for signal in signals]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(("state", "signal"), sorted(IMPOSSIBLE))
def test_a_pair_that_cannot_come_is_an_error_of_our_own(state, signal):
    with pytest.raises(AssertionError, match="cannot come"):
        follow(state, signal)


@pytest.mark.parametrize("state", [s for s in State if s not in (S.CLOSED, S.LISTEN)])
def test_a_reset_ends_every_state_of_a_connection(state):
    assert follow(state, E.RECEIVES_RST) is S.CLOSED
    assert follow(state, E.SENDS_RST) is S.CLOSED


def test_a_reset_does_nothing_to_a_listener():
    assert follow(S.LISTEN, E.RECEIVES_RST) is S.LISTEN


def test_nothing_but_a_segment_of_its_own_or_a_clock_brings_a_closed_end_back():
    assert set(TRANSITIONS[S.CLOSED]) == {E.SENDS_SYN}


def test_every_state_but_unknown_can_be_reached_from_the_start():
    reached, todo = set(), [S.CLOSED, S.LISTEN]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += TRANSITIONS[state].values()
    assert reached == set(State) - {S.UNKNOWN}


def test_a_state_is_spelled_as_the_user_reads_it():
    assert str(S.FIN_WAIT_2) == "FIN_WAIT_2"
