"""What deserves attention: each rule on small scripts, and where it must keep silent."""

from __future__ import annotations

import pytest

from closeseq.connections.conversation import End
from closeseq.settings import SECOND, Limits, Timers
from closeseq.tcp.timeline import Certainty
from closeseq.verdict import Severity, judge
from closeseq.verdict.judgement import RULES
from closeseq.verdict.model import Initiator
from closeseq.verdict.vocabulary import lookup
from verdict_examples import OPEN, codes, judged, packets, rows, the, timeline, timelines

CLOSE = OPEN + "C:FA S:A S:FA C:A"
NOTHING: set[str] = set()


def test_an_ordinary_close_has_no_finding():
    assert codes(judged(CLOSE)) == NOTHING
    assert codes(judged(CLOSE, wait=3600)) == NOTHING


@pytest.mark.parametrize("wait", [0, 75])
@pytest.mark.parametrize("capture", [row.capture for row in rows()])
def test_a_finding_rests_on_packets_of_its_connection(capture, wait):
    limits = Limits(stuck_after_ns=wait * SECOND)
    for one in timelines(capture, Timers(fin_timeout_ns=3 * SECOND)):
        judgement = judge(one, limits)
        assert set(judgement.verdict.packets) <= packets(one.conversation)
        for finding in judgement.findings:
            assert set(finding.packets) <= packets(one.conversation)
            assert list(finding.packets) == sorted(set(finding.packets))
            assert finding.duration_ns is None or finding.duration_ns >= 0
            assert finding.severity in (lookup(finding.code).severity, Severity.NOTICE)
            assert finding.certainty is not Certainty.TIMER
            assert finding.summary
            assert finding.advice
            assert "\n" not in finding.summary + finding.advice
            assert not (finding.summary + finding.advice).endswith(".")


def test_findings_come_in_the_order_of_the_table():
    judgement = judged(OPEN + "S:FA C:A +3s C:FA S:A! +0.3s C:FA* S:A")
    order = [list(RULES).index(finding.code) for finding in judgement.findings]
    assert order == sorted(order)
    assert len(order) > 2


# --- waiting ---------------------------------------------------------------------------------------------


def test_an_endpoint_that_does_not_close_is_stuck_in_close_wait_and_its_peer_in_fin_wait_2():
    judgement = judged(OPEN + "C:FA S:A", wait=60)
    stuck, waiting = the(judgement, "stuck-close-wait"), the(judgement, "stuck-fin-wait-2")
    assert (stuck.endpoint, stuck.severity, waiting.endpoint) == (End.SERVER, Severity.PROBLEM, End.CLIENT)
    assert "the server received the client's FIN (#7) and has not closed for 60 s" in stuck.summary
    assert "program at the server 198.51.100.2:80" in stuck.advice
    assert "fix the program at the server 198.51.100.2:80" in waiting.advice


def test_a_short_wait_is_not_stuck():
    assert codes(judged(OPEN + "C:FA S:A", wait=59)) == NOTHING


def test_a_wait_is_stuck_when_the_peers_fin_wait_2_ran_out_however_patient_one_is():
    found = codes(judged(OPEN + "C:FA S:A", wait=4, fin_timeout=3))
    assert found == {"stuck-close-wait", "stuck-fin-wait-2"}


def test_close_wait_is_not_stuck_while_data_still_flows():
    streaming = OPEN + "C:FA S:A +50s S:PA+100 C:A"
    assert codes(judged(streaming, wait=40, fin_timeout=3600)) == {"half-close"}
    assert "stuck-close-wait" in codes(judged(streaming, wait=70, fin_timeout=3600))


def test_close_wait_of_an_endpoint_that_may_never_have_got_the_fin_is_not_blamed_on_it():
    assert "stuck-close-wait" not in codes(judged(OPEN + "C:FA", wait=600))


