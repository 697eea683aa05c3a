"""Following a capture on into the next file of its rotation."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from capture_files import Packet, pcap, pcap_record, pcapng, read_file
from closeseq.capture.follow import open_growing
from closeseq.capture.tail import CurrentFile, of_one_rotation, successor
from forked import PIPE, Forked, run_forked
from machine import needs
from places import CAPTURES

SECOND = 10**9
START = 1_700_000_000 * SECOND


def packets(first, count=3):
    """Return packets a second apart; `first` is the number of the first one."""
    return [
        Packet(START + number * SECOND, f"packet {number}".encode()) for number in range(first, first + count)
    ]


def follow(capture, expected=0):
    """Read until nothing comes for a while or it has ended; return what the packets say.

    The while is short once as many packets as expected have come.
    """
    found, deadline = [], time.monotonic() + 5
    quiet = time.monotonic() + 1.5
    while not capture.ended and time.monotonic() < min(deadline, quiet):
        batch = capture.read(0.1)
        if batch is None:
            continue
        quiet = time.monotonic() + (0.3 if len(found) + len(batch.frames) >= expected > 0 else 1.5)
        frames = batch.frames
        assert frames.number.tolist() == list(range(capture.packets - len(frames) + 1, capture.packets + 1))
        found += [
            int(frames.buffer[at : at + n].tobytes().removeprefix(b"packet "))
            for at, n in zip(frames.offset.tolist(), frames.captured.tolist(), strict=True)
        ]
    return found


NEXT = [  # tcpdump -C, with -W, with -G; dumpcap -b, and with nametimenum:2; live --rotate
    ("f", "f1"),
    ("f.pcap", "f.pcap1"),
    ("f.pcap9", "f.pcap10"),
    ("f.pcap09", "f.pcap10"),
    ("f.pcap2", "f.pcap0"),
    ("f.pcap12", "f.pcap00"),
    ("f-2026-11-25_22:00:00.pcap", "f-2026-11-25_22:00:10.pcap"),
    ("f-1764108000.pcap2", "f-1764108100.pcap"),
    ("f-1764108000.pcap", "f-1764108000.pcap1"),
    ("f_00001_20261125220000.pcapng", "f_00002_20261125220010.pcapng"),
    ("f_20261125220000_00001.pcapng", "f_20261125220010_00002.pcapng"),
    ("f-00001.pcapng", "f-00002.pcapng"),
]
NOT_NEXT = [
    ("f", "g1"),
    ("f.pcap", "f.pcap2"),
    ("f.pcap1", "f.pcap3"),
    ("f.pcap1", "f.pcap"),
    ("eth0.pcap", "eth1.pcap"),
    ("host01.pcap", "host02.pcap"),
    ("f.pcap", "f1.pcap"),
    ("f-2026.pcap", "g-2027.pcap"),
    ("f-2026.pcap", "f-2027.pcap.gz"),
    ("f", "f"),
]


@pytest.mark.parametrize(("name", "other"), NEXT)
def test_names_of_one_rotation_are_known(name, other):
    assert of_one_rotation(name, other)


@pytest.mark.parametrize(("name", "other"), NOT_NEXT)
def test_other_names_are_not_taken_for_a_rotation(name, other):
    assert not of_one_rotation(name, other)


@pytest.mark.parametrize(
    "names",
    [("f", "f1", "f2"), ("f_00001_20261125220000", "f_00002_20261125220010", "f_00003_20261125220020")],
)
@pytest.mark.parametrize("make", [pcap, pcapng])
def test_complete_files_are_read_one_after_the_other(tmp_path, names, make):
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(make(packets(3 * number)))
    with open_growing(str(tmp_path / names[0])) as capture:
        assert follow(capture, 9) == list(range(9))
        assert capture.notices == [f"going on in {tmp_path / name}" for name in names[1:]]
        assert (capture.ended, capture.incomplete, capture.path) == (False, False, str(tmp_path / names[2]))


def test_the_next_file_is_followed_as_soon_as_it_has_a_packet(tmp_path):
    first, then = tmp_path / "f", tmp_path / "f1"
    first.write_bytes(pcap(packets(0)))
    with open_growing(str(first)) as capture, then.open("wb", buffering=0) as file:
        assert follow(capture, 3) == [0, 1, 2]
        file.write(pcap([]))
        assert follow(capture) == []
        assert capture.path == str(first)
        for packet in packets(3):
            file.write(pcap_record(packet))
            assert follow(capture, 1) == [(packet.time_ns - START) // SECOND]
        assert (capture.path, capture.incomplete) == (str(then), False)


def test_a_ring_goes_on_in_the_first_file_when_that_is_written_anew(tmp_path):
    ring = [tmp_path / f"f{number}" for number in range(3)]
    ring[0].write_bytes(pcap(packets(0)))
    with open_growing(str(ring[0])) as capture:
        got = follow(capture, 3)
        for number in range(1, 8):
            ring[number % 3].write_bytes(pcap(packets(3 * number)))
            got += follow(capture, 3)
        assert got == list(range(24))
        assert (capture.ended, capture.incomplete) == (False, False)
        assert [file.path for file in capture.files.files] == [str(ring[n % 3]) for n in range(8)]
        assert [capture.files.name(packet) for packet in (1, 3, 4, 24)] == ["1:1", "1:3", "2:1", "8:3"]
        assert capture.files.gaps() == []


def test_a_capture_beside_it_is_not_the_next(tmp_path):
    """As of `tcpdump -w f` and `tcpdump -w f1` at the same time."""
    (tmp_path / "f").write_bytes(pcap(packets(0, 30)))
    time.sleep(0.02)
    (tmp_path / "f1").write_bytes(pcap(packets(3, 40)))
    with open_growing(str(tmp_path / "f")) as capture:
        assert follow(capture, 30) == list(range(30))
        assert (capture.path, capture.notices) == (str(tmp_path / "f"), [])


def test_what_is_no_capture_or_no_file_is_not_the_next(tmp_path):
    (tmp_path / "f").write_bytes(pcap(packets(0)))
    (tmp_path / "f1").write_bytes(b"no capture at all, but text")
    os.mkfifo(tmp_path / "f0001")
    present = CurrentFile(str(tmp_path / "f"), None, None, None)
    assert successor(present, missed=True) is None
    (tmp_path / "f2").write_bytes(pcap(packets(3)))
    assert successor(present, missed=True) == str(tmp_path / "f2")
    assert successor(present, missed=False) is None


def test_a_file_that_ends_within_a_packet_is_incomplete_when_the_next_is_there(tmp_path):
    (tmp_path / "f").write_bytes(pcap(packets(0))[:-1])
    (tmp_path / "f1").write_bytes(pcap(packets(3)))
    with open_growing(str(tmp_path / "f")) as capture:
        assert follow(capture, 5) == [0, 1, 3, 4, 5]
        assert capture.incomplete
        assert capture.notices[0].startswith(
            f"{tmp_path / 'f'}: the file ends inside the packet (7 of 8 bytes)"
        )


def removed(path):
    path.unlink()


def emptied(path):
    os.truncate(path, 0)


@pytest.mark.parametrize(("fate", "incomplete"), [(removed, False), (emptied, True)])
def test_a_ring_that_came_round_too_early_goes_on_with_the_oldest_that_is_left(tmp_path, fate, incomplete):
    (tmp_path / "f1").write_bytes(pcap(packets(3)))
    with open_growing(str(tmp_path / "f1")) as capture:
        assert follow(capture, 3) == [3, 4, 5]
        (tmp_path / "f0").write_bytes(pcap(packets(9)))  # f2 with 6, 7 and 8 is gone already
        fate(tmp_path / "f1")
        assert follow(capture, 3) == [9, 10, 11]
        assert capture.incomplete == incomplete
        assert capture.notices[-1] == f"going on in {tmp_path / 'f0'}"
        assert (len(capture.notices) == 2) == incomplete


def test_the_next_file_may_take_a_moment_when_this_one_is_gone(tmp_path):
    """As of dumpcap -b files:1, which removes the one before the next has a packet."""
    path, following = tmp_path / "f_00001_20261125220000", tmp_path / "f_00002_20261125220010"
    path.write_bytes(pcap(packets(0)))
    with open_growing(str(path)) as capture:
        assert follow(capture, 3) == [0, 1, 2]
        following.write_bytes(pcap([]))
        path.unlink()
        assert capture.read(0.3) is None
        assert not capture.ended
        following.write_bytes(pcap(packets(3)))
        assert follow(capture, 3) == [3, 4, 5]
        assert not capture.incomplete


# The command


def command(path, *arguments):
    return Forked(["follow", path, "-f", "summary", *arguments], stdout=PIPE, stderr=PIPE, text=True)


FATES = {
    removed: "the file was removed",
    emptied: "the file was made shorter, or rewritten",
    lambda path: path.rename(path.with_name("old")): "the file was renamed",
    lambda path: (path.unlink(), path.write_bytes(pcap())): "another file has taken its name",
}


@pytest.mark.parametrize(("fate", "line"), FATES.items(), ids=["removed", "emptied", "renamed", "replaced"])
def test_a_file_that_goes_is_told_with_status_3(tmp_path, fate, line):
    path = tmp_path / "f.pcap"
    shutil.copy(CAPTURES / "client-closes.pcap", path)
    with command(path) as process:
        assert process.stderr.readline().startswith(f"closeseq: watching {path}")
        time.sleep(1)
        fate(path)
        report, complaint = process.communicate(timeout=30)
    assert process.returncode == 3
    assert complaint == f"closeseq: {path}: {line}; the packets before that are good\n"
    assert "graceful" in report


def test_a_connection_that_goes_on_in_the_next_file_is_one_with_packets_of_both(tmp_path):
    whole = read_file(CAPTURES / "final-ack-lost.pcap").packets
    (tmp_path / "f.pcap").write_bytes(pcap(whole[:9]))
    (tmp_path / "f.pcap1").write_bytes(pcap(whole[9:]))
    started = ["follow", tmp_path / "f.pcap", "-c", "17"]
    told = run_forked([*started, "-f", "jsonl"], text=True)
    assert told.returncode == 0
    last = json.loads(told.stdout.splitlines()[-1])
    assert (last["id"], last["packets"]) == (1, 17)
    assert last["files"] == {"1": str(tmp_path / "f.pcap"), "2": str(tmp_path / "f.pcap1")}
    places = [(step["packet"], step["file_packet"]) for step in last["timeline"]]
    assert (places[0], places[-1]) == ((1, "1:1"), (17, "2:8"))
    drawn = run_forked(started, text=True).stdout
    assert "the server's final ACK (#2:2 #2:4 #2:6) was lost 3 times" in " ".join(drawn.split())
    assert f"files: 1 {tmp_path / 'f.pcap'}, 2 {tmp_path / 'f.pcap1'}" in " ".join(drawn.split())


@pytest.mark.parametrize("duration", ["0", "30"])
def test_damage_is_told_with_status_3_also_where_it_is_met_at_the_end(tmp_path, duration):
    path = tmp_path / "f.pcap"
    path.write_bytes((CAPTURES / "client-closes.pcap").read_bytes() + bytes(8) + b"\xff" * 8)
    with command(path, "--duration", duration) as process:
        report, complaint = process.communicate(timeout=60)
    assert process.returncode == 3
    watching, problem = complaint.splitlines()
    assert watching.startswith("closeseq: watching")
    assert problem.startswith(
        f"closeseq: {path}: packet 12, byte 962: the record claims 4294967295 captured bytes"
    )
    assert "graceful" in report


ROTATING = """
import os, socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
folder, program, *rotation = sys.argv[1:]
command = {
    "tcpdump": ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-Z", "root"],
    "dumpcap": ["dumpcap", "-i", "lo"],
}[program]
writer = subprocess.Popen([*command, *rotation], stderr=subprocess.PIPE, cwd=folder)
while not os.listdir(folder):
    writer.stderr.readline()  # it listens
