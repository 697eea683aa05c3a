"""Every word is explained, and the vocabulary, the rules and the states are equal."""

from __future__ import annotations

import pytest

from closeseq.errors import UnknownWordError
from closeseq.tcp.states import State
from closeseq.verdict import Severity
from closeseq.verdict.ending import RULES as VERDICTS
from closeseq.verdict.fault import CODE as NOT_JUDGED
from closeseq.verdict.judgement import RULES as FINDINGS
from closeseq.verdict.model import PopulationCode
from closeseq.verdict.vocabulary import entries, lookup

PROBLEMS = {
    *("stuck-close-wait", "stuck-fin-wait-2", "stuck-fin-wait-1", "stuck-last-ack", "stuck-closing"),
    *("half-open", "final-ack-lost", "time-wait-assassinated", "data-after-close"),
    *("keepalive-race", "idle-cut", "half-close-cut", "accept-queue-full", "blocked-by-old-connection"),
}
NOTICES = {
    *("fin-lost", "time-wait-restarted", "time-wait-reused", "bind-blocked", "half-close", "slow-close"),
    *("reset-cause", "challenge-ack", "keepalive", "three-segment-close", "fin-with-data"),
    *("capture-incomplete", "duplicate-packets", "slow-open", "never-accepted"),
}


def of(kind: str) -> set[str]:
    return {entry.code for entry in entries() if entry.kind == kind}


def test_every_state_verdict_and_finding_has_an_entry_and_a_rule():
    assert of("state") == {state.value for state in State}
    assert of("verdict") == set(VERDICTS) | {NOT_JUDGED}
    assert of("finding") == set(FINDINGS) == PROBLEMS | NOTICES
    assert of("finding of many connections") == set(PopulationCode)
    assert len({one.code for one in entries()}) == len(entries())


def test_the_severities():
    graves = {entry.code: entry.severity for entry in entries()}
    assert {code for code, severity in graves.items() if severity is Severity.PROBLEM} == PROBLEMS | {
        *("forgotten-by-nat", "port-pressure", "timeouts-in-wrong-order"),
    }
    assert {code for code, severity in graves.items() if severity is Severity.NOTICE} == NOTICES | {
        *("idle-timeout", "resets-by-habit"),
    }


@pytest.mark.parametrize("entry", entries(), ids=[entry.code for entry in entries()])
def test_an_entry_is_worth_reading(entry):
    assert entry.meaning
    assert "\n" not in entry.meaning
    assert not entry.meaning.endswith(".")
    assert len(entry.meaning) < 100
    assert len(entry.explanation) > 100
    assert all(paragraph and "\n" not in paragraph for paragraph in entry.explanation.split("\n\n"))
    assert entry.advice or entry.kind != "finding" or entry.severity is Severity.NOTICE


@pytest.mark.parametrize("word", ["CLOSE_WAIT", "close-wait", "Close Wait", "CLOSE-WAIT", " close_wait "])
def test_a_word_is_found_however_it_is_written(word):
    assert lookup(word).code == "CLOSE_WAIT"


@pytest.mark.parametrize("entry", entries(), ids=[f"{entry.kind}-{entry.code}" for entry in entries()])
def test_every_entry_is_found_by_its_own_code(entry):
    assert lookup(entry.code) is entry


def test_the_state_and_the_verdict_that_differ_in_case_only():
    assert (lookup("CLOSING").kind, lookup("closing").kind, lookup("Closing").kind) == (
        "state",
        "verdict",
        "state",
    )


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("ESTAB", "ESTABLISHED"),
        ("SYN-RECV", "SYN_RECEIVED"),
        ("FIN_WAIT2", "FIN_WAIT_2"),
        ("2MSL", "TIME_WAIT"),
    ],
)
def test_words_of_other_tools(word, code):
    assert lookup(word).code == code


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("CLOSEWAIT", "CLOSE_WAIT"),
        ("stuck", "stuck-close-wait"),
        ("gracefull", "graceful"),
        ("wait", "TIME_WAIT"),
    ],
)
def test_an_unknown_word_names_the_nearest(word, near):
    with pytest.raises(UnknownWordError, match=near):
        lookup(word)


def test_a_word_like_no_other():
    with pytest.raises(UnknownWordError, match="lists all"):
        lookup("xyzzy")
    with pytest.raises(UnknownWordError):
        lookup("")
