"""The page itself: everything at its place in page.html, and the policy under which it runs.

Nothing is loaded from anywhere. The policy allows the page's one style and one script by their hashes, and no
HTML made of strings. What comes from a capture is escaped by the template, or is JSON that the script reads.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from closeseq.report.page import charts
from closeseq.report.page.answer import answer, other_problems
from closeseq.report.page.overview import BINS
from closeseq.report.page.trends import trends
from closeseq.report.pictures.palette import DARK, LIGHT
from closeseq.report.pictures.svg import LADDER_STYLE
from closeseq.report.records import header, population
from closeseq.report.summary import on_the_path, read_in_short, remarks_on, title
from closeseq.report.text import printable, when
from closeseq.tcp.states import State
from closeseq.units import count, span
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import place
from closeseq.verdict.model import VerdictCode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from closeseq.report.page.examples import WholeConnection
    from closeseq.report.page.overview import Overview
    from closeseq.report.selection import Selection
    from closeseq.verdict.population.rules import PopulationFinding

MOST_SHAPES = 12
MOST_NOTICES = 12

HEADERS = (  # key to sort by, name, class of the cells; page.js makes the cells in this order
    ("id", "#", "number"),
    ("start", "began", "number"),
    ("client", "client", ""),
    ("server", "server", ""),
    ("verdict", "verdict", ""),
    ("initiator", "closed first", ""),
    ("client_state", "client state", ""),
    ("server_state", "server state", ""),
    ("lasted", "lasted", "number"),
    ("packets", "packets", "number"),
    ("bytes", "bytes", "number"),
    ("findings", "findings", ""),
)
GEOMETRY = {
    "left": charts.LEFT,
    "right": charts.LEFT + charts.WIDTH,
    "bottom": charts.TOP + charts.HEIGHT,
    "width": charts.LEFT + charts.WIDTH + 20,
    "height": charts.TOP + charts.HEIGHT + charts.BELOW,
    "bar": round(charts.WIDTH / BINS - 1, 2),
}


class Page:
    """The page about one capture.

    Args:
        selection: the connections.
        overview: of them.
        examples: those that are shown whole.
        command: what shows any other one, but for `--connection ID`.
        version: of closeseq.
    """

    def __init__(
        self,
        selection: Selection,
        overview: Overview,
        examples: Sequence[WholeConnection],
        *,
        command: str,
        version: str,
    ) -> None:
        self.selection, self.overview, self.examples = selection, overview, examples
        self.command, self.version = command, version
        self.reading = selection.analysis.reading
        self.failed = ""  # at what closeseq itself failed
        self.together = self._together()
        self.answer = answer(selection, overview, self.together)

    def pieces(self) -> Iterator[str]:
        """Yield the page as HTML."""
        from jinja2 import Environment, PackageLoader, StrictUndefined  # costs 60 ms
        from markupsafe import Markup

        style, script = self._style(), _source("page.js")
        environment = Environment(
            loader=PackageLoader("closeseq.report", "page"), autoescape=True, undefined=StrictUndefined
        )
        yield from environment.get_template("page.html").generate(
            policy=policy(style, script),
            style=Markup(style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            data=Markup(in_script(json.dumps(self._data(), separators=(",", ":")))),  # noqa: S704 - escaped
            record=Markup(in_script(self._record())),  # noqa: S704 - escaped
            examples=[(one, Markup(one.svg)) for one in self.examples],  # noqa: S704 - of a tree of elements
            version=self.version,
            geometry=GEOMETRY,
            headers=HEADERS,
            **self._words(),
        )

    def _words(self) -> dict[str, Any]:
        """Return what the page says, for the template."""
        overview = self.overview
        return {
            "headline": self.answer,
            "title": title(self.reading),
            "read": read_in_short(self.selection),
            "total": overview.number,
            "causes": other_problems(self.selection, overview),
            "together": [
                {
                    "code": str(one.code),
                    "severity": vocabulary.lookup(one.code).severity,
                    "summary": printable(one.summary),
                    "advice": printable(one.advice),
                }
                for one in self.together
            ],
            "verdicts": [
                row | {"kind": row["name"], "meaning": vocabulary.lookup(row["name"]).meaning}
                for row in _shares(overview.verdicts, overview.number)
            ],
            "shapes": [
                row | {"kind": "shape", "meaning": ""}
                for row in _shares(overview.shapes, overview.number)[:MOST_SHAPES]
            ],
            "more_shapes": self._more_shapes(),
            "notices": [
                {
                    "count": number,
                    "code": code,
                    "where": f" at the {end}" if end else "",
                    "meaning": vocabulary.lookup(code).meaning,
                }
                for (code, end), number in overview.notices.most_common(MOST_NOTICES)
            ],
            "trends": trends(overview),
            "table_remark": self._table_remark(),
            "filters": self._filters(),
            "remarks": list(self._remarks()),
        }

    def _together(self) -> Sequence[PopulationFinding]:
        """Return what the connections show together; nothing if closeseq itself fails at it."""
        try:
            return self.selection.population
        except Exception as fault:  # noqa: BLE001 - a fault in closeseq: only this part is missing
            self.failed = f"closeseq failed to show what connections show together: {place(fault)}"
            return ()

    def _more_shapes(self) -> str:
        shapes = self.overview.shapes
        rest = shapes.most_common()[MOST_SHAPES:]
        number = sum(number for _, number in rest)
        return (
            f"{number:,} in {count(len(rest), 'more shape')}; the table's search finds them" if rest else ""
        )

    # -- the table, and what is left out

    def _filters(self) -> list[tuple[str, str, list[tuple[str, int]]]]:
        """Return the lists to choose from: field, name, and values with their counts."""
        overview = self.overview
        order = {state.value: place for place, state in enumerate(State)}
        states = sorted(overview.states.items(), key=lambda one: order[one[0]])
        return [
            ("verdict", "Verdict", overview.verdicts.most_common()),
            ("state", "State at the end", states),
            ("finding", "Finding", overview.findings.most_common()),
        ]

    def _table_remark(self) -> str:
        number, listed = self.overview.number, self.overview.listed
        if number == listed:
            return ""
        return (
            f"The table holds {listed:,} of {number:,} connections: first those with a problem, then the "
            f"earliest. All others are counted above. `{self.command.replace(' timeline ', ' analyze ', 1)} "
            "-f table` lists all."
        )

    def _remarks(self) -> Iterator[str]:
        yield from remarks_on(self.reading)
        yield from on_the_path(*self.selection.analysis.losses)
        if self.failed:
            yield self.failed
        if self.selection.analysis.failed:
            failed = count(self.selection.analysis.failed, "connection")
            yield f"closeseq itself failed at {failed}; the verdict {VerdictCode.NOT_JUDGED} marks them"
        number = self.overview.number
        if len(self.examples) < number:
            yield (
                f"Shown whole, with ladder and record: {len(self.examples):,} of "
                f"{count(number, 'connection')}, some of each problem and one of each way to close first. "
                f"For any other: {self.command} --connection ID"
            )
        if self._table_remark():
            yield self._table_remark()
        stuck = span(self.selection.analysis.settings.limits.stuck_after_ns)
        yield f"A wait of {stuck} counts as stuck (--stuck-after). Times are UTC, or since the capture began."
        yield (
            "#8 is packet 8 of the capture, as Wireshark numbers it; in the table, #8 is a connection. "
            "Dashed and ? mean assumed: nothing contradicts it, and nothing proves it."
        )
        yield (
            'The element with id "record" holds the records of the connections that are shown whole, as '
            "closeseq analyze -f json prints them."
        )
        yield (
            f"Made by closeseq {self.version}. This file holds addresses, ports and times of the capture, "
            "and no payload but the reason that a RST gives. It loads nothing and sends nothing."
        )

    def _data(self) -> dict[str, Any]:
        """Return what the script reads."""
        codes = [*self.overview.verdicts, *self.overview.findings]
        entries = {code: vocabulary.lookup(code) for code in codes}
        return {
            "command": printable(self.command),
            "began": when(self.overview.occupancy.first_ns),
            "words": {
                code: {"meaning": one.meaning, "advice": one.advice or ""} for code, one in entries.items()
            },
            "table": self.overview.table(),
        }

    def _record(self) -> str:
        """Return the records of the connections that are shown whole, with the capture's header, as JSON."""
        together = {"findings": []} if self.failed else population(self.selection)
        head = header(self.reading, self.overview.number) | {"population": together}
        rest = ", ".join(one.record for one in self.examples)
        return f'{json.dumps(head)[:-1]}, "connections": [{rest}]}}'

    @staticmethod
    def _style() -> str:
        """Return the page's style, with the colours of states and the style of ladders."""
        light = "".join(f".area.{state}{{fill:{paint.fill}}}" for state, paint in LIGHT.items())
        dark = "".join(f".area.{state}{{fill:{paint.fill}}}" for state, paint in DARK.items())
        scheme = f"{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n"
        return f"{scheme}{_source('page.css')}\n{LADDER_STYLE}"


def policy(style: str, script: str) -> str:
    """Return a content security policy that allows this style and this script, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def in_script(text: str) -> str:
    """Return JSON that ends no element: within HTML's `<script>`, `<` may begin a tag or a comment."""
    return text.replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _source(name: str) -> str:
    return files("closeseq.report.page").joinpath(name).read_text(encoding="utf-8")


def _shares(counts: Counter[str], total: int) -> list[dict[str, Any]]:
    """Return counts with their percentages, the most frequent first."""
    return [
        {"name": name, "count": number, "percent": f"{100 * number / total:.1f}"}
        for name, number in counts.most_common()
    ]
