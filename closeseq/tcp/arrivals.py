"""What became of each event: whether it reached the other end, and what a reader should know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Position
from closeseq.packets.segments import FIN, SYN
from closeseq.tcp import rst
from closeseq.tcp.delivery import Receipt, accepted, acknowledged, answered, refuted
from closeseq.tcp.echoes import Echo, echo
from closeseq.tcp.evidence import OLDER
from closeseq.tcp.timeline import Arrival, Certainty

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.tcp.evidence import Evidence, SentSegment

Fate = tuple[Arrival, str | None]


def arrivals(evidence: Evidence) -> dict[int, Fate]:
    """Return, by index of the step, whether each event arrived and a note about it (or None)."""
    fates: dict[int, Fate] = {step: (Arrival.ASSUMED, why) for step, why in evidence.strays.items()}
    for sender in ENDS:
        for said in evidence.said[sender]:
            if said.event is not None:
                fates[said.step] = _fate(evidence, sender, said, said.event)
        for flag in (SYN, FIN):
            fates |= _fates_of_copies(evidence, sender, flag)
    return fates


def _fate(evidence: Evidence, sender: End, said: SentSegment, event: Event) -> Fate:
    if event.rst:
        return _fate_of_reset(evidence, sender, said)
    lost = _repeated_all_the_same(evidence, sender, said)
    if lost is not None and _taken_late(evidence, sender, said):
        return Arrival.ASSUMED, f"late: it crossed the retransmitted FIN #{lost.packet}"
    if lost is not None:
        name = "FIN" if lost.event is not None and lost.event.fin else "SYN"
        return Arrival.NO, f"lost: the {name} that it acknowledges comes again in #{lost.packet}"
    told = echo(evidence, sender.peer, said)
    if told is Echo.ARRIVED or answered(evidence, sender.peer, said):
        return Arrival.PROVED, _remark(evidence, said, event)
    if told is Echo.MISSED:
        return Arrival.NO, f"lost: the {sender.peer} still echoes an older timestamp afterwards"
    return Arrival.ASSUMED, _crossing(evidence, sender, said) or _remark(evidence, said, event)


def _remark(evidence: Evidence, said: SentSegment, event: Event) -> str | None:
    if said.stale:
        return "an old duplicate: its timestamp is older than that of earlier segments"
    if event.position is Position.GAP and evidence.conversation.path(said.sender).missed:
        return "what the sender sent just before was not captured"
    if event.position is Position.GAP:
        return "what the sender sent just before was lost, or comes later"
    if event.position is Position.REORDERED:
        return "out of order: sent before what passed just before it"
    if event.position is Position.PROBE:
        return "keepalive or window probe"
    return None


def _crossing(evidence: Evidence, sender: End, said: SentSegment) -> str | None:
    """Say that an acknowledgement of a FIN crossed a retransmission of it, which so says nothing of it."""
    if said.ack is None:
        return None
    copies = evidence.copies(sender.peer, FIN)
    for again in copies[1:]:
        if again.step > said.step and again.end <= said.ack and copies[0].step < said.step:
            return f"crossed the retransmitted FIN #{again.packet}"
    return None


def _repeated_all_the_same(evidence: Evidence, sender: End, said: SentSegment) -> SentSegment | None:
    """Return the copy of a SYN or FIN that was sent although this segment acknowledges it."""
    if said.ack is None:
        return None
    for flag in (FIN, SYN):
        copies = evidence.copies(sender.peer, flag)
        later = [s for s in copies if s.step > said.step and s.end <= said.ack and refuted(evidence, said, s)]
        if later and any(s.step < said.step for s in copies):
            return later[0]
    return None


def _taken_late(evidence: Evidence, sender: End, said: SentSegment) -> bool:
    """Whether an acknowledgement of a FIN arrived in the end, though the FIN had been sent again before."""
    copies = evidence.copies(sender.peer, FIN)
    taken = acknowledged(evidence, sender.peer, copies[0].end, copies) if copies else None
    return taken is not None and taken.packet == said.packet


def _fates_of_copies(evidence: Evidence, sender: End, flag: int) -> dict[int, Fate]:
    """Return the fates of an end's SYNs or FINs, of which the first that arrived counts."""
    copies = evidence.copies(sender, flag)
    if not copies:
        return {}
    name = "SYN" if flag == SYN else "FIN"
    number_end = (copies[0].seq or 0) + 1 if flag == SYN else copies[0].end
    taken = accepted(evidence, sender, number_end, copies)
    if taken is None:
        return _fates_of_untaken(evidence, sender, copies, name)
    chosen = next((s for s in copies if s.packet == taken.packet), None)
    fates: dict[int, Fate] = {}
    for index, copy in enumerate(copies):
        before = chosen is not None and copy.step < chosen.step
        challenge = _challenge(evidence, sender, copy) if flag == SYN else None
        if before and challenge is not None:
            fates[copy.step] = (Arrival.PROVED, f"did not fit: answered with the ACK #{challenge.packet}")
        elif before:
            fates[copy.step] = (Arrival.NO, f"lost: its {name} comes again in #{copies[index + 1].packet}")
        elif copy is chosen:
            fates[copy.step] = (_arrival(taken), None)
        elif chosen is None and not taken.before and copy.step < taken.step:
            reported = any(_is_sacked(copy, s) for s in evidence.after(sender.peer, copy.step))
            note = f"out of order: it counts when #{taken.packet} fills the hole before it"
            fates[copy.step] = (Arrival.PROVED if reported else Arrival.ASSUMED, note)
        else:
            fates[copy.step] = _fate_of_duplicate(evidence, sender, copy, name)
    return fates


