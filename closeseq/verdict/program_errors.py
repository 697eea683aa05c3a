"""Which error a program got from the kernel, at which packet: ECONNRESET, EPIPE and others.

By Linux's rules (tcp_reset() and tcp_write_err() in net/ipv4): a RST sets the error of the socket, and which
one depends on its state; the program gets it from its next call. No packet shows whether there was a next
call, nor whether a program still had the socket, so no error is more than assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Traffic
from closeseq.packets.segments import ACK, RST, SYN
from closeseq.packets.value import value
from closeseq.settings import SECOND
from closeseq.tcp.states import Signal, State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, span
from closeseq.verdict.model import ErrorCode, FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.tcp.timeline import Timeline, Transition
    from closeseq.verdict.model import Finding

LONGEST_TIMEOUT_NS = 120 * SECOND  # Linux: TCP_RTO_MAX, the longest time between two retransmissions
GIVES_UP_NS = 924 * SECOND  # Linux: 15 retransmissions (net.ipv4.tcp_retries2) take at least so long
SYN_RETRIES = 6  # Linux: net.ipv4.tcp_syn_retries
FEWEST_SYNS = 3  # the fewest that a kernel sends before it gives up; a program gives up sooner


@value
class ProgramError:
    """A system call of a program fails."""

    code: ErrorCode  # errno's name
    endpoint: End  # whose program gets it
    certainty: Certainty
    packet: int  # that brings it about, or the last one before
    time_ns: int  # when its kernel knew, since the Unix epoch
    text: str  # one line: what happened, and which call fails


def program_errors(timeline: Timeline, findings: Sequence[Finding]) -> list[ProgramError]:
    """Return the errors that programs got at both endpoints, in the order of time.

    Args:
        timeline: both endpoints' states.
        findings: what was found of the same connection.
    """
    found = [error for t in timeline.transitions if t.cause == Signal.RECEIVES_RST for error in _reset(t)]
    for end in ENDS:
        if timeline.state(end) is State.SYN_SENT:
            found += _unanswered(timeline, end)
    for finding in findings:
        if finding.code is FindingCode.HALF_OPEN:
            found += _gone(timeline, finding)
        elif finding.code is FindingCode.BIND_BLOCKED:
            found += _blocked(finding)
    return sorted(found, key=lambda error: error.time_ns) if len(found) > 1 else found


def _reset(t: Transition) -> Iterator[ProgramError]:
    """Yield the error of the program whose kernel accepted a RST."""
    known = BY_RST.get(t.before)
    if known is None or t.packet is None or (t.before is State.SYN_RECEIVED and t.endpoint is End.SERVER):
        return  # no program has the socket, or not yet
    code, then = known
    text = f"the {t.endpoint} received RST #{t.packet} in {t.before}: {then}"
    yield ProgramError(code, t.endpoint, t.certainty, t.packet, t.time_ns, text)


_NEXT = "its next recv(), after the data that waits, or its next send() fails"
_STILL = "recv() fails if its program has called shutdown(SHUT_WR); after close() nobody is told"
# What a RST that is accepted sets: tcp_reset() in net/ipv4/tcp_input.c.
BY_RST: dict[State, tuple[ErrorCode, str]] = {
    State.SYN_SENT: (ErrorCode.ECONNREFUSED, "connect() fails"),
    State.SYN_RECEIVED: (ErrorCode.ECONNRESET, "connect() fails"),  # of both that open at once
    State.ESTABLISHED: (ErrorCode.ECONNRESET, _NEXT),
    State.CLOSE_WAIT: (
        ErrorCode.EPIPE,
        "its next send() fails, with SIGPIPE, while recv() returns 0; BSD, macOS and Windows: ECONNRESET",
    ),
    State.FIN_WAIT_1: (ErrorCode.ECONNRESET, _STILL),
    State.FIN_WAIT_2: (ErrorCode.ECONNRESET, _STILL),
    State.UNKNOWN: (
        ErrorCode.ECONNRESET,
        f"{_NEXT}; with EPIPE if the peer's FIN came before the capture began",
    ),
}


def _unanswered(timeline: Timeline, end: End) -> Iterator[ProgramError]:
    """Yield that connect() timed out: the SYN was retransmitted without an answer, until no more came."""
    syns = [e for e in timeline.conversation.events if e.sender is end and e.flags & (SYN | ACK | RST) == SYN]
    if len(syns) < FEWEST_SYNS:
        return
    last, wait = syns[-1], syns[-1].time_ns - syns[-2].time_ns
    if timeline.now_ns - last.time_ns <= 2 * wait + SECOND // 5:
        return  # the next one may still come
    retries = len(syns) - 1
    text = (
        f"the {end}'s SYN was retransmitted {count(retries, 'time')} without an answer, the last time in "
        f"#{last.packet}: connect() fails"
    )
    if retries < SYN_RETRIES:
        text += ", unless its program gave up before its kernel (Linux: after 6 retransmissions)"
    yield ProgramError(
        ErrorCode.ETIMEDOUT, end, Certainty.ASSUMED, last.packet, last.time_ns + 2 * wait, text
    )


def _gone(timeline: Timeline, finding: Finding) -> Iterator[ProgramError]:
    """Yield that retransmissions or keepalives were given up."""
    end = finding.endpoint
    assert end is not None
    conversation = timeline.conversation
    reset = next((e for e in conversation.events if e.rst and e.packet == finding.packets[-1]), None)
    if reset is not None:
        text = f"the {end} gave up with RST #{reset.packet}: its next call fails"
        yield ProgramError(ErrorCode.ETIMEDOUT, end, finding.certainty, reset.packet, reset.time_ns, text)
        return
    last_ns, packet = 0, 0
    for step in conversation.steps:
        if isinstance(step, Traffic):
            stream = step.of(end)
            if stream:
                last_ns, packet = stream.last_ns, stream.last_packet
        elif step.sender is end:
            last_ns, packet = step.time_ns, step.packet
    if timeline.now_ns - finding.since_ns < GIVES_UP_NS or timeline.now_ns - last_ns <= LONGEST_TIMEOUT_NS:
        return  # it may still retransmit
    text = (
        f"the {end} retransmitted for {span(last_ns - finding.since_ns)} without an answer, the last time in "
        f"#{packet}: its next call fails (Linux: net.ipv4.tcp_retries2)"
    )
    until = last_ns + LONGEST_TIMEOUT_NS
    yield ProgramError(ErrorCode.ETIMEDOUT, end, Certainty.ASSUMED, packet, until, text)


def _blocked(finding: Finding) -> Iterator[ProgramError]:
    """Yield that bind() to the server's port fails."""
    end = finding.endpoint
    if end is None or not finding.packets:
        return
    text = f"if a program binds the port now: {finding.summary}"
    yield ProgramError(
        ErrorCode.EADDRINUSE, end, Certainty.ASSUMED, finding.packets[-1], finding.since_ns, text
    )
