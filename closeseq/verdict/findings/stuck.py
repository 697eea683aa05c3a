"""Endpoints that wait in a state of the close for longer than a program or a path should make them.

A wait is measured to now, or to when the peer gave up, and counts from `limits.stuck_after_ns` on. Data
starts it anew: an endpoint that still sends over a half-closed connection is not stuck.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import packets, span, times
from closeseq.verdict.findings import found
from closeseq.verdict.incomplete import captured
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case, Stay
    from closeseq.verdict.model import Finding

LONGEST_FIRST_TIMEOUT_NS = 5 * SECOND  # a first timeout (RTO) is at most about 3 s (RFC 6298 5.7)
BACKOFF = 2  # each is twice the one before (RFC 6298 5.5)


def stuck_close_wait(case: Case) -> Iterator[Finding]:
    """It has received FIN and sent none, for `stuck_after`, or until its peer's FIN_WAIT_2 expired."""
    for stay in case.in_state(State.CLOSE_WAIT):
        end = stay.end
        since, last = _idle_since(case, stay, end)
        until = case.until(stay)
        gave_up = _expired(case, end.peer, since, until)
        long = until - since >= case.limits.stuck_after_ns
        if (
            not captured(case.conversation, end)
            or not _received_fin(case, end, stay)
            or not (long or gave_up)
        ):
            continue
        if _sent_fin(case, end, until):
            continue
        fin = stay.entered.packet
        did = "has not closed" if stay.left is None else "did not close"
        closed = stay.left if stay.left and stay.left.after is State.LAST_ACK else None
        ended = f", then closed (#{closed.packet})" if closed else ""
        after = f" after its last data (#{last})" if last is not None else ""
        peer = f"; the {end.peer} gave up waiting in FIN_WAIT_2" if gave_up else ""
        if case.closed_unseen(end):
            yield _perhaps_stuck(case, stay, since, until)
            continue
        yield found(
            FindingCode.STUCK_CLOSE_WAIT,
            end,
            case.absence(stay.entered.certainty),
            since_ns=since,
            until_ns=until,
            packets=(p for p in (fin, last) if p is not None),
            summary=(
                f"the {end} received the {end.peer}'s FIN (#{fin}) and {did} for "
                f"{span(until - since)}{after}{ended}{peer}"
            ),
            advice=(
                f"fix the program at the {end} {case.conversation.address(end)}: it must close() its socket "
                f"when recv() returns 0; 'ss -tnop state close-wait' at the {end} names the process; look "
                "for a reader that ignores 0 bytes, a writer that never reads, a pool that keeps dead "
                "connections"
            ),
        )


def _perhaps_stuck(case: Case, stay: Stay, since: int, until: int) -> Finding:
    """Return that an endpoint sent no FIN, which it may have done before the capture began.

    Connections idle for hours, and a capture hardly ever begins between two FINs: it is a problem still.
    """
    end, fin = stay.end, stay.entered.packet
    return found(
        FindingCode.STUCK_CLOSE_WAIT,
        end,
        Certainty.ASSUMED,
        since_ns=since,
        until_ns=until,
        packets=() if fin is None else (fin,),
        summary=(
            f"the {end} received the {end.peer}'s FIN (#{fin}) and sent none of its own in "
            f"{span(until - since)}, unless it had closed before the capture began"
        ),
        advice=(
            f"see what 'ss -tanop' shows at the {end} {case.conversation.address(end)}: in CLOSE_WAIT, its "
            "program is named, and must close() its socket when recv() returns 0; in TIME_WAIT, or without "
            "a socket, it had closed first, and no change is needed"
        ),
    )


