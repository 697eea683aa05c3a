"""A timeline arranged for judging: what each endpoint did in the close, and how long it was in each state.

Everything here is read off the timeline; what follows from it, the rules decide. Nothing knows which endpoint
is the client: swapping both swaps every answer.
"""

from __future__ import annotations

from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import ENDS, End, Event, Position, Traffic
from closeseq.packets.value import cached, or_0, value
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty, Timeline, Transition
from closeseq.verdict.incomplete import Missing, missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.connections.conversation import End
    from closeseq.packets.frames import Gap
    from closeseq.settings import Limits
    from closeseq.tcp.timeline import Transition


@value
class Stay:
    """An endpoint was in a state for a time."""

    end: End
    state: State
    entered: Transition  # the transition by which it came there
    left: Transition | None  # None: it is still there

    @property
    def since_ns(self) -> int:
        """When it began, since the Unix epoch."""
        return self.entered.time_ns


@value
class Close:
    """One endpoint's FIN, as far as anything is known of it."""

    end: End
    transmissions: tuple[Event, ...]  # every captured segment that carries it, in order
    sent: Transition | None  # by which this endpoint sent it
    received: Transition | None  # by which its peer received it
    acked: Transition | None  # by which this endpoint received the acknowledgement of it
    order: int  # place of the first of these transitions among all; one packet can make several
    covers: tuple[tuple[int, int], ...]  # (packet, time) of what its peer sent that acknowledges it

    def __bool__(self) -> bool:
        return self.sent is not None or bool(self.transmissions)

    @property
    def began(self) -> tuple[int, int]:
        """The latest time at which it was sent, and a packet that shows it: (time, packet)."""
        return min(self._known)

    @property
    def began_ns(self) -> int:
        """That time, since the Unix epoch."""
        return min(time_ns for time_ns, _ in self._known)

    @property
    def _known(self) -> list[tuple[int, int]]:
        known = [
            (t.time_ns, t.packet)
            for t in (self.sent, self.received)
            if t is not None and t.packet is not None
        ]
        return known + [(e.time_ns, e.packet) for e in self.transmissions[:1]]

    @property
    def acknowledged(self) -> bool:
        """Whether the peer acknowledged it.

        An acknowledgement counts as long as this endpoint did not retransmit the FIN after it.
        """
        if self.acked is not None:
            return True
        if not self.transmissions:  # only its acknowledgement shows that there was one
            return self.received is not None
        return bool(self.covers) and self.covers[-1][0] > self.transmissions[-1].packet

    @property
    def packets(self) -> tuple[int, ...]:
        """The first one, and what acknowledged it after the last retransmission."""
        if not self.transmissions:
            return ()
        after = [packet for packet, _ in self.covers if packet > self.transmissions[-1].packet]
        return (self.transmissions[0].packet, *(after[:1] or [packet for packet, _ in self.covers[-1:]]))


# An endpoint that was in one of these has completed the handshake.
SYNCHRONIZED = frozenset(
    {State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2, State.LAST_ACK, State.TIME_WAIT}
)