def test_whoever_does_not_close_may_have_done_so_before_the_capture_and_then_that_is_said():
    # Recorded from the server's FIN on: the client may be in CLOSE_WAIT, or was in FIN_WAIT_2, and is in
    # TIME_WAIT. A connection that idled since before the capture, and leaks, looks like that too.
    judgement = judged("S:FA C:A", wait=100)
    finding = the(judgement, "stuck-close-wait")
    assert (finding.severity, finding.certainty) == (Severity.PROBLEM, Certainty.ASSUMED)
    assert "unless it had closed before" in finding.summary
    assert "in TIME_WAIT, or without a socket, it had closed first" in finding.advice
    assert "stuck-fin-wait-2" not in codes(judgement)
    assert judgement.verdict.initiator is Initiator.NONE
    assert "closed first" not in judgement.verdict.summary
    spoke = judged("C:A+5 S:A S:FA C:A", wait=100)
    assert "unless" not in the(spoke, "stuck-close-wait").summary
    assert spoke.verdict.initiator is Initiator.SERVER


def test_a_reset_after_a_fin_does_not_show_who_closed_first_where_the_peer_may_have():
    verdict = judged("C:A S:FA C:R").verdict
    assert verdict.initiator is Initiator.NONE
    assert verdict.summary.startswith("server closed; ")


def test_a_reset_is_not_said_to_come_before_any_fin_where_one_may_have_come_before_the_capture():
    # Recorded from the server's ACK of the client's FIN on: it was in CLOSE_WAIT.
    assert judged("S:A S:RA").verdict.summary == "server reset it (#2, before any FIN that was captured)"
    seen = judged("C:A+5 S:A+5 C:A S:RA").verdict.summary
    assert seen == "server reset it in ESTABLISHED (#4, before any FIN)"


def test_what_rests_on_an_absence_is_assumed_when_the_capture_lost_packets():
    certain = the(judged(OPEN + "C:FA S:A", wait=75), "stuck-close-wait")
    doubtful = the(judged(OPEN + "C:FA S:A", wait=75, dropped=1), "stuck-close-wait")
    assert (certain.certainty, doubtful.certainty) == (Certainty.PROVED, Certainty.ASSUMED)


def test_a_fin_that_is_never_acknowledged():
    judgement = judged(OPEN + "C:FA! +0.3s C:FA*! +0.6s C:FA*! +60s C:FA*!")
    finding = the(judgement, "stuck-fin-wait-1")
    assert finding.endpoint is End.CLIENT
    assert "sent 4 times" in finding.summary
    assert not codes(judgement) & {"half-open", "fin-lost", "final-ack-lost"}


def test_a_fin_behind_a_closed_window_is_blamed_on_the_reader():
    finding = the(judged("C:S S:SA C:A C:PA+100 S:A/0 C:FA! +60s C:FA*!"), "stuck-fin-wait-1")
    assert "window is 0" in finding.summary
    assert "fix the program at the server" in finding.advice


def test_the_last_ack_never_comes():
    judgement = judged(OPEN + "C:FA S:A S:FA! +0.3s S:FA*! +60s S:FA*!")
    assert the(judgement, "stuck-last-ack").endpoint is End.SERVER
    assert "final-ack-lost" in codes(judgement)


def test_closing_that_stays():
    judgement = judged(OPEN + "C:FA|S:FA C:A S:A! +0.3s C:FA* S:A! +70s C:FA* S:A!")
    assert judgement.verdict.code == "closing"
    assert the(judgement, "stuck-closing").endpoint is End.CLIENT
    assert "final-ack-lost" not in codes(judgement)


# --- an end is gone --------------------------------------------------------------------------------------

REPEATING = OPEN + "C:PA+10! +0.2s C:PA+10*! +0.4s C:PA+10*! +0.8s C:PA+10*!"


def test_data_sent_again_and_again_without_an_answer():
    finding = the(judged(REPEATING, wait=60), "half-open")
    assert finding.endpoint is End.CLIENT
    assert "retransmissions by the client" in finding.summary
    assert codes(judged(REPEATING, wait=10)) == NOTHING


