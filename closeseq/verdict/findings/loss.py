"""Packets of the close that were lost, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Position
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import packets, span, times
from closeseq.verdict.findings import found
from closeseq.verdict.model import FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connections.conversation import Event
    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Finding


def fin_lost(case: Case) -> Iterator[Finding]:
    """A FIN had to be retransmitted, and it was the FIN that was lost, not its acknowledgement."""
    for end in ENDS:
        lost, proved = fins_lost(case, end)
        received = case.close(end).received
        if not lost or received is None:
            yield from _before_capture(case, end)
            continue
        proofs = [_proof(case, end, fin) for fin in lost]
        shown = [proof for proof in proofs if proof is not None]
        delay = received.time_ns - lost[0].time_ns
        why = f"; #{shown[0]} still asks for it" if proved else ", or its acknowledgement was lost"
        yield found(
            FindingCode.FIN_LOST,
            end,
            Certainty.PROVED if proved else Certainty.ASSUMED,
            since_ns=lost[0].time_ns,
            until_ns=received.time_ns,
            packets=[*(e.packet for e in lost), received.packet or 0, *shown],
            summary=(
                f"the {end}'s FIN ({packets(e.packet for e in lost)}) was lost {times(len(lost))}{why}; the "
                f"retransmission in #{received.packet} got through {span(delay)} later"
            ),
            advice=(
                "no change is needed in the programs; if it happens often, look for packet loss on the path "
                f"from the {end} to the {end.peer} ('nstat -az TcpRetransSegs', interface drops)"
            ),
        )


def _before_capture(case: Case, end: End) -> Iterator[Finding]:
    """Yield that an endpoint's first FIN was lost before the capture point, and was retransmitted."""
    close = case.close(end)
    first = close.transmissions[0] if close.transmissions and close.acknowledged else None
    if first is None or first.position is not Position.RETRANSMISSION:
        return  # it was not missing, or only overtaken
    shown = next(
        (e for e in case.events if e.sender is end and e.packet < first.packet and e.seq >= first.end), None
    )
    if shown is None or shown.rst:
        return
    yield found(
        FindingCode.FIN_LOST,
        end,
        Certainty.ASSUMED,
        since_ns=shown.time_ns,
        until_ns=first.time_ns,
        packets=[shown.packet, first.packet],
        summary=(
            f"the {end}'s first FIN was lost before the capture point: #{shown.packet} is numbered past it; "
            f"the retransmission in #{first.packet} came {span(first.time_ns - shown.time_ns)} later"
        ),
        advice=(
            "no change is needed in the programs; if it happens often, look for packet loss between the "
            f"{end} and the capture point"
        ),
    )


