"""The findings of the open: on scripts that give them, beside those alike that must not."""

from __future__ import annotations

import pytest

from closeseq.connection import Connection
from closeseq.connections.conversation import End
from closeseq.packets.segments import ACK, RST, SYN
from closeseq.script import conversations
from closeseq.settings import SECOND, Limits, Settings, Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.timeline import Certainty
from closeseq.verdict import Severity, judge
from segment_rows import A as CLIENT
from segment_rows import B as SERVER
from segment_rows import columns, fed, row
from verdict_examples import OPEN, codes, judged, the


def without_timestamps(script: str):
    """Judge a script whose endpoints send no timestamps."""
    (told,) = conversations(script)
    return judge(replay(told, Timers(), told.last_ns), Limits())


# --- slow-open -------------------------------------------------------------------------------------------


def test_a_syn_that_had_to_be_sent_again_opened_slowly():
    finding = the(judged("C:S! +1s C:S*! +2s C:S* S:SA C:A ~"), "slow-open")
    assert (finding.endpoint, finding.severity) == (End.CLIENT, Severity.NOTICE)
    assert finding.packets == (1, 2, 3, 4)
    assert (
        "sent its SYN 3 times (#1 #2 #3) before the server 198.51.100.2:80 answered (#4), 3 s"
        in finding.summary
    )


def test_a_syn_ack_that_was_lost_is_told_from_a_syn_that_was():
    finding = the(judged("C:S S:SA! +1s C:S* S:SA C:A ~"), "slow-open")
    assert "although the server 198.51.100.2:80 had answered (#2)" in finding.summary


@pytest.mark.parametrize(
    "script",
    [
        "C:S +0.3s S:SA C:A ~",  # a long way
        "C:S C:S* S:SA C:A ~",  # too soon for a retransmission
        "C:S! +1s C:S*! +2s C:S*!",  # never answered
        "C:S! +1s C:S* S:RA",  # refused
        "C:S S:SA C:A ~ +1s C:S* S:A",  # a copy that comes late
        "C:S|S:S +1s C:S*|S:S* C:SA|S:SA",  # both open
        OPEN,
    ],
)
def test_an_open_that_was_not_slow(script):
    assert "slow-open" not in codes(judged(script))


# --- accept-queue-full -----------------------------------------------------------------------------------

QUEUE_FULL = "C:S S:SA C:A C:PA+100! +1s S:SA C:A +2s S:SA C:A"


def test_the_echo_shows_that_the_ack_had_arrived_before_syn_ack_was_sent_again():
    finding = the(judged(QUEUE_FULL), "accept-queue-full")
    assert (finding.endpoint, finding.severity) == (End.SERVER, Severity.PROBLEM)
    assert finding.certainty is Certainty.ASSUMED
    assert "(#5 #7) although the client had sent 3 segments (ACK #3, data #4)" in finding.summary
    assert "#5 echoes a timestamp that is later than the SYN's" in finding.summary
    assert "sport = :80" in finding.advice


def test_an_echo_of_the_syn_shows_nothing_since_linux_does_not_keep_that_of_a_dropped_ack():
    finding = the(judged("C:S S:SA C:A! C:PA+100! +1s S:SA C:A! +2s S:SA C:A"), "accept-queue-full")
    assert "unless all were lost after they were captured near the server" in finding.summary


def test_without_timestamps_the_ack_and_data_must_both_have_passed_near_the_server():
    assert "accept-queue-full" in codes(
        without_timestamps(QUEUE_FULL.replace("C:A C:PA", "+5ms C:A C:PA", 1))
    )
    far = QUEUE_FULL.replace("S:SA", "+5ms S:SA", 1)
    assert "accept-queue-full" not in codes(without_timestamps(far))


def test_without_data_the_program_may_wait_for_it():
    finding = the(judged("C:S S:SA C:A +1s S:SA C:A ~"), "accept-queue-full")
    assert finding.severity is Severity.NOTICE
    assert "TCP_DEFER_ACCEPT" in finding.summary
    assert "accept-queue-full" not in codes(without_timestamps("C:S S:SA C:A +1s S:SA C:A ~"))


@pytest.mark.parametrize(
    "script",
    [
        "C:S S:SA C:A! +1s S:SA C:A ~",  # one segment may be lost
        "C:S +5ms S:SA C:A! C:PA+100! +1s S:SA C:A C:PA+100* S:A",  # so may all, on the way to the server
        "C:S S:SA! +1s S:SA C:A ~",
        "C:S! +1s C:S* S:SA C:A ~",
        OPEN,
    ],
)
def test_what_was_lost_on_the_path_fills_no_queue(script):
    assert "accept-queue-full" not in codes(judged(script))


def test_a_rst_that_answers_the_last_ack_of_the_handshake():
    finding = the(judged("C:S S:SA C:A S:R"), "accept-queue-full")
    assert finding.packets == (3, 4)
    assert "tcp_abort_on_overflow" in finding.summary


@pytest.mark.parametrize(
    "script",
    [
        "C:S S:SA C:A S:RA",  # its program aborts
        "C:S S:SA C:A +1s S:R",  # too late for an answer
        "C:S S:SA C:R",  # a scan
        "C:S S:SA C:A C:RA S:R",  # the client was first
        "C:S S:RA",
        OPEN + "S:R",  # it had taken the connection
        "C:S S:SA C:A S:FA C:A C:PA+10 S:R",
        "C:S S:SA C:A C:FA S:R",
    ],
)
def test_a_rst_for_another_reason(script):
    assert "accept-queue-full" not in codes(judged(script))


