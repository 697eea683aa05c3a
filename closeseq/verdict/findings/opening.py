"""The open: it took long, the server did not take the connection, or an older one was in its way.

A Linux server that is too slow with accept() shows it here only: when the accept queue is full, its kernel
drops SYNs, and drops the ACK that completes a handshake and the data behind it, as if they had been lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Event, Opener, Position, Traffic
from closeseq.packets.segments import SYN
from closeseq.packets.value import value
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, packets, span, times
from closeseq.verdict.findings import found
from closeseq.verdict.model import FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Finding

# Sooner than that no SYN is retransmitted (RFC 6298 2.1: after 1 s); a program may set less.
SLOW_NS = SECOND // 2
SEVERAL = 2  # segments are rarely lost together
NO_DATA_END = 2  # the number after a FIN without data before it: the SYN takes one, and the FIN
# A RST that answers a segment comes this much later than the handshake's answer at most.
AT_ONCE_NS = SECOND // 10


def slow_open(case: Case) -> Iterator[Finding]:
    """The client sent its SYN again, and then got an answer."""
    second, third = (*case.conversation.steps[1:3], None, None)[:2]
    if isinstance(second, Event) and second.ack is not None and isinstance(third, Event) and not third.syn:
        return  # the ordinary handshake, or an older connection in its way
    asked, answered = _syns(case)
    if len(asked) < 2 or not answered:  # noqa: PLR2004 - a SYN and its retransmission
        return
    first, last, answer = asked[0], asked[-1], answered[-1]
    waited = answer.time_ns - first.time_ns
    if waited < SLOW_NS or answer.packet in case.lost:  # then it has not opened
        return
    server = case.conversation.server
    sent = f"the client sent its SYN {times(len(asked))} ({packets(e.packet for e in asked)})"
    if answered[0].packet < last.packet:
        summary = (
            f"{sent} although the server {server} had answered (#{answered[0].packet}): the SYN ACK was "
            f"lost, or was late; the open took {span(waited)} (#{answer.packet})"
        )
        advice = (
            "one SYN ACK may be lost on any path; if it happens often, look for packet loss from the server "
            "to the client, and for a path or a firewall that delays the first packet"
        )
    else:
        summary = (
            f"{sent} before the server {server} answered (#{answer.packet}), {span(waited)} after the first"
        )
        advice = (
            "one SYN may be lost on any path; if it happens often, see whether the server drops them: "
            "'nstat -az TcpExtListenOverflows TcpExtListenDrops' (its accept queue is full, see 'closeseq "
            "explain accept-queue-full'), or a full connection tracking table ('conntrack -S')"
        )
    yield found(
        FindingCode.SLOW_OPEN,
        End.CLIENT,
        case.absence(Certainty.OBSERVED),
        since_ns=first.time_ns,
        until_ns=answer.time_ns,
        packets=[*(e.packet for e in asked), answered[0].packet, answer.packet],
        summary=summary,
        advice=advice,
    )


def _syns(case: Case) -> tuple[list[Event], list[Event]]:
    """Return the client's SYNs, and the server's SYN ACKs, up to the first other segment."""
    asked: list[Event] = []
    answered: list[Event] = []
    for step in case.conversation.steps:
        if isinstance(step, Traffic):
            break
        if step.packet in case.timeline.strays:
            continue
        if not step.syn or step.rst:
            break
        (answered if step.ack is not None else asked).append(step)
        if step.sender is not (End.CLIENT if step.ack is None else End.SERVER):
            return [], []  # a simultaneous open
    return asked, answered


def accept_queue_full(case: Case) -> Iterator[Finding]:
    """The server's kernel received the ACK that completes the handshake, and did not take the connection."""
    syns = [e for e in case.events if e.flags & SYN and e.sender is End.SERVER]
    if not syns or (len(syns) < 2 and not case.resets):  # noqa: PLR2004 - a SYN ACK and its retransmission
        return
    completing = next(
        (e for e in case.events if e.sender is End.CLIENT and e.ack is not None and not e.syn), None
    )
    if completing is None or completing.rst or completing.packet < syns[0].packet:
        return
    ignored = _ignored(case, completing, [e for e in syns if e.packet > completing.packet])
    if ignored is not None:
        yield _dropped(case, completing, ignored)
    else:
        yield from _answered_by_reset(case, completing)


