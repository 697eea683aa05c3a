"""The result of a replay: each endpoint's states step by step, each with its cause and certainty."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Conversation, End, Event, Opener, Traffic
from closeseq.packets.segments import ACK, RST, SYN
from closeseq.packets.value import value
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.tcp.distance import Distance


class Certainty(StrEnum):
    """How we know. An inference that could be wrong is never called observed or proved."""

    OBSERVED = "observed"  # the endpoint itself sent the segment that makes the transition
    PROVED = "proved"  # the endpoint received it, and later packets show that it did
    ASSUMED = "assumed"  # nothing contradicts it
    TIMER = "timer"  # no packet: a timer expired


class Arrival(StrEnum):
    """Whether a segment reached its receiver."""

    PROVED = "proved"
    ASSUMED = "assumed"
    NO = "no"


@value
class Transition:
    """One endpoint goes from one state to another."""

    packet: int | None  # that made it; None for a timer
    time_ns: int  # since the Unix epoch
    endpoint: End
    before: State
    after: State
    cause: str  # for a reader: "sent SYN", "received ACK of FIN", "2MSL passed"
    certainty: Certainty


@value
class Step:
    """A line of the timeline: an event or a stretch of traffic, and the states right after it."""

    what: Event | Traffic
    start_ns: int  # of the connection
    client: State  # its state right after the step
    server: State  # and the server's
    arrived: Arrival | None = None  # None for traffic
    note: str | None = None  # for the reader, such as "lost: its FIN comes again in #12"
    transitions: tuple[Transition, ...] = ()  # those that this step made

    @property
    def event(self) -> Event | None:
        """The event; None for traffic."""
        return self.what if isinstance(self.what, Event) else None

    @property
    def traffic(self) -> Traffic | None:
        """The traffic; None for an event."""
        return self.what if isinstance(self.what, Traffic) else None

    @property
    def packet(self) -> int:
        """The packet's number in the capture; for traffic that of its first packet."""
        return self.what.packet

    @property
    def time_ns(self) -> int:
        """When it was captured, since the Unix epoch; of traffic its first packet."""
        return self.what.time_ns

    @property
    def time(self) -> float:
        """Seconds since the connection began."""
        return (self.what.time_ns - self.start_ns) / 1e9

    @property
    def sender(self) -> End | None:
        """Who sent it; None for traffic."""
        return self.what.sender if isinstance(self.what, Event) else None

    @property
    def flags(self) -> str:
        """The flags as letters out of SFRAP; empty for traffic."""
        return self.what.letters if isinstance(self.what, Event) else ""

    @property
    def certainty(self) -> Certainty | None:
        """The weakest certainty among the transitions this step made; None if it made none."""
        order = list(Certainty)
        return max((t.certainty for t in self.transitions), key=order.index, default=None)


def first_state(conversation: Conversation, end: End) -> State:
    """Return an endpoint's state before the first step of a conversation.

    CLOSED for an endpoint that opens actively, LISTEN for the other, UNKNOWN where no beginning was captured.
    An endpoint that only answers with RST has no state at all (RFC 9293 3.3.2): CLOSED.
    """
    if conversation.opener is not Opener.SEEN:
        return State.UNKNOWN
    actively = end is End.CLIENT or any(
        e.sender is end and e.flags & (SYN | ACK | RST) == SYN for e in conversation.events
    )
    return State.CLOSED if actively or _only_refuses(conversation, end) else State.LISTEN


def _only_refuses(conversation: Conversation, end: End) -> bool:
    """Whether nothing but RSTs was captured of an endpoint."""
    refused = False
    for step in conversation.steps:
        if isinstance(step, Event):
            if step.sender is end:
                if not step.rst:
                    return False
                refused = True
        elif step.of(end):
            return False
    return refused


@value
class Timeline:
    """Both endpoints' states through the whole of a connection.

    `now_ns` is the moment for which it holds: the capture's last packet, or the clock when live.
    """

    conversation: Conversation
    steps: tuple[Step, ...]  # one for each of the conversation's
    transitions: tuple[Transition, ...]  # in time order, those by timer included
    now_ns: int  # since the Unix epoch
    expiries: dict[End, int]  # since the epoch: when a 2MSL or FIN_WAIT_2 timer ends, or ended
    distance: Distance | None = None  # did the sender of one segment know of another one?
    strays: frozenset[int] = frozenset()  # packets that are no part of the connection
    ongoing: bool = False  # the capture goes on: `now_ns` is the present, not its end
    replayed: bool = True  # else nothing is known of any state

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def first_state(self, end: End) -> State:
        """Return an endpoint's state before the first step: LISTEN or CLOSED, UNKNOWN without a beginning."""
        return first_state(self.conversation, end) if self.replayed else State.UNKNOWN

    @property
    def began(self) -> bool:
        """Whether the beginning of the connection was captured."""
        return self.conversation.opener is Opener.SEEN

    def state(self, end: End, at_ns: int | None = None) -> State:
        """Return an endpoint's state at a moment.

        Args:
            end: which endpoint.
            at_ns: nanoseconds since the Unix epoch, transitions at that moment included; None for `now_ns`.
        """
        for transition in reversed(self.transitions):
            if transition.endpoint is end and (at_ns is None or transition.time_ns <= at_ns):
                return transition.after
        return self.first_state(end)


def not_replayed(conversation: Conversation, now_ns: int) -> Timeline:
    """Return a timeline with every packet and without any state: for when closeseq itself fails.

    Args:
        conversation: the connection.
        now_ns: the moment for which it was judged, since the Unix epoch.
    """
    unknown = State.UNKNOWN
    steps = tuple(Step(what, conversation.first_ns, unknown, unknown) for what in conversation.steps)
    return Timeline(conversation, steps, (), now_ns, {}, replayed=False)
