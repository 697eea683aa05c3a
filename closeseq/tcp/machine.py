"""Both ends' states while the happenings of a conversation are followed through the table.

Beside the state that is most likely, the machine keeps every state in which an end may be: a signal that
is only assumed leaves it where it was, too. A transition is observed or proved only if each of them leads
to the same state. So what rests on an assumption is never called more than assumed, however well its own
packet is known, and becomes certain again where all ways meet.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event
from closeseq.packets.value import value
from closeseq.tcp import fins
from closeseq.tcp.states import Signal, State, follow
from closeseq.tcp.timeline import Arrival, Certainty, Step, Timeline, Transition, first_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from closeseq.settings import Timers
    from closeseq.tcp.evidence import Evidence

# The order in which one segment is worked off: that its ends were there, what had arrived before it was
# sent, the sending itself, then at the receiver RST, SYN, ACK, FIN (RFC 9293 3.10.7.4), and what came after.
ALIVE, BEFORE, SENDING, RESET, SYNCHRONIZE, ACKNOWLEDGE, FINISH, LATER = range(8)
SENDERS_OF_FIN = frozenset(
    {State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK}
)


RECEIVED = frozenset(signal.value for signal in Signal if signal.name.startswith("RECEIVES"))


class SignalKind(Enum):
    """What a happening does to what is known of its end."""

    TAKES = "the end takes the signal"
    MAY = "it may have taken it here; elsewhere is likelier"
    SHOWN = "it has taken it by now"


@value
class PlacedSignal:
    """One signal to one end, with its place in the order of things."""

    step: int  # index into the conversation's steps, or their number
    phase: int  # place within the step: ALIVE to LATER
    endpoint: End  # that takes it
    signal: Signal
    packet: int  # that brings it about, or shows it
    time_ns: int  # since the Unix epoch
    certainty: Certainty
    cause: str | None = None  # where the signal does not say it all
    kind: SignalKind = SignalKind.TAKES

    def order(self) -> tuple[int, int, int]:
        """Return its place; what came after all that a step did is in order of time."""
        return self.step, self.phase, self.time_ns if self.phase == LATER else 0


class Machine:
    """Follows the table for both ends, and runs their timers.

    Args:
        evidence: of the connection.
        timers: how long TIME_WAIT lasts, and FIN_WAIT_2 without an owner.
    """

    def __init__(self, evidence: Evidence, timers: Timers) -> None:
        self.evidence = evidence
        self.timers = timers
        self.first = {end: first_state(evidence.conversation, end) for end in ENDS}  # before any signal
        self.state = {**self.first}
        self.possible = {end: frozenset({state}) for end, state in self.state.items()}
        self.expiries: dict[End, int] = {}  # of TIME_WAIT or FIN_WAIT_2, running or run out
        self.transitions: list[Transition] = []
        self.by_step: dict[int, list[Transition]] = {}

    def take(self, happening: PlacedSignal) -> None:
        """Give one signal to one end, after those that come before it by `PlacedSignal.order`.

        Raises:
            AssertionError: the signal cannot come in the end's state (see `follow`): a fault of closeseq.
        """
        self.let_time_pass(happening.time_ns)
        end = happening.endpoint
        before = self.state[end]
        if happening.kind is SignalKind.MAY:
            self.possible[end] |= self._led(end, happening.signal)
            return
        after = follow(before, happening.signal)
        certainty = self._certainty(happening, after)
        if after is not before:
            self._move(happening, before, after, certainty)
        if happening.kind is SignalKind.SHOWN:
            return
        if happening.signal is Signal.IS_SUCCEEDED:
            self._drop_what_was_left(end)
        if after is State.TIME_WAIT and happening.signal in (Signal.RECEIVES_FIN, Signal.RECEIVES_ACK_OF_FIN):
            self.expiries[end] = happening.time_ns + self.timers.time_wait_ns  # 2MSL starts (again)
        elif after is State.FIN_WAIT_2 and before is not after and not self._owned(end):
            self.expiries[end] = happening.time_ns + self.timers.fin_timeout_ns

    def _drop_what_was_left(self, end: End) -> None:
        """Stop the timer of an end that opens anew: that it can shows that nothing is left to time out."""
        successor = self.evidence.conversation.successor
        if successor is not None and successor.sender is end:
            self.expiries.pop(end, None)

    def _led(self, end: End, signal: Signal) -> frozenset[State]:
        """Return where a signal leads from every state in which an end may be."""
        return led(self.possible[end], signal)

    def _certainty(self, happening: PlacedSignal, after: State) -> Certainty:
        """Follow a signal from every state in which its end may be; return how sure the new state is."""
        end, certainty = happening.endpoint, happening.certainty
        led = self._led(end, happening.signal)
        if self.state[end] is State.UNKNOWN:
            led = frozenset({after})  # not a state to stay in, but the lack of one
        sure = certainty in (Certainty.OBSERVED, Certainty.PROVED)
        self.possible[end] = led if sure else led | self.possible[end]
        return Certainty.ASSUMED if sure and led != {after} else certainty

    def _move(self, happening: PlacedSignal, before: State, after: State, certainty: Certainty) -> None:
        # Times follow the order of the steps; what is known only by a later segment is not put earlier.
        time_ns = happening.time_ns
        if self.transitions:
            time_ns = max(time_ns, self.transitions[-1].time_ns)
        transition = Transition(
            happening.packet,
            time_ns,
            happening.endpoint,
            before,
            after,
            happening.cause or happening.signal.value,
            certainty,
        )
        self.state[happening.endpoint] = after
        self.expiries.pop(happening.endpoint, None)
        self.transitions.append(transition)
        self.by_step.setdefault(happening.step, []).append(transition)

    def _owned(self, end: End) -> bool:
        """Whether a program still reads from an end that has sent FIN: it accepted data since.

        Linux answers data with RST when the owner has gone, and times such a FIN_WAIT_2 out; with an
        owner FIN_WAIT_2 has no timer (RFC 9293 3.6.1).
        """
        fin = fins.find(self.evidence, end)
        other = fins.find(self.evidence, end.peer)
        if fin is None or not fin.transmissions or fin.transmissions[0].ack is None:
            return False
        acks = [s.ack for s in self.evidence.after(end, fin.transmissions[0].step) if s.ack is not None]
        return max(acks, default=0) - (other is not None) > fin.transmissions[0].ack

    def let_time_pass(self, now_ns: int) -> None:
        """Let the timers run out that end before a moment, in nanoseconds since the Unix epoch."""
        if not self.expiries:
            return
        for end, due in sorted(self.expiries.items(), key=lambda item: item[1]):
            before = self.state[end]
            if due >= now_ns or before not in (State.TIME_WAIT, State.FIN_WAIT_2):
                continue
            if any(not s.reset and s.last_ns > due for s in self.evidence.sent[end]):
                continue  # it was still there later: its timers are longer
            cause = "2MSL passed" if before is State.TIME_WAIT else "no FIN came and no program owns it"
            self.state[end] = follow(before, Signal.CLOCK_RAN_OUT)
            self.possible[end] |= self._led(end, Signal.CLOCK_RAN_OUT)
            self.transitions.append(
                Transition(None, due, end, before, self.state[end], cause, Certainty.TIMER)
            )

    def timeline(
        self, arrivals: Mapping[int, tuple[Arrival, str | None]], *, ongoing: bool = False
    ) -> Timeline:
        """Return the finished timeline.

        Args:
            arrivals: by index of a step, whether its event arrived, and a note for the reader.
            ongoing: whether the capture goes on.
        """
        conversation = self.evidence.conversation
        state = {**self.first}
        timers = [t for t in self.transitions if t.certainty is Certainty.TIMER]
        took = {(t.packet, t.endpoint) for t in self.transitions if t.cause in RECEIVED}
        steps = []
        for index, what in enumerate(conversation.steps):
            if timers:
                passed = [t for t in timers if t.time_ns < what.time_ns]
                timers = timers[len(passed) :]
                for transition in passed:
                    state[transition.endpoint] = transition.after
            made = self.by_step.get(index, ())
            for transition in made:
                state[transition.endpoint] = transition.after
            arrived, note = arrivals.get(index, (None, None))
            if arrived is Arrival.NO and isinstance(what, Event) and (what.packet, what.sender.peer) in took:
                arrived = Arrival.ASSUMED  # its number was of no use, but its acknowledgement was
            client, server = state[End.CLIENT], state[End.SERVER]
            steps.append(Step(what, conversation.first_ns, client, server, arrived, note, tuple(made)))
        ordered = tuple(sorted(self.transitions, key=lambda t: t.time_ns))
        strays = frozenset(conversation.steps[index].packet for index in self.evidence.strays)
        return Timeline(
            conversation,
            tuple(steps),
            ordered,
            self.evidence.now_ns,
            dict(self.expiries),
            self.evidence.distance,
            strays,
            ongoing,
        )


@cache
def led(possible: frozenset[State], signal: Signal) -> frozenset[State]:
    """Return where a signal leads from all of some states.

    An end that sends FIN was in a state that can send it, or send it again.

    Args:
        possible: states in which an end may be.
        signal: what it sends or receives.

    Raises:
        AssertionError: it cannot come in one of them.
    """
    if signal is Signal.SENDS_FIN:
        possible = (possible & SENDERS_OF_FIN) or possible
    return frozenset(follow(state, signal) for state in possible)
