"""`analyze -f pcapng`: which file goes where, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from capture_files import (
    ETHERNET,
    block,
    enhanced,
    interface,
    pcap_header,
    pcap_record,
    read_file,
    section,
    simple,
)
from closeseq.cli.main import run
from closeseq.wireshark.comments import OURS
from places import CAPTURES, ROOT

LEAKY = str(CAPTURES / "leaky-server.pcap")
PACKETS = read_file(LEAKY).packets


def analyze(*arguments):
    return run(["analyze", "-f", "pcapng", *map(str, arguments)])


def commented(path):
    return path.read_bytes().count(OURS.encode())


def test_one_capture_goes_to_one_file_and_overwrites_none(tmp_path, capsys):
    target = tmp_path / "out.pcapng"
    assert analyze(LEAKY, "-o", target) == 0
    assert read_file(target).packets == PACKETS
    assert commented(target) > 20
    assert analyze(LEAKY, "-o", target) == 2
    assert "exists already" in capsys.readouterr().err
    assert analyze(LEAKY, "-o", target, "--force") == 0
    assert list(tmp_path.iterdir()) == [target]


def test_a_capture_is_not_overwritten_by_itself(tmp_path, capsys):
    own = tmp_path / "own.pcapng"
    own.write_bytes((CAPTURES / "client-closes.pcapng").read_bytes())
    assert analyze(own, "-o", own, "--force") == 2
    assert "is one of the captures" in capsys.readouterr().err


def test_only_connections_that_are_asked_for_get_comments(tmp_path):
    assert analyze(LEAKY, "-o", tmp_path / "all") == 0
    assert analyze(LEAKY, "-o", tmp_path / "one", "--connection", "2") == 0
    assert analyze(LEAKY, "-o", tmp_path / "none", "--finding", "half-open") == 0
    assert (
        commented(tmp_path / "all")
        > commented(tmp_path / "one")
        == (tmp_path / "one").read_bytes().count(b"closeseq: #2 ")
    )
    assert commented(tmp_path / "one") > 0
    assert commented(tmp_path / "none") == 0
    assert read_file(tmp_path / "none").packets == PACKETS


def test_several_files_go_into_a_directory_and_packets_are_named_with_their_file(tmp_path):
    """A chain is judged as one capture; #2:1 is the first packet of its second file."""
    lost = read_file(CAPTURES / "final-ack-lost.pcap").packets
    for number, part in enumerate([lost[:11], lost[11:]], 1):
        data = b"".join(pcap_record(packet, unit_ns=1) for packet in part)
        (tmp_path / f"ring-{number}.pcap").write_bytes(pcap_header(magic=0xA1B23C4D) + data)
    out = tmp_path / "out"
    assert analyze(tmp_path / "ring-*.pcap", "-o", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["ring-1.pcapng", "ring-2.pcapng"]
    packets = [packet for name in sorted(out.iterdir()) for packet in read_file(name).packets]
    assert packets == lost
    assert b"comes again in #2:1" in (out / "ring-1.pcapng").read_bytes()
    assert commented(out / "ring-2.pcapng") == 6
    assert analyze(tmp_path / "ring-*.pcap", "-o", out) == 2
    assert analyze(tmp_path / "ring-*.pcap", "-o", out, "--force") == 0


def test_one_file_goes_into_a_directory_that_is_there(tmp_path):
    assert analyze(CAPTURES / "client-closes.pcap.gz", "-o", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["client-closes.pcapng"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([LEAKY, LEAKY.replace("leaky-server", "refused")], "name a directory with -o"),
        (["-"], "standard input is gone after once"),
        (["client-closes.pcap", "client-closes.pcapng", "-o", "{tmp}/d"], "would both become"),
        ([LEAKY, LEAKY.replace("leaky-server", "refused"), "-o", "{tmp}/a/b"], "cannot be made a directory"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(CAPTURES)
    assert analyze(*(one.format(tmp=tmp_path) for one in arguments)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_pipe_is_refused(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert analyze(tmp_path / "pipe", "-o", tmp_path / "out") == 2
    assert "a pipe is gone after once" in capsys.readouterr().err


def test_a_missing_capture_and_a_foreign_one_leave_nothing(tmp_path, capsys):
    (tmp_path / "text.pcap").write_text("no capture")
    for path in (tmp_path / "missing.pcap", tmp_path / "text.pcap"):
        assert analyze(path, "-o", tmp_path / "out.pcapng") == 3
        assert str(path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["text.pcap"]


def test_of_a_capture_that_is_cut_short_what_was_read_is_written(tmp_path, capsys):
    cut, target = tmp_path / "cut.pcap", tmp_path / "out.pcapng"
    cut.write_bytes((CAPTURES / "leaky-server.pcap").read_bytes()[:-10])
    assert analyze(cut, "-o", target) == 3
    assert read_file(target).packets == PACKETS[:-1]
    error = capsys.readouterr().err
    assert "the file ends inside the packet" in error
    assert error.count("\n") == 1


def test_count_stops_it(tmp_path):
    assert analyze(LEAKY, "-c", 10, "-o", tmp_path / "out") == 0
    assert read_file(tmp_path / "out").packets == PACKETS[:10]


def test_fail_on_gives_the_status(tmp_path):
    assert analyze(LEAKY, "--stuck-after", 2, "--fail-on", "stuck-close-wait", "-o", tmp_path / "out") == 1
    assert (tmp_path / "out").exists()


def test_comments_that_have_no_place_are_counted(tmp_path, capsys):
    frames = [packet for packet in PACKETS[:9] if packet.link_type == ETHERNET]
    blocks = [simple(frames[0]), *(enhanced(packet) for packet in frames[1:])]
    path = tmp_path / "given.pcapng"
    path.write_bytes(section() + interface(snaplen=262_144) + b"".join(blocks) + block(0xBAD, b"else"))
    assert analyze(path, "-o", tmp_path / "out") == 0
    assert "1 comment left out" in capsys.readouterr().err


def test_a_closed_pipe_ends_it_quietly():
    command = [sys.executable, "-m", "closeseq", "analyze", LEAKY, "-f", "pcapng"]
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -c 10 >/dev/null; exit ${PIPESTATUS[0]}', "bash", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
