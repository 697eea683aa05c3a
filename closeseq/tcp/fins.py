"""An end's FIN: when it was sent, also where it was not captured, or waited before it could be sent.

A program closes, and TCP sends FIN. Between the two lies whatever keeps segments waiting: a closed
window, data before it, a packet filter before the capture point. The state changes when the program
closes, so a FIN that waited means that the end was in FIN_WAIT_1 before its FIN was captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.packets.flags import FIN
from closeseq.tcp import waiting
from closeseq.tcp.delivery import FIRST_TIMEOUT_NS, Receipt
from closeseq.tcp.evidence import MILLISECOND, Evidence, Said, asked_once
from closeseq.tcp.timeline import Certainty
from closeseq.tcp.waiting import ANSWER_NS, PROBE_TIMER_LATE_NS, SAME_BREATH_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.connections.conversation import End

PROGRAM_NS = MILLISECOND  # a program that is told end of file needs less than this only when it is idle


@dataclass(frozen=True, slots=True)
class Sent:
    """When an end closed, as a place among the steps."""

    step: int
    when: int  # -1 before the step's own segment, 0 with it, 1 after all that the step did
    packet: int
    time_ns: int
    certainty: Certainty
    why: str | None = None  # how we know, where it is not the FIN itself


@dataclass(frozen=True, slots=True)
class Fin:
    """The FIN of one end."""

    end: int  # the number after it
    copies: Sequence[Said]  # as captured; empty if only its number betrays it
    sent: Sent


@asked_once
def find(evidence: Evidence, sender: End) -> Fin | None:
    """Find an end's FIN: captured, or betrayed by a segment that could only follow it."""
    copies = evidence.copies(sender, FIN)
    if not copies:
        return _never_captured(evidence, sender)
    number_end, first = copies[0].end, copies[0]
    own = (s for s in evidence.before(sender, first.step) if s.seq is not None and s.seq >= number_end)
    peers = (s for s in evidence.before(sender.peer, first.step) if s.ack is not None and s.ack >= number_end)
    betrayals = [s for s in (next(own, None), next(peers, None)) if s is not None and not s.reset]
    if betrayals:
        sent = _betrayed(min(betrayals, key=lambda s: s.step), Certainty.PROVED)
    else:
        sent = _waited(evidence, sender, first) or Sent(
            first.step, 0, first.packet, first.first_ns, Certainty.OBSERVED
        )
    return Fin(number_end, copies, sent)


def _never_captured(evidence: Evidence, sender: End) -> Fin | None:
    """Find a FIN that only its number betrays: one past all that was captured, and nothing came after.

    A single byte of data would leave the same trace, so this is never more than assumed.
    """
    end = None
    betrayals = []
    for said in evidence.said[sender]:
        if end is not None and said.event and said.event.pure_ack and said.event.seq == end + 1:
            betrayals.append(said)
            break
        if not said.reset:
            end = said.end if end is None else max(end, said.end)
    if end is None or any(s.end > end + 1 for s in evidence.said[sender]):
        return None
    acks = evidence.said[sender.peer]
    betrayals += [s for s in acks if s.ack == end + 1 and not s.reset][:1]
    if not betrayals:
        return None
    return Fin(end + 1, (), _betrayed(min(betrayals, key=lambda s: s.step), Certainty.ASSUMED))


def _betrayed(said: Said, certainty: Certainty) -> Sent:
    return Sent(said.step, -1, said.packet, said.first_ns, certainty, "had sent a FIN that was not captured")


def _waited(evidence: Evidence, sender: End, fin: Said) -> Sent | None:
    """Return the close of an end whose FIN had waited, as a place among the steps; None if it did not."""
    close = waiting.closed(evidence, sender, fin)
    if close is None:
        return None
    own = evidence.before(sender, close.before.step)[-1:]  # what it sent before it closed
    time_ns = max([close.time_ns, *(s.last_ns for s in own)])
    heard = [s for s in evidence.before(sender.peer, close.before.step) if s.first_ns <= time_ns]
    step = max((s.step for s in [*own, *heard]), default=fin.step)
    why = "had closed: its FIN was waiting to be sent"
    if step == fin.step:
        return Sent(step, 0, fin.packet, fin.first_ns, Certainty.ASSUMED, why)
    return Sent(step, 1, fin.packet, time_ns, Certainty.ASSUMED, why)


def closed_before(evidence: Evidence, end: End, receipt: Receipt) -> Sent | None:
    """Say whether an end had closed before it took its peer's FIN, with its own FIN still unsent.

    Two things give that away: the FIN comes in one breath with the ACK that answers the peer's, faster
    than any program; or the probe timer sent it, and that had begun before the peer's FIN came.
    """
    first = next(iter(evidence.copies(end, FIN)), None)
    if first is None or first.step <= receipt.step:
        return None
    told = waiting.tries(evidence, end, first)
    if told is not None and told.number > 0:
        return None  # then `find` says when it closed
    spoken = _spoken(evidence, end, receipt)[0]
    breath = (
        spoken.step < first.step
        and first.first_ns - spoken.first_ns < SAME_BREATH_NS
        and spoken.first_ns - receipt.time_ns < ANSWER_NS
    )
    probed = waiting.by_probe_timer(first) and first.first_ns - receipt.time_ns < PROBE_TIMER_LATE_NS
    if not breath and not probed:
        return None
    return Sent(
        receipt.step, -1 if receipt.before else 0, receipt.packet, receipt.time_ns,
        Certainty.ASSUMED, "had closed before: its FIN was waiting to be sent",
    )  # fmt: skip


def surely_open(evidence: Evidence, end: End, receipt: Receipt) -> bool:
    """Whether an end, when it took its peer's FIN, surely had not closed itself.

    An end that acknowledges the FIN, and could send its own but does not, has none. What it might have
    waiting would have gone out in the same breath.
    """
    first = next(iter(evidence.copies(end, FIN)), None)
    if first is not None and first.step <= receipt.step:
        return True  # it had sent its FIN before, which is observed
    spoken = _spoken(evidence, end, receipt)
    if not spoken:
        return False
    if first is None:
        return evidence.now_ns - spoken[0].first_ns > FIRST_TIMEOUT_NS
    return first.first_ns - spoken[0].first_ns >= PROGRAM_NS and not waiting.by_probe_timer(first)


def _spoken(evidence: Evidence, end: End, receipt: Receipt) -> list[Said]:
    since = receipt.step - 1 if receipt.before else receipt.step
    return [s for s in evidence.after(end, since) if not s.reset and s.ack is not None]
