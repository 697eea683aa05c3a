"""scripts/benchmark and benchmark_cluster: they run, and their captures hold what they are said to hold."""

import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest

import closeseq
from benchmark_captures import CAPTURES, ring
from machine import needs
from places import ROOT

CONNECTIONS = 400
PARTINGS = ROOT / "scripts" / "partings"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return each capture's analysis, and how many packets it is said to have."""
    folder = tmp_path_factory.mktemp("made")
    packets = {name: make(folder / name, CONNECTIONS, 1) for name, make in CAPTURES.items()}
    return {name: (closeseq.analyze(str(folder / name)), number) for name, number in packets.items()}


@pytest.mark.parametrize("name", list(CAPTURES))
def test_every_packet_is_read_and_is_tcp(made, name):
    analysis, packets = made[name]
    reading = analysis.reading
    assert (reading.packets, reading.segments, reading.error) == (packets, packets, None)
    assert not reading.skipped
    assert not reading.notes


@pytest.mark.parametrize("name", list(CAPTURES))
def test_the_same_seed_gives_the_same_capture_and_another_another(tmp_path, name):
    one, same, other = (tmp_path / each for each in ("one", "same", "other"))
    for path, seed in ((one, 1), (same, 1), (other, 2)):
        CAPTURES[name](path, 50, seed)
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_varied_holds_every_kind_of_end(made):
    analysis, _ = made["varied"]
    assert set(analysis.verdicts) >= {
        *("graceful", "simultaneous", "reset", "closing", "open", "refused", "unanswered"),
    }
    assert set(analysis.findings) >= {"stuck-close-wait", "three-segment-close", "half-close", "keepalive"}
    versions = Counter(":" in connection.client.address for connection in analysis)
    assert min(versions.values()) > CONNECTIONS / 20
    assert max(connection.incarnation for connection in analysis) > 1
    openers = {connection.opener for connection in analysis}
    assert len(openers) > 1  # some began before the capture
    assert len(analysis.shapes) > CONNECTIONS / 20


def test_all_lossy_connections_retransmit(made):
    analysis, _ = made["lossy"]
    spoken = [connection for connection in analysis if connection.server.bytes]
    assert len(spoken) > CONNECTIONS * 0.9
    assert sum(analysis.losses) > len(spoken)
    assert sum(made["varied"][0].losses) < len(spoken) / 4


def test_bulk_and_scan_have_ten_packets_for_each_connection_of_the_others(made):
    for name, connections in (("bulk", 20), ("scan", CONNECTIONS * 10)):
        analysis, packets = made[name]
        assert packets == pytest.approx(CONNECTIONS * 10, rel=0.1)
        assert len(analysis) == connections
    assert made["scan"][0].verdicts == {"unanswered": CONNECTIONS * 10}


@needs("tcpdump")
def test_the_benchmark_prints_a_table_of_ratios(tmp_path):
    command = [sys.executable, "scripts/benchmark", "--connections", "30", "--runs", "1", "--timings"]
    result = subprocess.run(
        [*command, "--captures", "varied", "--keep", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=140,
        check=True,
    )
    assert (tmp_path / "varied.pcap").stat().st_size > 1000
    table = result.stdout[result.stdout.index("varied: ") :].split("\n\n")[0]
    floor, *others = re.findall(r"^  (\S.*?) +(\d+\.\d+) +(\d+\.\d) +(\d+)$", table, re.MULTILINE)
    assert floor[0] == "tcpdump --count"
    assert float(floor[2]) == 1
    assert [one[0] for one in others][-4:] == [
        *("closeseq, --jobs 1", "closeseq, --jobs 2"),
        *("closeseq jsonl, --jobs 1", "closeseq jsonl, --jobs 2"),
    ]
    assert re.search(r"two processes take, of the time of one: summary [\d.]+, jsonl [\d.]+\n", table)
    assert all(float(seconds) > 0 and int(peak) > 0 for _, seconds, _, peak in others)
    assert len(re.findall(r"seconds by stage: starting [\d.]+, reading", table)) == 4


def test_an_unknown_capture_is_refused():
    command = [sys.executable, "scripts/benchmark", "--captures", "alike,nothing"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "nothing: known are alike, varied, lossy, bulk, scan" in result.stderr


def test_where_connections_part_is_shown_line_by_line(tmp_path):
    """No replay is counted twice, and each line that is shown is in the function that it is said to be in."""
    CAPTURES["varied"](tmp_path / "varied.pcap", CONNECTIONS, 1)
    command = [
        sys.executable,
        str(PARTINGS),
        str(tmp_path / "varied.pcap"),
        "--lines",
        "1000",
        "--callers",
        "1",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    replays = int(told[0].split()[0].replace(",", ""))
    found = [re.fullmatch(r" *([\d,]+)  (.+)", line) for line in told[1:]]
    assert sum(int(one[1].replace(",", "")) for one in found) <= replays
    lines = [one[2] for one in found if one[2] != "(other steps)"]
    assert len(lines) > 5
    for line in lines:
        path, number, function = re.fullmatch(r"(\S+):(\d+) (\S+)", line).groups()
        text = (ROOT / "closeseq" / path).read_text(encoding="utf-8").splitlines()
        assert text[int(number) - 1].strip()
        assert function.startswith("<") or f"def {function}(" in "\n".join(text)


def test_a_ring_is_one_capture_in_files_of_a_size(tmp_path):
    packets = ring(tmp_path, 12, 100_000, 1, 20)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 12
    assert all(100_000 - 1700 < path.stat().st_size <= 100_000 for path in paths)
    (chain,) = closeseq.chains(str(tmp_path))
    assert list(chain) == list(map(str, paths))
    analysis = closeseq.analyze(str(tmp_path))
    assert (analysis.reading.packets, analysis.reading.error) == (packets, None)
    assert not analysis.reading.skipped
    assert len(analysis) > 12 * 8
    go_on = sum(len(closeseq.record(one)["files"]) > 1 for one in analysis)
    assert 0 < go_on < len(analysis) / 2


def test_the_benchmark_of_clusters_tells_memory_and_that_records_are_equal():
    if find_spec("distributed") is None:  # importing it takes long
        pytest.skip("Dask is not installed: pip install 'closeseq[cluster]'")
    command = [
        sys.executable,
        "scripts/benchmark_cluster",
        "--files",
        "3",
        "--megabytes",
        "0.1",
        "--rate",
        "5",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, check=True)
    assert result.stdout.startswith("3 files, 0 MB\n")
    peaks = re.findall(r"(driver|scheduler|worker \d|one process),? (\d+) MB", result.stdout)
    assert [name for name, _ in peaks] == ["driver", "scheduler", "worker 1", "worker 2", "one process"]
    assert all(int(peak) > 40 for _, peak in peaks[:-1])  # one process may have ended before it was looked at
    assert re.search(r"  \d\d records: equal\n$", result.stdout)
