"""Several files on the command line: what is said of them, and the exit status."""

from __future__ import annotations

import gzip
import json
import os
from random import Random

import pytest

from capture_files import pcap
from chain_files import SECOND, as_file, packets_of
from forked import run_forked
from places import CAPTURES

WHOLE = CAPTURES / "final-ack-lost.pcap"


def closeseq(*arguments, stdin=None, cwd=None):
    environment = {**os.environ, "COLUMNS": "100", "LC_ALL": "C.UTF-8"}
    return run_forked(arguments, env=environment, sent=stdin, cwd=cwd, text=True)


@pytest.fixture
def ring(tmp_path):
    """A folder with one connection in three files, the third 3 s later than it was."""
    packets = packets_of(WHOLE.name)
    late = [packet._replace(time_ns=packet.time_ns + 3 * SECOND) for packet in packets[14:]]
    folder = tmp_path / "ring"
    folder.mkdir()
    for number, part in enumerate((packets[:5], packets[5:14], late), 1):
        (folder / f"r{number}.pcap").write_bytes(as_file(part, Random(number)))
    return folder


def test_a_directory_a_pattern_and_a_list_are_the_files_in_them(ring):
    paths = sorted(map(str, ring.iterdir()))
    told = [
        closeseq("analyze", ring),
        closeseq("analyze", ring / "r*.pcap"),
        closeseq("analyze", *paths[::-1]),
        closeseq("analyze", "-", stdin="\n".join(paths) + "\n"),
    ]
    assert [done.returncode for done in told] == [0] * 4
    assert [done.stderr for done in told] == [""] * 4
    for done in told[1:]:
        assert done.stdout == told[0].stdout
    said = " ".join(told[0].stdout.split())
    assert f"{paths[0]} to {paths[2]} (3 files): 17 packets in 4.12 s" in said
    assert f"files: 1 {paths[0]}, 2 {paths[1]}, 3 {paths[2]}; #2:7 is packet 7 of file 2" in said
    assert "no packet for over a second between files: 3 s between #2:9 and #3:1" in said


def test_a_timeline_names_packets_by_file_and_number(ring):
    said = closeseq("timeline", ring, "--ascii").stdout
    assert "#1:1" in said
    assert "#3:3" in said
    assert "#17" not in said
    assert "acknowledged again from TIME_WAIT (#3:3)" in " ".join(said.split())


def test_records_name_them_beside_their_running_numbers(ring):
    done = closeseq("analyze", ring, "-f", "jsonl")
    (told,) = map(json.loads, done.stdout.splitlines())
    assert [(step["packet"], step["file_packet"]) for step in told["timeline"][-2:]] == [
        (16, "3:2"),
        (17, "3:3"),
    ]
    assert set(told["files"]) == {"1", "2", "3"}
    assert told["capture"] == told["files"]["1"]
    assert "no packet for over a second between files" in done.stderr
    (head,) = json.loads(closeseq("analyze", ring, "-f", "json").stdout)["captures"]
    assert [file["packets"] for file in head["files"]] == [5, 9, 3]


def test_nothing_changes_for_a_single_file():
    (told,) = map(json.loads, closeseq("analyze", WHOLE, "-f", "jsonl").stdout.splitlines())
    assert "files" not in told
    assert not [step for step in told["timeline"] if "file_packet" in step]
    head = json.loads(closeseq("analyze", WHOLE, "-f", "json").stdout)
    assert not {"captures", "files", "gaps", "beside", "empty"} & set(head)


def test_each_file_by_itself_where_that_is_asked_for(ring):
    done = closeseq("analyze", ring, "-f", "jsonl", "--each")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["capture"], one["id"]) for one in told] == [
        (str(ring / f"r{number}.pcap"), 1) for number in (1, 2, 3)
    ]
    assert done.stderr == ""


def test_captures_that_overlap_are_analysed_side_by_side_and_said_to_be(ring, tmp_path):
    other = tmp_path / "other.pcap"
    other.write_bytes(as_file(packets_of(WHOLE.name), Random(1)))
    said = closeseq("analyze", ring, other).stdout
    assert "(3 files): 17 packets" in " ".join(said.split())
    assert f"\n{other}: 17 packets" in said
    assert said.count("overlaps in time (another capture point)") == 2
    told = json.loads(closeseq("analyze", ring, other, "-f", "json").stdout)
    assert [one["beside"] for one in told["captures"]] == [[str(other)], [str(ring / "r1.pcap")]]


def test_files_that_cannot_be_read_are_one_line_each_and_the_others_are_done(ring):
    (ring / "r2.pcap").write_bytes((ring / "r2.pcap").read_bytes()[:-9])
    (ring / "junk.pcap").write_text("this is no capture at all")
    done = closeseq("analyze", ring, ring / "missing.pcap", "-f", "jsonl")
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 1
    lines = [line for line in done.stderr.splitlines() if "no packet for over" not in line]
    assert len(lines) == 3
    assert [sum(name in line for line in lines) for name in ("junk.pcap", "missing.pcap", "r2.pcap")] == [
        1,
        1,
        1,
    ]
    done = closeseq("analyze", ring)
    assert f"not read to its end: {ring / 'r2.pcap'}" in " ".join(done.stdout.split())


def test_what_is_in_a_directory_and_no_capture_is_counted_and_no_failure(ring):
    (ring / "README").write_text("these are captures")
    done = closeseq("analyze", ring)
    assert done.returncode == 0
    assert done.stderr == f"closeseq: {ring}: 1 of 4 files are not captures, and are left out\n"


def test_a_file_without_packets_is_said_to_be(ring):
    (ring / "r4.pcap").write_bytes(gzip.compress(pcap([])))
    said = closeseq("analyze", ring).stdout
    assert f"without a packet: {ring / 'r4.pcap'}" in " ".join(said.split())
    assert "(3 files)" in " ".join(said.split())


def test_states_are_those_of_the_chain(ring):
    whole = closeseq("states", WHOLE, "--at", "0.3", "-f", "json")
    parts = closeseq("states", ring, "--at", "0.3", "-f", "json")
    assert parts.returncode == 0
    assert json.loads(parts.stdout)["sockets"] == json.loads(whole.stdout)["sockets"]
    both = closeseq("states", WHOLE, ring)
    assert both.returncode == 2
    assert "overlap in time; states shows one capture: name only its files" in both.stderr


def test_a_connection_ends_with_the_chain_and_not_with_its_file(tmp_path):
    """Half closed at the end of the first file, and nothing more for 100 s."""
    packets = packets_of("client-closes.pcap")
    late_ns = packets[0].time_ns + 100 * SECOND
    later = [packet._replace(time_ns=late_ns + n) for n, packet in enumerate(packets_of("refused.pcap"))]
    (tmp_path / "1.pcap").write_bytes(as_file(packets[:9], Random(1)))
    (tmp_path / "2.pcap").write_bytes(as_file(later, Random(2)))
    alone = closeseq("analyze", tmp_path, "-f", "jsonl", "--each", "--fail-on", "stuck-close-wait")
    together = closeseq("analyze", tmp_path, "-f", "jsonl", "--fail-on", "stuck-close-wait")
    assert (alone.returncode, together.returncode) == (0, 1)


def test_the_help_tells_of_them():
    said = " ".join(closeseq("analyze", "--help").stdout.split())
    assert "#3:17 is then packet 17 of the third file" in said
    assert "#3:17 is packet 17 of the third file" in " ".join(closeseq("timeline", "--help").stdout.split())
