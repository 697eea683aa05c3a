"""The command as it is used: real processes, real files, exit statuses, pipes and terminals.

Where the interpreter and its imports make no difference, the process is forked.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from forked import DEVNULL, PIPE, Forked, run_forked
from places import CAPTURES, ROOT

LEAKY = CAPTURES / "leaky-server.pcap"
CLEAN = CAPTURES / "client-closes.pcap"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT),
    "LC_ALL": "C.UTF-8",
}
COMMAND = [sys.executable, "-m", "closeseq"]


def closeseq(*arguments, stdin=None, cwd=None):
    return run_forked(arguments, env=ENVIRONMENT, sent=stdin, cwd=cwd)


def started(*arguments, environment):
    """Run it as it is usually run: with an interpreter of its own, which looks at its environment itself."""
    command, environment = [*COMMAND, *map(str, arguments)], ENVIRONMENT | environment
    return subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)


def out(done):
    return done.stdout.decode()


def err(done):
    return done.stderr.decode()


def cut(tmp_path, by=10):
    """Make a capture whose last record is cut short."""
    path = tmp_path / "cut.pcap"
    path.write_bytes(LEAKY.read_bytes()[:-by])
    return path


def test_analyze_names_the_program_to_fix_on_its_first_lines():
    done = closeseq("analyze", LEAKY, "--stuck-after", "0.5")
    assert (done.returncode, err(done)) == (0, "")
    head = "\n".join(out(done).splitlines()[:8])
    assert "stuck-close-wait" in head
    assert ":8080" in head


@pytest.mark.parametrize("form", ["summary", "table", "timeline", "json", "jsonl", "csv"])
def test_every_format_reports_a_sound_capture_with_status_0(form):
    done = closeseq("analyze", CLEAN, "-f", form)
    assert (done.returncode, err(done)) == (0, "")
    assert "graceful" in out(done)


def test_timeline_is_the_timeline_format():
    assert out(closeseq("timeline", CLEAN)) == out(closeseq("analyze", CLEAN, "--format", "timeline"))


def test_standard_input_is_read_like_a_file():
    done = closeseq("analyze", "-", "-f", "jsonl", stdin=CLEAN.read_bytes())
    told = [json.loads(line) for line in out(done).splitlines()]
    assert [(record["capture"], record["verdict"]) for record in told] == [("-", "graceful")]


def test_standard_input_cannot_be_read_twice():
    done = closeseq("analyze", "-", "-", stdin=b"")
    assert (done.returncode, err(done)) == (2, "closeseq: standard input can be read only once\n")


def test_a_cut_capture_is_reported_whole_and_well_formed_and_ends_with_status_3(tmp_path):
    done = closeseq("analyze", cut(tmp_path), "-f", "json")
    assert done.returncode == 3
    told = json.loads(out(done))
    assert told["connections"]
    assert told["error"].startswith(str(tmp_path))
    assert err(done).startswith("closeseq: ")
    assert err(done).count("\n") == 1


def test_a_capture_that_cannot_be_read_does_not_keep_the_others_from_being_done(tmp_path):
    junk = tmp_path / "junk.pcap"
    junk.write_bytes(b"this is no capture at all")
    done = closeseq("analyze", junk, CLEAN, tmp_path / "missing.pcap", "-f", "jsonl")
    assert done.returncode == 3
    assert [json.loads(line)["capture"] for line in out(done).splitlines()] == [str(CLEAN)]
    assert err(done).count("\n") == 2
    assert "junk.pcap" in err(done)
    assert "missing.pcap" in err(done)


def test_several_captures_are_a_list_in_json_and_named_in_each_line_of_jsonl():
    told = json.loads(out(closeseq("analyze", LEAKY, CLEAN, "-f", "json")))
    assert [one["capture"] for one in told["captures"]] == [str(CLEAN)]  # LEAKY continues it
    assert [one["name"] for one in told["captures"][0]["files"]] == [str(CLEAN), str(LEAKY)]
    told = json.loads(out(closeseq("analyze", LEAKY, CLEAN, "-f", "json", "--each")))
    assert [one["capture"] for one in told["captures"]] == [str(LEAKY), str(CLEAN)]
    lines = out(closeseq("analyze", CLEAN, LEAKY, "-f", "jsonl")).splitlines()
    assert {json.loads(line)["capture"] for line in lines} == {str(CLEAN), str(LEAKY)}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1"], ids=ascii)
def test_no_cell_of_csv_begins_as_a_formula_does(name, tmp_path):
    shutil.copy(CLEAN, tmp_path / name)
    rows = list(csv.reader(io.StringIO(out(closeseq("analyze", "-f", "csv", "--", name, cwd=tmp_path)))))
    assert len(rows) == 2
    texts = [cell for cell in rows[1] if not re.fullmatch(r"-?\d+(\.\d+)?(e-\d+)?", cell)]
    assert not [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert rows[1][0] == (f"'{name}" if name[0] in "=+-@" else ascii(name)[1:-1])


def test_csv_has_one_header_for_several_captures():
    lines = out(closeseq("analyze", CLEAN, CLEAN, "-f", "csv")).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("capture,id,")


def test_fail_on_gives_status_1_when_it_was_found():
    assert closeseq("analyze", CLEAN, "--fail-on", "reset,stuck-close-wait").returncode == 0
    assert closeseq("analyze", CLEAN, "--fail-on", "reset,graceful").returncode == 1
    arguments = ("--stuck-after", "0.5", "--fail-on", "stuck-close-wait")
    assert closeseq("analyze", LEAKY, *arguments).returncode == 1
    assert closeseq("analyze", LEAKY, *arguments, "--verdict", "unanswered").returncode == 0


def test_what_could_not_be_read_outweighs_what_was_found(tmp_path):
    done = closeseq("analyze", cut(tmp_path), "--stuck-after", "0.01", "--fail-on", "stuck-close-wait")
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail-on", "stuck-close-wiat"], "stuck-close-wait"),
        (["--fail-on", "CLOSE_WAIT"], "is a state"),
        (["--fail-on", " ,"], "no verdict or finding is named"),
        (["--verdict", "keepalive"], "is a finding"),
        (["-p", "70000"], "65535"),
        (["-p", "9" * 5000], "65535"),  # more digits than Python converts
        (["-p", "http"], "'http' is not a port"),
        (["-p", "80-90"], "several ports: -p 80 -p 8080"),
        (["--host", "example.org"], "names are never looked up"),
        (["--stuck-after", "nan"], "not a length of time"),
        (["--stuck-after", "-1"], "not a length of time"),
        (["--stuck-after", "soon"], "not a number of seconds"),
        (["--os", "plan9"], "linux"),
        (["-f", "xml"], "jsonl"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_wrong_usage_is_status_2_with_what_would_be_right(arguments, told):
    done = closeseq("analyze", CLEAN, *arguments)
    assert done.returncode == 2
    assert told in err(done)
    assert out(done) == ""


def test_no_capture_is_wrong_usage():
    assert closeseq("analyze").returncode == 2


def test_output_is_never_overwritten_without_force(tmp_path):
    there = tmp_path / "there.txt"
    there.write_text("precious")
    done = closeseq("analyze", CLEAN, "-o", there)
    assert done.returncode == 2
    assert err(done) == f"closeseq: {there} exists already; --force overwrites it\n"
    assert there.read_text() == "precious"
    assert closeseq("analyze", CLEAN, "-f", "csv", "-o", there, "--force").returncode == 0
    assert there.read_text().startswith("capture,id,")


def test_a_file_that_is_written_is_readable_as_any_other_and_leaves_nothing_beside_it(tmp_path):
    done = closeseq("analyze", CLEAN, "-o", tmp_path / "new.txt")
    assert (done.returncode, out(done), err(done)) == (0, "", "")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"new.txt", "usual"}


def test_a_run_that_fails_leaves_no_file_and_harms_none(tmp_path):
    there = tmp_path / "there.txt"
    there.write_text("precious")
    done = closeseq("analyze", tmp_path / "missing.pcap", "-o", there, "--force")
    assert done.returncode == 3
    assert there.read_text() == "precious"
    assert closeseq("analyze", tmp_path / "missing.pcap", "-o", tmp_path / "new.txt").returncode == 3
    assert [path.name for path in tmp_path.iterdir()] == ["there.txt"]


def test_what_was_read_of_a_cut_capture_is_written(tmp_path):
    done = closeseq("analyze", cut(tmp_path), "-f", "jsonl", "-o", tmp_path / "part.jsonl")
    assert done.returncode == 3
    assert all(json.loads(line) for line in (tmp_path / "part.jsonl").read_text().splitlines())


def test_a_capture_is_not_overwritten_by_its_own_report(tmp_path):
    capture = tmp_path / "x.pcap"
    shutil.copy(CLEAN, capture)
    done = closeseq("analyze", capture, "-o", capture, "--force")
    assert done.returncode == 2
    assert "is one of the captures" in err(done)
    assert capture.read_bytes() == CLEAN.read_bytes()


def test_a_name_as_long_as_names_may_be_is_written(tmp_path):
    longest = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    assert closeseq("analyze", CLEAN, "-o", longest).returncode == 0
    assert longest.read_text()


def test_a_link_is_written_through_and_stays_a_link(tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    assert closeseq("analyze", CLEAN, "-o", link).returncode == 0
    assert link.is_symlink()
    assert target.read_text()
    assert err(closeseq("analyze", CLEAN, "-o", link)) == (
        f"closeseq: {link} exists already; --force overwrites it\n"
    )


def test_output_to_a_device_or_a_directory_that_is_not_there(tmp_path):
    assert closeseq("analyze", CLEAN, "-o", "/dev/null").returncode == 0
    assert "graceful" in out(started("analyze", CLEAN, "-o", "/dev/stdout", environment={}))  # a pipe
    done = closeseq("analyze", CLEAN, "-o", tmp_path / "no" / "such.txt")
    assert done.returncode == 2
    assert "cannot be written" in err(done)


def test_a_full_disk_is_one_line():
    assert err(closeseq("analyze", CLEAN, "-o", "/dev/full")) == (
        "closeseq: /dev/full: No space left on device\n"
    )
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, "analyze", str(CLEAN)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    assert done.returncode == 2
    assert err(done) == "closeseq: output: No space left on device\n"


@pytest.mark.parametrize("arguments", [["analyze", str(LEAKY), "-f", "jsonl"], ["--help"], ["explain"]])
def test_a_closed_pipe_ends_it_quietly(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    os.close(writing)
    assert (done.returncode, err(done)) == (0, "")


@pytest.mark.parametrize("arguments", [["analyze", str(LEAKY)], ["analyze", "-"], ["--help"], ["explain"]])
def test_closed_standard_streams_are_no_failure(arguments):
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND, *arguments]
    done = subprocess.run(command, input=CLEAN.read_bytes(), env=ENVIRONMENT, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(("arguments", "status"), [(["analyze", "missing.pcap"], 3), (["analyse"], 2)])
def test_a_complaint_that_nobody_can_hear_leaves_the_status(arguments, status):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, *arguments], stderr=full, env=ENVIRONMENT, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_run_leaves_nothing_beside_its_output(tmp_path, number):
    command = ["analyze", "-", "-o", tmp_path / "out.txt"]
    running = Forked(command, stdin=PIPE, stderr=PIPE, env=ENVIRONMENT)
    running.stdin.write(CLEAN.read_bytes()[:24])
    running.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) or waiting(running.stdin):  # until it wants more
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (128 + number, b"")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_one_line_and_status_130():
    running = Forked(["analyze", "-"], stdin=PIPE, stderr=PIPE, env=ENVIRONMENT)
    running.stdin.write(CLEAN.read_bytes()[:24])
    running.stdin.flush()
    deadline = time.monotonic() + 30
    while waiting(running.stdin):  # until it wants more
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert (running.returncode, said.decode()) == (130, "closeseq: interrupted\n")


MUCH = """
import signal, sys
from closeseq.cli.output import streamed
signal.signal(signal.SIGINT, lambda *_: None)
output = streamed(sys.stdout)
for number in range(40):
    output.write([f"{number:04}" + "x" * 4306 + "\\n"])
