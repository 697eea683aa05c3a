"""The commands' smaller duties, within this process."""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import contextmanager, redirect_stderr
from select import select

import click
import pytest
from click.testing import CliRunner

from closeseq import format_timeline
from closeseq.cli import main
from closeseq.cli.analyze_run import timelines
from closeseq.cli.main import cli
from closeseq.cli.options import Moment, moment
from closeseq.cli.terminal import Progress, progress_text
from closeseq.report.selection import Selection, Wanted
from closeseq.report.text import Style
from closeseq.verdict import vocabulary
from places import CAPTURES
from report_examples import MadeAnalysis, close_wait, lost_final_ack

CLEAN = CAPTURES / "client-closes.pcap"
NS = 1_000_000_000


def run(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["analyze", "timeline", "states", "diff", "explain"])
def test_every_command_has_help_with_examples(command):
    done = run(command, "--help")
    assert done.exit_code == 0
    assert "Examples:" in done.output
    assert f"closeseq {command}" in done.output


def test_the_help_names_every_command_and_the_exit_statuses():
    done = run("--help")
    for word in ("analyze", "timeline", "states", "explain", "Exit status: 0 done; 1 done"):
        assert word in done.output
    assert "live" in done.output


def test_every_option_is_explained():
    for name, command in cli.commands.items():
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)


@pytest.mark.parametrize("entry", vocabulary.entries(), ids=lambda entry: entry.code)
def test_every_word_is_explained(entry):
    done = run("explain", entry.code)
    assert done.exit_code == 0
    assert done.output.startswith(entry.code)
    assert max(map(len, done.output.splitlines())) <= 100
    assert set(entry.explanation.split()) <= set(done.output.split())
    assert set(entry.advice.split()) <= set(done.output.split())


def test_explain_without_a_word_lists_all_of_them():
    done = run("explain")
    assert done.exit_code == 0
    for entry in vocabulary.entries():
        assert f"  {entry.code} " in done.output


def test_explain_heads_each_kind_of_words():
    headings = [line for line in run("explain").output.splitlines() if line and not line.startswith(" ")]
    assert headings[:4] == ["states", "verdicts", "findings", "findings of many connections"]


def test_an_option_suggests_only_what_it_takes():
    done = run("analyze", CLEAN, "--verdict", "clos")
    assert "did you mean closing?" in done.output  # and no CLOSE_WAIT, which it would refuse
    done = run("analyze", CLEAN, "--finding", "leak")
    assert "did you mean" not in done.output


@pytest.mark.parametrize("command", [["analyze"], ["timeline"], ["states"], ["report"], ["diff", CLEAN]])
def test_whether_a_capture_may_be_read_shows_when_it_is_opened(command, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may read everything
    assert run(*command, CLEAN).exit_code == 0


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.EMFILE, "-", "/some/module.py"), 2, "too many files are open; a higher limit helps"),
        (OSError(errno.ENOMEM, "-"), 2, "memory ran out; fewer connections"),
        (MemoryError("Unable to allocate 1.00 MiB"), 70, "memory ran out; fewer connections"),
    ],
)
def test_what_the_system_has_no_more_of_is_one_line_with_what_helps(error, status, said, monkeypatch, capfd):
    def refused(_arguments):
        raise error

    monkeypatch.setattr(main, "_run", refused)
    assert main.run([]) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"closeseq: {said}")


def test_explain_suggests_what_may_have_been_meant():
    done = run("explain", "CLOSE_WIAT")
    assert done.exit_code == 2
    assert "CLOSE_WAIT" in done.output
    assert done.output.startswith("closeseq: ")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("end", Moment()),
        ("12.5", Moment(offset_ns=12_500_000_000)),
        ("0", Moment(offset_ns=0)),
        ("0.000000001", Moment(offset_ns=1)),
        ("1e3", Moment(offset_ns=1000 * NS)),
        ("1970-01-01T00:00:01Z", Moment(time_ns=NS)),
        ("1970-01-01T00:00:01.000000001Z", Moment(time_ns=NS + 1)),
        ("1970-01-01 00:00:01.5", Moment(time_ns=1_500_000_000)),
        ("1970-01-01T01:00:01.25+01:00", Moment(time_ns=1_250_000_000)),
        ("1970-01-01T00:00:01,5Z", Moment(time_ns=1_500_000_000)),
        ("1970-01-01T00:00:01.1234567899", Moment(time_ns=1_123_456_789)),
    ],
)
def test_a_moment_is_read_to_the_nanosecond(text, meant):
    assert moment(text) == meant


