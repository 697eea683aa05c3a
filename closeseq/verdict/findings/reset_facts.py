"""What happened before a RST: the facts that its causes are weighed by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Event, Position, Traffic
from closeseq.packets.value import cached, or_0, value
from closeseq.tcp.states import NO_SOCKET, State
from closeseq.units import count, listed
from closeseq.verdict.findings.vanished import unanswered
from closeseq.verdict.origin import origin_of, state_before

if TYPE_CHECKING:
    from closeseq.connections.conversation import End, Stream
    from closeseq.verdict.case import Case, Stay
    from closeseq.verdict.findings.vanished import Unanswered
    from closeseq.verdict.origin import Origin


@value
class Answered:
    """A segment that a RST answers."""

    packet: int  # number in the capture
    time_ns: int  # since the Unix epoch
    data: bool  # whether it carries data
    syn: bool = False  # whether it has SYN
    acks: bool = True  # whether it has ACK
    pure_ack: bool = False  # whether it only acknowledges


class Reset:
    """A RST and what happened before it: the facts that its causes are weighed by.

    Args:
        case: the connection.
        event: the RST, one of its events.
    """

    def __init__(self, case: Case, event: Event) -> None:
        self.case = case
        self.event = event

    @property
    def sender(self) -> End:
        """Its sender, as its address says."""
        return self.event.sender

    @property
    def peer(self) -> End:
        """The endpoint that it is addressed to."""
        return self.event.sender.peer

    @property
    def aborts(self) -> bool:
        """Whether it has the form in which a socket is aborted, RST+ACK."""
        return self.event.ack is not None

    @property
    def where(self) -> str:
        """In which state its sender was, or was last seen: a bare RST is sent without a socket."""
        state = self.state
        if self.had_no_part and not any(e.rst and e.sender is self.sender for e in self._events_before):
            return "which had sent nothing before"
        if state is State.UNKNOWN:
            return "in an unknown state"
        return f"in {state}" if self.aborts or state is State.CLOSED else f"last seen in {state}"

    @cached
    def state(self) -> State:
        """The sender's state right before it."""
        return state_before(self.case, self.event)

    @property
    def origin(self) -> Origin:
        """Whether its alleged sender sent it."""
        return origin_of(self.case, self.event)

    @property
    def harm(self) -> str:
        """What was lost by it, as far as packets show: data that was under way; empty if it did nothing.

        What lay unread in a receive queue is lost too, and no packet shows it.
        """
        case = self.case
        if all(by is not self.event for _, by in case.endings) or not all(map(case.synchronized, ENDS)):
            return ""
        closes = [case.close(end) for end in ENDS]
        if all(one.acked is not None and one.acked.time_ns <= self.event.time_ns for one in closes):
            return "after both FINs were acknowledged"
        lost = {end: self._lost(end) for end in ENDS}
        parts = [f"{count(n, 'byte')} of the {end}" for end, n in lost.items() if n is not None and n > 0]
        if parts:
            return f"with {listed(parts)} never acknowledged"
        if any(n is None for n in lost.values()) or not any(map(self.bytes_sent, ENDS)):
            return ""
        return "after all data was acknowledged"

    def _lost(self, end: End) -> int | None:
        """Return how much of what an endpoint sent before it was never acknowledged; None if unknown."""
        if state_before(self.case, self.event, end) is State.CLOSED:
            return 0  # before, and not by this one
        sent = acked = None
        for step in self.case.conversation.steps:
            if isinstance(step, Traffic):
                past, ack = step.of(end).end, step.of(end.peer).ack
                until = step.of(end).last_ns
            else:
                own, foreign = step.sender is end, step.rst and (self.origin.foreign or step.ack is None)
                past = step.end - step.fin if own and not step.rst else None
                ack, until = (None if own or foreign else step.ack), step.time_ns
            if past is not None and until <= self.event.time_ns:
                sent = past if sent is None else max(sent, past)
            if ack is not None:
                acked = ack if acked is None else max(acked, ack)
        if sent is None or acked is None:
            return None
        return max(sent - acked, 0)

    @cached
    def before(self) -> tuple[Event | Traffic, ...]:
        """The conversation's steps before it."""
        steps = self.case.conversation.steps
        return steps[: steps.index(self.event)]

    @cached
    def answered(self) -> Answered | None:
        """The segment that a RST answers: a bare one takes its number from there (RFC 9293 3.10.7.1).

        Of several it is the last that its sender can have received, by its distance. A RST with ACK can only
        answer the last.
        """
        received = [step for step in self.before if self._is_from_peer(step)]
        fitting = [
            a for step in received[-1 if self.aborts else 0 :] if (a := self._fitting(step)) is not None
        ]
        distance = self.case.timeline.distance
        least = None if distance is None else distance.least_ns[self.sender]
        in_time = [a for a in fitting if least is None or self.event.time_ns - a.time_ns >= least]
        return next(reversed(in_time or fitting), None)

    @property
    def had_no_part(self) -> bool:
        """Whether it is the first of its sender, which had never opened."""
        return self.state in NO_SOCKET and not any(map(self._is_own, self.before))

    def _is_own(self, step: Event | Traffic) -> bool:
        if isinstance(step, Traffic):
            return bool(step.of(self.sender))
        return step.sender is self.sender and not step.rst

    @property
    def answered_syn(self) -> bool:
        """Whether its sender had sent a SYN of its own: then it had a socket."""
        return any(event.syn and event.sender is self.sender for event in self._events_before)

    @property
    def _events_before(self) -> list[Event]:
        return [step for step in self.before if isinstance(step, Event)]

    def _is_from_peer(self, step: Event | Traffic) -> bool:
        if isinstance(step, Traffic):
            return bool(step.of(self.peer))
        return step.sender is self.peer and not step.rst

    def _fitting(self, step: Event | Traffic) -> Answered | None:
        """Return the segment that it answers, if that is in this step of its peer."""
        if isinstance(step, Traffic):
            stream = step.of(self.peer)
            data = or_0(stream.end) > or_0(step.of(self.sender).ack) and stream.bytes > 0
            fits = stream.ack == self.event.seq
            return Answered(stream.last_packet, stream.last_ns, data=data) if fits else None
        if step.ack != self.event.seq and not (step.ack is None and step.syn and not self.answered_syn):
            return None
        acks, data = step.ack is not None, step.length > 0
        return Answered(step.packet, step.time_ns, data=data, syn=step.syn, acks=acks, pure_ack=step.pure_ack)

    def bytes_sent(self, end: End) -> int:
        """Return how much data an endpoint had sent before it, in bytes."""
        return sum(
            step.of(end).bytes if isinstance(step, Traffic) else step.length * (step.sender is end)
            for step in self.before
        )

    @cached
    def replied(self) -> bool:
        """Whether its sender sent data after the peer's last data."""
        for step in reversed(self.before):
            if isinstance(step, Traffic):
                own, other = step.of(self.sender), step.of(self.peer)
                if own.bytes and other.bytes:
                    return _sent_last_data(own, other)
                if own.bytes or other.bytes:
                    return bool(own.bytes)
            elif step.length:
                return step.sender is self.sender
        return False

    @cached
    def data_since_fin(self) -> bool:
        """Whether its peer sent data after its sender's FIN: no answer to that can be sent."""
        tries = self.case.close(self.sender).transmissions
        return bool(tries) and any(
            bool(step.of(self.peer).bytes) and step.of(self.peer).last_packet > tries[0].packet
            if isinstance(step, Traffic)
            else step.sender is self.peer and step.length > 0 and step.packet > tries[0].packet
            for step in self.before
        )

    @cached
    def retransmissions_in_vain(self) -> int:
        """How many segments its sender retransmitted at the end, where data of it was never acknowledged."""
        if not self._lost(self.sender):
            return 0
        number = 0
        for step in reversed(self.before):
            if isinstance(step, Traffic):
                if self._is_own(step):
                    return number + step.of(self.sender).retransmissions
            elif self._is_own(step):
                if step.position not in (Position.RETRANSMISSION, Position.OVERLAP):
                    break
                number += 1
        return number

    @cached
    def spoke_first(self) -> bool:
        """Whether its sender sent the connection's first data."""
        for step in self.before:
            if isinstance(step, Traffic):
                own, other = step.of(self.sender), step.of(self.peer)
                if own.bytes and other.bytes:
                    return own.first_packet < other.first_packet
                if own.bytes or other.bytes:
                    return bool(own.bytes)
            elif step.length:
                return step.sender is self.sender
        return False

    @cached
    def in_vain(self) -> Unanswered | None:
        """What its sender had sent before in vain."""
        return unanswered(self.case, self.sender, self.before)

    @property
    def persisted(self) -> bool:
        """Whether its sender had tried so often that giving up is the obvious cause."""
        return self.in_vain is not None and self.in_vain.enough

    @property
    def instead_of_fin(self) -> bool:
        """Whether its sender had sent its FIN again, and the next retransmission was due (RFC 6298 5.5)."""
        tries = [e for e in self.case.close(self.sender).transmissions if e.packet < self.event.packet]
        if len(tries) < 2:  # noqa: PLR2004 - it takes two to see the distance
            return False
        earlier, last = tries[-2:]
        return self.event.time_ns - last.time_ns >= last.time_ns - earlier.time_ns

    @cached
    def challenged(self) -> Answered | None:
        """The challenge ACK that it answers."""
        asked = self.answered
        acks = {ack.packet for _, ack in self.case.challenges}
        return asked if asked is not None and asked.packet in acks else None

    @cached
    def closed_before(self) -> bool:
        """Whether its sender had sent FIN before."""
        close = self.case.close(self.sender)
        return bool(close) and close.began < (self.event.time_ns, self.event.packet)

    @cached
    def fin_wait_2(self) -> Stay | None:
        """Its sender's stay in FIN_WAIT_2 before it; None without one."""
        stays = self.case.stays(self.sender, State.FIN_WAIT_2)
        return next((stay for stay in stays if stay.since_ns <= self.event.time_ns), None)


def _sent_last_data(own: Stream, other: Stream) -> bool:
    """Whether the last data of a stretch in which both sent some are an endpoint's own.

    Whoever sent last sent data, which call for an answer; or only acknowledged, and so the other's data.
    """
    last = own if own.last_packet > other.last_packet else other
    return (last is own) == bool(last.unanswered)
