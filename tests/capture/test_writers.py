"""Saving captures: what is written is read again, by us and by others, whatever happens on the way."""

import errno
import io
import json
import os
import random
import stat
import subprocess
import sys
import threading
import time

import dpkt
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader, RawPcapReader

from capture_files import ETHERNET, RAW, Packet, block, expected, option, read_file
from closeseq.capture import open_capture
from closeseq.capture.saver import Rotation, Saver, parse_rotation
from closeseq.capture.writers import PcapngWriter, PcapWriter, SavedDevice
from closeseq.errors import SaveError
from examples import examples
from machine import needs
from saved_frames import LO, NOON_NS, frames, some

ROOT = os.geteuid() == 0


def pcapng(path, *devices):
    return PcapngWriter(path.open("xb", buffering=0), devices or [LO], started_ns=NOON_NS)


# Writers


lengths = st.lists(st.sampled_from([0, 1, 2, 3, 4, 54, 66, 67, 1514, 65_535, 65_536, 70_001]), max_size=12)


@examples(40)
@example([65_535, 70_001, 1, 65_536, 65_535], 0, random.Random(1))
@given(lengths, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_blocks_are_those_that_are_built_one_by_one(tmp_path_factory, lengths, gap, draw):
    packets = [Packet(NOON_NS + i, draw.randbytes(n), n + i) for i, n in enumerate(lengths)]
    devices = [draw.randrange(3) for _ in packets]
    path = tmp_path_factory.mktemp("w") / "f"
    writer = pcapng(path, LO, LO, LO)
    begin = writer.size
    writer.write(frames(packets, gap), np.array(devices, np.int64))
    assert writer.packets == len(packets)
    writer.close()
    made = b""
    for packet, device in zip(packets, devices, strict=True):
        parts = (device, packet.time_ns >> 32, packet.time_ns & 0xFFFFFFFF, len(packet.data), packet.wire)
        padding = bytes(-len(packet.data) % 4)
        made += block(6, b"".join(n.to_bytes(4, "little") for n in parts) + packet.data + padding)
    assert path.read_bytes()[begin:] == made
    assert writer.size == path.stat().st_size


def test_a_large_batch_is_written_piece_by_piece(tmp_path):
    packets = some(400, length=65_000)  # 26 MB
    writer = pcapng(tmp_path / "f")
    writer.write(frames(packets))
    writer.finish(0)
    assert read_file(tmp_path / "f") == (expected(packets), None, 0)


def test_a_pcap_has_nanoseconds(tmp_path):
    packets = [p._replace(link_type=RAW) for p in some(9)]
    writer = PcapWriter((tmp_path / "f").open("xb"), RAW)
    writer.write(frames(packets[:4]))
    writer.write(frames(packets[4:]))
    writer.finish(0)
    assert read_file(tmp_path / "f") == (expected(packets), None, 0)
    with RawPcapReader(str(tmp_path / "f")) as reader:
        assert (reader.nano, reader.linktype) == (True, RAW)
        assert [(p, m.sec * 10**9 + m.usec, m.wirelen) for p, m in reader] == [
            (p.data, p.time_ns, p.wire) for p in packets
        ]
    assert writer.packets == 9
    assert writer.size == (tmp_path / "f").stat().st_size


def test_a_pcap_takes_one_link_type(tmp_path):
    writer = PcapWriter((tmp_path / "f").open("xb"), RAW)
    with pytest.raises(ValueError, match="link type 101"):
        writer.write(frames(some(1)))
    writer.close()


def test_other_programs_read_what_is_written(tmp_path):
    packets = some(20)
    device = SavedDevice("lo", ETHERNET, 192, "tcp port 80")
    writer = pcapng(tmp_path / "f", device)
    writer.write(frames(packets))
    writer.finish(NOON_NS + 10**9, [3])
    with RawPcapNgReader(str(tmp_path / "f")) as reader:
        got = [(p, m.tshigh << 32 | m.tslow, m.wirelen, m.ifname) for p, m in reader]
    assert got == [(p.data, p.time_ns, p.wire, b"lo") for p in packets]
    with (tmp_path / "f").open("rb") as file:
        reader = dpkt.pcapng.Reader(file)
        assert reader.datalink() == ETHERNET
        assert [(pytest.approx(time), data) for time, data in reader] == [
            (p.time_ns / 10**9, p.data) for p in packets
        ]
        names = {o.code: bytes(o.data) for o in reader.idb.opts}
    assert names[11] == b"\0tcp port 80"


@needs("tcpdump")
@pytest.mark.parametrize("form", ["pcapng", "pcap"])
def test_tcpdump_reads_what_is_written(tmp_path, form):
    path = tmp_path / "f"
    writer = pcapng(path, LO, LO) if form == "pcapng" else PcapWriter(path.open("xb"), ETHERNET)
    writer.write(frames(some(9)))
    writer.write(frames(some(2, first=9)), 1)
    writer.finish(NOON_NS)
    read = subprocess.run(["tcpdump", "-r", path, "--count"], capture_output=True, text=True, check=True)
    assert read.stdout.startswith("11 packets")


def test_the_end_says_when_it_was_and_what_was_lost(tmp_path):
    writer = pcapng(tmp_path / "f")
    assert writer.declare(LO) == 1
    writer.write(frames(some(3)), 1)
    size, announced = writer.size, writer.closing_size
    writer.finish(NOON_NS + 5 * 10**9, [2, 3])
    assert (tmp_path / "f").stat().st_size == size + announced
    with open_capture(str(tmp_path / "f")) as capture:
        assert sum(map(len, capture.batches())) == 3
        assert (capture.ended_ns, capture.dropped) == (NOON_NS + 5 * 10**9, 5)
    received = option(4, (6).to_bytes(8, "little"))
    assert received in (tmp_path / "f").read_bytes()[size:]


def test_a_capture_spans_all_its_packets(tmp_path):
    writer = PcapngWriter((tmp_path / "f").open("xb"), [LO], started_ns=NOON_NS + 10**9)
    writer.write(frames(some(3)))
    writer.finish(1)
    begin, end = (
        option(code, n.to_bytes(8)[3::-1] + n.to_bytes(8)[:3:-1])
        for code, n in ((2, NOON_NS), (3, NOON_NS + 2000))
    )
    assert begin + end in (tmp_path / "f").read_bytes()
    with open_capture(str(tmp_path / "f")) as capture:
        list(capture.batches())
        assert capture.ended_ns == NOON_NS + 2000


def test_nothing_of_the_buffer_is_kept_and_each_batch_is_there_at_once(tmp_path):
    writer = pcapng(tmp_path / "f")
    packets = some(5)
    for i in range(3):
        batch = frames(packets)
        writer.write(batch)
        batch.buffer[:] = 0
        assert read_file(tmp_path / "f").packets == expected(packets * (i + 1))
    writer.close()


def test_a_packet_costs_no_python_of_its_own(tmp_path):
    batch, best = frames(some(10_000, length=100)), 1.0
    writer = pcapng(tmp_path / "f")
    for _ in range(9):
        begin = time.thread_time()
        writer.write(batch)
        best = min(best, time.thread_time() - begin)
    writer.close()
    assert best < 0.015  # 4 ms where this was written, half of them the system's


# Saving


def test_a_file_is_saved_while_it_is_captured(tmp_path):
    packets = some(50)
    with Saver(str(tmp_path / "x.pcapng"), [LO]) as saver:
        saver.write(frames(packets[:20]))
        assert read_file(tmp_path / "x.pcapng").packets == expected(packets[:20])
        saver.write(frames(packets[20:]))
        saver.lost(0, 7)
        assert (saver.packets, saver.files) == (50, 1)
    assert read_file(tmp_path / "x.pcapng") == (expected(packets), None, 7)


def test_a_file_that_is_there_is_overwritten_only_by_force(tmp_path):
    path = tmp_path / "x.pcapng"
    path.write_text("precious")
    with pytest.raises(SaveError, match=r"x.pcapng: the file is there already; --force overwrites it"):
        Saver(str(path), [LO])
    assert path.read_text() == "precious"
    with Saver(str(path), [LO], force=True) as saver:
        saver.write(frames(some(1)))
    assert read_file(path).packets == expected(some(1))


def test_no_link_leads_elsewhere(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SaveError, match="there already"):
        Saver(str(tmp_path / "x"), [LO])
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("name", "line"), [("no/x", "No such file"), (".", "Is a directory")])
def test_where_nothing_can_be_written_one_line_says_so(tmp_path, name, line):
    with pytest.raises(SaveError, match=line) as caught:
        Saver(str(tmp_path / name), [LO])
    assert "\n" not in str(caught.value)
    assert caught.value.packets == 0


