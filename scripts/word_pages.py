"""A page for each word of closeseq: what it means, why it happens, what to do, and a recording of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from capture_page import analyzed
from closeseq import format_timeline
from closeseq.connections.conversation import End
from closeseq.lab.agreement import Recording
from closeseq.lab.experiments import experiments
from closeseq.report.pictures.svg import ladder_svg
from closeseq.report.summary import together
from closeseq.report.text import Style
from closeseq.verdict import vocabulary
from closeseq.verdict.model import EntryKind
from closeseq.verdict.vocabulary.foreign_entries import FOREIGN
from command_pages import escaped, in_cell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from closeseq.connection import Connection
    from closeseq.lab.registry import Experiment
    from closeseq.verdict.model import Entry

FOLDERS = {
    EntryKind.FINDING: "findings",
    EntryKind.POPULATION: "findings",
    EntryKind.VERDICT: "verdicts",
    EntryKind.STATE: "states",
}
NOT_RECORDED = {
    EntryKind.VERDICT: "closeseq has no known fault that a recording could show.",
    EntryKind.STATE: "It stands for what a capture does not tell: one that begins after the connection did.",
}


@dataclass(frozen=True)
class Example:
    """A recorded connection that shows a word."""

    experiment: Experiment
    connection: Connection
    alone: bool  # whether its capture has no other

    @property
    def rank(self) -> tuple[bool, bool, int, int]:
        """The key that puts the plainest example first."""
        severe = sum(finding.severity == "problem" for finding in self.connection.findings)
        return (
            not self.alone,
            self.experiment.name.startswith("ipv6"),
            severe,
            len(self.connection.findings),
        )


def shows(connection: Connection, entry: Entry) -> bool:
    """Whether a connection is an example of a word."""
    if entry.kind is EntryKind.FINDING:
        return connection.has(entry.code)
    if entry.kind is EntryKind.VERDICT:
        return connection.verdict == entry.code
    timeline = connection.timeline
    states = [*map(timeline.first_state, End), *(t.after for t in timeline.transitions)]
    return entry.kind is EntryKind.STATE and entry.code in states


def of_many(entry: Entry, captures: Path) -> Experiment | None:
    """Return the recorded experiment whose connections show a word together; None if none does."""
    return next(
        (
            one
            for one in experiments().values()
            if entry.code in one.population and (captures / f"{one.name}.pcap").exists()
        ),
        None,
    )


@cache
def recorded(captures: Path) -> tuple[Example, ...]:
    """Return all recorded connections of the experiments."""
    found = []
    for one in experiments().values():
        path = captures / f"{one.name}.pcap"
        if path.exists():
            connections = analyzed(path, one)
            found += [Example(one, connection, len(connections) == 1) for connection in connections]
    return tuple(found)


def example(entry: Entry, captures: Path) -> Example | None:
    """Return the plainest recorded connection that shows a word; None if none does."""
    found = [one for one in recorded(captures) if shows(one.connection, entry)]
    return min(found, key=lambda one: one.rank, default=None)


def anchor(entry: Entry) -> str:
    """Return the name of a word's page, without an ending: CLOSING and closing have different folders."""
    return entry.code.lower().replace("_", "-")


def page(entry: Entry, captures: Path) -> tuple[str, str | None]:
    """Return the page of a word, and the picture on it."""
    shown = example(entry, captures)
    kind = entry.kind if entry.severity is None else f"{entry.kind}, {entry.severity}"
    parts = [f"# {entry.code}", f"*{kind}*: **{escaped(entry.meaning)}**", "## Why it happens"]
    parts += [escaped(paragraph) for paragraph in entry.explanation.split("\n\n")]
    parts += (
        ["## What to do", escaped(f"{entry.advice[0].upper()}{entry.advice[1:]}.")] if entry.advice else []
    )
    foreign = [one for one in FOREIGN if entry.code in one.codes]
    if foreign:
        parts += ["## How others say it", "\n".join(_others(foreign))]
    parts += ["## How to see it", *_search(entry), "## A recording"]
    many = of_many(entry, captures)
    if many is not None:
        return "\n\n".join([*parts, *_told(many), *_together(many, captures)]) + "\n", None
    if shown is None:
        return "\n\n".join([*parts, NOT_RECORDED[entry.kind]]) + "\n", None
    one, connection = shown.experiment, shown.connection
    number = "" if shown.alone else f" --connection {connection.id}"
    options = f" {one.options}" if one.options else ""
    command = f"closeseq timeline captures/{one.name}.pcap{number}{options}"
    parts += [
        *_told(one),
        f"![{entry.code}, as a ladder: {escaped(connection.summary)}]({anchor(entry)}.svg)",
        f"```text\n$ {command}\n{format_timeline(connection)}```",
    ]
    return "\n\n".join(parts) + "\n", ladder_svg(connection)


