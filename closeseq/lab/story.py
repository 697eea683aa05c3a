"""The story of an experiment, told as it goes: what is done, the packets of it, and both ends' states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from closeseq.report.endpoints import found
from closeseq.report.text import Style, printable
from closeseq.report.timeline_text import Drawing
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, listed, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.lab.agreement import Agreement, View
    from closeseq.lab.registry import Experiment
    from closeseq.tcp.timeline import Transition

GOT_FIN = {State.CLOSE_WAIT}
SENT_FIN = {State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK}

END, INFERRED = 9, 15  # columns of the table of both ends
REVISED = "seen again in the light of these:"


class Story:
    """Tells one experiment.

    Args:
        style: how text may look.
        write: is given each line.
    """

    def __init__(self, style: Style, write: Callable[[str], None]) -> None:
        self._style = style
        self._write = write
        self._told: dict[tuple[int, object], str] = {}  # (connection, what) -> as it was drawn
        self._heading = 0  # number of the connection whose columns were named last

    def begin(self, experiment: Experiment) -> None:
        """Say what the experiment is, and what it shows."""
        title = f"{experiment.name}: {experiment.summary}"
        self._lines(self._style.wrap(title, then="  "), "heading")
        for paragraph in experiment.explanation.split("\n\n") if experiment.explanation else ():
            self._lines(self._style.wrap(" ".join(paragraph.split()), first="  "), "dim")

    def act(self, what: str) -> None:
        """Say what is being done."""
        self._write("")
        self._lines(self._style.wrap(what, first="> ", then="  "), "heading")

    def note(self, what: str) -> None:
        """Say something that came of it: what a program printed, what was found to be so."""
        self._lines(self._style.wrap(printable(what), first="  . ", then="    "))

    def fact(self, what: str, *, holds: bool) -> None:
        """Say what has to be so, and whether it is."""
        words = f"{'checked' if holds else 'CONTRARY TO EXPECTATION'}: {printable(what)}"
        self._lines(self._style.wrap(words, first="  . ", then="    "), "good" if holds else "problem")

    def packets(self, connections: Sequence[Connection]) -> None:
        """Draw the packets that were not told yet, and those of which more is known now."""
        alike: dict[tuple[object, ...], list[Connection]] = {}
        for one in connections:
            if fresh := tuple(block.like for block in self._fresh(one)):
                alike.setdefault(fresh, []).append(one)
        for first, *others in alike.values():
            self._draw(first, [one.id for one in others], several=len(connections) > 1)
        for one in connections:
            self._remember(one)

    def ends(self, views: Sequence[View]) -> None:
        """Show both ends' states, as inferred and as the kernel has them."""
        if not views:
            return
        several = len({view.connection.id for view in views}) > 1
        self._write(self._style.paint(f"    {'':{END}}{'inferred':{INFERRED}}kernel", "dim"))
        ordered = sorted(views, key=lambda view: (_row(view), view.connection.id)) if several else views
        for _, alike in groupby(ordered, key=_row):
            self._end(list(alike), several=several)

    def conclude(
        self,
        connections: Sequence[Connection],
        agreement: Agreement,
        complaints: Sequence[str],
        *,
        untraced: str,
    ) -> None:
        """Tell how it ended, what deserves attention, and whether the kernel agrees."""
        self._write("")
        for _, alike in groupby(connections, key=lambda one: (one.verdict, one.shape)):
            self._ending(list(alike), several=len(connections) > 1)
        self._write("")
        for what, why in agreement.untold.items():
            self._lines(self._style.wrap(f"Packets cannot tell that the {what}: {printable(why)}", then="  "))
        for line in (*agreement.wrong, *complaints):
            self._lines(self._style.wrap(f"WRONG: {printable(line)}", then="  "), "problem")
        good = not agreement.wrong and not complaints
        for line in verdict_of(agreement):
            self._lines(self._style.wrap(line, then="  "), "good" if good else "problem")
        if untraced:
            text = f"Whole sequences of states were not compared: {printable(untraced)}"
            self._lines(self._style.wrap(text, then="  "), "dim")

    def _lines(self, lines: Iterable[str], style: str = "") -> None:
        for line in lines:
            self._write(self._style.paint(line, style) if style else line)

    def _fresh(self, one: Connection) -> list[Block]:
        """Return what there is to draw of a connection: what is new, and what looks different now."""
        return [
            block for block in _blocks(one, self._style) if self._told.get((one.id, block.key)) != block.text
        ]

    def _draw(self, one: Connection, likewise: list[int], *, several: bool) -> None:
        """Draw one connection, and say of which others the same can be told."""
        fresh = self._fresh(one)
        again = [block for block in fresh if (one.id, block.key) in self._told and not block.grows]
        if self._heading != one.id:
            self._heading = one.id
            if several:
                c = one.conversation
                self._write(f"    #{one.id}  {c.client} {self._style.to} {c.server}")
            self._write(list(Drawing(one, self._style).heading())[-1])
        for block in fresh:
            if block not in again:
                self._lines(block.lines)
        if again:
            self._write(self._style.paint(f"    {REVISED}", "dim"))
            for block in again:
                self._lines(block.lines)
        if likewise:
            self._write(f"    likewise {numbers(likewise)}")

    def _remember(self, one: Connection) -> None:
        for block in _blocks(one, self._style):
            self._told[one.id, block.key] = block.text

    def _end(self, views: list[View], *, several: bool) -> None:
        """Show one end, or the same end of several connections that stand alike."""
        view = views[0]
        inferred = f"{view.inferred}{'?' if view.certainty is Certainty.ASSUMED else ''}"
        mark = "packets cannot tell" if view.untold else "not told by packets so far"
        who = f"  ({numbers([each.connection.id for each in views])})" if several else ""
        first = f"    {view.end:{END}}{inferred:{INFERRED}}"
        rest = f"{who}{'' if view.agrees else f'   {mark}'}"
        look = "state" if view.agrees else "problem"
        if len(first + _kernel(views) + rest) <= self._style.width:
            self._write(self._style.paint(first + _kernel(views), look) + rest)
        else:
            self._lines(self._style.wrap(_kernel(views) + rest, first=first), look)

    def _ending(self, alike: list[Connection], *, several: bool) -> None:
        one = alike[0]
        who = f"{numbers([each.id for each in alike])}: " if several else ""
        text = f"Verdict: {who}{one.verdict}: {printable(one.summary)}"
        self._lines(self._style.wrap(text, then="  "), "heading")
        self._lines(line for line in found(one, self._style) if line)


