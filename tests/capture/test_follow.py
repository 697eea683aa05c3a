"""Following a capture that something else is still writing: each packet once, as soon as it is whole."""

import bz2
import functools
import gzip
import lzma
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture_files import (
    Packet,
    enhanced,
    expected,
    interface,
    obsolete,
    pcap,
    pcap_record,
    pcapng,
    read_stream,
    section,
    simple,
    statistics,
)
from closeseq.capture.follow import GrowingCapture, open_growing
from closeseq.capture.tail import FileTail, PipeTail
from closeseq.errors import CaptureError
from machine import needs

ONE, TWO = Packet(1_700_000_000_123_456_000, b"one"), Packet(1_700_000_000_123_457_000, b"two!")
MANY = [Packet(i * 1000, bytes([i % 251]) * (i % 90)) for i in range(2000)]


@functools.cache
def at_once(data):
    """Read what is there from its beginning, without following it."""
    return read_stream(data)


def take(capture):
    """Read what is there now, without waiting."""
    packets = []
    while (batch := capture.read(0)) is not None:
        frames = batch.frames
        assert batch.device == 0
        first = capture.packets - len(frames) + 1
        assert frames.number.tolist() == list(range(first, first + len(frames)))
        columns = (frames.offset, frames.captured, frames.wire, frames.time_ns, frames.link_type)
        packets += [
            Packet(time_ns, frames.buffer[at : at + n].tobytes(), wire, link)
            for at, n, wire, time_ns, link in zip(*(c.tolist() for c in columns), strict=True)
        ]
    return packets


def wait_for(capture, count, seconds=10.0):
    """Read until there are so many packets."""
    packets, deadline = [], time.monotonic() + seconds
    while len(packets) < count and not capture.ended and time.monotonic() < deadline:
        batch = capture.read(0.5)
        packets += batch.frames.time_ns.tolist() if batch else []
    return packets


MIXED = (
    section(">") + interface(">") + enhanced(ONE, ">") + obsolete(TWO, ">") + statistics(">", ifdrop=3)
    + section("<") + interface("<") + enhanced(ONE, "<") + simple(TWO, "<")
)  # fmt: skip
FILES = {"pcap": pcap(), "nanoseconds": pcap(nano=True, order=">"), "pcapng": pcapng(), "mixed": MIXED}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_writer_may_flush_at_every_byte(tmp_path, data):
    (tmp_path / "f").touch()
    got = []
    with (tmp_path / "f").open("ab", buffering=0) as file, open_growing(str(tmp_path / "f")) as capture:
        for at in range(len(data)):
            got += take(capture)
            assert got == [] if at < 24 else got == at_once(data[:at]).packets
            file.write(data[at : at + 1])
        got += take(capture)
        assert (capture.ended, capture.notices, capture.packets) == (False, [], len(got))
        assert capture.dropped == at_once(data).dropped
    assert got == at_once(data).packets


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_pipe_may_bring_single_bytes(tmp_path, data):
    os.mkfifo(tmp_path / "f")
    with open_growing(str(tmp_path / "f")) as capture:
        assert take(capture) == []  # nobody writes yet
        with (tmp_path / "f").open("wb", buffering=0) as pipe:
            got = []
            for at in range(len(data)):
                got += take(capture)
                assert got == [] if at < 24 else got == at_once(data[:at]).packets
                pipe.write(data[at : at + 1])
            assert not capture.ended
        got += take(capture)
        assert got == at_once(data).packets
        assert (capture.ended, capture.notices) == (True, [])


