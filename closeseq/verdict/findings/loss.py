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
    """A FIN had to be sent again, and it was the FIN that was lost, not its acknowledgement."""
    for end in ENDS:
        lost, proved = fins_lost(case, end)
        taken = case.close(end).taken
        if not lost or taken is None:
            yield from _before_capture(case, end)
            continue
        proofs = [_proof(case, end, fin) for fin in lost]
        shown = [proof for proof in proofs if proof is not None]
        delay = taken.time_ns - lost[0].time_ns
        why = f"; #{shown[0]} still asks for it" if proved else ", or its acknowledgement was"
        yield found(
            FindingCode.FIN_LOST,
            end,
            Certainty.PROVED if proved else Certainty.ASSUMED,
            since_ns=lost[0].time_ns,
            until_ns=taken.time_ns,
            packets=[*(e.packet for e in lost), taken.packet or 0, *shown],
            summary=(
                f"the {end}'s FIN ({packets(e.packet for e in lost)}) was lost {times(len(lost))}{why}; the "
                f"retransmission in #{taken.packet} got through {span(delay)} later"
            ),
            advice=(
                "no change is needed in the programs; if it happens often, look for packet loss on the path "
                f"from the {end} to the {end.peer} ('nstat -az TcpRetransSegs', interface drops)"
            ),
        )


def _before_capture(case: Case, end: End) -> Iterator[Finding]:
    """Yield that an end's first FIN never passed the capture point: it had been sent, and came again."""
    close = case.close(end)
    first = close.copies[0] if close.copies and close.acknowledged else None
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
    """Return the FINs of an end that were lost, and whether all of them provably were.

    One was lost if a retransmission was the first to be taken; what is taken in order later, when a hole
    before it is filled, was not.
    """
    close = case.close(end)
    taken = close.taken
    waits = case.unacknowledged(end, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)
    got_through = close.acknowledged and bool(close.covers) and waits is None
    if taken is None or not got_through or taken.packet not in {e.packet for e in close.copies}:
        return [], False  # without an acknowledgement nothing says that any got through
    lost = [e for e in close.copies if e.packet < (taken.packet or 0) and e.packet in case.lost]
    return lost, bool(lost) and all(_proof(case, end, fin) is not None for fin in lost)


def _proof(case: Case, end: End, fin: Event) -> int | None:
    """Return the packet that proves that a FIN did not arrive; None without one.

    The other end still asks for the FIN's number, with all before it received, when the FIN must have
    arrived; and it does not report to have what lies behind (RFC 2018).
    """
    assert case.timeline.distance is not None
    for event in case.events:
        if event.sender is end or event.rst or event.packet < fin.packet or event.ack is None:
            continue
        if event.ack != fin.end - 1 or (event.sack is not None and event.sack >= fin.end):
            continue
        if case.timeline.distance.must_know(end.peer, event.time_ns, fin.time_ns):
            return event.packet
    return None


def final_ack_lost(case: Case) -> Iterator[Finding]:
    """LAST_ACK sends its FIN again though it was acknowledged, or without any answer."""
    for end in ENDS:
        lost, again = final_acks_lost(case, end), repeated_in_vain(case, end)
        if not again:
            continue
        close, taken = case.close(end), case.close(end).taken
        seen = [case.by_packet[packet].time_ns for packet in lost if packet in case.by_packet]
        if lost:
            # Its sender repeats what an ACK covered, so that ACK had not arrived (but for one that crossed).
            sure = set(lost) <= case.lost
            named = f"the {end.peer}'s final ACK ({packets(lost)}) was lost {times(len(lost))}"
        else:
            sure = taken is not None and taken.certainty is not Certainty.ASSUMED and not case.missing
            named = f"the final ACK from the {end.peer} was lost, without having been captured"
        if not close.covers:
            named = f"no final ACK from the {end.peer} was seen"
        outcome, advice, until, recovered = _outcome(case, end)
        yield found(
            FindingCode.FINAL_ACK_LOST,
            end,
            Certainty.PROVED if sure else Certainty.ASSUMED,
            since_ns=min(seen, default=close.copies[0].time_ns),
            until_ns=until,
            packets=[close.copies[0].packet, *lost, *(e.packet for e in again)],
            summary=(
                f"{named}, so that the {end} sent its FIN again ({packets(e.packet for e in again)}); "
                f"{outcome}"
            ),
            advice=advice,
            severity=Severity.NOTICE if recovered else None,
        )


