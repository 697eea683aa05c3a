"""From events to both ends' states: collect what each end sent and received, then follow the table.

The replay is a pure function of the conversation, the timers and the moment for which it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from closeseq.connections.conversation import Conversation, End, Event, Opener
from closeseq.packets.flags import ACK, FIN, PSH, SYN
from closeseq.tcp.delivery import (
    FIRST_TIMEOUT_NS,
    Evidence,
    Receipt,
    Said,
    accepted,
    acknowledged,
    echo,
    reset_taken,
    resets,
)
from closeseq.tcp.states import TRANSITIONS, Signal, State, follow
from closeseq.tcp.timeline import Arrival, Certainty, Step, Timeline, Transition
from closeseq.tcp.timers import Timers

# The order in which one segment is worked off (RFC 9293 3.10.7.4): what had arrived before it was sent,
# the sending itself, and at the receiver RST, SYN, ACK, FIN.
BEFORE, SENDING, RESET, SYNCHRONIZE, ACKNOWLEDGE, FINISH, LATER = range(7)


@dataclass(frozen=True, slots=True)
class Happening:
    """One signal to one end, with its place in the order of things."""

    step: int
    phase: int
    endpoint: End
    signal: Signal
    packet: int
    time_ns: int
    certainty: Certainty
    cause: str | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.step, self.phase


def replay(conversation: Conversation, timers: Timers, now_ns: int) -> Timeline:
    """Return both ends' states through a connection, as known at `now_ns` (since the Unix epoch)."""
    evidence = Evidence(conversation, now_ns)
    happenings = sorted(_happenings(evidence), key=lambda h: h.order)
    machine = _Machine(evidence, timers)
    for happening in happenings:
        machine.take(happening)
    machine.let_time_pass(now_ns)
    return machine.timeline()


def _happenings(evidence: Evidence) -> Iterator[Happening]:
    for sender in End:
        yield from _alive(evidence, sender)
        yield from _synchronize(evidence, sender)
        yield from _finish(evidence, sender)
    for sender, said in resets(evidence):
        yield from _reset(evidence, sender, said)


def _receipt(receipt: Receipt, phase: int, endpoint: End, signal: Signal, cause: str | None = None) -> Happening:
    return Happening(
        receipt.step,
        BEFORE if receipt.before else phase,
        endpoint,
        signal,
        receipt.packet,
        receipt.time_ns,
        receipt.certainty,
        cause,
    )


def _alive(evidence: Evidence, sender: End) -> Iterator[Happening]:
    """An end whose beginning was not captured shows by speaking that it is at least ESTABLISHED."""
    said = next((s for s in evidence.said[sender] if not s.reset), None)
    if said is not None and (said.event is None or not said.event.syn):
        yield Happening(
            said.step, BEFORE, sender, Signal.IS_ALIVE, said.packet, said.first_ns, Certainty.ASSUMED
        )


def _synchronize(evidence: Evidence, sender: End) -> Iterator[Happening]:
    copies = evidence.copies(sender, SYN)
    if copies and copies[0].event is not None:
        first = copies[0]
        assert first.event is not None
        if not first.event.flags & ACK:
            yield Happening(
                first.step, SENDING, sender, Signal.SENDS_SYN, first.packet, first.first_ns, Certainty.OBSERVED
            )
        number_end = first.event.seq + 1
        signal = Signal.RECEIVES_SYN_ACK if first.event.flags & ACK else Signal.RECEIVES_SYN
    elif evidence.conversation.opener is Opener.SEEN:
        number_end, signal = 1, Signal.RECEIVES_SYN if sender is End.CLIENT else Signal.RECEIVES_SYN_ACK
    else:
        return
    receipt = accepted(evidence, sender, number_end, copies)
    if receipt is not None:
        yield _receipt(receipt, SYNCHRONIZE, sender.peer, signal)
    heard = acknowledged(evidence, sender, number_end, copies)
    if heard is not None:
        yield _receipt(heard, ACKNOWLEDGE, sender, Signal.RECEIVES_ACK_OF_SYN)
    beyond = next((s for s in evidence.said[sender] if s.end > number_end and not s.reset), None)
    if beyond is not None and (not copies or beyond.step > copies[0].step):
        # Data beyond its SYN: an end in SYN_RECEIVED must have received the ACK (but for Fast Open).
        yield Happening(
            beyond.step,
            BEFORE,
            sender,
            Signal.RECEIVES_ACK_OF_SYN,
            beyond.packet,
            beyond.first_ns,
            Certainty.ASSUMED,
        )


@dataclass(frozen=True, slots=True)
class _Fin:
    end: int
    copies: list[Said]
    sent: Happening


