"""The findings of idle connections: on scripts that give them, beside those alike that must not."""

from __future__ import annotations

import pytest

from closeseq.connections.conversation import End
from closeseq.tcp.timeline import Certainty
from closeseq.verdict import Severity
from verdict_examples import OPEN, codes, judged, the

# --- keepalive-race --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crossing", "packets"),
    [
        ("S:FA|C:PA+100", "(#7); the client's next request (#8, 100"),
        ("C:PA+100|S:FA", "(#8); the client's next request (#7, 100"),
    ],
    ids=["captured near the server", "captured near the client"],
)
def test_a_request_that_crosses_the_fin_of_an_idle_server(crossing, packets):
    finding = the(judged(OPEN + f"+5s {crossing} S:R"), "keepalive-race")
    assert (finding.endpoint, finding.severity) == (End.CLIENT, Severity.PROBLEM)
    assert finding.certainty is Certainty.OBSERVED
    assert "closed after 5 s without a request" in finding.summary
    assert packets in finding.summary
    assert "crossed the FIN" in finding.summary
    assert "it is safe to send again" in finding.summary


def test_a_request_after_the_client_acknowledged_the_fin_blames_its_pool():
    judgement = judged(OPEN + "+5s S:FA C:A +3s C:PA+100 S:R")
    finding = the(judgement, "keepalive-race")
    assert "came 3 s after the client had acknowledged that (#8)" in finding.summary
    assert "fix the connection pool of the client" in finding.advice
    assert the(judgement, "data-after-close").severity is Severity.NOTICE


def test_a_request_that_was_acknowledged_may_have_been_seen():
    finding = the(judged(OPEN + "+5s S:FA|C:PA+100 S:A S:RA"), "keepalive-race")
    assert "whether its program saw it is not known" in finding.summary


def test_what_rests_on_an_absence_is_assumed():
    finding = the(judged(OPEN + "+5s S:FA|C:PA+100 S:R", dropped=1), "keepalive-race")
    assert finding.certainty is Certainty.ASSUMED


def test_a_goodbye_before_the_fin_ends_no_silence():
    # TLS: the server's close_notify comes right before its FIN.
    finding = the(judged(OPEN + "+5s S:PA+31|S:FA|C:PA+100 S:R"), "keepalive-race")
    assert "5 s without a request" in finding.summary


@pytest.mark.parametrize(
    "script",
    [
        OPEN + "S:FA|C:PA+100 S:R",  # it was not idle
        OPEN + "+5s S:FA C:PA+31 S:R",  # a close_notify, no request
        OPEN + "+5s S:FA C:PA+100 S:A C:FA S:A",  # a half-close: it was taken
        OPEN + "+5s C:FA|S:PA+100 C:R",  # the client closed
        OPEN + "+5s S:FA C:A C:FA S:A",
        OPEN + "+5s C:PA+100 S:R",  # there was no FIN
        OPEN + "+5s S:FA C:A C:FA S:R",  # no data
    ],
)
def test_a_close_without_a_race(script):
    assert "keepalive-race" not in codes(judged(script))


# --- idle-cut --------------------------------------------------------------------------------------------

IN_VAIN = "C:PA+100! +0.2s C:PA+100*! +0.4s C:PA+100*! +0.8s C:PA+100*!"


def test_what_is_sent_after_a_long_silence_and_never_answered():
    judgement = judged(OPEN + "+300s " + IN_VAIN, wait=60)
    finding = the(judgement, "idle-cut")
    assert (finding.endpoint, finding.certainty) == (End.CLIENT, Certainty.ASSUMED)
    assert "after 5 min without a packet the client sent #7 and got no answer" in finding.summary
    assert the(judgement, "half-open").severity is Severity.PROBLEM


def test_a_bare_rst_after_a_long_silence():
    finding = the(judged(OPEN + "+300s C:PA+100 S:R"), "idle-cut")
    assert finding.severity is Severity.PROBLEM
    assert "got a RST (#8), whose sender does not have the connection any more" in finding.summary


def test_the_server_may_be_the_one_that_sends():
    assert (
        the(judged(OPEN + "+90s " + IN_VAIN.replace("C:", "S:"), wait=60), "idle-cut").endpoint is End.SERVER
    )


def test_keepalives_that_find_the_connection_gone():
    judgement = judged(OPEN + "+100s C:K! +1s C:K! +1s C:K! C:RA!")
    assert "got no answer to that and 3 keepalive probes" in the(judgement, "idle-cut").summary


@pytest.mark.parametrize(
    ("script", "wait"),
    [
        (OPEN + "+59s " + IN_VAIN, 60),  # not silent for so long
        (OPEN + "+300s " + IN_VAIN, 30),  # it may still be answered
        (OPEN + "+300s C:PA+100! +0.2s C:PA+100* S:A", 60),  # one loss
        (OPEN + "+300s C:PA+100 S:A", 60),
        (OPEN + "+300s C:K S:A +300s C:PA+100 S:A", 60),
        (OPEN + "+300s C:PA+100 S:RA", 0),  # the peer's own
        (OPEN + "+300s S:RA", 0),  # it gave up by itself
        (OPEN + "+300s S:FA C:A +1s C:PA+100 S:R", 0),  # it has closed
        (OPEN + "+3s C:PA+100 S:R", 0),
    ],
)
def test_an_idle_connection_that_was_not_cut(script, wait):
    assert not codes(judged(script, wait=wait)) & {"idle-cut", "half-close-cut"}


# --- half-close-cut --------------------------------------------------------------------------------------

HALF_CLOSED = OPEN + "C:PA+100 S:A C:FA S:A "
ANSWER_IN_VAIN = IN_VAIN.replace("C:", "S:")


def test_an_answer_that_comes_late_in_a_half_close_and_does_not_arrive():
    finding = the(judged(HALF_CLOSED + "+120s " + ANSWER_IN_VAIN, wait=60), "half-close-cut")
    assert (finding.endpoint, finding.certainty) == (End.SERVER, Certainty.ASSUMED)
    assert "after 120 s without a packet the server sent #11" in finding.summary
    assert "the half-closed connection" in finding.summary


def test_also_where_the_server_closes_behind_its_answer():
    assert "half-close-cut" in codes(judged(HALF_CLOSED + "+120s " + ANSWER_IN_VAIN + " S:FA!", wait=60))


@pytest.mark.parametrize(
    ("script", "wait"),
    [
        (HALF_CLOSED + "+120s S:PA+100 C:A S:FA C:A", 0),
        (HALF_CLOSED + "+120s " + ANSWER_IN_VAIN, 30),
        (HALF_CLOSED + "+30s " + ANSWER_IN_VAIN, 60),
        (HALF_CLOSED + "+120s S:FA!", 60),
        (HALF_CLOSED + "+120s S:PA+100 C:R", 60),  # it had closed
    ],
)
def test_a_half_close_that_was_not_cut(script, wait):
    assert "half-close-cut" not in codes(judged(script, wait=wait))
