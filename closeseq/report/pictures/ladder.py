"""A connection as a ladder: one rung for each event, stretch of traffic and timer, for every kind of drawing.

Where each arrow begins and ends, which states an endpoint passes through there, and which findings rest on it
is settled here once. How that looks is for the modules that draw.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Opener
from closeseq.packets.segments import PSH
from closeseq.report.endpoints import standing
from closeseq.report.selection import gravity
from closeseq.report.text import Style, evidence, printable, when
from closeseq.report.timeline_text import WORDS, remarks, traffic_in_words
from closeseq.tcp.states import Signal, State
from closeseq.tcp.timeline import Arrival, Certainty
from closeseq.units import count, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.tcp.timeline import Step, Transition
    from closeseq.verdict.model import Finding

MOST_RUNGS = 160  # that a picture can show; of more the first and the last
WIDE = Style(width=1_000_000)  # sentences come whole; each drawing breaks them itself
NAMED_WAIT = 100_000_000  # ns: a wait that is as long is named
RECEIVED = frozenset(str(signal) for signal in Signal if signal.name.startswith("RECEIVES"))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class StateChange:
    """An endpoint enters a state, at a rung."""

    end: End
    state: State
    certainty: Certainty
    cause: str  # for a reader: "sent FIN"
    packet: int | None  # that made it; None for a timer
    received: bool  # whether because a segment arrived, not because it sent one

    @property
    def assumed(self) -> bool:
        return self.certainty is Certainty.ASSUMED

    @property
    def name(self) -> str:
        """The state's name, with a mark if it is assumed."""
        return f"{self.state}?" if self.assumed else str(self.state)


@dataclass(frozen=True)
class Rung:
    """One line of a ladder: a segment, the traffic between two, a timer, or what was left out."""

    time_ns: int  # since the Unix epoch
    packet: int | None = None  # None for a timer, and for what was left out
    sender: End | None = None  # of the arrow; None where there is none
    flags: str = ""  # "FIN ACK"
    numbers: str = ""  # "seq 6 ack 7 len 5"
    words: str = ""  # of the traffic, in place of an arrow
    remark: str = ""  # what stands beside it
    arrived: Arrival | None = None  # of the arrow; None where there is none
    moves: tuple[StateChange, ...] = ()  # states that are entered with it
    lands: int = 0  # rungs further down at which the arrow ends: it crossed others
    lasted_ns: int = 0  # of the traffic
    letters: tuple[str, ...] = ()  # of the findings that rest on it

    @property
    def rst(self) -> bool:
        return "RST" in self.flags

    @property
    def text(self) -> str:
        """What stands in place of an arrow: the traffic, or which timer ran out."""
        return f"~ {self.words}" if self.words else self.remark

    @property
    def sent(self) -> list[StateChange]:
        """The states that are entered before the arrow: its sender's, or a timer's."""
        return [move for move in self.moves if not move.received]

    @property
    def received(self) -> list[StateChange]:
        """The states that are entered after the arrow."""
        return [move for move in self.moves if move.received]


@dataclass(frozen=True)
class Ladder:
    """One connection, ready to be drawn. All text is printable; none is escaped for a format yet."""

    number: int  # of the connection
    title: str  # the verdict
    began: str  # when, how long, how many packets
    client: str  # addresses
    server: str
    client_role: str  # what it did in the close; empty if nothing
    server_role: str
    start_ns: int  # since the Unix epoch
    end_ns: int  # the moment for which the last states hold
    first: dict[End, State] = field(default_factory=dict)  # before the first rung
    rungs: tuple[Rung, ...] = ()
    standing: tuple[str, ...] = ()  # what each endpoint still waits for
    findings: tuple[tuple[str, Finding, str], ...] = ()  # letter, finding, its sentence

    def address(self, end: End) -> str:
        """Return an endpoint's address and port."""
        return self.client if end is End.CLIENT else self.server

    def role(self, end: End) -> str:
        """Return what an endpoint did in the close; empty if nothing."""
        return self.client_role if end is End.CLIENT else self.server_role

    def clock(self, rung: Rung) -> str:
        """Return the seconds from the connection's beginning to a rung."""
        return f"{(rung.time_ns - self.start_ns) / 1e9:.6f}"