def _fin(evidence: Evidence, sender: End) -> _Fin | None:
    """Find an end's FIN: captured, or betrayed by a segment that could only follow it."""
    copies = evidence.copies(sender, FIN)
    if not copies:
        return _fin_never_captured(evidence, sender)
    number_end, first = copies[0].end, copies[0]
    betrayals = [
        s for s in evidence.before(sender, first.step) if s.seq is not None and s.seq >= number_end and not s.reset
    ]
    covers = [
        s
        for s in evidence.before(sender.peer, first.step)
        if s.ack is not None and s.ack >= number_end and not s.reset
    ]
    seen = min(betrayals[:1] + covers[:1], key=lambda s: s.step, default=None)
    if seen is None and _sent_by_probe_timer(first):
        sent = _waiting(evidence, sender, first)
    elif seen is None:
        sent = Happening(
            first.step, SENDING, sender, Signal.SENDS_FIN, first.packet, first.first_ns, Certainty.OBSERVED
        )
    else:
        sent = Happening(
            seen.step, BEFORE, sender, Signal.SENDS_FIN, seen.packet, seen.first_ns, Certainty.PROVED,
            "had sent a FIN that was not captured",
        )  # fmt: skip
    return _Fin(number_end, copies, sent)


def _sent_by_probe_timer(fin: Said) -> bool:
    """Whether a FIN had waited unsent: Linux marks what its probe timer sends with PSH, data or not."""
    return fin.event is not None and bool(fin.event.flags & PSH) and fin.event.length == 0


def _waiting(evidence: Evidence, sender: End, fin: Said) -> Happening:
    """Put the close as late as the probe timer allows: that long before its FIN was captured."""
    own = evidence.before(sender, fin.step)[-1:]  # what it sent before it closed
    since = max([fin.first_ns - PROBE_TIMER_NS, *(s.last_ns for s in own)])
    heard = [s for s in evidence.before(sender.peer, fin.step) if s.first_ns <= since]
    step = max((s.step for s in [*own, *heard]), default=fin.step)
    time_ns = since if step < fin.step else fin.first_ns
    return Happening(
        step, SENDING if step == fin.step else LATER, sender, Signal.SENDS_FIN, fin.packet, time_ns,
        Certainty.ASSUMED, "had closed: its FIN was waiting to be sent",
    )  # fmt: skip


def _fin_never_captured(evidence: Evidence, sender: End) -> _Fin | None:
    """Find a FIN that only its number betrays: one past all that was captured, and nothing came after.

    A single byte of data would leave the same trace, so this is never more than assumed.
    """
    end = None
    for said in evidence.said[sender]:
        if end is not None and said.event and said.event.pure_ack and said.event.seq == end + 1:
            if all(s.end <= said.event.seq for s in evidence.after(sender, said.step)):
                return _Fin(end + 1, [], _betrayed(said, sender))
            return None
        if not said.reset:
            end = said.end if end is None else max(end, said.end)
    if end is None:
        return None
    for said in evidence.said[sender.peer]:
        if said.ack == end + 1 and not said.reset:
            return _Fin(end + 1, [], _betrayed(said, sender))
    return None


def _betrayed(said: Said, sender: End) -> Happening:
    return Happening(
        said.step, BEFORE, sender, Signal.SENDS_FIN, said.packet, said.first_ns, Certainty.ASSUMED,
        "had sent a FIN that was not captured",
    )  # fmt: skip


def _finish(evidence: Evidence, sender: End) -> Iterator[Happening]:
    fin = _fin(evidence, sender)
    if fin is None:
        return
    receipt = accepted(evidence, sender, fin.end, fin.copies)
    if receipt is not None:
        had_closed, open_still = _when_closed(evidence, sender.peer, receipt)
        if had_closed is not None:
            yield had_closed
        happening = _receipt(receipt, FINISH, sender.peer, Signal.RECEIVES_FIN)
        yield happening if open_still else replace(happening, certainty=Certainty.ASSUMED)
        own = _fin(evidence, sender.peer)
        taken = next((s for s in fin.copies if s.packet == receipt.packet), None)
        if own is not None and taken is not None and taken.ack is not None and taken.ack >= own.end:
            # The FIN it took also acknowledges its own: RFC 9293 3.10.7.4, the ACK goes before the FIN.
            yield _receipt(receipt, ACKNOWLEDGE, sender.peer, Signal.RECEIVES_ACK_OF_FIN)
    yield fin.sent
    heard = acknowledged(evidence, sender, fin.end, fin.copies)
    if heard is not None:
        yield _receipt(heard, ACKNOWLEDGE, sender, Signal.RECEIVES_ACK_OF_FIN)


# One run through the kernel's receive path answers and sends within this; no program reacts as fast.
SAME_BREATH_NS = 20_000
PROGRAM_NS = 1_000_000
# Linux sends what waits unsent when its probe timer ends, at the earliest 0.2 s after it began to wait
# (the timer wheel may add an eighth), and marks it with PSH.
PROBE_TIMER_NS = 200_000_000
PROBE_TIMER_SLACK_NS = 25_000_000