class Case:
    """One connection to be judged.

    Args:
        timeline: both endpoints' states, as replayed.
        limits: how long a wait must be to count.
        dropped: packets that the capture itself reports lost, anywhere.
        gaps: between the files of the capture.
        worded: False: texts that take long are left out, since nobody reads them.
    """

    def __init__(
        self,
        timeline: Timeline,
        limits: Limits,
        dropped: int = 0,
        gaps: Sequence[Gap] = (),
        *,
        worded: bool = True,
    ) -> None:
        self.timeline = timeline
        self.conversation = timeline.conversation  # the connection as its steps
        self.limits = limits
        self.dropped = dropped
        self.gaps = gaps  # between the files of the capture
        self.worded = worded  # False: texts that take long are left out, since nobody reads them
        self.cache: dict[object, Any] = {}  # of `origin_of`

    @property
    def ongoing(self) -> bool:
        """Whether the capture goes on after the moment for which the case is judged."""
        return self.timeline.ongoing

    @cached
    def now_ns(self) -> int:
        """Until when a wait is measured: now, or when the next connection of the pair began."""
        successor = self.conversation.successor
        now = self.timeline.now_ns
        return now if successor is None else min(now, successor.time_ns)

    @cached
    def made(self) -> tuple[Transition, ...]:
        """All transitions but those of timers that would have expired after the next connection began."""
        timed = (t for t in self.timeline.transitions if t.certainty is Certainty.TIMER)
        late = {id(t) for t in timed if t.time_ns > self.now_ns}
        return tuple(t for t in self.timeline.transitions if id(t) not in late)

    @cached
    def events(self) -> tuple[Event, ...]:
        """The events that are part of the connection."""
        events, strays = self.conversation.events, self.timeline.strays
        return tuple(e for e in events if e.packet not in strays) if strays else events

    @cached
    def resets(self) -> tuple[Event, ...]:
        """All RSTs, those that answer segments of an older connection included."""
        return tuple(event for event in self.conversation.events if event.rst)

    @cached
    def by_packet(self) -> dict[int, Event]:
        """The events that are part of the connection, by packet."""
        return {event.packet: event for event in self.events}

    @cached
    def lost(self) -> frozenset[int]:
        """Packets that are known not to have arrived."""
        return frozenset(step.packet for step in self.timeline if step.arrived is Arrival.NO)

    def arrived(self, packets: Iterable[int | None]) -> Iterator[int]:
        """Yield those packets that are not known to have been lost."""
        return (packet for packet in packets if packet is not None and packet not in self.lost)

    @cached
    def missing(self) -> tuple[Missing, ...]:
        """What was not captured of it, what matters most first."""
        return missing(self.conversation, self.dropped, self.timeline.strays, self.gaps)

    @cached
    def challenges(self) -> tuple[tuple[Event, Event], ...]:
        """Each RST or SYN that was answered with an ACK, and the ACK (RFC 5961 3 and 4)."""
        taken = {reset.packet for t, reset in self.endings if t.endpoint is not reset.sender}
        found = []
        for step, following in pairwise(self.conversation.steps):
            if not isinstance(step, Event) or not isinstance(following, Event):
                continue
            stray = (
                step.letters == "S" or (step.rst and step.packet not in taken)
            ) and step.packet not in self.lost
            if stray and following.pure_ack and following.sender is not step.sender:
                found.append((step, following))
        successor = self.conversation.successor
        if successor is not None:
            late = (e for e in self.events if e.packet > successor.packet and e.pure_ack)
            answer = next((e for e in late if e.sender is not successor.sender), None)
            found += [(successor, answer)] if answer is not None else []
        return tuple(found)

    def state(self, end: End) -> State:
        """Return the endpoint's state at the moment for which the case is judged."""
        stay = self.present(end)
        return self.timeline.first_state(end) if stay is None else stay.state

    def transitions(self, end: End) -> Sequence[Transition]:
        """Return an endpoint's transitions, in order of time."""
        return self._transitions[end]

    @cached
    def _transitions(self) -> dict[End, Sequence[Transition]]:
        return {end: [t for t in self.made if t.endpoint is end] for end in ENDS}

    @cached
    def _stays(self) -> dict[End, Sequence[Stay]]:
        return {
            end: [Stay(end, a.after, a, b) for a, b in zip_longest(made, made[1:])]
            for end, made in self._transitions.items()
        }

    def stays(self, end: End, *states: State) -> Sequence[Stay]:
        """Return the stays of an endpoint in these states, in order; none if it was in none of them."""
        if self._entered[end].isdisjoint(states):
            return ()
        return [stay for stay in self._stays[end] if stay.state in states]

    @cached
    def _entered(self) -> dict[End, set[State]]:
        return {end: {stay.state for stay in stays} for end, stays in self._stays.items()}

    def in_state(self, state: State) -> Sequence[Stay]:
        """Return the stays of both endpoints in a state, the client's first; each set in order of time."""
        return self._by_state.get(state, ())

    @cached
    def _by_state(self) -> dict[State, list[Stay]]:
        found: dict[State, list[Stay]] = {}
        for stays in self._stays.values():
            for stay in stays:
                found.setdefault(stay.state, []).append(stay)
        return found

    def present(self, end: End) -> Stay | None:
        """Return the stay that lasts; None if the endpoint never left its first state."""
        stays = self._stays[end]
        return stays[-1] if stays else None

    def unacknowledged(self, end: End, *states: State) -> Stay | None:
        """Return the stay in which an endpoint waits, or may wait, in vain for the ACK of its FIN.

        Args:
            end: which endpoint.
            states: in which of its states to look.

        Returns:
            The first such stay; None without one.
        """
        for stay in self.stays(end, *states):
            if stay.left is None or self.by_reset(stay.left) is not None or self.doubtful(stay):
                return stay
        return None

    def doubtful(self, stay: Stay) -> bool:
        """Whether the ACK that ended a wait may have been lost like those before it.

        Nothing shows that it arrived, and the next retransmission of the FIN, after about twice the time
        between the last two (RFC 6298 5.5), was not due yet.

        Args:
            stay: the wait, in a state in which an endpoint's FIN is not acknowledged.
        """
        close = self.close(stay.end)
        if stay.left is None or stay.left.certainty is not Certainty.ASSUMED:
            return False
        if len(close.transmissions) < 2:  # noqa: PLR2004 - without a retransmission none was in vain
            return False
        if stay.left.after is State.CLOSING:
            return False  # it was left by the peer's FIN
        earlier, last = close.transmissions[-2:]
        lost = any(packet < last.packet for packet, _ in close.covers)
        return lost and self.now_ns - last.time_ns <= 2 * (last.time_ns - earlier.time_ns)

    def until(self, stay: Stay) -> int:
        """Return when a stay ended, or until when it has lasted, in nanoseconds since the Unix epoch."""
        if stay.left is None or (self.by_reset(stay.left) is None and self.doubtful(stay)):
            return max(self.now_ns, stay.since_ns)
        return stay.left.time_ns

    def lasted(self, stay: Stay) -> int:
        """Return how long a stay lasted, or has lasted so far, in nanoseconds."""
        return self.until(stay) - stay.since_ns

    def by_reset(self, transition: Transition | None) -> Event | None:
        """Return the RST that made a transition to CLOSED; None if something else made it."""
        if transition is None or transition.packet is None or transition.after is not State.CLOSED:
            return None
        event = self.by_packet.get(transition.packet)
        return event if event is not None and event.rst else None

    @cached
    def endings(self) -> tuple[tuple[Transition, Event], ...]:
        """The transitions to CLOSED that a RST made, with it, in order of time."""
        found = [(t, self.by_reset(t)) for t in self.made]
        return tuple((t, reset) for t, reset in found if reset is not None)

    def synchronized(self, end: End) -> bool:
        """Whether an endpoint ever completed the handshake."""
        if not self.timeline.began:
            return True
        return any(t.after in SYNCHRONIZED for t in self.transitions(end))

    def close(self, end: End) -> Close:
        """Return what is known of an endpoint's FIN."""
        return self._closes[end]

    @cached
    def _closes(self) -> dict[End, Close]:
        return {end: self._close(end) for end in ENDS}

    def _close(self, end: End) -> Close:
        sent = received = acked = None
        order = len(self.made)
        for place, t in enumerate(self.made):
            own, move = t.endpoint is end, (t.before, t.after)
            if own and t.after in (State.FIN_WAIT_1, State.LAST_ACK):
                sent = t
            elif own and (t.after is State.FIN_WAIT_2 or move in _ACKED) and self.by_reset(t) is None:
                acked = t if t.packet is not None else acked
            if not own and (t.after in (State.CLOSE_WAIT, State.CLOSING) or move in _RECEIVED):
                received = t
            if t is sent or t is received:
                order = min(order, place)
        transmissions = tuple(e for e in self.events if e.sender is end and e.fin and not e.rst)
        return Close(end, transmissions, sent, received, acked, order, self._covers(end, transmissions))

    def _covers(self, end: End, transmissions: tuple[Event, ...]) -> tuple[tuple[int, int], ...]:
        """Return what acknowledges a captured FIN. A RST ends the connection instead of acknowledging."""
        if not transmissions:
            return ()
        found = []
        for step in self.conversation.steps:
            if isinstance(step, Traffic):
                ack, rst, packet = step.of(end.peer).ack, False, step.of(end.peer).last_packet
                time_ns = step.of(end.peer).last_ns
            else:
                ack, rst, packet, time_ns = (
                    step.ack,
                    step.rst or step.sender is end,
                    step.packet,
                    step.time_ns,
                )
            if ack is not None and not rst and ack >= transmissions[0].end:
                found.append((packet, time_ns))
        return tuple(found)

    @cached
    def crossed(self) -> bool:
        """Whether both endpoints sent FIN before receiving the other's."""
        return all(
            (sent := self.close(end).sent) is not None and sent.after is State.FIN_WAIT_1 for end in ENDS
        )

    @cached
    def first_closer(self) -> End | None:
        """The endpoint that sent its FIN first; None without a FIN."""
        closes = [self.close(end) for end in ENDS if self.close(end)]
        if len(closes) < len(ENDS):
            return closes[0].end if closes else None
        one, other = closes
        if one.began_ns != other.began_ns:
            return one.end if one.began_ns < other.began_ns else other.end
        return min(closes, key=lambda close: (close.began, close.order)).end

    def last_data(self, sender: End, stay: Stay) -> tuple[int, int] | None:
        """Return when a sender sent its last data, and the packet, if that was during a stay; else None.

        Args:
            sender: of the data.
            stay: of either endpoint.
        """
        after, data = or_0(stay.entered.packet), None
        for step in reversed(self.conversation.steps):
            if isinstance(step, Traffic):
                stream = step.of(sender)
                if stream.bytes and stream.last_packet > after:
                    data = stream.last_ns, stream.last_packet
                    break
            elif step.sender is sender and step.length and step.packet > after:
                data = step.time_ns, step.packet
                break
        return data if data is not None and stay.since_ns < data[0] <= self.until(stay) else None

    def keepalives(self, end: End, step: Event | Traffic) -> int:
        """Return how many keepalives of an endpoint a step holds.

        Their number is one below the next. Probes of a closed window look the same, but for the peer's
        window of 0; so does the retransmission of a single byte, but that was not acknowledged before.

        Args:
            end: which endpoint.
            step: one of the conversation's.
        """
        probes = step.of(end).probes if isinstance(step, Traffic) else step.position is Position.PROBE
        own = isinstance(step, Traffic) or step.sender is end
        if not own or not probes or self.window_closed(end.peer, step):
            return 0
        sent, acked = 1, 0
        for earlier in self.conversation.steps[: self.conversation.steps.index(step)]:
            if isinstance(earlier, Traffic):
                sent = max(sent, or_0(earlier.of(end).end))
                acked = max(acked, or_0(earlier.of(end.peer).ack))
            elif earlier.sender is end:
                sent = max(sent, 0 if earlier.rst else earlier.end)
            else:
                acked = max(acked, or_0(earlier.ack))
        if not isinstance(step, Traffic):
            return int(step.length == 0 or acked >= step.end)
        if step.of(end.peer).zero_windows:
            return 0
        stream = step.of(end)
        sent_again = stream.bytes - max(or_0(stream.end) - sent, 0)
        return max(stream.probes - max(sent_again, 0), 0)

    def window_closed(self, end: End, before: Event | Traffic | None = None) -> bool:
        """Whether the last window that an endpoint announced was 0, or may have been.

        Args:
            end: which endpoint.
            before: announced before this step; None for the last of all.
        """
        steps = self.conversation.steps
        until = next((at for at, step in enumerate(steps) if step is before), len(steps))
        for step in reversed(steps[:until]):
            if isinstance(step, Traffic):
                if step.of(end):
                    return step.of(end).zero_windows > 0
            elif step.sender is end and not step.rst:
                return step.window == 0
        return False

    def closed_unseen(self, end: End) -> bool:
        """Whether an endpoint may have closed before the capture began: nothing shows that it had not.

        Args:
            end: the endpoint, of which neither SYN, data nor FIN was captured.
        """
        if self.timeline.began:
            return False
        return not any(
            step.of(end).bytes
            if isinstance(step, Traffic)
            else step.sender is end and not step.rst and step.end > step.seq
            for step in self.conversation.steps
        )

    def absence(self, certainty: Certainty) -> Certainty:
        """Return the certainty of something that also rests on a packet *not* having been sent."""
        return Certainty.ASSUMED if self.missing else certainty


# Transitions by which an endpoint received the ACK of its FIN, and by which it received its peer's FIN.
_ACKED = frozenset({(State.CLOSING, State.TIME_WAIT), (State.LAST_ACK, State.CLOSED)})
_RECEIVED = frozenset({(State.FIN_WAIT_2, State.TIME_WAIT)})


def weakest(*certainties: Certainty) -> Certainty:
    """Return how sure something is that rests on all of these; what a timer did is assumed."""
    if {Certainty.ASSUMED, Certainty.TIMER} & {*certainties}:
        return Certainty.ASSUMED
    return Certainty.PROVED if Certainty.PROVED in certainties else Certainty.OBSERVED