def fins_lost(case: Case, end: End) -> tuple[list[Event], bool]:
    """Return the FINs of an endpoint that were lost, and whether that is proved of all.

    One was lost if a retransmission was the first to be accepted; if it was accepted later, when a hole
    before it was filled, it was not lost.

    Args:
        case: the connection.
        end: the FIN's sender.
    """
    close = case.close(end)
    received = close.received
    waits = case.unacknowledged(end, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
    got_through = close.acknowledged and bool(close.covers) and waits is None
    if received is None or not got_through or received.packet not in {e.packet for e in close.transmissions}:
        return [], False  # without an acknowledgement nothing shows that any arrived
    lost = [e for e in close.transmissions if e.packet < (received.packet or 0) and e.packet in case.lost]
    return lost, bool(lost) and all(_proof(case, end, fin) is not None for fin in lost)


def _proof(case: Case, end: End, fin: Event) -> int | None:
    """Return the packet that proves that a FIN did not arrive; None without one.

    Its receiver still asks for the FIN's number, with all before it received, when the FIN must have arrived;
    and it does not report what lies behind as received (SACK, RFC 2018). Unless it is known with which of
    them it took the FIN, that must be so late that this one was not on its way any more.
    """
    distance, received = case.timeline.distance, case.close(end).received
    assert distance is not None
    known = received is not None and received.certainty is not Certainty.ASSUMED
    lost = distance.must_know if known else distance.long_overdue
    for event in case.events:
        if event.sender is end or event.rst or event.packet < fin.packet or event.ack is None:
            continue
        if event.ack != fin.end - 1 or (event.sack is not None and event.sack >= fin.end):
            continue
        if lost(end.peer, event.time_ns, fin.time_ns):
            return event.packet
    return None


def final_ack_lost(case: Case) -> Iterator[Finding]:
    """LAST_ACK retransmits its FIN although it was acknowledged, or without any answer."""
    for end in ENDS:
        lost, again = final_acks_lost(case, end), retransmitted_in_vain(case, end)
        if not again:
            continue
        close, received = case.close(end), case.close(end).received
        seen = [case.by_packet[packet].time_ns for packet in lost if packet in case.by_packet]
        if lost:
            # Its sender retransmits what an ACK covered, so that ACK was lost (but for one that crossed).
            sure = set(lost) <= case.lost
            named = f"the {end.peer}'s final ACK ({packets(lost)}) was lost {times(len(lost))}"
        else:
            sure = received is not None and received.certainty is not Certainty.ASSUMED and not case.missing
            named = f"the final ACK from the {end.peer} was lost without being captured"
        if not close.covers:
            named = f"no final ACK from the {end.peer} was captured"
        outcome, advice, until, recovered = _outcome(case, end)
        yield found(
            FindingCode.FINAL_ACK_LOST,
            end,
            Certainty.PROVED if sure else Certainty.ASSUMED,
            since_ns=min(seen, default=close.transmissions[0].time_ns),
            until_ns=until,
            packets=[close.transmissions[0].packet, *lost, *(e.packet for e in again)],
            summary=(
                f"{named}, so the {end} retransmitted its FIN ({packets(e.packet for e in again)}); {outcome}"
            ),
            advice=advice,
            severity=Severity.NOTICE if recovered else None,
        )


def final_acks_lost(case: Case, end: End) -> list[int]:
    """Return the final ACKs to an endpoint in LAST_ACK that the timeline shows to be lost, by packet.

    Args:
        case: the connection.
        end: the endpoint; if it was not the second to close, there are none.
    """
    close = case.close(end)
    if not close.transmissions or not _was_last(case, end):
        return []
    last = close.transmissions[-1]
    return [packet for packet, _ in close.covers if packet < last.packet and packet in case.lost]


def retransmitted_in_vain(case: Case, end: End) -> list[Event]:
    """Return the retransmissions of the second FIN that were sent although it had arrived, or unanswered.

    One that crossed the ACK does not show that it was lost.

    Args:
        case: the connection.
        end: the FIN's sender; if it was not the second to close, there are none.
    """
    close = case.close(end)
    if len(close.transmissions) < 2 or not _was_last(case, end):  # noqa: PLR2004 - a FIN and its repetition
        return []
    received = close.received.packet if close.received is not None else None
    lost = final_acks_lost(case, end)
    first = min([p for p in (received, *lost) if p is not None], default=close.transmissions[0].packet)
    return [e for e in close.transmissions if e.packet > first and not _crossed(case, end, e)]


def _crossed(case: Case, end: End, fin: Event) -> bool:
    """Whether an ACK that was not lost had been sent when its receiver retransmitted its FIN."""
    return any(packet < fin.packet and packet not in case.lost for packet, _ in case.close(end).covers)


def _was_last(case: Case, end: End) -> bool:
    sent = case.close(end).sent
    return sent is not None and sent.after is State.LAST_ACK


def _outcome(case: Case, end: End) -> tuple[str, str, int, bool]:
    """Return the outcome, the advice, when it was over, and whether the endpoint recovered."""
    close, peer = case.close(end), end.peer
    resets = (reset for t, reset in case.endings if t.endpoint is end and reset.sender is peer)
    reset = next((reset for reset in resets if reset.time_ns > close.transmissions[0].time_ns), None)
    if reset is not None:
        if not list(case.stays(peer, State.TIME_WAIT)):
            outcome = f"a RST answered it (#{reset.packet}): the {peer} no longer had the connection"
            advice = f"find out what ended the connection at the {peer}; see reset-cause"
            return outcome, advice, reset.time_ns, False
        outcome = f"a RST answered it (#{reset.packet}): the {peer}'s TIME_WAIT was already gone"
        if any(t.endpoint is peer and t.certainty is Certainty.TIMER for t in case.made):
            advice = (
                f"no data is lost, and the {peer} had waited 2MSL; find out what held back the {end}'s FIN "
                "for so long, or dropped those before it"
            )
            return outcome, advice, reset.time_ns, False
        advice = (
            f"no data is lost; find out what ended TIME_WAIT at the {peer} before its 2MSL: a reboot, "
            "net.ipv4.tcp_max_tw_buckets exceeded ('nstat -az TcpExtTCPTimeWaitOverflow'), a load balancer, "
            "or a RST (RFC 1337)"
        )
        return outcome, advice, reset.time_ns, False
    if close.acked is not None and not close.covers:
        outcome = f"then the {end} stopped, so an ACK arrived that was not captured"
        return outcome, "no change is needed in the programs", close.acked.time_ns, True
    if close.acknowledged:
        packet, time_ns = close.covers[-1]
        waiting = case.unacknowledged(end, State.LAST_ACK)
        arrived = "" if waiting is None else ", though nothing shows that this one arrived"
        outcome = f"acknowledged again from TIME_WAIT (#{packet}), which is what TIME_WAIT is for{arrived}"
        advice = (
            "no change is needed in the programs, and do not shorten TIME_WAIT; find what drops packets from "
            f"the {peer} to the {end}, often a firewall that drops the connection at the FIN"
        )
        return outcome, advice, time_ns, waiting is None
    advice = (
        f"find out whether the {peer} {case.conversation.address(peer)} can be reached, and what drops "
        f"packets between it and the {end}; the {end}'s kernel gives up after net.ipv4.tcp_orphan_retries"
    )
    stay = case.present(end)
    until = case.now_ns if stay is None else case.until(stay)
    return "nothing has acknowledged it since", advice, until, False
