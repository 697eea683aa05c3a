"""The plain reading stands until something in this very connection speaks against it.

What is ordinary on some system, or on any path, beside the opposite case with the same look, which must
still be found.
"""

from __future__ import annotations

import pytest

from closeseq.connection import Connection
from closeseq.connections.conversation import End, Position
from closeseq.packets.segments import ACK, FIN, PSH, RST, SYN
from closeseq.script import conversation
from closeseq.settings import SECOND, Settings
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty
from segment_rows import A as CLIENT
from segment_rows import B as SERVER
from segment_rows import columns, fed, row

OPEN = "C:S S:SA C:A ~ "
PLAIN = (Certainty.OBSERVED, Certainty.PROVED)


def judged(script: str, *, after: float = 0.0, **options) -> Connection:
    told = conversation(script, **options)
    return Connection(told, Settings(), told.last_ns + round(after * SECOND))


def of_rows(rows, *, after: float = 0.0) -> Connection:
    """Return the last connection of rows given by hand."""
    connections = fed(columns(rows))
    told = connections.conversation(len(connections) - 1)
    return Connection(told, Settings(), told.last_ns + round(after * SECOND))


def c(flags, seq, ack=0, **other):
    return row(CLIENT, SERVER, flags, seq, ack, **other)


def s(flags, seq, ack=0, **other):
    return row(SERVER, CLIENT, flags, seq, ack, **other)


def codes(connection: Connection) -> set[str]:
    return {finding.code for finding in connection.findings}


def the(connection: Connection, code: str):
    (found,) = (finding for finding in connection.findings if finding.code == code)
    return found


def states(connection: Connection, end: End) -> list[State]:
    return [t.after for t in connection.timeline.transitions if t.endpoint is end]


# --- PSH on a FIN


@pytest.mark.parametrize("system", ["windows", "macos", "bsd"])
def test_psh_on_a_fin_means_nothing_where_every_fin_has_it(system):
    told = judged(OPEN + "+1s C:FA S:A +50ms S:FPA C:A", system=system, timestamps=True)
    assert (told.verdict, told.initiator) == ("graceful", "client")
    assert State.CLOSE_WAIT in states(told, End.SERVER)


def test_psh_on_a_fin_of_linux_tells_that_its_probe_timer_sent_it():
    told = judged("C:S S:SA C:A ~ +1s S:FA? +0.1s C:FA S:A? S:FA*? +0.2s S:FPA* C:A")
    assert (told.verdict, told.initiator) == ("simultaneous", "both")
    assert states(told, End.SERVER)[2:4] == [State.FIN_WAIT_1, State.CLOSING]


# --- ACK and FIN of one end within microseconds


@pytest.mark.parametrize("gap_ns", [0, 5_000, 20_000, 80_000])
def test_a_fin_right_behind_the_ack_of_the_peers_is_a_passive_close(gap_ns):
    told = judged(OPEN + "+1s C:FA S:A S:FA C:A", gap_ns=gap_ns)
    assert (told.verdict, told.initiator) == ("graceful", "client")


def test_a_fin_that_had_been_tried_before_the_peers_came_is_none():
    told = judged("C:S S:SA C:A +1s S:FA? C:FA S:FA* C:A", gap_ns=5_000)
    assert states(told, End.SERVER)[2:4] == [State.FIN_WAIT_1, State.CLOSING]


def test_nor_is_one_that_a_closed_window_had_kept():
    told = judged(OPEN + "C:A/0 +1s C:FA S:A S:FA C:A", gap_ns=5_000)
    assert State.CLOSING in states(told, End.SERVER)


# --- keepalives of a connection that began before the capture


def test_a_keepalive_and_its_answer_are_no_close():
    told = judged("C:K S:A +75s C:K S:A", after=75)
    assert told.verdict == "open"
    assert not any(finding.code.startswith("stuck") for finding in told.findings)
    assert "acknowledges" not in the(told, "capture-incomplete").summary


def test_a_fin_that_the_capture_missed_still_shows():
    told = judged(OPEN + "(C:FA) S:A +0.1s S:FA C:A")
    assert (told.verdict, told.initiator) == ("graceful", "client")
    assert the(told, "capture-incomplete").endpoint is End.CLIENT


# --- FINs that cross


def test_a_fin_that_is_sent_again_as_an_acknowledgement_was_not_lost():
    told = judged(OPEN + "+30ms C:FA|S:FA +30ms C:FA* S:A", system="macos")
    assert told.verdict == "simultaneous"
    assert "fin-lost" not in codes(told)
    assert [told.client.state, told.server.state] == [State.TIME_WAIT, State.TIME_WAIT]


