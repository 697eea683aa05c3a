"""From events to both ends' states: collect what each end sent and received, then follow the table.

The replay is a pure function of the conversation, the timers and the moment for which it is asked.
The whole conversation is read before a state is assigned, because later segments tell what became of
earlier ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Conversation, End, Opener
from closeseq.packets.segments import ACK, SYN
from closeseq.tcp import fins, rst
from closeseq.tcp.arrivals import arrivals
from closeseq.tcp.delivery import Receipt, accepted, acknowledged, unsettled
from closeseq.tcp.distance import Knowledge
from closeseq.tcp.evidence import Evidence, SentSegment
from closeseq.tcp.machine import (
    ACKNOWLEDGE,
    ALIVE,
    BEFORE,
    FINISH,
    LATER,
    RESET,
    SENDING,
    SYNCHRONIZE,
    Machine,
    PlacedSignal,
    SignalKind,
)
from closeseq.tcp.sender import without_socket
from closeseq.tcp.states import Signal
from closeseq.tcp.timeline import Certainty, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.settings import Timers


PHASES = {-1: BEFORE, 0: SENDING, 1: LATER}  # by `Sent.when`


def replay(conversation: Conversation, timers: Timers, now_ns: int) -> Timeline:
    """Return both ends' states through a connection, as known at `now_ns` (since the Unix epoch)."""
    evidence = Evidence(conversation, now_ns)
    machine = Machine(evidence, timers)
    for happening in sorted(_happenings(evidence), key=lambda h: h.order):
        machine.take(happening)
    machine.let_time_pass(now_ns)
    return machine.timeline(arrivals(evidence))


def _happenings(evidence: Evidence) -> Iterator[PlacedSignal]:
    for sender in ENDS:
        yield from _alive(evidence, sender)
        yield from _synchronize(evidence, sender)
        yield from _finish(evidence, sender)
        for said in evidence.said[sender]:
            if said.reset:
                yield from _reset(evidence, sender, said)
    yield from _succeeded(evidence)


def _sent(
    said: SentSegment,
    sender: End,
    signal: Signal,
    certainty: Certainty,
    cause: str | None = None,
    *,
    phase: int = SENDING,
) -> PlacedSignal:
    return PlacedSignal(said.step, phase, sender, signal, said.packet, said.first_ns, certainty, cause)


def _received(
    receipt: Receipt, phase: int, endpoint: End, signal: Signal, certainty: Certainty | None = None
) -> PlacedSignal:
    """Return a signal that an end takes; as sure as its receipt, unless said otherwise."""
    return PlacedSignal(
        receipt.step,
        BEFORE if receipt.before else phase,
        endpoint,
        signal,
        receipt.packet,
        receipt.time_ns,
        certainty or receipt.certainty,
    )


def _also(receipt: Receipt, endpoint: End, signal: Signal) -> Iterator[PlacedSignal]:
    """Yield where else a signal may have been taken, and by when it had been for sure."""
    phase = ACKNOWLEDGE if signal in (Signal.RECEIVES_ACK_OF_FIN, Signal.RECEIVES_ACK_OF_SYN) else FINISH
    for step, said in receipt.or_with:
        yield PlacedSignal(
            step, phase, endpoint, signal, said.packet, said.first_ns, Certainty.ASSUMED, kind=SignalKind.MAY
        )
    if receipt.shown is not None and receipt.certainty is Certainty.ASSUMED:
        shown = receipt.shown
        # An ACK that surely arrived shows it when it arrives; what shows another signal is sent after it.
        phase = ACKNOWLEDGE if shown.sender is not endpoint else BEFORE
        step = max(shown.step, receipt.step)
        yield PlacedSignal(
            step,
            phase,
            endpoint,
            signal,
            shown.packet,
            shown.first_ns,
            Certainty.PROVED,
            kind=SignalKind.SHOWN,
        )


