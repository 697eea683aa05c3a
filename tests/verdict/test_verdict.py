"""How a connection ended, and who began the end."""

from __future__ import annotations

import pytest

from closeseq.verdict import Initiator, Role
from closeseq.verdict.ending import RULES
from verdict_examples import OPEN, check_mirror, judged, rows, timeline, timelines

CLOSE = OPEN + "C:FA S:A S:FA C:A"

# script -> verdict, initiator, roles of client and server
ENDINGS = {
    "no answer": ("C:S +1s C:S* +2s C:S*", "unanswered", "none", "none", "none"),
    "nobody listens": ("C:S S:RA", "refused", "server", "aborted", "aborter"),
    "a scan": ("C:S S:SA C:R", "aborted-open", "client", "aborter", "aborted"),
    "the server resets the handshake": ("C:S S:SA S:RA", "aborted-open", "server", "aborted", "aborter"),
    "client closes first": (CLOSE, "graceful", "client", "active-closer", "passive-closer"),
    "server first": (OPEN + "S:FA C:A C:FA S:A", "graceful", "server", "passive-closer", "active-closer"),
    "in three segments": (OPEN + "C:FA S:FA C:A", "graceful", "client", "active-closer", "passive-closer"),
    "FINs cross": (OPEN + "C:FA|S:FA C:A|S:A", "simultaneous", "both", "both-closers", "both-closers"),
    "client aborts": (OPEN + "C:RA", "reset", "client", "aborter", "aborted"),
    "server aborts after a FIN": (OPEN + "C:FA S:A S:RA", "reset", "client", "aborted", "aborter"),
    "data for a closed socket": (OPEN + "C:FA S:A S:PA+10 C:R", "reset", "client", "aborter", "aborted"),
    "server does not close": (OPEN + "C:FA S:A", "closing", "client", "active-closer", "passive-closer"),
    "FIN unanswered": (OPEN + "C:FA! +0.3s C:FA!", "closing", "client", "active-closer", "none"),
    "crossing FINs unanswered": (OPEN + "C:FA!|S:FA!", "closing", "both", "both-closers", "both-closers"),
    "nobody closes": (OPEN.strip(), "open", "none", "none", "none"),
    "handshake unfinished": ("C:S S:SA", "open", "none", "none", "none"),
    "opened anew": (OPEN + "C:S S:SA C:A", "replaced", "none", "none", "none"),
    "closed halfway": (OPEN + "C:FA S:A C:S S:SA", "replaced", "client", "active-closer", "passive-closer"),
    "midway": ("C:PA+5 S:A C:FA S:A S:FA C:A", "graceful", "client", "active-closer", "passive-closer"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_the_ending(name):
    script, *expected = ENDINGS[name]
    verdict = judged(script).verdict
    assert [verdict.code, verdict.initiator, verdict.client_role, verdict.server_role] == expected


def test_every_verdict_is_shown_by_an_example():
    assert {row[1] for row in ENDINGS.values()} == set(RULES)


def test_a_handshake_that_nobody_completes_was_given_up():
    assert judged("C:S S:SA", wait=59.9).verdict.code == "open"
    assert judged("C:S S:SA", wait=60).verdict.code == "aborted-open"


def test_a_reset_after_both_fins_were_acknowledged_is_no_reset():
    assert judged(CLOSE + " S:R").verdict.code == "graceful"


def test_a_reset_after_both_fins_of_which_one_was_not_acknowledged_is_one():
    verdict = judged(OPEN + "C:FA S:A S:FA C:R").verdict
    assert (verdict.code, verdict.initiator) == ("reset", Initiator.CLIENT)
    assert "after both FINs" in verdict.summary


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (CLOSE, ["client closed first"]),
        (OPEN + "S:FA C:A C:FA S:A! +0.3s C:FA* S:A", ["server closed first", "final ACK lost once"]),
        (OPEN + "C:FA! +0.3s C:FA* S:A S:FA C:A", ["client closed first", "client's FIN sent twice"]),
        (OPEN + "C:FA S:A +3s S:FA C:A", ["server closed 3 s later"]),
        (OPEN + "C:RA", ["client reset it in ESTABLISHED", "before any FIN"]),
        (OPEN + "C:FA S:A S:RA", ["client closed first", "server reset it in CLOSE_WAIT", "after one FIN"]),
        ("C:S +1s C:S*", ["SYN was not answered", "twice", "1 s"]),
    ],
)
def test_the_summary_has_the_facts(script, words):
    summary = judged(script).verdict.summary
    assert [word for word in words if word not in summary] == []


def test_a_short_wait_is_told_as_such_and_a_long_one_as_stuck():
    assert (
        "still in CLOSE_WAIT when the capture ended, 12.4 s"
        in judged(OPEN + "C:FA S:A", wait=12.4).verdict.summary
    )
    assert (
        "is in CLOSE_WAIT and has not closed for 75 s" in judged(OPEN + "C:FA S:A", wait=75).verdict.summary
    )


@pytest.mark.parametrize("script", [row[0] for row in ENDINGS.values()], ids=list(ENDINGS))
def test_swapping_both_endpoints_swaps_the_result(script):
    for wait in (0, 75):
        check_mirror(timeline(script, wait=wait))


@pytest.mark.parametrize("capture", [row.capture for row in rows()])
def test_swapping_both_endpoints_of_a_capture_swaps_the_result(capture):
    for one in timelines(capture):
        check_mirror(one)


def test_roles_are_asked_by_end():
    from closeseq.connections.conversation import End

    verdict = judged(CLOSE).verdict
    assert verdict.role(End.CLIENT) is Role.ACTIVE_CLOSER
    assert verdict.role(End.SERVER) is Role.PASSIVE_CLOSER
