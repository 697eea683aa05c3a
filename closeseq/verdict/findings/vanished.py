"""An endpoint whose peer is gone: its retransmissions, or its keepalives, get no answer any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Position, Traffic
from closeseq.packets.value import or_0, value
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, span
from closeseq.verdict.findings import found
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Finding

# So many without an answer are more than a loss, if the endpoint gave up after them. One answer may always be
# late; Linux retransmits five times and more before it gives up by itself.
ENOUGH_PROBES = 2
ENOUGH_RETRANSMISSIONS = 3


@value
class Unanswered:
    """What an endpoint sent last, and what nobody answered."""

    end: End  # that sent it
    since_ns: int  # time of the first of it, since the Unix epoch
    packets: tuple[int, ...]  # the first and the last of it, then the RST of `gave_up`
    retransmissions: int  # of data or FIN
    probes: int  # keepalives
    gave_up: Event | None  # its RST after that

    @property
    def enough(self) -> bool:
        """Whether it was sent so often that the peer must be gone, rather than a packet lost."""
        return self.probes >= ENOUGH_PROBES or self.retransmissions >= ENOUGH_RETRANSMISSIONS

    @property
    def what(self) -> str:
        """What it is, counted: `3 keepalive probes`."""
        if self.probes:
            return count(self.probes, "keepalive probe")
        return count(self.retransmissions, "retransmission")


def half_open(case: Case) -> Iterator[Finding]:
    """One endpoint is gone, and its peer still has the connection open."""
    for end in ENDS:
        gone = vanished(case, end)
        if gone is None:
            continue
        until = case.timeline.now_ns if gone.gave_up is None else gone.gave_up.time_ns
        ended = f", then it gave up with RST (#{gone.gave_up.packet})" if gone.gave_up is not None else ""
        yield found(
            FindingCode.HALF_OPEN,
            end,
            Certainty.ASSUMED,
            since_ns=gone.since_ns,
            until_ns=until,
            packets=gone.packets,
            summary=(
                f"the {end.peer} does not answer any more: {gone.what} by the {end} in "
                f"{span(until - gone.since_ns)} without an answer{ended}"
            ),
            advice=(
                f"find out whether the {end.peer} {case.conversation.address(end.peer)} crashed, lost "
                "power or was cut off (NAT and firewall timeouts drop idle connections silently); to notice "
                f"sooner, set SO_KEEPALIVE with TCP_KEEPIDLE and TCP_USER_TIMEOUT at the {end}, and also at "
                f"the {end.peer}, whose socket may stay ESTABLISHED for ever"
            ),
        )


def vanished(case: Case, end: End) -> Unanswered | None:
    """Return what an open endpoint sends in vain: for `stuck_after`, or until it gave up with RST.

    Args:
        case: the connection.
        end: the endpoint that sends.

    Returns:
        None if it is answered, or has not waited long enough.
    """
    gave_up = next((e for e in case.resets if e.sender is end and e.ack is not None), None)
    steps = case.conversation.steps
    if gave_up is None:
        if case.state(end) not in (State.ESTABLISHED, State.CLOSE_WAIT):
            return None
        tail = unanswered(case, end, steps)
        waited = tail is not None and case.now_ns - tail.since_ns >= case.limits.stuck_after_ns
        return tail if waited else None
    if not case.endings or case.endings[0][1] is not gave_up:
        return None
    tail = unanswered(case, end, steps[: steps.index(gave_up)], gave_up)
    return tail if tail is not None and tail.enough else None


def unanswered(
    case: Case, end: End, steps: tuple[Event | Traffic, ...], gave_up: Event | None = None
) -> Unanswered | None:
    """Return what an endpoint sent after its peer's last packet, if any of it calls for an answer.

    Args:
        case: the connection.
        end: the endpoint.
        steps: the conversation's, up to the moment for which it is asked.
        gave_up: the RST with which it gave up then; None if it did not.
    """
    sent, acked, events = 0, 0, []
    for step in steps:
        if isinstance(step, Traffic):
            own, other = step.of(end), step.of(end.peer)
            sent, acked = max(sent, or_0(own.end)), max(acked, or_0(other.ack))
        elif step.sender is end:
            sent = max(sent, step.end)
        else:
            acked = max(acked, or_0(step.ack))
    outstanding = sent > acked
    last: Traffic | None = None
    for step in reversed(steps):
        if isinstance(step, Traffic):
            last = step if step.of(end).unanswered else None
            break
        if step.sender is not end:
            break
        events.append(step)
    return _of_events(case, end, events[::-1], gave_up, outstanding=outstanding) or (
        _of_traffic(case, end, last, gave_up, outstanding=outstanding) if last is not None else None
    )


def _of_events(
    case: Case, end: End, events: list[Event], gave_up: Event | None, *, outstanding: bool
) -> Unanswered | None:
    data = [e for e in events if (e.length or e.fin) and outstanding]
    repeated = [e for e in data if e.position not in (Position.NEW, Position.GAP)]
    probes = [e for e in events if case.keepalives(end, e)]
    called = data if repeated else probes
    if not called:
        return None
    shown = [called[0].packet, called[-1].packet] + ([gave_up.packet] if gave_up else [])
    return Unanswered(end, called[0].time_ns, tuple(shown), len(repeated), len(probes), gave_up)


def _of_traffic(
    case: Case, end: End, last: Traffic, gave_up: Event | None, *, outstanding: bool
) -> Unanswered | None:
    stream, keepalives = last.of(end), case.keepalives(end, last)
    retransmissions = stream.retransmissions
    if not case.window_closed(end.peer, last) and not last.of(end.peer).zero_windows:
        retransmissions += stream.probes - keepalives  # a retransmitted single byte looks like a probe
    shown = (stream.unanswered_packet, stream.last_packet) + ((gave_up.packet,) if gave_up else ())
    if outstanding and retransmissions and stream.unanswered > 1:
        repeated = min(retransmissions, stream.unanswered - 1)
        return Unanswered(end, stream.unanswered_ns, shown, repeated, 0, gave_up)
    # Probes are at least a second apart (TCP_KEEPINTVL), plain ACKs in a row are not.
    if keepalives and stream.unanswered > 1 and stream.last_ns - stream.unanswered_ns >= SECOND:
        probes = min(keepalives, stream.unanswered)
        return Unanswered(end, stream.unanswered_ns, shown, 0, probes, gave_up)
    return None
