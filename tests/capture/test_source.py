"""Where captures come from: files, pipes and gzip; and all that is no capture."""

import gzip
import io
import lzma
import os
import random
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

from capture_files import (
    PACKETS,
    Packet,
    drain,
    expected,
    pcap,
    pcap_header,
    pcap_record,
    pcapng,
    read_file,
    read_stream,
)
from closeseq.capture import Capture, compression, open_capture
from closeseq.capture.source import Source
from closeseq.errors import CaptureError

MANY = [Packet(i * 1000, random.Random(i).randbytes(i % 90)) for i in range(2000)]


def written(path, data):
    path.write_bytes(data)
    return path


DRAIN = """
import sys
from pathlib import Path
from closeseq.capture import open_capture
from closeseq.errors import CaptureError
with open_capture(sys.argv[1]) as capture:
    try:
        for _ in capture.batches():
            pass
    except CaptureError:
        pass
    count = capture.packets
# ru_maxrss would be that of whoever started us, if that is larger
status = Path("/proc/self/status")
most = status.read_text().partition("VmHWM:")[2].split()[0] if status.exists() else 0
print(count, most)
"""


def drained(path):
    """Read a capture in a process of its own; return its packets and its peak of memory in KiB."""
    result = subprocess.run([sys.executable, "-c", DRAIN, path], capture_output=True, check=True)
    count, most_kib = map(int, result.stdout.split())
    return count, most_kib


# gzip


@pytest.mark.parametrize("make", [pcap, pcapng])
def test_gzip_is_known_by_its_magic_not_by_its_name(tmp_path, make):
    assert read_file(written(tmp_path / "x.pcap", gzip.compress(make()))) == (expected(), None, 0)


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_gzip_pieces_change_nothing(chunk):
    assert read_stream(gzip.compress(pcap()), chunk) == (expected(), None, 0)


def test_gzip_members_follow_one_another_and_padding_is_ignored():
    data = pcap()
    parts = gzip.compress(data[:30]) + gzip.compress(b"") + gzip.compress(data[30:])
    for padding in (b"", b"\0" * 600, b"rubbish", b"\x1f"):
        assert read_stream(parts + padding) == (expected(), None, 0)


def test_gzip_cut_anywhere_gives_the_packets_before_the_cut():
    data = gzip.compress(pcap())
    for cut in range(2, len(data)):
        got = read_stream(data[:cut])
        assert got.packets == expected(PACKETS[: len(got.packets)])
        assert "the gzip data are cut short" in str(got.error)


def test_gzip_cut_in_the_middle_gives_half_of_the_packets():
    packed = gzip.compress(pcap(MANY))
    got = read_stream(packed[: len(packed) // 2])
    assert len(got.packets) > 800
    assert got.packets == expected(MANY[: len(got.packets)])
    assert got.error.packet == len(got.packets) + 1


def test_everything_before_damaged_gzip_is_read():
    packed = bytearray(gzip.compress(pcap(MANY)))
    packed[-8] ^= 1  # the checksum of it all
    got = read_stream(bytes(packed))
    assert got.packets == expected(MANY)
    assert "the gzip data are damaged (incorrect data check)" in str(got.error)


def test_gzip_with_flipped_bytes_gives_packets_or_a_capture_error():
    packed = gzip.compress(pcap())
    for at in range(2, len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        read_stream(damaged)  # checks by itself that there is nothing else


def test_many_small_members_are_not_copied_over_and_over(monkeypatch):
    handed = 0

    class Counting:
        """zlib's own, which counts what it is handed: what is behind a member's end it copies."""

        def __init__(self, member):
            self.member = member

        def decompress(self, packed, most):
            nonlocal handed
            handed += len(packed)
            return self.member.decompress(packed, most)

        def __getattr__(self, name):
            return getattr(self.member, name)

    new = compression._member
    monkeypatch.setattr(compression, "_member", lambda: Counting(new()))
    data = pcap(MANY)
    parts = [gzip.compress(data[:30]), gzip.compress(b"") * 5000, gzip.compress(data[30:])]
    assert read_stream(b"".join(parts)) == (expected(MANY), None, 0)
    assert 5000 * 20 < handed < 5 * sum(map(len, parts))


def test_a_compressed_bomb_does_not_fill_the_memory(tmp_path):
    packer = zlib.compressobj(1, wbits=31)
    records = 16 * pcap_record(Packet(0, bytes(2**16)))
    parts = [packer.compress(pcap_header()), *(packer.compress(records) for _ in range(300)), packer.flush()]
    count, most_kib = drained(written(tmp_path / "bomb", b"".join(parts)))
    assert count == 300 * 16
    assert most_kib < 150_000


def test_the_position_in_gzip_is_that_of_the_compressed_file(tmp_path):
    path = written(tmp_path / "f", gzip.compress(pcap(MANY)))
    with open_capture(str(path)) as capture:
        drain(capture)
        assert capture.position == capture.size == path.stat().st_size


# Streams


def test_a_fifo_is_read_to_its_end(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(pcap(MANY),))
    writer.start()
    with open_capture(str(fifo)) as capture:
        assert capture.size is None
        assert drain(capture) == (expected(MANY), None, 0)
        assert capture.position == len(pcap(MANY))
    writer.join()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_dash_is_standard_input(pack):
    program = (
        "from closeseq.capture import open_capture\n"
        "with open_capture('-') as capture:\n"
        "    print(sum(map(len, capture.batches())), capture.position)\n"
    )
    data = pack(pcap(MANY))
    result = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert result.stdout.split() == [b"2000", str(len(data)).encode()]


def test_standard_input_that_a_test_put_there_is_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcap())))
    assert read_file("-") == (expected(), None, 0)
    assert not sys.stdin.closed