"""


def test_a_signal_that_comes_while_nobody_reads_takes_nothing_away():
    unbuffered = ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, "-c", MUCH], stdout=subprocess.PIPE, env=unbuffered) as process:
        until, before = time.monotonic() + 20, -1
        while (there := waiting(process.stdout)) != before or not there:  # until it waits for us
            assert time.monotonic() < until
            before = there
            time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        lines = process.stdout.read().decode().split("\n")
    assert before < 40 * 4311  # there was more to write
    assert [(int(line[:4]), len(line)) for line in lines[:-1]] == [(number, 4310) for number in range(40)]


def waiting(pipe):
    """Return how many bytes of a pipe nobody has read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def test_a_capture_without_tcp_is_told_of_on_standard_error_and_is_no_failure(tmp_path):
    empty = tmp_path / "empty.pcap"
    empty.write_bytes(CLEAN.read_bytes()[:24])
    done = closeseq("analyze", empty, "-f", "jsonl")
    assert (done.returncode, out(done)) == (0, "")
    assert err(done) == f"closeseq: {empty}: the capture holds no packets\n"
    done = closeseq("analyze", empty)
    assert (done.returncode, err(done)) == (0, "")
    assert "the capture holds no packets" in out(done)


def test_a_port_nobody_uses_is_answered_with_those_that_are_used():
    done = closeseq("analyze", CLEAN, "-p", "8081", "-f", "table")
    assert (done.returncode, out(done)) == (0, "")
    assert "no TCP packets of port 8081; server ports seen: 8080 (1 connection)" in err(done)
    done = closeseq("analyze", CLEAN, "-p", "8081")
    assert "server ports seen: 8080 (1 connection)" in " ".join(out(done).split())


