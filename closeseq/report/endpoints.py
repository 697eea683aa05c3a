"""The end of a timeline: what each endpoint still waits for, which timers run, and the findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.selection import gravity
from closeseq.report.text import Style, evidence, printable
from closeseq.tcp.states import State
from closeseq.units import span
from closeseq.verdict.incomplete import captured
from closeseq.verdict.model import Finding, FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.packets.frames import Files
    from closeseq.tcp.timeline import Transition

# The segment since which an endpoint waits, by its state.
SINCE = {
    State.SYN_SENT: "its SYN",
    State.SYN_RECEIVED: "the SYN",
    State.FIN_WAIT_1: "its FIN",
    State.FIN_WAIT_2: "the ACK of its FIN",
    State.CLOSE_WAIT: "the FIN",
    State.CLOSING: "the FIN",
    State.LAST_ACK: "its FIN",
}
TIMED = (State.TIME_WAIT, State.FIN_WAIT_2)


def standing(connection: Connection, style: Style) -> Iterator[str]:
    """Yield what each endpoint waits for when the capture ends, and when its timer expires.

    Args:
        connection: judged.
        style: how text may look: width, colours, ASCII only.
    """
    for end in End:
        for text in _standing(connection, end):
            yield from style.wrap(connection.files.text(text), first="    ", then=" " * 12)


def found(connection: Connection, style: Style) -> Iterator[str]:
    """Yield the findings with their advice, the gravest first.

    Args:
        connection: judged.
        style: how text may look: width, colours, ASCII only.
    """
    if connection.findings:
        yield ""
    for finding in sorted(connection.findings, key=gravity):
        yield from _finding(finding, connection.files, style)


def _standing(connection: Connection, end: End) -> Iterator[str]:
    """Yield what one endpoint waits for when the capture ends."""
    timeline = connection.timeline
    now, state = timeline.now_ns, timeline.state(end)
    entered = entry(connection, end)
    if entered is None or not captured(connection.conversation, end):
        return
    since = f"#{entered.packet}" if entered.packet is not None else "the timer"
    expiry = timeline.expiries.get(end)
    if state in TIMED and expiry is not None and expiry > now:
        began, since = _started(connection, expiry, entered)
        left = f"that is {span(expiry - now)} {'from now' if timeline.ongoing else 'after the capture ended'}"
        owner = ", if no program owns it" if state is State.FIN_WAIT_2 else ""
        yield f"{end}: {state} until {span(expiry - began)} after {since}{owner}; {left}"
    elif state in SINCE and not _reported(connection, end, state):
        successor = connection.conversation.successor
        waited = span((successor.time_ns if successor else now) - entered.time_ns)
        still = f"still in {state} when the capture ended"
        if successor:
            still = f"still in {state} when a new connection began (#{successor.packet})"
        elif timeline.ongoing:
            still = f"in {state}"
        yield f"{end}: {still}, {waited} after {SINCE[state]} ({since})"


def _started(connection: Connection, expiry: int, entered: Transition) -> tuple[int, str]:
    """Return when a running timer was last started, and by which packet (a retransmitted FIN restarts it)."""
    timers = connection.settings.timers
    length = timers.time_wait_ns if entered.after is State.TIME_WAIT else timers.fin_timeout_ns
    for step in connection.timeline.steps:
        if step.event is not None and step.time_ns == expiry - length:
            return step.time_ns, f"#{step.packet}"
    return entered.time_ns, "the timer" if entered.packet is None else f"#{entered.packet}"


def entry(connection: Connection, end: End, at_ns: int | None = None) -> Transition | None:
    """Return the transition by which an endpoint entered its state; None if it is in its first one.

    Args:
        connection: judged.
        end: which endpoint.
        at_ns: the moment whose state is meant, since the Unix epoch; None: the end.
    """
    entered = None
    for transition in connection.timeline.transitions:
        if transition.endpoint is end and (at_ns is None or transition.time_ns <= at_ns):
            entered = transition
    return entered


def _reported(connection: Connection, end: End, state: State) -> bool:
    """Whether a finding already reports that this endpoint is stuck in this state."""
    code = FindingCode.stuck_in(state)
    return any(f.code == code and f.endpoint in (None, end) for f in connection.findings)


def _finding(finding: Finding, files: Files, style: Style) -> Iterator[str]:
    problem = finding.severity is Severity.PROBLEM
    mark = "!" if problem else "-"
    lasted = "" if not finding.duration_ns else f", {span(finding.duration_ns)}"
    whom = f" ({finding.endpoint})" if finding.endpoint is not None else ""
    shown = evidence(finding)
    known = f"{finding.certainty}{lasted}{f'; {shown}' if shown else ''}"
    text = files.text(f"{finding.code}{whom}: {printable(finding.summary)} [{known}]")
    for line in style.wrap(text, first=f"  {mark} ", then="    "):
        yield style.paint(line, "problem") if problem else line
    if finding.advice:
        yield from style.wrap(printable(finding.advice), first="      ")
