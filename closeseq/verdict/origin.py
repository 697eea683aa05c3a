"""Did a RST come from the endpoint whose address it has? The signs that it did not, each with its worth.

Most RSTs do, and then there is no sign, or a weak one. A sign *proves* if no TCP of that endpoint can have
made it. What a number shows alone (a TTL, an identification) never does: an endpoint may send RSTs another
way than data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Event, Position, Traffic
from closeseq.packets.value import cached, or_0, value
from closeseq.settings import SECOND
from closeseq.tcp import rst
from closeseq.tcp.rst import SOON_BEFORE_NS
from closeseq.tcp.states import State
from closeseq.units import count, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.verdict.case import Case

# How far an IP id may run ahead between two packets of one connection; the ids of one socket count up.
ID_STRIDE = 1024
FEWEST_ANSWERS = 3  # of an endpoint, before the least of them means anything
SOON, FAR_TOO_SOON = 2, 10  # times sooner than the least answer: a sign, and a proof
MOMENT_NS = 1_000_000  # in which a capture may mix up the order
AFTERWARDS_NS = SECOND  # no RST overtakes another segment of its sender by so much
# In these a TCP has the connection, and has no more of it once it has sent a RST.
OPEN = frozenset({State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2})


@value
class Sign:
    """Something that speaks against a RST's being its alleged sender's."""

    text: str  # a clause
    weight: int  # the more the worse for the RST
    proves: bool = False  # whether no TCP of that endpoint can have made it


def origin_of(case: Case, reset: Event) -> Origin:
    """Return where a RST of a case came from; the case keeps it, for the verdict and findings ask for it.

    Args:
        case: the connection.
        reset: the RST, one of its events.
    """
    key = Origin, id(reset)
    found: Origin | None = case.cache.get(key)
    if found is None:
        found = case.cache[key] = Origin(case, reset)
    return found


class Origin:
    """Where a RST came from, as far as the packets show.

    Args:
        case: the connection.
        reset: the RST, one of its events.
    """

    def __init__(self, case: Case, reset: Event) -> None:
        self.case = case
        self.reset = reset
        self.sender, self.peer = reset.sender, reset.sender.peer
        steps = case.conversation.steps
        at = steps.index(reset)
        self._before, self._after = steps[:at], steps[at + 1 :]
        self.signs = tuple(self._signs())

    @cached
    def state(self) -> State:
        """The state of its alleged sender right before it."""
        return state_before(self.case, self.reset)

    @property
    def weight(self) -> int:
        """All signs together."""
        return sum(sign.weight for sign in self.signs)

    @property
    def foreign(self) -> bool:
        """Whether it is proved that its alleged sender did not send it."""
        return any(sign.proves for sign in self.signs)

    def _signs(self) -> Iterator[Sign]:
        others = [e for e in self.case.events if e.sender is self.sender and not e.rst]
        odd = [*self._other_ttl(others), *self._numbers(others)]
        weak = [*self._ip_id(others), *self._window()]
        goes_on = [*self._goes_on(supported=bool(odd))]
        yield from self._too_soon(supported=bool(odd or weak or goes_on or self.reset.elsewhere))
        yield from goes_on
        yield from self._elsewhere()
        yield from self._at_once(supported=bool(odd) or self.reset.elsewhere)
        yield from odd
        yield from weak

    def _too_soon(self, *, supported: bool) -> Iterator[Sign]:
        """It came sooner after what provoked it than its sender has ever answered."""
        path = self.case.conversation.path(self.sender)
        least = path.response_ns
        if least is None:
            return
        shown = self._provoked()
        if shown is None:
            return
        packet, since_ns, sure = shown
        waited = self.reset.time_ns - since_ns
        if SOON * waited >= least or waited < 0 or path.answers < FEWEST_ANSWERS:
            return
        distance = self.case.timeline.distance
        first = None if distance is None else distance.first_ns.get(self.sender)
        # A program may take its time for every answer, but its TCP answers a SYN, or a SYN+ACK, at once.
        if first is None or first > 2 * least:
            return
        sure = sure and not self.case.missing
        yield Sign(
            f"it came {span(waited)} after #{packet}, and the {self.sender} never answered within less than "
            f"{span(least)} ({count(path.answers, 'answer')})",
            4 if sure else 3,
            proves=sure and (supported or FAR_TOO_SOON * waited < least),
        )

    def _provoked(self) -> tuple[int, int, bool] | None:
        """Return the earliest that it can answer: packet, time, and whether nobody knew its number sooner.

        With ACK, it acknowledges what its sender must have received. A bare one has a number that its
        sender knew anyway, so that it may also have crossed the peer's segment.
        """
        reset = self.reset
        for step in self._before:
            if isinstance(step, Traffic):
                stream, own = step.of(self.peer), step.of(self.sender)
                past = stream.ack if reset.ack is None else stream.end
                if not stream or past is None or past < (reset.seq if reset.ack is None else reset.ack):
                    continue
                # Of a stretch only the last segment that calls for an answer has its time. What its sender
                # had acknowledged before cannot be what provoked it.
                new = own.ack is not None and reset.ack is not None and own.ack < reset.ack
                if new and stream.unanswered == 1 and not stream.retransmissions and not stream.gaps:
                    return stream.unanswered_packet, stream.unanswered_ns, True
                return stream.first_packet, stream.first_ns, False
            if step.sender is not self.peer or step.rst:
                continue
            if reset.ack is None and step.ack == reset.seq:
                return step.packet, step.time_ns, False
            if reset.ack is not None and step.end >= reset.ack:
                return step.packet, step.time_ns, step.position is Position.NEW
        return None

    def _goes_on(self, *, supported: bool) -> Iterator[Sign]:
        """Its alleged sender goes on as if nothing had happened: its TCP does not know of it."""
        first: int | None = None
        known = self._highest_end(self._before, self.peer)  # what the peer had sent when the RST passed
        acked = self._highest_ack(self._before)
        fresh: int | None = None  # the number of something new that the peer has sent since
        for step in self._after:
            own, own_ns, ack, new = self._of_sender(step)
            if isinstance(step, Event) and step.sender is self.sender and step.syn:
                break  # a new connection
            if fresh is None:
                fresh = self._fresh(step, known)
            if own is None or (isinstance(step, Event) and step.ack is None):
                continue
            first = own if first is None else first
            if fresh is not None and ack is not None and ack > fresh:
                yield self._acknowledges(own)
                return
            says = new or (ack is not None and acked is not None and ack > acked)
            if says and self.state in OPEN and own_ns - self.reset.time_ns >= AFTERWARDS_NS:
                yield self._talks(own, own_ns)
                return
        if first is not None:
            proves = supported and self.state in OPEN
            yield Sign(f"the {self.sender} itself goes on (#{first})", 4, proves=proves)

    def _of_sender(self, step: Event | Traffic) -> tuple[int | None, int, int | None, bool]:
        """Return what its alleged sender sent in a step: packet, time, acknowledgement, whether new data."""
        if isinstance(step, Traffic):
            stream = step.of(self.sender)
            new = stream.bytes > 0 and not stream.retransmissions
            return (
                (stream.first_packet, stream.first_ns, stream.ack, new) if stream else (None, 0, None, False)
            )
        if step.sender is not self.sender or step.rst:
            return None, 0, None, False
        return step.packet, step.time_ns, step.ack, step.position is Position.NEW and step.end > step.seq

    def _fresh(self, step: Event | Traffic, known: int) -> int | None:
        """Return the number of something that the peer sent after the RST, if this step holds some."""
        if isinstance(step, Traffic):
            stream = step.of(self.peer)
            if not stream or stream.end is None or stream.retransmissions or stream.gaps:
                return None
            number, past, time_ns = known, stream.end, stream.first_ns
        elif step.sender is self.peer and not step.rst and step.position is Position.NEW:
            number, past, time_ns = step.seq, step.end, step.time_ns
        else:
            return None
        later = time_ns - self.reset.time_ns > MOMENT_NS
        return number if later and past > number and number >= known else None

    def _acknowledges(self, packet: int) -> Sign:
        return Sign(
            f"the {self.sender} itself goes on: #{packet} acknowledges what the {self.peer} sent after it",
            6,
            proves=self.state in OPEN and not self.case.missing,
        )

    def _talks(self, packet: int, time_ns: int) -> Sign:
        after = span(time_ns - self.reset.time_ns)
        return Sign(f"the {self.sender} itself goes on {after} after it (#{packet})", 6, proves=True)

    def _elsewhere(self) -> Iterator[Sign]:
        """Its frame came another way than its sender's others: from another host, or from this very one."""
        if not self.reset.elsewhere:
            return
        conversation = self.case.conversation
        if conversation.path(self.sender).moves:
            return
        others = rst.other_frames(conversation, self.reset)
        yield Sign(
            f"its frame came another way than the {count(others, 'other frame')} of the {self.sender} "
            "(another MAC address, VLAN, interface or direction)",
            5,
            proves=rst.is_foreign(conversation, self.reset),
        )

    def _at_once(self, *, supported: bool) -> Iterator[Sign]:
        """Both endpoints get a RST at the same moment, much sooner than either could answer the other.

        Both may also have aborted by chance, or when the same time had run out, so this needs support.
        """
        path = [self.case.conversation.path(end) for end in (self.sender, self.peer)]
        least = [one.response_ns for one in path if one.response_ns is not None]
        if len(least) < len(path):
            return
        for other in self.case.resets:
            if other.sender is self.sender:
                continue
            apart = abs(other.time_ns - self.reset.time_ns)
            if apart <= MOMENT_NS and FAR_TOO_SOON * apart < min(least):
                enough = supported and all(one.answers >= FEWEST_ANSWERS for one in path)
                yield Sign(
                    f"the {self.sender} gets one at the same moment too (#{other.packet})", 3, proves=enough
                )
                return

    def _other_ttl(self, others: Sequence[Event]) -> Iterator[Sign]:
        ttls = [e.ttl for e in others]
        if ttls and all(self.reset.ttl != ttl for ttl in ttls):
            text = f"its TTL is {self.reset.ttl}, that of the {self.sender}'s other packets {min(ttls)}"
            yield Sign(text, 5)

    def _numbers(self, others: Sequence[Event]) -> Iterator[Sign]:
        """Its number is behind the data, or it is one of several with stepped numbers."""
        sent = self._highest_end(self._before, self.sender)
        if others and 0 < self.reset.seq < sent and not self._answers(self.reset):
            behind = count(sent - self.reset.seq, "byte")
            yield Sign(f"its number is {behind} behind what the {self.sender} had sent", 3)
        for other in self.case.resets:
            near = abs(other.time_ns - self.reset.time_ns) <= SOON_BEFORE_NS
            if other.sender is not self.sender or not near or other.seq == self.reset.seq:
                continue
            if (other.ack is None) == (self.reset.ack is None) and not self._answers(other):
                yield Sign(f"it is one of several with different numbers (#{other.packet})", 3)
                return

    def _answers(self, reset: Event) -> bool:
        """Whether a captured segment of the peer acknowledges just its number: a bare RST's is from there."""
        return reset.ack is None and any(
            step.of(self.peer).ack == reset.seq
            or (bool(step.of(self.peer)) and step.of(self.peer).segments > 1)
            if isinstance(step, Traffic)
            else step.sender is self.peer and not step.rst and step.ack == reset.seq
            for step in self.case.conversation.steps
        )

    def _ip_id(self, others: Sequence[Event]) -> Iterator[Sign]:
        before = [e.ip_id for e in others if e.packet < self.reset.packet and e.ip_id > 0]
        ip_id = self.reset.ip_id
        if ip_id > 0 and before and (ip_id - before[-1]) % 65536 > ID_STRIDE:
            text = f"its IP id {ip_id} does not continue the {self.sender}'s ({before[-1]})"
            yield Sign(text, 2)

    def _window(self) -> Iterator[Sign]:
        if self.reset.ack is None and self.reset.window:
            yield Sign(f"its window is {self.reset.window}, where a kernel sends 0", 1)

    @staticmethod
    def _highest_end(steps: Sequence[Event | Traffic], end: End) -> int:
        """Return the highest number past anything that an endpoint sent in these steps; 0 for nothing."""
        highest = 0
        for step in steps:
            if isinstance(step, Traffic):
                highest = max(highest, or_0(step.of(end).end))
            elif step.sender is end and not step.rst:
                highest = max(highest, step.end)
        return highest

    def _highest_ack(self, steps: Sequence[Event | Traffic]) -> int | None:
        highest: int | None = None
        for step in steps:
            ack = (
                step.of(self.sender).ack
                if isinstance(step, Traffic)
                else step.ack
                if step.sender is self.sender and not step.rst
                else None
            )
            if ack is not None:
                highest = ack if highest is None else max(highest, ack)
        return highest


def state_before(case: Case, reset: Event, end: End | None = None) -> State:
    """Return the state of an endpoint right before a RST.

    Args:
        case: the connection.
        reset: the RST.
        end: which endpoint; None for the RST's alleged sender.
    """
    end = end or reset.sender
    state = case.timeline.first_state(end)
    for t in case.transitions(end):
        if t.time_ns > reset.time_ns or t.packet == reset.packet:
            break
        state = t.after
    return state
