"""Every command on narrow terminals: nothing is wider, and no word is broken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache

import pytest

from closeseq.cli.terminal import progress_text as progress
from closeseq.cli.terminal import status_text
from closeseq.tcp.states import State
from forked import DEVNULL, Forked
from live_namespace import PATIENCE, ROOT, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from terminal import drain, opened, written

CAPTURES = ("leaky-server", "final-ack-lost", "linger-zero")
COMMANDS = [
    *(["analyze", f"captures/{name}.pcap", "--stuck-after", "2"] for name in CAPTURES),
    *(["analyze", f"captures/{name}.pcap", "-f", "table"] for name in CAPTURES),
    *(["timeline", f"captures/{name}.pcap"] for name in CAPTURES),
    *(["states", f"captures/{name}.pcap", "--all"] for name in CAPTURES),
    ["states", "captures/leaky-server.pcap", "--at", "99999"],
    ["analyze", "captures/leaky-server.pcap", "-p", "9"],
    ["analyze", "no-such-file.pcap"],
    ["explain"],
    ["explain", "stuck-close-wait", "CLOSE_WAIT", "reset"],
    ["lab", "list"],
]
HELPED = (
    [],
    ["analyze"],
    ["timeline"],
    ["states"],
    ["live"],
    ["follow"],
    ["lab"],
    ["lab", "run"],
    ["explain"],
)


ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "TERM"}}
STACKED = {"closed", "lasted", "client", "server"}  # where a row has no room, these name what columns named


def on_a_terminal(arguments, columns):
    """Return what a command writes to a terminal, run in a forked process."""
    with opened(columns) as (ours, theirs):
        process = Forked(arguments, env=ENVIRONMENT, stdin=DEVNULL, stdout=theirs, stderr=theirs, cwd=ROOT)
        os.close(theirs)
        shown = drain(ours)
        process.wait()
    return shown


@cache
def on_a_wide_terminal(*arguments):
    return on_a_terminal(arguments, 400)


HELP = """
import json, sys
from closeseq.cli.main import run
for arguments in json.loads(sys.argv[1]):
    assert run([*arguments, "--help"]) == 0
    print("\\f", end="")
"""


@cache
def all_help(columns):
    """Return what --help writes, by command; from a new process, since its width is found by an import."""
    command = [sys.executable, "-c", HELP, json.dumps(HELPED)]
    with (
        opened(columns) as (ours, theirs),
        subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT, env=ENVIRONMENT) as process,
    ):
        os.close(theirs)
        shown = drain(ours)
        assert process.wait(PATIENCE) == 0, shown
    return dict(zip(map(tuple, HELPED), shown.split("\f"), strict=False))


def words(text):
    found = re.findall(r"[\w.:/'-]{3,}", "\n".join(written(text)))
    return {word.strip(".:'") for word in found}


@pytest.mark.parametrize("columns", [60, 40])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_what_is_printed_fits_and_has_no_word_that_wide_lines_have_not(arguments, columns):
    shown = on_a_terminal(arguments, columns)
    assert [line for line in written(shown) if len(line) > columns] == []
    assert len(words(shown)) > 3
    assert words(shown) <= words(on_a_wide_terminal(*arguments)) | STACKED


@pytest.mark.parametrize("columns", [100, 60, 40])
@pytest.mark.parametrize("arguments", HELPED, ids=" ".join)
def test_of_help_only_commands_to_be_copied_and_choices_are_wider(arguments, columns):
    lines = written(all_help(columns)[tuple(arguments)])
    wide = [line.strip() for line in lines if len(line) > columns]
    assert [
        line for line in wide if not re.match(r"(sudo |(tcpdump|find) .*)?closeseq |tcpdump |-.*\[.*\|", line)
    ] == []
    known = words(all_help(400)[tuple(arguments)])
    assert {one for one in words("\n".join(lines)) if one not in known and not one.endswith("...")} == set()


LIVE_SOCKETS = {State.TIME_WAIT: 12_304, State.CLOSE_WAIT: 3, State.ESTABLISHED: 60, State.FIN_WAIT_2: 3}


def status(width, **changed):
    told = {"packets": 84_012, "lost": 0, "open_": 37, "sockets": LIVE_SOCKETS, "backlog": 0} | changed
    return status_text("lo", "12:18:06", **told, width=width)


def test_the_status_line_counts_connections_and_sockets_apart():
    assert status(200) == (
        "lo 12:18:06  84,012 packets, 0 lost  37 connections open  "
        "sockets: CLOSE_WAIT 3, FIN_WAIT_2 3, ESTABLISHED 60, TIME_WAIT 12,304"
    )


def test_the_status_line_leaves_out_time_wait_before_anything_else_and_close_wait_last():
    order = ["TIME_WAIT", "ESTABLISHED", "packets", "FIN_WAIT_2", "CLOSE_WAIT"]
    gone = {word: max(width for width in range(201) if word not in status(width)) for word in order}
    assert sorted(order, key=lambda word: -gone[word]) == order
    for width in range(201):
        assert len(status(width)) <= width
        assert not re.search(r"\b(CLOSE|TIME|FIN)$", status(width))


def test_the_status_line_tells_of_what_was_lost_and_what_is_still_to_be_written():
    for width in (200, 79, 59, 39):
        told = status(width, lost=17, backlog=1_234)
        assert "17 lost" in told
        assert "1,234 to be written" in told


def test_the_progress_bar_leaves_out_its_bar_and_then_the_name():
    assert progress("web.pcap", 50, 100, 79).startswith("reading web.pcap [#####")
    assert progress("web.pcap", 50, 100, 39) == "reading web.pcap  50%"
    assert progress("a-very-long-name-of-a-capture.pcap", 50, 100, 39) == "50% read"
    assert progress("a-very-long-name-of-a-capture.pcap", 5_000_000, None, 39) == "5.0 MB read"


@needs_network
@pytest.mark.parametrize("columns", [60, 40])
def test_blocks_status_line_and_messages_of_live_fit(net, columns):
    options = ("-p", "8080", "-p", "8081", "--stuck-after", "1", "--every", "1")
    with (
        opened(columns) as (ours, theirs),
        net.live(*options, stdout=theirs, stderr=theirs, env=ENVIRONMENT) as process,
    ):
        os.close(theirs)
        net.wait_for_capture(process)
        time.sleep(0.5)
        net.talk()
        with net.talking(wait=4):
            time.sleep(3)
            process.send_signal(signal.SIGINT)
            shown = drain(ours)
            process.wait(PATIENCE)
    lines = written(shown)
    assert [line for line in lines if len(line) > columns] == []
    text = " ".join(" ".join(lines).split())
    for told in ("Ctrl-C ends it", "stuck-close-wait", "kernel server: CLOSE_WAIT", "connections seen"):
        assert told in text
    assert re.search(r"\d open sockets: CLOSE_WAIT 1", text)


@needs_network
def test_the_width_is_that_of_the_terminal_though_the_report_goes_elsewhere(net, tmp_path):
    with (
        opened(50) as (ours, theirs),
        (tmp_path / "out.jsonl").open("w") as out,
        net.live("-p", "8080", "-f", "jsonl", stdout=out, stderr=theirs, env=ENVIRONMENT) as process,
    ):
        os.close(theirs)
        net.wait_for_capture(process)
        net.talk()
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        shown = drain(ours)
    assert any("open" in line for line in written(shown))
    assert [line for line in written(shown) if len(line) > 50] == []