def test_files_that_seem_to_be_empty_are_read_to_their_end():
    with pytest.raises(CaptureError, match=r"^/proc/self/status: not a capture: it is text; "):
        open_capture("/proc/self/status")


def test_an_error_of_the_device_comes_after_what_was_read():
    class Failing(io.RawIOBase):
        def __init__(self):
            self.left = [pcap()[:-1]]

        def readinto(self, into):
            if not self.left:
                raise OSError(5, "Input/output error")
            data = self.left.pop()
            into[: len(data)] = data
            return len(data)

    with Capture("f", Source(Failing())) as capture:
        got = drain(capture)
    assert got.packets == expected(PACKETS[:-1])
    assert f"packet 4, byte {len(pcap()) - 1}: reading failed: Input/output error" in str(got.error)


def test_a_large_record_comes_together_from_many_pieces():
    large = [Packet(0, bytes(200_000)), *PACKETS]
    assert read_stream(pcap(large), chunk=1000) == (expected(large), None, 0)


# Files that change while they are read


def test_batches_outlive_their_capture(tmp_path):
    path = written(tmp_path / "f", pcap())
    with open_capture(str(path)) as capture:
        (frames,) = capture.batches()
    path.unlink()
    assert frames.buffer[frames.offset[0] :][:60].tobytes() == b"a" * 60


def shortened(path):
    os.truncate(path, 100)


def emptied(path):
    os.truncate(path, 0)


def begun_anew(path):
    """As tcpdump does that is started again: the same name, the same file, other packets."""
    path.write_bytes(pcap([Packet(p.time_ns + 5000, p.data) for p in MANY * 2]))


CHANGES = {
    shortened: "the file was made shorter while it was read",
    emptied: "the file was made shorter while it was read",
    begun_anew: "the file was rewritten while it was read",
}


@pytest.mark.parametrize(("change", "line"), CHANGES.items(), ids=[one.__name__ for one in CHANGES])
@pytest.mark.parametrize("chunk", [5000, 8_000_000])
def test_a_file_that_changes_while_it_is_read_is_an_error_after_what_was_read(tmp_path, change, line, chunk):
    path = written(tmp_path / "f", pcap(MANY))
    with Capture("f", Source(path.open("rb", buffering=0), chunk), batch=10) as capture:

        def changing():
            for number, frames in enumerate(Capture.batches(capture)):
                yield frames
                if number == 0:
                    change(path)

        capture.batches = changing
        got = drain(capture)
    assert got.packets == expected(MANY[: len(got.packets)])
    assert got.error.packet == len(got.packets) + 1
    assert line in str(got.error)
    # What was in memory by then is good.
    assert 10 <= len(got.packets) < 200 if chunk == 5000 else len(got.packets) == 2000


def test_a_gzip_file_that_changes_while_it_is_read_is_told_likewise(tmp_path):
    path = written(tmp_path / "f", gzip.compress(pcap(MANY), 1))
    with Capture("f", Source(path.open("rb", buffering=0), 5000), batch=10) as capture:
        batches = capture.batches()
        next(batches)
        shortened(path)
        with pytest.raises(CaptureError, match="the file was made shorter while it was read"):
            list(batches)


def test_what_is_appended_while_it_is_read_is_not_waited_for(tmp_path):
    path = written(tmp_path / "f", pcap(MANY))
    with (
        Capture("f", Source(path.open("rb", buffering=0), 5000), batch=10) as capture,
        path.open("ab") as file,
    ):
        count = 0
        for frames in capture.batches():
            count += len(frames)
            file.write(pcap_record(MANY[1]))
            file.flush()
        assert count == 2000


@pytest.mark.parametrize("lines", [0, 1])
def test_standard_input_that_is_a_file_is_read_on_from_its_place(tmp_path, lines):
    path = written(tmp_path / "f", b"a line\n" * lines + pcap(MANY))
    program = (
        "import sys\n"
        "from closeseq.capture import open_capture\n"
        f"lines = [sys.stdin.buffer.readline() for _ in range({lines})]\n"
        "with open_capture('-') as capture:\n"
        "    print(sum(map(len, capture.batches())))\n"
    )
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", program], stdin=file, capture_output=True, check=True)
    assert done.stdout == b"2000\n"


