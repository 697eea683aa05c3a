"""The state diagram as SVG, laid out as `closeseq explain diagram` prints it.

Boxes and lines stand where report/diagram.py has them. What a connection did that has no line
there, above all a RST, is a curve.
"""

from __future__ import annotations

import math
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from closeseq.connections.conversation import End
from closeseq.report.diagram import BOXES, HEADING, LINES, in_words, label_of, ways_between
from closeseq.report.pictures.palette import kind_of
from closeseq.report.pictures.style_sheets import STATES_STYLE
from closeseq.tcp.states import TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.report.diagram import Line, Point
    from closeseq.report.pictures.way import Passage, Way

CELL = (12, 19)  # pixels of a column and a row of the text drawing
MARGIN = 20
WIDTH = 80 * CELL[0] + 2 * MARGIN
ROWS = 41  # of the text drawing
TEXT = 15  # from line to line
LINE = 130  # characters that surely fit
NARROW = 28  # and beside a curve
ROUND = 9  # radius of a corner
PLACE_OF_UNKNOWN = (34, 4)  # free in the text drawing
# How far a curve bends, in pixels: each endpoint's its own way, and round the boxes of its column.
ACROSS = {End.CLIENT: 40, End.SERVER: 150}
DOWN = {End.CLIENT: 210, End.SERVER: 330}
STEEP = 150  # pixels to the side, below which a curve stays in its column


def state_svg(way: Way | None = None, *, style: bool = True) -> str:
    """Return the state diagram as an `<svg>` element.

    Args:
        way: that of a connection, which then stands out; None for the diagram alone.
        style: whether the element carries its CSS in it.
    """
    root = Chart(way).root
    if style:
        element = Element("style")
        element.text = STATES_STYLE
        root.insert(0, element)
    indent(root, "")
    return tostring(root, encoding="unicode")


