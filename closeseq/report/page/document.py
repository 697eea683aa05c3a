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
from closeseq.report.page.occupancy import MOMENTS, OTHERS
from closeseq.report.page.overview import BINS, MOST_ROWS
from closeseq.report.pictures.ladder_style import LADDER_STYLE
from closeseq.report.pictures.palette import DARK, LIGHT
from closeseq.report.records import header, population
from closeseq.report.summary import on_the_path, read_in_short, remarks_on, title
from closeseq.report.text import printable, when
from closeseq.tcp.states import State
from closeseq.units import count, span
from closeseq.verdict import vocabulary
from closeseq.verdict.model import ENDED, VerdictCode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping, Sequence

    from closeseq.report.page.examples import Example
    from closeseq.report.page.overview import Overview
    from closeseq.report.selection import Selection
    from closeseq.verdict.population.rules import PopulationFinding

MOST_PORTS = 4  # whose sockets are drawn
MOST_SHAPES = 12
MOST_NOTICES = 12
BEGUN = "problems"  # the class of the bars that show when problems began

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
        examples: Sequence[Example],
        *,
        command: str,
        version: str,
    ) -> None:
        self.selection, self.overview, self.examples = selection, overview, examples
        self.command, self.version = command, version
        self.reading = selection.analysis.reading
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
        shown = self._ports()
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
            "states_caption": self._states_caption(),
            "ports": [self._port(port) for port in shown],
            "more_ports": self._more_ports(shown),
            "closes_caption": self._closes_caption(),
            "closes": self._closes(),
            "table_remark": self._table_remark(),
            "filters": self._filters(),
            "remarks": list(self._remarks()),
        }

    def _together(self) -> Sequence[PopulationFinding]:
        """Return what the connections show together; nothing where only some are asked for."""
        if self.selection.wanted:
            return ()
        try:
            return self.selection.analysis.population
        except Exception:  # noqa: BLE001 - a fault in closeseq: only this part is missing
            return ()

    def _more_shapes(self) -> str:
        shapes = self.overview.shapes
        rest = shapes.most_common()[MOST_SHAPES:]
        number = sum(number for _, number in rest)
        return (
            f"{number:,} in {count(len(rest), 'more shape')}; the table's search finds them" if rest else ""
        )

    # -- over time

    def _ports(self) -> list[int]:
        """Return the server ports whose sockets are drawn: most problems first, then most connections."""
        overview = self.overview
        order = sorted(
            overview.ports, key=lambda port: (-overview.troubled_ports[port], -overview.ports[port], port)
        )
        return order[:MOST_PORTS]

    def _port(self, port: int) -> dict[str, Any]:
        overview = self.overview
        series = [overview.occupancy.series(port, end) for end in (1, 0)]
        most = max(charts.peak(one) for one in series)
        name = "Other server ports" if port == OTHERS else f"Server port {port}"
        of_it = "" if port == OTHERS else f" of :{port}"
        troubled = overview.troubled_ports[port]
        remark = count(overview.ports[port], "connection")
        remark += f", {troubled:,} with a problem" if troubled else ""
        return {
            "name": name,
            "troubled": troubled,
            "remark": remark,
            "sides": [
                {"name": text, "chart": charts.stacked(one, overview.occupancy.span_ns, most)}
                for text, one in zip(
                    (f"Server sockets{of_it}", "Their clients' sockets"), series, strict=True
                )
            ],
        }

    def _more_ports(self, shown: Sequence[int]) -> str:
        rest = [port for port in self.overview.ports if port not in shown]
        if not rest:
            return ""
        number = sum(self.overview.ports[port] for port in rest)
        others = "" if OTHERS not in rest else ", and all further ones"
        return (
            f"Not drawn: {count(len(rest) - (OTHERS in rest), 'more server port')}{others}, "
            f"with {count(number, 'connection')}."
        )

    def _states_caption(self) -> str:
        every = span(self.overview.occupancy.span_ns // (MOMENTS - 1))
        return (
            f"How many sockets are in which state, counted every {every} from the first packet to the end of "
            "the capture. States are inferred from packets; what was open before the capture began counts from "
            "its first packet on."
        )

    def _closes_caption(self) -> str:
        ended = sum(number for code, number in self.overview.verdicts.items() if code in ENDED)
        return (
            f"{ended:,} of {count(self.overview.number, 'connection')} ended during the capture; a bar is "
            f"{span(self.overview.occupancy.span_ns // BINS)}."
        )

    def _closes(self) -> list[dict[str, Any]]:
        """Return the bars: closes by verdict, and the beginnings of problems."""
        overview = self.overview
        names = [code.value for code in VerdictCode if any(code in one for one in overview.closes)]
        charted = [self._bars("Connections that ended, by verdict", overview.closes, names)]
        if any(overview.begun):
            begun = [{BEGUN: number} for number in overview.begun]
            charted.append(self._bars("Problems, when they began", begun, [BEGUN]))
        return charted

    def _bars(self, name: str, counts: Sequence[Mapping[str, int]], names: Sequence[str]) -> dict[str, Any]:
        scale = charts.ceiling(max(sum(one.values()) for one in counts))
        return {
            "name": name,
            "names": names,
            "bars": list(charts.columns(counts, names, scale)),
            "across": list(charts.times(self.overview.occupancy.span_ns)),
            "up": list(charts.levels(scale)),
        }

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
        number = self.overview.number
        if number <= MOST_ROWS:
            return ""
        return (
            f"The table holds {MOST_ROWS:,} of {number:,} connections: first those with a problem, then the "
            f"earliest. All others are counted above. `{self.command.replace(' timeline ', ' analyze ', 1)} "
            "-f table` lists all."
        )

    def _remarks(self) -> Iterator[str]:
        yield from remarks_on(self.reading)
        yield from on_the_path(*self.selection.analysis.losses)
        if self.selection.analysis.failed:
            failed = count(self.selection.analysis.failed, "connection")
            yield f"closeseq itself failed at {failed}; the verdict {VerdictCode.NOT_JUDGED} marks them"
        number = self.overview.number
        if len(self.examples) < number:
            yield (
                f"Shown whole, with ladder and record: {len(self.examples):,} of "
                f"{count(number, 'connection')}, some of each problem and one of each way to close first. For any other: "
                f"{self.command} --connection ID"
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
            'The element with id "record" holds the records as JSON, as closeseq analyze -f json prints them, '
            "of the connections that are shown whole."
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
        head = header(self.reading, self.overview.number) | {"population": population(self.selection)}
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