def test_the_mode_is_what_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        Saver(str(tmp_path / "x"), [LO]).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_a_pipe_gets_the_whole_capture(tmp_path):
    packets = some(30_000)  # more than a pipe holds
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(read_file(tmp_path / "pipe")))
    reader.start()
    with Saver(str(tmp_path / "pipe"), [LO]) as saver:
        saver.write(frames(packets))
    reader.join()
    assert got == [(expected(packets), None, 0)]


TO_STDOUT = """
import sys
sys.path.insert(0, "tests/support")
from saved_frames import LO, frames, some
from closeseq.capture.saver import Saver
from closeseq.errors import SaveError
try:
    with Saver("-", [LO]) as saver:
        while saver.packets < 30_000:
            saver.write(frames(some(10_000, first=saver.packets)))
except SaveError as error:
    saver.write(frames(some(10)))  # goes nowhere, and says nothing
    saver.close()
    print(error, error.errno, error.packets == saver.packets, file=sys.stderr)
"""


def test_standard_output_gets_the_whole_capture():
    done = subprocess.run([sys.executable, "-c", TO_STDOUT], capture_output=True, check=True)
    assert done.stderr == b""
    assert len([packet for packet, _ in RawPcapNgReader(io.BytesIO(done.stdout))]) == 30_000