def _is_sacked(copy: SentSegment, said: SentSegment) -> bool:
    """Whether a segment reports to have what lies behind a hole, this copy included (RFC 2018)."""
    return said.event is not None and said.event.sack is not None and said.event.sack >= copy.end


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


def _fates_of_untaken(
    evidence: Evidence, sender: End, copies: Sequence[SentSegment], name: str
) -> dict[int, Fate]:
    fates: dict[int, Fate] = {}
    for index, copy in enumerate(copies):
        if index + 1 < len(copies):
            note = f"unanswered: its {name} comes again in #{copies[index + 1].packet}"
        elif any(s.reset for s in evidence.after(sender.peer, copy.step)):
            note = "answered with RST"
            fates[copy.step] = (Arrival.PROVED, note)
            continue
        else:
            note = "unanswered"
        fates[copy.step] = (Arrival.NO, note)
    return fates


def _fate_of_duplicate(evidence: Evidence, sender: End, copy: SentSegment, name: str) -> Fate:
    """A SYN or FIN that had arrived before: D-SACK or an echo may say that this copy did as well."""
    note = f"this {name} had arrived before"
    for s in evidence.after(sender.peer, copy.step)[:1]:
        if s.event is not None and s.event.dsack is not None:
            left, right = s.event.dsack
            if left < copy.end <= right:
                return Arrival.PROVED, note  # RFC 2883
        if s.tsecr is not None and s.tsecr == copy.tsval:
            return Arrival.PROVED, note
    return Arrival.ASSUMED, note


def _fate_of_reset(evidence: Evidence, sender: End, said: SentSegment) -> Fate:
    if rst.taken(evidence, said, sender) is not None:
        return Arrival.ASSUMED, None
    challenge = rst.challenge(evidence, said, sender)
    if challenge is not None:
        return Arrival.PROVED, f"not exactly in place: challenged by #{challenge.packet}"
    if rst.probed_in_vain(evidence, sender, said):
        return Arrival.NO, "nothing had got through before it"
    later = rst.goes_on(evidence, sender.peer, said)
    if later is not None:
        return Arrival.NO, f"lost or ignored: the {sender.peer} goes on in #{later.packet}"
    return Arrival.ASSUMED, None