print("listening", flush=True)
sys.stdin.readline()
with socket.create_server(("127.0.0.1", 8080)) as server:
    for number in range(30):
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.sendall(bytes(60_000))
        client.recv(60_000, socket.MSG_WAITALL)
        accepted.close()
        client.close()
        time.sleep(0.1)
time.sleep(1)
writer.terminate()
writer.communicate(timeout=20)
"""
ROTATIONS = {
    "tcpdump -C": ["tcpdump", "-C", "1", "-w", "f.pcap"],
    "tcpdump -C -W": ["tcpdump", "-C", "1", "-W", "10", "-w", "f.pcap"],
    "tcpdump -G": ["tcpdump", "-G", "1", "-w", "f-%s.pcap"],
    "dumpcap -b": ["dumpcap", "-b", "duration:1", "-w", "f.pcapng"],
}


@needs("ip", "unshare", "live packets", root=True)
@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
def test_what_rotates_is_followed(tmp_path, rotation):
    if not shutil.which(rotation[0]):
        pytest.skip(f"needs {rotation[0]}")
    started = ["unshare", "--net", sys.executable, "-c", ROTATING, str(tmp_path), *rotation]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as traffic:
        assert traffic.stdout.readline() == "listening\n"
        (path,) = tmp_path.iterdir()
        with command(path) as process:
            assert process.stderr.readline().startswith(f"closeseq: watching {path}")
            traffic.stdin.close()
            assert traffic.wait(60) == 0
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            report, complaint = process.communicate(timeout=60)
    # tcpdump -G may have begun its first file long before its first packet, and left it empty.
    read = {file: read_file(file).packets for file in tmp_path.iterdir()}
    files = sorted((file for file in read if read[file]), key=lambda file: read[file][0].time_ns)
    assert len(files) > 1
    assert complaint == "".join(f"closeseq: going on in {file}\n" for file in files if file != path)
    assert process.returncode == 0
    total = sum(map(len, read.values()))
    assert total > 200
    assert f": {total:,} packets" in " ".join(report.split()), report