def test_standard_output_may_be_appended_to_a_file(tmp_path):
    with Saver(str(tmp_path / "f"), [LO]) as saver:
        saver.write(frames(some(3)))
    with (tmp_path / "f").open("ab") as file:
        subprocess.run([sys.executable, "-c", TO_STDOUT], stdout=file, check=True)
    assert read_file(tmp_path / "f").packets == expected(some(3) + some(30_000))


def test_what_was_in_the_file_before_stays_when_it_may_not_grow(tmp_path):
    (tmp_path / "f").write_bytes(b"precious" * 1000)
    # Python would keep half of a module that it compiles, and fail on it from then on.
    limit = (
        "import resource, sys; sys.dont_write_bytecode = True; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_003, 100_003))"
    )
    with (tmp_path / "f").open("ab") as file:
        command = [sys.executable, "-c", f"{limit}\n{TO_STDOUT}"]
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, check=True)
    assert f"packets were saved before {errno.EFBIG} True" in done.stderr
    data = (tmp_path / "f").read_bytes()
    assert data[:8000] == b"precious" * 1000
    (tmp_path / "f").write_bytes(data[8000:])
    got = read_file(tmp_path / "f")
    assert got == (expected(some(len(got.packets))), None, 0)
    assert 100_003 - 104 < len(data) <= 100_003


