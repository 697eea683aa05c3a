"""The road end to end, from a capture file to analysed connections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

import closeseq
from closeseq.analysis import Analysis
from closeseq.capture import open_capture
from closeseq.reading import BatchCounts
from closeseq.segments import decode
from places import CAPTURES

if TYPE_CHECKING:
    from pathlib import Path

EVERY = sorted([*CAPTURES.glob("*.pcap"), *CAPTURES.glob("*.pcapng"), *CAPTURES.glob("*.gz")])
IDS = [path.name for path in EVERY]


def fed_in_batches(path: Path, size: int) -> Analysis:
    analysis = Analysis(str(path))
    with open_capture(str(path), batch=size) as capture:
        for frames in capture.batches():
            segments = decode(frames)
            analysis.reading.add(len(frames), BatchCounts.of(segments))
            analysis.feed(segments)
    return analysis


def whole(analysis: Analysis) -> list:
    return [
        (c.conversation, c.timeline.transitions, c.timeline.steps, c.judgement, c.shape) for c in analysis
    ]


@pytest.mark.parametrize("path", EVERY, ids=IDS)
def test_batches_of_any_size_give_equal_results(path):
    at_once = fed_in_batches(path, 100_000)
    connections = list(at_once)
    for size in (1, 7) if at_once.reading.packets < 60 else (7,):  # one by one they take long
        in_parts = fed_in_batches(path, size)
        # All else is made of these; by whom they were fed, they do not know.
        assert [one.conversation for one in in_parts] == [one.conversation for one in connections]
        assert in_parts.reading == at_once.reading
        assert (in_parts.verdicts, in_parts.shapes) == (at_once.verdicts, at_once.shapes)


@pytest.mark.parametrize("path", EVERY, ids=IDS)
def test_counts_by_class_equal_those_of_every_single_connection(path):
    analysis = closeseq.analyze(str(path), stuck_after=2)
    single = list(analysis)
    assert analysis.verdicts == Counter(c.verdict for c in single)
    assert analysis.shapes == Counter(c.shape for c in single)
    assert analysis.findings == Counter(code for c in single for code in {f.code for f in c.findings})
    problems = [c.id for c in single if c.has_problem]
    assert [c.id for c in analysis.problems()] == problems


def test_the_same_capture_in_three_formats_tells_the_same():
    plain, block, zipped = (
        closeseq.analyze(str(CAPTURES / f"client-closes.{ending}"))
        for ending in ("pcap", "pcapng", "pcap.gz")
    )
    assert whole(plain) == whole(block) == whole(zipped)


def test_an_analysis_is_a_sequence():
    analysis = closeseq.analyze(str(CAPTURES / "leaky-server.pcap"))
    assert len(analysis) == len(list(analysis))
    assert analysis[0].id == 1
    assert analysis[-1].id == len(analysis)
    assert [c.id for c in analysis[1:3]] == [2, 3]
    with pytest.raises(IndexError):
        analysis[len(analysis)]


def test_a_port_chooses_connections_and_says_which_end_is_the_server():
    path = str(CAPTURES / "leaky-server.pcap")
    port = closeseq.analyze(path)[0].server.port
    assert len(closeseq.analyze(path, port=port)) == len(closeseq.analyze(path))
    assert len(closeseq.analyze(path, port=[1, 2])) == 0
    assert closeseq.analyze(path, port=1).reading.segments > 0
    assert len(closeseq.analyze(path, port=np.int64(port))) == len(closeseq.analyze(path))
    for none in ("http", 8080.0, -1, 65536):
        with pytest.raises(ValueError, match=f"{none!r} is not a port; ports are 0 to 65535"):
            closeseq.analyze(path, port=none)


def test_a_host_chooses_connections():
    path = str(CAPTURES / "ipv6-client-closes.pcap")
    assert len(closeseq.analyze(path, host="::1")) == 1
    assert len(closeseq.analyze(path, host="127.0.0.1")) == 0
    with pytest.raises(ValueError, match="localhost"):
        closeseq.analyze(path, host="localhost")


def test_reading_stops_after_a_count_of_packets():
    analysis = closeseq.analyze(str(CAPTURES / "client-closes.pcap"), count=3)
    assert analysis.reading.packets == 3
    assert analysis[0].packets == 3


def test_a_capture_cut_short_is_analysed_up_to_there(tmp_path):
    whole_file = (CAPTURES / "client-closes.pcap").read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole_file[:-30])
    analysis = closeseq.analyze(str(cut))
    assert analysis.reading.error is not None
    assert analysis[0].packets == closeseq.analyze(str(CAPTURES / "client-closes.pcap"))[0].packets - 1


def test_what_cannot_be_read_at_all_is_an_error(tmp_path):
    with pytest.raises(closeseq.CaptureError, match="missing"):
        closeseq.analyze(str(tmp_path / "missing.pcap"))


def test_progress_ends_at_the_size_of_the_file():
    path = CAPTURES / "leaky-server.pcap"
    seen = []
    closeseq.analyze(str(path), progress=lambda position, size: seen.append((position, size)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("name", ["stuck_after", "time_wait", "fin_timeout"])
def test_a_time_of_any_length_is_like_one_that_is_never_over(name):
    path = str(CAPTURES / "leaky-server.pcap")
    ages, aeons, forever = (closeseq.analyze(path, **{name: long}) for long in (1e8, 1e300, float("inf")))
    assert ages.findings == aeons.findings == forever.findings
    assert [c.verdict for c in ages] == [c.verdict for c in aeons] == [c.verdict for c in forever]


@pytest.mark.parametrize(
    "given",
    [
        *({"os": "plan9"}, {"stuck_after": -1}, {"time_wait": float("nan")}, {"ephemeral_ports": 0}),
        *({"port": 70_000}, {"port": [80, -1]}, {"count": -1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(given):
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        closeseq.analyze(str(CAPTURES / "client-closes.pcap"), **given)


def test_a_script_is_analysed_like_a_capture():
    connection = closeseq.from_script("C:S S:SA C:A C:FA S:A", now=100.0)
    assert (connection.verdict, connection.initiator) == ("closing", "client")
    assert connection.server.state == "CLOSE_WAIT"
    assert connection.has("stuck-close-wait")
    assert not closeseq.from_script("C:S S:SA C:A C:FA S:A").has("stuck-close-wait")