def ladder(connection: Connection, *, number: int | None = None, most: int = MOST_RUNGS) -> Ladder:
    """Return the ladder of a connection.

    Args:
        connection: of an analysis, or an update of `live`.
        number: shown in place of the connection's own number.
        most: how many rungs; where there are more, those in the middle are left out, and one says so.
    """
    conversation, files = connection.conversation, connection.files
    findings = tuple(_findings(connection))
    rungs = _lettered(_landed(_rungs(connection)), findings)
    lasted = span(conversation.last_ns - conversation.first_ns)
    began = f"began {when(conversation.first_ns)}, lasted {lasted}, {count(connection.packets, 'packet')}"
    if connection.opener is Opener.INFERRED:
        began += "; no opening captured: client inferred"
    roles = {end: connection.end(end).role.value.replace("-", " ") for end in End}
    return Ladder(
        number=connection.id if number is None else number,
        title=f"{connection.verdict}: {printable(files.text(connection.summary))}",
        began=began,
        client=str(conversation.client),
        server=str(conversation.server),
        client_role="" if roles[End.CLIENT] == "none" else roles[End.CLIENT],
        server_role="" if roles[End.SERVER] == "none" else roles[End.SERVER],
        start_ns=conversation.first_ns,
        end_ns=connection.timeline.now_ns,
        first={end: connection.timeline.first_state(end) for end in End},
        rungs=tuple(_shortened(rungs, most)),
        standing=tuple(line.strip() for line in standing(connection, WIDE)),
        findings=findings,
    )


def bare_ladder(connection: Connection) -> Ladder:
    """Return a ladder without rungs, which needs little code: for a connection at which closeseq fails."""
    conversation = connection.conversation
    return Ladder(
        number=connection.id,
        title=f"{connection.verdict}: {connection.summary}",
        began=count(connection.packets, "packet"),
        client=str(conversation.client),
        server=str(conversation.server),
        client_role="",
        server_role="",
        start_ns=conversation.first_ns,
        end_ns=conversation.first_ns,
        first=dict.fromkeys(End, State.UNKNOWN),
    )


def pauses(one: Ladder) -> Iterator[tuple[Rung, str]]:
    """Yield each rung with the wait before it, as "344 ms later"; empty where it was short."""
    before = one.start_ns
    for rung in one.rungs:
        waited = rung.time_ns - before
        yield rung, f"{span(waited)} later" if waited >= NAMED_WAIT else ""
        before = rung.time_ns + rung.lasted_ns


def closing_lines(one: Ladder) -> Iterator[str]:
    """Yield what stands below the last rung: what each endpoint waits for, and what was found."""
    yield from one.standing
    for _, finding, sentence in one.findings:
        whom = f" ({finding.endpoint})" if finding.endpoint is not None else ""
        yield f"{finding.code}{whom}: {sentence} [{known(finding)}]"


def known(finding: Finding) -> str:
    """Return how a finding is known, how long it lasted, and packets that its sentence does not name."""
    shown = evidence(finding)
    lasted = f", {span(finding.duration_ns)}" if finding.duration_ns else ""
    return f"{finding.certainty}{lasted}{f'; {shown}' if shown else ''}"


def _rungs(connection: Connection) -> list[Rung]:
    """Return a rung for each step and timer, in the order of time."""
    timeline = connection.timeline
    of_steps = [transition for step in timeline.steps for transition in step.transitions]
    # A timer's have no packet; the SYN of a new connection, which ends TIME_WAIT, is no step of this one.
    timers = [t for t in timeline.transitions if t.packet is None or t not in of_steps]
    found = []
    for step in timeline.steps:
        while timers and timers[0].time_ns <= step.time_ns:
            found.append(_timer(timers.pop(0), connection))
        found.append(_rung(step, connection))
    return [*found, *(_timer(transition, connection) for transition in timers)]


