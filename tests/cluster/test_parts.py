"""What grows with the connections is put together in parts, and the summary is that of one process."""

from __future__ import annotations

import contextlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from random import Random
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chain_files import written
from closeseq.cli import cluster_run
from closeseq.cli.main import cli
from closeseq.cluster import spread
from closeseq.cluster.digest import Digest
from closeseq.cluster.kinds import Foremost, MergedCounts
from closeseq.cluster.spread import MEMBERS, MOST_PARTS, Spread, as_bytes, parts_for, piece_of
from closeseq.cluster.totals import Totals
from closeseq.connections.strays import MOST
from closeseq.packets.segments import RST
from closeseq.report.selection import Selection
from closeseq.report.text import Style
from closeseq.settings import SECOND, Settings
from populations import captured, packets_of_rows, together

pytest.importorskip("fsspec", reason="the extra cluster is not installed: pip install 'closeseq[cluster]'")

OPEN = "C:S S:SA C:A C:PA+90 S:PA+500 C:A"
IDLE = f"{OPEN} +5s S:FA C:A C:FA S:A"
REUSED = f"{OPEN} +4.8s C:PA+90 S:PA+500 C:A +5s S:FA C:A C:FA S:A"
STUCK, WAITING = f"{OPEN} C:FA S:A +70s C:K S:A", f"{OPEN} C:FA S:A"
CLOSES = [
    *("C:FA S:A S:FA C:A", "S:FA C:A C:FA S:A", "C:FA|S:FA C:A|S:A", "C:FA S:FA C:A", "S:FA C:FA S:A"),
    *("C:RA", "S:RA", "C:FA S:A S:PA+9 C:A S:FA C:A", "S:FA C:A C:PA+9 S:A C:FA S:A", "C:FA S:A S:PA+9 C:R"),
    *(
        "C:FA S:A S:PA+9 S:FA C:R",
        "C:FA C:FA* S:A S:FA C:A",
        "S:FA S:FA* C:A C:FA S:A",
        "S:FA C:A C:PA+9 S:R",
    ),
]


def forgotten_by_nat(number):
    """Return connections whose last packets come from another address: the first of them are looked up."""
    rows = together([f"{OPEN} +2s S:PA+26 C:R"] * number, every_ns=SECOND // 100, clients=7, servers=3)
    late = np.flatnonzero(rows.length == 26)
    resets = np.flatnonzero(rows.flags == RST)
    rows.src_low[late] += 100
    rows.dst_low[resets] += 100
    return rows


CAPTURES = {
    # 14 servers that close after 5 s: more than are told
    "idle timeouts": lambda: together([IDLE] * 100 + [REUSED] * 20, every_ns=SECOND // 10, servers=14),
    # One client, whose ports run out at one of many servers; others end connections with RST.
    "ports and resets": lambda: together(
        [f"{OPEN} {CLOSES[0] if n % 40 else CLOSES[5]}" for n in range(1200)], clients=3, servers=40
    ),
    "problems at many addresses": lambda: together(
        [f"{OPEN} {close}" for close in CLOSES * 5] + [STUCK] * 40, clients=31, servers=17
    ),
    "forgotten by NAT": lambda: forgotten_by_nat(MOST + 40),
    "no problem yet": lambda: together([WAITING] * 60, clients=13, servers=11),
}
SIZES = (1 << 18, 90, 7)  # connections in a part
ASKED = ([], ["--all"], ["--limit", "2"], ["--verdict", "reset"], ["--ephemeral-ports", "40"])


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """Return folders of files, each a capture."""
    found = {}
    for name, make in CAPTURES.items():
        folder, dice = tmp_path_factory.mktemp("ring"), Random(name)
        packets = packets_of_rows(make())
        written(folder, packets, sorted(dice.sample(range(len(packets)), 5)), dice)
        found[name] = str(folder)
    return found


@pytest.fixture
def threads(monkeypatch):
    """Have the work done by threads of this process instead of a cluster."""

    @contextlib.contextmanager
    def connected(_address):
        with ThreadPoolExecutor(2) as pool:
            yield pool

    monkeypatch.setattr(cluster_run, "connected", connected)


def test_a_fault_in_what_connections_show_together_costs_those_lines_alone(
    rings, threads, tmp_path, monkeypatch
):
    def fail(*_):
        raise KeyError("made for the test")

    monkeypatch.setattr("closeseq.verdict.population.rules.populations", fail)
    monkeypatch.setattr("closeseq.cluster.digest.populations", fail)
    ring = rings["ports and resets"]
    expected = told(ring, "--jobs", "1")
    assert "closeseq failed to show what connections show together: KeyError" in expected[1]
    assert told(ring, "--cluster", "here", "-o", str(tmp_path / "out")) == expected


def told(*arguments):
    done = CliRunner().invoke(cli, ["analyze", *arguments], env={"COLUMNS": "100"})
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.output


@cache
def told_by_one_process(*arguments):
    return told(*arguments, "--jobs", "1")


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("members", SIZES)
@pytest.mark.parametrize("name", CAPTURES)
def test_the_summary_is_that_of_one_process(rings, monkeypatch, tmp_path, name, members):
    monkeypatch.setattr(spread, "MEMBERS", members)
    # All that is asked is asked of each capture, and with parts of each size.
    turn = (SIZES.index(members) + list(CAPTURES).index(name)) % len(SIZES)
    for number, asked in enumerate(ASKED[turn :: len(SIZES)]):
        out = tmp_path / str(number)
        alone = told_by_one_process(rings[name], *asked)
        assert alone == told(rings[name], *asked, "--cluster", "here", "-o", str(out))
        assert alone[1] == (out / "summary.txt").read_text()
        assert [path.name for path in out.iterdir()] == ["summary.txt"]
    if not turn:  # without a folder there are no parts
        assert told_by_one_process(rings[name]) == told(rings[name], "--cluster", "here")


def test_the_captures_show_what_parts_have_to_put_together(rings):
    summaries = {name: " ".join(told_by_one_process(rings[name])[1].split()) for name in CAPTURES}
    assert "timeouts-in-wrong-order: " in summaries["idle timeouts"]
    assert "more; -f json has all of them" in summaries["idle timeouts"]
    assert "resets-by-habit: " in summaries["ports and resets"]
    assert "port-pressure: " in told_by_one_process(rings["ports and resets"], *ASKED[-1])[1]
    assert "belongs to #" in summaries["forgotten by NAT"]
    assert " others (" in summaries["problems at many addresses"]
    assert "more shapes; --all shows them" in summaries["problems at many addresses"]
    assert summaries["no problem yet"].count("CLOSE_WAIT at the server 198.51.100.") == 5


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        ("idle timeouts", "idle-timeout", 1),
        ("idle timeouts", "port-pressure", 0),
        ("ports and resets", "resets-by-habit", 1),  # which the summary does not name: there is graver
    ],
)
def test_what_connections_show_together_sets_the_exit_status(rings, tmp_path, name, code, status):
    asked = [rings[name], *ASKED[-1], "--fail-on", code]
    assert told_by_one_process(*asked)[0] == told(*asked, "--cluster", "here")[0] == status
    for members in (1 << 18, 7):
        with mock.patch.object(spread, "MEMBERS", members):
            assert told(*asked, "--cluster", "here", "-o", str(tmp_path / str(members)))[0] == status


