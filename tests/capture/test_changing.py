"""A capture that is made shorter while it is read: a report of what came before, and status 3."""

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest

import closeseq
from attack_script import attack
from capture_files import Packet, pcap, pcap_record
from closeseq.capture.source import CHUNK, Regular
from closeseq.errors import CaptureError
from forked import PIPE, Forked

FRAME = bytes(12) + b"\x08\x00\x45" + bytes(1500)
PLAIN = b"".join(pcap_record(Packet(i * 1000, FRAME)) for i in range(1000))
RUNS = int(os.environ.get("CLOSESEQ_RUNS", "1"))
CHANGED = "was made shorter while it was read; read it again when nothing writes to it"


@pytest.mark.parametrize("to", [0, 100, CHUNK, CHUNK + 12_345])
@pytest.mark.parametrize("run", range(RUNS))
def test_the_library_says_what_it_had_read(tmp_path, to, run):
    path = tmp_path / "f"
    path.write_bytes(pcap([]) + PLAIN * 20)  # 30 MB
    size, seen = path.stat().st_size, []

    def progress(done, whole):
        assert whole == size
        if not seen:
            assert done < size - CHUNK  # most of it is still to be read
            os.truncate(path, to)
        seen.append(done)

    analysis = closeseq.analyze(str(path), progress=progress)
    assert str(analysis.reading.error).endswith(CHANGED)
    assert analysis.reading.error.packet == analysis.reading.packets + 1
    assert CHUNK - len(FRAME) - 16 < seen[-1] <= CHUNK  # of the second window nothing was used
    assert analysis.reading.packets == seen[-1] // (len(FRAME) + 16)


def bytes_read(pid):
    """Return how many bytes a process has read so far."""
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what a process has read is in Linux's /proc")
@pytest.mark.parametrize("run", range(RUNS))
def test_the_command_reports_and_ends_with_status_3(tmp_path, run):
    path = tmp_path / "f"
    path.write_bytes(attack.PCAP_HEADER + attack.some(700_000).tobytes())  # 39 MB
    size = path.stat().st_size
    with Forked(["analyze", "--jobs", "1", path], stdout=PIPE, stderr=PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while bytes_read(process.pid) < 1.9 * CHUNK and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.01)
        assert bytes_read(process.pid) < size - CHUNK
        os.truncate(path, 4096)
        process.send_signal(signal.SIGCONT)
        report, complaint = process.communicate(timeout=120)
    assert process.returncode == 3
    assert complaint.startswith(f"closeseq: {path}: packet ")
    assert complaint.endswith(CHANGED + "\n")
    assert complaint.count("\n") == 1
    found = re.search(r" ([\d,]+) packets .*? ([\d,]+) TCP connections", " ".join(report.split()))
    packets, connections = (int(number.replace(",", "")) for number in found.groups())
    assert 100_000 < packets < 600_000
    assert connections == -(-packets // 10)
    assert f": packet {packets + 1}, byte " in complaint


def test_a_file_that_cannot_be_looked_at_any_more_is_one_error(tmp_path, monkeypatch):
    """As on a network file system whose server was restarted: the handle is stale."""
    path = tmp_path / "f"
    path.write_bytes(pcap([]) + PLAIN)

    def stale(_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(Regular, "changed", stale)
    with pytest.raises(CaptureError, match=r"cannot be looked at any more \(Stale file handle\)"):
        closeseq.analyze(str(path))
