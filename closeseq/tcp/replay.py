"""From events to both endpoints' states: collect what each sent and received, then follow the table.

The replay is a pure function of the conversation, the timers and the moment for which it is asked.
The whole conversation is read before a state is assigned, because later segments show whether earlier ones
arrived.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Conversation, End, Opener
from closeseq.packets.segments import ACK, SYN
from closeseq.packets.value import or_0
from closeseq.tcp import fins, rst
from closeseq.tcp.acknowledgement import acknowledged, unsettled
from closeseq.tcp.arrivals import arrivals
from closeseq.tcp.delivery import Receipt, accepted
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

PHASES = {-1: BEFORE, 0: SENDING, 1: LATER}  # by `FinTime.when`


def replay(conversation: Conversation, timers: Timers, now_ns: int, *, ongoing: bool = False) -> Timeline:
    """Return both endpoints' states through a connection.

    Args:
        conversation: the connection.
        timers: how long TIME_WAIT lasts, and FIN_WAIT_2 without an owner.
        now_ns: the moment for which the states hold, since the Unix epoch; timers run until then.
        ongoing: whether the capture goes on after that moment.

    Raises:
        AssertionError: a signal cannot come in an end's state: a fault of closeseq. `Connection` contains it.
    """
    evidence = Evidence(conversation, now_ns)
    machine = Machine(evidence, timers)
    for signal in sorted(_signals(evidence), key=PlacedSignal.order):
        machine.take(signal)
    machine.let_time_pass(now_ns)
    return machine.timeline(arrivals(evidence), ongoing=ongoing)


def _signals(evidence: Evidence) -> Iterator[PlacedSignal]:
    for sender in ENDS:
        yield from _sends(evidence, sender)
        yield from _synchronize(evidence, sender)
    for sender in ENDS:
        yield from _unseen_fin(evidence, sender)
        yield from _finish(evidence, sender)
        for segment in evidence.sent[sender]:
            if segment.reset:
                yield from _reset(evidence, sender, segment)
    yield from _replaced(evidence)


def _sent(
    segment: SentSegment,
    sender: End,
    signal: Signal,
    certainty: Certainty,
    cause: str | None = None,
    *,
    phase: int = SENDING,
) -> PlacedSignal:
    return PlacedSignal(
        segment.step, phase, sender, signal, segment.packet, segment.first_ns, certainty, cause
    )


def _received(
    receipt: Receipt, phase: int, endpoint: End, signal: Signal, certainty: Certainty | None = None
) -> PlacedSignal:
    """Return a signal that an endpoint receives; as sure as its receipt, unless a certainty is given."""
    return PlacedSignal(
        receipt.step,
        BEFORE if receipt.before else phase,
        endpoint,
        signal,
        receipt.packet,
        receipt.time_ns,
        certainty or receipt.certainty,
    )


def _elsewhere(receipt: Receipt, endpoint: End, signal: Signal) -> Iterator[PlacedSignal]:
    """Yield where else a signal may have been received, and by when it surely had been."""
    phase = ACKNOWLEDGE if signal in (Signal.RECEIVES_ACK_OF_FIN, Signal.RECEIVES_ACK_OF_SYN) else FINISH
    for step, segment in receipt.or_with:
        yield PlacedSignal(
            step,
            phase,
            endpoint,
            signal,
            segment.packet,
            segment.first_ns,
            Certainty.ASSUMED,
            kind=SignalKind.MAY,
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


def _sends(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """Yield that an endpoint that sends is at least ESTABLISHED, where its beginning was not captured."""
    segment = next((s for s in evidence.sent[sender] if not s.reset), None)
    if segment is not None and (segment.event is None or not segment.event.syn):
        yield _sent(segment, sender, Signal.IS_ALIVE, Certainty.ASSUMED, phase=ALIVE)


def _synchronize(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """Yield what an endpoint's SYN does, at itself and at its peer."""
    transmissions = evidence.transmissions(sender, SYN)
    if transmissions and transmissions[0].event is not None:
        first = transmissions[0].event
        answers = bool(first.flags & ACK)
        number_end = first.seq + 1
        if not answers:
            yield _sent(transmissions[0], sender, Signal.SENDS_SYN, Certainty.OBSERVED)
    elif evidence.conversation.opener is Opener.SEEN:
        answers, number_end = sender is End.SERVER, 1  # it was not captured, but there must have been one
        answer = next((s for s in evidence.sent[sender.peer] if s.ack is not None and not s.reset), None)
        if not answers and answer is not None:
            why = "had sent a SYN that was not captured"
            yield _sent(answer, sender, Signal.SENDS_SYN, Certainty.PROVED, why, phase=BEFORE)
    else:
        return
    receipt = accepted(evidence, sender, number_end, transmissions)
    if receipt is not None:
        came = next((s for s in transmissions if s.packet == receipt.packet), None)
        acknowledges = answers or (came is not None and came.ack is not None)
        signal = Signal.RECEIVES_SYN_ACK if acknowledges else Signal.RECEIVES_SYN
        yield _received(receipt, SYNCHRONIZE, sender.peer, signal)
    acked = acknowledged(evidence, sender, number_end, transmissions)
    if acked is not None:
        yield _received(acked, ACKNOWLEDGE, sender, Signal.RECEIVES_ACK_OF_SYN)
        yield from _elsewhere(acked, sender, Signal.RECEIVES_ACK_OF_SYN)
    beyond = next((s for s in evidence.sent[sender] if s.end > number_end and not s.reset), None)
    if beyond is None or (transmissions and beyond.step <= transmissions[0].step):
        return
    if acked is not None and acked.step <= beyond.step:
        return
    if not _opened_with_data(evidence, sender.peer, beyond):
        # Data beyond its SYN: SYN_RECEIVED must have received the ACK (but for Fast Open, RFC 7413, so
        # this is not proved).
        yield _sent(beyond, sender, Signal.RECEIVES_ACK_OF_SYN, Certainty.ASSUMED, phase=BEFORE)


