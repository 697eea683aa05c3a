"""The timeline as people see it: whole drawings, to be read as such."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from closeseq import from_script
from closeseq.connections.conversation import End, Opener, Position
from closeseq.report.timeline_text import format_timeline
from closeseq.verdict.model import Severity
from report_examples import (
    BEGAN,
    HANDSHAKE,
    close_wait,
    event,
    finding,
    line,
    lost_final_ack,
    made,
    ns,
    traffic,
)

LOST_FINAL_ACK = """\
#1  127.0.0.1:43286 → 127.0.0.1:19999  graceful: server closed first; final ACK lost once
    began 2026-11-20 12:18:06.194806 UTC, lasted 525 ms, 11 packets

             client :43286                      server :19999
   0.000000  SYN_SENT      ── SYN ───────────▶  LISTEN        #1
   0.000018  ESTABLISHED   ◀─────── SYN ACK ──  SYN_RECEIVED  #2
   0.000036                ── ACK ───────────▶  ESTABLISHED   #3
   0.000050  ~ 2 segments, 5 bytes up, 2 bytes down, 0.1 ms
   0.100392  CLOSE_WAIT    ◀─────── FIN ACK ──  FIN_WAIT_1    #6
   0.142979                ── ACK ───────────▶  FIN_WAIT_2?   #7
   0.315080  LAST_ACK      ── FIN ACK ───────▶  TIME_WAIT     #8
   0.315144                  x───────── ACK ──                #9   lost: its FIN comes again in #10
   0.525000                ── FIN ACK ───────▶  TIME_WAIT     #10  FIN again
   0.525064  CLOSED?       ◀─────────── ACK ──                #11
    server: TIME_WAIT until 60 s after #10; that is 60 s after the capture ended
    ? assumed: nothing in the capture contradicts it, and nothing proves it
    x did not arrive, or no packet shows that it did

  ! final-ack-lost (client): final-ack-lost happened [proved, 210 ms; #9 #10]
      mend final-ack-lost
  - three-segment-close: three-segment-close happened [proved; #6]
"""

CLOSE_WAIT = """\
#1  127.0.0.1:43286 -> 127.0.0.1:19999  closing: client closed first; server is
    still in CLOSE_WAIT
    began 2026-11-20 12:18:06.194806 UTC, lasted 500 ms, 5 packets

             client :43286                  server :19999
   0.000000  SYN_SENT      -- SYN ------->  LISTEN        #1
   0.000018  ESTABLISHED   <--- SYN ACK --  SYN_RECEIVED  #2
   0.000036                -- ACK ------->  ESTABLISHED   #3
   0.500000  FIN_WAIT_1    -- FIN ACK --->  CLOSE_WAIT    #4
   0.500100  FIN_WAIT_2    <------- ACK --                #5
    client: still in FIN_WAIT_2 when the capture ended, 12.4 s after the ACK of
            its FIN (#5)
    server: still in CLOSE_WAIT when the capture ended, 12.4 s after the FIN
            (#4)
"""


def test_a_lost_final_ack_is_drawn_with_everything_known_of_it():
    assert format_timeline(lost_final_ack()) == LOST_FINAL_ACK


def test_a_wait_below_the_threshold_is_shown_as_what_it_is_in_ascii_at_80_columns():
    assert format_timeline(close_wait(), width=80, ascii=True) == CLOSE_WAIT


def test_a_wait_that_a_finding_tells_of_is_not_told_twice():
    text = format_timeline(close_wait(reported=True))
    assert "when the capture ended" not in text
    assert text.index("! stuck-close-wait (server)") < text.index("! stuck-fin-wait-2 (client)")


def test_what_a_clock_did_stands_in_its_place_without_a_packet():
    connection = made(
        [
            *HANDSHAKE,
            line(event(4, 0.1, "client", "FA"), "FIN_WAIT_1", "CLOSE_WAIT"),
            line(event(5, 0.2, "server", "FA"), "TIME_WAIT", "LAST_ACK", via=[(End.CLIENT, "FIN_WAIT_2")]),
            line(event(6, 0.2001, "client", "A"), "TIME_WAIT", "CLOSED"),
        ],
        timers=[(60.2001, "client", "CLOSED", "2MSL passed")],
        now=100.0,
    )
    lines = format_timeline(connection).splitlines()
    row = "    0.200000  TIME_WAIT     ◀─────── FIN ACK ──  LAST_ACK      #5   client via FIN_WAIT_2"
    assert row in lines
    assert "   60.200100  CLOSED               timer                       client: 2MSL passed" in lines


def test_a_timer_that_ran_out_between_two_packets_stands_between_them():
    connection = made(
        [*HANDSHAKE, line(event(4, 90.0, "server", "R"), "CLOSED", "CLOSED")],
        timers=[(60.0, "client", "CLOSED", "FIN_WAIT_2 ran out")],
    )
    text = format_timeline(connection)
    assert text.index("#3") < text.index("FIN_WAIT_2 ran out") < text.index("#4")


def test_a_reset_without_a_beginning_says_that_the_client_is_inferred():
    connection = made(
        [line(event(1, 0.0, "client", "R"), "CLOSED", "CLOSED")],
        opener=Opener.INFERRED,
        verdict="reset",
    )
    text = format_timeline(connection)
    assert "no opening captured: client inferred" in text
    assert "CLOSED        ── RST ───────────▶  CLOSED        #1" in text


def test_a_segment_with_data_and_a_repeated_one_say_so_where_no_note_does():
    connection = made(
        [
            *HANDSHAKE,
            line(event(4, 0.1, "client", "FAP", length=1460), "FIN_WAIT_1", "ESTABLISHED", arrived=None),
            line(
                event(5, 0.3, "client", "FA", length=1, position=Position.RETRANSMISSION),
                "FIN_WAIT_1",
                "CLOSE_WAIT",
            ),
        ]
    )
    text = format_timeline(connection)
    assert "── FIN ACK ───────▶                #4   1,460 bytes" in text
    assert "#5   1 byte; retransmission" in text


def test_traffic_that_changes_a_state_shows_the_state():
    connection = made([*HANDSHAKE[:2], line(traffic(3, 0.1, 10, None), "ESTABLISHED", "ESTABLISHED")])
    text = format_timeline(connection)
    assert "~ 1 segment, 10 bytes up\n" in text
    assert text.splitlines()[-1].split() == ["ESTABLISHED"]


def test_traffic_tells_of_retransmissions_reordering_and_probes():
    went_by = traffic(4, 0.1, 10, 20, retransmissions=2, reordered=1, probes=1, controls=1500)
    connection = made([*HANDSHAKE, line(went_by, "ESTABLISHED", "ESTABLISHED")])
    told = "20 bytes down, 4 retransmissions, 2 keepalive or window probes, 2 out of order, 3,000 more with"
    assert told in format_timeline(connection, width=140)


@pytest.mark.parametrize("width", [20, 40, 60, 72, 80, 100, 160])
def test_no_line_is_wider_than_asked(width):
    long = "the quick brown fox " * 12
    connection = lost_final_ack()
    connection.findings += (finding("reset-cause", None, range(1, 40), summary=long, advice=long),)
    connection.summary = long
    steps = tuple(replace(step, note=long) for step in connection.timeline.steps)
    connection.timeline = replace(connection.timeline, steps=steps)
    for row in format_timeline(connection, width=width).splitlines():
        assert len(row) <= max(width, 40)


def test_colour_changes_nothing_but_the_colour():
    colored = format_timeline(lost_final_ack(), color=True)
    assert "\x1b[" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == LOST_FINAL_ACK


def test_ascii_is_ascii():
    assert format_timeline(lost_final_ack(), ascii=True).isascii()


def test_what_comes_from_a_capture_cannot_steer_the_terminal():
    evil = "\x1b]0;owned\x07 \u202e \n"
    connection = lost_final_ack()
    connection.summary = evil
    connection.findings = (
        finding("reset-cause", None, [1], severity=Severity.NOTICE, summary=evil, advice=evil),
    )
    steps = tuple(replace(step, note=evil) for step in connection.timeline.steps)
    connection.timeline = replace(connection.timeline, steps=steps)
    text = format_timeline(connection)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\\x1b]0;owned\\x07" in text


def test_a_timer_that_was_started_again_counts_from_the_packet_that_did_it():
    connection = made(
        [
            *HANDSHAKE,
            line(event(4, 0.1, "client", "FA"), "TIME_WAIT", "LAST_ACK"),
            line(event(5, 0.9, "server", "FA", position=Position.RETRANSMISSION), "TIME_WAIT", "LAST_ACK"),
        ],
        expiries={End.CLIENT: BEGAN + ns(60.9)},
    )
    assert "client: TIME_WAIT until 60 s after #5; that is 60 s after the capture ended" in format_timeline(
        connection
    )


def test_a_wait_that_a_new_connection_ended_lasted_until_that():
    text = format_timeline(from_script("C:S S:SA C:A ~ C:FA! +1s C:FA*! +2s C:S S:SA C:A"))
    assert "client: still in FIN_WAIT_1 when a new connection began (#9), 3 s after its FIN (#7)" in text
    assert "when the capture ended" not in text


def test_a_finding_of_a_moment_is_not_given_a_length_of_nothing():
    text = format_timeline(from_script("C:S S:SA C:A S:FA C:A"))
    assert "- bind-blocked (server)" in text
    assert "0 s;" not in text
