"""`closeseq report` on the command line: where the page goes, and the exit status."""

from __future__ import annotations

import shlex

import pytest

from capture_files import pcap
from chain_files import packets_of
from closeseq.cli import report_run
from closeseq.cli.main import run
from closeseq.cli.report_run import timeline_command
from closeseq.cli.requests import ReadOptions
from pages import Parsed, written
from places import CAPTURES

LEAKY = str(CAPTURES / "leaky-server.pcap")


def test_it_is_written_to_a_file_that_is_not_there_yet(tmp_path, capsys):
    path = tmp_path / "report.html"
    assert run(["report", LEAKY, "-o", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("3 sockets in CLOSE_WAIT when the capture ended, at the server 127.0.0.1:8080.")
    assert said.endswith(f"{path}: 5 connections with ladder, evidence and record")
    assert path.read_text().startswith("<!doctype html>")
    before = path.read_bytes()
    assert run(["report", LEAKY, "-o", str(path)]) == 2
    assert "exists already; --force overwrites it" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run(["report", LEAKY, "-o", str(path), "--force", "--stuck-after", "2"]) == 0
    assert path.read_bytes() != before


def test_without_a_file_it_goes_to_standard_output_but_to_no_terminal(capsys, monkeypatch):
    assert run(["report", LEAKY]) == 0
    assert Parsed(capsys.readouterr().out).of("h1")
    monkeypatch.setattr(report_run.sys.stdout, "isatty", lambda: True, raising=False)
    assert run(["report", LEAKY]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "name a file with -o report.html" in told.err


def test_the_exit_status_tells_what_was_found(tmp_path):
    stuck = ["--stuck-after", "2", "--fail-on"]
    written(tmp_path, LEAKY, *stuck, "stuck-close-wait", status=1)
    written(tmp_path, LEAKY, *stuck, "reset", status=1)
    written(tmp_path, LEAKY, *stuck, "half-open,graceful", status=0)


def test_of_a_capture_that_is_cut_short_what_was_read_is_shown(tmp_path, capsys):
    path = tmp_path / "cut.pcap"
    path.write_bytes((CAPTURES / "leaky-server.pcap").read_bytes()[:-5])
    page = Parsed(written(tmp_path, path, status=3)[1])
    assert any(one.startswith("not read to its end: ") for one in page.of("li"))
    assert len(page.json("data")["table"]["columns"]["id"]) == 5
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"no capture at all, but text"])
def test_no_page_is_written_about_what_is_no_capture(tmp_path, capsys, content):
    path, out = tmp_path / "x.pcap", tmp_path / "report.html"
    if content is not None:
        path.write_bytes(content)
    assert run(["report", str(path), "-o", str(out)]) == 3
    assert not out.exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_captures_that_overlap_are_refused(tmp_path, capsys):
    twice = [tmp_path / "a.pcap", tmp_path / "b.pcap"]
    for path in twice:
        path.write_bytes(pcap(packets_of("leaky-server.pcap"), nano=True))
    assert run(["report", *map(str, twice), "-o", str(tmp_path / "r.html")]) == 2
    assert "overlap in time; report shows one capture" in capsys.readouterr().err


def test_only_what_is_asked_for_is_shown(tmp_path):
    page = Parsed(written(tmp_path, LEAKY, "--verdict", "reset")[1])
    assert page.json("record")["count"] == 2
    page = Parsed(written(tmp_path, LEAKY, "-p", "9")[1])
    assert page.of("h1") == ["No TCP packets of port 9; server ports seen: 8080 (5 connections)."]


def test_the_command_for_other_connections_numbers_them_in_the_same_way():
    usual = timeline_command(("a b.pcap",), ReadOptions())
    assert usual == "closeseq timeline 'a b.pcap'"
    options = ReadOptions((80, 443), ("::1",), 9, 2.5, "bsd", 30.0, None)
    told = timeline_command(("x",), options)
    assert timeline_command(("-x", "-"), ReadOptions(stuck_after=100_000.25)) == (
        "closeseq timeline ./-x - --stuck-after 100000.25"
    )
    assert told == (
        "closeseq timeline x -p 80 -p 443 --host ::1 --count 9 --stuck-after 2.5 --os bsd --time-wait 30"
    )


def test_that_command_runs(tmp_path, capsys):
    page = Parsed(written(tmp_path, LEAKY, "--stuck-after", "2", "--ladders", "0", "-p", "8080")[1])
    words = shlex.split(page.json("data")["command"])
    assert words[0] == "closeseq"
    assert run([*words[1:], "--connection", "3"]) == 0
    assert "stuck-close-wait" in capsys.readouterr().out