def test_keepalives_without_an_answer_until_it_gave_up():
    judgement = judged(OPEN + "+5s C:K! +1s C:K! +1s C:K! +1s C:RA!")
    assert codes(judgement) == {"half-open", "keepalive", "reset-cause"}
    assert "gave up" in the(judgement, "reset-cause").summary


def test_keepalives_that_are_answered():
    finding = the(judged(OPEN + "+5s C:K S:A +5s C:K S:A " + "C:FA S:A S:FA C:A"), "keepalive")
    assert finding.endpoint is End.CLIENT
    assert "twice, and was answered" in finding.summary


def test_probes_of_a_closed_window_are_no_keepalives():
    assert codes(judged("C:S S:SA C:A S:PA+100 C:A/0 +1s S:K C:A/0 +1s S:K C:A/0")) == NOTHING


def test_a_single_byte_sent_again_is_no_keepalive():
    found = codes(judged(OPEN + "C:PA+1! +0.3s C:PA+1* S:A C:FA S:A S:FA C:A"))
    assert "keepalive" not in found


# --- loss ------------------------------------------------------------------------------------------------


def test_a_lost_fin():
    finding = the(judged(OPEN + "C:FA! +0.2s S:A+10 C:A +0.2s C:FA* S:A S:FA C:A"), "fin-lost")
    assert (finding.endpoint, finding.certainty) == (End.CLIENT, Certainty.PROVED)
    assert "was lost once; #8 still asks for it" in finding.summary
    assert finding.packets == (7, 8, 10)


def test_a_fin_that_is_sent_again_without_another_word_may_have_arrived_before():
    finding = the(judged(OPEN + "C:FA! +0.2s C:FA*! +0.4s C:FA* S:A S:FA C:A"), "fin-lost")
    assert (finding.endpoint, finding.certainty) == (End.CLIENT, Certainty.ASSUMED)
    assert "was lost twice, or its acknowledgement was" in finding.summary
    assert finding.packets == (7, 8, 9)


def test_an_answer_that_crossed_a_lost_fin_proves_nothing():
    told = judged("C:S +50ms S:SA C:A ~ C:FA!|S:A+10 C:A +0.3s C:FA* S:A S:FA C:A")
    assert the(told, "fin-lost").certainty is Certainty.ASSUMED


def test_a_fin_that_arrived_behind_a_hole_was_not_lost():
    judgement = judged(OPEN + "C:A+100! C:FA S:A +0.2s C:A+100* S:A +0.1s S:FA C:A")
    assert "fin-lost" not in codes(judgement)


def test_a_lost_final_ack_that_time_wait_repeats():
    judgement = judged(OPEN + "S:FA C:A C:FA S:A! +0.3s C:FA* S:A")
    lost, again = the(judgement, "final-ack-lost"), the(judgement, "time-wait-restarted")
    assert (lost.endpoint, again.endpoint) == (End.CLIENT, End.SERVER)
    assert lost.packets == (9, 10, 11)
    assert "acknowledged again from TIME_WAIT (#12)" in lost.summary
    assert again.packets == (11, 12)


def test_a_lost_final_ack_when_time_wait_is_gone():
    judgement = judged(OPEN + "S:FA C:A C:FA S:A! +0.3s C:FA* S:R")
    assert judgement.verdict.code == "graceful"
    assert "TIME_WAIT was already gone" in the(judgement, "final-ack-lost").summary


def test_a_final_ack_that_was_lost_before_the_capture():
    # A capture holds this one: Linux's TIME_WAIT goes on echoing the first FIN, and that tells.
    (one,) = timelines("final-ack-lost-unseen.pcap")
    judgement = judge(one)
    assert "without being captured" in the(judgement, "final-ack-lost").summary
    assert "fin-lost" not in codes(judgement)


# --- TIME_WAIT -------------------------------------------------------------------------------------------