@value
class Ignored:
    """What the server's retransmitted SYN ACK shows to have been dropped."""

    repeated: tuple[Event, ...]  # its SYN ACKs after the handshake's last ACK
    segments: int  # that the client had sent by then, that ACK included
    data: int | None  # the first packet of data among them; None without data
    echoed: int | None  # the SYN ACK whose timestamp shows that the ACK had arrived; None without one


def _ignored(case: Case, completing: Event, repeated: list[Event]) -> Ignored | None:
    """Return what shows that the server repeated its SYN ACK although the ACK of it had arrived.

    Linux 6.18 does not keep the timestamp of an ACK that it drops, and still echoes the SYN's, as if it had
    been lost; a later echo shows that it had not. Without one, several segments must have been sent to the
    server, since one may be lost, and captured near it, since all may be lost on a path that fails.
    """
    if not repeated:
        return None
    segments, data = _sent_before(case, repeated[-1].packet)
    asked = [e.tsval for e in case.events if e.syn and e.sender is End.CLIENT]
    echoed = None
    for again in repeated:
        if again.tsecr is None or completing.tsval is None or not asked:
            continue
        if echoed is None and all(again.tsecr != tsval for tsval in asked):
            echoed = again.packet
    if echoed is None and (segments < SEVERAL or not _near_the_server(case, completing)):
        return None
    return Ignored(tuple(repeated), segments, data, echoed)


def _sent_before(case: Case, packet: int) -> tuple[int, int | None]:
    """Return how many segments but SYNs the client sent before a packet, and the first with data, if any."""
    segments, data = 0, None
    for step in case.conversation.steps:
        if step.packet >= packet:
            break
        if isinstance(step, Traffic):
            segments += step.client.segments
            data = step.client.first_packet if data is None and step.client.bytes else data
        elif step.sender is End.CLIENT and not step.syn:
            segments += 1
            data = step.packet if data is None and step.length else data
    return segments, data


def _near_the_server(case: Case, completing: Event) -> bool:
    """Whether the server's part of the handshake took no longer than the client's, at the capture point."""
    answer = next((e for e in case.events if e.syn and e.sender is End.SERVER), None)
    asked = [e for e in case.events if e.syn and e.sender is End.CLIENT]
    if answer is None or not asked:
        return False
    last = next((e for e in reversed(asked) if e.packet < answer.packet), asked[0])
    return answer.time_ns - last.time_ns <= completing.time_ns - answer.time_ns


def _data_before(case: Case, packet: int) -> tuple[int | None, int | None]:
    """Return the client's first data before a packet, and its last timestamp before that; None without."""
    data, tsval = None, None
    for step in case.conversation.steps:
        if step.packet >= packet:
            break
        if isinstance(step, Traffic):
            stream = step.client
            if not stream:
                continue
            data = stream.first_packet if data is None and stream.bytes else data
            tsval = stream.tsval
        elif step.sender is End.CLIENT:
            data = step.packet if data is None and step.length and not step.syn else data
            tsval = step.tsval
    return data, tsval