def _alive(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """An end whose beginning was not captured shows by speaking that it is at least ESTABLISHED."""
    said = next((s for s in evidence.said[sender] if not s.reset), None)
    if said is not None and (said.event is None or not said.event.syn):
        yield _sent(said, sender, Signal.IS_ALIVE, Certainty.ASSUMED, phase=ALIVE)


def _synchronize(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """Yield what an end's SYN does, at itself and at its peer."""
    copies = evidence.copies(sender, SYN)
    if copies and copies[0].event is not None:
        first = copies[0].event
        answers = bool(first.flags & ACK)
        number_end = first.seq + 1
        if not answers:
            yield _sent(copies[0], sender, Signal.SENDS_SYN, Certainty.OBSERVED)
    elif evidence.conversation.opener is Opener.SEEN:
        answers, number_end = sender is End.SERVER, 1  # it was not captured, but there must have been one
        answer = next((s for s in evidence.said[sender.peer] if s.ack is not None and not s.reset), None)
        if not answers and answer is not None:
            why = "had sent a SYN that was not captured"
            yield _sent(answer, sender, Signal.SENDS_SYN, Certainty.PROVED, why, phase=BEFORE)
    else:
        return
    taken = accepted(evidence, sender, number_end, copies)
    if taken is not None:
        signal = Signal.RECEIVES_SYN_ACK if answers else Signal.RECEIVES_SYN
        yield _received(taken, SYNCHRONIZE, sender.peer, signal)
    heard = acknowledged(evidence, sender, number_end, copies)
    if heard is not None:
        yield _received(heard, ACKNOWLEDGE, sender, Signal.RECEIVES_ACK_OF_SYN)
    beyond = next((s for s in evidence.said[sender] if s.end > number_end and not s.reset), None)
    if beyond is None or (copies and beyond.step <= copies[0].step):
        return
    if heard is not None and heard.step <= beyond.step:
        return
    if not _opened_with_data(evidence, sender.peer, beyond):
        # Data beyond its SYN: an end in SYN_RECEIVED must have received the ACK (but for RFC 7413,
        # Fast Open, so this is not proved).
        yield _sent(beyond, sender, Signal.RECEIVES_ACK_OF_SYN, Certainty.ASSUMED, phase=BEFORE)


def _opened_with_data(evidence: Evidence, end: End, until: SentSegment) -> bool:
    """Whether an end's SYN had data, and nothing more came from it until a segment of its peer.

    Then the peer may send, and close, before the handshake is complete (RFC 7413 4.2.2).
    """
    sent = [s for s in evidence.before(end, until.step) if not s.reset]
    return bool(sent) and all(s.opens for s in sent) and any(s.bytes for s in sent)


def _finish(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """Yield what an end's FIN does, at itself and at its peer."""
    fin = fins.find(evidence, sender)
    if fin is None:
        return
    taken = accepted(evidence, sender, fin.end, fin.copies)
    if taken is not None:
        taken = _after_own_ack(evidence, sender.peer, fin, taken)
        yield from _fin_taken(evidence, sender.peer, fin, taken)
    yield _closed(fin.sent, sender, None if _seen_open(evidence, sender.peer) else Certainty.ASSUMED)
    heard = acknowledged(evidence, sender, fin.end, fin.copies)
    if heard is not None:
        yield _received(heard, ACKNOWLEDGE, sender, Signal.RECEIVES_ACK_OF_FIN)
        yield from _also(heard, sender, Signal.RECEIVES_ACK_OF_FIN)


def _seen_open(evidence: Evidence, end: End) -> bool:
    """Whether an end is known not to have closed before the capture began: it opened, or had more to say."""
    if evidence.conversation.opener is Opener.SEEN:
        return True
    return any(s.end > (s.seq or 0) if s.event else s.bytes for s in evidence.said[end] if not s.reset)


def _fin_taken(evidence: Evidence, receiver: End, fin: fins.Fin, taken: Receipt) -> Iterator[PlacedSignal]:
    """Yield what an end does when it takes its peer's FIN, and when that comes again."""
    before = fins.closed_before(evidence, receiver, taken)
    if before is not None:
        yield _closed(before, receiver)
    # It was there to take it, also where its beginning was not captured.
    alive = (Signal.IS_ALIVE, taken.packet, taken.time_ns, Certainty.ASSUMED)
    yield PlacedSignal(taken.step, ALIVE, receiver, *alive)
    certainty = None if fin.copies else Certainty.ASSUMED
    received = _received(taken, FINISH, receiver, Signal.RECEIVES_FIN, certainty)
    if not fins.surely_open(evidence, receiver, taken):
        yield replace(
            received, phase=min(received.phase, SENDING), signal=Signal.SENDS_FIN, kind=SignalKind.MAY
        )
    yield from _overtaken(evidence, received, taken)
    yield received
    yield from _also(taken, receiver, Signal.RECEIVES_FIN)
    own = fins.find(evidence, receiver)
    copy = next((s for s in fin.copies if s.packet == taken.packet), None)
    if own is not None and copy is not None and copy.ack is not None and copy.ack >= own.end:
        # The FIN it took also acknowledges its own (RFC 9293 3.10.7.4: the ACK goes before the FIN).
        yield _received(taken, ACKNOWLEDGE, receiver, Signal.RECEIVES_ACK_OF_FIN)
    for again in fin.copies:
        if again.step > taken.step:  # to TIME_WAIT it means that 2MSL starts again
            yield _received(Receipt.of(again, Certainty.ASSUMED), FINISH, receiver, Signal.RECEIVES_FIN)


def _after_own_ack(evidence: Evidence, receiver: End, fin: fins.Fin, taken: Receipt) -> Receipt:
    """Return the receipt of a FIN, put after the ACK of its receiver's own FIN where that had come before.

    Linux acknowledges the FIN with the socket's number in CLOSING, and without a socket in TIME_WAIT.
    """
    own, shown = fins.find(evidence, receiver), taken.shown
    if own is None or shown is None or not without_socket(evidence, receiver, shown):
        return taken
    heard = acknowledged(evidence, receiver, own.end, own.copies)
    if heard is None or not taken.step < heard.step < shown.step:
        return taken
    if any(taken.step < s.step < shown.step for s in fin.copies):
        return taken  # it may have acknowledged the first one unseen
    return replace(taken, step=heard.step, time_ns=heard.time_ns, certainty=Certainty.ASSUMED)


def _overtaken(evidence: Evidence, received: PlacedSignal, taken: Receipt) -> Iterator[PlacedSignal]:
    """Yield that the ACK of an end's own FIN may have come before the peer's FIN, though it passed after it.

    It overtook it beyond the capture point, unless what shows that the FIN was taken was sent without it.
    """
    receiver, shown = received.endpoint, taken.shown
    own = fins.find(evidence, receiver)
    if own is None or shown is None:
        return
    between = (s for s in evidence.after(receiver.peer, taken.step) if s.step < shown.step and not s.reset)
    for s in between:
        lost = any(c.step > s.step and evidence.knew(c, s) is Knowledge.MUST for c in own.copies)
        covers = s.ack is not None and s.ack >= own.end
        if covers and not lost and evidence.knew(shown, s) is not Knowledge.CANNOT:
            yield replace(
                received,
                phase=min(received.phase, ACKNOWLEDGE),  # after its own FIN, where that passes in this step
                signal=Signal.RECEIVES_ACK_OF_FIN,
                certainty=Certainty.ASSUMED,
                kind=SignalKind.MAY,
            )
            return


def _closed(sent: fins.FinTime, end: End, certainty: Certainty | None = None) -> PlacedSignal:
    """Return the close of an end; as sure as is known when it sent its FIN, unless said otherwise."""
    phase = PHASES[sent.when]
    sure = certainty or sent.certainty
    return PlacedSignal(sent.step, phase, end, Signal.SENDS_FIN, sent.packet, sent.time_ns, sure, sent.why)


def _reset(evidence: Evidence, sender: End, said: SentSegment) -> Iterator[PlacedSignal]:
    """Yield what a RST does at its sender and at its receiver."""
    if all(s.reset for s in evidence.after(sender, said.step)):
        if said.aborts:
            # What it sent is observed; from which state, only if that is settled.
            open_question = unsettled(evidence, sender, said.step)
            certainty = Certainty.ASSUMED if open_question else Certainty.OBSERVED
            yield _sent(said, sender, Signal.SENDS_RST, certainty)
        else:
            # RFC 9293 3.10.7.1: it had no such connection, and does not tell since when.
            why = "answered with RST: it no longer had this connection"
            step, time_ns = rst.gone_since(evidence, sender, said)
            phase, since_ns = (SENDING, said.first_ns) if step == said.step else (LATER, time_ns)
            yield PlacedSignal(
                step, phase, sender, Signal.SENDS_RST, said.packet, since_ns, Certainty.ASSUMED, why
            )
    taken = rst.taken(evidence, said, sender)
    if taken is not None:
        yield _received(taken, RESET, sender.peer, Signal.RECEIVES_RST)


def _succeeded(evidence: Evidence) -> Iterator[PlacedSignal]:
    """A SYN that opens the next connection of the pair ends what TIME_WAIT remembers of this one."""
    successor = evidence.conversation.successor
    if successor is not None:
        last = len(evidence.conversation.steps)
        for end in ENDS:
            yield PlacedSignal(
                last, LATER, end, Signal.IS_SUCCEEDED, successor.packet, successor.time_ns, Certainty.ASSUMED
            )