def _when_closed(evidence: Evidence, end: End, receipt: Receipt) -> tuple[Happening | None, bool]:
    """Say whether an end that took its peer's FIN had closed before, with its own FIN still unsent.

    A FIN can wait: behind a closed window, or for a path on which the packet was dropped before the
    capture point. Returns the close that had been before (assumed), if its FIN gives it away, and
    whether it is certain that there was none.
    """
    copies = evidence.copies(end, FIN)
    first = copies[0] if copies else None
    if first is not None and first.step <= receipt.step:
        return None, True
    spoken = [s for s in evidence.after(end, receipt.step) if not s.reset and s.ack is not None]
    fin = first.event if first is not None else None
    flushed = False
    if fin is not None and first is not None:
        probed = (
            _sent_by_probe_timer(first)
            and fin.time_ns - receipt.time_ns < PROBE_TIMER_NS + PROBE_TIMER_SLACK_NS
        )
        before = spoken[0]
        breath = (
            before.step < first.step
            and fin.time_ns - before.first_ns < SAME_BREATH_NS
            and before.first_ns - receipt.time_ns < 4 * SAME_BREATH_NS
        )
        flushed = probed or breath
    if flushed:
        return Happening(
            receipt.step, BEFORE if receipt.before else ACKNOWLEDGE, end, Signal.SENDS_FIN, receipt.packet,
            receipt.time_ns, Certainty.ASSUMED, "had closed before: its FIN was waiting to be sent",
        ), False  # fmt: skip
    quick = first is None or not spoken or first.first_ns - spoken[0].first_ns < PROGRAM_NS
    if first is not None:
        return None, not quick and not _sent_by_probe_timer(first)
    waited = bool(spoken) and evidence.now_ns - spoken[0].first_ns > FIRST_TIMEOUT_NS
    return None, waited


def _reset(evidence: Evidence, sender: End, said: Said) -> Iterator[Happening]:
    assert said.event is not None
    if not any(not s.reset for s in evidence.after(sender, said.step)):
        # A RST with ACK aborts. One without is the answer of an end that had no such connection any
        # more (RFC 9293 3.10.7.1), and does not tell since when.
        aborts = bool(said.event.flags & ACK)
        yield Happening(
            said.step, SENDING, sender, Signal.SENDS_RST, said.packet, said.first_ns,
            Certainty.OBSERVED if aborts else Certainty.ASSUMED,
            None if aborts else "answered with RST: it no longer had this connection",
        )  # fmt: skip
    receipt = reset_taken(evidence, said, sender)
    if receipt is not None:
        yield _receipt(receipt, RESET, sender.peer, Signal.RECEIVES_RST)


class _Machine:
    """Both ends' states while the happenings are followed."""

    def __init__(self, evidence: Evidence, timers: Timers) -> None:
        self.evidence = evidence
        self.timers = timers
        began = evidence.conversation.opener is Opener.SEEN
        self.state = {
            End.CLIENT: State.CLOSED if began else State.UNKNOWN,
            End.SERVER: State.LISTEN if began else State.UNKNOWN,
        }
        self.expiries: dict[End, int] = {}
        self.transitions: list[Transition] = []
        self.by_step: dict[int, list[Transition]] = {}

    def take(self, happening: Happening) -> None:
        self.let_time_pass(happening.time_ns)
        self._move(happening.endpoint, happening.signal, happening)

    def _move(self, endpoint: End, signal: Signal, happening: Happening) -> None:
        before = self.state[endpoint]
        after = follow(before, signal)
        if after is before:
            return
        transition = Transition(
            happening.packet, happening.time_ns, endpoint, before, after,
            happening.cause or signal.value, happening.certainty,
        )  # fmt: skip
        self.state[endpoint] = after
        self.transitions.append(transition)
        self.by_step.setdefault(happening.step, []).append(transition)
        self.expiries.pop(endpoint, None)
        if after is State.TIME_WAIT:
            self.expiries[endpoint] = happening.time_ns + self.timers.time_wait_ns
        elif after is State.FIN_WAIT_2:
            self.expiries[endpoint] = happening.time_ns + self.timers.fin_timeout_ns

    def let_time_pass(self, now_ns: int) -> None:
        for endpoint in list(self.expiries):
            due = self.expiries[endpoint]
            if due >= now_ns:
                continue
            if any(not s.reset and s.last_ns > due for s in self.evidence.said[endpoint]):
                continue  # it was still there later
            before = self.state[endpoint]
            self.state[endpoint] = State.CLOSED
            del self.expiries[endpoint]
            self.transitions.append(
                Transition(None, due, endpoint, before, State.CLOSED, "timer ran out", Certainty.TIMER)
            )

    def timeline(self) -> Timeline:
        conversation = self.evidence.conversation
        began = conversation.opener is Opener.SEEN
        state = {
            End.CLIENT: State.CLOSED if began else State.UNKNOWN,
            End.SERVER: State.LISTEN if began else State.UNKNOWN,
        }
        steps = []
        for index, what in enumerate(conversation.steps):
            made = tuple(self.by_step.get(index, ()))
            for transition in made:
                state[transition.endpoint] = transition.after
            steps.append(
                Step(
                    what,
                    conversation.first_ns,
                    state[End.CLIENT],
                    state[End.SERVER],
                    Arrival.ASSUMED if isinstance(what, Event) else None,
                    None,
                    made,
                )
            )
        return Timeline(
            conversation, tuple(steps), tuple(self.transitions), self.evidence.now_ns, dict(self.expiries)
        )


__all__ = ["TRANSITIONS", "echo", "replay"]