def _opened_with_data(evidence: Evidence, end: End, until: SentSegment) -> bool:
    """Whether an endpoint's SYN had data, and it sent nothing more until a segment of its peer.

    Then the peer may send, and close, before the handshake is complete (RFC 7413 4.2.2).
    """
    sent = [s for s in evidence.before(end, until.step) if not s.reset]
    return bool(sent) and all(s.opens for s in sent) and any(s.bytes for s in sent)


def _finish(evidence: Evidence, sender: End) -> Iterator[PlacedSignal]:
    """Yield what an endpoint's FIN does, at itself and at its peer."""
    fin = fins.find(evidence, sender)
    if fin is None:
        return
    receipt = accepted(evidence, sender, fin.end, fin.transmissions)
    if receipt is not None:
        receipt = _after_own_ack(evidence, sender.peer, fin, receipt)
        yield from _fin_taken(evidence, sender.peer, fin, receipt)
    yield _close(fin.sent, sender, None if _seen_open(evidence, sender.peer) else Certainty.ASSUMED)
    acked = acknowledged(evidence, sender, fin.end, fin.transmissions)
    if acked is not None:
        taken = _taken_before(evidence, sender, acked)
        if taken is not None:
            acked = replace(
                acked, step=taken.step, time_ns=taken.time_ns, certainty=Certainty.ASSUMED, shown=None
            )
        phase = ACKNOWLEDGE if taken is None else LATER
        yield _received(acked, phase, sender, Signal.RECEIVES_ACK_OF_FIN)
        yield from _elsewhere(acked, sender, Signal.RECEIVES_ACK_OF_FIN)