def test_an_ack_that_echoes_the_first_fin_leaves_nobody_in_closing():
    told = judged(OPEN + "+30ms C:FA|S:FA +30ms C:FA*|S:A", after=99, system="macos", timestamps=True)
    assert told.verdict == "simultaneous"
    assert codes(told) <= {"bind-blocked"}


def test_a_fin_that_really_was_lost_when_they_crossed_is_found():
    told = judged("C:S +20ms S:SA C:A ~ +30ms C:FA!|S:FA +20ms C:A +0.3s S:A+0 C:FA* +20ms S:A")
    assert the(told, "fin-lost").endpoint is End.CLIENT


# --- SACK


def test_data_was_lost_where_a_sack_block_covers_the_fin():
    told = judged(OPEN + "C:A+100! C:FA S:A +0.2s C:A+100* S:A")
    fin = next(step for step in told.timeline if "F" in step.flags)
    assert fin.arrived is Arrival.PROVED
    assert "fills the hole" in fin.note
    assert "fin-lost" not in codes(told)


def test_a_fin_that_is_asked_for_was_lost():
    told = judged(OPEN + "C:FA! +0.2s S:A+10 C:A +0.2s C:FA* S:A S:FA C:A")
    assert the(told, "fin-lost").certainty is Certainty.PROVED


# --- RSTs that answer


def test_a_rst_with_the_number_that_a_fin_asked_for_shows_that_it_arrived():
    told = judged(OPEN + "C:FA S:R")
    fin = next(step for step in told.timeline if "F" in step.flags)
    assert fin.arrived is Arrival.PROVED


def test_a_rst_with_another_number_shows_nothing_of_the_fin():
    told = judged(OPEN + "C:FA S:RA")
    fin = next(step for step in told.timeline if "F" in step.flags)
    assert fin.arrived is not Arrival.PROVED


# --- a server that drops the ACKs of its SYN while its accept queue is full


def test_a_server_that_answers_in_the_traffic_after_dropped_acks_has_left_the_handshake():
    told = judged("C:S S:SA C:A! C:PA+100! +1s S:SA C:A! +1s C:PA+100* S:A", timestamps=True)
    assert told.server.state is State.ESTABLISHED
    answer = told.conversation.steps[-1].server.first_ns
    assert told.timeline.state(End.SERVER, answer - 1) is State.SYN_RECEIVED


# --- what belongs to an older connection, or to none

HANDSHAKE = [c(SYN, 1000), s(SYN | ACK, 9000, 1001), c(ACK, 1001, 9001)]
EXCHANGE = [c(ACK | PSH, 1001, 9001, length=10), s(ACK, 9001, 1011)]
SERVER_CLOSES = [
    s(FIN | ACK, 9001, 1011), c(ACK, 1011, 9002), c(FIN | ACK, 1011, 9002), s(ACK, 9002, 1012),
]  # fmt: skip
OLDER = [c(SYN, 1000), s(ACK, 777_000, 555_000), c(RST, 555_000)]


def test_a_challenge_to_the_syn_is_no_part_of_the_connection_that_follows():
    told = of_rows([*OLDER, *HANDSHAKE, *EXCHANGE, *SERVER_CLOSES])
    assert (told.verdict, told.initiator) == ("graceful", "server")
    assert told.server.state is State.TIME_WAIT
    assert "capture-incomplete" not in codes(told)
    notes = {step.packet: step.note for step in told.timeline}
    assert "older connection" in notes[2]
    assert "older connection" in notes[3]


def test_a_rst_of_the_client_in_the_handshake_itself_ends_it():
    told = of_rows([c(SYN, 1000), s(SYN | ACK, 9000, 1001), c(RST, 1001)])
    assert told.verdict == "aborted-open"


def test_a_fin_without_ack_is_dropped():
    told = of_rows([c(SYN, 1000), c(FIN, 1500), *HANDSHAKE[1:], *EXCHANGE, *SERVER_CLOSES])
    assert (told.verdict, told.initiator) == ("graceful", "server")
    assert "half-close" not in codes(told)
    assert {step.what.position for step in told.timeline if step.flags == "F"} == {Position.OUTSIDE}


