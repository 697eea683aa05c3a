"""The ladder as a PlantUML sequence diagram, with each state in its colour."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.pictures.ladder import closing_lines, pauses
from closeseq.report.pictures.palette import LIGHT, PROBLEM
from closeseq.tcp.timeline import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.report.pictures.ladder import Ladder, Rung, StateChange

# All else is written as its code point: PlantUML reads **, __, --, ~, <b> and %x() in any text.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;?()+='")
LINE = 110  # characters of a note


def plantuml(ladder: Ladder) -> str:
    """Return one diagram, from `@startuml` to `@enduml`."""
    return "\n".join(["@startuml", *_lines(ladder), "@enduml", ""])


def escaped(text: str) -> str:
    """Return a text that PlantUML takes as nothing but text."""
    return "".join(c if c in PLAIN else f"<U+{ord(c):04X}>" for c in text)


def _lines(ladder: Ladder) -> Iterator[str]:
    yield "hide footbox"
    yield "skinparam shadowing false"
    yield "skinparam responseMessageBelowArrow true"
    yield "skinparam maxMessageSize 320"
    yield f"title {escaped(f'#{ladder.number} {ladder.title}')}\\n{escaped(ladder.began)}"
    for end in End:
        role = f", {ladder.role(end)}" if ladder.role(end) else ""
        yield f'participant "{end}{escaped(role)}\\n{escaped(ladder.address(end))}" as {end}'
    yield from _notes([(end, str(state), LIGHT[state].fill) for end, state in ladder.first.items()])
    for rung, pause in pauses(ladder):
        if pause:
            yield f"...{escaped(pause)}..."
        yield from _rung(rung)
    for line in closing_lines(ladder):
        text = "\\n".join(map(escaped, wrap(line, LINE)))
        yield f"note over client, server : {text}"


def _rung(rung: Rung) -> Iterator[str]:
    yield from _states(rung.sent)
    if rung.sender is not None:
        arrow = {Arrival.NO: "->x", Arrival.ASSUMED: "-->"}.get(rung.arrived or Arrival.PROVED, "->")
        if rung.rst or rung.arrived is Arrival.NO:
            arrow = arrow.replace("-", f"-[{PROBLEM['light']}]", 1)
        remark = f"\\n{escaped(rung.remark)}" if rung.remark else ""
        text = f"<U+0023>{escaped(str(rung.packet))} **{escaped(rung.flags)}** {escaped(rung.numbers)}"
        yield f"{rung.sender} {arrow} {rung.sender.peer} : {text}{remark}"
    else:
        yield f"rnote over client, server #ffffff : {escaped(rung.text)}"
    yield from _states(rung.received)


def _states(changes: Sequence[StateChange]) -> Iterator[str]:
    return _notes([(one.end, one.name, LIGHT[one.state].fill) for one in changes])


def _notes(states: Sequence[tuple[End, str, str]]) -> Iterator[str]:
    """Yield a note for each state; those of two endpoints side by side."""
    before: End | None = None
    for end, name, fill in states:
        beside = "/ " if before is end.peer else ""
        yield f"{beside}hnote over {end} {fill} : {escaped(name)}"
        before = None if beside else end
