"""closeseq as an interface of Wireshark: what it answers, and live captures through tshark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from capture_files import read_file
from closeseq.capture import open_capture
from closeseq.capture.live import Device, LiveBatch
from closeseq.cli.main import run
from closeseq.packets.protocols import LINKTYPE_ETHERNET
from closeseq.watch import Monitor
from closeseq.watch.session import SystemClock
from closeseq.wireshark.extcap import INTERFACE, settings
from closeseq.wireshark.held import HeldCapture
from live_namespace import PATIENCE, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from machine import needs
from places import CAPTURES, ROOT
from wireshark_tools import fields, needs_tool, tool

SENTENCE = re.compile(r"(extcap|interface|dlt|arg|value) (\{[a-z]+=[^{}]*\})+")
CAPTURE = ("--extcap-interface", INTERFACE, "--capture", "--fifo")
SLOW = 90.0  # seconds: tshark asks several times before it captures


def answer(*arguments, capsys):
    assert run(["extcap", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(SENTENCE.fullmatch(line) for line in lines), lines
    return lines


def test_what_wireshark_asks_is_answered(capsys):
    """In the forms of extcap(4), whatever else a later version says."""
    asked = ("--extcap-version=4.0", "--log-level", "debug")
    extcap, interface = answer("--extcap-interfaces", *asked, capsys=capsys)
    assert extcap.startswith("extcap {version=")
    assert f"{{value={INTERFACE}}}" in interface
    (dlt,) = answer("--extcap-interface", INTERFACE, "--extcap-dlts", capsys=capsys)
    assert dlt.startswith("dlt {number=1}{name=EN10MB}")
    config = answer("--extcap-interface", INTERFACE, "--extcap-config", capsys=capsys)
    assert config == list(settings())
    calls = re.findall(r"\{number=(\d)\}\{call=--([a-z-]+)\}", "\n".join(config))
    assert [int(number) for number, _ in calls] == list(range(len(calls)))
    assert run(["extcap", "--help"]) == 0
    helped = capsys.readouterr().out
    assert all(f"--{name} " in helped for _, name in calls)
    assert "value {arg=0}{value=lo}{display=lo}{default=true}" in config


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "the interface is closeseq"),
        (["--extcap-interface", "eth0", "--capture"], 2, "not eth0"),
        (["--extcap-interface", INTERFACE], 2, "nothing was asked"),
        (["--extcap-interface", INTERFACE, "--capture"], 2, "needs --fifo"),
        (["--extcap-interface", INTERFACE, "--capture", "--fifo", "x", "--port", "http"], 2, "--port http"),
        (["--extcap-interface", INTERFACE, "--capture", "--fifo", "x", "--port", "99999"], 2, "up to 65535"),
        (
            ["--extcap-interface", INTERFACE, "--capture", "--fifo", "x", "--host", "name"],
            2,
            "not an IP address",
        ),
        (["--extcap-interface", INTERFACE, "--capture", "--fifo", "x", "--hold", "-1"], 2, "length of time"),
    ],
)
def test_wrong_usage(capsys, arguments, status, said):
    assert run(["extcap", *arguments]) == status
    assert said in capsys.readouterr().err


def test_a_capture_filter_is_checked(capsys):
    """Wireshark takes any output for an error."""
    check = ["extcap", "--extcap-interface", INTERFACE, "--device", "lo", "--extcap-capture-filter"]
    assert run([*check, "tcp port 80"]) == 0
    told = capsys.readouterr().out
    if "libpcap" in told:
        pytest.skip("libpcap is not installed")
    assert told == ""
    assert run([*check, "tcp porrt 80"]) == 0
    assert "can't parse" in capsys.readouterr().out


AS_NOBODY = """
import os, sys
from closeseq.cli.live_setup import load_everything
from closeseq.cli.main import run
load_everything()  # nobody may not read it
os.setgroups([]), os.setresgid(*[65534] * 3), os.setresuid(*[65534] * 3)
sys.exit(run(sys.argv[1:]))
"""


@needs("becoming another user", root=True)
def test_who_may_not_capture_is_told_how_to_permit_it():
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "extcap", *CAPTURE, "/nonexistent"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5
    assert "setcap cap_net_raw=ep" in done.stderr
    assert "wireshark --install" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@needs_network
def test_packets_wait_for_their_comments_and_then_come(net, pipe, tmp_path):
    """Those of the close have it, too; the packets are whole, and those of other ports are not there."""
    target = tmp_path / "live.pcapng"
    with (
        target.open("wb") as file,
        subprocess.Popen(["cat", pipe], stdout=file) as reader,
        net.live(*CAPTURE, pipe, "--port", "8080", "--hold", "0.3", command="extcap", stderr=None) as process,
    ):
        net.wait_for_capture(process)
        net.talk(wait=0.3)
        net.talk(port=8081)
        deadline = time.monotonic() + PATIENCE
        while target.read_bytes().count(b"closeseq: #1 ") < 7:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = target.stat().st_size  # while it captures
        process.terminate()
        assert process.wait(PATIENCE) == 0
        reader.wait(PATIENCE)
    assert target.stat().st_size >= shown > 1000
    with open_capture(str(target)) as capture:
        (frames, *more) = capture.batches()
        packets = len(frames) + sum(map(len, more))
        assert capture.ended_ns is not None  # it ends as a capture that was stopped
    assert packets == 11
    said = target.read_bytes()
    assert b"client CLOSED -> SYN_SENT (observed); server LISTEN -> SYN_RECEIVED (proved)" in said
    assert b"client ESTABLISHED -> FIN_WAIT_1 (observed)" in said
    assert b"hello" in said


@needs_network
def test_it_ends_when_wireshark_closes_the_pipe(net, pipe):
    """Though no packet comes that could not be written."""
    with net.live(*CAPTURE, pipe, command="extcap", stderr=None) as process:
        with pipe.open("rb") as reader:
            assert reader.read(4) == b"\x0a\x0d\x0d\x0a"
        assert process.wait(PATIENCE) == 0


@needs_network
def test_what_is_still_held_is_written_at_the_end(net, pipe, tmp_path):
    target = tmp_path / "live.pcapng"
    with (
        target.open("wb") as file,
        subprocess.Popen(["cat", pipe], stdout=file) as reader,
        net.live(
            *CAPTURE, pipe, "--hold", "600", "--snaplen", "80", command="extcap", stderr=None
        ) as process,
    ):
        net.wait_for_capture(process)
        net.talk(wait=0.3)
        time.sleep(1)
        assert target.stat().st_size < 500
        process.terminate()
        assert process.wait(PATIENCE) == 0
        reader.wait(PATIENCE)
    with open_capture(str(target)) as capture:
        (frames, *_) = capture.batches()
    assert len(frames) == 11
    assert int(frames.captured.max()) <= 80
    assert target.read_bytes().count(b"closeseq: #1 ") == 7


@needs_network
def test_a_device_that_is_not_there_is_one_line(net, pipe):
    with net.live(*CAPTURE, pipe, "--device", "eth77", command="extcap") as process:
        assert process.wait(PATIENCE) == 3
    assert "eth77" in process.said


@needs_network
@needs_tool("tshark")
def test_tshark_captures_from_it(net, tmp_path, monkeypatch):
    """Installed for a user, found by tshark, configured by its preferences, and read with the plugin."""
    home, target = tmp_path / "home", tmp_path / "live.pcapng"
    home.mkdir()
    for name in ("WIRESHARK_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    assert run(["wireshark", "--install"]) == 0
    environment = {"HOME": str(home), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    where = ("-o", "extcap.closeseq.port:8080", "-o", "extcap.closeseq.hold:0.5")
    command = net.inside("tshark", "-i", INTERFACE, *where, "-w", target, "-a", "packets:22", "-q")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + SLOW
            while process.poll() is None and not (target.exists() and target.stat().st_size):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            net.talk(wait=0.3)
            net.talk(port=8081)
            net.talk("server", wait=1.2)
            _, error = process.communicate(timeout=PATIENCE)
        finally:
            process.terminate()  # what it has started ends with it
    assert process.returncode == 0, error
    assert "22 packets captured" in error
    rows = fields(
        target, "frame.number", "closeseq.server.state", "closeseq.finding", "tcp.port", env=environment
    )
    states = {int(number): state for number, state, *_ in rows}
    assert states[1] == "SYN_RECEIVED"
    assert states[3] == "ESTABLISHED"
    assert "slow-close" in {code for _, _, found, _ in rows for code in found.split("|")}
    assert all("8080" in ports for *_, ports in rows)
    assert "Interface #0" in tool("capinfos", target)


class Played:
    """A live capture of packets that were captured before, a few at a time."""

    devices = (Device("lo", 1, LINKTYPE_ETHERNET, loopback=True),)
    dropped = 3

    def __init__(self, name):
        with open_capture(str(CAPTURES / name), batch=5) as capture:
            self._batches = list(capture.batches())

    @property
    def ended(self):
        return not self._batches

    def read(self, _timeout):
        return LiveBatch(self._batches.pop(0), 0) if self._batches else None

    def release(self):
        pass

    def stop(self):
        pass


def held(path, hold):
    """Let a capture be played and written; return what has happened."""
    with path.open("wb") as file:
        capture = HeldCapture(
            Played("leaky-server.pcap"), Monitor(), SystemClock(), file, hold=hold, snap_length=128
        )
        capture.run(lambda: False)
    return capture, path.read_bytes().count(b"closeseq: #")


def test_packets_that_are_late_are_written_without_a_look(tmp_path, monkeypatch):
    """A comment takes longer than a packet; the packets go on."""
    in_time, comments = held(tmp_path / "in-time", hold=0)
    assert in_time.hurried == 0
    assert comments > 20
    monkeypatch.setattr("closeseq.wireshark.held.LATE", -1.0)
    late, comments = held(tmp_path / "late", hold=0)
    assert (late.hurried, comments) == (49, 0)
    packets = [read_file(tmp_path / name).packets for name in ("in-time", "late")]
    assert packets == [read_file(CAPTURES / "leaky-server.pcap").packets] * 2
    assert read_file(tmp_path / "late").dropped == 3


def test_of_too_much_the_oldest_is_written_before_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("closeseq.wireshark.held.MOST_HELD", 1000)
    written = []
    write = HeldCapture._write

    def noting(capture, batch, **options):
        written.append(len(capture._waiting))
        write(capture, batch, **options)

    monkeypatch.setattr(HeldCapture, "_write", noting)
    _, comments = held(tmp_path / "small", hold=600)
    assert comments > 20
    assert max(written) <= 4