def test_a_reset_in_time_wait():
    finding = the(judged(CLOSE + " +1s S:RA"), "time-wait-assassinated")
    assert (finding.endpoint, finding.severity) == (End.CLIENT, Severity.PROBLEM)
    assert "RFC 1337" in lookup(finding.code).explanation


def test_a_pair_that_is_used_again_in_time_wait():
    again = CLOSE + " +10s C:S S:SA C:A"
    finding = the(judged(again), "time-wait-reused")
    assert finding.endpoint is End.CLIENT
    assert "10 s into the client's TIME_WAIT" in finding.summary
    assert codes(judged(CLOSE + " +61s C:S S:SA C:A")) == NOTHING


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("S:FA C:A C:FA S:A", "TIME_WAIT"),
        ("S:FA!", "FIN_WAIT_1"),
        ("S:FA C:A", "FIN_WAIT_2"),
        ("C:FA S:A S:FA!", "LAST_ACK"),
    ],
)
def test_a_listening_end_that_waits_blocks_its_port(script, state):
    finding = the(judged(OPEN + script), "bind-blocked")
    assert finding.endpoint is End.SERVER
    assert f"in {state}: bind() to its port 80 " in finding.summary
    assert "SO_REUSEADDR" in finding.advice


def test_a_port_is_free_again_after_2msl():
    assert codes(judged(OPEN + "S:FA C:A C:FA S:A", wait=61)) == NOTHING
    assert "for another 50 s" in the(judged(OPEN + "S:FA C:A C:FA S:A", wait=10), "bind-blocked").summary


# --- data and forms of the close -------------------------------------------------------------------------


def test_data_to_an_endpoint_that_had_closed():
    judgement = judged(OPEN + "C:FA S:A S:PA+50 C:R")
    finding = the(judgement, "data-after-close")
    assert (finding.endpoint, finding.packets) == (End.SERVER, (9, 10))
    assert "50 bytes" in finding.summary
    assert "which had closed" in the(judgement, "reset-cause").summary


def test_data_to_an_endpoint_that_a_reset_had_ended_are_not_blamed_on_its_close():
    finding = the(judged(OPEN + "S:RA C:PA+50 S:R"), "data-after-close")
    assert "why RST #7 was sent: it had ended the connection at the server" in finding.advice
    assert "closed too early" not in finding.advice
    assert (
        "the program at the client, which closes too early"
        in the(judged(OPEN + "C:FA S:A S:PA+50 C:R"), finding.code).advice
    )


def test_data_to_an_endpoint_that_has_lost_the_connection_is_not_data_after_close():
    judgement = judged(OPEN + "S:PA+50 C:R")
    assert codes(judgement) == {"reset-cause"}
    assert "no longer has this connection" in the(judgement, "reset-cause").summary


def test_a_half_close():
    finding = the(judged(OPEN + "C:FA S:A S:PA+1000 C:A S:PA+500 C:A S:FA C:A"), "half-close")
    assert finding.endpoint is End.CLIENT
    assert "1,500 bytes" in finding.summary


def test_data_that_was_sent_before_the_fin_is_no_half_close():
    assert codes(judged("C:S S:SA C:A C:PA+10 S:PA+100|C:FA C:A S:A S:FA C:A")) == NOTHING


def test_a_slow_close():
    finding = the(judged(OPEN + "C:FA S:A +1.5s S:FA C:A"), "slow-close")
    assert finding.endpoint is End.SERVER
    assert "1.5 s" in finding.summary
    assert codes(judged(OPEN + "C:FA S:A +0.9s S:FA C:A")) == NOTHING


def test_a_close_is_not_slow_while_data_still_flows():
    assert codes(judged(OPEN + "C:FA S:A +2s S:PA+10 C:A S:FA C:A")) == {"half-close"}


def test_a_close_in_three_segments():
    assert codes(judged(OPEN + "C:FA S:FA C:A")) == {"three-segment-close"}


def test_a_fin_on_data():
    finding = the(judged(OPEN + "C:FPA+14 S:A S:FA C:A"), "fin-with-data")
    assert "14 bytes" in finding.summary