def stuck_fin_wait_2(case: Case) -> Iterator[Finding]:
    """Its FIN was acknowledged and no FIN came, for `stuck_after`, or until the kernel dropped it."""
    for stay in case.in_state(State.FIN_WAIT_2):
        end = stay.end
        if stay.left is not None and stay.left.after is State.TIME_WAIT:
            continue
        since, last = _idle_since(case, stay, end.peer)
        until = case.until(stay)
        dropped = stay.left is not None and stay.left.certainty is Certainty.TIMER
        if case.closed_unseen(end.peer):
            continue  # stuck_close_wait says so
        if not captured(case.conversation, end.peer) or _sent_fin(case, end.peer, until):
            continue  # the peer's FIN was sent and is lost: then the peer is stuck
        if not dropped and until - since < case.limits.stuck_after_ns:
            continue
        close = case.close(end)
        gone = "; by then its own kernel had dropped the socket, if no program owned it" if dropped else ""
        after = f" after its own last data (#{last})" if last is not None else ""
        shown = list(case.arrived((*close.packets, stay.entered.packet, last)))
        yield found(
            FindingCode.STUCK_FIN_WAIT_2,
            end,
            case.absence(stay.entered.certainty),
            since_ns=since,
            until_ns=until,
            packets=shown,
            summary=(
                f"the {end} closed; the {end.peer} acknowledged the FIN but sent none of its own for "
                f"{span(until - since)}{after}{gone}"
            ),
            advice=(
                f"fix the program at the {end.peer} {case.conversation.address(end.peer)}: it has not "
                f"closed; at the {end}, close() instead of shutdown(SHUT_WR) lets Linux drop the socket "
                "after net.ipv4.tcp_fin_timeout (or set TCP_LINGER2); a half-closed socket with an owner "
                "waits for ever, so give its read a timeout"
            ),
        )


def stuck_fin_wait_1(case: Case) -> Iterator[Finding]:
    """Its FIN, the first one, is not acknowledged: peer or path is gone, or the peer's window is 0."""
    for stay in _unacknowledged(case, State.FIN_WAIT_1):
        end = stay.end
        if case.window_closed(end.peer):
            why = f"the {end.peer}'s window is 0: its program does not read"
            advice = (
                f"fix the program at the {end.peer} {case.conversation.address(end.peer)}: it must read (its "
                f"receive buffer is full); at the {end}, set TCP_USER_TIMEOUT so that the socket does not "
                "wait for ever"
            )
        else:
            why = f"the {end.peer} or the path to it is gone"
            advice = (
                f"find out whether the {end.peer} {case.conversation.address(end.peer)} is alive, and "
                f"whether a firewall on the path drops packets; the {end} retransmits its FIN "
                "net.ipv4.tcp_orphan_retries times, or until TCP_USER_TIMEOUT"
            )
        yield _never_acknowledged(case, FindingCode.STUCK_FIN_WAIT_1, stay, why, advice)


def stuck_last_ack(case: Case) -> Iterator[Finding]:
    """Its FIN, the second one, is not acknowledged."""
    for stay in _unacknowledged(case, State.LAST_ACK):
        why, advice = _lost_or_forgotten(case, stay)
        yield _never_acknowledged(case, FindingCode.STUCK_LAST_ACK, stay, why, advice)


def stuck_closing(case: Case) -> Iterator[Finding]:
    """Both FINs were sent, and this one's is not acknowledged."""
    for stay in _unacknowledged(case, State.CLOSING):
        why, advice = _lost_or_forgotten(case, stay)
        yield _never_acknowledged(case, FindingCode.STUCK_CLOSING, stay, why, advice)


def _lost_or_forgotten(case: Case, stay: Stay) -> tuple[str, str]:
    end, peer = stay.end, stay.end.peer
    acks = [packet for packet, _ in case.close(end).covers]
    if acks:
        why = f"the {peer} sent the ACK {times(len(acks))} ({packets(acks)}), and it does not arrive"
        if case.close(end).acknowledged:
            why += ", unless the last one did"
        advice = (
            f"find what drops these ACKs between the {peer} and the {end}, probably a firewall or NAT that "
            "dropped the connection at the first FIN: lengthen its timeout for closing connections"
        )
        return why, advice
    advice = (
        f"find out whether the {peer} {case.conversation.address(peer)} can be reached and still has the "
        f"connection; a firewall there that drops packets also hides its RST; the {end}'s kernel gives up "
        "after net.ipv4.tcp_orphan_retries"
    )
    return f"the {peer} has not acknowledged it", advice