def test_a_closed_pipe_is_one_line_and_the_capture_goes_on():
    with subprocess.Popen(
        [sys.executable, "-c", TO_STDOUT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1000)
        process.stdout.close()
        told = process.stderr.read().decode()
    assert process.returncode == 0
    # Of a pipe nobody knows how much was read, and nothing of the batch counts as saved that was cut.
    assert told.startswith("standard output: the reader has closed the pipe")
    assert told.endswith(f"{errno.EPIPE} True\n")
    assert told.count("\n") == 1


def test_a_terminal_is_no_place_for_a_capture():
    terminal, end = os.openpty()
    command = [sys.executable, "-c", f"import sys\nsys.stderr = sys.__stderr__\n{TO_STDOUT}"]
    done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(terminal)
    os.close(end)
    assert "standard output: cannot be written: it is a terminal" in done.stderr


FILL = """
import json, os, resource, sys
sys.path.insert(0, "tests/support")
from saved_frames import LO, frames, some
from capture_files import expected, read_file
from closeseq.capture.saver import Rotation, Saver
from closeseq.capture.writers import PcapWriter
from closeseq.errors import SaveError

path, limit, rotation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
saver = Saver(path, [LO], rotation=Rotation(size=rotation) if rotation else None)
given, told = 0, []
for _ in range(1000):
    try:
        saver.write(frames(some(100, first=given)))
    except SaveError as error:
        told.append([str(error), error.errno, error.packets])
    given += 100
saver.close()
folder = os.path.dirname(path)
names = sorted(os.listdir(folder))
read = [read_file(os.path.join(folder, name)) for name in names]
packets = [packet for one in read for packet in one.packets]
print(json.dumps({
    "told": told, "files": names, "size": os.path.getsize(os.path.join(folder, names[-1])),
    "errors": [str(one.error) for one in read if one.error],
    "whole": packets == expected(some(len(packets))), "packets": len(packets),
}))
"""


def fill(path, *, limit=0, rotation=0, before=()):
    command = [*before, sys.executable, "-c", FILL, str(path), str(limit), str(rotation)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def holds_what_was_saved(result, number, reason):
    ((line, said, packets),) = result["told"]
    assert said == number
    assert line.endswith(f"{reason}; {packets:,} packets were saved before")
    assert (result["packets"], result["whole"], result["errors"]) == (packets, True, [])
    assert packets > 100


@pytest.mark.parametrize("limit", [20_000, 20_003, 20_050])
def test_a_file_that_may_not_grow_ends_behind_a_whole_packet(tmp_path, limit):
    result = fill(tmp_path / "x", limit=limit)
    holds_what_was_saved(result, errno.EFBIG, "the file may not become larger than it is")
    assert limit - 104 < result["size"] <= limit


@needs("unshare", "mounts of our own", root=True)
@pytest.mark.parametrize("rotation", [0, 30_000])
def test_a_full_disk_leaves_a_file_that_can_be_read(tmp_path, rotation):
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=200k none {tmp_path}/disk && exec "$@"'
    result = fill(
        tmp_path / "disk" / "x.pcapng",
        rotation=rotation,
        before=["unshare", "--mount", "sh", "-c", mount, "-"],
    )
    holds_what_was_saved(result, errno.ENOSPC, "the disk is full")
    assert 150_000 < result["packets"] * 96 < 204_800
    assert len(result["files"]) == (7 if rotation else 1)


def test_a_device_that_is_full_from_the_start_is_told_at_once():
    with pytest.raises(SaveError, match=r"/dev/full: the disk is full$"):
        Saver("/dev/full", [LO])


# Rotation


def rotated(folder):
    """Read the files of a rotation in their order; each must be whole."""
    got = [read_file(path) for path in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))]
    assert [one.error for one in got] == [None] * len(got)
    return [one.packets for one in got]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.one_of(
        st.integers(1, 1500).map(lambda size: Rotation(size=size)),
        st.integers(1, 30_000).map(lambda time_ns: Rotation(time_ns=time_ns)),
    ),
    st.lists(st.integers(-20_000, 20_000), min_size=72, max_size=72),
)
def test_nothing_is_lost_or_doubled_at_any_seam(tmp_path_factory, batches, rotation, jumps):
    folder = tmp_path_factory.mktemp("r")
    now = time.time_ns()
    packets = [p._replace(time_ns=now + i * 1000 + jumps[i]) for i, p in enumerate(some(sum(batches)))]
    with Saver(str(folder / "x.pcapng"), [LO], rotation=rotation) as saver:
        begin = 0
        for size in batches:
            saver.write(frames(packets[begin : begin + size]))
            begin += size
        assert saver.packets == len(packets)
    got = rotated(folder)
    assert [packet for one in got for packet in one] == expected(packets)
    assert all(got)
    assert saver.files == len(got)


def test_no_file_is_larger_than_asked_for_and_each_is_named_in_turn(tmp_path):
    packets = some(2000)
    with Saver(str(tmp_path / "x.y.pcapng"), [LO, LO], rotation=Rotation(size=20_000)) as saver:
        saver.write(frames(packets), 1)
        assert saver.file == str(tmp_path / f"x.y-{saver.files:05}.pcapng")
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert len(sizes) > 5
    assert all(19_890 < size <= 20_000 for size in sizes[:-1])
    assert sorted(p.name for p in tmp_path.iterdir())[:2] == ["x.y-00001.pcapng", "x.y-00002.pcapng"]
    assert [packet for one in rotated(tmp_path) for packet in one] == expected(packets)


def test_a_packet_larger_than_a_file_gets_one_for_itself(tmp_path):
    packets = [*some(2), Packet(NOON_NS, bytes(5000)), *some(2)]
    with Saver(str(tmp_path / "x"), [LO], rotation=Rotation(size=600)) as saver:
        saver.write(frames(packets))
    assert [len(one) for one in rotated(tmp_path)] == [2, 1, 2]


