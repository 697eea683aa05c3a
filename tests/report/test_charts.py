"""Bars and areas: numbers of a drawing that must come out as the counts that were drawn."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.report.page import charts
from closeseq.report.page.charts import HEIGHT, LEFT, TOP, WIDTH
from closeseq.report.page.occupancy import MOMENTS, Series
from closeseq.tcp.states import State

SECOND = 10**9


def heights(path: str, scale: int) -> tuple[list[int], list[int]]:
    """Return the upper and the lower line of an area, at each moment but the last."""
    found = []
    for way in re.split("[MLZ]", path)[1:3]:
        (x, y), *_ = re.findall(r"^(\S+?) ([\d.]+)", way)
        at = {float(x): float(y)}
        level = float(y)
        corners = []
        for kind, value in re.findall(r"([HV])(-?[\d.]+)", way):
            if kind == "H":
                corners.append((float(x), float(value), level))
                x = value
            else:
                level = float(value)
        line = []
        for moment in range(MOMENTS - 1):
            middle = LEFT + WIDTH * (moment + 0.5) / (MOMENTS - 1)
            (y,) = {y for a, b, y in corners if min(a, b) <= middle < max(a, b)}
            line.append(round((TOP + HEIGHT - y) * scale / HEIGHT))
        found.append(line)
        assert at
    return found[0], found[1]


steps = st.lists(st.tuples(st.integers(0, MOMENTS - 2), st.integers(0, 40)), min_size=1, max_size=12)


def as_counts(found):
    counts = [0] * MOMENTS
    for place, number in sorted(found):
        counts[place:] = [number] * (MOMENTS - place)
    return counts


@given(steps, steps)
def test_an_area_lies_between_the_sums_below_and_above_it(low, high):
    series = [Series(State.CLOSE_WAIT, as_counts(low)), Series(State.ESTABLISHED, as_counts(high))]
    most = charts.peak(series)
    chart = charts.stacked(series, 10 * SECOND, most)
    scale = charts.ceiling(most)
    (first, second) = chart.areas
    above, below = heights(first.path, scale)
    assert (above, below) == (list(series[0].counts[:-1]), [0] * (MOMENTS - 1))
    sums = [a + b for a, b in zip(series[0].counts, series[1].counts, strict=True)]
    above, below = heights(second.path, scale)
    assert (above, below) == (sums[:-1], list(series[0].counts[:-1]))
    assert (second.most, second.last, chart.most) == (
        max(series[1].counts),
        series[1].counts[-1],
        max(sums),
    )


def test_nothing_is_a_chart_without_areas():
    chart = charts.stacked([], SECOND, charts.peak([]))
    assert (chart.areas, chart.most) == ([], 0)


@given(st.integers(0, 10**9))
def test_an_axis_of_numbers_has_room_and_not_too_much(most):
    scale = charts.ceiling(most)
    assert most <= scale
    assert scale <= max(1, 2 * most)


@given(st.integers(1, 10**17))
def test_an_axis_of_time_has_some_round_marks_within_it(span_ns):
    ticks = list(charts.times(span_ns))
    assert 1 <= len(ticks) <= charts.MOST_TICKS + 1
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)
    assert all(LEFT <= tick.at <= LEFT + WIDTH for tick in ticks)
    assert ticks[0] == charts.Tick(LEFT, "0")


@pytest.mark.parametrize(
    ("span_ns", "labels"),
    [
        (5 * SECOND, ["0", "1 s", "2 s", "3 s", "4 s", "5 s"]),
        (86 * SECOND, ["0", "15 s", "30 s", "45 s", "60 s", "75 s"]),
        (24 * 3600 * SECOND, ["0", "6 h", "12 h", "18 h", "24 h"]),
        (20_000, ["0", "5 us", "10 us", "15 us", "20 us"]),
    ],
)
def test_marks_stand_at_times_that_people_count_in(span_ns, labels):
    assert [tick.label for tick in charts.times(span_ns)] == labels


def test_bars_are_as_high_as_their_counts():
    counts = [{"graceful": 3, "reset": 1}, {}, {"reset": 4}]
    bars = list(charts.columns(counts, ["graceful", "reset"], 4))
    assert [(bar.name, bar.number, bar.height) for bar in bars] == [
        ("graceful", 3, HEIGHT * 3 / 4),
        ("reset", 1, HEIGHT / 4),
        ("reset", 4, HEIGHT),
    ]
    assert [bar.y for bar in bars] == [TOP + HEIGHT / 4, TOP, TOP]
    assert [bar.x for bar in bars] == [LEFT, LEFT, round(LEFT + WIDTH * 2 / 3, 2)]
