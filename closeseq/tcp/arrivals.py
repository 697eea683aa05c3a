"""For each event, whether it arrived, and a note for the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Position
from closeseq.packets.segments import FIN, SYN
from closeseq.tcp import rst
from closeseq.tcp.acknowledgement import acknowledged, refuted
from closeseq.tcp.delivery import Receipt, accepted, answered
from closeseq.tcp.echoes import NOT_IN_TIME, Echo, echo
from closeseq.tcp.evidence import OLDER
from closeseq.tcp.timeline import Arrival, Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.tcp.evidence import Evidence, SentSegment

Delivery = tuple[Arrival, str | None]  # whether it arrived, and the note


def arrivals(evidence: Evidence) -> dict[int, Delivery]:
    """Return whether each event arrived, and a note for the reader, by index of its step."""
    deliveries: dict[int, Delivery] = {step: (Arrival.ASSUMED, why) for step, why in evidence.strays.items()}
    for sender in ENDS:
        for segment in evidence.sent[sender]:
            if segment.event is not None:
                deliveries[segment.step] = _delivery(evidence, sender, segment, segment.event)
        for flag in (SYN, FIN):
            deliveries |= _deliveries_of_transmissions(evidence, sender, flag)
    return deliveries


def _delivery(evidence: Evidence, sender: End, segment: SentSegment, event: Event) -> Delivery:
    if event.rst:
        return _delivery_of_reset(evidence, sender, segment)
    lost = _sent_again(evidence, sender, segment)
    is_fin = lost is not None and lost.event is not None and lost.event.fin
    if lost is not None and is_fin and _arrived_late(evidence, sender, segment):
        return Arrival.ASSUMED, f"late: it crossed the retransmitted FIN #{lost.packet}"
    if lost is not None:
        # A full accept queue drops what completes a handshake, as if it had not arrived.
        what = "lost: the FIN" if is_fin else f"lost, or dropped by the {sender.peer}: the SYN"
        return Arrival.NO, f"{what} that it acknowledges comes again in #{lost.packet}"
    echoed = echo(evidence, sender.peer, segment)
    if echoed is Echo.ARRIVED or answered(evidence, sender.peer, segment):
        return Arrival.PROVED, _remark(evidence, segment, event)
    if echoed in NOT_IN_TIME:
        what = "lost" if echoed is Echo.MISSED else "lost, or late"
        return Arrival.NO, f"{what}: the {sender.peer} still echoes an older timestamp afterwards"
    return Arrival.ASSUMED, _crossing(evidence, sender, segment) or _remark(evidence, segment, event)


def _remark(evidence: Evidence, segment: SentSegment, event: Event) -> str | None:
    if segment.stale and event.position is not Position.REORDERED:
        return "an old duplicate: its timestamp is older than that of earlier segments"
    if event.position is Position.GAP and evidence.conversation.path(segment.sender).missed:
        return "what the sender sent just before was not captured"
    if event.position is Position.GAP:
        return "what the sender sent just before was lost, or comes later"
    if event.position is Position.REORDERED:
        return "out of order: sent before what passed just before it"
    if event.position is Position.PROBE:
        return "keepalive or window probe"
    return None


def _crossing(evidence: Evidence, sender: End, segment: SentSegment) -> str | None:
    """Return the note that an acknowledgement of a FIN crossed a retransmission of it."""
    if segment.ack is None:
        return None
    transmissions = evidence.transmissions(sender.peer, FIN)
    for retransmission in transmissions[1:]:
        if (
            retransmission.step > segment.step
            and retransmission.end <= segment.ack
            and transmissions[0].step < segment.step
        ):
            return f"crossed the retransmitted FIN #{retransmission.packet}"
    return None


def _sent_again(evidence: Evidence, sender: End, segment: SentSegment) -> SentSegment | None:
    """Return the retransmission of a SYN or FIN that was sent although this segment acknowledges it."""
    if segment.ack is None:
        return None
    for flag in (FIN, SYN):
        transmissions = evidence.transmissions(sender.peer, flag)
        if flag == SYN:
            transmissions = _before_it_went_on(evidence, sender.peer, transmissions)
        later = [
            s
            for s in transmissions
            if s.step > segment.step and s.end <= segment.ack and refuted(evidence, segment, s)
        ]
        if later and any(s.step < segment.step for s in transmissions):
            return later[0]
    return None


def _before_it_went_on(
    evidence: Evidence, sender: End, transmissions: Sequence[SentSegment]
) -> Sequence[SentSegment]:
    """Return an endpoint's SYNs until it sends something else: one that passes later is an old duplicate."""
    if len(transmissions) < 2:  # noqa: PLR2004 - nothing was sent again
        return transmissions
    last = transmissions[-1]
    went_on = next(
        (s.step for s in evidence.before(sender, last.step) if not s.reset and not (s.event and s.event.syn)),
        last.step,
    )
    return [s for s in transmissions if s.step <= went_on]


def _arrived_late(evidence: Evidence, sender: End, segment: SentSegment) -> bool:
    """Whether an acknowledgement of a FIN arrived in the end, after a retransmission of the FIN."""
    transmissions = evidence.transmissions(sender.peer, FIN)
    receipt = (
        acknowledged(evidence, sender.peer, transmissions[0].end, transmissions) if transmissions else None
    )
    return receipt is not None and receipt.packet == segment.packet


