"""Two sides compared: what counts as worse, when it may be chance, and that captures and records agree."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from math import comb

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from closeseq.cli.main import cli
from closeseq.diff import ChangeKind, Side, compare, tally_of
from closeseq.diff.chance import of_more
from closeseq.diff.changes import quantile
from closeseq.diff.diff_text import diff_lines
from closeseq.diff.tally import Example, Feature
from closeseq.errors import CaptureError
from closeseq.report.text import Style
from closeseq.settings import settings_of
from places import CAPTURES

LEAKY = str(CAPTURES / "leaky-server.pcap")
CLOSES = str(CAPTURES / "*-close.pcap")
MS = 1_000_000
EXAMPLE = Example("after.pcap", 7, "10.0.0.1:5", "10.0.0.2:80", "the server \x1b[2J did not close")


def side(connections, *, times=(), **shares):
    """Return a side: so many connections, graceful but for those of each verdict or finding named."""
    made = Side("made")
    names = {name.replace("_", "-"): number for name, number in shares.items()}
    verdicts = {name: number for name, number in names.items() if name in {"reset", "closing", "open"}}
    made.add([Feature("verdict", "graceful")], connections - sum(verdicts.values()), lambda _: EXAMPLE)
    for name, number in names.items():
        feature = Feature("verdict", name) if name in verdicts else Feature("finding", name, "server")
        if name not in verdicts:
            made.connections -= number  # they are among the others
        made.add([feature], number, lambda _: EXAMPLE)
    for one in times:
        made.add_close(one, lambda: EXAMPLE)
    return made


def ways(before, after, chance=0.05):
    return {one.feature.code: one.way for one in compare(before, after, chance).changes}


# ------------------------------------------------------------------------------------------- chance

GROUPS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


@given(GROUPS, GROUPS)
def test_the_probability_is_that_of_counting_all_ways(one, other):
    (before, of_before), (after, of_after) = one, other
    having, total = before + after, of_before + of_after
    ways = [comb(having, k) * comb(total - having, of_after - k) for k in range(of_after + 1)]
    exact = Fraction(sum(ways[after:]), comb(total, of_after))
    assert of_more(before, of_before, after, of_after) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(
    ("numbers", "expected"), [((0, 3, 1, 3), 0.5), ((0, 3, 3, 3), 0.05), ((0, 5, 5, 5), 1 / 252)]
)
def test_small_numbers_say_little(numbers, expected):
    assert of_more(*numbers) == pytest.approx(expected)


def test_large_numbers_cost_nothing_and_are_sure():
    assert of_more(10_000, 1_000_000, 11_000, 1_000_000) < 1e-10
    assert of_more(10_000, 1_000_000, 10_000, 1_000_000) == pytest.approx(0.5, abs=0.01)


# ------------------------------------------------------------------------------------------- changes


def test_one_more_of_three_may_be_chance_and_all_of_five_is_worse():
    assert ways(side(3), side(3, reset=1))["reset"] is ChangeKind.UNCLEAR
    assert ways(side(5), side(5, reset=5))["reset"] is ChangeKind.WORSE
    assert ways(side(5, reset=5), side(5))["reset"] is ChangeKind.BETTER


def test_where_a_rise_cannot_be_chance_each_is_worse():
    assert ways(side(3), side(3, reset=1), 1.0)["reset"] is ChangeKind.WORSE
    assert ways(side(3, reset=1), side(3, reset=1), 1.0)["reset"] is ChangeKind.SAME


def test_the_same_share_of_more_connections_is_not_worse():
    assert ways(side(10, reset=2), side(100, reset=20))["reset"] is not ChangeKind.WORSE


def test_a_sure_rise_of_less_than_a_tenth_does_not_matter():
    before, after = side(1_000_000, reset=100_000), side(1_000_000, reset=105_000)
    assert compare(before, after).changes[1].chance < 1e-9
    assert ways(before, after)["reset"] is ChangeKind.UNCLEAR


def test_more_lines_need_a_surer_rise():
    """The limit is shared: with more that could have become worse, one must be less likely by chance."""
    alone = ways(side(4), side(4, reset=4))
    assert alone["reset"] is ChangeKind.WORSE  # by chance once in 70
    findings = {"stuck_close_wait": 1, "half_open": 1, "data_after_close": 1, "final_ack_lost": 1}
    among = ways(side(4, **findings), side(4, reset=4, **findings))
    assert among["reset"] is ChangeKind.UNCLEAR


def test_who_wants_it_decides_what_is_worse():
    many = ways(side(100), side(100, open=50, slow_close=50, stuck_close_wait=50))
    assert many["open"] is ChangeKind.DIFFERENT
    assert many["slow-close"] is ChangeKind.DIFFERENT  # a notice
    assert many["stuck-close-wait"] is ChangeKind.WORSE
    assert many["graceful"] is ChangeKind.DIFFERENT


def test_closes_that_take_longer_are_worse_at_the_median_and_the_99th_percentile():
    usual = [40 * MS + n for n in range(1000)]
    slower = [80 * MS + n for n in range(1000)]
    tail = usual[:970] + [2000 * MS] * 30
    median, p99 = "median", "99th percentile"
    assert ways(side(1000, times=usual), side(1000, times=slower))[median] is ChangeKind.WORSE
    late = ways(side(1000, times=usual), side(1000, times=tail))
    assert late[p99] is ChangeKind.WORSE
    assert late[median] is not ChangeKind.WORSE
    assert ways(side(1000, times=tail), side(1000, times=usual))[p99] is ChangeKind.BETTER
    few = ways(side(3, times=usual[:3]), side(3, times=tail[-1:] * 3))
    assert few[median] is ChangeKind.UNCLEAR


def test_a_microsecond_more_is_not_worse():
    fast = [40_000 + n for n in range(1000)]
    assert (
        ways(side(1000, times=fast), side(1000, times=[2 * n for n in fast]))["median"] is ChangeKind.UNCLEAR
    )


def test_quantiles_are_values_that_were_measured():
    assert quantile([7], 0.99) == 7
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile(range(1, 1001), 0.99) == 990


def test_nothing_is_worse_than_nothing():
    comparison = compare(side(0), side(5, reset=5))
    assert not comparison.worse
    text = "\n".join(diff_lines(comparison, Style()))
    assert "Without a connection on both sides there is nothing to compare." in text


def test_what_comes_from_a_capture_does_not_reach_the_terminal():
    text = "\n".join(diff_lines(compare(side(5), side(5, reset=5)), Style()))
    assert "did not close" in text
    assert "\x1b" not in text


# ------------------------------------------------------------------------------------------- tallies


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Return the records of all captures in one file."""
    path = tmp_path_factory.mktemp("records") / "all.jsonl"
    done = CliRunner().invoke(
        cli, ["analyze", str(CAPTURES / "*.pcap"), "--each", "-f", "jsonl", "-o", str(path)]
    )
    assert done.exit_code == 0
    return path


