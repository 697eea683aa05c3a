"""What becomes of idle connections: one endpoint closes while the other sends, or the path forgets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Traffic
from closeseq.packets.value import value
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, span
from closeseq.verdict.findings import found
from closeseq.verdict.findings.data import GOODBYE_BYTES, is_goodbye
from closeseq.verdict.findings.vanished import unanswered, vanished
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case
    from closeseq.verdict.findings.vanished import Unanswered
    from closeseq.verdict.model import Finding

IDLE_NS = SECOND  # a server that closes sooner after its last answer was not waiting for a request


@value
class Request:
    """Data that the client sent at the moment of the server's FIN, or after it."""

    packet: int
    time_ns: int  # since the Unix epoch
    ack: int  # relative, as `Event.ack`
    end: int  # the number after it
    length: int  # bytes
    early: bool  # it was captured before the FIN


def keepalive_race(case: Case) -> Iterator[Finding]:
    """The server closed an idle connection, and the client's next request was answered with RST."""
    fins = case.close(End.SERVER).transmissions
    if not fins or not case.resets:
        return
    fin = fins[0]
    resets = [r for r in case.resets if r.sender is End.SERVER and r.packet > fin.packet]
    request = _request(case, fin, resets[0]) if resets else None
    if request is None:
        return
    idle = _idle_before(case, fin, request)
    if idle < IDLE_NS:
        return
    reset = resets[0]
    if not request.early and is_goodbye(case, End.CLIENT, request.length):
        return
    taken = _acknowledged(case, request, reset)
    known = request.ack >= fin.end
    told = next((cover for cover in case.close(End.SERVER).covers if cover[0] < request.packet), None)
    sent = f"the client's next request (#{request.packet}, {count(request.length, 'byte')})"
    if not known:
        how = f"{sent} crossed the FIN"
    elif told is not None:
        after = span(request.time_ns - told[1])
        how = f"{sent} came {after} after the client had acknowledged that (#{told[0]})"
    else:
        how = f"{sent} came when the client's kernel had received the FIN"
    outcome = (
        "the server's kernel had acknowledged it, so whether its program saw it is not known"
        if taken
        else "the server never acknowledged it, so its program did not see it: it is safe to send again"
    )
    server = case.conversation.server
    yield found(
        FindingCode.KEEPALIVE_RACE,
        End.CLIENT,
        case.absence(Certainty.OBSERVED),
        since_ns=min(fin.time_ns, request.time_ns),
        until_ns=reset.time_ns,
        packets=[fin.packet, request.packet, reset.packet, *([told[0]] if known and told else [])],
        summary=(
            f"the server closed after {span(idle)} without a request (#{fin.packet}); {how}, and was "
            f"answered with RST (#{reset.packet}): {outcome}"
        ),
        advice=(
            f"fix the connection pool of the client {case.conversation.client}: before it takes a connection "
            "it must see whether the server has closed it (it is readable, and recv() returns 0)"
            if known
            else f"let the client drop idle connections to {server} clearly sooner than the server does "
            f"(after {span(idle)}), or give the server the longer keep-alive timeout; and let the client "
            "send such a request again on a new connection, if it may be repeated"
        ),
    )


def _request(case: Case, fin: Event, reset: Event) -> Request | None:
    """Return what the server answered with RST: the client's data after the FIN, or at the moment of it."""
    data = [e for e in case.events if e.sender is End.CLIENT and e.length and not e.rst]
    data = [e for e in data if fin.packet < e.packet < reset.packet]
    for event in data:
        if event.ack is None or event.packet in case.lost or not _answers(reset, event.ack):
            continue
        length = max(e.end - e.fin for e in data) - event.seq
        return Request(event.packet, event.time_ns, event.ack, event.end - event.fin, length, False)
    steps = case.conversation.steps
    at = next((place for place, step in enumerate(steps) if step is fin), 0)
    before = steps[at - 1] if at else None
    if not isinstance(before, Traffic):
        return None
    own, acked = before.client, fin.ack
    if not own.unanswered or own.end is None or own.ack is None or acked is None or own.end <= acked:
        return None
    length = own.end - acked
    if not _answers(reset, own.ack) or length <= GOODBYE_BYTES:
        return None
    return Request(own.unanswered_packet, own.unanswered_ns, own.ack, own.end, length, True)


def _answers(reset: Event, ack: int) -> bool:
    """Whether a RST may answer a segment with this acknowledgement (RFC 9293 3.10.7.1)."""
    return reset.ack is not None or reset.seq == ack


def _idle_before(case: Case, fin: Event, request: Request) -> int:
    """Return how long the connection had been idle when the server closed, or when the request came."""
    steps = case.conversation.steps
    at = next((place for place, step in enumerate(steps) if step is fin), 0)
    before = steps[at - 1] if at else None
    if not isinstance(before, Traffic):
        return fin.time_ns - before.time_ns if before is not None else 0
    own, other = before.server, before.client
    if request.early:
        return request.time_ns - (own.last_ns if own else _last_ns(steps, at - 1))
    # What the server sends right before its FIN is a goodbye, such as a TLS close_notify.
    if (
        own.unanswered
        and own.end is not None
        and other.ack is not None
        and own.end - other.ack <= GOODBYE_BYTES
    ):
        return own.unanswered_ns - (other.last_ns if other else _last_ns(steps, at - 1))
    return fin.time_ns - before.last_ns


def _last_ns(steps: tuple[Event | Traffic, ...], at: int) -> int:
    """Return the time of the last packet before a step; that of the step itself, if it is the first."""
    if not at:
        return steps[0].time_ns
    before = steps[at - 1]
    return before.last_ns if isinstance(before, Traffic) else before.time_ns


