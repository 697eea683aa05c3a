"""The close of one connection, packet by packet: the client's states left, the server's right.

    #1  127.0.0.1:43286 → 127.0.0.1:19999  graceful: server closed first; final ACK lost
        began 2026-11-20 12:18:06.194806 UTC, lasted 3.65 s, 21 packets

              client :43286                        server :19999
      0.000000  SYN_SENT      ── SYN ──────────▶  LISTEN         #1
      0.000018  ESTABLISHED   ◀────── SYN ACK ──  SYN_RECEIVED   #2
    ...

A state is printed where it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Event, Opener, Position
from closeseq.packets.segments import ACK, FIN, PSH, RST, SYN
from closeseq.report.endpoints import found, standing
from closeseq.report.text import NARROWEST, Style, printable, when
from closeseq.tcp.timeline import Arrival, Certainty, Step, Transition
from closeseq.units import count, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection

WORDS = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"))
POSITIONS = {
    Position.RETRANSMISSION: "retransmission",
    Position.OVERLAP: "retransmission with new data",
    Position.GAP: "previous segment not captured so far",
    Position.PROBE: "keepalive or window probe",
    Position.REORDERED: "out of order",
}
STATE = 13  # columns: the longest name, SYN_RECEIVED, and a mark
ROOMY = 90  # columns from which the arrows are long
ARROW = {"long": 19, "usual": 15, "short": 12}  # columns; a short one has just room for a FIN ACK
NOTE = 36  # columns that a note needs to stand beside its packet
LEGEND = {
    "?": "? assumed: nothing in the capture contradicts it, and nothing proves it",
    "x": "x did not arrive, or no packet shows that it did",
}


def format_timeline(
    connection: Connection,
    *,
    width: int = 100,
    ascii: bool = False,  # noqa: A002 - what the command's option is called
    color: bool = False,
) -> str:
    """Return the timeline of one connection as text, ending in a newline.

    Args:
        connection: one connection of an analysis.
        width: columns to fill; at least 40 are used. Where both endpoints' columns do not fit side by side,
            the states are under their packets.
        ascii: draw with `-`, `<` and `>` instead of line-drawing characters.
        color: colour the text with ANSI escape sequences.
    """
    style = Style(max(width, NARROWEST), ascii, color)
    return "\n".join(Drawing(connection, style).lines()) + "\n"


class Drawing:
    """One connection being drawn, line by line.

    Args:
        connection: judged.
        style: how text may look: width, colours, ASCII only.
    """

    def __init__(self, connection: Connection, style: Style) -> None:
        self.connection = connection
        self.timeline = connection.timeline
        self.files = connection.files
        self.style = style
        self.start_ns = connection.conversation.first_ns
        last = max([self.timeline.now_ns, *(t.time_ns for t in self.timeline.transitions)])
        self.clock = max(9, len(f"{(last - self.start_ns) / 1e9:.6f}"))
        self.arrow, self.narrow = self._layout()
        self.marks: set[str] = set()
        self.shown = {end: self.timeline.first_state(end) for end in End}

    def _layout(self) -> tuple[int, bool]:
        """Return the columns of an arrow, and whether the states have no room beside it."""
        if self.style.width >= ROOMY:
            return ARROW["long"], False
        numbers = [step.packet for step in self.timeline.steps if step.packet is not None]
        number = max((len(f"#{self.files.name(one)}") for one in numbers), default=2)
        free = self.style.width - (self.clock + 4 + STATE + 1 + 2 + STATE + 1 + number)
        fitting = [arrow for arrow in (ARROW["usual"], ARROW["short"]) if arrow <= free]
        return (fitting[0], False) if fitting else (ARROW["short"], True)

    def lines(self) -> Iterator[str]:
        """Yield the whole drawing."""
        yield from self.heading()
        timers = [t for t in self.timeline.transitions if t.packet is None]
        for index, step in enumerate(self.timeline.steps):
            while timers and timers[0].time_ns <= step.time_ns:
                yield from self.timer(timers.pop(0))
            yield from self.step(step, first=index == 0)
        for transition in timers:
            yield from self.timer(transition)
        yield from standing(self.connection, self.style)
        for mark, meaning in LEGEND.items():
            if mark in self.marks:
                for row in self.style.wrap(meaning, first="    ", then="      "):
                    yield self.style.paint(row, "dim")
        yield from found(self.connection, self.style)

    def heading(self) -> Iterator[str]:
        """Yield who, when, and how it closed."""
        connection, style = self.connection, self.style
        conversation = connection.conversation
        who = f"#{connection.id}  {conversation.client} {style.to} {conversation.server}"
        again = f" (incarnation {connection.incarnation})" if connection.incarnation > 1 else ""
        verdict = f"{connection.verdict}: {printable(self.files.text(connection.summary))}"
        yield from (
            style.paint(line, "heading") for line in style.wrap(f"{who}{again}  {verdict}", then="    ")
        )
        packets = count(connection.packets, "packet")
        lasted = span(conversation.last_ns - conversation.first_ns)
        began = f"began {when(self.start_ns)}, lasted {lasted}, {packets}"
        if connection.opener is Opener.INFERRED:
            began += "; no opening captured: client inferred"
        yield from style.wrap(began, first="    ")
        if self.files.several:
            yield from style.wrap(where(connection), first="    ", then="      ")
        for line in self.on_the_path():
            yield from style.wrap(line, first="    ")
        yield ""
        left = f"client :{conversation.client.port}"
        right = f"server :{conversation.server.port}"
        if self.narrow:
            yield f"    {left}, {right}"
        else:
            yield f"{'':{self.clock + 4}}{left:{STATE + self.arrow + 3}}{right}"

    def on_the_path(self) -> Iterator[str]:
        """Yield how many segments were lost on either side of the capture point, or came out of order."""
        conversation = self.connection.conversation
        lost = {end: conversation.lost_near(end) for end in End}
        parts = [
            f"{number} between the {end} and the capture point" for end, number in lost.items() if number
        ]
        if parts:
            yield f"lost and retransmitted: {', '.join(parts)}"
        reordered = sum(conversation.path(end).reordered for end in End)
        if reordered:
            yield f"out of order: {count(reordered, 'segment')}"

    def step(self, step: Step, *, first: bool) -> Iterator[str]:
        """Draw one event, or the traffic between two.

        Args:
            step: of the timeline, after those drawn before.
            first: whether it is the timeline's first, so that both states are printed.
        """
        event, traffic = step.event, step.traffic
        states = {end: self.state(step, end, first=first) for end in End}
        if traffic is not None:
            yield from self.digest(step)
            if any(states.values()) and not self.narrow:
                yield self.row("", states, "")
        elif event is not None:
            lost = step.arrived is Arrival.NO
            self.marks |= {"x"} if lost else set()
            yield from self.noted(
                self.row(self.time(step.time_ns), states, self.packet(event, lost=lost), lost=lost),
                f"#{self.files.name(event.packet)}",
                self.files.text(remarks(step, self.style)),
            )
        yield from self.below(states)

    def timer(self, transition: Transition) -> Iterator[str]:
        """Draw a transition made by a timer."""
        self.shown[transition.endpoint] = transition.after
        states = {end: str(transition.after) if end is transition.endpoint else "" for end in End}
        row = self.row(self.time(transition.time_ns), states, "timer".center(self.arrow))
        cause = printable(self.files.text(transition.cause))
        yield from self.noted(row, "", f"{transition.endpoint}: {cause}")
        yield from self.below(states)

    def state(self, step: Step, end: End, *, first: bool) -> str:
        """Return the state to print for an endpoint: empty where it did not change.

        Notes what is shown now, and whether it was assumed.

        Args:
            step: after which it holds.
            end: which endpoint.
            first: whether it is printed even if it did not change.
        """
        now = step.client if end is End.CLIENT else step.server
        moves = [t for t in step.transitions if t.endpoint is end]
        changed = now is not self.shown[end] or moves
        self.shown[end] = now
        if not changed and not first:
            return ""
        if any(t.certainty is Certainty.ASSUMED for t in moves):
            self.marks.add("?")
            return f"{now}?"
        return str(now)

    def row(self, time: str, states: dict[End, str], arrow: str, *, lost: bool = False) -> str:
        """Return a line: the time, the client's state, the segment, the server's state.

        Args:
            time: as text; empty for none.
            states: what to print for each endpoint; not printed here where there is no room beside the arrow.
            arrow: what stands between the states, of at most `self.arrow` columns.
            lost: whether it is painted as lost.
        """
        style = self.style
        if self.narrow:
            clock = style.paint(f"{time:>{self.clock}}", "dim")
            return f"  {clock}  {style.paint(arrow, 'lost') if lost else arrow}"
        client = style.paint(f"{states[End.CLIENT]:{STATE}}", "state")
        server = style.paint(f"{states[End.SERVER]:{STATE}}", "state")
        drawn = f"{arrow:{self.arrow}}"
        clock = style.paint(f"{time:>{self.clock}}", "dim")
        return f"  {clock}  {client} {style.paint(drawn, 'lost') if lost else drawn}  {server}"

    def below(self, states: dict[End, str]) -> Iterator[str]:
        """Yield the states that changed, under their packet, where they do not fit beside it."""
        if self.narrow and any(states.values()):
            named = [f"{end}: {states[end]}" for end in End if states[end]]
            for row in self.style.wrap(", ".join(named), first=" " * 6, then=" " * 6):
                yield self.style.paint(row, "state")

    def noted(self, row: str, number: str, note: str) -> Iterator[str]:
        """Add a packet's number and its note to a line, beside it or under it.

        Args:
            row: the line, as `row` makes it.
            number: of the packet, such as "#8"; empty for none.
            note: empty for none.
        """
        style = self.style
        if self.narrow:
            yield f"{row}  {number}".rstrip()
            yield from style.wrap(note, first=" " * 8) if note else ()
            return
        indent = self.clock + 4 + STATE + 1 + self.arrow + 2 + STATE + 1
        text = f"{number:4} {note}".strip() if number else note
        if len(text) <= style.width - indent:
            yield f"{row} {text}".rstrip()
        elif style.width - indent >= NOTE:
            lines = style.wrap(text, first=" " * indent, then=" " * (indent + 5))
            yield f"{row} {lines[0].strip()}"
            yield from lines[1:]
        else:
            yield f"{row} {number}".rstrip()
            yield from style.wrap(note, first=" " * (self.clock + 6))

    def time(self, time_ns: int) -> str:
        """Return a time since the Unix epoch as seconds since the connection began."""
        return f"{(time_ns - self.start_ns) / 1e9:.6f}"

    def packet(self, event: Event, *, lost: bool) -> str:
        """Draw an arrow of `self.arrow` columns in the direction of a segment.

        Args:
            event: the segment.
            lost: whether the arrow stops short of its receiver.
        """
        line, left, right = ("-", "<", ">") if self.style.ascii else ("─", "◀", "▶")
        label = " ".join(
            word for bit, word in WORDS if event.flags & bit and (bit != PSH or not event.length)
        )
        if lost:  # the arrow stops short of the receiver
            left, right = "  x", "x  "
        free = self.arrow - len(label) - 2 - len(right)
        if event.sender is End.CLIENT:
            return f"{line * 2} {label} {line * (free - 2)}{right}"
        return f"{left}{line * (free - 2)} {label} {line * 2}"

    def digest(self, step: Step) -> Iterator[str]:
        """Draw a stretch of traffic in one line."""
        note = printable(self.files.text(traffic_in_words(step)))
        clock = f"  {self.time(step.time_ns):>{self.clock}}  "
        for row in self.style.wrap(f"~ {note}", first=clock, then=" " * len(clock) + "  "):
            yield self.style.paint(row, "dim")


def traffic_in_words(step: Step) -> str:
    """Return what a stretch of traffic consists of: "4 segments, 6 bytes up, 24.6 us"; empty for an event."""
    traffic = step.traffic
    if traffic is None:
        return ""
    up, down = traffic.client, traffic.server
    parts = [count(traffic.segments, "segment")]
    parts += [f"{count(up.bytes, 'byte')} up"] if up.bytes else []
    parts += [f"{count(down.bytes, 'byte')} down"] if down.bytes else []
    again, probes = up.retransmissions + down.retransmissions, up.probes + down.probes
    reordered, controls = up.reordered + down.reordered, up.controls + down.controls
    parts += [count(again, "retransmission")] if again else []
    parts += [count(probes, "keepalive or window probe")] if probes else []
    parts += [f"{reordered:,} out of order"] if reordered else []
    parts += [f"{controls:,} more with SYN, FIN or RST"] if controls else []
    lasted = traffic.last_ns - traffic.time_ns
    parts += [span(lasted)] if lasted else []
    return ", ".join(parts) + (f"; {step.note}" if step.note else "")


def where(connection: Connection) -> str:
    """Return the names of the files, of several, that a connection's packets are in."""
    steps = connection.timeline.steps
    named = connection.files.among(step.packet for step in steps if step.packet is not None)
    return "files: " + ", ".join(f"{number} {printable(path)}" for number, path in named.items())


def remarks(step: Step, style: Style) -> str:
    """Return the remarks on a packet: its data, its note, the states that an endpoint only passed through.

    Args:
        step: of one event.
        style: how an arrow may look.
    """
    event = step.event
    notes = [count(event.length, "byte")] if event is not None and event.length else []
    if step.note:
        notes.append(printable(step.note))
    elif event is not None:
        again = event.rst and event.position is Position.RETRANSMISSION  # no RST is retransmitted
        notes += [POSITIONS[event.position]] if event.position in POSITIONS and not again else []
        notes += ["lost"] if step.arrived is Arrival.NO else []
    for end in End:
        passed = [t.after for t in step.transitions if t.endpoint is end and t.after is not t.before][:-1]
        if passed:
            notes.append(f"{end} via {f' {style.to} '.join(passed)}")
    return "; ".join(notes)
