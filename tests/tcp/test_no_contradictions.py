"""What is said of a connection does not contradict itself, however odd its segments are.

The checks are in contradictions.py. What once contradicted itself is listed here, each kind with a
conversation that showed it.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq import format_timeline
from closeseq.settings import SECOND
from contradictions import CHECKS
from places import ROOT
from short_conversations import GAPS_NS, KINDS, ODD, STAMPS, Told, analysed, numbered, read

MOMENTS = (0, 70 * SECOND)

ONCE = {
    "times_run_forward": (
        "C:F@1 S:SA@0,2 C:R@2 C:FA@2,2 S:A@1,3",  # time-wait-assassinated "after -1 ms"
        "C:F@1 S:SA@0,3 C:FA@2,3 S:FA@1,3 S:F@3",  # final-ack-lost is over before it began
    ),
    "no_fin_is_denied": (
        "C:A@0,1 S:FA@0,1",  # the server is in CLOSE_WAIT and has not closed: its own FIN is there
        "C:A@1,3 C:FA@1,1 S:FA@1,2",  # stuck-close-wait of an end whose FIN is there
        "C:F@1 S:FA@1,2 S:F@2",  # stuck-fin-wait-2: the server sent no FIN, though it sent two
    ),
    "no_finding_rests_on_what_was_lost": (
        "gap=250ms C:R@1 S:A@3,1",  # challenge-ack answers a RST that did not arrive
        "S:F@1 C:FA@2,2 C:FA@2,2",  # stuck-fin-wait-2, bind-blocked: the ACK did not arrive
        "C:F@0 C:F@1 S:FA@1,2",  # three-segment-close acknowledges a FIN that did not arrive
        "C:F@1 S:AP@1,2 C:FA@1,3",  # half-close
        "stamps=stale gap=250ms S:R@1 C:AP@1,1 S:R@1 C:F@5",  # data-after-close got a RST that did not arrive
    ),
    "what_was_lost_moves_nobody": (
        "S:F@1 C:FA@2,2 C:FA@2,2",  # FIN_WAIT_2 by an ACK that did not arrive
        "C:SA@0,1 S:FA@1,1 S:F@2",  # likewise the ACK of a SYN
    ),
    "what_is_called_lost_is_drawn_lost": (
        "C:FA@0,1 S:SA@0,1 C:F@0",  # fin-lost
        "stamps=stale gap=250ms S:FA@1,2 C:FA@1,2 S:F@2",  # final-ack-lost
    ),
    "no_packet_has_two_causes": (
        "stamps=stale S:F@3 C:AP@0,4 S:A@4,2 S:R@4",  # the same data refused and accepted
        "stamps=fresh S:F@1 S:FA@2,1 C:AP@3,3 S:F@3",  # a FIN got through, and was never acknowledged
        "stamps=fresh S:A@1,1 S:FA@1,2 S:F@2 C:FA@1,3 S:F@3",  # sent again as lost, and in vain
    ),
    "one_fault_is_one_problem": (
        "C:F@1 S:A@0,2",  # stuck-close-wait, and stuck-fin-wait-2 of the other end
        "C:FA@1,2 S:AP@1,3 C:FA@4,3",  # stuck-close-wait, and stuck-fin-wait-1 of the other end
        "C:F@1 S:FA@1,2 S:F@2",  # stuck-last-ack, final-ack-lost, and stuck-fin-wait-2 of the other end
        "C:A@1,0 S:F@1 C:AP@0,2",  # stuck-close-wait and half-open of one end
        "C:FA@1,3 S:AP@0,2 C:R@2",  # data-after-close and time-wait-assassinated, by one RST
    ),
    "nothing_unseen_is_waited_for": (
        "gap=70s C:F@1 C:A@3,1",  # stuck-fin-wait-2 though nothing of the server was captured
    ),
}
RAISED = {"IndexError in closeseq/tcp/fins.py, closed_before": "C:RA@0,3 C:F@2 S:FA@1,2"}


def contradictions(checks, told):
    """Return what some checks find, with what it was found in."""
    return [
        f"{told}: {check.__name__}: {found}\n{format_timeline(connection)}"
        for moment in MOMENTS
        for connection in analysed(told, moment)
        for check in checks
        for found in check(connection)
    ]


@pytest.mark.parametrize(
    ("name", "conversation"), [(name, one) for name, several in ONCE.items() for one in several]
)
def test_a_conversation_that_once_was_told_with_a_contradiction(name, conversation):
    assert contradictions([check for check in CHECKS if check.__name__ == name], read(conversation)) == []


@pytest.mark.parametrize("conversation", RAISED.values(), ids=RAISED)
def test_a_conversation_that_once_raised_an_exception(conversation):
    assert [connection.findings for connection in analysed(read(conversation), 0)]


segments = st.tuples(
    st.integers(0, 1),
    st.sampled_from(KINDS),
    st.sampled_from((0, 0, 0, *ODD)),
    st.sampled_from((0, 0, 0, *ODD)),
)
told = st.builds(
    lambda several, stamps, gap: Told(numbered(several), stamps, gap),
    st.lists(segments, min_size=1, max_size=6),
    st.sampled_from(STAMPS),
    st.sampled_from(list(GAPS_NS)),
)


@given(told)
def test_nothing_that_is_said_contradicts_itself(one):
    assert contradictions(CHECKS, one) == []


def test_every_check_says_what_it_is_about_and_the_list_names_checks():
    assert set(ONCE) <= {check.__name__ for check in CHECKS}
    assert all(check.__doc__ for check in CHECKS)


def test_a_sample_of_all_short_conversations_brings_no_other_kind_of_trouble():
    command = [sys.executable, "scripts/enumerate_conversations", "--sample", "300", "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert re.search(r"^300 conversations, ", done.stdout, re.MULTILINE), done.stderr
    assert not re.findall(r"^\w+: .*\n  [\d,]+ times, first: ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize(
    "text", ["C:S@0 S:SA@0,1 C:A@1,1", "stamps=stale gap=70s S:R@-1 C:AP@2,-1", "stamps=fresh C:FA@1,1"]
)
def test_a_conversation_is_read_as_it_is_written(text):
    assert str(read(text)) == text