@given(
    st.sampled_from([*FILES.values(), pcap(MANY)]),
    st.lists(st.floats(0, 1), max_size=6),
    st.sampled_from([1, 7, 61, 1000, 100_000]),
    st.booleans(),
)
def test_neither_pieces_nor_windows_change_what_is_read(tmp_path_factory, data, cuts, chunk, piped):
    path = tmp_path_factory.mktemp("f") / "f"
    chunk = max(chunk, len(data) // 2000)  # not a hundred thousand reads
    cuts = [0, *sorted(round(cut * len(data)) for cut in cuts), len(data)]
    if piped:
        read, write = os.pipe()
        tail, file = PipeTail(os.fdopen(read, "rb"), chunk), os.fdopen(write, "wb", buffering=0)
    else:
        file = path.open("xb", buffering=0)
        tail = FileTail(path.open("rb", buffering=0), str(path), chunk)
    with closing(GrowingCapture("f", tail)) as capture:
        got = []
        with file:
            for begin, end in pairwise(cuts):
                for at in range(begin, end, 60_000):  # a pipe holds 64 KiB
                    file.write(data[at : min(at + 60_000, end)])
                    got += take(capture)
        got += take(capture)
        assert got == at_once(data).packets
        assert capture.ended == piped


def test_a_read_waits_for_packets_and_comes_back_with_them(tmp_path):
    (tmp_path / "f").write_bytes(pcap([ONE]))
    with open_growing(str(tmp_path / "f")) as capture, (tmp_path / "f").open("ab") as file:
        assert take(capture) == expected([ONE])
        begin = time.monotonic()
        assert capture.read(0.25) is None
        assert 0.2 < time.monotonic() - begin < 2
        later = threading.Timer(0.2, lambda: (file.write(pcap_record(TWO)), file.flush()))
        later.start()
        batch = capture.read(30)
        later.join()
        assert batch.frames.time_ns.tolist() == [TWO.time_ns]
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize("way", ["wake", "stop"])
def test_a_read_that_waits_can_be_told_to_return(tmp_path, way):
    (tmp_path / "f").write_bytes(pcap([ONE]))
    with open_growing(str(tmp_path / "f")) as capture:
        take(capture)
        timer = threading.Timer(0.1, getattr(capture, way))
        timer.start()
        begin = time.monotonic()
        assert capture.read(30) is None
        assert time.monotonic() - begin < 10
        assert capture.ended == (way == "stop")
        timer.join()


def test_what_came_until_the_stop_can_still_be_read(tmp_path):
    (tmp_path / "f").write_bytes(pcap([ONE]))
    with open_growing(str(tmp_path / "f")) as capture, (tmp_path / "f").open("ab") as file:
        take(capture)
        file.write(pcap_record(TWO))
        file.flush()
        capture.stop()
        assert take(capture) == expected([TWO])
        file.write(pcap_record(ONE))
        file.flush()
        assert take(capture) == []
        assert capture.ended


# What becomes of the file


def cut_short(path):
    os.truncate(path, 50)


def removed(path):
    path.unlink()


def renamed(path):
    path.rename(path.with_name("old"))


def replaced(path):
    renamed(path)
    path.write_bytes(pcap([TWO]))


def written_anew(path):
    path.write_bytes(pcap([TWO] * 40))


FATES = {
    cut_short: "the file was made shorter, or rewritten",
    removed: "the file was removed",
    renamed: "the file was renamed",
    replaced: "another file has taken its name",
    written_anew: "the file was made shorter, or rewritten",
}


@pytest.mark.parametrize(("fate", "line"), FATES.items(), ids=[fate.__name__ for fate in FATES])
@pytest.mark.parametrize("partial", [b"", pcap_record(TWO)[:-1]], ids=["whole", "within a packet"])
def test_the_fate_of_the_file_ends_it_in_one_line(tmp_path, fate, line, partial):
    path = tmp_path / "f"
    path.write_bytes(pcap([ONE, TWO, ONE]) + partial)
    with open_growing(str(path)) as capture:
        assert take(capture) == expected([ONE, TWO, ONE])
        fate(path)
        assert capture.read(5) is None
        assert capture.ended
        assert capture.notices == [f"{path}: {line}; the packets before that are good"]
        assert capture.read(5) is None


@pytest.mark.parametrize("fate", [removed, renamed, replaced])
def test_what_was_written_before_the_file_went_is_read_first(tmp_path, fate):
    path = tmp_path / "f"
    path.write_bytes(pcap([ONE]))
    with open_growing(str(path)) as capture, path.open("ab") as file:
        assert take(capture) == expected([ONE])
        file.write(b"".join(map(pcap_record, MANY)))
        file.flush()
        fate(path)
        assert take(capture) == expected(MANY)
        assert capture.ended
        assert len(capture.notices) == 1


def test_an_empty_file_may_go_too(tmp_path):
    (tmp_path / "f").touch()
    with open_growing(str(tmp_path / "f")) as capture:
        assert take(capture) == []
        (tmp_path / "f").unlink()
        assert capture.read(5) is None
        assert "removed" in capture.notices[0]


SHUT_OUT = """
import os, sys
from pathlib import Path
from closeseq.capture.follow import open_growing
with open_growing(sys.argv[1]) as capture:
    print(len(capture.read(0).frames))
    Path(sys.argv[1]).parent.chmod(0)
    if os.geteuid() == 0:  # whom no folder shuts out
        os.setresuid(65534, 65534, 65534)
    print(capture.read(0.15), capture.ended)
"""


def test_whoever_is_shut_out_of_the_folder_goes_on_with_the_file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").write_bytes(pcap([ONE]))
    try:
        command = [sys.executable, "-c", SHUT_OUT, str(folder / "f")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        folder.chmod(0o700)
    assert (done.stdout.split(), done.stderr) == (["1", "None", "False"], "")


# What is no capture, or damaged


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("data", [pcap([ONE]) + bytes(8) + b"\xff" * 8, pcapng([ONE]) + bytes(12)])
def test_damage_is_told_as_the_reader_tells_it(tmp_path, data, piped):
    path = tmp_path / "f"
    if piped:
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=(data,))
        writer.start()
    else:
        path.write_bytes(data)
    with open_growing(str(path)) as capture:
        assert wait_for(capture, 1) == [ONE.time_ns]
        with pytest.raises(CaptureError) as caught:
            capture.read(5)
        assert str(caught.value) == str(at_once(data).error).replace("piped", str(path))
        assert (capture.ended, capture.read(5)) == (True, None)
    if piped:
        writer.join()


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_pipe_that_ends_anywhere_ends_as_the_reader_tells_it(data):
    for cut in range(len(data) + 1):
        read, write = os.pipe()
        os.write(write, data[:cut])
        os.close(write)
        got, error = [], None
        tail = PipeTail(os.fdopen(read, "rb"))
        try:
            with closing(GrowingCapture("piped", tail)) as capture:
                while not capture.ended:
                    got += take(capture)
        except CaptureError as caught:
            error = caught
        finally:
            tail.close()
        whole = at_once(data[:cut])
        assert (str(error), len(got) <= len(whole.packets)) == (str(whole.error), True)


NO_CAPTURES = {
    "gzip": (gzip.compress(pcap()), "a compressed capture cannot be followed"),
    "text": (b"12:00:01 IP 127.0.0.1", "not a capture: it is text"),
    "zstd": (b"\x28\xb5\x2f\xfd1234", "a compressed capture cannot be followed: it is compressed with zstd"),
    "bzip2": (bz2.compress(pcap()), "a compressed capture cannot be followed"),
    "xz": (lzma.compress(pcap()), "a compressed capture cannot be followed"),
    "another pcap": (pcap().replace(b"\2\0\4\0", b"\2\0\5\0"), "pcap version 2.5 is not known"),
}


@pytest.mark.parametrize(("data", "line"), NO_CAPTURES.values(), ids=NO_CAPTURES)
def test_what_is_no_capture_is_told_at_once_or_when_it_shows(tmp_path, data, line):
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(CaptureError, match=line):
        open_growing(str(path))
    path.write_bytes(b"")
    with open_growing(str(path)) as capture, path.open("ab") as file:
        assert take(capture) == []
        file.write(data)
        file.flush()
        with pytest.raises(CaptureError, match=line):
            capture.read(5)
        assert capture.ended


@pytest.mark.parametrize(("name", "line"), [("no", "no such file"), (".", "this is a directory")])
def test_what_cannot_be_opened_is_told(tmp_path, name, line):
    with pytest.raises(CaptureError, match=line):
        open_growing(str(tmp_path / name))


# Whole programs


FOLLOW = """
import sys
from pathlib import Path
from closeseq.capture.follow import open_growing
with open_growing(sys.argv[1]) as capture:
    while not capture.ended and capture.packets < int(sys.argv[2]):
        capture.read(0.5)
    # ru_maxrss would be that of whoever started us, if that is larger
    status = Path("/proc/self/status")
    most = status.read_text().partition("VmHWM:")[2].split()[0] if status.exists() else 0
    print(capture.packets, capture.ended, most)
"""


def follow(path, count, **how):
    command = [sys.executable, "-c", FOLLOW, str(path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, **how)
    packets, ended, most_kib = done.stdout.split()
    return int(packets), ended == "True", int(most_kib)


def test_standard_input_is_followed_as_a_pipe_and_as_a_file(tmp_path):
    (tmp_path / "f").write_bytes(pcap(MANY))
    with subprocess.Popen(["cat", tmp_path / "f"], stdout=subprocess.PIPE) as cat:
        assert follow("-", 10**9, stdin=cat.stdout)[:2] == (2000, True)
    with (tmp_path / "f").open("rb") as file:
        assert follow("-", 2000, stdin=file)[:2] == (2000, False)


def test_an_eager_pipe_is_taken_in_small_bites(tmp_path):
    read, write = os.pipe()
    os.write(write, bytes(60_000))
    with closing(PipeTail(os.fdopen(read, "rb"), 1000)) as tail:
        assert tail.more(0, 1)
        assert len(tail.window) == 1000
        assert tail.more(900, 5000)
        assert (tail.base, len(tail.window)) == (900, 5000)
    os.close(write)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory used is read from Linux's /proc"
)
def test_a_huge_file_does_not_fill_the_memory(tmp_path):
    record = pcap_record(Packet(0, bytes(2**16)))
    with (tmp_path / "f").open("wb") as file:
        file.write(pcap([]))
        file.writelines([record * 16] * 300)  # 300 MB
    packets, _, most_kib = follow(tmp_path / "f", 4800)
    assert packets == 4800
    assert most_kib < 120_000


TRAFFIC = """
import os, socket, subprocess, sys, time
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
command = ["tcpdump", "-i", "lo", "-U", "--immediate-mode", "-s", "128", "-Z", "root", "-w", sys.argv[1]]
tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE)
tcpdump.stderr.readline()  # it listens
with socket.create_server(("127.0.0.1", 0)) as server:
    for _ in range(50):
        client = socket.create_connection(server.getsockname())
        server.accept()[0].close()
        client.close()
print("over", flush=True)
sys.stdin.readline()
tcpdump.terminate()
tcpdump.communicate(timeout=20)
"""


@needs("tcpdump", "ip", "unshare", "live packets", root=True)
def test_tcpdump_is_followed_while_it_captures(tmp_path):
    path = tmp_path / "f"
    path.touch()
    command = ["unshare", "--net", sys.executable, "-c", TRAFFIC, str(path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as traffic,
        open_growing(str(path)) as capture,
    ):
        try:
            times = wait_for(capture, 50 * 6, seconds=30)
            assert traffic.stdout.readline() == "over\n"
        finally:
            traffic.stdin.close()
        traffic.wait(20)
        assert traffic.returncode == 0
        times += wait_for(capture, 10**6, seconds=0.3)
        assert not capture.ended
    data = Path(path).read_bytes()
    assert len(times) >= 50 * 6
    assert times == [packet.time_ns for packet in at_once(data).packets]