@pytest.fixture(scope="module")
def captured():
    """Return a tally of the same captures, each by itself as in the records."""
    found = Side("all")
    for path in sorted(CAPTURES.glob("*.pcap")):
        one = tally_of(str(path), settings_of())
        found.connections += one.connections
        found.counts.update(one.counts)
        found.closes_ns += one.closes_ns
    return found


def test_a_capture_and_its_records_count_alike(records, captured):
    told = tally_of(str(records), settings_of())
    assert told.records
    assert told.connections == captured.connections > 80
    assert told.counts == captured.counts
    assert sorted(told.closes_ns) == sorted(captured.closes_ns)
    assert len(told.closes_ns) > 40


def test_an_example_is_the_first_with_the_feature_and_tells_of_it(records):
    feature = Feature("finding", "stuck-close-wait", "server")
    settings = settings_of(stuck_after=2)
    example = tally_of(LEAKY, settings).example(feature)
    assert (example.id, example.server) == (1, "127.0.0.1:8080")
    assert example.text.startswith("the server received the client's FIN (#8) and did not close")
    assert tally_of(LEAKY, settings).example(Feature("finding", "half-open")) is None
    told = tally_of(str(records), settings_of())
    reset = told.example(Feature("verdict", "reset"))
    assert reset.client
    slowest = told.slowest()
    assert slowest.capture.endswith(".pcap")


def test_ports_and_hosts_choose_among_records_too(records):
    everything = tally_of(str(records), settings_of())
    some = tally_of(str(records), settings_of(port=8080, host="127.0.0.1"))
    assert 0 < some.connections < everything.connections
    assert tally_of(str(records), settings_of(port=1)).connections == 0


def test_of_a_connection_that_live_reported_twice_the_last_record_counts(tmp_path):
    done = CliRunner().invoke(cli, ["analyze", LEAKY, "-f", "jsonl", "--connection", "1"])
    first = json.loads(done.output)
    later = {**first, "verdict": "graceful", "findings": []}
    path = tmp_path / "live.jsonl"
    population = {"schema": "closeseq/1", "kind": "population"}
    path.write_text("".join(json.dumps(one) + "\n" for one in (first, later, population)) + "\n")
    counted = tally_of(str(path), settings_of())
    assert counted.connections == 1
    assert counted.counts[Feature("verdict", "graceful")] == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{\n", "line 1 is no record"),
        ('{"schema": "other/1"}\n', "line 1 is no record"),
        ('{"kind": 3}\n', "line 1 is no record"),
        ('{"\\ud800": "\xff"}\n', "line 1 is no record"),
    ],
)
def test_what_is_no_record_is_said_in_one_line(tmp_path, text, problem):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CaptureError, match=problem):
        tally_of(str(path), settings_of())