def test_a_choice_that_leaves_nothing_is_told_of():
    done = closeseq("analyze", CLEAN, "--verdict", "reset", "-f", "table")
    assert done.returncode == 0
    assert "none of 1 connection with --verdict reset" in err(done)


def test_ports_hosts_connections_and_counts_choose():
    def ids(*arguments):
        return [
            json.loads(line)["id"]
            for line in out(closeseq("analyze", LEAKY, "-f", "jsonl", *arguments)).splitlines()
        ]

    everything = ids()
    assert len(everything) > 1
    assert ids("-p", "8080", "-n") == everything
    assert ids("-p", "1", "-p", "8080") == everything
    assert ids("--host", "127.0.0.1") == everything
    assert ids("--host", "192.0.2.1") == []
    assert ids("--host", "[::1]") == []  # as it stands beside a port
    assert ids("--connection", "2") == [2]
    assert ids("-c", "1") == [1]


def test_a_name_full_of_escapes_reaches_no_stream_as_it_is(tmp_path):
    name = "x\x1b[31mred\n.pcap"
    shutil.copy(CLEAN, tmp_path / name)
    for arguments in (
        ["analyze"],
        ["timeline"],
        ["analyze", "-f", "csv"],
        ["analyze", "-f", "json"],
        ["states"],
    ):
        done = closeseq(*arguments, name, cwd=tmp_path)
        assert done.returncode == 0
        assert b"\x1b" not in done.stdout + done.stderr
    done = closeseq("analyze", "y" + name, cwd=tmp_path)
    assert done.returncode == 3
    assert b"\x1b" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_name_that_is_no_utf8_is_reported_all_the_same(tmp_path):
    name = b"\xff\xfe.pcap"
    shutil.copy(CLEAN, tmp_path / os.fsdecode(name))
    for form in ("summary", "timeline", "json", "csv"):
        done = closeseq("analyze", os.fsdecode(name), "-f", form, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
    command = [*map(os.fsencode, COMMAND), b"analyze", name]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_knows_no_unicode_gets_ascii():
    done = started("timeline", CLEAN, environment={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert out(done).isascii()
    assert "-- SYN -" in out(done)
    assert out(closeseq("timeline", CLEAN, "--ascii")) == out(done)


def on_a_terminal(*arguments, environment=None, columns=140):
    """Run it with standard output and error on a terminal; return what was seen there."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = ENVIRONMENT | {"TERM": "xterm"} | (environment or {})
    running = Forked(arguments, stdout=slave, stderr=slave, stdin=DEVNULL, env=settings)
    os.close(slave)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other side has closed
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    assert running.wait(timeout=30) == 0
    return seen.decode().replace("\r\n", "\n")


def test_colour_is_for_terminals_and_not_where_it_is_not_wanted(tmp_path):
    assert "\x1b[" in on_a_terminal("timeline", CLEAN)
    assert "\x1b[" not in on_a_terminal("timeline", CLEAN, environment={"NO_COLOR": ""})
    assert "\x1b[" not in on_a_terminal("timeline", CLEAN, environment={"TERM": "dumb"})
    assert "\x1b[" not in out(closeseq("timeline", CLEAN))
    on_a_terminal("timeline", CLEAN, "-o", tmp_path / "out.txt")
    assert "\x1b[" not in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_lines_fit_the_terminal(columns):
    seen = on_a_terminal("analyze", LEAKY, columns=columns, environment={"NO_COLOR": "1"})
    assert max(map(len, seen.splitlines())) <= columns


HEAVY = ("scapy", "dpkt", "numpy", "msgspec", "tabulate")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["analyze", "--help"],
        ["timeline", "--help"],
        ["states", "--help"],
        ["explain", "--help"],
    ],
    ids=" ".join,
)
def test_help_and_version_answer_without_loading_what_analysis_needs(arguments):
    probe = (
        "import sys; from closeseq.cli.main import run; "
        f"status = run({arguments!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0
    assert err(done) == "[]\n"
    assert out(done)


@pytest.mark.parametrize("package", ["click", "msgspec"])
def test_a_package_that_is_not_installed_is_one_line(package):
    probe = (
        f"import runpy, sys; sys.modules[{package!r}] = None; "
        f"sys.argv = ['closeseq', 'analyze', {str(CLEAN)!r}]; "
        "runpy.run_module('closeseq', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, err(done).count("\n")) == (70, 1)
    assert err(done).startswith(f"closeseq: {package}, which closeseq needs, is not installed for ")


@pytest.mark.parametrize("columns", ["1", "4", "10"])
def test_help_is_written_however_narrow_the_terminal_is(columns):
    done = started("live", "--help", environment={"COLUMNS": columns})
    assert (done.returncode, err(done)) == (0, "")


def test_importing_closeseq_loads_nothing_and_offers_everything():
    probe = (
        "import sys, closeseq; "
        f"assert not [name for name in {HEAVY!r} if name in sys.modules]; "
        "assert all(getattr(closeseq, name) is not None for name in closeseq.__all__); "
        "assert set(closeseq.__all__) <= set(dir(closeseq)); print(closeseq.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, err(done)) == (0, "")
