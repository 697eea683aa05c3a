"""`closeseq explain`: what a state, verdict or finding means and what to do about it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from closeseq.cli.output import opened
from closeseq.cli.terminal import Refusal
from closeseq.errors import UnknownWordError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.report.text import Style
    from closeseq.verdict.vocabulary import Entry

EPILOG = """\b
Examples:
  closeseq explain CLOSE_WAIT
  closeseq explain stuck-close-wait reset
  closeseq explain                       every word there is
  closeseq explain diagram               the states and what leads from one to the next
"""


DIAGRAM = "diagram"  # a word that draws instead of explaining


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, metavar="[WORD]...")
def explain(words: tuple[str, ...]) -> None:
    """Explain states, verdicts and findings, and what to do about them. Without WORD, list them all.

    The word "diagram" draws RFC 9293's state diagram (figure 5), from the very table that closeseq follows.
    """
    from closeseq.report.diagram import diagram
    from closeseq.verdict import vocabulary

    try:
        entries = [None if word == DIAGRAM else vocabulary.lookup(word) for word in words]
    except UnknownWordError as unknown:
        raise Refusal(str(unknown)) from unknown
    with opened(None) as output:
        style = output.style(ascii_only=False)
        blocks = [diagram() if entry is None else explanation(entry, style) for entry in entries]
        blocks = blocks or [glossary(style)]
        output.write("\n" * bool(i) + "\n".join(block) + "\n" for i, block in enumerate(blocks))


def explanation(entry: Entry, style: Style) -> Iterator[str]:
    """Yield the lines that explain one word."""
    kind = entry.kind if entry.severity is None else f"{entry.kind}, {entry.severity}"
    for line in style.wrap(f"{entry.code} ({kind}): {entry.meaning}", then="  "):
        yield style.paint(line, "heading")
    for paragraph in entry.explanation.split("\n\n"):
        yield ""
        yield from style.wrap(paragraph, first="  ")
    if entry.advice:
        yield ""
        yield from style.wrap(f"What to do: {entry.advice}", first="  ")


def glossary(style: Style) -> Iterator[str]:
    """Yield one line a word, by kind."""
    from closeseq.verdict import vocabulary

    for index, (kind, entries) in enumerate(groupby(vocabulary.entries(), key=lambda entry: entry.kind)):
        if index:
            yield ""
        yield style.paint(f"{kind}s", "heading")
        for entry in entries:
            yield from style.wrap(entry.meaning, first=f"  {entry.code:23} ")