# ------------------------------------------------------------------------------------------- command


def run(*arguments):
    return CliRunner().invoke(cli, ["diff", *map(str, arguments)])


def test_the_command_says_what_is_worse_and_fails_if_asked_to():
    done = run(CLOSES, LEAKY, "--stuck-after", 2)
    assert done.exit_code == 0
    worse = done.output.split("\n\n")[1]
    assert worse.startswith("Worse\n  stuck-close-wait at the server: 5 of 5 connections, before 0 of 6\n")
    assert f"closeseq timeline {LEAKY} --connection 1" in worse
    assert run(CLOSES, LEAKY, "--stuck-after", 2, "--fail-on-worse").exit_code == 1
    back = run(LEAKY, CLOSES, "--stuck-after", 2, "--fail-on-worse")
    assert back.exit_code == 0
    assert "Nothing is worse." in back.output


def test_a_finding_of_both_endpoints_and_of_one_are_two_lines():
    names = [f"captures/{name}.pcap" for name in ("fin-not-captured", "nat-forgets")]
    done = CliRunner().invoke(cli, ["diff", *names], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.count("capture-incomplete") == 2


def test_few_connections_fail_only_where_chance_is_no_excuse():
    clean = CAPTURES / "client-closes.pcap"
    done = run(clean, LEAKY, "--stuck-after", 2, "--fail-on-worse")
    assert done.exit_code == 0
    assert "Too few or too little to tell\n  stuck-close-wait at the server: 5 of 5" in done.output
    assert run(clean, LEAKY, "--stuck-after", 2, "--fail-on-worse", "--chance", 1).exit_code == 1


def test_the_json_has_the_same(tmp_path):
    path = tmp_path / "diff.json"
    assert run(CLOSES, LEAKY, "--stuck-after", 2, "-f", "json", "-o", path).exit_code == 0
    told = json.loads(path.read_text())
    assert told["schema"] == "closeseq-diff/1"
    assert told["worse"] is True
    assert told["before"]["connections"] == 6
    (worst,) = [one for one in told["changes"] if one["way"] == "worse"]
    assert (worst["code"], worst["before"], worst["share_after"]) == ("stuck-close-wait", 0, 1.0)
    assert worst["example"]["id"] == 1
    same = json.loads(run(CLOSES, CLOSES, "-f", "json").output)
    times = [one for one in same["changes"] if one["kind"] == "time-to-close"]
    assert [one["code"] for one in times] == ["median", "99th percentile"]
    assert times[0]["before"] == times[0]["after"] > 0
    assert not same["worse"]


def test_what_cannot_be_read_is_one_line_and_status_3(tmp_path):
    for pair in ((tmp_path / "none.pcap", LEAKY), (LEAKY, tmp_path / "none.pcap")):
        done = run(*pair)
        assert done.exit_code == 3
        assert done.output.count("\n") == 1
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((CAPTURES / "leaky-server.pcap").read_bytes()[:-10])
    done = run(CLOSES, cut, "--stuck-after", 2, "--fail-on-worse")
    assert done.exit_code == 3
    assert "Worse" in done.output
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(cut, folder / "cut.pcap")
    (folder / "junk.pcap").write_bytes(b"nothing of the kind")
    assert run(CLOSES, folder).exit_code == 3


def test_of_each_capture_so_many_packets_are_read():
    told = json.loads(run(LEAKY, LEAKY, "-c", "1", "-f", "json").output)
    assert (told["before"]["connections"], told["after"]["connections"]) == (1, 1)


def test_what_is_left_out_of_a_directory_is_told(tmp_path):
    shutil.copy(LEAKY, tmp_path / "a.pcap")
    (tmp_path / "notes.txt").write_text("no capture")
    done = run(tmp_path, LEAKY)
    assert done.exit_code == 0
    assert f"closeseq: {tmp_path}: 1 of 2 files are not captures, and are left out\n" in done.output


def test_standard_input_is_one_side_only():
    done = run("-", "-")
    assert (done.exit_code, done.output) == (2, "closeseq: standard input can be read only once\n")


@pytest.mark.parametrize("chance", ["0", "1.01", "nan", "often"])
def test_a_chance_is_a_probability(chance):
    done = run(LEAKY, LEAKY, "--chance", chance)
    assert done.exit_code == 2
    assert "is not a number above 0, up to 1" in done.output


def test_the_help_says_when_something_is_worse():
    text = " ".join(run("--help").output.split())
    assert (
        "one more of three connections says nothing, and all of five where it was none of five is worse"
        in text
    )
