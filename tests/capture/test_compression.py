"""Compressed captures: by content, piece by piece, in bounded memory, cut or damaged anywhere."""

from __future__ import annotations

import bz2
import lzma
import random
import subprocess
import sys

import pytest

from capture_files import PACKETS, Packet, expected, pcap, pcap_record, pcapng, read_file, read_stream
from packing import EACH, PACK

MANY = [Packet(n * 1000, f"packet {n}".encode() * (n % 9)) for n in range(2000)]


@pytest.mark.parametrize("how", EACH)
@pytest.mark.parametrize("make", [pcap, pcapng])
def test_the_content_tells_the_compression_and_not_the_name(tmp_path, how, make):
    path = tmp_path / "x.pcap"
    path.write_bytes(PACK[how](make()))
    assert read_file(path) == (expected(), None, 0)


@pytest.mark.parametrize("how", EACH)
@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_pieces_change_nothing(how, chunk):
    assert read_stream(PACK[how](pcap()), chunk) == (expected(), None, 0)


@pytest.mark.parametrize("how", EACH)
def test_streams_follow_one_another_and_what_is_behind_them_is_ignored(how):
    pack, data = PACK[how], pcap()
    parts = pack(data[:30]) + pack(b"") + pack(data[30:])
    for padding in (b"", b"\0" * 600, b"rubbish", parts[:1]):
        assert read_stream(parts + padding) == (expected(), None, 0)
    between = pack(data[:30]) + bytes(4) + pack(data[30:])
    assert how == "gzip" or read_stream(between) == (expected(), None, 0)


@pytest.mark.parametrize("how", EACH)
def test_many_small_streams_are_read(how):
    pack, data = PACK[how], pcap(MANY)
    parts = [pack(data[:30]), pack(b"") * 3000, pack(data[30:])]
    assert read_stream(b"".join(parts)) == (expected(MANY), None, 0)


@pytest.mark.parametrize("how", EACH)
def test_data_cut_anywhere_give_the_packets_before_the_cut(how):
    data = PACK[how](pcap())
    magic = 6
    for cut in range(magic, len(data)):
        got = read_stream(data[:cut])
        assert got.packets == expected(PACKETS[: len(got.packets)])
        assert f"the {how} data are cut short" in str(got.error)


@pytest.mark.parametrize("how", EACH)
def test_flipped_bytes_give_packets_or_a_capture_error(how):
    packed = PACK[how](pcap())
    for at in range(4, len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        got = read_stream(damaged)  # checks by itself that there is nothing else
        assert got.error is None or got.error.remedy


@pytest.mark.parametrize(("how", "pack"), [("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_damage_behind_megabytes_leaves_what_was_before(how, pack):
    dice = random.Random(1)
    many = [Packet(n, dice.randbytes(60_000)) for n in range(30)]
    packed = bytearray(pack(pcap(many)))
    packed[-20] ^= 1
    got = read_stream(bytes(packed))
    assert f"the {how} data are damaged (" in str(got.error)
    assert len(got.packets) > 10
    assert got.packets == [p._replace(time_ns=0) for p in expected(many[: len(got.packets)])]


DRAIN = """
import sys
from pathlib import Path
from closeseq.capture import open_capture
with open_capture(sys.argv[1]) as capture:
    count = sum(map(len, capture.batches()))
status = Path("/proc/self/status")
print(count, status.read_text().partition("VmHWM:")[2].split()[0] if status.exists() else 0)
"""


@pytest.mark.parametrize("how", EACH)
def test_a_bomb_does_not_fill_the_memory(tmp_path, how):
    path = tmp_path / "bomb"
    path.write_bytes(PACK[how](pcap([]) + pcap_record(Packet(0, bytes(2**16))) * 1600))
    done = subprocess.run([sys.executable, "-c", DRAIN, path], capture_output=True, check=True)
    count, most_kib = map(int, done.stdout.split())
    assert count == 1600
    assert most_kib < 95_000  # of 105 MB


WITHOUT = """
import sys
for name in sys.argv[2:]:
    sys.modules[name] = None
from closeseq.errors import CaptureError
from closeseq.capture import open_capture
try:
    open_capture(sys.argv[1])
except CaptureError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("how", "head", "modules", "remedy"),
    [
        ("zstd", b"\x28\xb5\x2f\xfd", ("compression.zstd", "zstandard"), "pip install 'closeseq[zstd]'"),
        ("xz", b"\xfd7zXZ\x00", ("lzma",), "a Python that was built with lzma"),
        ("bzip2", b"BZh91AY&SY", ("bz2",), "a Python that was built with bzip2"),
    ],
)
def test_what_python_cannot_unpack_is_one_line_that_says_what_to_install(
    tmp_path, how, head, modules, remedy
):
    path = tmp_path / "f"
    path.write_bytes(head + bytes(100))
    command = [sys.executable, "-c", WITHOUT, str(path), *modules]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 1
    assert f"it is compressed with {how}, which this Python cannot unpack; install " in said
    assert remedy in said
