"""Data after a FIN: accepted (a half-close), refused (lost), or none for a long time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Position, Traffic
from closeseq.packets.value import or_0
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, packets, span
from closeseq.verdict.case import weakest
from closeseq.verdict.findings import found
from closeseq.verdict.incomplete import ack_of
from closeseq.verdict.model import FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case, Stay
    from closeseq.verdict.model import Finding


def half_close(case: Case) -> Iterator[Finding]:
    """After one endpoint's FIN, data still flowed the other way, and it acknowledged them.

    A closed socket refuses data, so the endpoint must have called shutdown(SHUT_WR).
    """
    for end in ENDS:
        close = case.close(end)
        if not close.transmissions or any(_refused(case, end.peer)):
            continue  # what is answered by RST was not accepted
        fin = close.transmissions[0]
        before, after, first, last = 1, 0, None, None  # the first byte has the number 1
        for step in case.conversation.steps:
            sent = _end_of_data(step, end.peer)
            if step.packet < fin.packet:
                before = max(before, or_0(sent))
            elif sent is not None and sent > before and step.packet not in case.lost:
                first, last = first or step, step
            ack = ack_of(step, end)
            if step.packet > fin.packet and ack is not None:
                after = max(after, ack)
        accepted = _without_fin(case, end.peer, after) - before
        if first is None or last is None or accepted <= 0:
            continue
        until = last.time_ns if isinstance(last, Event) else last.of(end.peer).last_ns
        yield found(
            FindingCode.HALF_CLOSE,
            end,
            Certainty.PROVED,
            since_ns=fin.time_ns,
            until_ns=until,
            packets=[fin.packet, first.packet, last.packet],
            summary=(
                f"after its FIN (#{fin.packet}) the {end} still accepted {count(accepted, 'byte')} from "
                f"the {end.peer}, in {span(until - fin.time_ns)}: a deliberate half-close"
            ),
            advice=(
                f"no change is needed if the {end} calls shutdown(SHUT_WR) to end its request; it must go on "
                "reading until recv() returns 0, with a timeout"
            ),
        )


def _end_of_data(step: Event | Traffic, sender: End) -> int | None:
    """Return the number after a step's last byte of data; None without data of this sender."""
    if isinstance(step, Traffic):
        stream = step.of(sender)
        return stream.end if stream.bytes else None
    return step.end - step.fin if step.sender is sender and step.length and not step.rst else None


def _without_fin(case: Case, sender: End, ack: int) -> int:
    """Return how far an acknowledgement covers data: the FIN takes a number of its own."""
    fins = case.close(sender).transmissions
    return min(ack, fins[0].end - 1) if fins else ack


# A TLS close_notify has 24 to 48 bytes, an SMTP QUIT 6: a goodbye that nobody misses.
GOODBYE_BYTES = 48


def data_after_close(case: Case) -> Iterator[Finding]:
    """Data sent to an endpoint that had closed were answered by RST, and are lost."""
    for end in ENDS:
        refused = list(_refused(case, end))
        if not refused:
            continue
        # A RST that was lost reached nobody.
        refused = [pair for pair in refused if pair[1].packet not in case.lost] or refused
        data, reset = refused[0]
        shown = [e.packet for pair in refused for e in pair if e.packet not in case.lost]
        size = sum({event.seq: event.length for event, _ in refused}.values())
        closed = (
            f"the {end.peer} had closed"
            if case.close(end.peer)
            else f"a RST had ended the connection at the {end.peer}"
        )
        goodbye = is_goodbye(case, end, size)
        unheard = ", which did not arrive" if reset.packet in case.lost else ""
        what = "the data are lost" + (
            ", but so few bytes at the very end are usually a TLS close_notify or a QUIT" if goodbye else ""
        )
        yield found(
            FindingCode.DATA_AFTER_CLOSE,
            end,
            _certainty(case, end.peer, data),
            since_ns=data.time_ns,
            until_ns=reset.time_ns,
            packets=shown or [data.packet],
            summary=(
                f"the {end} sent {count(size, 'byte')} ({packets(e.packet for e, _ in refused)}) after "
                f"{closed}; the {end.peer} answered with RST (#{reset.packet}){unheard}: {what}"
            ),
            advice=(
                f"no change is needed if the {end} sent only its goodbye; else see 'closeseq explain "
                "data-after-close'"
                if goodbye
                else f"{_why_closed(case, end.peer, data)}; the program at the {end} gets ECONNRESET from "
                "its next read or write, then EPIPE (and SIGPIPE: use MSG_NOSIGNAL)"
            ),
            severity=Severity.NOTICE if goodbye else None,
        )