def _acknowledged(case: Case, request: Request, reset: Event) -> bool:
    """Whether the server acknowledged a request, also with the RST itself."""
    return any(
        e.sender is End.SERVER and e.ack is not None and e.ack >= request.end
        for e in case.events
        if request.packet < e.packet <= reset.packet
    )


@value
class Cut:
    """What an endpoint sent in vain after a long silence."""

    end: End  # that sent it
    silence_ns: int  # how long nothing had passed before
    since_ns: int  # when it began to send in vain, since the Unix epoch
    until_ns: int  # until when that lasted
    packets: tuple[int, ...]  # that show it
    outcome: str  # "got no answer: ..."
    otherwise: str  # "is gone": what else may have become of the peer


def idle_cut(case: Case) -> Iterator[Finding]:
    """After a long silence an endpoint sends, and gets nothing but its own retransmissions, or a RST."""
    if any(case.close(end) for end in ENDS) or _always_busy(case):
        return
    for end in ENDS:
        cut = _in_silence(case, end) or _refused(case, end)
        if cut is not None:
            yield _cut(case, FindingCode.IDLE_CUT, cut, "the idle connection")


def half_close_cut(case: Case) -> Iterator[Finding]:
    """The same inside a half-close: the endpoint that may still send does so in vain."""
    half_closed = [
        end for end in ENDS if case.close(end.peer).transmissions and case.stays(end, State.CLOSE_WAIT)
    ]
    if not half_closed or _always_busy(case):
        return
    for end in half_closed:
        cut = _in_silence(case, end)
        if cut is not None:
            yield _cut(case, FindingCode.HALF_CLOSE_CUT, cut, "the half-closed connection")


def _always_busy(case: Case) -> bool:
    """Whether the connection is too short for a long silence."""
    return case.conversation.last_ns - case.conversation.first_ns < case.limits.stuck_after_ns


def _cut(case: Case, code: FindingCode, cut: Cut, what: str) -> Finding:
    end, peer = cut.end, case.conversation.address(cut.end.peer)
    return found(
        code,
        end,
        Certainty.ASSUMED,
        since_ns=cut.since_ns,
        until_ns=cut.until_ns,
        packets=cut.packets,
        summary=(
            f"after {span(cut.silence_ns)} without a packet the {end} sent #{cut.packets[0]} and "
            f"{cut.outcome}: a firewall, NAT or load balancer on the path dropped {what}, or the "
            f"{end.peer} {cut.otherwise}"
        ),
        advice=(
            f"if other connections to {peer} go on, the path cuts it: have the {end} send something more "
            f"often than every {span(cut.silence_ns)} (SO_KEEPALIVE with TCP_KEEPIDLE, or a heartbeat in the "
            "protocol), or lengthen the idle timeout of the firewall, NAT or load balancer"
        ),
    )


def _in_silence(case: Case, end: End) -> Cut | None:
    """Return what an endpoint sends in vain, if a long silence came before it."""
    gone = vanished(case, end) or _last_words(case, end)
    if gone is None:
        return None
    silence = _silence_before(case, end, gone.packets[0], gone.since_ns)
    if silence < case.limits.stuck_after_ns:
        return None
    until = case.now_ns if gone.gave_up is None else gone.gave_up.time_ns
    gave_up = f", until it gave up with RST (#{gone.gave_up.packet})" if gone.gave_up is not None else ""
    outcome = f"got no answer to that and {gone.what} in {span(until - gone.since_ns)}{gave_up}"
    return Cut(end, silence, gone.since_ns, max(until, gone.since_ns), gone.packets, outcome, "is gone")


def _last_words(case: Case, end: End) -> Unanswered | None:
    """Return the data that an endpoint sent in vain before its FIN, if it waits in LAST_ACK."""
    if case.state(end) is not State.LAST_ACK:
        return None
    tail = unanswered(case, end, case.conversation.steps)
    return tail if tail is not None and case.now_ns - tail.since_ns >= case.limits.stuck_after_ns else None


def _silence_before(case: Case, end: End, packet: int, time_ns: int) -> int:
    """Return how long nothing had come from either endpoint when one sent a packet.

    Of traffic before it in the same digest, the peer's last packet counts: its acknowledgement comes at once.
    """
    last: int | None = None
    for step in case.conversation.steps:
        if isinstance(step, Event):
            if step.packet >= packet:
                break
            last = step.time_ns
            continue
        own, other = step.of(end), step.of(end.peer)
        if own and own.last_packet >= packet:
            if other and other.first_packet < packet:
                last = min(other.last_ns, time_ns)
            break
        if step.packet >= packet:
            break
        last = step.last_ns
    return 0 if last is None else time_ns - last


def _refused(case: Case, end: End) -> Cut | None:
    """Return what an endpoint sent after a long silence, and what a bare RST answered.

    Its sender does not have the connection: a device on the path that forgot it, or a peer that restarted.
    """
    reset = next((r for r in case.resets if r.sender is end.peer), None)
    if reset is None or reset.ack is not None or reset.packet in case.lost:
        return None
    steps = case.conversation.steps
    at = steps.index(reset)
    before = steps[at - 1] if at else None
    if not isinstance(before, Traffic):
        return None
    own = before.of(end)
    if not own.unanswered or own.ack is None or own.ack != reset.seq or own.probes >= own.unanswered:
        return None
    silence = _silence_before(case, end, own.unanswered_packet, own.unanswered_ns)
    if silence < case.limits.stuck_after_ns:
        return None
    outcome = f"got a RST (#{reset.packet}), whose sender does not have the connection any more"
    packets = (own.unanswered_packet, reset.packet)
    return Cut(end, silence, own.unanswered_ns, reset.time_ns, packets, outcome, "has restarted")
