"""The ladder as SVG: two lifelines in the colours of their states, and an arrow for each segment.

The picture stands alone: no identifiers, no scripts, nothing to load; colours come from CSS classes, for
light and dark. It is built as a tree, so that whatever a capture holds is escaped. Time goes down, not to
scale: a long wait takes more room, and says how long it was.

What is known of a segment shows in its arrow: whole if it arrived, its second half dashed if that is assumed,
ending in a cross if it was lost.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from closeseq.connections.conversation import End
from closeseq.report.pictures.ladder import NAMED_WAIT, Ladder, Rung, StateChange, known, ladder
from closeseq.report.pictures.style_sheets import LADDER_STYLE
from closeseq.tcp.states import NO_SOCKET, State
from closeseq.tcp.timeline import Arrival
from closeseq.units import span
from closeseq.verdict.model import FindingCode, Severity

if TYPE_CHECKING:
    from closeseq.connection import Connection

__all__ = ["LADDER_STYLE", "drawn_svg", "ladder_svg"]

# Columns, in pixels.
WIDTH = 1100
MARGIN = 20
CLOCK = 136  # right edge of the times
LINE = {End.CLIENT: 250, End.SERVER: 610}  # middle of the lifelines
BAR = 16  # their width
LABEL = 8  # from a lifeline to the name of a state
NOTE = 730  # left edge of the remarks
HEAD = 320  # width of an endpoint's box: an IPv6 address with its port fits in

# Rows.
TEXT = 16  # from line to line
NAME = 15  # from one state's name to the next, at least
RUNG = 40  # from arrow to arrow, at least
SLANT = 14  # an arrow falls while its segment is on its way
LEAD = 30  # lifeline before the first arrow, and after the last

# Characters that surely fit.
TITLE_LINE = 105
REMARK_LINE = 50
TRAFFIC_LINE = 48
ADDRESS = 40  # longer ones are written smaller
PARAGRAPH_LINE = 150

SHORT_WAIT = 20_000_000  # ns: what is longer takes more room
STRETCH, MOST_STRETCH = 16, 64  # pixels: for ten times longer, and at most


def ladder_svg(
    connection: Connection, *, index: int | None = None, style: bool = True, findings: bool = True
) -> str:
    """Return the ladder of a connection as an `<svg>` element.

    Args:
        connection: of an analysis, or an update of `live`.
        index: the number to show in place of the connection's own.
        style: whether the element carries `LADDER_STYLE` in it; a page with many has it once itself.
        findings: whether the findings are written below it; their letters stay beside the packets.
    """
    return drawn_svg(ladder(connection, number=index), style=style, findings=findings)


def drawn_svg(one: Ladder, *, style: bool = True, findings: bool = True) -> str:
    """Return a ladder as an `<svg>` element.

    Args:
        one: the ladder.
        style: as in `ladder_svg`.
        findings: as in `ladder_svg`.
    """
    picture = Picture(one, findings=findings)
    if style:
        element = Element("style")
        element.text = LADDER_STYLE
        picture.root.insert(0, element)
    indent(picture.root, "")
    return tostring(picture.root, encoding="unicode")


class Picture:
    """A ladder being drawn, from the top to the bottom.

    Args:
        one: the ladder.
        findings: whether the findings are written below it.
    """

    def __init__(self, one: Ladder, *, findings: bool = True) -> None:
        self.ladder = one
        self.told = one.findings if findings else ()
        self.root = Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "closeseq-ladder", "role": "img"}
        )
        SubElement(self.root, "title").text = f"{one.client} to {one.server}, {one.title}"
        paper = self._put("rect", "paper")
        self.stuck = {
            (finding.endpoint, code)
            for _, finding, _ in one.findings
            if finding.severity is Severity.PROBLEM and (code := finding.code)
        }
        self.marks: set[str] = set()
        self.y: float = MARGIN
        self._heading()
        self._rungs()
        self._below()
        height = str(round(self.y + MARGIN - TEXT // 2))
        size = {"width": str(WIDTH), "height": height}
        paper.attrib.update(size)
        self.root.attrib.update(size | {"viewBox": f"0 0 {WIDTH} {height}"})

    # -- elements

    def _put(
        self, name: str, kind: str, into: Element | None = None, tip: str = "", **attributes: object
    ) -> Element:
        """Add an element of a class, with numbers rounded; `tip` shows while the pointer is over it."""
        plain = {
            one.replace("_", "-"): f"{value:.4g}" if isinstance(value, float) else str(value)
            for one, value in attributes.items()
        }
        element = SubElement(self.root if into is None else into, name, {"class": kind} | plain)
        if tip:
            SubElement(element, "title").text = tip
        return element

    def _text(
        self, kind: str, x: float, y: float, text: str, *, anchor: str = "start", into: Element | None = None
    ) -> Element:
        element = self._put("text", kind, into, x=x, y=y, text_anchor=anchor)
        element.text = text
        return element

    def _paragraph(self, kind: str, x: float, text: str, width: int, *, left: float | None = None) -> None:
        """Write a text in lines of so many characters, from `self.y` on down."""
        for number, line in enumerate(textwrap.wrap(text, width, break_on_hyphens=False)):
            self._text(kind, x if not number or left is None else left, self.y, line)
            self.y += TEXT

    # -- parts

    def _heading(self) -> None:
        """Draw the verdict, who and when, and both endpoints' boxes."""
        one = self.ladder
        self.y += 8
        for line in textwrap.wrap(one.title, TITLE_LINE):
            self._text("verdict", MARGIN, self.y, line)
            self.y += 22
        self._paragraph("dim", MARGIN, f"#{one.number}  {one.began}", PARAGRAPH_LINE)
        self.y += 4
        for end in End:
            middle, role = LINE[end], one.role(end)
            self._put("rect", "head", x=middle - HEAD // 2, y=self.y, width=HEAD, height=42, rx=5)
            caption = self._text("caption", middle, self.y + 17, str(end), anchor="middle")
            if role:
                self._span(caption, f"role {role.split()[0]}", f" · {role}")
            small = " small" if len(one.address(end)) > ADDRESS else ""
            self._text(f"address{small}", middle, self.y + 34, one.address(end), anchor="middle")
        self.y += 42

    @staticmethod
    def _span(element: Element, kind: str, text: str) -> None:
        SubElement(element, "tspan", {"class": kind}).text = text

    def _rungs(self) -> None:
        """Draw the lifelines, and the arrows between them."""
        one, top = self.ladder, self.y
        tracks: dict[End, list[tuple[float, State, StateChange | None]]] = {
            end: [(top, one.first[end], None)] for end in End
        }
        places = self._places(one.rungs)
        under = self._put("g", "bars")
        for rung, at in zip(one.rungs, places, strict=True):
            for end in End:
                tracks[end] += self._moves(rung, end, at)
        last = places[-1] if places else top
        names = max((track[-1][0] for track in tracks.values()), default=last)
        bottom = max(self.y, last + LEAD, names + LEAD)
        self._put("line", "axis", x1=CLOCK + 8, y1=top, x2=CLOCK + 8, y2=bottom)
        for end in End:
            self._bars(under, end, tracks[end], bottom)
        for index, (rung, at) in enumerate(zip(one.rungs, places, strict=True)):
            self._rung(index, rung, at, places)
        self.y = bottom
        if one.end_ns > (one.rungs[-1].time_ns if one.rungs else one.start_ns):
            self._put("line", "until", x1=CLOCK + 8, y1=bottom, x2=WIDTH - MARGIN, y2=bottom)
            self._text("clock", CLOCK, bottom + 4, f"{(one.end_ns - one.start_ns) / 1e9:.6f}", anchor="end")
            self._text("dim", NOTE, bottom - 6, "the last states hold until here")
        self.y += LEAD

    def _places(self, rungs: tuple[Rung, ...]) -> list[float]:
        """Return where each rung's arrow begins, and leave `self.y` below the last one."""
        places: list[float] = []
        y: float = self.y + LEAD
        before = self.ladder.start_ns
        for index, rung in enumerate(rungs):
            if index:
                waited = rung.time_ns - before
                if waited >= NAMED_WAIT:
                    middle = (places[-1] + y + _stretch(waited)) / 2 + 4
                    self._text("wait", CLOCK, middle, f"+ {span(waited)}", anchor="end")
                y += _stretch(waited)
            places.append(y)
            lines = len(textwrap.wrap(rung.remark, REMARK_LINE)) or 1
            lines = max(lines, len(textwrap.wrap(rung.words, TRAFFIC_LINE)))
            names = max(sum(move.end is end for move in rung.moves) for end in End)
            y += max(RUNG, lines * TEXT + 12, SLANT + (names - 1) * NAME + 22)
            y += _stretch(rung.lasted_ns)
            before = rung.time_ns + rung.lasted_ns
        waited = self.ladder.end_ns - before
        y += _stretch(waited)
        if waited >= NAMED_WAIT:
            self._text("wait", CLOCK, y - LEAD, f"+ {span(waited)}", anchor="end")
        self.y = round(y - 10)
        return places

    @staticmethod
    def _moves(rung: Rung, end: End, at: float) -> list[tuple[float, State, StateChange | None]]:
        """Return an endpoint's moves at a rung, each where it happens: sent above, received below."""
        found: list[tuple[float, State, StateChange | None]] = []
        for move in rung.moves:
            if move.end is end:
                y = at + (SLANT if move.received and rung.sender is not None else 0)
                if found:
                    y = max(y, found[-1][0] + NAME)
                found.append((y, move.state, move))
        return found

    def _bars(
        self, into: Element, end: End, track: list[tuple[float, State, StateChange | None]], bottom: float
    ) -> None:
        """Draw a lifeline: a bar for each state, with its name where it begins."""
        outward = -1 if end is End.CLIENT else 1
        for index, (y, state, move) in enumerate(track):
            below = track[index + 1][0] if index + 1 < len(track) else bottom
            stuck = self._is_stuck(end, state, last=index + 1 == len(track))
            assumed = move is not None and move.assumed
            kind = f"bar {state}{' assumed' if assumed else ''}{' stuck' if stuck else ''}"
            self.marks |= {"assumed"} if assumed else set()
            if below > y:
                thin = state in NO_SOCKET or state is State.UNKNOWN
                width = 4 if thin else BAR
                tip = (
                    f"{end}: {state}" if move is None else f"{end}: {state}, {move.cause} ({move.certainty})"
                )
                self._put(
                    "rect", kind, into, tip, x=LINE[end] - width // 2, y=y, width=width, height=below - y
                )
            name = f"{state}?" if assumed else str(state)
            x = LINE[end] + outward * (BAR // 2 + LABEL)
            first = y + 14 if move is None else y + 4
            self._text(
                f"state {state}{' stuck' if stuck else ''}",
                x,
                first,
                name,
                anchor="end" if outward < 0 else "start",
            )

    def _is_stuck(self, end: End, state: State, *, last: bool) -> bool:
        """Whether a problem says that this endpoint is stuck in this state."""
        code = FindingCode.stuck_in(state)
        return last and code is not None and bool({(end, code), (None, code)} & self.stuck)

    def _rung(self, index: int, rung: Rung, at: float, places: list[float]) -> None:
        """Draw a rung: its time, its arrow or traffic, its remark."""
        group = self._put("g", "rung", data_packet=rung.packet) if rung.packet else self._put("g", "rung")
        self._text("clock", CLOCK, at + 4, self.ladder.clock(rung), anchor="end", into=group)
        self._put("line", "axis", group, x1=CLOCK + 5, y1=at, x2=CLOCK + 11, y2=at)
        if rung.packet:
            self._text("number", MARGIN, at + 4, f"#{rung.packet}", into=group)
        if rung.sender is not None:
            crossed = any(
                one.lands and number < index <= number + one.lands
                for number, one in enumerate(self.ladder.rungs)
            )
            self._arrow(group, rung, at, places[index + rung.lands] + SLANT, crossed=crossed)
        elif rung.words:
            for number, line in enumerate(textwrap.wrap(f"~ {rung.words}", TRAFFIC_LINE)):
                y = at + 4 + number * TEXT
                self._text("traffic", sum(LINE.values()) / 2, y, line, anchor="middle", into=group)
        self._remark(group, rung, at)

    def _arrow(self, into: Element, rung: Rung, y1: float, y2: float, *, crossed: bool) -> None:
        """Draw a segment from its sender to its receiver, or to where it was lost."""
        client = rung.sender is End.CLIENT
        direction = 1 if client else -1
        edges = {End.CLIENT: LINE[End.CLIENT] + BAR / 2 + 1, End.SERVER: LINE[End.SERVER] - BAR / 2 - 1}
        sender = End.CLIENT if client else End.SERVER
        x1, x2 = edges[sender], edges[sender.peer]
        lost, assumed = rung.arrived is Arrival.NO, rung.arrived is Arrival.ASSUMED
        kind = f"arrow{' rst' if rung.rst else ''}{' lost' if lost else ''}"
        what = {Arrival.PROVED: "it arrived (proved)", Arrival.ASSUMED: "that it arrived is assumed"}
        what |= {Arrival.NO: "it did not arrive, or no packet shows that it did"}
        told = "" if rung.arrived is None else f"; {what[rung.arrived]}"
        group = self._put("g", kind, into, f"#{rung.packet} {rung.flags}, {rung.numbers}{told}")

        def at(part: float) -> tuple[float, float]:
            return x1 + (x2 - x1) * part, y1 + (y2 - y1) * part

        whole = 0.72 if lost else 0.5 if assumed else 1.0
        x, y = at(whole)
        self._put("line", "sent", group, x1=x1, y1=y1, x2=x, y2=y)
        if lost:
            self._put("path", "cross", group, d=f"M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12")
        else:
            if assumed:
                self._put("line", "sent assumed", group, x1=x, y1=y, x2=x2 - direction * 5, y2=y2)
            self._head(group, x2, y2, math.atan2(y2 - y1, x2 - x1))
        self.marks |= {"lost"} if lost else {"assumed"} if assumed else set()
        x, y = at(0.27 if rung.lands else 0.66 if crossed else 0.36 if lost else 0.5)
        steep = abs(y2 - y1) - SLANT  # then the line would go through its own label
        label = self._text("label", x, y - 8 - steep / 5, rung.flags, anchor="middle", into=group)
        self._span(label, "numbers", f"  {rung.numbers}")

    def _head(self, into: Element, x: float, y: float, angle: float) -> None:
        """Draw the head of an arrow that ends here."""
        wings = [(x - 11 * math.cos(angle + turn), y - 11 * math.sin(angle + turn)) for turn in (0.38, -0.38)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in [(x, y), *wings])
        self._put("polygon", "tip", into, points=points)

    def _remark(self, into: Element, rung: Rung, at: float) -> None:
        """Write what is to be said of a rung, after the letters of the findings that rest on it."""
        x = float(NOTE)
        severe = {
            letter for letter, finding, _ in self.ladder.findings if finding.severity is Severity.PROBLEM
        }
        for letter in rung.letters:
            self._badge(into, letter, x + 8, at, problem=letter in severe)
            x += 20
        for number, line in enumerate(textwrap.wrap(rung.remark, REMARK_LINE - 3 * len(rung.letters))):
            self._text("remark", x + 2, at + 4 + number * TEXT, line, into=into)

    def _badge(self, into: Element, letter: str, x: float, y: float, *, problem: bool) -> None:
        kind = "problem" if problem else "notice"
        self._put("circle", f"badge {kind}", into, cx=x, cy=y, r=8)
        self._text(f"letter {kind}", x, y + 4, letter, anchor="middle", into=into)

    def _below(self) -> None:
        """Write what the endpoints wait for, the findings, and what the marks mean."""
        one = self.ladder
        for line in one.standing:
            self._paragraph("remark", MARGIN, line, PARAGRAPH_LINE)
        self.y += 8 if one.standing else 0
        for letter, finding, sentence in self.told:
            problem = finding.severity is Severity.PROBLEM
            self.y += 6
            self._badge(self.root, letter, MARGIN + 8, self.y - 4, problem=problem)
            whom = f" ({finding.endpoint})" if finding.endpoint is not None else ""
            code = self._text(
                f"code {'problem' if problem else 'notice'}", MARGIN + 26, self.y, f"{finding.code}{whom}"
            )
            self._span(code, "dim", f"   {known(finding)}")
            self.y += TEXT
            self._paragraph("remark", MARGIN + 26, sentence, PARAGRAPH_LINE)
            if problem and finding.advice:
                self._paragraph("advice", MARGIN + 26, finding.advice, PARAGRAPH_LINE)
        meanings = {
            "assumed": "dashed, ?: assumed; nothing in the capture contradicts it, and nothing proves it",
            "lost": "a cross: did not arrive, or no packet shows that it did",
        }
        self.y += 8
        for mark in sorted(self.marks):
            self._paragraph("dim", MARGIN, meanings[mark], PARAGRAPH_LINE)


def _stretch(waited_ns: int) -> float:
    """Return how many pixels a span of time takes, beyond those that its rung takes anyway."""
    if waited_ns <= SHORT_WAIT:
        return 0.0
    return min(MOST_STRETCH, STRETCH * (1 + math.log10(waited_ns / SHORT_WAIT)))