def is_goodbye(case: Case, end: End, size: int) -> bool:
    """Whether refused data is short, and the very last of its sender, after its peer's FIN.

    Args:
        case: the connection.
        end: the data's sender.
        size: bytes of data that were refused.
    """
    fins = case.close(end.peer).transmissions
    if size > GOODBYE_BYTES or not fins:
        return False
    fin = fins[0]
    sent = 0
    for step in case.conversation.steps:
        if isinstance(step, Traffic):
            # Traffic after a FIN is more than a few words, or retransmissions.
            sent += step.of(end).bytes if step.packet > fin.packet else 0
        elif step.sender is end and step.packet > fin.packet and step.packet not in case.timeline.strays:
            sent += step.length if step.position in (Position.NEW, Position.GAP, Position.REORDERED) else 0
    return sent <= GOODBYE_BYTES


def _why_closed(case: Case, end: End, before: Event) -> str:
    """Return where to look for why an endpoint refused data: at its close(), or at the RST that ended it."""
    if not case.close(end):
        ended_by = [r for t, r in case.endings if t.endpoint is end and r.packet < before.packet]
        if ended_by:
            reset = ended_by[0]
            return f"find out why RST #{reset.packet} was sent: it had ended the connection at the {end}"
    return (
        f"if the data matter, fix the program at the {end}, which closes too early: call shutdown(SHUT_WR), "
        "read until recv() returns 0, then close()"
    )


def _refused(case: Case, end: End) -> Iterator[tuple[Event, Event]]:
    """Yield the data of an endpoint that its closed peer answered by RST, each with the answer.

    A RST in answer to a segment has no ACK, and takes its number from what it answers (RFC 9293 3.10.7.1).
    """
    pending: list[Event] = []  # not acknowledged so far
    last: Event | None = None  # RST that refused some of it
    for event in case.events if case.resets else ():
        if event.sender is end and event.length:
            pending.append(event)
        elif event.sender is not end and event.rst:
            refused = next((data for data in pending if _refuses(case, event, data)), None)
            if refused is not None:
                yield refused, event
                pending.remove(refused)
                last = event
        elif event.sender is not end and event.ack is not None:
            acked = event.ack
            pending = [data for data in pending if data.end > acked]
    if last is not None:  # what it had been sent beside that is lost as well
        sent = (data for data in pending if data.packet < last.packet)
        yield from ((data, last) for data in sent if _refuses(case, last, data))


def _refuses(case: Case, reset: Event, data: Event) -> bool:
    """Whether a RST of an endpoint that had closed answers data."""
    answers = reset.ack is None and reset.seq == data.ack
    refuses = reset.ack is not None and reset.ack <= data.seq and bool(case.close(reset.sender))
    return (answers or refuses) and _had_closed(case, reset.sender, data)


def _had_closed(case: Case, end: End, before: Event) -> bool:
    """Whether an endpoint had sent its FIN, or been reset, before a packet of its peer."""
    fin = case.close(end)
    if fin and fin.began < (before.time_ns, before.packet):
        return True
    return any(t.endpoint is end and reset.packet < before.packet for t, reset in case.endings)


def _certainty(case: Case, end: End, data: Event) -> Certainty:
    """Return how sure it is that an endpoint had closed: by its FIN, or by the transition of a RST."""
    if case.close(end):
        return Certainty.OBSERVED if case.close(end).transmissions else Certainty.ASSUMED
    return weakest(*(t.certainty for t, r in case.endings if t.endpoint is end and r.packet < data.packet))


def slow_close(case: Case) -> Iterator[Finding]:
    """CLOSE_WAIT lasted long before its FIN. While data still flow it is in use, not slow."""
    for stay in case.in_state(State.CLOSE_WAIT):
        end = stay.end
        if stay.left is None or stay.left.after is not State.LAST_ACK:
            continue
        if stay.left.time_ns - stay.since_ns < case.limits.slow_close_ns:
            continue
        since, last = _idle_since(case, stay)
        waited = stay.left.time_ns - since
        if waited < case.limits.slow_close_ns:
            continue
        after = f" after its last data (#{last})" if last else ""
        shown = list(case.arrived((stay.entered.packet, stay.left.packet, last)))
        yield found(
            FindingCode.SLOW_CLOSE,
            end,
            weakest(stay.entered.certainty, stay.left.certainty),
            since_ns=since,
            until_ns=stay.left.time_ns,
            packets=shown,
            summary=(
                f"the {end} was in CLOSE_WAIT for {span(waited)}{after} before it closed "
                f"(#{stay.left.packet})"
            ),
            advice=(
                f"find out what the program at the {end} does between recv() returning 0 and close(): a "
                "timeout, a lock, a blocking call; until then both endpoints hold a socket"
            ),
        )


def _idle_since(case: Case, stay: Stay) -> tuple[int, int | None]:
    """Return since when CLOSE_WAIT was idle, and the packet of the last data before that, if any."""
    data = case.last_data(stay.end, stay)
    if data is None:
        return stay.since_ns, None
    own = case.by_packet.get(data[1])
    # Data in the FIN itself came at the end of the wait.
    return data if own is None or not own.fin else (stay.since_ns, None)