def test_an_open_that_is_not_complete_was_not_slow():
    # Found by enumerating conversations: it told how long the open had taken.
    assert "slow-open" not in codes(judged("C:S S:SA! +1s C:S* S:SA!"))


# --- never-accepted --------------------------------------------------------------------------------------

ASKED = "C:S S:SA C:A C:PA+100 S:A C:FA S:A"


def test_a_server_whose_kernel_took_everything_and_whose_program_never_sent_a_byte():
    judgement = judged(ASKED, wait=60)
    finding = the(judgement, "never-accepted")
    assert (finding.endpoint, finding.severity) == (End.SERVER, Severity.NOTICE)
    assert finding.certainty is Certainty.ASSUMED
    assert "acknowledged 100 bytes and the FIN (#6 #7) from the client, and in 60 s" in finding.summary
    assert the(judgement, "stuck-close-wait").severity is Severity.PROBLEM


@pytest.mark.parametrize(
    ("script", "wait"),
    [
        (ASKED, 59),  # it may still answer
        (OPEN + "C:FA S:A", 75),  # it has answered, and is only stuck
        ("C:S S:SA C:A C:FA S:A", 75),  # there was no request
        (ASKED + " +90s S:FA C:A", 0),  # it read to the end, and had nothing to say
        ("C:S S:SA C:A C:PA+100 S:A", 75),  # the request may go on
        ("C:S S:SA C:A C:PA+100! C:FA!", 75),  # nothing shows that it arrived
    ],
)
def test_a_server_that_may_have_accepted(script, wait):
    assert "never-accepted" not in codes(judged(script, wait=wait))


def test_never_accepted_cites_the_fin_that_arrived():
    # Found by enumerating conversations: it cited the first one, which was lost.
    judgement = judged("C:S S:SA C:A C:PA+100 S:A C:FA! +0.3s C:FA* S:A", wait=70)
    assert the(judgement, "never-accepted").packets == (7, 8)


# --- blocked-by-old-connection ---------------------------------------------------------------------------


def c(flags, seq, ack=0, **other):
    return row(CLIENT, SERVER, flags, seq, ack, **other)


def s(flags, seq, ack=0, **other):
    return row(SERVER, CLIENT, flags, seq, ack, **other)


def of_rows(*rows) -> Connection:
    connections = fed(columns(rows))
    told = connections.conversation(len(connections) - 1)
    return Connection(told, Settings(), told.last_ns + SECOND)


OLD = [c(SYN, 1000), s(ACK, 777_000, 555_000)]
HANDSHAKE = [c(SYN, 1000), s(SYN | ACK, 9000, 1001), c(ACK, 1001, 9001)]


def test_a_syn_that_is_answered_with_an_ack_of_an_older_connection():
    finding = the(of_rows(*OLD, c(RST, 555_000)), "blocked-by-old-connection")
    assert (finding.endpoint, finding.severity) == (End.SERVER, Severity.PROBLEM)
    assert finding.certainty is Certainty.PROVED
    assert finding.packets == (1, 2, 3)
    assert "the client's SYN (#1) with an ACK numbered in an older connection" in finding.summary
    assert "nothing has opened the new one" in finding.summary


def test_it_is_a_notice_where_the_connection_opened_in_the_end():
    finding = the(of_rows(*OLD, c(RST, 555_000), *HANDSHAKE), "blocked-by-old-connection")
    assert finding.severity is Severity.NOTICE
    assert "the new one opened" in finding.summary


def test_without_the_clients_rst_it_is_assumed():
    assert the(of_rows(*OLD, c(SYN, 1000)), "blocked-by-old-connection").certainty is Certainty.ASSUMED


def test_the_old_connection_names_the_syn_that_it_is_in_the_way_of():
    finding = the(judged(OPEN + "C:FA S:A +5s C:S"), "blocked-by-old-connection")
    assert (finding.severity, finding.certainty) == (Severity.NOTICE, Certainty.ASSUMED)
    assert "the server was still in CLOSE_WAIT when the client sent a SYN" in finding.summary
    assert "(#9)" in finding.summary


@pytest.mark.parametrize(
    "script",
    [
        OPEN + "C:FA S:A S:FA C:A +5s C:S",
        OPEN + "S:FA C:A C:FA S:A +5s C:S",  # TIME_WAIT takes a newer SYN
        OPEN + "C:FA S:A +5s S:S",
        OPEN + "C:RA C:S",
        OPEN + "C:FA S:A",
    ],
)
def test_an_old_connection_that_is_in_nobodys_way(script):
    assert "blocked-by-old-connection" not in codes(judged(script))


@pytest.mark.parametrize(
    "rows",
    [
        HANDSHAKE,
        [c(SYN, 1000), c(SYN, 1000)],
        [c(SYN, 1000), s(ACK, 9001, 1001)],  # its SYN ACK was not captured
        [*HANDSHAKE, c(SYN, 1000), s(ACK, 9001, 1001)],  # a challenge within this connection
        [c(SYN, 1000), s(RST | ACK, 0, 1001)],
    ],
)
def test_a_syn_that_nothing_old_answered(rows):
    assert "blocked-by-old-connection" not in codes(of_rows(*rows))