def _deliveries_of_transmissions(evidence: Evidence, sender: End, flag: int) -> dict[int, Delivery]:
    """Return the deliveries of an endpoint's SYNs or FINs, of which the first that arrived counts."""
    transmissions = evidence.transmissions(sender, flag)
    if not transmissions:
        return {}
    name = "SYN" if flag == SYN else "FIN"
    number_end = (transmissions[0].seq or 0) + 1 if flag == SYN else transmissions[0].end
    receipt = accepted(evidence, sender, number_end, transmissions)
    if receipt is None:
        return _deliveries_of_unanswered(evidence, sender, transmissions, name)
    chosen = next((s for s in transmissions if s.packet == receipt.packet), None)
    deliveries: dict[int, Delivery] = {}
    for index, transmission in enumerate(transmissions):
        before = chosen is not None and transmission.step < chosen.step
        challenge = _challenge(evidence, sender, transmission) if before and flag == SYN else None
        if challenge is not None:
            deliveries[transmission.step] = (
                Arrival.PROVED,
                f"did not fit: answered with the ACK #{challenge.packet}",
            )
        elif before:
            deliveries[transmission.step] = (
                Arrival.NO,
                f"lost: its {name} comes again in #{transmissions[index + 1].packet}",
            )
        elif transmission is chosen:
            deliveries[transmission.step] = (_arrival(receipt), None)
        elif chosen is None and not receipt.before and transmission.step < receipt.step:
            reported = any(
                _is_sacked(transmission, s) for s in evidence.after(sender.peer, transmission.step)
            )
            note = f"out of order: it counts when #{receipt.packet} fills the hole before it"
            deliveries[transmission.step] = (Arrival.PROVED if reported else Arrival.ASSUMED, note)
        else:
            deliveries[transmission.step] = _delivery_of_repeated(evidence, sender, transmission, name)
    return deliveries


def _is_sacked(transmission: SentSegment, segment: SentSegment) -> bool:
    """Whether a segment reports a transmission behind a hole as received (SACK, RFC 2018)."""
    return (
        segment.event is not None
        and segment.event.sack is not None
        and segment.event.sack >= transmission.end
    )


def _challenge(evidence: Evidence, sender: End, syn: SentSegment) -> Event | None:
    """Return the ACK with which a SYN was answered that does not acknowledge it (RFC 9293 3.10.7.4)."""
    for s in evidence.after(sender.peer, syn.step)[:1]:
        below = s.ack is not None and s.ack != syn.end
        if below and s.event is not None and s.event.pure_ack and evidence.crossed(syn, s):
            return s.event
    what = evidence.conversation.steps[syn.step + 1 : syn.step + 2]
    if what and evidence.strays.get(syn.step + 1) == OLDER and isinstance(what[0], Event):
        return what[0]
    return None


def _arrival(receipt: Receipt) -> Arrival:
    return Arrival.PROVED if receipt.certainty is Certainty.PROVED else Arrival.ASSUMED


def _deliveries_of_unanswered(
    evidence: Evidence, sender: End, transmissions: Sequence[SentSegment], name: str
) -> dict[int, Delivery]:
    deliveries: dict[int, Delivery] = {}
    for index, transmission in enumerate(transmissions):
        if index + 1 < len(transmissions):
            note = f"unanswered: its {name} comes again in #{transmissions[index + 1].packet}"
        elif any(s.reset for s in evidence.after(sender.peer, transmission.step)):
            note = "answered with RST"
            deliveries[transmission.step] = (Arrival.PROVED, note)
            continue
        else:
            note = "unanswered"
        deliveries[transmission.step] = (Arrival.NO, note)
    return deliveries


def _delivery_of_repeated(evidence: Evidence, sender: End, transmission: SentSegment, name: str) -> Delivery:
    """Return the delivery of a SYN or FIN that had arrived before: D-SACK or an echo may prove it too."""
    note = f"this {name} had arrived before"
    for s in evidence.after(sender.peer, transmission.step)[:1]:
        if s.event is not None and s.event.dsack is not None:
            left, right = s.event.dsack
            if left < transmission.end <= right:
                return Arrival.PROVED, note  # RFC 2883
        if s.tsecr is not None and s.tsecr == transmission.tsval:
            return Arrival.PROVED, note
    return Arrival.ASSUMED, note


def _delivery_of_reset(evidence: Evidence, sender: End, segment: SentSegment) -> Delivery:
    if rst.taken(evidence, segment, sender) is not None:
        return Arrival.ASSUMED, None
    challenge = rst.challenge(evidence, segment, sender)
    if challenge is not None:
        return Arrival.PROVED, f"not exactly in place: challenged by #{challenge.packet}"
    if rst.probed_in_vain(evidence, sender, segment):
        return Arrival.NO, "nothing had got through before it"
    later = rst.goes_on(evidence, sender.peer, segment)
    if later is not None:
        return Arrival.NO, f"lost or ignored: the {sender.peer} goes on in #{later.packet}"
    return Arrival.ASSUMED, None
