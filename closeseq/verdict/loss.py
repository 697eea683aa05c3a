"""Packets of the close that were lost, and what it cost."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.verdict.found import found
from closeseq.verdict.text import packets, span, times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connections.conversation import Event
    from closeseq.verdict.case import Case
    from closeseq.verdict.findings import Finding


def fin_lost(case: Case) -> Iterator[Finding]:
    """A FIN had to be sent again, and it was the FIN that was lost, not its acknowledgement."""
    for end in ENDS:
        close = case.close(end)
        taken = close.taken
        lost = [e for e in close.copies if taken is not None and e.packet < (taken.packet or 0)]
        # It was lost if a later copy was the first to be taken; what is taken in order later, when a hole
        # before it is filled, was not.
        if taken is None or not lost or taken.packet not in {e.packet for e in close.copies}:
            continue
        delay = taken.time_ns - lost[0].time_ns
        yield found(
            "fin-lost",
            end,
            taken.certainty,
            since_ns=lost[0].time_ns,
            until_ns=taken.time_ns,
            packets=[*(e.packet for e in lost), taken.packet or 0],
            summary=(
                f"the {end}'s FIN ({packets(e.packet for e in lost)}) was lost {times(len(lost))}; the "
                f"copy in #{taken.packet} got through {span(delay)} later"
            ),
            advice=(
                "nothing is to be changed in the programs; if it happens often, look for packet loss on "
                f"the path from the {end} to the {end.peer} ('nstat -az TcpRetransSegs', interface drops)"
            ),
        )


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
        outcome, advice, until = _outcome(case, end)
        yield found(
            "final-ack-lost",
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
        )


def final_acks_lost(case: Case, end: End) -> list[int]:
    """Return the final ACKs to an end in LAST_ACK after which it sent its FIN again."""
    close = case.close(end)
    if not close.copies or not _was_last(case, end):
        return []
    last = close.copies[-1]
    before = [(packet, time_ns) for packet, time_ns in close.covers if packet < last.packet]
    crossing = crossing_ns(case)
    return [packet for packet, time_ns in before if packet in case.lost or last.time_ns - time_ns > crossing]


def repeated_in_vain(case: Case, end: End) -> list[Event]:
    """Return the copies of the second FIN that were sent though it had arrived, or was never answered."""
    close = case.close(end)
    if len(close.copies) < 2 or not _was_last(case, end):  # noqa: PLR2004 - a FIN and its repetition
        return []
    taken = close.taken.packet if close.taken is not None else None
    lost = final_acks_lost(case, end)
    first = min([p for p in (taken, *lost) if p is not None], default=close.copies[0].packet)
    return [e for e in close.copies if e.packet > first]


def _was_last(case: Case, end: End) -> bool:
    sent = case.close(end).sent
    return sent is not None and sent.after is State.LAST_ACK


def _outcome(case: Case, end: End) -> tuple[str, str, int]:
    """Return how it came out, what to do, and when it was over."""
    close, peer = case.close(end), end.peer
    reset = next((reset for t, reset in case.endings if t.endpoint is end and reset.sender is peer), None)
    if reset is not None:
        if not list(case.stays(peer, State.TIME_WAIT)):
            outcome = f"a RST answered it (#{reset.packet}): the {peer} no longer had the connection"
            return (
                outcome,
                f"find out what ended the connection at the {peer}; see reset-cause",
                reset.time_ns,
            )
        outcome = f"a RST answered it (#{reset.packet}): the {peer}'s TIME_WAIT was already gone"
        advice = (
            f"the data are safe, the {peer} had them all; but find out what ended TIME_WAIT at the {peer} "
            "before its 2MSL: a reboot, net.ipv4.tcp_max_tw_buckets exceeded ('nstat -az "
            "TcpExtTCPTimeWaitOverflow'), a load balancer, or a RST (RFC 1337)"
        )
        return outcome, advice, reset.time_ns
    if close.heard is not None and not close.covers:
        outcome = f"then the {end} stopped, so an ACK that was not captured must have arrived"
        return outcome, "nothing is to be changed in the programs", close.heard.time_ns
    if close.acknowledged:
        packet, time_ns = close.covers[-1]
        waiting = case.unacknowledged(end, State.LAST_ACK)
        arrived = "" if waiting is None else ", though nothing shows that this one arrived"
        outcome = f"acknowledged again from TIME_WAIT (#{packet}), which is what TIME_WAIT is for{arrived}"
        advice = (
            "nothing is to be changed in the programs, and TIME_WAIT must not be shortened; find what drops "
            f"packets from the {peer} to the {end}, often a firewall that forgets the connection at the FIN"
        )
        return outcome, advice, time_ns
    advice = (
        f"find out whether the {peer} {case.conversation.address(peer)} can still be reached, and what "
        f"drops packets between it and the {end}; the {end}'s kernel gives up by itself "
        "(net.ipv4.tcp_orphan_retries)"
    )
    stay = case.present(end)
    return "nothing acknowledged it since", advice, case.now_ns if stay is None else case.until(stay)


def crossing_ns(case: Case) -> int:
    """Return how close two packets may follow that crossed: the round trip of the handshake, and a little."""
    handshake = [event for event in case.events[:3] if not event.rst]
    waits = [
        later.time_ns - earlier.time_ns
        for earlier, later in pairwise(handshake)
        if earlier.syn and later.sender is not earlier.sender
    ]
    return max(waits, default=0) + 1_000_000