def _taken_before(evidence: Evidence, end: End, acked: Receipt) -> Receipt | None:
    """Return the receipt of a FIN that passed before the ACK of the own one, and was taken later than that.

    So the ACK came after it, unless it overtook it.

    Args:
        evidence: of the connection.
        end: the receiver of both.
        acked: its receipt of the ACK.
    """
    fin = fins.find(evidence, end.peer)
    receipt = None if fin is None else accepted(evidence, end.peer, fin.end, fin.transmissions)
    if fin is None or receipt is None or receipt.before or acked.before:
        return None
    passed = _transmission(fin, receipt)
    return receipt if passed is not None and passed.step < acked.step < receipt.step else None


def _transmission(fin: fins.Fin, receipt: Receipt) -> SentSegment | None:
    """Return the transmission with which a FIN was received; None if that was not captured."""
    return next((s for s in fin.transmissions if s.packet == receipt.packet), None)


def _unseen_fin(evidence: Evidence, receiver: End) -> Iterator[PlacedSignal]:
    """Yield where an endpoint may have received a FIN of which no captured number tells.

    It acknowledges more than was captured of its peer: a FIN may be the last of that, and has its highest
    number. Or its peer may have closed before the capture began.
    """
    sender = receiver.peer
    if fins.find(evidence, sender) is not None:
        return
    # Data and SYN come before a FIN; the number of a plain ACK may come after it.
    before_fin = (s for s in evidence.sent[sender] if not s.reset and (s.bytes or (s.event and s.event.syn)))
    captured = max((s.end for s in before_fin), default=1)
    acks = [s for s in evidence.sent[receiver] if s.ack is not None and not s.reset]
    highest = max((s.ack for s in acks if s.ack is not None), default=0)
    if highest > captured or not _seen_open(evidence, sender):
        for s in acks:
            if s.ack == highest:
                may = _sent(s, receiver, Signal.RECEIVES_FIN, Certainty.ASSUMED, phase=BEFORE)
                yield replace(may, kind=SignalKind.MAY)
                return


def _seen_open(evidence: Evidence, end: End) -> bool:
    """Whether an endpoint is known not to have closed before the capture began: it opened, or sent data."""
    if evidence.conversation.opener is Opener.SEEN:
        return True
    return any(s.end > or_0(s.seq) if s.event else s.bytes for s in evidence.sent[end] if not s.reset)


def _fin_taken(evidence: Evidence, receiver: End, fin: fins.Fin, receipt: Receipt) -> Iterator[PlacedSignal]:
    """Yield what an endpoint does when it receives its peer's FIN, and its retransmissions."""
    before = fins.closed_before(evidence, receiver, receipt)
    if before is not None:
        yield _close(before, receiver)
    # It was there to receive it, also where its beginning was not captured.
    alive = (Signal.IS_ALIVE, receipt.packet, receipt.time_ns, Certainty.ASSUMED)
    yield PlacedSignal(receipt.step, ALIVE, receiver, *alive)
    certainty = None if fin.transmissions else Certainty.ASSUMED
    received = _received(receipt, FINISH, receiver, Signal.RECEIVES_FIN, certainty)
    if not fins.surely_open(evidence, receiver, receipt):
        yield replace(
            received, phase=min(received.phase, SENDING), signal=Signal.SENDS_FIN, kind=SignalKind.MAY
        )
    yield from _overtaken(evidence, received, receipt, fin)
    yield received
    yield from _elsewhere(receipt, receiver, Signal.RECEIVES_FIN)
    own = fins.find(evidence, receiver)
    transmission = _transmission(fin, receipt)
    if (
        own is not None
        and transmission is not None
        and transmission.ack is not None
        and transmission.ack >= own.end
    ):
        # The FIN also acknowledges its own (RFC 9293 3.10.7.4: the ACK is processed before the FIN).
        yield _received(receipt, ACKNOWLEDGE, receiver, Signal.RECEIVES_ACK_OF_FIN)
    for retransmission in fin.transmissions:
        if retransmission.step > receipt.step:  # to TIME_WAIT it means that 2MSL starts again
            yield _received(
                Receipt.of(retransmission, Certainty.ASSUMED), FINISH, receiver, Signal.RECEIVES_FIN
            )


