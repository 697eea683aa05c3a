"""Which files are meant, from when until when each goes, and which continue each other."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import closeseq
from capture_files import Packet, enhanced, interface, pcap, pcap_record, pcapng, section, statistics
from closeseq.capture import chains as extents
from closeseq.capture.chains import Chain, Timed, arranged, extent, family, find_chains, natural
from closeseq.capture.names import files_named
from closeseq.errors import CaptureError

SECOND = 10**9
BEGAN = 1_800_000_000 * SECOND


def packets(first, last, number=4):
    """Return packets from the one second to the other, since BEGAN."""
    step = (last - first) / max(number - 1, 1)
    return [Packet(BEGAN + round((first + step * i) * SECOND), bytes(60)) for i in range(number)]


def written(path, first, last, make=pcap):
    path.write_bytes(make(packets(first, last)))
    return str(path)


def chains_of(*files):
    """Return the names in each chain of files (name, first, last)."""
    timed = [
        Timed(round(first * SECOND), round(last * SECOND), natural(name), index, name)
        for index, (name, first, last) in enumerate(files)
    ]
    return [" ".join(one.path for one in chain) for chain in arranged(timed)]


ARRANGED = {
    "the times decide": ([("b", 0, 9), ("a", 20, 29), ("c", 10, 19)], ["b c a"]),
    "side by side": ([("a", 0, 9), ("b", 5, 14)], ["a", "b"]),
    "one within the other": ([("a", 0, 9), ("b", 5, 6)], ["a", "b"]),
    "the same twice": ([("a", 0, 9), ("b", 0, 9)], ["a", "b"]),
    "packets change places at the seam": ([("a", 0, 9), ("b", 8.95, 20)], ["a b"]),
    "more than that overlaps": ([("a", 0, 9), ("b", 7.9, 20)], ["a", "b"]),
    "one packet a file, all at once": ([("a", 5, 5), ("b", 5, 5), ("c", 5, 5)], ["a b c"]),
    "a packet at the seam": ([("a", 0, 5), ("b", 5, 9), ("c", 5, 5)], ["a c b"]),
    "two rings": (
        [
            *(("eth0-1", 0, 10), ("eth0-2", 10.1, 20), ("eth0-3", 20.3, 30)),
            *(("eth1-1", 0.1, 10.05), ("eth1-2", 10.08, 20.1), ("eth1-3", 20.2, 30)),
        ],
        ["eth0-1 eth0-2 eth0-3", "eth1-1 eth1-2 eth1-3"],
    ),
    "two rings, told by the ends of their names": (
        [("1-eth0", 0, 10), ("1-eth1", 1, 10.1), ("2-eth1", 10.2, 20), ("2-eth0", 10.3, 20)],
        ["1-eth0 2-eth0", "1-eth1 2-eth1"],
    ),
    "a second ring that begins later": (
        [("web-1", 0, 10), ("db-1", 10.05, 20), ("web-2", 10.1, 20), ("db-2", 20.1, 30)],
        ["web-1 web-2", "db-1 db-2"],
    ),
    "one that only fills a hole is of it": (
        [("web-1", 0, 10), ("web-2", 30, 40), ("again", 15, 25)],
        ["web-1 again web-2"],
    ),
}


@pytest.mark.parametrize(("files", "expected"), ARRANGED.values(), ids=ARRANGED)
def test_files_that_follow_one_another_are_a_chain(files, expected):
    for order in (files, files[::-1]):
        assert chains_of(*order) == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_what_does_not_overlap_is_one_chain_whatever_the_names(lengths, dice):
    files, at = [], 0
    for length in lengths:
        files.append((f"{dice.choice('abc')}{dice.randrange(1000)}", at, at + length))
        at += length + dice.randrange(3)
    (chain,) = chains_of(*dice.sample(files, len(files)))
    firsts = {}
    for name, first, _ in files:
        firsts.setdefault(name, []).append(first)
    assert len(chain.split()) == len(files)


def test_names_of_one_rotation_have_a_family():
    assert family("ring-00001.pcap") == family("ring-00417.pcapng.zst")
    assert family("f.pcap") == family("f.pcap12") == family("f.cap.GZ")
    assert family("web.pcap") != family("db.pcap")


# Extents


@pytest.fixture
def small(monkeypatch):
    """Let few bytes be looked at, so that files of some thousand packets are long ones."""
    monkeypatch.setattr(extents, "LOOK", 4096)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("make", [pcap, pcapng])
@pytest.mark.parametrize("number", [1, 5, 700])
def test_the_ends_of_a_file_tell_its_times(small, tmp_path, order, make, number):
    path = tmp_path / "f"
    held = packets(0, 300, number)
    path.write_bytes(make(held, order))
    assert extent(str(path)) == (str(path), held[0].time_ns, held[-1].time_ns)


def looked_at(path):
    """Return the times that the ends of a file tell, without reading all of it."""
    with path.open("rb", buffering=0) as file:
        return extents._times_at_both_ends(file)


def test_a_long_file_is_not_read_through(small, tmp_path):
    path = tmp_path / "f"
    for data in (
        pcap(packets(0, 300, 700)),
        pcap(packets(0, 300, 700), nano=True),
        pcapng(packets(0, 300, 700)),
        pcapng(packets(0, 300, 700)) + statistics(),
    ):
        path.write_bytes(data)
        assert looked_at(path) == (BEGAN, BEGAN + 300 * SECOND)


def test_packets_that_hold_captures_do_not_deceive(small, tmp_path):
    """The frames of someone who copies a capture are full of records."""
    old = pcap_record(Packet(BEGAN + 77 * SECOND, bytes(40)))
    held = [Packet(BEGAN + i * SECOND, old * (1 + i % 9)) for i in range(200)]
    path = tmp_path / "f"
    path.write_bytes(pcap(held))
    assert extent(str(path))[1:] == (BEGAN, BEGAN + 199 * SECOND)


def test_the_latest_of_the_last_packets_counts(small, tmp_path):
    held = packets(0, 300, 700)
    held[-1], held[-5] = held[-5], held[-1]
    for make in (pcap, pcapng):
        (tmp_path / "f").write_bytes(make(held))
        assert extent(str(tmp_path / "f"))[1:] == (BEGAN, BEGAN + 300 * SECOND)


def test_a_file_cut_short_is_read_through(small, tmp_path):
    held = packets(0, 699, 700)
    for make in (pcap, pcapng):
        (tmp_path / "f").write_bytes(make(held)[:-10])
        assert extent(str(tmp_path / "f"))[1:] == (BEGAN, BEGAN + 698 * SECOND)


def test_a_file_of_noise_at_its_end_is_read_through(small, tmp_path):
    noise = Random(1).randbytes(9000)
    (tmp_path / "f").write_bytes(pcap(packets(0, 9)) + pcap_record(Packet(BEGAN + 12 * SECOND, noise)))
    assert extent(str(tmp_path / "f"))[1:] == (BEGAN, BEGAN + 12 * SECOND)


def test_clocks_of_two_interfaces_are_told_apart(small, tmp_path):
    held = packets(0, 300, 700)
    data = section() + interface(tsresol=6) + interface(tsresol=9)
    data += b"".join(enhanced(packet, ident=1, ticks=packet.time_ns) for packet in held)
    (tmp_path / "f").write_bytes(data)
    assert looked_at(tmp_path / "f") == (BEGAN, BEGAN + 300 * SECOND)


def test_compressed_and_empty_files_have_an_extent_too(tmp_path):
    (tmp_path / "f").write_bytes(gzip.compress(pcap(packets(3, 8))))
    assert extent(str(tmp_path / "f"))[1:] == (BEGAN + 3 * SECOND, BEGAN + 8 * SECOND)
    (tmp_path / "f").write_bytes(pcap([]))
    assert extent(str(tmp_path / "f"))[1:] == (None, None)
    (tmp_path / "f").write_bytes(b"no capture")
    with pytest.raises(CaptureError, match="it is text"):
        extent(str(tmp_path / "f"))


# Chains of files


def test_files_without_packets_belong_to_a_chain_and_are_named(tmp_path):
    one, two = written(tmp_path / "a1", 0, 5), written(tmp_path / "a3", 6, 9)
    (tmp_path / "a2").write_bytes(pcap([]))
    empty = str(tmp_path / "a2")
    assert find_chains([two, empty, one]) == ([Chain((one, two), (empty,))], [])
    assert find_chains([empty, empty]) == ([Chain((empty,)), Chain((empty,))], [])


def test_captures_that_overlap_are_named_in_each_other(tmp_path):
    web = [written(tmp_path / "web1", 0, 5), written(tmp_path / "web2", 6, 9)]
    db = written(tmp_path / "db", 3, 8, pcapng)
    assert find_chains([*web, db]) == ([Chain(tuple(web), (), (db,)), Chain((db,), (), (web[0],))], [])
    assert closeseq.chains(db, *web[::-1]) == [(db,), tuple(web)]
    with pytest.raises(ValueError, match=r"db and .*web1 overlap in time: analyse each by itself"):
        closeseq.analyze(db, *web)


def test_what_cannot_be_read_keeps_nothing_from_being_done(tmp_path):
    one, two = written(tmp_path / "1", 0, 5), written(tmp_path / "2", 6, 9)
    missing = str(tmp_path / "missing")
    chains, broken = find_chains([one, missing, two])
    assert chains == [Chain((one, two))]
    assert [(error.path, error.problem) for error in broken] == [(missing, "no such file")]
    analysis = closeseq.analyze(two, missing, one)
    assert analysis.reading.packets == 8
    assert analysis.reading.error.path == missing
    assert closeseq.chains(one, missing, two) == [(one, two), (missing,)]
    with pytest.raises(CaptureError, match="no such file"):
        closeseq.analyze(missing, missing)


def test_a_file_cut_short_goes_on_in_the_next(tmp_path):
    (tmp_path / "1").write_bytes(pcap(packets(0, 5))[:-3])
    paths = [str(tmp_path / "1"), written(tmp_path / "2", 6, 9)]
    analysis = closeseq.analyze(*paths)
    assert [file.packets for file in analysis.reading.files.files] == [3, 4]
    assert [error.path for error in analysis.reading.files.errors()] == [paths[0]]
    assert analysis.reading.error.packet == 4


def test_a_file_that_vanishes_meanwhile_is_one_error(tmp_path, monkeypatch):
    paths = [written(tmp_path / str(number), 10 * number, 10 * number + 5) for number in range(3)]
    progress = []

    def gone(position, size):
        progress.append((position, size))
        (tmp_path / "1").unlink(missing_ok=True)

    analysis = closeseq.analyze(*paths, progress=gone)
    assert analysis.reading.packets == 8
    assert [(e.path, e.problem) for e in analysis.reading.files.errors()] == [(paths[1], "no such file")]
    sizes = {size for _, size in progress}
    assert len(sizes) == 1
    assert progress[0][0] < progress[-1][0] <= sizes.pop()


def test_a_count_ends_within_the_chain(tmp_path):
    paths = [written(tmp_path / str(number), 10 * number, 10 * number + 5) for number in range(3)]
    for count, held in ((3, [3]), (4, [4]), (6, [4, 2])):
        files = closeseq.analyze(*paths, count=count).reading.files.files
        assert [file.packets for file in files] == held


# Names


def names(*named):
    return [Path(path).name for path in files_named(map(str, named)).paths]


def test_a_directory_stands_for_the_captures_in_it(tmp_path):
    for name in ("f10.pcap", "f9.pcap", "without-ending", ".hidden.pcap"):
        written(tmp_path / name, 0, 1)
    (tmp_path / "notes.txt").write_text("no capture")
    (tmp_path / "empty.pcap").write_bytes(b"")
    (tmp_path / "below").mkdir()
    written(tmp_path / "below" / "deep.pcap", 0, 1)
    assert names(tmp_path) == ["empty.pcap", "f9.pcap", "f10.pcap", "without-ending"]
    found = files_named([str(tmp_path)])
    assert found.notices == [f"{tmp_path}: 1 of 5 files are not captures, and are left out"]
    assert (found.several, found.broken) == (True, [])
    assert names(tmp_path / "**" / "*.pcap") == ["deep.pcap", "empty.pcap", "f9.pcap", "f10.pcap"]


def test_a_directory_without_captures_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("no capture")
    found = files_named([str(tmp_path)])
    assert not found.paths
    assert [str(error) for error in found.broken] == [
        f"{tmp_path}: there is no capture in this directory; name the captures or their directory"
    ]
    with pytest.raises(CaptureError, match="there is no capture in this directory"):
        closeseq.analyze(str(tmp_path))


def test_an_empty_name_is_not_the_working_directory(tmp_path, monkeypatch):
    written(tmp_path / "a.pcap", 0, 1)
    monkeypatch.chdir(tmp_path)
    found = files_named(["", "a.pcap"])
    assert found.paths == ["a.pcap"]
    assert [str(error) for error in found.broken] == [
        "'': a capture without a name; name the capture, or . for this directory"
    ]


def test_a_pattern_stands_for_files_unless_one_is_called_so(tmp_path):
    for name in ("r1.pcap", "r2.pcap", "r[12].pcap"):
        written(tmp_path / name, 0, 1)
    assert names(tmp_path / "r?.pcap") == ["r1.pcap", "r2.pcap"]
    assert names(tmp_path / "r[12].pcap") == ["r[12].pcap"]
    assert names(tmp_path / "x*.pcap", tmp_path / "no") == ["x*.pcap", "no"]
    assert not files_named([str(tmp_path / "r1.pcap")]).several
    assert files_named([str(tmp_path / "r1.*")]).several


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_standard_input_may_be_a_list_of_names(tmp_path, monkeypatch, separator):
    paths = [written(tmp_path / name, 0, 1) for name in ("one", "two\u00e4", "three")]
    listed = separator.join([*paths, str(tmp_path / "missing"), ""])

    class Input:
        buffer = io.BytesIO(listed.encode())

    monkeypatch.setattr(sys, "stdin", Input)
    found = files_named(["-"])
    assert found.paths == [*paths, str(tmp_path / "missing")]
    assert found.several


@pytest.mark.parametrize("data", [pcap(), pcapng(), gzip.compress(pcap()), b"12:00:01 IP 127.0.0.1", b""])
def test_standard_input_that_is_no_list_is_still_to_be_read(monkeypatch, data):
    class Input:
        buffer = io.BytesIO(data)

    monkeypatch.setattr(sys, "stdin", Input)
    found = files_named(["-"])
    assert (found.paths, found.several) == (["-"], False)
    assert Input.buffer.read() == data