def _dropped(case: Case, completing: Event, ignored: Ignored) -> Finding:
    """Return that the kernel dropped what completes the handshake."""
    repeated, port = ignored.repeated, case.conversation.server.port
    ack = f"the client had sent {count(ignored.segments, 'segment')} (ACK #{completing.packet}"
    sent = ack + (f", data #{ignored.data})" if ignored.data is not None else ")")
    shown = (
        f"#{ignored.echoed} echoes a timestamp that is later than the SYN's, so they arrived"
        if ignored.echoed is not None
        else "unless all were lost after they were captured near the server"
    )
    deferred = (
        "" if ignored.data is not None else ", or its program has set TCP_DEFER_ACCEPT and waits for data"
    )
    return found(
        FindingCode.ACCEPT_QUEUE_FULL,
        End.SERVER,
        Certainty.ASSUMED,
        since_ns=completing.time_ns,
        until_ns=repeated[-1].time_ns,
        packets=[
            *(e.packet for e in repeated),
            *(p for p in (completing.packet, ignored.data) if p is not None),
        ],
        summary=(
            f"the server sent its SYN ACK again ({packets(e.packet for e in repeated)}) although {sent}: "
            f"the accept queue of its port {port} was full{deferred}; {shown}"
        ),
        advice=_queue_advice(case),
        severity=None if ignored.data is not None else Severity.NOTICE,
    )


def _queue_advice(case: Case) -> str:
    port = case.conversation.server.port
    return (
        f"see at the server whether Recv-Q is above Send-Q in 'ss -ltn sport = :{port}' and whether "
        "'nstat -az TcpExtListenOverflows' counts; then find out why its program does not call accept() in "
        "time, or give listen() a larger backlog (net.core.somaxconn limits it)"
    )


def _answered_by_reset(case: Case, completing: Event) -> Iterator[Finding]:
    """Yield that the ACK that completes the handshake was answered with a bare RST, numbered like it."""
    reset = case.resets[0] if case.resets else None
    if reset is None or reset.sender is not End.SERVER or reset.ack is not None or reset.seq != 1:
        return
    if reset.packet < completing.packet:
        return
    if reset.time_ns - completing.time_ns > case.conversation.round_trip_ns + AT_ONCE_NS:
        return
    if case.conversation.server_bytes or case.close(End.SERVER) or case.close(End.CLIENT):
        return
    if case.conversation.opener is not Opener.SEEN or reset.packet in case.timeline.strays:
        return
    yield found(
        FindingCode.ACCEPT_QUEUE_FULL,
        End.SERVER,
        Certainty.ASSUMED,
        since_ns=completing.time_ns,
        until_ns=reset.time_ns,
        packets=[completing.packet, reset.packet],
        summary=(
            f"the server answered what completes the handshake (#{completing.packet}) with RST "
            f"(#{reset.packet}): the accept queue of its port {case.conversation.server.port} was full "
            "(net.ipv4.tcp_abort_on_overflow=1), or its program closed the listening socket at that moment"
        ),
        advice=_queue_advice(case),
    )


def never_accepted(case: Case) -> Iterator[Finding]:
    """The server's kernel acknowledged the client's data and FIN, and its program never sent a byte."""
    conversation = case.conversation
    close = case.close(End.CLIENT)
    if not close or case.close(End.SERVER) or not case.timeline.began:
        return
    if conversation.server_bytes or not conversation.client_bytes:
        return
    fin = next((one for one in close.transmissions if one.packet not in case.lost), None)
    if fin is None or fin.end <= NO_DATA_END or not close.covers:
        return
    for stay in case.stays(End.SERVER, State.CLOSE_WAIT):
        waited = case.lasted(stay)
        if waited < case.limits.stuck_after_ns:
            continue
        ack = close.covers[-1][0]
        yield found(
            FindingCode.NEVER_ACCEPTED,
            End.SERVER,
            Certainty.ASSUMED,
            since_ns=stay.since_ns,
            until_ns=case.until(stay),
            packets=[fin.packet, ack],
            summary=(
                f"the server's kernel acknowledged {count(fin.end - NO_DATA_END, 'byte')} and the FIN "
                f"(#{fin.packet} #{ack}) from the client, and in {span(waited)} its program sent nothing: "
                "probably it never called accept(), or hangs before its first answer"
            ),
            advice=(
                f"see at the server whether 'ss -tanp state close-wait' shows unread bytes (Recv-Q) and no "
                f"process for {conversation.client}: then it waits in the accept queue, so find out why the "
                "program does not call accept(); if a process is named, that one hangs"
            ),
        )