@pytest.mark.parametrize(
    ("ahead", "options"),
    [(1 << 30 | 70_000, 0x24813), (100_000, 0x2)],
    ids=["any window", "a window that is not scaled"],
)
def test_a_fin_outside_the_window_is_no_part_of_the_connection(ahead, options):
    rows = [
        c(SYN, 1000, syn_options=options), s(SYN | ACK, 9000, 1001, syn_options=options), HANDSHAKE[2],
        s(FIN | ACK, 9001 + ahead, 1001), *EXCHANGE, s(ACK | PSH, 9001, 1011, length=20), c(ACK, 1011, 9021),
    ]  # fmt: skip
    told = of_rows(rows)
    assert told.verdict == "open"
    assert codes(told) == set()
    assert [told.client.state, told.server.state] == [State.ESTABLISHED, State.ESTABLISHED]


def test_a_fin_within_the_window_is_one_though_data_is_missing_before_it():
    rows = [*HANDSHAKE, *EXCHANGE, s(FIN | ACK, 9001 + 1000, 1011), c(ACK, 1011, 9001)]
    told = of_rows(rows)
    assert (told.verdict, told.initiator) == ("closing", "server")


# --- what was not captured


def test_nothing_is_stuck_in_a_direction_that_was_not_captured():
    told = judged("C:S (S:SA) C:A C:A+100 (S:A) C:FA (S:A) (S:FA) C:A", after=99)
    assert not any(finding.code.startswith("stuck") for finding in told.findings)
    assert "what the server did was not captured" in told.summary


def test_an_endpoint_whose_peer_was_captured_and_falls_silent_is_stuck():
    told = judged(OPEN + "C:FA S:A", after=99)
    assert the(told, "stuck-close-wait").endpoint is End.SERVER


def test_a_fin_that_is_neither_acknowledged_nor_repeated_is_stuck_by_assumption_at_most():
    told = judged(OPEN + "C:FA", after=99)
    stuck = the(told, "stuck-fin-wait-1")
    assert stuck.certainty is Certainty.ASSUMED
    assert "what followed was not captured" in stuck.summary


def test_a_fin_that_is_repeated_in_vain_is_stuck_for_sure():
    told = judged(OPEN + "C:FA! +30s C:FA*! +60s C:FA*!", after=20)
    assert the(told, "stuck-fin-wait-1").certainty is Certainty.OBSERVED


# --- Fast Open (RFC 7413)


def test_a_syn_with_data_is_refused_by_a_rst_that_acknowledges_the_syn_alone():
    told = of_rows([c(SYN, 1000, length=100), s(RST | ACK, 0, 1001)])
    assert told.verdict == "refused"
    assert told.client.state is State.CLOSED


def test_a_rst_that_acknowledges_nothing_of_the_syn_refuses_nothing():
    told = of_rows([c(SYN, 1000, length=100), s(RST | ACK, 0, 1000)])
    assert told.client.state is State.SYN_SENT


@pytest.mark.parametrize(
    ("script", "client", "server"),
    [
        ("C:S+100 S:SA C:A C:FA S:FA C:A", State.TIME_WAIT, State.CLOSED),
        ("C:S+100 S:SA S:A+10 C:A S:FA C:FA S:A", State.CLOSED, State.TIME_WAIT),
        ("C:S+100 S:SA S:A+10 S:FA C:A C:FA S:A", State.CLOSED, State.TIME_WAIT),
        ("C:S+100 S:SA S:FA C:A", State.CLOSE_WAIT, State.FIN_WAIT_2),
    ],
    ids=["the client closes", "the server answers early", "and closes in SYN_RECEIVED", "at once"],
)
def test_a_connection_that_begins_with_data_closes_like_any_other(script, client, server):
    told = judged(script)
    assert [told.client.state, told.server.state] == [client, server]


def test_a_server_that_closes_before_the_handshake_ends_goes_from_syn_received_to_fin_wait_1():
    told = judged("C:S+100 S:SA S:FA C:A")
    (closes,) = (t for t in told.timeline.transitions if t.after is State.FIN_WAIT_1)
    assert (closes.endpoint, closes.before) == (End.SERVER, State.SYN_RECEIVED)
    assert closes.certainty in PLAIN


def test_data_of_a_syn_that_is_not_acknowledged_is_sent_again():
    rows = [
        c(SYN, 1000, length=100), s(SYN | ACK, 9000, 1001), c(ACK | PSH, 1001, 9001, length=100),
        s(ACK, 9001, 1101), c(FIN | ACK, 1101, 9001), s(FIN | ACK, 9001, 1102), c(ACK, 1102, 9002),
    ]  # fmt: skip
    told = of_rows(rows)
    assert (told.verdict, told.initiator) == ("graceful", "client")
    assert codes(told) <= {"three-segment-close"}
