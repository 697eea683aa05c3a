"""`analyze --why ERROR`: which program got an error, in which connection, at which packet."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from closeseq.cli.main import cli
from places import CAPTURES


def why(name, error, *more):
    return CliRunner().invoke(cli, ["analyze", str(CAPTURES / name), "--why", error, *more])


def test_it_shows_program_connection_packet_and_cause():
    done = why("data-after-close.pcap", "EPIPE")
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert "EPIPE in 1 connection" in text
    assert "1 at the server 127.0.0.1:8080" in text
    assert "EPIPE at the server by #9 (assumed): the server received RST #9 in CLOSE_WAIT" in text
    assert "RST #9 from the client" in text
    assert "What it means: closeseq explain EPIPE" in text


def test_where_nobody_got_it_it_names_what_they_got():
    done = why("data-after-close.pcap", "ECONNRESET")
    assert "No program got ECONNRESET, as far as these packets show." in done.output
    assert "EPIPE (1 connection)" in done.output


def test_where_nobody_got_any():
    done = why("client-closes.pcap", "ECONNRESET")
    assert "No program got ECONNRESET" in done.output
    assert "Errors that" not in done.output


@pytest.mark.parametrize("text", ["econnrefused", "connection refused", "EPIPE,ECONNREFUSED"])
def test_an_error_may_be_written_as_a_program_prints_it(text):
    assert "ECONNREFUSED at the client by #2" in why("refused.pcap", text).output


@pytest.mark.parametrize("text", ["EAGAIN", "socket hang up", "RSTO", ""])
def test_what_is_no_such_error_is_refused(text):
    done = why("refused.pcap", text)
    assert done.exit_code == 2
    assert "ECONNRESET, EPIPE" in " ".join(done.output.split())


def test_other_formats_show_the_same_connections():
    assert len(why("leaky-server.pcap", "EPIPE", "-f", "jsonl").output.splitlines()) == 1
    assert json.loads(why("leaky-server.pcap", "EPIPE", "-f", "jsonl").output)["id"] == 1


def test_no_more_than_the_limit():
    done = why("refused.pcap", "ECONNREFUSED", "--limit", "0")
    assert "1 more connections" in done.output
    assert "by #2" not in done.output