def blocked_by_old_connection(case: Case) -> Iterator[Finding]:
    """A SYN was answered with an ACK of an older connection, or this is the older one."""
    yield from _in_the_way(case)
    if not case.timeline.strays or not case.timeline.began:
        return
    asked: Event | None = None
    blocking: list[Event] = []
    refused: Event | None = None  # the client's RST that shows that it does not know that connection
    for step in case.conversation.steps:
        if isinstance(step, Traffic):
            break
        stray = step.packet in case.timeline.strays
        if stray and step.position is not Position.OUTSIDE and asked is not None:
            if step.sender is not asked.sender and step.pure_ack:
                blocking.append(step)
            elif step.rst and blocking and refused is None:
                refused = step
        elif step.syn and step.ack is None:
            asked = step if asked is None else asked
        elif not stray:
            break
    if asked is None or asked.sender is not End.CLIENT or not blocking:
        return
    opened = next((e for e in case.events if e.syn and e.sender is End.SERVER and e.ack is not None), None)
    until = case.now_ns if opened is None else opened.time_ns
    ended = f", which the client answered with RST (#{refused.packet})" if refused is not None else ""
    outcome = (
        f"nothing has opened the new one in {span(until - asked.time_ns)}"
        if opened is None
        else f"the new one opened {span(until - asked.time_ns)} later (#{opened.packet})"
    )
    shown = [asked, *blocking, *(e for e in (refused, opened) if e is not None)]
    yield found(
        FindingCode.BLOCKED_BY_OLD_CONNECTION,
        End.SERVER,
        Certainty.ASSUMED if refused is None else Certainty.PROVED,
        since_ns=asked.time_ns,
        until_ns=max(until, asked.time_ns),
        packets=(e.packet for e in shown),
        summary=(
            f"the server answered the client's SYN (#{asked.packet}) with an ACK numbered in an older "
            f"connection of the same addresses and ports ({packets(e.packet for e in blocking)}){ended}; "
            f"{outcome}"
        ),
        advice=(
            "look at the connection before this one of the same addresses and ports: if the server is in "
            "CLOSE_WAIT there, its program has not closed; if in FIN_WAIT_2 or TIME_WAIT, the client should "
            "not come back so soon from the same port: let the kernel choose it (bind() to no port)"
        ),
        severity=Severity.NOTICE if opened is not None else None,
    )


def _in_the_way(case: Case) -> Iterator[Finding]:
    """Yield that the server still has this connection when the client opens the next one of the pair."""
    successor = case.conversation.successor
    if successor is None or successor.sender is not End.CLIENT:
        return
    stay = case.present(End.SERVER)
    if stay is None or stay.state not in (State.CLOSE_WAIT, State.FIN_WAIT_2):
        return
    if stay.entered.packet is None or stay.since_ns > successor.time_ns:
        return
    yield found(
        FindingCode.BLOCKED_BY_OLD_CONNECTION,
        End.SERVER,
        Certainty.ASSUMED,
        since_ns=stay.since_ns,
        until_ns=successor.time_ns,
        packets=[stay.entered.packet],
        summary=(
            f"the server was still in {stay.state} when the client sent a SYN for the same addresses and "
            f"ports (#{successor.packet}): as long as its kernel has this connection, the next one does not "
            "open"
        ),
        advice=(
            f"{_who_ends(stay.state)}; let the client's kernel choose the port (bind() to no port), so that "
            "a new connection does not meet an old one"
        ),
        severity=Severity.NOTICE,
    )


def _who_ends(state: State) -> str:
    """Return what ends an old connection at the server."""
    if state is State.CLOSE_WAIT:
        return "fix the program at the server: it must close() its socket when recv() returns 0"
    return "find out why the client did not close before it came back"