# --- RSTs ------------------------------------------------------------------------------------------------

CAUSES = {
    "refused": ("C:S S:RA", "nobody listens on port 80"),
    "a scan": ("C:S S:SA C:R", "no socket for the SYN"),
    "request not read": ("C:S S:SA C:A C:PA+17 S:A S:RA", "closed with unread data"),
    "aborted after the answer": ("C:S S:SA C:A C:PA+5 S:PA+5 C:A +0.1s C:RA", "closed with SO_LINGER 0"),
    "data after close": (OPEN + "C:FA S:A S:PA+5 C:R", "sent data (#9) to the client, which had closed"),
    "after FIN_WAIT_2": (OPEN + "C:FA S:A +61s S:FA C:R", "FIN_WAIT_2 had expired"),
    "after TIME_WAIT": (CLOSE + " +61s S:FA* C:R", "no longer has this connection"),
    "aborted when the request was answered": (OPEN + "C:PA+5 S:PA+5 C:A C:FA S:A S:RA", "SO_LINGER 0"),
    "answer not read after shutdown": (OPEN + "C:FA S:A S:PA+400 C:A C:RA", "closed with unread data"),
    "FIN never arrived": (
        OPEN + "C:FA! +0.2s C:FA*! +0.4s C:FA*! +0.8s S:PA+9 C:R",
        "the client's FIN, sent 3 times, had not reached the server",
    ),
    "listener closed": ("C:S S:SA C:A +2s S:RA", "before it accepted the connection"),
    "kept no longer in FIN_WAIT_2": (OPEN + "C:FA S:A +2s S:FA C:R", "the client had closed, and its kernel"),
    "gave up, then hears again": (
        OPEN + "C:PA+5! +0.2s C:PA+5*! +0.4s C:PA+5*! +0.8s C:PA+5*! +9s S:PA+5 C:R",
        "the client had given up",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_likeliest_cause_of_a_reset(name):
    script, cause = CAUSES[name]
    finding = the(judged(script), "reset-cause")
    first = finding.summary.split("; or ")[0]
    assert cause in first
    assert "for: " in first
    assert finding.certainty is Certainty.ASSUMED


@pytest.mark.parametrize(
    ("script", "replied"),
    [
        ("C:PA+5 S:A S:PA+5 S:RA", True),
        ("C:PA+5 S:PA+5 C:A S:RA", True),
        ("C:PA+5 S:PA+5 C:PA+5 S:A S:RA", False),
        ("C:PA+5 S:PA+5 C:PA+5 S:RA", False),
    ],
)
def test_whoever_only_acknowledged_the_last_data_has_not_answered_them(script, replied):
    summary = the(judged("C:S S:SA C:A " + script), "reset-cause").summary
    assert ("the server had answered since" in summary) is replied
    assert ("did not answer the last of them" in summary) is not replied


def test_a_program_that_answered_had_accepted():
    assert "before it accepted" not in the(judged(OPEN + "C:PA+5 +2s S:A S:RA"), "reset-cause").summary


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("C:S S:RA", "(which had sent nothing before)"),
        ("C:S S:SA C:R", "(last seen in SYN_SENT)"),
        (OPEN + "C:RA", "(in ESTABLISHED)"),
    ],
)
def test_the_state_that_a_reset_is_said_to_come_from(script, where):
    assert where in the(judged(script), "reset-cause").summary


def test_resets_that_are_repeated_are_one_finding():
    finding = the(judged(OPEN + "C:FA S:A S:PA+5 C:R S:PA+5 C:R S:PA+5 C:R"), "reset-cause")
    assert len(finding.packets) == 3
    assert "3 times in all" in finding.summary