@pytest.mark.parametrize(
    "text", ["", "now", "-1", "nan", "inf", "2026-13-01T00:00:00", "T", "12:18", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(click.BadParameter):
        moment(text)


def test_a_moment_counts_from_the_first_packet_or_is_the_last():
    assert Moment().within(5, 9) == 9
    assert Moment(offset_ns=2).within(5, 9) == 7
    assert Moment(time_ns=2).within(5, 9) == 2


def test_states_shows_the_table_of_a_real_capture_at_any_moment():
    done = run("states", CLEAN, "--at", "0.000001")
    assert done.exit_code == 0
    assert "SYN_SENT" in done.output
    done = run("states", CLEAN)
    assert done.exit_code == 0
    assert "TIME_WAIT" in done.output
    told = json.loads(run("states", CLEAN, "-f", "json", "--all").output)
    assert {socket["state"] for socket in told["sockets"]} == {"TIME_WAIT", "CLOSED"}


def test_after_the_capture_nothing_is_known_and_before_it_there_is_nothing():
    done = run("states", CLEAN, "--at", "999999")
    assert done.exit_code == 0
    assert "shown is its end" in done.stderr
    done = run("states", CLEAN, "--at", "1970-01-01T00:00:00Z")
    assert "the capture began" in done.stderr
    assert "0 sockets" in " ".join(done.stdout.split())


def test_states_of_what_cannot_be_read_is_status_3(tmp_path):
    assert run("states", tmp_path / "missing.pcap").exit_code == 3


def test_the_bar_shows_how_much_is_read_or_how_far_if_the_size_is_not_known():
    assert progress_text("x.pcap", 50, 100) == f"reading x.pcap [{'#' * 15}{'-' * 15}]  50%"
    assert progress_text("x.pcap", 200, 100).endswith("] 100%")
    assert progress_text("x.pcap", 12_345_678, None) == "reading x.pcap  12.3 MB"


@contextmanager
def error_on_a_terminal():
    """Put standard error on a terminal for a while; gives what is written there so far."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    with (
        os.fdopen(slave, "w") as stream,
        os.fdopen(master, "rb", buffering=0) as screen,
        redirect_stderr(stream),
    ):

        def seen() -> str:
            told = b""
            while select([screen], [], [], 0.3)[0]:  # a terminal hands over in pieces
                told += screen.read(65536)
            return told.decode()

        yield seen


def test_the_bar_waits_until_it_is_worth_it_and_leaves_nothing_behind():
    with error_on_a_terminal() as seen:
        before = time.monotonic()
        bar = Progress("long.pcap")
        assert bar.due > before
        bar.due = before + 1000  # however busy the machine is
        bar(10, 100)
        assert seen() == ""
        bar.due = 0.0
        bar(50, 100)
        assert seen() == f"\rreading long.pcap [{'#' * 15}{'-' * 15}]  50%"
        bar.clear()
        blank = seen()
    assert blank.strip("\r ") == ""
    assert blank.endswith("\r")


def test_without_a_terminal_there_is_no_bar(capsys):
    bar = Progress("long.pcap")
    bar.due = 0.0
    bar(50, 100)
    bar.clear()
    assert capsys.readouterr().err == ""


def numbers(lines):
    return [int(line[1 : line.index(" ")]) for line in lines if line.startswith("#")]


def many(count):
    connections = [close_wait(number=number) for number in range(1, count + 1)]
    for i in (6, 17):
        connections[i] = close_wait(number=i + 1, reported=True)
    return MadeAnalysis(connections)


def test_a_few_timelines_are_all_shown_in_order():
    text = "\n".join(timelines(Selection(many(20)), Style(), 20))
    assert numbers(text.splitlines()) == [*range(1, 21)]
    assert "not shown" not in text


def test_of_too_many_timelines_those_with_a_problem_come_first_and_the_rest_is_counted():
    text = "\n".join(timelines(Selection(many(30)), Style(), 5))
    assert numbers(text.splitlines()) == [7, 18, 1, 2, 3]
    assert "25 of 30 connections are not shown" in text
    assert len(numbers("\n".join(timelines(Selection(many(30)), Style(), None)).splitlines())) == 30


def test_connections_asked_for_by_number_are_all_shown():
    wanted = Wanted(ids=frozenset({3, 5, 8}))
    text = "\n".join(timelines(Selection(many(30), wanted), Style(), 1))
    assert numbers(text.splitlines()) == [3, 5, 8]


def test_one_timeline_is_the_same_as_in_the_library():
    connection = lost_final_ack()
    text = "\n".join(timelines(Selection(MadeAnalysis([connection])), Style(), 20))
    assert text + "\n" == format_timeline(connection)
