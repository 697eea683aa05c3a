"""Ends that wait in a state of the close for longer than a program or a path should make them.

A wait is measured to now, or to when the peer gave up, and counts from `limits.stuck_after_ns` on. Data
starts it anew: an end that still sends over a half-closed connection is not stuck.
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

    from closeseq.connections.conversation import Event
    from closeseq.verdict.case import Case, Stay
    from closeseq.verdict.model import Finding

LONGEST_FIRST_TIMEOUT_NS = 5 * SECOND  # a first retransmission time-out is at most about 3 s (RFC 6298 5.7)
BACKOFF = 2  # each is twice the one before (RFC 6298 5.5)


def stuck_close_wait(case: Case) -> Iterator[Finding]:
    """Has received FIN and sent none, for so long or until its peer's FIN_WAIT_2 ran out."""
    for end, stay in _stays(case, State.CLOSE_WAIT):
        since, last = _idle_since(case, stay, end)
        until = case.until(stay)
        gave_up = _expired(case, end.peer, since, until)
        long = until - since >= case.limits.stuck_after_ns
        if not captured(case.conversation, end) or not _told(case, end, stay) or not (long or gave_up):
            continue
        if _sent_fin(case, end, until):
            continue
        fin = stay.entered.packet
        ended = (
            f", then it closed (#{stay.left.packet})"
            if stay.left and stay.left.after is State.LAST_ACK
            else ""
        )
        after = f" after its last data (#{last})" if last is not None else ""
        peer = f"; the {end.peer} gave up waiting in FIN_WAIT_2" if gave_up else ""
        yield found(
            FindingCode.STUCK_CLOSE_WAIT,
            end,
            case.absence(stay.entered.certainty),
            since_ns=since,
            until_ns=until,
            packets=(p for p in (fin, last) if p is not None),
            summary=(
                f"the {end} was told end of file by #{fin} and had not closed for "
                f"{span(until - since)}{after}{ended}{peer}"
            ),
            advice=(
                f"mend the program at the {end} {case.conversation.address(end)}: it must close() its "
                "socket when recv() returns 0; look for a reader that ignores 0 bytes, a writer that "
                "never reads, a pool that keeps dead connections ('ss -tnop state close-wait' at the "
                f"{end} names the process)"
            ),
        )


def stuck_fin_wait_2(case: Case) -> Iterator[Finding]:
    """Its FIN was acknowledged and no FIN came back, for so long or until the kernel dropped it."""
    for end, stay in _stays(case, State.FIN_WAIT_2):
        if stay.left is not None and stay.left.after is State.TIME_WAIT:
            continue
        since, last = _idle_since(case, stay, end.peer)
        until = case.until(stay)
        dropped = stay.left is not None and stay.left.certainty is Certainty.TIMER
        if not captured(case.conversation, end.peer) or _sent_fin(case, end.peer, until):
            continue  # its FIN is lost on the way, if it was sent: then the other end is stuck
        if not dropped and until - since < case.limits.stuck_after_ns:
            continue
        close = case.close(end)
        gone = "; by then its own kernel had dropped it, if it had no owner" if dropped else ""
        after = f" after the {end.peer}'s last data (#{last})" if last is not None else ""
        shown = list(case.arrived((*close.packets, stay.entered.packet, last)))
        yield found(
            FindingCode.STUCK_FIN_WAIT_2,
            end,
            case.absence(stay.entered.certainty),
            since_ns=since,
            until_ns=until,
            packets=shown,
            summary=(
                f"the {end} closed, and the {end.peer} acknowledged that but sent no FIN for "
                f"{span(until - since)}{after}{gone}"
            ),
            advice=(
                f"the fault is at the {end.peer} {case.conversation.address(end.peer)}, which has not "
                f"closed: mend that program; at the {end}, close() instead of shutdown(SHUT_WR) lets Linux "
                "drop the socket after net.ipv4.tcp_fin_timeout (or set TCP_LINGER2); a half-close that "
                "still has an owner waits for ever, so give its read a timeout"
            ),
        )


