"""A comparison for people, what is worse first, and as JSON."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from closeseq.diff.changes import QUANTILES, Change, ChangeKind, Comparison
from closeseq.report.text import Style, named, printable, seconds
from closeseq.units import count, span
from closeseq.verdict import vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.diff.tally import Example, Side
    from closeseq.report.rows import Record

DIFF_SCHEMA = "closeseq-diff/1"

HEADINGS = {
    ChangeKind.WORSE: "Worse",
    ChangeKind.BETTER: "Better",
    ChangeKind.DIFFERENT: "Different, neither better nor worse",
    ChangeKind.UNCLEAR: "Too few or too little to tell",
}
KINDS = {
    "verdict": "Verdicts",
    "finding": "Findings",
    "closed-first": "Who closed first",
    "time-to-close": "Time to close (graceful closes; from the first FIN until both have closed)",
}
NAME, NUMBER = 40, 18  # columns


def diff_lines(comparison: Comparison, style: Style) -> Iterator[str]:
    """Yield the lines of a comparison: what differs, by what is to be made of it, and then all numbers.

    Args:
        comparison: of two sides.
        style: how text may look: width, colours, ASCII only.
    """
    before, after = comparison.before, comparison.after
    yield from style.wrap(_side("before", before), then="  ")
    yield from style.wrap(_side("after", after), then="  ")
    if not before.connections or not after.connections:
        yield ""
        yield from style.wrap("Without a connection on both sides there is nothing to compare.")
        return
    if not comparison.worse:
        yield ""
        yield from style.wrap("Nothing is worse.")
    for way, heading in HEADINGS.items():
        changes = comparison.of(way)
        if way is ChangeKind.UNCLEAR:  # only what would be worse; the tables have the rest
            changes = [one for one in changes if one.example is not None]
        if changes:
            yield ""
            yield style.paint(heading, "problem" if way is ChangeKind.WORSE else "heading")
            for change in changes:
                yield from _told(change, comparison, style)
    for kind, heading in KINDS.items():
        lines = [one for one in comparison.changes if one.feature.kind == kind]
        if lines:
            yield ""
            yield from style.wrap(heading)
            yield from _columns(lines, comparison, style)


def _side(word: str, side: Side) -> str:
    kind = " (records)" if side.records else ""
    return f"{word + ':':8}{printable(side.name)}{kind}: {count(side.connections, 'connection')}"


def _told(change: Change, comparison: Comparison, style: Style) -> Iterator[str]:
    """Yield the lines about one difference: what it is, what it means, and an example."""
    yield from style.wrap(f"{name(change)}: {_difference(change, comparison)}", first="  ", then="    ")
    if change.feature.kind in {"verdict", "finding"}:
        yield from style.wrap(vocabulary.lookup(change.feature.code).meaning, first="    ")
    if change.example is not None:
        yield from _example(change.example, comparison.after, style)


def _difference(change: Change, comparison: Comparison) -> str:
    """Return what was and what is, and how likely it is chance where that matters."""
    if change.feature.kind == "time-to-close":
        text = f"{span(change.after)}, before {span(change.before)}"
    else:
        was, of = f"{change.before:,} of {comparison.before.connections:,}", comparison.after.connections
        text = f"{change.after:,} of {count(of, 'connection')}, before {was}"
    if change.way is ChangeKind.UNCLEAR:
        text += f" (chance alone makes this in {_percent(change.chance)} of cases)"
    return text


def _example(example: Example, side: Side, style: Style) -> Iterator[str]:
    who = f"{example.client} {style.to} {example.server}"
    yield from style.wrap(
        f"{who}: {printable(example.text)}", first=f"    such as #{example.id}  ", then="      "
    )
    if not side.records:
        capture = printable(shlex.quote(example.capture))
        yield f"      closeseq timeline {capture} --connection {example.id}"


def _columns(lines: list[Change], comparison: Comparison, style: Style) -> Iterator[str]:
    """Yield a table of one kind: before, after, and what is to be made of it."""
    total = comparison.before.connections, comparison.after.connections
    for line in lines:
        cells = [span(line.before), span(line.after)]
        if line.feature.kind != "time-to-close":
            cells = [
                f"{number:,} {_percent(number / of):>8}"
                for number, of in zip((line.before, line.after), total, strict=True)
            ]
        mark = line.way.value if line.way in {ChangeKind.WORSE, ChangeKind.BETTER} else ""
        what = name(line) if line.feature.kind == "finding" else line.feature.code
        text = f"  {what:{NAME}}{cells[0]:>{NUMBER}}{cells[1]:>{NUMBER}}  {mark}".rstrip()
        yield style.paint(text, "problem") if line.way is ChangeKind.WORSE else text


def name(change: Change) -> str:
    """Return what a line is about: `reset`, `stuck-close-wait at the server`, `median`."""
    where = f" at the {change.feature.endpoint}" if change.feature.endpoint else ""
    kind = {"closed-first": "closed first by ", "time-to-close": "time to close, "}
    return f"{kind.get(change.feature.kind, '')}{change.feature.code}{where}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def diff_json(comparison: Comparison) -> str:
    """Return a comparison as JSON; times are in seconds."""
    whole: Record = {
        "schema": DIFF_SCHEMA,
        "worse": comparison.worse,
        "before": _side_json(comparison.before),
        "after": _side_json(comparison.after),
        "limit": comparison.limit,
        "changes": [_change_json(one, comparison) for one in comparison.changes],
    }
    return json.dumps(whole, indent=2) + "\n"


def _side_json(side: Side) -> Record:
    return {
        "name": named(side.name),
        "records": side.records,
        "connections": side.connections,
        "graceful_closes": len(side.closes_ns),
        "errors": [printable(str(error)) for error in side.errors],
    }


def _change_json(change: Change, comparison: Comparison) -> Record:
    feature, example = change.feature, change.example
    values: Record = {"before": change.before, "after": change.after}
    if feature.code in QUANTILES and feature.kind == "time-to-close":
        values = {"before": seconds(change.before), "after": seconds(change.after)}
    else:
        for side, tally in (("before", comparison.before), ("after", comparison.after)):
            values[f"share_{side}"] = values[side] / tally.connections if tally.connections else None
    return {
        "kind": feature.kind,
        "code": feature.code,
        "endpoint": feature.endpoint,
        **values,
        "chance": change.chance,
        "way": change.way.value,
        "example": None
        if example is None
        else {
            "capture": named(example.capture),
            "id": example.id,
            "client": example.client,
            "server": example.server,
            "text": printable(example.text),
        },
    }
