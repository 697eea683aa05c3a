"""What is good to know: challenge ACKs, keepalives, the form of the close, what the capture missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Position, Traffic
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, listed, span, times, were
from closeseq.verdict.findings import found
from closeseq.verdict.findings.vanished import vanished
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Finding


def challenge_ack(case: Case) -> Iterator[Finding]:
    """An out-of-place RST or SYN was answered with an ACK (RFC 5961 3 and 4)."""
    for cause, ack in case.challenges:
        own = cause.packet in case.by_packet
        what = "SYN" if cause.syn else "RST"
        yield found(
            FindingCode.CHALLENGE_ACK,
            ack.sender,
            Certainty.ASSUMED,
            since_ns=cause.time_ns,
            until_ns=ack.time_ns,
            packets=[*([cause.packet] if own else []), ack.packet],
            summary=(
                f"the {ack.sender} answered a {what} from the {cause.sender} (#{cause.packet}) with an ACK "
                f"(#{ack.packet}) and went on: it did not fit the connection"
            ),
            advice=(
                f"find out why the {cause.sender} no longer has a connection that the {ack.sender} still has "
                f"(crash, reboot, a RST that was lost); the {cause.sender} now ends it with RST and sends "
                "its SYN again"
                if cause.syn
                else "no change is needed: the connection is safe; such a RST is late, or forged by somebody "
                "who guessed the number, so look where they come from if there are many"
            ),
        )


def keepalive(case: Case) -> Iterator[Finding]:
    """Probes of an idle connection were captured (RFC 9293 3.8.4).

    Probes of a window of 0 have the same numbers, but are no keepalives.
    """
    steps = case.conversation.steps
    if not any(isinstance(s, Traffic) or s.position is Position.PROBE for s in steps):
        return
    for end in ENDS:
        if not _probed(case, end):
            continue
        probes = [(step, n) for step in steps if (n := case.keepalives(end, step))]
        if not probes:
            continue
        number, first, last = sum(n for _, n in probes), probes[0][0], probes[-1][0]
        gone = vanished(case, end)
        in_vain = gone.probes if gone is not None else 0
        answers = "and was answered" if not in_vain else f"the last {times(in_vain)} without an answer"
        if not in_vain and _ends_with_probe(case, end):
            answers = (
                f"the last time without an answer {'so far' if case.ongoing else 'before the capture ended'}"
            )
        yield found(
            FindingCode.KEEPALIVE,
            end,
            Certainty.OBSERVED,
            since_ns=first.time_ns if isinstance(first, Event) else first.of(end).probe_ns,
            until_ns=last.time_ns if isinstance(last, Event) else last.of(end).last_ns,
            packets=[packet for step, _ in probes for packet in _own_packets(step, end)],
            summary=f"the {end} probed the idle connection {times(number)}, {answers}",
            advice=(
                f"the {end.peer} did not answer: see the other findings"
                if in_vain
                else (
                    f"no change is needed: the {end} has SO_KEEPALIVE set (TCP_KEEPIDLE and TCP_KEEPINTVL "
                    "set how often it probes)"
                )
            ),
        )


def _own_packets(step: Event | Traffic, end: End) -> tuple[int, ...]:
    return (
        (step.packet,) if isinstance(step, Event) else (step.of(end).probe_packet, step.of(end).last_packet)
    )


def _probed(case: Case, end: End) -> bool:
    """Whether an endpoint sent anything that has the number of a keepalive."""
    steps = case.conversation.steps
    if any(isinstance(s, Event) and s.sender is end and s.position is Position.PROBE for s in steps):
        return True
    return sum(s.of(end).probes for s in steps if isinstance(s, Traffic)) > 0


def _ends_with_probe(case: Case, end: End) -> bool:
    last = case.conversation.steps[-1]
    if isinstance(last, Event):
        return last.sender is end and last.position is Position.PROBE
    return last.of(end).probes > 0 and last.of(end).unanswered > 0


def three_segment_close(case: Case) -> Iterator[Finding]:
    """The ACK of the first FIN and the second FIN were one segment."""
    end = case.first_closer
    if end is None or case.crossed:
        return
    close, other = case.close(end), case.close(end.peer)
    if not close.covers or not other.transmissions or close.covers[0][0] != other.transmissions[0].packet:
        return
    fin, both = close.transmissions[0], other.transmissions[0]
    if both.packet < fin.packet or {both.packet, fin.packet} & case.lost:
        return
    yield found(
        FindingCode.THREE_SEGMENT_CLOSE,
        end.peer,
        Certainty.OBSERVED,
        since_ns=fin.time_ns,
        until_ns=both.time_ns,
        packets=[fin.packet, both.packet],
        summary=(
            f"the {end.peer} acknowledged the FIN (#{fin.packet}) and closed in one segment "
            f"(#{both.packet}), {span(both.time_ns - fin.time_ns)} later"
        ),
        advice=f"no change is needed: the {end.peer} closed at once when it read end of file",
    )


def fin_with_data(case: Case) -> Iterator[Finding]:
    """A FIN was sent with data."""
    for end in ENDS:
        for fin in case.close(end).transmissions[:1]:
            if fin.length:
                yield found(
                    FindingCode.FIN_WITH_DATA,
                    end,
                    Certainty.OBSERVED,
                    since_ns=fin.time_ns,
                    until_ns=None,
                    packets=[fin.packet],
                    summary=(
                        f"the {end}'s FIN (#{fin.packet}) was sent with its last "
                        f"{count(fin.length, 'byte')} of data"
                    ),
                    advice="no change is needed: the program closed before its last data had been sent",
                )


def capture_incomplete(case: Case) -> Iterator[Finding]:
    """Packets of the connection were not captured."""
    gaps = case.missing
    if not gaps:
        return
    ends = {gap.endpoint for gap in gaps}
    summary = ""
    if case.worded:
        whats = listed(list(dict.fromkeys(gap.what for gap in gaps)))
        summary = f"{whats}; so {'; '.join(dict.fromkeys(gap.consequence for gap in gaps))}"
    yield found(
        FindingCode.CAPTURE_INCOMPLETE,
        ends.pop() if len(ends) == 1 else None,
        Certainty.PROVED,
        since_ns=min(gap.time_ns for gap in gaps),
        until_ns=None,
        packets=[gap.packet for gap in gaps if gap.packet is not None],
        summary=summary,
        advice=(
            "capture again, from before the connection begins and in both directions: at one of the two "
            "endpoints (a mirror port may show one direction only), with short packets (-s 128), a large "
            "buffer (-B 65536) and a filter on the port alone, not on flags"
        ),
    )


def duplicate_packets(case: Case) -> Iterator[Finding]:
    """The same packet was captured twice, or delivered twice."""
    if not case.conversation.copies:
        return
    captured, delivered, unclear, resets, packets = case.conversation.duplicates
    clauses = []
    if captured:
        clauses.append(f"{_were(captured, 'packet')} captured twice, and counted once")
    if delivered:
        shown = [
            f"#{again}, answered by #{answer}" for again, answer in zip(*[iter(packets)] * 2, strict=True)
        ]
        named = f" ({'; '.join(shown)})" if shown else ""
        clauses.append(f"{_were(delivered, 'packet')} duplicated by the network and delivered twice{named}")
    if unclear:
        clauses.append(f"{_were(unclear, 'packet')} captured twice, or delivered twice")
    if resets:
        clauses.append(
            f"{_were(resets, 'RST')} identical to the one before: captured twice, delivered twice, or sent "
            "once for each segment that it answers"
        )
    yield found(
        FindingCode.DUPLICATE_PACKETS,
        None,
        Certainty.ASSUMED if delivered and not packets else Certainty.OBSERVED,
        since_ns=case.conversation.first_ns,
        until_ns=case.conversation.last_ns,
        packets=list(packets),
        summary="; ".join(clauses),
        advice=(
            "no change is needed in the programs; capture on one interface instead of 'any' (loopback, "
            "bridges, bonds and VLANs show each packet once an interface)"
            if captured or unclear
            else "no change is needed: TCP drops the duplicate; if there are many, look for a loop or a link "
            "aggregate that sends packets on both of its links"
            if delivered
            else "no change is needed: an endpoint without the connection answers each segment with a RST"
        ),
    )


def _were(number: int, noun: str) -> str:
    return f"{count(number, noun)} {were(number)}"