def spread_of(analysis):
    return Spread.of(Selection(analysis), Style(100), 20)


def test_each_part_can_be_read_alone_and_has_all_of_what_it_has_any_of():
    analysis = captured([f"{OPEN} {close}" for close in CLOSES * 9], clients=31, servers=17)
    whole = spread_of(analysis)
    data, merged = as_bytes(whole.divided(5, 1 << 63)), Spread()
    servers, places = [], []
    for number in range(5):
        one = piece_of(data, number)
        servers += sorted({server for closes in one.closes for server in closes.server_low.tolist()})
        places += one.problems
        merged.merge(one, 20)
    assert len(servers) == len(set(servers)) == 17
    assert len(places) == len(set(places)) == len(whole.problems)
    assert sum(map(len, merged.closes)) == len(analysis)
    assert merged.problems == whole.problems
    assert merged.shapes.ordered() == whole.shapes.ordered()


def test_what_is_handed_on_does_not_grow_with_the_connections():
    def sizes(number):
        scripts = [f"{OPEN} {close}" for close in CLOSES * number] + [IDLE] * 100 * number
        analysis = captured(scripts, clients=1 << 20, servers=10 * number)
        digest = Digest.of(spread_of(analysis), Settings(), 20)
        assert digest.more == 10 * number - 6
        return len(pickle.dumps(digest)), len(pickle.dumps(Totals.of(Selection(analysis))))

    for few, many in zip(sizes(2), sizes(12), strict=True):
        assert many < 1.1 * few


COUNTED = st.dictionaries(st.integers(), st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=12)


@given(COUNTED, st.one_of(st.none(), st.integers(1, 5)))
def test_the_most_frequent_are_those_of_all(kinds, most):
    whole, parts = MergedCounts(), [MergedCounts() for _ in range(5)]
    for first, (kind, (number, part)) in enumerate(kinds.items()):
        for counts in (whole, parts[part]):
            counts.add(kind, number, (first, 0))
    merged = Foremost(MergedCounts(), most)
    for one in parts:
        merged.merge(Foremost(one, most))
    assert list(merged.ordered().items()) == list(whole.ordered().items())[:most]
    assert (merged.kinds, merged.number) == (len(kinds), sum(whole.of.values()))


def test_a_part_has_a_limit_and_so_have_they():
    assert [parts_for(number) for number in (0, 1, MEMBERS, MEMBERS + 1)] == [1, 1, 1, 2]
    assert parts_for(10**9) == MOST_PARTS
