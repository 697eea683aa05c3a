"""The result of a replay: each end's states step by step, each with its cause and certainty."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from closeseq.connections.conversation import Conversation, End, Event, Traffic
from closeseq.tcp.states import State


class Certainty(StrEnum):
    """How we know. An inference that could be wrong is never called observed or proved."""

    OBSERVED = "observed"  # the end itself sent the segment that makes the transition
    PROVED = "proved"  # the end received it, and later packets show that it did
    ASSUMED = "assumed"  # nothing contradicts it
    TIMER = "timer"  # no packet: a clock ran out


class Arrival(StrEnum):
    """Whether a segment reached the other end."""

    PROVED = "proved"
    ASSUMED = "assumed"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Transition:
    """One end goes from one state to another."""

    packet: int | None  # that made it; None for a timer
    time_ns: int  # since the Unix epoch
    endpoint: End
    before: State
    after: State
    cause: str  # for a person: "sent SYN", "received ACK of FIN", "2MSL passed"
    certainty: Certainty


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the timeline: an event or a stretch of traffic, and the states right after it."""

    what: Event | Traffic
    client: State
    server: State
    arrived: Arrival | None = None  # None for traffic
    note: str | None = None  # what a reader should know of it, e.g. "lost: its FIN comes again in #12"
    transitions: tuple[Transition, ...] = ()  # those that this step made

    @property
    def event(self) -> Event | None:
        return self.what if isinstance(self.what, Event) else None

    @property
    def time_ns(self) -> int:
        return self.what.time_ns


@dataclass(frozen=True, slots=True)
class Timeline:
    """Both ends' states through the whole of a connection.

    `now_ns` is the moment for which it holds: the capture's last packet, or the clock when live.
    """

    conversation: Conversation
    steps: tuple[Step, ...]
    transitions: tuple[Transition, ...]  # in time order, those by timer included
    now_ns: int
    expiries: dict[End, int]  # when a running 2MSL or FIN_WAIT_2 timer ends (or ended), per end, in ns

    def state(self, end: End, at_ns: int | None = None) -> State:
        """Return the end's state at a moment, by default at `now_ns`."""
        state = State.initial(end is End.CLIENT, self.conversation)
        raise NotImplementedError(state)
