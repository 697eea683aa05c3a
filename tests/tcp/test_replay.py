"""Whole conversations, from a script to both endpoints' states."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.connections.conversation import End, Event, Traffic
from closeseq.script import conversation
from closeseq.settings import SECOND, Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.states import TRANSITIONS, State
from closeseq.tcp.timeline import Certainty

CLOSED, LISTEN, SYN_SENT, SYN_RECEIVED = State.CLOSED, State.LISTEN, State.SYN_SENT, State.SYN_RECEIVED
ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2 = State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2
CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT = State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK, State.TIME_WAIT

CASES = {
    "nobody answers": ("C:S C:S* C:S*", SYN_SENT, LISTEN),
    "nobody listens": ("C:S S:RA", CLOSED, CLOSED),
    "half a handshake": ("C:S S:SA", ESTABLISHED, SYN_RECEIVED),
    "a scanner resets": ("C:S S:SA C:R", CLOSED, CLOSED),
    "open": ("C:S S:SA C:A ~", ESTABLISHED, ESTABLISHED),
    "the client's SYN was not captured": ("(C:S) S:SA C:A ~", ESTABLISHED, ESTABLISHED),
    "the SYN+ACK was not captured": ("C:S (S:SA) C:A ~", ESTABLISHED, ESTABLISHED),
    "SYNs cross": ("C:S|S:S C:SA|S:SA ~", ESTABLISHED, ESTABLISHED),
    "client closes first": ("C:S S:SA C:A C:FA S:A S:FA C:A", TIME_WAIT, CLOSED),
    "server closes first": ("C:S S:SA C:A S:FA C:A C:FA S:A", CLOSED, TIME_WAIT),
    "ACK and FIN in one": ("C:S S:SA C:A S:FA C:FA S:A", CLOSED, TIME_WAIT),
    "FIN with data": ("C:S S:SA C:A C:FA+100 S:A S:FA+100 C:A", TIME_WAIT, CLOSED),
    "FINs cross": ("C:S S:SA C:A C:FA|S:FA C:A|S:A", TIME_WAIT, TIME_WAIT),
    "FINs cross, one unacknowledged": ("C:S S:SA C:A C:FA|S:FA C:A", CLOSING, TIME_WAIT),
    "server never closes": ("C:S S:SA C:A C:FA S:A", FIN_WAIT_2, CLOSE_WAIT),
    "half-close with data": ("C:S S:SA C:A C:FA S:A S:A+1000 C:A S:FA C:A", TIME_WAIT, CLOSED),
    "FIN not yet answered": ("C:S S:SA C:A C:FA", FIN_WAIT_1, CLOSE_WAIT),
    "FIN never answered": ("C:S S:SA C:A C:FA! +0.2s C:FA*! +0.4s C:FA*!", FIN_WAIT_1, ESTABLISHED),
    "last ACK missing": ("C:S S:SA C:A C:FA S:A S:FA", TIME_WAIT, LAST_ACK),
    "client aborts": ("C:S S:SA C:A ~ C:RA", CLOSED, CLOSED),
    "server aborts after the client's FIN": ("C:S S:SA C:A C:FA S:A S:RA", CLOSED, CLOSED),
    "data after close": ("C:S S:SA C:A C:FA S:A S:A+10 C:R", CLOSED, CLOSED),
    "begins in the middle": ("C:A+10 S:A", ESTABLISHED, ESTABLISHED),
    "begins in the middle and closes": ("C:A+10 S:A+10 C:FA S:A S:FA C:A", TIME_WAIT, CLOSED),
}


def run(script: str, *, after: float = 0.0, timers: Timers | None = None, **options):
    told = conversation(script, **options)
    return replay(told, timers or Timers(), told.last_ns + round(after * SECOND))


@pytest.mark.parametrize(("script", "client", "server"), CASES.values(), ids=CASES)
def test_how_it_ends(script, client, server):
    timeline = run(script)
    assert (timeline.state(End.CLIENT), timeline.state(End.SERVER)) == (client, server)


def path(timeline, end: End) -> list[State]:
    return [timeline.first_state(end), *(t.after for t in timeline.transitions if t.endpoint is end)]


def test_a_fin_that_acknowledges_a_fin_leads_through_fin_wait_2_on_one_packet():
    timeline = run("C:S S:SA C:A S:FA C:FA S:A")
    assert path(timeline, End.SERVER)[-3:] == [FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT]
    assert len({t.packet for t in timeline.transitions if t.after in (FIN_WAIT_2, TIME_WAIT)}) == 1


def test_a_fin_that_does_not_leads_to_closing():
    timeline = run("C:S S:SA C:A C:FA|S:FA C:A|S:A")
    assert path(timeline, End.CLIENT)[-3:] == [FIN_WAIT_1, CLOSING, TIME_WAIT]
    assert path(timeline, End.SERVER)[-3:] == [FIN_WAIT_1, CLOSING, TIME_WAIT]


def test_a_simultaneous_open_goes_through_syn_received_at_both_ends():
    timeline = run("C:S|S:S C:SA|S:SA ~")
    assert path(timeline, End.CLIENT) == [CLOSED, SYN_SENT, SYN_RECEIVED, ESTABLISHED]
    assert path(timeline, End.SERVER) == [CLOSED, SYN_SENT, SYN_RECEIVED, ESTABLISHED]


def test_a_fin_that_overtakes_data_counts_when_the_hole_is_filled():
    timeline = run("C:S S:SA C:A C:A+100! C:FA S:A +0.2s C:A+100* S:A")
    received = next(t for t in timeline.transitions if t.after is CLOSE_WAIT)
    filled = next(s for s in timeline.steps if s.time > 0.2)
    assert received.time_ns >= filled.time_ns
    assert timeline.steps[-1].server is CLOSE_WAIT


def test_what_an_endpoint_sends_is_observed_and_what_it_received_is_proved_by_its_ack():
    timeline = run("C:S S:SA C:A ~ C:FA S:A +1s S:FA C:A", timestamps=True)
    certainty = {t.after: t.certainty for t in timeline.transitions}
    assert certainty[FIN_WAIT_1] is Certainty.OBSERVED
    assert certainty[CLOSE_WAIT] is Certainty.PROVED
    assert certainty[LAST_ACK] is Certainty.OBSERVED
    assert certainty[TIME_WAIT] is Certainty.PROVED
    assert certainty[CLOSED] is Certainty.ASSUMED  # nobody acknowledges the last ACK


def test_time_wait_ends_by_its_timer_and_says_when_it_will():
    script = "C:S S:SA C:A C:FA S:A S:FA C:A"
    early, late = run(script, after=59), run(script, after=61)
    assert early.state(End.CLIENT) is TIME_WAIT
    assert early.expiries[End.CLIENT] == early.steps[-2].time_ns + 60 * SECOND
    assert late.state(End.CLIENT) is CLOSED
    assert late.transitions[-1].certainty is Certainty.TIMER
    assert late.transitions[-1].packet is None


def test_time_wait_lasts_as_long_as_the_system_has_it():
    script = "C:S S:SA C:A C:FA S:A S:FA C:A"
    assert run(script, after=45, timers=Timers.of("macos")).state(End.CLIENT) is CLOSED
    assert run(script, after=90, timers=Timers.of("windows")).state(End.CLIENT) is TIME_WAIT


def test_a_repeated_fin_starts_2msl_again():
    timeline = run("C:S S:SA C:A C:FA S:A S:FA C:A! +30s S:FA* C:A", after=50)
    assert timeline.state(End.CLIENT) is TIME_WAIT


def test_fin_wait_2_of_a_program_that_has_gone_runs_out():
    script = "C:S S:SA C:A C:FA S:A"
    assert run(script, after=59).state(End.CLIENT) is FIN_WAIT_2
    assert run(script, after=61).state(End.CLIENT) is CLOSED


def test_fin_wait_2_of_a_program_that_still_reads_does_not():
    assert run("C:S S:SA C:A C:FA S:A S:A+100 C:A", after=600).state(End.CLIENT) is FIN_WAIT_2


def test_fin_wait_2_did_not_run_out_if_the_end_speaks_later():
    timeline = run("C:S S:SA C:A C:FA S:A +100s S:FA C:A")
    assert State.CLOSED not in [t.after for t in timeline.transitions if t.endpoint is End.CLIENT]


def test_a_new_syn_ends_time_wait():
    timeline = run("C:S S:SA C:A C:FA S:A S:FA C:A +1s C:S S:SA C:A")
    assert timeline.conversation.successor is not None
    assert timeline.state(End.CLIENT) is CLOSED


def test_without_a_beginning_both_endpoints_start_unknown():
    timeline = run("C:A+10 S:A")
    assert timeline.first_state(End.CLIENT) is State.UNKNOWN
    assert timeline.transitions[0].certainty is Certainty.ASSUMED


def test_a_capture_that_begins_at_the_first_fin_knows_who_closed_first():
    timeline = run("C:FA S:A S:FA C:A")
    assert path(timeline, End.CLIENT)[2:] == [FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT]
    assert path(timeline, End.SERVER)[2:] == [CLOSE_WAIT, LAST_ACK, CLOSED]


def test_a_lone_fin_may_be_the_second_one_so_its_state_is_assumed():
    timeline = run("C:FA S:A")
    sent = next(t for t in timeline.transitions if t.after is FIN_WAIT_1)
    assert sent.certainty is Certainty.ASSUMED


def test_a_state_that_ran_out_does_not_come_back_in_the_steps():
    timeline = run("C:S S:SA C:A C:FA S:A +100s S:A+10 C:R")
    late = [s for s in timeline if s.time > 90]
    assert late
    assert {s.client for s in late} == {CLOSED}


def test_transitions_follow_each_other_and_agree_with_the_table():
    for script, *_ in CASES.values():
        timeline = run(script, after=200)
        times = [t.time_ns for t in timeline.transitions]
        assert times == sorted(times)
        for end in End:
            states = path(timeline, end)
            for before, after in pairwise(states):
                assert after in TRANSITIONS[before].values()


WORDS = st.sampled_from(
    [f"{end}:{flags}{mark}" for end in "CS" for flags in ("S", "SA", "A", "A+50", "FA", "FA+9", "R", "RA")
     for mark in ("", "!", "?")] + ["~", "+0.3s", "+70s"]
)  # fmt: skip
SCRIPTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


def events_of(script: str):
    from closeseq.errors import ScriptError

    try:
        return conversation(script)
    except ScriptError:
        return None


def mirrored(told):
    """The same conversation with both endpoints' names exchanged."""

    def other(step):
        if isinstance(step, Event):
            return replace(step, sender=step.sender.peer)
        return Traffic(client=step.server, server=step.client)

    return replace(told, client=told.server, server=told.client, steps=tuple(other(s) for s in told.steps))


@given(SCRIPTS)
def test_any_script_replays_without_an_exception(script):
    told = events_of(script)
    if told is not None:
        for wait in (0, 2, 100):
            replay(told, Timers(), told.last_ns + wait * SECOND)


@given(SCRIPTS)
def test_the_machine_does_not_know_who_is_client(script):
    told = events_of(script)
    if told is None or told.opener != "inferred":  # the first states differ where the opening was seen
        return
    one = replay(told, Timers(), told.last_ns)
    two = replay(mirrored(told), Timers(), told.last_ns)
    assert [(s.client, s.server) for s in one] == [(s.server, s.client) for s in two]


@given(SCRIPTS, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_initial_numbers_change_nothing(script, client, server):
    told = events_of(script)
    if told is None:
        return
    shifted = conversation(script, numbers=(client, server))
    one, two = (replay(c, Timers(), c.last_ns) for c in (told, shifted))
    assert [(s.client, s.server, s.note) for s in one] == [(s.client, s.server, s.note) for s in two]