def _timer(transition: Transition, connection: Connection) -> Rung:
    cause = printable(connection.files.text(transition.cause))
    return Rung(
        transition.time_ns,
        transition.packet,
        remark=f"{transition.endpoint}: {cause}",
        moves=(_move(transition, None),),
    )


def _rung(step: Step, connection: Connection) -> Rung:
    files, event = connection.files, step.event
    moves = tuple(_move(transition, step) for transition in step.transitions)
    if event is None:
        words = printable(files.text(traffic_in_words(step)))
        lasted = 0 if step.traffic is None else step.traffic.last_ns - step.time_ns
        return Rung(step.time_ns, step.packet, words=words, moves=moves, lasted_ns=lasted)
    flags = [word for bit, word in WORDS if event.flags & bit and (bit != PSH or not event.length)]
    numbers = [f"seq {event.seq}"]
    numbers += [] if event.ack is None else [f"ack {event.ack}"]
    numbers += [f"len {event.length}"] if event.length else []
    return Rung(
        step.time_ns,
        step.packet,
        event.sender,
        " ".join(flags) or "no flags",
        " ".join(numbers),
        remark=files.text(remarks(step, WIDE)),
        arrived=step.arrived,
        moves=moves,
    )


def _move(transition: Transition, step: Step | None) -> StateChange:
    """Return a transition as a drawing has it: what shows in an endpoint's own segment was not received."""
    shown = step is not None and (step.packet, step.sender) == (transition.packet, transition.endpoint)
    return StateChange(
        transition.endpoint,
        transition.after,
        transition.certainty,
        printable(transition.cause),
        transition.packet,
        received=transition.cause in RECEIVED and not shown,
    )


def _landed(rungs: list[Rung]) -> list[Rung]:
    """Return the rungs, with each arrow that crossed others ending where its segment took effect."""
    at = {rung.packet: index for index, rung in enumerate(rungs) if rung.sender is not None}
    for index, rung in enumerate(rungs):
        for move in rung.moves:
            sent = at.get(move.packet)
            if sent is not None and sent < index and rungs[sent].sender is move.end.peer:
                rungs[sent] = replace(rungs[sent], lands=index - sent)
    return rungs


def _findings(connection: Connection) -> Iterator[tuple[str, Finding, str]]:
    """Yield the findings, the gravest first, each with its letter and sentence."""
    for index, finding in enumerate(sorted(connection.findings, key=gravity)):
        letter = LETTERS[index] if index < len(LETTERS) else str(index + 1)
        yield letter, finding, connection.files.text(printable(finding.summary))


def _lettered(rungs: list[Rung], findings: Sequence[tuple[str, Finding, str]]) -> list[Rung]:
    """Return the rungs with the letters of the findings that name their packets.

    A packet that is a part of traffic belongs to the rung before it that is not later.
    """
    order = sorted((rung.packet, index) for index, rung in enumerate(rungs) if rung.packet is not None)
    numbers = [packet for packet, _ in order]
    for letter, finding, _ in findings:
        named = {*finding.packets, *(int(number) for number in re.findall(r"#(\d+)", finding.summary))}
        places = {bisect_right(numbers, packet) - 1 for packet in named}
        for index in {order[place][1] for place in places if place >= 0}:
            rungs[index] = replace(rungs[index], letters=(*rungs[index].letters, letter))
    return rungs


def _shortened(rungs: list[Rung], most: int) -> Iterator[Rung]:
    """Yield at most so many rungs, with one for those in the middle that are left out."""
    if len(rungs) <= most:
        yield from rungs
        return
    head, tail = most // 2, most - most // 2
    left = rungs[head:-tail]
    for index, rung in enumerate(rungs[:head]):  # an arrow must not end in what is left out
        yield replace(rung, lands=min(rung.lands, head - 1 - index))
    moves = tuple(moves[-1] for end in End if (moves := [m for r in left for m in r.moves if m.end is end]))
    yield Rung(left[0].time_ns, words=f"{count(len(left), 'step')} left out here", moves=moves)
    yield from rungs[-tail:]
