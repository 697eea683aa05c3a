"""Connections made by hand for the tests of the report: states and notes are given, not inferred."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from closeseq.analysis import Reading
from closeseq.connections.conversation import (
    Address,
    Conversation,
    End,
    Event,
    Opener,
    Position,
    Stream,
    Traffic,
)
from closeseq.packets.frames import Files
from closeseq.packets.segments import ACK, from_letters
from closeseq.settings import Limits, Timers
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty, Step, Timeline, Transition
from closeseq.verdict.model import Finding, Initiator, Role, Severity

BEGAN = 1_795_177_086_194_806_000  # 2026-11-20T12:18:06.194806Z
CLIENT = Address("127.0.0.1", 43286)
SERVER = Address("127.0.0.1", 19999)


@dataclass
class Made:
    """A connection with the attributes that the report reads."""

    conversation: Conversation
    timeline: Timeline
    verdict: str = "graceful"
    initiator: Initiator = Initiator.CLIENT
    summary: str = "client closed first"
    shape: str = "C:S S:SA C:A C:FA S:FA C:A"
    findings: tuple[Finding, ...] = ()
    capture: str = "made.pcap"
    files: Files = field(default_factory=Files)
    settings: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(timers=Timers()))
    roles: dict[End, Role] = field(
        default_factory=lambda: {End.CLIENT: Role.ACTIVE_CLOSER, End.SERVER: Role.PASSIVE_CLOSER}
    )

    def __getattr__(self, name):
        if name in ("id", "incarnation", "opener"):
            return getattr(self.conversation, name)
        if name == "start_ns":
            return self.conversation.first_ns
        if name == "duration":
            return (self.conversation.last_ns - self.conversation.first_ns) / 1e9
        if name == "packets":
            return self.conversation.client_packets + self.conversation.server_packets
        if name in ("client_state", "server_state"):
            return self.end(End(name.removesuffix("_state"))).state
        if name in ("client", "server"):
            return self.end(End(name))
        raise AttributeError(name)

    @property
    def has_problem(self):
        return any(finding.severity is Severity.PROBLEM for finding in self.findings)

    def has(self, code):
        return any(finding.code == code for finding in self.findings)

    def end(self, end):
        address = self.conversation.address(end)
        return SimpleNamespace(
            address=address.address,
            port=address.port,
            state=self.timeline.state(end),
            role=self.roles[end],
            packets=getattr(self.conversation, f"{end}_packets"),
            bytes=getattr(self.conversation, f"{end}_bytes"),
        )


@dataclass
class MadeClass:
    """A class of one connection."""

    outcome: Made
    index: int

    def among(self, ids):
        return [self.index] if not ids or self.index + 1 in ids else []


@dataclass
class MadeAnalysis:
    """An analysis with the attributes that the report reads."""

    connections: list[Made]
    path: str = "made.pcap"
    reading: SimpleNamespace = None
    losses: tuple[int, int, int] = (0, 0, 0)
    population: list = field(default_factory=list)
    settings: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(ports=frozenset(), hosts=frozenset(), limits=Limits())
    )

    def __post_init__(self):
        self.reading = self.reading or reading(self.path, packets=10)

    def failed_at(self, _, fault):
        raise fault

    def drawn(self, draw, indices):
        return (draw(self.connections[index]) for index in indices)

    def __iter__(self):
        return iter(self.connections)

    def judged(self, indices=None):
        return iter(self.connections if indices is None else [self.connections[i] for i in indices])

    def __len__(self):
        return len(self.connections)

    def __getitem__(self, index):
        return self.connections[index]

    def among(self, indices):
        return (self.connections[index] for index in indices)

    @property
    def classes(self):
        return [MadeClass(one, i) for i, one in enumerate(self)]

    @staticmethod
    def ordered(classes):
        return sorted(index for one in classes for index in one)

    def places(self, indices, end):
        found = {}
        for i in indices:
            address = self[i].conversation.address(end)
            place = address if end is End.SERVER else Address(address.address, 0)
            found.setdefault(place, []).append(i)
        return list(found.items())


def reading(path="made.pcap", *, packets=0, segments=None, **more):
    given = {
        "path": path,
        "packets": packets,
        "segments": packets if segments is None else segments,
        "skipped": {},
        "notes": {},
        "dropped": 0,
        "copies": 0,
        "first_ns": BEGAN if packets else None,
        "last_ns": BEGAN + 12_400_000_000 if packets else None,
        "error": None,
    }
    return Reading(**(given | more))


def ns(seconds):
    return round(seconds * 1e9)


def event(number, time, sender, letters, *, length=0, seq=0, position=Position.NEW):
    """Make one segment; it acknowledges if its flags say so."""
    flags = from_letters(letters)
    ack = 1 if flags & ACK else None
    return Event(number, BEGAN + ns(time), End(sender), flags, seq, ack, length, position)


def traffic(number, time, up, down, *, lasted=0.0, **more):
    """Make a stretch of ordinary traffic, one segment each way."""

    def stream(first, size):
        at = BEGAN + ns(time)
        return Stream(1, size, first, first, at, at + ns(lasted), **more) if size is not None else Stream()

    return Traffic(stream(number, up), stream(number + 1, down))


def line(what, client, server, *, arrived=Arrival.PROVED, note=None, certainty=Certainty.PROVED, via=()):
    """One step with the states after it; `via` names states that an end only passed through."""
    return what, State(client), State(server), arrived, note, certainty, via


def made(lines, *, now=None, timers=(), expiries=None, opener=Opener.SEEN, number=1, **more):
    """Make a connection of lines; transitions follow from the changes of state."""
    steps, transitions = [], []
    before = {End.CLIENT: State.CLOSED, End.SERVER: State.LISTEN}
    if opener is Opener.INFERRED:
        before = dict.fromkeys(End, State.UNKNOWN)
    for what, client, server, arrived, note, certainty, via in lines:
        moves = []
        for end, after in ((End.CLIENT, client), (End.SERVER, server)):
            through = [State(s) for e, s in via if e == end]
            for state in [*through, after] if after is not before[end] or through else []:
                own = isinstance(what, Event) and what.sender is end
                sure = Certainty.OBSERVED if own else certainty
                cause = "sent it" if own else "received it"
                moves.append(Transition(what.packet, what.time_ns, end, before[end], state, cause, sure))
                before[end] = state
        transitions += moves
        is_event = isinstance(what, Event)
        steps.append(Step(what, BEGAN, client, server, arrived if is_event else None, note, tuple(moves)))
    for time, end, after, cause in timers:
        at = BEGAN + ns(time)
        transitions.append(Transition(None, at, End(end), before[end], State(after), cause, Certainty.TIMER))
        before[end] = State(after)
    conversation = talk([what for what, *_ in lines], number=number, opener=opener)
    now_ns = conversation.last_ns if now is None else BEGAN + ns(now)
    timeline = Timeline(conversation, tuple(steps), tuple(transitions), now_ns, expiries or {})
    return Made(conversation, timeline, **more)


def talk(steps, *, number=1, opener=Opener.SEEN):
    """Make a conversation of events and traffic."""

    def total(end, what):
        of_events = [(1, s.length) for s in steps if isinstance(s, Event) and s.sender is end]
        of_traffic = [(s.of(end).segments, s.of(end).bytes) for s in steps if isinstance(s, Traffic)]
        return sum(pair[what] for pair in of_events + of_traffic)

    return Conversation(
        number,
        1,
        CLIENT,
        SERVER,
        opener,
        tuple(steps),
        total(End.CLIENT, 0),
        total(End.SERVER, 0),
        total(End.CLIENT, 1),
        total(End.SERVER, 1),
        BEGAN,
        max(s.last_ns if isinstance(s, Traffic) else s.time_ns for s in steps),
    )


def finding(code, end, packets=(), *, severity=Severity.PROBLEM, since=0.1, lasted=None, **more):
    given = {"summary": f"{code} happened", "advice": f"mend {code}"} | more
    return Finding(
        code,
        severity,
        End(end) if end else None,
        Certainty.PROVED,
        BEGAN + ns(since),
        None if lasted is None else ns(lasted),
        tuple(packets),
        **given,
    )


HANDSHAKE = (
    line(event(1, 0.0, "client", "S"), "SYN_SENT", "LISTEN"),
    line(event(2, 0.000018, "server", "SA"), "ESTABLISHED", "SYN_RECEIVED"),
    line(event(3, 0.000036, "client", "A", seq=1), "ESTABLISHED", "ESTABLISHED"),
)


def lost_final_ack():
    """The server closes first; the ACK of the client's FIN is lost once."""
    return made(
        [
            *HANDSHAKE,
            line(traffic(4, 0.00005, 5, 2, lasted=0.0001), "ESTABLISHED", "ESTABLISHED"),
            line(event(6, 0.100392, "server", "FA"), "CLOSE_WAIT", "FIN_WAIT_1"),
            line(event(7, 0.142979, "client", "A"), "CLOSE_WAIT", "FIN_WAIT_2", certainty=Certainty.ASSUMED),
            line(event(8, 0.315080, "client", "FA"), "LAST_ACK", "TIME_WAIT"),
            line(
                event(9, 0.315144, "server", "A"),
                "LAST_ACK",
                "TIME_WAIT",
                arrived=Arrival.NO,
                note="lost: its FIN comes again in #10",
            ),
            line(
                event(10, 0.525, "client", "FA", position=Position.RETRANSMISSION),
                "LAST_ACK",
                "TIME_WAIT",
                via=[(End.SERVER, "TIME_WAIT")],
                note="FIN again",
            ),
            line(event(11, 0.525064, "server", "A"), "CLOSED", "TIME_WAIT", certainty=Certainty.ASSUMED),
        ],
        expiries={End.SERVER: BEGAN + ns(60.525)},
        initiator=Initiator.SERVER,
        summary="server closed first; final ACK lost once",
        shape="C:S S:SA C:A ~ S:FA C:A C:FA S:A C:FA S:A",
        roles={End.CLIENT: Role.PASSIVE_CLOSER, End.SERVER: Role.ACTIVE_CLOSER},
        findings=(
            finding("three-segment-close", None, [6], severity=Severity.NOTICE, advice=""),
            finding("final-ack-lost", "client", [9, 10], since=0.315144, lasted=0.21),
        ),
    )


def close_wait(*, reported=False, number=1, port=43286):
    """The server was told that the client closed, and does nothing."""
    found = (
        finding("stuck-fin-wait-2", "client", [5], lasted=75.0),
        finding("stuck-close-wait", "server", [4], lasted=75.0),
    )
    connection = made(
        [
            *HANDSHAKE,
            line(event(4, 0.5, "client", "FA"), "FIN_WAIT_1", "CLOSE_WAIT"),
            line(event(5, 0.5001, "server", "A"), "FIN_WAIT_2", "CLOSE_WAIT"),
        ],
        now=75.5 if reported else 12.9,
        number=number,
        verdict="closing",
        findings=found if reported else (),
        summary="client closed first; server is still in CLOSE_WAIT",
    )
    client = Address("127.0.0.1", port)
    connection.conversation = replace(connection.conversation, client=client)
    return connection


def test_the_examples_hold_together():
    connection = lost_final_ack()
    assert connection.packets == 11
    assert connection.client.state is State.CLOSED
    assert connection.server.state is State.TIME_WAIT
    assert connection.has("final-ack-lost")
