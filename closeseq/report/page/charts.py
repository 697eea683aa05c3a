"""Bars and stacked areas, as numbers for SVG: where each thing lies, and what stands at the axes."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from closeseq.report.page.occupancy import MOMENTS
from closeseq.settings import SECOND
from closeseq.units import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from closeseq.report.page.occupancy import Series

# The plot of a chart, in its own units; labels stand left of it and below.
WIDTH, HEIGHT = 500, 150
LEFT, TOP, BELOW = 44, 8, 24

MOST_TICKS = 6  # of an axis of time
STEPS = (1, 2, 5, 10)  # times a power of ten
ENDS_OF_AXIS = (1, 2, 3, 4, 5, 6, 8, 10)
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
ROUND = (  # nanoseconds; shorter and longer times are round in tens
    *(number * SECOND for number in (1, 2, 5, 10, 15, 30)),
    *(number * MINUTE for number in (1, 2, 5, 10, 15, 30)),
    *(number * HOUR for number in (1, 2, 3, 6, 12)),
    DAY,
)


class Tick(NamedTuple):
    """A mark at an axis."""

    at: float  # in the units of the chart, along its axis
    label: str


class Area(NamedTuple):
    """One layer of a stacked chart."""

    name: str
    path: str  # the `d` of an SVG path
    most: int  # its highest number
    last: int  # its last one


class StackedChart(NamedTuple):
    """Layers over time, the first one at the bottom."""

    areas: Sequence[Area]
    across: Sequence[Tick]
    up: Sequence[Tick]
    most: int  # the highest sum of all layers at one moment


class Segment(NamedTuple):
    """One part of a bar of a `Columns` chart."""

    name: str
    x: float  # left side, in the units of the chart
    y: float  # top
    height: float
    number: int  # what it stands for


def stacked(series: Sequence[Series], span_ns: int, most: int) -> StackedChart:
    """Return counts over time as areas on top of one another.

    Args:
        series: the counts at each of MOMENTS, from the bottom up.
        span_ns: from the first moment to the last.
        most: the highest sum that must fit; charts that are compared have the same.
    """
    scale = ceiling(most)
    below = [0] * MOMENTS
    areas = []
    for state, counts in series:
        above = [low + more for low, more in zip(below, counts, strict=True)]
        areas.append(Area(state.value, _between(below, above, scale), max(counts), counts[-1]))
        below = above
    return StackedChart(areas, list(times(span_ns)), list(levels(scale)), max(below))


def columns(counts: Sequence[Mapping[str, int]], names: Iterable[str], scale: int) -> Iterator[Segment]:
    """Yield the parts of one bar for each mapping, from left to right and from the bottom up.

    Args:
        counts: numbers by name, one mapping a bar; at least one.
        names: in the order from the bottom to the top.
        scale: the number at which the plot ends, as `ceiling` gives it.
    """
    wide = WIDTH / len(counts)
    order = list(names)
    for place, one in enumerate(counts):
        tops = list(accumulate(one.get(name, 0) for name in order))
        for name, top in zip(order, tops, strict=True):
            number = one.get(name, 0)
            if number:
                yield Segment(
                    name,
                    round(LEFT + place * wide, 2),
                    round(_y(top, scale), 2),
                    round(HEIGHT * number / scale, 2),
                    number,
                )


def peak(series: Sequence[Series]) -> int:
    """Return the highest sum of these counts at any moment."""
    return max((sum(one) for one in zip(*(counts for _, counts in series), strict=True)), default=0)


def ceiling(most: int) -> int:
    """Return the end of an axis that has room for a number: 1, 2, 3, 4, 5, 6, 8, 10, 20 ..."""
    if most <= 1:
        return 1
    power = 10 ** (len(str(most - 1)) - 1)
    return int(next(step * power for step in ENDS_OF_AXIS if step * power >= most))


def levels(scale: int) -> Iterator[Tick]:
    """Yield the marks of an axis of numbers that ends at `scale`."""
    for number in (0, scale // 2, scale) if scale > 1 and scale % 2 == 0 else (0, scale):
        yield Tick(round(_y(number, scale), 2), f"{number:,}")


def times(span_ns: int) -> Iterator[Tick]:
    """Yield marks of an axis of time, at round times since its beginning.

    Args:
        span_ns: nanoseconds from its beginning to its end, at least 1.
    """
    step = _step(span_ns)
    for time_ns in range(0, span_ns + 1, step):
        yield Tick(round(LEFT + WIDTH * time_ns / span_ns, 2), span(time_ns) if time_ns else "0")


def _step(span_ns: int) -> int:
    """Return a round time of which at most MOST_TICKS fit into a span."""
    least = max(span_ns / MOST_TICKS, 1)
    if least > ROUND[-1]:
        return math.ceil(least / DAY) * DAY
    if least > ROUND[0]:
        return next(step for step in ROUND if step >= least)
    power: int = 10 ** math.floor(math.log10(least))
    return next(step * power for step in STEPS if step * power >= least)


def _between(low: Sequence[int], high: Sequence[int], scale: int) -> str:
    """Return the path around what lies between two lines of steps."""
    return f"{_line(high, scale, 'M')}{_line(low[::-1], scale, 'L', back=True)}Z"


def _line(counts: Sequence[int], scale: int, begin: str, *, back: bool = False) -> str:
    """Return a line of steps, each number holding until the next moment."""
    last = MOMENTS - 1
    x = WIDTH + LEFT if back else LEFT
    parts = [f"{begin}{x} {_y(counts[0], scale):.4g}"]
    before = counts[0]
    for place, number in enumerate(counts):
        if number != before:
            # Backwards, a step is where the number on its right began.
            moment = last - place + 1 if back else place
            parts.append(f"H{LEFT + WIDTH * moment / last:.5g}V{_y(number, scale):.4g}")
            before = number
    parts.append(f"H{LEFT if back else WIDTH + LEFT}")
    return "".join(parts)


def _y(number: int, scale: int) -> float:
    return TOP + HEIGHT - HEIGHT * number / scale
