"""The story of an experiment, printed as it runs: each step, its packets, and both endpoints' states."""

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

END, INFERRED = 9, 15  # columns of the table of both endpoints
REVISED = "revised by these packets:"


class Story:
    """Writes the story of one experiment.

    Args:
        style: how text may look.
        write: is called with each line.
    """

    def __init__(self, style: Style, write: Callable[[str], None]) -> None:
        self._style = style
        self._write = write
        self._drawn: dict[tuple[int, object], str] = {}  # (connection, block) -> its text when last drawn
        self._heading = 0  # id of the connection whose columns were named last

    def begin(self, experiment: Experiment) -> None:
        """Write the name of the experiment, and what it shows."""
        title = f"{experiment.name}: {experiment.summary}"
        self._lines(self._style.wrap(title, then="  "), "heading")
        for paragraph in experiment.explanation.split("\n\n") if experiment.explanation else ():
            self._lines(self._style.wrap(" ".join(paragraph.split()), first="  "), "dim")

    def act(self, what: str) -> None:
        """Write what was done in a step."""
        self._write("")
        self._lines(self._style.wrap(what, first="> ", then="  "), "heading")

    def note(self, what: str) -> None:
        """Write a remark on a step, such as what a program printed."""
        self._lines(self._style.wrap(printable(what), first="  . ", then="    "))

    def fact(self, what: str, *, holds: bool) -> None:
        """Write an expectation, and whether it holds.

        Args:
            what: is expected, in words.
            holds: whether it is so.
        """
        words = f"{'checked' if holds else 'CONTRARY TO EXPECTATION'}: {printable(what)}"
        self._lines(self._style.wrap(words, first="  . ", then="    "), "good" if holds else "problem")

    def packets(self, connections: Sequence[Connection]) -> None:
        """Draw the packets that are new, and those that are revised."""
        alike: dict[tuple[object, ...], list[Connection]] = {}
        for one in connections:
            if fresh := tuple(block.like for block in self._fresh(one)):
                alike.setdefault(fresh, []).append(one)
        for first, *others in alike.values():
            self._draw(first, [one.id for one in others], several=len(connections) > 1)
        for one in connections:
            self._remember(one)

    def ends(self, views: Sequence[View]) -> None:
        """Show both endpoints' states, inferred and in the kernel."""
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
        """Write verdicts and findings, and whether inference and kernel agree.

        Args:
            connections: as they stand at the end.
            agreement: of inference and kernel.
            complaints: what had to be so and was not, in words.
            untraced: why there are no transitions of the kernel's; empty if there are.
        """
        self._write("")
        for _, alike in groupby(connections, key=lambda one: (one.verdict, one.shape)):
            self._ending(list(alike), several=len(connections) > 1)
        self._write("")
        for what, why in agreement.hidden.items():
            self._lines(self._style.wrap(f"No packet shows that the {what}: {printable(why)}", then="  "))
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
        """Return the blocks of a connection that are new, or look different now."""
        return [
            block for block in _blocks(one, self._style) if self._drawn.get((one.id, block.key)) != block.text
        ]

    def _draw(self, one: Connection, likewise: list[int], *, several: bool) -> None:
        """Draw what is new of one connection, and name the others for which it is alike."""
        fresh = self._fresh(one)
        again = [block for block in fresh if (one.id, block.key) in self._drawn and not block.grows]
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
            self._drawn[one.id, block.key] = block.text

    def _end(self, views: list[View], *, several: bool) -> None:
        """Show one endpoint, or the same one of several connections if it is alike in all."""
        view = views[0]
        inferred = f"{view.inferred}{'?' if view.certainty is Certainty.ASSUMED else ''}"
        mark = "no packet shows it" if view.hidden else "no packet shows it so far"
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

    key: object  # identifies it within its connection
    like: object  # the block without times, ports and packet numbers
    lines: list[str]  # as drawn
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
    """Return in words how far inference and kernel agree, on single states and on whole sequences."""
    compared = f"{count(agreement.moments, 'state')} compared"
    if agreement.wrong:
        return [f"Inference and kernel DISAGREE: {count(len(agreement.wrong), 'difference')}, {compared}"]
    where = " wherever packets can show it" if agreement.hidden else ""
    revised = f", {agreement.revised} corrected by later packets" if agreement.revised else ""
    lines = [f"Inference and kernel agree{where}: {compared}{revised}"]
    if agreement.sequences is not None:
        lines.append(f"Whole sequences of states agree{where}: {agreement.sequences} compared")
    return lines


def _row(view: View) -> tuple[str, ...]:
    """Return the row of an endpoint without its numbers: rows that are equal are shown as one."""
    entry = view.entry
    owner = (entry.owner or "", str(entry.orphaned), str(bool(entry.receive_queue))) if entry else ()
    return (str(view.end), str(view.inferred), str(view.certainty), str(view.kernel), *owner)


def _kernel(views: list[View]) -> str:
    """Return the kernel's socket of an endpoint in words."""
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
    """Return what a queue holds in words, of one endpoint or of several alike ones."""
    data = sorted(number - fin for number in numbers)
    text = _between([count(number, "byte") for number in data]) if data[-1] else ""
    return f"{text} and {fin_is}" if text and fin else text or fin_is


def _between(texts: list[str]) -> str:
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def numbers(ids: list[int]) -> str:
    """Return connections' numbers as text: `#1`, `#1 and #3`, `#1 to #5`."""
    if len(ids) > 2 and ids == list(range(ids[0], ids[-1] + 1)):  # noqa: PLR2004 - two are named singly
        return f"#{ids[0]} to #{ids[-1]}"
    return listed([f"#{number}" for number in ids])
