"""A capture cut into files at random places is told as the whole is, but for file names."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import closeseq
from chain_files import (
    CAPTURES,
    IN_ORDER,
    SECOND,
    as_file,
    assert_places,
    assert_same,
    busy,
    cuts_by_count,
    cuts_by_time,
    packets_of,
    written,
)
from closeseq.report.records import header, schema
from record_schema import assert_valid

if TYPE_CHECKING:
    from pathlib import Path

CUTS = {"count": cuts_by_count, "time": cuts_by_time}


def test_nearly_all_captures_are_cut():
    assert len(IN_ORDER) > 50


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(IN_ORDER), st.sampled_from(sorted(CUTS)), st.randoms(use_true_random=False))
def test_a_capture_cut_anywhere_is_the_whole(tmp_path_factory, name, by, dice):
    folder = tmp_path_factory.mktemp("cut")
    packets = packets_of(name)
    paths = written(folder, packets, CUTS[by](packets, dice, most=5), dice)
    parts = closeseq.analyze(*paths, stuck_after=2)
    assert_same(closeseq.analyze(str(CAPTURES / name), stuck_after=2), parts)
    assert_places(packets, parts)


@pytest.mark.parametrize(("seed", "by"), list(enumerate(CUTS)))
def test_a_busy_capture_cut_anywhere_is_the_whole(tmp_path, by, seed):
    dice = Random(f"{by} {seed}")
    packets = busy(dice, every=2, first=seed)
    whole = tmp_path / "whole"
    whole.write_bytes(as_file(packets, dice))
    ring = tmp_path / "ring"
    ring.mkdir()
    paths = written(ring, packets, CUTS[by](packets, dice, most=30), dice)
    expected = closeseq.analyze(str(whole), stuck_after=2)
    assert len({one.incarnation for one in expected}) > 1
    parts = closeseq.analyze(*paths, stuck_after=2)
    assert_same(expected, parts)
    assert_places(packets, parts)
    assert_same(expected, closeseq.analyze(str(ring), stuck_after=2))


@pytest.mark.parametrize("name", ["time-wait-reused.pcap", "final-ack-lost.pcap", "half-close.pcap"])
def test_a_cut_at_every_place_changes_nothing(tmp_path, name):
    """Also within the handshake, between FIN and ACK, and in TIME_WAIT."""
    packets, dice = packets_of(name), Random(name)
    whole = closeseq.analyze(str(CAPTURES / name))
    for cut in range(1, len(packets)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        parts = closeseq.analyze(*written(folder, packets, [cut], dice))
        assert_same(whole, parts)
        assert parts.reading.files.several


def cut_in_two(folder: Path, name: str, at: int, apart: int = 0) -> list[str]:
    """Write a capture in two files; what is in the second is so much later."""
    packets = packets_of(name)
    later = [packet._replace(time_ns=packet.time_ns + apart) for packet in packets[at:]]
    paths = []
    for number, part in enumerate((packets[:at], later), 1):
        path = folder / f"{number}.pcap"
        path.write_bytes(as_file(part, Random(number)))
        paths.append(str(path))
    return paths


def test_records_of_several_files_hold_the_schema(tmp_path):
    analysis = closeseq.analyze(*cut_in_two(tmp_path, "final-ack-lost.pcap", 9, apart=5 * SECOND))
    told = [closeseq.record(connection) for connection in analysis]
    for one in told:
        assert_valid(one)
    (one,) = told
    assert one["files"] == {"1": str(tmp_path / "1.pcap"), "2": str(tmp_path / "2.pcap")}
    assert (one["timeline"][-1]["packet"], one["timeline"][-1]["file_packet"]) == (17, "2:8")
    assert (one["transitions"][0]["packet"], one["transitions"][0]["file_packet"]) == (1, "1:1")
    lost = next(finding for finding in one["findings"] if finding["code"] == "final-ack-lost")
    assert [f"#{place}" in lost["summary"] for place in ("2:2", "2:3", "2:8")] == [True] * 3
    assert lost["file_packets"] == [f"2:{packet - 9}" for packet in lost["packets"]]
    head = header(analysis.reading, 1) | {"connections": told, "population": {"findings": []}}
    jsonschema.validate(
        head, {"$ref": "urn:closeseq:record:1#/$defs/capture", "$defs": {"records": schema()}}
    )
    assert [file["packets"] for file in head["files"]] == [9, 8]
    assert head["gaps"] == [{"before": "1:9", "after": "2:1", "duration": pytest.approx(5.24, abs=0.01)}]


def test_a_gap_is_no_reason_where_nothing_is_missing(tmp_path):
    (one,) = closeseq.analyze(*cut_in_two(tmp_path, "client-closes.pcap", 9, apart=3 * SECOND))
    assert len(one.files.gaps()) == 1
    assert not one.has("capture-incomplete")


def test_a_gap_is_told_where_a_segment_is_missing(tmp_path):
    paths = cut_in_two(tmp_path, "client-closes.pcap", 8, apart=3 * SECOND)
    packets = packets_of("client-closes.pcap")
    (tmp_path / "1.pcap").write_bytes(as_file(packets[:7], Random(1)))  # the FIN, #8, is in neither
    (one,) = closeseq.analyze(*paths)
    (incomplete,) = (finding for finding in one.findings if finding.code == "capture-incomplete")
    assert "(no file covers the 3.39 s between #7 and #8)" in incomplete.summary
    assert (
        "(no file covers the 3.39 s between #1:7 and #2:1)" in closeseq.record(one)["findings"][0]["summary"]
    )
    assert "between #1:7 and #2:1" in " ".join(closeseq.format_timeline(one).split())