class Chart:
    """A state diagram being drawn.

    Args:
        way: that of a connection, which then stands out; None for the diagram alone.
    """

    def __init__(self, way: Way | None) -> None:
        self.way = way
        self.root = Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "closeseq-states", "role": "img"}
        )
        title = HEADING if way is None else way.title
        SubElement(self.root, "title").text = title
        paper = self._put("rect", "paper")
        y = MARGIN
        for text in wrap(title, 100):
            y += 8
            self._text("title", MARGIN, y, text, anchor="start")
            y += TEXT
        self.top = y + 4
        self._lines()
        curves = [self._curve(passage) for passage in self._passed_elsewhere()]
        self._boxes()
        for label in curves:
            label()
        y = self.top + ROWS * CELL[1] + 24
        for line in in_words(TRANSITIONS) if way is None else ("dashed, ?: assumed",):
            for text in wrap(line, LINE):
                self._text("dim", MARGIN, y, text, anchor="start")
                y += TEXT
        size = {"width": str(WIDTH), "height": str(y + MARGIN - TEXT)}
        paper.attrib.update(size)
        self.root.attrib.update(size | {"viewBox": f"0 0 {WIDTH} {size['height']}"})

    def _put(self, name: str, kind: str, **attributes: object) -> Element:
        plain = {
            one.replace("_", "-"): f"{value:.5g}" if isinstance(value, float) else str(value)
            for one, value in attributes.items()
        }
        return SubElement(self.root, name, {"class": kind} | plain)

    def _text(self, kind: str, x: float, y: float, text: str, *, anchor: str = "middle") -> Element:
        element = self._put("text", kind, x=x, y=y, text_anchor=anchor)
        element.text = text
        return element

    def _at(self, point: Point) -> tuple[float, float]:
        """Return the middle of a cell of the text drawing, in pixels."""
        return MARGIN + (point[0] + 0.5) * CELL[0], self.top + (point[1] + 0.5) * CELL[1]

    # -- lines

    def _lines(self) -> None:
        """Draw the transitions of the table, those of the connection over the others."""
        signals = ways_between(TRANSITIONS)
        passed = {way: self._passages(*way) for way in LINES}
        for way in sorted(LINES, key=lambda one: bool(passed[one])):
            self._line(LINES[way], way, [label_of(one) for one in signals[way]], passed[way])

    def _passages(self, before: State, after: State) -> list[Passage]:
        return [] if self.way is None else self.way.between(before, after)

    def _line(self, line: Line, way: tuple[State, State], labels: list[str], passed: list[Passage]) -> None:
        """Draw a line with rounded corners, and beside it its signals and who went this way."""
        kind = kind_of(*way) if passed or self.way is None else "faint"
        assumed = bool(passed) and all(one.assumed for one in passed)
        kinds = f"way {kind}{' passed' if passed else ''}{' assumed' if assumed else ''}"
        points = [self._at(point) for point in line.points]
        points[0] = _beyond(points[1], points[0])
        points[-1] = _beyond(points[-2], points[-1])
        self._put("path", kinds, d=_rounded(points))
        self._head(kind, points[-1], math.atan2(*reversed(_minus(points[-1], points[-2]))))
        who = ", ".join(one.text for one in passed)
        for text, label in zip(labels, line.labels, strict=True):
            x, y = self._at((label.column, label.row))
            for row in wrap(text, max(14, label.width * 3 // 2)):
                written = self._text(f"label {kind}", x - CELL[0] / 2, y + 4, row, anchor="start")
                y += TEXT
            if who:
                SubElement(written, "tspan", {"class": f"who {kind}"}).text = f"  {who}"
                who = ""

    def _head(self, kind: str, tip: tuple[float, float], angle: float) -> None:
        size = 11
        wings = [
            (tip[0] - size * math.cos(angle + turn), tip[1] - size * math.sin(angle + turn))
            for turn in (0.38, -0.38)
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [tip, *wings])
        self._put("polygon", f"tip {kind}", points=points)

    def _passed_elsewhere(self) -> list[Passage]:
        """Return what the connection did and the text drawing has no line for."""
        if self.way is None:
            return []
        drawn = [one for way in LINES for one in self.way.between(*way)]
        return [one for one in self.way.passages if one not in drawn]

    def _curve(self, passage: Passage) -> Callable[[], None]:
        """Draw a curve, and return what writes its label, later, over the boxes."""
        start = self._middle(passage.before, 0)
        stop = self._middle(passage.after, -1)
        dx, dy = _minus(stop, start)
        length = math.hypot(dx, dy) or 1.0
        bend = (ACROSS if abs(dx) > STEEP else DOWN)[passage.end]
        side = 1 if start[0] + stop[0] > WIDTH else -1  # towards the middle, where there is room
        middle = (
            (start[0] + stop[0]) / 2 - side * bend * dy / length,
            (start[1] + stop[1]) / 2 + side * bend * dx / length,
        )
        tip = self._edge(passage.after, middle, stop)
        kinds = f"way {passage.kind} passed{' assumed' if passage.assumed else ''}"
        path = f"M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {tip[0]:.1f} {tip[1]:.1f}"
        self._put("path", kinds, d=path)
        self._head(passage.kind, tip, math.atan2(*reversed(_minus(tip, middle))))
        x = (start[0] + 2 * middle[0] + tip[0]) / 4
        y = (start[1] + 2 * middle[1] + tip[1]) / 4
        outside = (passage.end is End.SERVER) == (middle[0] < (start[0] + stop[0]) / 2)
        x, anchor = (x - 10, "end") if outside else (x + 10, "start")

        def label() -> None:
            rows = [*wrap(", ".join(passage.causes), NARROW), passage.text]
            for row, text in enumerate(rows):
                self._text(f"label who {passage.kind}", x, y + row * TEXT, text, anchor=anchor)

        return label

    # -- boxes

    def _box(self, state: State, which: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a state's box."""
        column, row = BOXES[state][which] if state in BOXES else PLACE_OF_UNKNOWN
        left, top = MARGIN + column * CELL[0], self.top + row * CELL[1]
        return left, top, (len(state) + 4) * CELL[0], 3 * CELL[1]

    def _middle(self, state: State, which: int) -> tuple[float, float]:
        left, top, width, height = self._box(state, which)
        return left + width / 2, top + height / 2

    def _edge(
        self, state: State, outside: tuple[float, float], inside: tuple[float, float]
    ) -> tuple[float, float]:
        """Return where the way from outside to the middle of a box meets its edge."""
        _, _, width, height = self._box(state, -1)
        dx, dy = _minus(outside, inside)
        part = min(width / 2 / abs(dx) if dx else math.inf, height / 2 / abs(dy) if dy else math.inf)
        part = min(part, 1.0)
        return inside[0] + dx * part, inside[1] + dy * part

    def _boxes(self) -> None:
        for state in State:
            visited = self.way is None or self.way.visits(state)
            if state in BOXES:
                for which in range(len(BOXES[state])):
                    self._draw_box(state, which, visited=visited)
            elif self.way is not None and visited:
                self._draw_box(state, 0, visited=True)

    def _draw_box(self, state: State, which: int, *, visited: bool) -> None:
        left, top, width, height = self._box(state, which)
        kind = f"box {state}" if visited else "box faint"
        self._put("rect", kind, x=left, y=top, width=width, height=height, rx=7)
        last = len(BOXES.get(state, ((),))) - 1  # CLOSED is first where a connection begins, and last
        notes = [] if self.way is None else [self.way.standing(state, begins=True)] * (which == 0)
        notes += [] if self.way is None else [self.way.standing(state, begins=False)] * (which == last)
        told = [text for text in notes if text]
        y = top + height / 2 + 5 - len(told) * 6.5
        self._text("state" if visited else "state faint", left + width / 2, y, str(state))
        for text in told:
            y += 13
            self._text("note", left + width / 2, y, text)


def _minus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] - b[0], a[1] - b[1]


def _beyond(before: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Return the end of a line half a cell further, where the edge of its box is."""
    dx, dy = _minus(end, before)
    return (
        end[0] + math.copysign(CELL[0] / 2, dx) * bool(dx),
        end[1] + math.copysign(CELL[1] / 2, dy) * bool(dy),
    )


def _rounded(points: list[tuple[float, float]]) -> str:
    """Return a path from point to point with rounded corners."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (before, corner), (_, after) in pairwise(pairwise(points)):
        near, far = _towards(corner, before), _towards(corner, after)
        path.append(f"L{near[0]:.1f} {near[1]:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {far[0]:.1f} {far[1]:.1f}")
    path.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return "".join(path)


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    dx, dy = _minus(other, corner)
    length = math.hypot(dx, dy) or 1.0
    part = min(ROUND, length / 2) / length
    return corner[0] + dx * part, corner[1] + dy * part
