"""Long columns on disk: they hold what they would hold in memory, and where they cannot, memory does."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import closeseq
from closeseq.classes import classes
from closeseq.connections import Connections, pairs, state, tracker
from closeseq.connections.pairs import PairIndex
from closeseq.connections.state import ColumnTable, DiskColumns, Pairs, column
from closeseq.report.records import record
from examples import examples
from segment_rows import CAPTURES, captured, joined


class Made(ColumnTable):
    plain: np.ndarray = column(np.int64)
    wide: np.ndarray = column(np.uint32, 7, width=2)


@pytest.fixture
def all_on_disk(monkeypatch):
    """Put columns of a page on disk already, make them grow often, and give pages back all the time."""
    monkeypatch.setattr(state, "LARGE_BYTES", 4096)
    monkeypatch.setattr(state, "ROOMY_BYTES", 512)
    monkeypatch.setattr(tracker, "MOST_TOUCHED_ROWS", 1)


def held_in(folder):
    """Return how many files of a folder this process has open, those without a name included."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one with which they are listed
            found += str(descriptor.readlink()).startswith(str(folder))
    return found


@pytest.mark.parametrize("reserved", [1, 3, 64])
def test_columns_on_disk_hold_what_was_written(all_on_disk, tmp_path, monkeypatch, reserved):
    """Whether they grow where they are, or have to be copied to where there is more room."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(state, "RESERVED", reserved)
    where = DiskColumns()
    made, plain = Made(where), np.zeros(0, np.int64)
    for count in (1, 300, 20_000, 50):
        made.grow(count, plain=np.arange(count))
        plain = np.append(plain, np.arange(count))
        made.wide[0, 1] = count
        where.release()
        assert (made.plain == plain).all()
        assert made.wide[0].tolist() == [7, count]
        assert (made.wide[1:] == 7).all()


def test_a_column_on_disk_grows_without_being_copied(all_on_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = Made(DiskColumns())
    made.grow(5000, plain=1)
    before = made.plain
    made.grow(20_000, plain=2)
    before[0] = 3
    assert made.plain[[0, 4999, 5000, 24_999]].tolist() == [3, 1, 2, 2]


def test_their_files_have_no_name_and_go_with_them(all_on_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = Made(DiskColumns())
    made.grow(5000, plain=1)
    assert held_in(tmp_path) == 2 * 2  # each is mapped and open
    assert list(tmp_path.iterdir()) == []
    del made
    assert held_in(tmp_path) == 0


def test_without_a_folder_for_files_columns_lie_in_memory(all_on_disk, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/proc/self/nowhere")
    made = Made(DiskColumns())
    made.grow(5000, plain=3)
    assert made.plain.tolist() == [3] * 5000


def test_where_no_more_room_is_to_be_had_columns_lie_in_memory(all_on_disk, tmp_path, monkeypatch):
    """A file of limited size is like a full disk: it is refused before anything is written to it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made, limits = Made(DiskColumns()), resource.getrlimit(resource.RLIMIT_FSIZE)
    made.grow(1000, plain=3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        made.grow(100_000, plain=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert made.plain.tolist() == [3] * 1000 + [4] * 100_000


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_an_analysis_with_columns_on_disk_is_the_same(all_on_disk, path, monkeypatch):
    found = list(map(record, closeseq.analyze(str(path))))
    monkeypatch.setattr(state, "LARGE_BYTES", 1 << 40)
    assert found == list(map(record, closeseq.analyze(str(path))))


@pytest.fixture(scope="module")
def many():
    """The rows of all captures at once: some hundred connections."""
    return joined([captured(path) for path in CAPTURES])


@pytest.mark.parametrize("most", [1, 7, 50])
def test_classes_found_in_portions_are_those_of_all(many, most, monkeypatch):
    fed = Connections()
    fed.feed(many)
    settings, now_ns = closeseq.Settings(), int(many.time_ns.max())
    whole = classes.Classes(settings)
    expected = whole.find(fed, now_ns)
    monkeypatch.setattr(tracker, "MOST_AT_ONCE", most)
    portions = classes.Classes(settings)
    found = portions.find(fed, now_ns)
    assert [portions.outcomes[n] for n in found.outcome] == [whole.outcomes[n] for n in expected.outcome]


@pytest.mark.parametrize("most", [1, 7, 50])
def test_what_connections_show_together_is_the_same_in_portions(many, most, monkeypatch):
    whole, portions = Connections(), Connections()
    for fed in (whole, portions):
        fed.feed(many)
    expected, strays = whole.closes(), whole.strays()
    monkeypatch.setattr(tracker, "MOST_AT_ONCE", most)
    found = portions.closes()
    assert strays
    assert portions.strays() == strays
    names = [column.name for column in fields(expected)]
    assert [getattr(found, name).tolist() for name in names] == [
        getattr(expected, name).tolist() for name in names
    ]


def test_what_was_learned_may_be_forgotten_in_the_middle(many, monkeypatch):
    fed = Connections()
    fed.feed(many)
    settings, now_ns = closeseq.Settings(), int(many.time_ns.max())
    whole, some = classes.Classes(settings), classes.Classes(settings)
    expected = whole.find(fed, now_ns)
    monkeypatch.setattr(classes, "MOST_TREES", 2)
    found = some.find(fed, now_ns)
    assert [some.outcomes[n] for n in found.outcome] == [whole.outcomes[n] for n in expected.outcome]


@examples(60)
@given(
    batches=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True), max_size=6),
    hashes=st.sampled_from([1, 2, 64]),
)
def test_the_index_of_pairs_finds_what_a_dictionary_finds(batches, hashes):
    """Also where many pairs share a hash: then the pairs themselves are compared."""
    words = np.random.default_rng(5).integers(0, 3, (5, 61)).astype(np.uint64)
    words[2], words[4] = np.arange(61), np.uint64(4 << 32)
    own, known = PairIndex(Pairs()), dict[int, int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "FEWEST_SLOTS", 2)
        patch.setattr(pairs, "hashed", lambda columns: columns[2] % np.uint64(hashes) * np.uint64(97))
        own.renew()
        for batch in batches:
            found = own.find(list(words[:, batch]))
            assert found.tolist() == [known.setdefault(key, len(known)) for key in batch]