def _never_acknowledged(case: Case, code: FindingCode, stay: Stay, why: str, advice: str) -> Finding:
    end, close, until = stay.end, case.close(stay.end), case.until(stay)
    tries = len(close.transmissions)
    sent = f", sent {times(tries)}," if tries > 1 else ""
    fins = {event.packet for event in case.close(end.peer).transmissions}
    lost = [packet for packet, _ in close.covers if packet not in fins]
    shown = [*(event.packet for event in close.transmissions), *lost]
    if _fell_silent(case, stay):
        why += ", or what followed was not captured: no TCP waits so long without a retransmission"
        certainty = Certainty.ASSUMED
    else:
        certainty = Certainty.ASSUMED if close.acknowledged else case.absence(stay.entered.certainty)
    return found(
        code,
        end,
        certainty,
        since_ns=stay.since_ns,
        until_ns=until,
        packets=shown,
        summary=(
            f"the {end}'s FIN (#{close.transmissions[0].packet}){sent} has not been acknowledged for "
            f"{span(until - stay.since_ns)}: {why}"
        ),
        advice=advice,
    )


def _fell_silent(case: Case, stay: Stay) -> bool:
    """Whether an endpoint that waits for an ACK did not retransmit its FIN, although due (RFC 6298)."""
    transmissions = case.close(stay.end).transmissions
    if not transmissions or case.window_closed(stay.end.peer):
        return False
    waits = [later.time_ns - earlier.time_ns for earlier, later in pairwise(transmissions)]
    due = max(LONGEST_FIRST_TIMEOUT_NS, 2 * BACKOFF * max(waits, default=0))
    return case.until(stay) - transmissions[-1].time_ns > due


def _unacknowledged(case: Case, state: State) -> Iterator[Stay]:
    """Yield the waits for an acknowledgement that were long, and did not end with it."""
    for end in ENDS if case.in_state(state) else ():
        stay = case.unacknowledged(end, state)
        if stay is None or case.lasted(stay) < case.limits.stuck_after_ns:
            continue
        # A direction that was not captured shows nothing, nor does waiting for the ACK of a FIN that was not.
        if captured(case.conversation, end.peer) and case.close(end).transmissions:
            yield stay


def _idle_since(case: Case, stay: Stay, sender: End) -> tuple[int, int | None]:
    """Return since when a wait is idle: its beginning, or the sender's last data, with its packet."""
    data = case.last_data(sender, stay)
    if data is None:
        return stay.since_ns, None
    event, reset = case.by_packet.get(data[1]), case.by_reset(stay.left)
    if event and reset and reset.sender is not event.sender and reset.seq == event.ack:
        return stay.since_ns, None  # refused data is no use of the connection
    return data


def _sent_fin(case: Case, end: End, until: int) -> bool:
    """Whether an endpoint's FIN was captured within a time, lost or not."""
    return any(fin.time_ns < until for fin in case.close(end).transmissions)


def _expired(case: Case, end: End, since: int, until: int) -> bool:
    """Whether an endpoint's FIN_WAIT_2 expired within a time."""
    timers = (s.left for s in case.stays(end, State.FIN_WAIT_2) if s.left is not None)
    return any(t.certainty is Certainty.TIMER and since <= t.time_ns <= until for t in timers)


def _received_fin(case: Case, end: End, stay: Stay) -> bool:
    """Whether it is more than a guess that an endpoint received the FIN: proved, or acknowledged by it."""
    return stay.entered.certainty is not Certainty.ASSUMED or bool(case.close(end.peer).covers)