def test_by_time_the_limits_stay_where_they_are(tmp_path):
    second = 10**9
    with Saver(str(tmp_path / "x"), [LO], rotation=Rotation(time_ns=10 * second)) as saver:
        begin = time.time_ns() + second
        times = [0, 1, 8, 9.5, 10, 37, 41, 47, 49.5]  # the limits are at about 9, 19, 29, 39, 49
        saver.write(frames([Packet(begin + round(at * second), b"1234") for at in times]))
    got = [[(p.time_ns - begin) / second for p in one] for one in rotated(tmp_path)]
    assert got == [[0, 1, 8], [9.5, 10], [37], [41, 47], [49.5]]


def test_each_file_knows_its_own_losses_and_ends_where_the_next_begins(tmp_path):
    with Saver(str(tmp_path / "x"), [LO], rotation=Rotation(size=2000)) as saver:
        for first, lost in ((0, 3), (10, 3), (20, 7)):
            saver.lost(0, lost)
            saver.write(frames(some(10, first=first)))
        saver.lost(0, 12)
    told = []
    for path in sorted(tmp_path.iterdir()):
        with open_capture(str(path)) as capture:
            packets = [t for batch in capture.batches() for t in batch.time_ns.tolist()]
            told.append((packets[0], capture.ended_ns, capture.dropped))
    assert [dropped for *_, dropped in told] == [3, 9]
    assert told[0][1] == told[1][0]
    assert told[1][1] > told[1][0]


def test_files_of_an_earlier_rotation_stay(tmp_path):
    (tmp_path / "x-00007.pcapng").write_text("precious")
    with pytest.raises(SaveError, match=r"x-00007.pcapng: the file is there already"):
        Saver(str(tmp_path / "x.pcapng"), [LO], rotation=Rotation(size=600))
    assert [path.name for path in tmp_path.iterdir()] == ["x-00007.pcapng"]


def test_a_file_that_appears_on_the_way_stays_and_ends_the_saving(tmp_path):
    saver = Saver(str(tmp_path / "x"), [LO], rotation=Rotation(size=1500))
    (tmp_path / "x-00002").write_text("precious")
    with pytest.raises(
        SaveError, match=r"x-00002: the file is there already.*; \d+ packets were saved before"
    ):
        saver.write(frames(some(100)))
    saved = saver.packets
    saver.write(frames(some(100)))
    saver.close()
    assert (tmp_path / "x-00002").read_text() == "precious"
    assert read_file(tmp_path / "x-00001") == (expected(some(saved)), None, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-00001", "x-00002"]


def test_a_pipe_cannot_be_rotated():
    with pytest.raises(ValueError, match="pipe"):
        Saver("-", [LO], rotation=Rotation(size=600))


@pytest.mark.parametrize(
    ("text", "rotation"),
    [
        ("100MB", Rotation(size=100_000_000)),
        ("64kB", Rotation(size=64_000)),
        ("64KiB", Rotation(size=65_536)),
        ("1.5 GiB", Rotation(size=3 << 29)),
        ("2gb", Rotation(size=2_000_000_000)),
        ("500B", Rotation(size=500)),
        ("30s", Rotation(time_ns=30 * 10**9)),
        ("10m", Rotation(time_ns=600 * 10**9)),
        ("1h", Rotation(time_ns=3600 * 10**9)),
        ("0.5d", Rotation(time_ns=43_200 * 10**9)),
    ],
)
def test_sizes_and_times_are_told_apart(text, rotation):
    assert parse_rotation(text) == rotation


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "neither a size nor a time"),
        ("100", "neither a size nor a time"),
        ("-5MB", "neither a size nor a time"),
        ("1e6B", "neither a size nor a time"),
        ("100M", "'M' in '100M' is no unit"),
        ("5 weeks", "'weeks' in '5 weeks' is no unit"),
        ("0s", "less than one"),
        ("0.1B", "less than one"),
    ],
)
def test_what_is_neither_is_refused_with_examples(text, line):
    with pytest.raises(ValueError, match=line) as caught:
        parse_rotation(text)
    assert "100MB" in str(caught.value)
    assert "\n" not in str(caught.value)
