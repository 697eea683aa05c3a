"""Other people's words: each is found, its shapes are what it says, and its command runs."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

import closeseq
from closeseq.cli.main import cli
from closeseq.errors import ScriptError
from closeseq.verdict import vocabulary
from closeseq.verdict.model import ErrorCode
from closeseq.verdict.vocabulary.foreign import foreign
from closeseq.verdict.vocabulary.foreign_entries import FOREIGN
from places import CAPTURES

IDS = [f"{entry.tool}-{entry.word}" for entry in FOREIGN]
SHAPES = [(entry, shape) for entry in FOREIGN for shape in entry.shapes]
LATER = 90  # seconds after the beginning: what is retransmitted no more has been given up


def now_of(entry):
    return 5 if entry.error == "EADDRINUSE" else LATER  # while TIME_WAIT lasts


def explained(*words):
    return CliRunner().invoke(cli, ["explain", *words])


@pytest.mark.parametrize("entry", FOREIGN, ids=IDS)
def test_an_entry_is_worth_reading(entry):
    assert not entry.meaning.endswith(".")
    assert len(entry.meaning) < 100
    assert entry.source
    assert entry.codes
    for code in entry.codes:
        assert vocabulary.lookup(code).code == code


@pytest.mark.parametrize("entry", FOREIGN, ids=IDS)
def test_every_way_to_write_it_is_explained(entry):
    for word in entry.words:
        assert entry in foreign(word)
        done = explained(word)
        assert done.exit_code == 0
        assert f"{entry.word} ({entry.tool})" in " ".join(done.output.split())
        assert max(map(len, done.output.splitlines())) <= 100


@pytest.mark.parametrize("entry", FOREIGN, ids=IDS)
def test_no_word_hides_a_word_of_closeseqs_own(entry):
    for word in entry.words:
        with pytest.raises(closeseq.UnknownWordError):
            vocabulary.lookup(word)


@pytest.mark.parametrize(("entry", "shape"), SHAPES, ids=[f"{e.word}: {shape}" for e, shape in SHAPES])
def test_a_shape_has_one_of_its_codes(entry, shape):
    script = shape.replace("C:S C:S C:S", "C:S +1s C:S* +2s C:S*").replace("~ S:R", "C:PA+100 S:R")
    connection = closeseq.from_script(script, now=now_of(entry))
    has = {connection.verdict, *(finding.code for finding in connection.findings)}
    assert has & set(entry.codes)
    assert connection.shape == shape


@pytest.mark.parametrize("entry", [e for e in FOREIGN if e.tool == "Zeek conn_state"], ids=lambda e: e.word)
def test_a_shape_of_zeeks_has_zeeks_state(entry):
    (shape,) = entry.shapes
    assert closeseq.record(closeseq.from_script(shape))["aka"]["zeek_conn_state"] == entry.word


def test_all_of_zeeks_states_are_known():
    states = {"S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH"}
    assert {entry.word for entry in FOREIGN if entry.tool == "Zeek conn_state"} == states


@pytest.mark.parametrize("entry", [e for e in FOREIGN if e.error], ids=lambda e: e.word)
def test_a_shape_of_an_error_brings_it_about(entry):
    for shape in entry.shapes:
        script = shape.replace("C:S C:S C:S", "C:S +1s C:S* +2s C:S*")
        now = LATER if "+1s" in script else None
        assert entry.error in {error.code for error in closeseq.from_script(script, now=now).errors}


def test_every_error_that_closeseq_derives_is_explained():
    assert {entry.error for entry in FOREIGN if entry.error} == set(ErrorCode)


@pytest.mark.parametrize("entry", FOREIGN, ids=IDS)
def test_its_command_runs(entry):
    words = shlex.split(entry.command.split(" | ")[0].replace("FILE", str(CAPTURES / "refused.pcap")))
    assert words[0] == "closeseq"
    assert CliRunner().invoke(cli, words[1:]).exit_code == 0


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("read tcp 10.0.0.1:52148->10.0.0.2:443: read: connection reset by peer", "ECONNRESET"),
        ("write: Broken pipe (32)", "EPIPE"),
        ("Error: connect ECONNREFUSED 127.0.0.1:5432", "ECONNREFUSED"),
        ("OSError: [Errno 98] Address already in use", "EADDRINUSE"),
        ("upstream timed out (110: Connection timed out) while reading", "ETIMEDOUT"),
        ("recv() failed (104: Connection reset by peer) while reading response", "ECONNRESET"),
        (
            "upstream prematurely closed connection while reading response header from upstream",
            "upstream prematurely closed connection",
        ),
        ("ssl.SSLEOFError: EOF occurred in violation of protocol (_ssl.c:1007)", None),
        ("tcp-rst-from-server,allow,443", "tcp-rst-from-server"),
    ],
)
def test_a_line_of_a_log(line, word):
    found = foreign(line)
    assert len(found) == 1
    assert word in {found[0].word, None}


@pytest.mark.parametrize("text", ["", "xyzzy", "nothing known", "reset", "a502b", "502nd"])
def test_a_text_that_means_nothing(text):
    assert foreign(text) == []


def test_case_where_it_matters():
    assert [entry.meaning for entry in foreign("cD")] != [entry.meaning for entry in foreign("CD")]
    assert len(foreign("cd")) == 2


def test_one_code_of_several_tools():
    assert {entry.tool for entry in foreign("SH")} == {"Zeek conn_state", "HAProxy termination state"}
    assert explained("SH").output.count("Source: ") == 2


def test_a_phrase_without_quotes():
    assert explained("connection", "reset", "by", "peer").output.startswith("ECONNRESET ")
    assert explained("RSTO", "reset").output.count("(verdict)") == 1


def test_explain_without_a_word_lists_them_too():
    shown = explained().output
    for entry in FOREIGN:
        assert f"  {entry.word} " in shown


def test_a_script_is_no_word():
    with pytest.raises(ScriptError):
        closeseq.from_script("RSTO")