def test_a_pipe_that_does_not_wait_is_waited_for():
    read, write = os.pipe()
    os.set_blocking(read, False)
    program = (
        "from closeseq.capture import open_capture\n"
        "with open_capture('-') as capture:\n"
        "    print(sum(map(len, capture.batches())))\n"
    )
    data = pcap(MANY)
    with subprocess.Popen([sys.executable, "-c", program], stdin=read, stdout=subprocess.PIPE) as reader:
        os.close(read)
        os.write(write, data[:30_000])
        time.sleep(0.5)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(data[30_000:])
        assert reader.communicate(timeout=60)[0] == b"2000\n"


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the memory used is read from Linux's /proc"
)
def test_a_huge_file_does_not_fill_the_memory(tmp_path):
    record = pcap_record(Packet(0, bytes(2**16)))
    with (tmp_path / "f").open("wb") as file:
        file.write(pcap([]))
        file.writelines([record * 16] * 300)  # 300 MB
    count, most_kib = drained(tmp_path / "f")
    assert count == 300 * 16
    assert most_kib < 120_000


def test_a_record_that_claims_much_costs_no_memory(tmp_path):
    claim = pcapng() + b"\x06\0\0\0\xf0\xff\xff\x07"  # an Enhanced Packet Block of 128 MiB
    count, most_kib = drained(written(tmp_path / "f", gzip.compress(claim)))
    assert count == len(PACKETS)
    assert most_kib < 120_000


def test_a_closed_capture_says_so(tmp_path):
    capture = open_capture(str(written(tmp_path / "f", pcap())))
    capture.close()
    with pytest.raises(ValueError, match="the capture is closed"):
        next(capture.batches())


def test_a_batch_has_at_least_one_packet(tmp_path):
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        open_capture(str(written(tmp_path / "f", pcap())), batch=0)


# No captures

FOREIGN = {
    "nothing": (b"", "the file is empty"),
    "damaged xz": (b"\xfd7zXZ\x00" + bytes(20), "the xz data are damaged ("),
    "the begin of bzip2": (b"BZh91AY", "the bzip2 data are cut short"),
    "damaged bzip2": (b"BZh9" + bytes(20), "the bzip2 data are damaged (invalid data stream)"),
    "snoop": (b"snoop\x00\x00\x00\x00\x00\x00\x02", "a Solaris snoop capture; convert it first"),
    "modified pcap": (pcap_header(magic=0xA1B2CD34), "a modified pcap"),
    "modified pcap, other order": (pcap_header(">", magic=0xA1B2CD34), "a modified pcap"),
    "gzip twice": (gzip.compress(gzip.compress(pcap())), "compressed twice, with gzip inside; unpack it"),
    "xz in gzip": (gzip.compress(lzma.compress(pcap())), "compressed twice, with xz inside"),
    "line ends rewritten": (pcapng().replace(b"\n", b"\r\n"), "a pcapng file whose line ends were rewritten"),
    "text": (b"12:00:01.5 IP a.b > c.d: Flags [F.], seq 1", "not a capture: it is text"),
    "noise": (b"\x7fELF\x01\x02", "it begins with 7f 45 4c 46 01 02; "),
    "half a magic number": (b"\xd4\xc3", "it begins with d4 c3; "),
    "empty gzip": (gzip.compress(b""), "the file is empty"),
    "the begin of gzip": (b"\x1f\x8b\x08", "the gzip data are cut short"),
    "a damaged gzip header": (b"\x1f\x8b\xff\xff" + bytes(20), "the gzip data are damaged"),
}


@pytest.mark.parametrize(("data", "line"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_capture_is_named_when_it_is_opened(tmp_path, data, line):
    path = written(tmp_path / "f", data)
    with pytest.raises(CaptureError) as caught:
        open_capture(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert line in str(caught.value)
    assert caught.value.remedy


def test_names_that_cannot_be_opened_are_one_line_with_a_remedy(tmp_path):
    cases = {
        "": "no such file",
        str(tmp_path / "absent"): "no such file",
        str(tmp_path): "this is a directory",
        str(written(tmp_path / "file", b"") / "below"): "cannot be opened: Not a directory",
        "nul\0byte": "no file can have this name",
        "x" * 5000: "cannot be opened: File name too long",
    }
    for name, problem in cases.items():
        with pytest.raises(CaptureError) as caught:
            open_capture(name)
        assert (caught.value.path, caught.value.problem) == (name, problem)
        assert caught.value.remedy


def test_a_file_one_may_not_read_says_what_to_do(tmp_path):
    path = written(tmp_path / "f", pcap())
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(
            CaptureError, match="not permitted to read it; ask its owner, or read it with sudo"
        ):
            open_capture(str(path))
    finally:
        os.seteuid(user)