def test_a_reset_with_another_ttl_comes_from_a_middlebox():
    from dataclasses import replace

    one = timeline(OPEN + "C:RA")
    conversation = one.conversation
    odd = replace(conversation.steps[-1], ttl=51)
    steps = (*one.steps[:-1], replace(one.steps[-1], what=odd))
    changed = replace(
        one, conversation=replace(conversation, steps=(*conversation.steps[:-1], odd)), steps=steps
    )
    summary = the(judge(changed), "reset-cause").summary
    assert "a middlebox or somebody else" in summary.split("; or ")[0]
    assert "TTL is 51" in summary


def test_a_reset_that_does_not_fit_is_challenged():
    # A capture holds this one: no script can send a RST with a number of its own choice.
    (one,) = timelines("challenge-ack.pcap")
    finding = the(judge(one), "challenge-ack")
    assert (finding.endpoint, finding.packets) == (End.SERVER, (8, 9))


# --- the capture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("C:PA+5 S:A C:FA S:A S:FA C:A", "beginning"),
        (OPEN + "(C:FA) S:A S:FA C:A", "acknowledges"),
        (OPEN + "(C:PA+100) C:PA+5 S:A C:FA S:A S:FA C:A", "hole"),
        ("C:S (S:SA) C:A C:PA+5 (S:A) C:FA (S:A)", "nothing that the server sent"),
    ],
)
def test_what_the_capture_missed(script, words):
    assert words in the(judged(script), "capture-incomplete").summary


def test_packets_that_the_capture_itself_reports_lost():
    assert "lost 7 packets" in the(judged(CLOSE, dropped=7), "capture-incomplete").summary


def test_a_capture_that_simply_ends_is_not_incomplete():
    assert codes(judged(OPEN + "C:FA S:A")) == NOTHING


# --- what the packets do not say -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "size"),
    [
        ("C:FA S:A S:PA+50 S:PA+50 S:PA+50 C:R C:R C:R", 150),  # a RST for each
        ("C:FA S:A S:PA+50 S:PA+50 S:PA+50 C:R", 150),  # one for all
        ("C:FA S:A S:PA+50 C:A S:PA+50 C:R", 50),  # what was acknowledged was not refused
    ],
)
def test_all_data_that_was_refused_counts(script, size):
    assert f"sent {size} bytes" in the(judged(OPEN + script), "data-after-close").summary


@pytest.mark.parametrize(
    ("script", "listens"), [("C:S S:RA", False), ("C:S S:SA S:RA", True), ("C:S S:SA C:A S:R", True)]
)
def test_who_answered_a_syn_listens(script, listens):
    assert ("nobody listens" in the(judged(script), "reset-cause").summary) is not listens


def test_who_gives_up_its_fin_set_no_linger():
    tries = OPEN + "C:PA+5 S:PA+5 C:A C:FA! +0.3s C:FA*! +0.6s C:FA*! "
    due, sooner = (
        the(judged(tries + pause + " C:RA!"), "reset-cause").summary for pause in ("+1.2s", "+0.1s")
    )
    assert "the client gave up" in due.split("; or ")[0]
    assert "SO_LINGER" in sooner.split("; or ")[0]


@pytest.mark.parametrize(("script", "probes"), [("C:FA S:A +20s C:K S:A", True), ("C:FA S:A", False)])
def test_a_half_closed_connection_is_probed(script, probes):
    assert ("keepalive" in codes(judged(OPEN + script))) is probes


def test_a_reset_after_crossing_fins_was_begun_by_both():
    assert judged(OPEN + "C:FA|S:FA C:RA").verdict.initiator is Initiator.BOTH
    assert judged(OPEN + "C:FA S:A S:FA C:RA").verdict.initiator is Initiator.CLIENT


@pytest.mark.parametrize(
    ("script", "initiator"),
    [
        ("C:S (S:SA) C:A (S:FA) C:FA", Initiator.NONE),  # its FIN may acknowledge one
        ("C:S (S:SA) C:A C:FA (S:A) (S:FA) C:A", Initiator.CLIENT),  # the highest number came later
    ],
)
def test_who_closed_first_in_a_capture_of_one_direction(script, initiator):
    assert judged(script).verdict.initiator is initiator
