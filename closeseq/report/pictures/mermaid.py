"""The ladder as a Mermaid sequence diagram, in a fenced block, as GitHub, GitLab and many wikis draw it."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.pictures.ladder import closing_lines, pauses
from closeseq.tcp.timeline import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.report.pictures.ladder import Ladder, Rung, StateChange

# All else is written as its code point: in a message `;` ends a statement, `#` begins an entity, `<` a tag.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.,:/=+()?'")
LINE = 100  # characters of a note
ARROWS = {Arrival.PROVED: "->>", Arrival.ASSUMED: "-->>", Arrival.NO: "-x", None: "->>"}


def mermaid(ladder: Ladder) -> str:
    """Return a fenced block of Markdown with one sequence diagram."""
    return "\n".join(["```mermaid", *_lines(ladder), "```", ""])


def escaped(text: str) -> str:
    """Return a text that Mermaid takes as nothing but text."""
    return "".join(c if c in PLAIN else f"#{ord(c)};" for c in text)


def _lines(ladder: Ladder) -> Iterator[str]:
    yield "sequenceDiagram"
    yield f"    title {escaped(f'#{ladder.number} {ladder.title}')}"
    for end in End:
        yield f"    participant {end} as {end}<br/>{escaped(ladder.address(end))}"
    yield f"    Note over client,server: {escaped(ladder.began)}"
    for end, state in ladder.first.items():
        yield _note(end, str(state))
    for rung, pause in pauses(ladder):
        if pause:
            yield f"    Note over client,server: {escaped(pause)}"
        yield from _rung(rung)
    for line in closing_lines(ladder):
        yield f"    Note over client,server: {'<br/>'.join(map(escaped, wrap(line, LINE)))}"


def _rung(rung: Rung) -> Iterator[str]:
    for change in rung.sent:
        yield _changed(change)
    if rung.sender is not None:
        number = f"#{rung.packet} {rung.flags}, {rung.numbers}"
        told = f" - {rung.remark}" if rung.remark else ""
        yield f"    {rung.sender}{ARROWS[rung.arrived]}{rung.sender.peer}: {escaped(number + told)}"
    else:
        yield f"    Note over client,server: {escaped(rung.text)}"
    for change in rung.received:
        yield _changed(change)


def _changed(change: StateChange) -> str:
    return _note(change.end, change.name)


def _note(end: End, text: str) -> str:
    side = "left" if end is End.CLIENT else "right"
    return f"    Note {side} of {end}: {escaped(text)}"
