"""`closeseq explain`: what a state, verdict, finding or another program's word means, and what to do."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import click

from closeseq.cli.output import opened
from closeseq.cli.terminal import Refusal
from closeseq.errors import UnknownWordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from closeseq.report.text import Style
    from closeseq.verdict.vocabulary import Entry
    from closeseq.verdict.vocabulary.foreign_entries import ForeignEntry

EPILOG = """\b
Examples:
  closeseq explain CLOSE_WAIT
  closeseq explain stuck-close-wait reset
  closeseq explain ECONNRESET            an error, and which connections bring it about
  closeseq explain 'connection reset by peer' RSTO cD UC 499
  closeseq explain                       every word there is
  closeseq explain diagram               the states and what leads from one to the next
  closeseq explain diagram -f svg > tcp.svg
  closeseq explain tables                the columns of -f parquet and analysis.tables()
"""


DIAGRAM, TABLES = "diagram", "tables"  # words that show something of their own
WORD = 23  # columns of a word in the list of all


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option(
    *("-f", "--format", "form"),
    type=click.Choice(("text", "svg", "dot")),
    default="text",
    show_default=True,
    help="How to draw the diagram.",
)
def explain(words: tuple[str, ...], form: str) -> None:
    """Explain states, verdicts and findings, and what to do about them. Without WORD, list them all.

    WORD may also be an error (ECONNRESET, "socket hang up"), a line of a log with one in it, or a code of
    Zeek, HAProxy, Envoy, nginx or a firewall.

    The word "diagram" draws RFC 9293's state diagram (figure 5), from the very table that closeseq follows:
    an active open and close are green, a passive one blue. 'closeseq timeline -f diagram' marks the way of a
    connection in it. The word "tables" lists the columns of -f parquet.
    """
    if form != "text":
        _draw(words, form)
        return
    try:
        entries = [entry for word in _parted(words) for entry in _meant(word)]
    except UnknownWordError as unknown:
        raise Refusal(str(unknown)) from unknown
    with opened(None) as output:
        style = output.style(ascii_only=False)
        blocks = [_block(entry, style) for entry in entries]
        blocks = blocks or [glossary(style)]
        output.write("\n" * bool(i) + "\n".join(block) + "\n" for i, block in enumerate(blocks))


def _draw(words: tuple[str, ...], form: str) -> None:
    """Write the diagram as a picture. Raises Refusal for any other word."""
    if words != (DIAGRAM,):
        raise Refusal(f"-f {form} is for the word {DIAGRAM!r} alone")
    from closeseq.report.pictures.dot import dot
    from closeseq.report.pictures.state_svg import state_svg

    with opened(None) as output:
        output.write([dot() if form == "dot" else state_svg() + "\n"])


def _parted(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words; as one if together they are a phrase that was not quoted: `connection refused`."""
    from closeseq.verdict.vocabulary.foreign import foreign

    together = " ".join(words)
    alone = [entry for word in words for entry in foreign(word)]
    return (together,) if len(words) > 1 and not alone and foreign(together) else words


def _meant(word: str) -> list[Entry | ForeignEntry | str]:
    """Return what a word means; DIAGRAM and TABLES themselves. Raises UnknownWordError."""
    from closeseq.verdict import vocabulary
    from closeseq.verdict.vocabulary.foreign import foreign

    if word in {DIAGRAM, TABLES}:
        return [word]
    try:
        return [vocabulary.lookup(word)]
    except UnknownWordError:
        found = foreign(word)
        if not found:
            raise
        return list(found)


def _block(entry: Entry | ForeignEntry | str, style: Style) -> Iterable[str]:
    from closeseq.verdict.vocabulary import Entry

    if isinstance(entry, str):
        return _shown(entry, style)
    return explanation(entry, style) if isinstance(entry, Entry) else translation(entry, style)


def _shown(word: str, style: Style) -> Iterable[str]:
    if word == DIAGRAM:
        from closeseq.report.diagram import diagram

        return diagram()
    from closeseq.report.table_fields import table_fields

    return table_fields(style)


def translation(entry: ForeignEntry, style: Style) -> Iterator[str]:
    """Yield the lines that explain another program's word.

    Args:
        entry: of the vocabulary.
        style: how text may look: width, colours, ASCII only.
    """
    for line in style.wrap(f"{entry.word} ({entry.tool}): {entry.meaning}", then="  "):
        yield style.paint(line, "heading")
    if entry.explanation:
        yield ""
        yield from style.wrap(entry.explanation, first="  ")
    yield ""
    yield from style.wrap(f"In closeseq's words: {', '.join(entry.codes)}", first="  ", then="    ")
    for shape in entry.shapes:
        yield from style.wrap(f"Shape: {shape}", first="  ", then="    ")
    yield from style.wrap(f"To find it: {entry.command}", first="  ", then="    ")
    yield from style.wrap(f"Source: {entry.source}", first="  ", then="    ")


def explanation(entry: Entry, style: Style) -> Iterator[str]:
    """Yield the lines that explain one word.

    Args:
        entry: of the vocabulary.
        style: how text may look: width, colours, ASCII only.
    """
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
    from closeseq.verdict.vocabulary.foreign_entries import FOREIGN

    for index, (kind, entries) in enumerate(groupby(vocabulary.entries(), key=lambda entry: entry.kind)):
        if index:
            yield ""
        yield style.paint(kind.plural, "heading")
        for entry in entries:
            yield from style.wrap(entry.meaning, first=f"  {entry.code:{WORD}} ")
    for tool, others in groupby(FOREIGN, key=lambda entry: entry.tool):
        yield ""
        yield style.paint(tool, "heading")
        for other in others:
            if len(other.word) <= WORD:
                yield from style.wrap(other.meaning, first=f"  {other.word:{WORD}} ")
            else:
                yield from style.wrap(f"{other.word} - {other.meaning}", first="  ", then="    ")
