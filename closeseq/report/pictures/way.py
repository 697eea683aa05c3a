"""The way of a connection through the state diagram: each endpoint's transitions, with their packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.pictures.palette import kind_of
from closeseq.report.text import printable
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.tcp.states import State

MOST_NAMED = 2  # packets of one endpoint beside one line


@dataclass(frozen=True)
class Passage:
    """One endpoint goes from one state to another, once or more often."""

    end: End
    before: State
    after: State
    causes: tuple[str, ...]  # "sent FIN"
    packets: tuple[str, ...]  # as they are named, "#8"
    assumed: bool  # each time

    @property
    def kind(self) -> str:
        """The kind of the line: active, passive, reset or other."""
        if any(map(_of_reset, self.causes)):
            return "reset"
        return kind_of(self.before, self.after)

    @property
    def text(self) -> str:
        """Who, and at which packets: "client #8"; with a mark if it is assumed."""
        shown = " ".join(self.packets[:MOST_NAMED]) + (" ..." if len(self.packets) > MOST_NAMED else "")
        return f"{self.end} {shown}{'?' if self.assumed else ''}"


@dataclass(frozen=True)
class Way:
    """Both endpoints' ways. All text is printable; none is escaped for a format yet."""

    title: str = ""
    first: dict[End, State] = field(default_factory=dict)  # in which each endpoint began
    last: dict[End, State] = field(default_factory=dict)  # in which it ended
    passages: tuple[Passage, ...] = ()

    def between(self, before: State, after: State) -> list[Passage]:
        """Return who went from one state to another as the diagram has it: not by a RST.

        Args:
            before: the state that is left.
            after: the state that is entered.
        """
        ways = [one for one in self.passages if (one.before, one.after) == (before, after)]
        return [one for one in ways if one.kind != "reset"]

    def visits(self, state: State) -> bool:
        """Whether an endpoint was ever in this state."""
        ends = [*self.first.values(), *self.last.values()]
        return state in ends or any(state in (one.before, one.after) for one in self.passages)

    def standing(self, state: State, *, begins: bool) -> str:
        """Return who begins, or ends, in a state: "client begins here"; empty for nobody."""
        there = [end for end, at in (self.first if begins else self.last).items() if at is state]
        verb = "begin" if begins else "end"
        if len(there) > 1:
            return f"both {verb} here"
        return f"{there[0]} {verb}s here" if there else ""


def way(connection: Connection) -> Way:
    """Return the way of an analysed connection."""
    conversation, timeline, files = connection.conversation, connection.timeline, connection.files
    who = f"#{connection.id} {conversation.client} to {conversation.server}"
    return Way(
        f"{who}: {connection.verdict}: {printable(files.text(connection.summary))}",
        {end: timeline.first_state(end) for end in End},
        {end: timeline.state(end) for end in End},
        tuple(_passages(connection)),
    )


def _of_reset(cause: str) -> bool:
    return "RST" in cause


def _passages(connection: Connection) -> Iterator[Passage]:
    """Yield the transitions of both endpoints, those that are alike as one."""
    groups: dict[tuple[End, State, State, bool], list[tuple[str, str, bool]]] = {}
    for one in connection.timeline.transitions:
        named = "timer" if one.packet is None else f"#{connection.files.name(one.packet)}"
        assumed = one.certainty is Certainty.ASSUMED
        key = (one.endpoint, one.before, one.after, _of_reset(one.cause))
        groups.setdefault(key, []).append((printable(one.cause), named, assumed))
    for (end, before, after, _), times in groups.items():
        causes = dict.fromkeys(cause for cause, _, _ in times)
        names = tuple(named for _, named, _ in times)
        assumed = all(one for _, _, one in times)
        yield Passage(end, before, after, tuple(causes), names, assumed=assumed)