def _after_own_ack(evidence: Evidence, receiver: End, fin: fins.Fin, receipt: Receipt) -> Receipt:
    """Return the receipt of a FIN, put after the ACK of its receiver's own FIN where that had come before.

    Linux acknowledges the FIN with the socket's number in CLOSING, and without a socket in TIME_WAIT.
    """
    own, shown = fins.find(evidence, receiver), receipt.shown
    if own is None or shown is None or not without_socket(evidence, receiver, shown):
        return receipt
    acked = acknowledged(evidence, receiver, own.end, own.transmissions)
    if acked is None or not receipt.step < acked.step < shown.step:
        return receipt
    if any(receipt.step < s.step < shown.step for s in fin.transmissions):
        return receipt  # it may have acknowledged the first one, uncaptured
    return replace(receipt, step=acked.step, time_ns=acked.time_ns, certainty=Certainty.ASSUMED)


def _overtaken(
    evidence: Evidence,
    received: PlacedSignal,
    receipt: Receipt,
    fin: fins.Fin,
) -> Iterator[PlacedSignal]:
    """Yield that the ACK of an endpoint's own FIN may have overtaken the peer's FIN after the capture point.

    It did not if what shows that the FIN was received was sent without it.
    """
    receiver, shown = received.endpoint, receipt.shown
    own = fins.find(evidence, receiver)
    if own is None or shown is None:
        return
    passed = _transmission(fin, receipt) or receipt
    between = (s for s in evidence.after(receiver.peer, passed.step) if s.step < shown.step and not s.reset)
    for s in between:
        lost = any(c.step > s.step and evidence.knew(c, s) is Knowledge.MUST for c in own.transmissions)
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


def _close(sent: fins.FinTime, end: End, certainty: Certainty | None = None) -> PlacedSignal:
    """Return the close of an endpoint; as sure as the time of its FIN, unless another certainty is given."""
    phase = PHASES[sent.when]
    sure = certainty or sent.certainty
    return PlacedSignal(sent.step, phase, end, Signal.SENDS_FIN, sent.packet, sent.time_ns, sure, sent.why)


def _reset(evidence: Evidence, sender: End, segment: SentSegment) -> Iterator[PlacedSignal]:
    """Yield what a RST does at its sender and at its receiver."""
    foreign = segment.event is not None and rst.is_foreign(evidence.conversation, segment.event)
    if not foreign and all(s.reset for s in evidence.after(sender, segment.step)):
        if segment.aborts:
            # The RST is observed; the state that it leaves, only if that is settled. One that came another
            # way than its sender's other frames may be somebody else's.
            is_open = unsettled(evidence, sender, segment.step)
            elsewhere = segment.event is not None and segment.event.elsewhere
            certainty = Certainty.ASSUMED if is_open or elsewhere else Certainty.OBSERVED
            yield _sent(segment, sender, Signal.SENDS_RST, certainty)
        else:
            # RFC 9293 3.10.7.1: it had no such connection; the RST does not show since when.
            why = "answered with RST: it no longer had this connection"
            step, time_ns = rst.gone_since(evidence, sender, segment)
            phase, since_ns = (SENDING, segment.first_ns) if step == segment.step else (LATER, time_ns)
            yield PlacedSignal(
                step, phase, sender, Signal.SENDS_RST, segment.packet, since_ns, Certainty.ASSUMED, why
            )
    receipt = rst.taken(evidence, segment, sender)
    if receipt is not None:
        yield _received(receipt, RESET, sender.peer, Signal.RECEIVES_RST)


def _replaced(evidence: Evidence) -> Iterator[PlacedSignal]:
    """Yield that the SYN of the next connection of the pair ends this one's TIME_WAIT."""
    successor = evidence.conversation.successor
    if successor is not None:
        last = len(evidence.conversation.steps)
        for end in ENDS:
            yield PlacedSignal(
                last, LATER, end, Signal.IS_SUCCEEDED, successor.packet, successor.time_ns, Certainty.ASSUMED
            )