@dataclass(frozen=True)
class Block:
    """The lines of one step of a timeline, or of a timer that ran out."""

    key: object  # names it within its connection
    like: object  # what it is like, without times, ports and packet numbers
    lines: list[str]
    grows: bool  # traffic, of which more may come

    @property
    def text(self) -> str:
        """The lines without their layout."""
        return " ".join(" ".join(self.lines).split())


def _blocks(one: Connection, style: Style) -> Iterator[Block]:
    """Yield a connection's timeline as it is drawn now."""
    drawing = Drawing(one, style)
    timers = [t for t in one.timeline.transitions if t.packet is None]
    for index, step in enumerate(one.timeline.steps):
        while timers and timers[0].time_ns <= step.time_ns:
            yield _timer(drawing, timers.pop(0))
        traffic = step.traffic is not None
        like = (step.sender, step.flags, step.client, step.server, step.arrived)
        yield Block((step.packet, traffic), like, list(drawing.step(step, first=index == 0)), traffic)
    for transition in timers:
        yield _timer(drawing, transition)


def _timer(drawing: Drawing, transition: Transition) -> Block:
    what = transition.endpoint, transition.before
    return Block(what, what, list(drawing.timer(transition)), grows=False)


def verdict_of(agreement: Agreement) -> list[str]:
    """Say how far inference and kernel agree, about single states and about whole sequences of them."""
    looked = f"{count(agreement.moments, 'state')} looked at"
    if agreement.wrong:
        return [f"Inference and kernel DISAGREE: {count(len(agreement.wrong), 'difference')}, {looked}"]
    told = " wherever packets can tell" if agreement.untold else ""
    revised = f", {agreement.revised} of them put right by later packets" if agreement.revised else ""
    said = [f"Inference and kernel agree{told}: {looked}{revised}"]
    if agreement.sequences is not None:
        said.append(f"Whole sequences of states agree{told}: {agreement.sequences} compared")
    return said


def _row(view: View) -> tuple[str, ...]:
    """Return what tells a row of the table from another, without its numbers."""
    entry = view.entry
    owner = (entry.owner or "", str(entry.orphaned), str(bool(entry.receive_queue))) if entry else ()
    return (str(view.end), str(view.inferred), str(view.certainty), str(view.said), *owner)


def _kernel(views: list[View]) -> str:
    """Say what the kernel has of an end."""
    entry = views[0].entry
    if entry is None:
        return "no socket"
    parts = [str(entry.state)]
    if entry.orphaned:
        parts.append("no owner")
    elif entry.unaccepted:
        parts.append("not accepted yet")
    elif entry.owner:
        parts.append(f"{entry.owner} (pid {entry.pid})")
    entries = [view.entry for view in views if view.entry]
    # The kernel counts a FIN as a byte, in either queue.
    unread, unacknowledged = ([one.receive_queue for one in entries], [one.send_queue for one in entries])
    if any(unread):
        parts.append(f"{_queue(unread, 'end of file', fin=entry.state in GOT_FIN)} unread")
    if any(unacknowledged):
        parts.append(f"{_queue(unacknowledged, 'FIN', fin=entry.state in SENT_FIN)} unacknowledged")
    if entry.expires_ms is not None and views[0].clock_ns is not None:
        left = [span(round(e.expires_ms or 0, -2) * 1_000_000) for e in entries]
        parts.append(f"{_between(left)} left")
    return ", ".join(parts)


def _queue(numbers: list[int], fin_is: str, *, fin: bool) -> str:
    """Say what a queue holds, of one end or of several that stand alike."""
    data = sorted(number - fin for number in numbers)
    told = _between([count(number, "byte") for number in data]) if data[-1] else ""
    return f"{told} and {fin_is}" if told and fin else told or fin_is


def _between(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def numbers(ids: list[int]) -> str:
    """Name connections: `#1`, `#1 and #3`, `#1 to #5`."""
    if len(ids) > 2 and ids == list(range(ids[0], ids[-1] + 1)):  # noqa: PLR2004 - two are named singly
        return f"#{ids[0]} to #{ids[-1]}"
    return listed([f"#{number}" for number in ids])