def _told(one: Experiment) -> Iterator[str]:
    """Yield the paragraphs that tell what an experiment does."""
    made = f"`closeseq lab run {one.name}` makes it happen on real sockets, and compares with the kernel"
    yield f"{made}: {escaped(one.summary)}"
    for paragraph in one.explanation.split("\n\n"):
        if paragraph:
            yield escaped(" ".join(paragraph.split()))


def _together(one: Experiment, captures: Path) -> Iterator[str]:
    """Yield what the summary says of all connections of an experiment together."""
    found = Recording(captures / f"{one.name}.pcap", one.settings).together()
    options = f" {one.options}" if one.options else ""
    lines = "\n".join(together(found, Style(100))).strip("\n")
    yield f"```text\n$ closeseq analyze captures/{one.name}.pcap{options}\n...\n{lines}\n```"


def _search(entry: Entry) -> Iterator[str]:
    option = {EntryKind.FINDING: "--finding", EntryKind.VERDICT: "--verdict"}.get(entry.kind)
    if option:
        yield (
            f"```bash\ncloseseq analyze web.pcap {option} {entry.code}     # which connections have it\n"
            f"closeseq timeline web.pcap {option} {entry.code}    # packet by packet\n"
            f"closeseq analyze web.pcap --fail-on {entry.code}    # status 1 if there is one, for tests\n"
            f"sudo closeseq live {option} {entry.code}            # as it happens\n```"
        )
    elif entry.kind is EntryKind.STATE:
        yield (
            "```bash\ncloseseq states web.pcap --at end    # every socket with its state, at a moment\n"
            f"ss -tan state {ss_name(entry)}{' ' * max(1, 18 - len(ss_name(entry)))}"
            "# what the kernel says now\n```"
            if entry.code not in {"UNKNOWN", "CLOSED"}
            else "```bash\ncloseseq states web.pcap --at end --all\n```"
        )
    else:
        yield "`closeseq analyze web.pcap` shows it at the top of the summary, and `-f json` in `population`."
        yield f"`--fail-on {entry.code}` ends with status 1 where there is one; `live` reports it at once."


def ss_name(entry: Entry) -> str:
    """Return a state's name as ss writes it."""
    name = entry.code.lower().replace("_", "-")
    return {"listen": "listening", "syn-received": "syn-recv"}.get(name, name)


def _others(foreign: list) -> Iterator[str]:
    yield "| word | of | meaning |"
    yield "|---|---|---|"
    for one in foreign:
        yield f"| {in_cell(f'`{one.word}`')} | {in_cell(one.tool)} | {in_cell(escaped(one.meaning))} |"


def index(folder: str) -> str:
    """Return the page that lists the words of a folder."""
    title = {"findings": "Findings", "verdicts": "Verdicts", "states": "States"}[folder]
    parts = [f"# {title}"]
    kinds = [kind for kind, name in FOLDERS.items() if name == folder]
    for kind in kinds:
        entries = [one for one in vocabulary.entries() if one.kind is kind]
        parts += [f"## {kind.plural[0].upper()}{kind.plural[1:]}"] if len(kinds) > 1 else []
        parts.append("\n".join(_list(entries)))
    return "\n\n".join(parts) + "\n"


def _list(entries: list[Entry]) -> Iterator[str]:
    yield "| word | | |"
    yield "|---|---|---|"
    for one in entries:
        yield f"| [{one.code}]({anchor(one)}.md) | {one.severity or ''} | {in_cell(escaped(one.meaning))} |"


def foreign_page() -> str:
    """Return the page of other programs' words."""
    parts = [
        "# Other programs' words",
        "`closeseq explain` also takes an error, a line of a log with one in it, or another tool's code.",
    ]
    for tool in dict.fromkeys(one.tool for one in FOREIGN):
        parts.append(f"## {tool[0].upper()}{tool[1:]}")
        rows = ["| word | meaning | to look for it |", "|---|---|---|"]
        for one in FOREIGN:
            if one.tool == tool:
                cells = (f"`{one.word}`", escaped(one.meaning), f"`closeseq analyze FILE {one.options}`")
                rows.append(f"| {' | '.join(map(in_cell, cells))} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"
