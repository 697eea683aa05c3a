"""The page's counts are those of the summary, its rows are the connections; what is left out is chosen."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import pytest

from closeseq.analysis import analyze_chain, from_script
from closeseq.capture.chains import Chain
from closeseq.connections.conversation import End
from closeseq.report.page import examples as shown
from closeseq.report.page import overview as counting
from closeseq.report.page.examples import examples
from closeseq.report.page.line import LONGEST_SHAPE, line
from closeseq.report.page.occupancy import OTHERS
from closeseq.report.page.overview import BINS, Overview
from closeseq.report.problems import gather
from closeseq.report.selection import Selection, Wanted
from closeseq.report.summary import close_waits
from closeseq.settings import settings_of
from closeseq.verdict.model import ENDED
from pages import many_connections
from places import CAPTURES


def selection_of(path, wanted=None):
    analysis = analyze_chain(Chain((str(path),)), settings_of(stuck_after=2))
    return Selection(analysis, wanted or Wanted())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Many captures of the lab in one."""
    path = tmp_path_factory.mktemp("busy") / "busy.pcap"
    many_connections(path)
    return selection_of(path)


@pytest.fixture(scope="module")
def overview(everything):
    return Overview.of(everything)


def test_its_counts_are_those_of_the_summary(everything, overview):
    assert overview.number == len(everything) > 80
    assert overview.verdicts == dict(everything.verdicts)
    assert overview.shapes == dict(everything.shapes)
    assert overview.findings == dict(everything.findings)
    assert overview.ports.total() == len(everything)
    assert overview.troubled == everything.problems()
    assert overview.troubled_ports.total() == len(overview.troubled)


def test_its_problems_are_those_of_the_summary(everything, overview):
    def told(causes):
        return [
            [(group.code, group.end, group.address, sorted(group.indices)) for group in cause.groups]
            for cause in causes
        ]

    summary = gather(everything, None)
    assert len(summary) > 3
    assert told(overview.causes) == told(summary)
    for cause in overview.causes:
        began = [
            finding.since_ns
            for connection in everything.analysis.among(sorted(cause.indices))
            for finding in connection.findings
            if (finding.code, finding.endpoint) == (cause.code, cause.end)
        ]
        assert overview.since_ns(cause) == min(began)


def test_it_knows_who_waits_for_close(everything, overview):
    waits = {place: len(indices) for place, indices in close_waits(everything).items()}
    assert waits
    assert overview.waiting == waits


def test_everything_that_ended_is_in_the_closes_over_time(everything, overview):
    ended = {code: number for code, number in overview.verdicts.items() if code in ENDED}
    assert sum(overview.closes, start=Counter()) == ended
    assert len([one for one in overview.closes if one]) > 3
    assert sum(overview.begun) == len(overview.troubled)
    assert overview.bin(everything.analysis.now_ns) == BINS - 1
    assert overview.bin(0) == 0


def test_its_table_holds_every_connection(everything, overview):
    table = overview.table()
    hosts, endings, columns = table["hosts"], table["endings"], table["columns"]
    assert {len(column) for column in columns.values()} == {len(everything)}
    numbers, starts = accumulate(columns["id"]), accumulate(columns["start"])
    for row, (one, number, start) in enumerate(zip(everything, numbers, starts, strict=True)):
        assert one.id == number
        assert (one.start_ns - everything.analysis.reading.first_ns) // 1000 == start
        for end in End:
            assert hosts[columns[end.value][row]] == one.end(end).address
            assert columns[f"{end}_port"][row] == one.end(end).port
        ending = endings[columns["ending"][row]]
        assert (ending.verdict, ending.initiator, ending.shape) == (one.verdict, one.initiator, one.shape)
        assert ending.states == (one.client.state, one.server.state)
        assert {code for code, _ in ending.problems + ending.notices} == {f.code for f in one.findings}
        assert columns["packets"][row] == one.packets
        assert columns["bytes"][row] == one.client.bytes + one.server.bytes


def test_of_too_many_rows_those_with_a_problem_stay_and_then_the_first(everything, monkeypatch):
    troubled = [index + 1 for index in everything.problems()]
    most = len(troubled) + 7
    monkeypatch.setattr(counting, "MOST_ROWS", most)
    kept = [one.id for one in Overview.of(everything).rows]
    others = [one.id for one in everything if not one.has_problem]
    assert kept == sorted([*troubled, *others[:7]])


def test_of_too_many_ports_the_rest_is_counted_together(everything, monkeypatch):
    monkeypatch.setattr(counting, "MOST_PORTS", 0)
    few = Overview.of(everything)
    assert few.ports == {OTHERS: len(everything)}
    assert few.troubled_ports == {OTHERS: len(few.troubled)}


def test_only_what_is_asked_for_is_counted():
    selection = selection_of(CAPTURES / "leaky-server.pcap", Wanted(verdicts=frozenset({"reset"})))
    overview = Overview.of(selection)
    assert (overview.number, overview.verdicts) == (2, {"reset": 2})
    assert [one.id for one in overview.rows] == [one.id for one in selection]


# The connections that are shown whole.


def test_all_of_a_few_are_shown_whole():
    selection = selection_of(CAPTURES / "leaky-server.pcap")
    found = examples(selection, Overview.of(selection), 300)
    assert [one.id for one in found] == [1, 2, 3, 4, 5]
    assert all(one.svg.startswith("<svg") for one in found)
    assert [[told.code for told in one.evidence] for one in found] == [
        [
            f.code
            for f in sorted(c.findings, key=lambda f: (f.severity != "problem", f.code != "stuck-close-wait"))
        ]
        for c in selection
    ]


def test_of_many_each_problem_and_each_way_to_close_has_an_example(everything, overview):
    causes = overview.causes
    most = 2 * len(causes) + len(overview.examples)
    assert most < len(everything)
    found = {one.id for one in examples(everything, overview, most)}
    assert len(found) == most
    for cause in causes:
        assert found & {index + 1 for index in cause.indices}
    ways = {(one.verdict, one.shape) for one in everything if one.id in found}
    assert ways == set(overview.examples)


def test_no_more_are_shown_than_asked_for(everything, overview):
    assert examples(everything, overview, 0) == []
    assert len(examples(everything, overview, 1)) == 1
    worst = examples(everything, overview, 1)[0]
    assert worst.id - 1 in overview.causes[0].indices


def test_together_they_stay_below_a_size(everything, overview, monkeypatch):
    whole = examples(everything, overview, 40)
    size = sum(one.size for one in whole)
    monkeypatch.setattr(shown, "MOST_BYTES", size // 2)
    some = examples(everything, overview, 40)
    assert 0 < len(some) < len(whole)
    assert sum(one.size for one in some) <= size // 2
    assert {one.id for one in some} <= {one.id for one in whole}


def test_what_is_too_long_is_left_out(everything, overview, monkeypatch):
    longest = max(len(one.conversation.steps) for one in everything)
    monkeypatch.setattr(shown, "MOST_STEPS", longest - 1)
    found = {one.id for one in examples(everything, overview, len(everything))}
    assert found == {one.id for one in everything if len(one.conversation.steps) < longest}


def test_a_shape_is_cut_where_a_capture_makes_it_long():
    one = from_script("C:S S:SA C:A " + "S:R " * 60)
    assert len(one.shape) > LONGEST_SHAPE + 4
    shape = line(one).ending.shape
    assert len(shape) <= LONGEST_SHAPE + 4
    assert one.shape.startswith(shape.removesuffix(" ..."))
    assert line(from_script("C:S S:SA C:A C:FA S:A")).ending.shape == "C:S S:SA C:A C:FA S:A"