def stuck_fin_wait_1(case: Case) -> Iterator[Finding]:
    """Its FIN, the first one, is not acknowledged: peer or path is gone, or the window is closed."""
    for stay in _unacknowledged(case, State.FIN_WAIT_1):
        end = stay.end
        if case.window_closed(end.peer):
            why = f"the {end.peer}'s window is 0: its program does not read"
            advice = (
                f"make the program at the {end.peer} read (its receive buffer is full); at the {end}, set "
                "TCP_USER_TIMEOUT so that the socket does not wait for ever"
            )
        else:
            why = f"the {end.peer} or the path to it is gone"
            advice = (
                f"find out whether the {end.peer} {case.conversation.address(end.peer)} is alive and "
                f"whether a firewall between drops packets; the {end} repeats its FIN "
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
            f"something between the {peer} and the {end} drops these ACKs, probably a firewall or NAT that "
            "forgot the connection at the first FIN: lengthen its timeout for closing connections"
        )
        return why, advice
    advice = (
        f"the {peer} no longer knows the connection or cannot be reached; a firewall there that drops "
        f"instead of rejecting hides its RST. The {end}'s kernel gives up by itself after "
        "net.ipv4.tcp_orphan_retries"
    )
    return f"the {peer} has not acknowledged it", advice


def _never_acknowledged(case: Case, code: FindingCode, stay: Stay, why: str, advice: str) -> Finding:
    end, close, until = stay.end, case.close(stay.end), case.until(stay)
    tries = len(close.copies)
    sent = f", sent {times(tries)}," if tries > 1 else ""
    fins = {event.packet for event in case.close(end.peer).copies}
    lost = [packet for packet, _ in close.covers if packet not in fins]
    shown = [*(event.packet for event in close.copies), *lost]
    if not shown and stay.entered.packet is not None:
        shown = [stay.entered.packet]
    which = f" (#{close.copies[0].packet})" if close.copies else ""
    if _fell_silent(case, stay):
        why += ", or the capture misses what followed: no TCP waits so long without sending its FIN again"
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
            f"the {end}'s FIN{which}{sent} has not been acknowledged for {span(until - stay.since_ns)}: {why}"
        ),
        advice=advice,
    )


def _fell_silent(case: Case, stay: Stay) -> bool:
    """Whether an end that waits for an ACK did not send its FIN again although it was long due (RFC 6298)."""
    copies = case.close(stay.end).copies
    if not copies or case.window_closed(stay.end.peer):
        return False
    waits = [later.time_ns - earlier.time_ns for earlier, later in pairwise(copies)]
    due = max(LONGEST_FIRST_TIMEOUT_NS, 2 * BACKOFF * max(waits, default=0))
    return case.until(stay) - copies[-1].time_ns > due


def _unacknowledged(case: Case, state: State) -> Iterator[Stay]:
    """Yield the waits for an acknowledgement that were long, and did not end with it."""
    for end in ENDS:
        stay = case.unacknowledged(end, state)
        if stay is None or case.lasted(stay) < case.limits.stuck_after_ns:
            continue
        if captured(case.conversation, end.peer):
            yield stay  # else the other direction was not captured, and its silence means nothing


def _stays(case: Case, state: State) -> Iterator[tuple[End, Stay]]:
    for end in ENDS:
        for stay in case.stays(end, state):
            yield end, stay


def _idle_since(case: Case, stay: Stay, talker: End) -> tuple[int, int | None]:
    """Return since when a wait is idle: its begin, or the last data over the half-closed connection."""
    data = case.last_data(talker, stay.entered)
    if data is None or data[0] <= stay.since_ns or data[0] > case.until(stay):
        return stay.since_ns, None
    event = case.by_packet.get(data[1])
    if event is not None and case.by_reset(stay.left) is not None and _is_answered_by(case, event, stay):
        return stay.since_ns, None  # what was refused is no use of the connection
    return data


def _is_answered_by(case: Case, data: Event, stay: Stay) -> bool:
    reset = case.by_reset(stay.left)
    return reset is not None and reset.sender is not data.sender and reset.seq == data.ack


def _sent_fin(case: Case, end: End, until: int) -> bool:
    """Whether an end's FIN was captured within a time, whatever became of it."""
    return any(fin.time_ns < until for fin in case.close(end).copies)


def _expired(case: Case, end: End, since: int, until: int) -> bool:
    """Whether an end's FIN_WAIT_2 ran out within a time."""
    timers = (s.left for s in case.stays(end, State.FIN_WAIT_2) if s.left is not None)
    return any(t.certainty is Certainty.TIMER and since <= t.time_ns <= until for t in timers)


def _told(case: Case, end: End, stay: Stay) -> bool:
    """Whether it is more than a guess that an end received the FIN: proved, or acknowledged by itself."""
    return stay.entered.certainty is not Certainty.ASSUMED or bool(case.close(end.peer).covers)