def final_acks_lost(case: Case, end: End) -> list[int]:
    """Return the final ACKs to an end in LAST_ACK that the timeline shows to have been lost."""
    close = case.close(end)
    if not close.copies or not _was_last(case, end):
        return []
    last = close.copies[-1]
    return [packet for packet, _ in close.covers if packet < last.packet and packet in case.lost]


def repeated_in_vain(case: Case, end: End) -> list[Event]:
    """Return the retransmissions of the second FIN that were sent though it had arrived, or never answered.

    One that crossed the ACK says nothing of it.
    """
    close = case.close(end)
    if len(close.copies) < 2 or not _was_last(case, end):  # noqa: PLR2004 - a FIN and its repetition
        return []
    taken = close.taken.packet if close.taken is not None else None
    lost = final_acks_lost(case, end)
    first = min([p for p in (taken, *lost) if p is not None], default=close.copies[0].packet)
    return [e for e in close.copies if e.packet > first and not _crossed(case, end, e)]


def _crossed(case: Case, end: End, fin: Event) -> bool:
    """Whether an ACK that was not lost had been sent when its receiver repeated its FIN."""
    return any(packet < fin.packet and packet not in case.lost for packet, _ in case.close(end).covers)


def _was_last(case: Case, end: End) -> bool:
    sent = case.close(end).sent
    return sent is not None and sent.after is State.LAST_ACK


def _outcome(case: Case, end: End) -> tuple[str, str, int, bool]:
    """Return how it came out, what to do, when it was over, and whether all is well again."""
    close, peer = case.close(end), end.peer
    resets = (reset for t, reset in case.endings if t.endpoint is end and reset.sender is peer)
    reset = next((reset for reset in resets if reset.time_ns > close.copies[0].time_ns), None)
    if reset is not None:
        if not list(case.stays(peer, State.TIME_WAIT)):
            outcome = f"a RST answered it (#{reset.packet}): the {peer} no longer had the connection"
            return (
                outcome,
                f"find out what ended the connection at the {peer}; see reset-cause",
                reset.time_ns,
                False,
            )
        outcome = f"a RST answered it (#{reset.packet}): the {peer}'s TIME_WAIT was already gone"
        advice = (
            f"the data are safe, the {peer} had them all; but find out what ended TIME_WAIT at the {peer} "
            "before its 2MSL: a reboot, net.ipv4.tcp_max_tw_buckets exceeded ('nstat -az "
            "TcpExtTCPTimeWaitOverflow'), a load balancer, or a RST (RFC 1337)"
        )
        return outcome, advice, reset.time_ns, False
    if close.heard is not None and not close.covers:
        outcome = f"then the {end} stopped, so an ACK that was not captured must have arrived"
        return outcome, "no change is needed in the programs", close.heard.time_ns, True
    if close.acknowledged:
        packet, time_ns = close.covers[-1]
        waiting = case.unacknowledged(end, State.LAST_ACK)
        arrived = "" if waiting is None else ", though nothing shows that this one arrived"
        outcome = f"acknowledged again from TIME_WAIT (#{packet}), which is what TIME_WAIT is for{arrived}"
        advice = (
            "no change is needed in the programs, and TIME_WAIT must not be shortened; find what drops "
            f"packets from the {peer} to the {end}, often a firewall that forgets the connection at the FIN"
        )
        return outcome, advice, time_ns, waiting is None
    advice = (
        f"find out whether the {peer} {case.conversation.address(peer)} can still be reached, and what "
        f"drops packets between it and the {end}; the {end}'s kernel gives up by itself "
        "(net.ipv4.tcp_orphan_retries)"
    )
    stay = case.present(end)
    until = case.now_ns if stay is None else case.until(stay)
    return "nothing acknowledged it since", advice, until, False
