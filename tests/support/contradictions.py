"""What no account of a connection may say, whatever the packets: checks that need no oracle.

Each takes an analysed connection and yields the contradictions that it finds, in words. They compare what
closeseq says in one place with what it says in another, or with the bounds that hold for every connection.
`scripts/enumerate_conversations` applies them to whole families of conversations.
"""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.tcp.timeline import Arrival
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from closeseq import Connection

UNITS_NS = {"us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
SPAN = re.compile(r"(?<![\w.#-])(-?\d[\d,]*(?:\.\d+)?(?:e\+?\d+)?) (us|ms|s|min|h)\b")
AHEAD = re.compile(r"for another [^,;:]*|ends [^;]* after #\d+")  # lengths of time that are still to come
ROUNDING = 1.01  # texts give three digits
NUMBERS = re.compile(r"#(\d+)")
LOST = re.compile(r"(?:FIN|ACK) \(([^)]*)\) was lost")
DENIALS = (
    (re.compile(r"the (client|server) acknowledged the FIN but sent none of its own"), False),
    (re.compile(r"the (client|server) received the \w+'s FIN \(#\d+\) and (?:has not|did not) close"), False),
    (re.compile(r"(client|server) is in CLOSE_WAIT and has not closed"), False),
    (re.compile(r"(client|server) is in FIN_WAIT_2 and its peer has not closed"), True),
)

# Findings about packets that got no answer, or about the act of sending: these may rest on what was lost.
# So may what is said of an end on packets that it sent itself, except that they were refused.
ABOUT_SENDING = frozenset(
    {
        *("fin-lost", "final-ack-lost", "half-open", "keepalive", "reset-cause", "fin-with-data"),
        *("stuck-fin-wait-1", "stuck-last-ack", "stuck-closing", "capture-incomplete"),
        "blocked-by-old-connection",  # its SYN gets no answer of its own
        "slow-open",  # its first SYN ACK may have been lost
    }
)
# Findings each of which says why a packet was sent, or what became of it; of one packet only one can be true.
EXPLAIN = (
    frozenset({"fin-lost", "final-ack-lost"}),
    frozenset({"fin-lost", "stuck-fin-wait-1"}),
    frozenset({"fin-lost", "stuck-last-ack"}),
    frozenset({"fin-lost", "stuck-closing"}),
    frozenset({"half-close", "data-after-close"}),
    frozenset({"half-open", "data-after-close"}),
    frozenset({"challenge-ack", "time-wait-assassinated"}),
)
# One end does not close, and both ends wait for that.
WAIT_FOR_EACH_OTHER = frozenset({"stuck-close-wait", "stuck-fin-wait-2"})


def times_run_forward(connection: Connection) -> Iterator[str]:
    """No time is negative, and what follows comes later."""
    first = connection.conversation.first_ns
    for step in connection.timeline:
        if step.time_ns < first:
            yield "a step lies before the first packet"
    for transition in connection.timeline.transitions:
        if transition.time_ns < first:
            yield "a transition lies before the first packet"
    for one, other in pairwise(connection.timeline.transitions):
        if other.time_ns < one.time_ns:
            yield "a transition lies before the one that it follows"
    for finding in connection.findings:
        if finding.since_ns < first:
            yield f"{finding.code} begins before the first packet"
        if (finding.duration_ns or 0) < 0:
            yield f"{finding.code} lasts less than no time"
    for about, text in sentences(connection):
        if any(number.startswith("-") for number, _ in SPAN.findall(text)):
            yield f"{about} speaks of a negative time"


def nothing_outlasts_the_connection(connection: Connection) -> Iterator[str]:
    """No finding lasts longer than from the first packet to now, or ends after that."""
    conversation = connection.conversation
    end = max(connection.timeline.now_ns, conversation.last_ns)
    for finding in connection.findings:
        duration = finding.duration_ns or 0
        if duration > end - conversation.first_ns:
            yield f"{finding.code} lasts longer than the connection"
        elif finding.since_ns + duration > end:
            yield f"{finding.code} ends after now"


def no_text_outlasts_the_connection(connection: Connection) -> Iterator[str]:
    """No sentence speaks of a past wait that is longer than from the first packet to now."""
    conversation = connection.conversation
    end = max(connection.timeline.now_ns, conversation.last_ns)
    if conversation.successor is not None:
        end = max(end, conversation.successor.time_ns)
    for about, text in sentences(connection):
        for number, unit in SPAN.findall(AHEAD.sub("", text)):
            if float(number.replace(",", "")) * UNITS_NS[unit] > (end - conversation.first_ns) * ROUNDING:
                yield f"{about} speaks of a time longer than the connection"


def no_fin_is_denied(connection: Connection) -> Iterator[str]:
    """Nobody is said to have sent no FIN, or not to have closed, while the FIN is there."""
    for finding in connection.findings:
        until = finding.since_ns + (finding.duration_ns or 0)
        for end in denied(finding.summary):
            if any(fin < until for fin in fins(connection, end)):
                yield f"{finding.code} denies a FIN that was captured before"
    for end in denied(connection.summary):
        if fins(connection, end):
            yield f"the verdict {connection.verdict} denies a FIN that was captured"


def no_finding_rests_on_what_was_lost(connection: Connection) -> Iterator[str]:
    """A packet that the timeline draws as lost proves nothing but its own loss."""
    lost = {step.packet: step.sender for step in connection.timeline if step.arrived is Arrival.NO}
    for finding in connection.findings:
        if finding.code in ABOUT_SENDING:
            continue
        for packet in lost.keys() & set(finding.packets):
            if lost[packet] is not finding.endpoint:
                yield f"{finding.code} rests on a packet that the timeline draws as lost"
            elif finding.code == "data-after-close":
                yield "data-after-close says that data were refused that the timeline draws as lost"


def what_was_lost_moves_nobody(connection: Connection) -> Iterator[str]:
    """A packet that the timeline draws as lost is received by nobody; what it shows of the past, it shows."""
    for step in connection.timeline:
        if step.arrived is not Arrival.NO or step.sender is None:
            continue
        for transition in connection.timeline.transitions:
            to_it = transition.packet == step.packet and transition.endpoint is step.sender.peer
            if to_it and transition.cause.startswith("received"):
                yield f"{transition.cause} is said of a packet that the timeline draws as lost"


def what_is_called_lost_is_drawn_lost(connection: Connection) -> Iterator[str]:
    """A packet that a finding calls lost is one that the timeline draws as lost."""
    lost = {step.packet for step in connection.timeline if step.arrived is Arrival.NO}
    for finding in connection.findings:
        for named in LOST.findall(finding.summary):
            if not {int(number) for number in NUMBERS.findall(named)} <= lost:
                yield f"{finding.code} calls a packet lost that the timeline draws as received"


def no_packet_has_two_causes(connection: Connection) -> Iterator[str]:
    """Two findings do not say different things of why one packet was sent, or of what became of it."""
    for one, other in combinations(connection.findings, 2):
        codes, shared = {one.code, other.code}, set(one.packets) & set(other.packets)
        if codes in EXPLAIN and explains_the_same(connection, codes, shared):
            yield f"{one.code} and {other.code} explain the same packet"


def one_fault_is_one_problem(connection: Connection) -> Iterator[str]:
    """Two problems of one connection are not the same fault told twice."""
    problems = [one for one in connection.findings if one.severity is Severity.PROBLEM]
    for one, other in combinations(problems, 2):
        mutual = {one.code, other.code} == WAIT_FOR_EACH_OTHER and one.endpoint is not other.endpoint
        whose = "the same end" if one.endpoint is other.endpoint else "the other end"
        if mutual or set(one.packets) & set(other.packets):
            yield f"{one.code} and {other.code} of {whose} are both problems, of the same packets"


def nothing_unseen_is_waited_for(connection: Connection) -> Iterator[str]:
    """No end is stuck because of a direction that was not captured."""
    for finding in connection.findings:
        if not finding.code.startswith("stuck-") or finding.endpoint is None:
            continue
        end = finding.endpoint
        if finding.code == "stuck-close-wait":
            silent = connection.end(end).packets == 0
        elif finding.code == "stuck-fin-wait-2":
            silent = connection.end(end.peer).packets == 0
        else:  # a FIN that is repeated shows that nobody acknowledges it
            silent = connection.end(end.peer).packets == 0 and len(fins(connection, end)) < 2
        if silent:
            yield f"{finding.code} waits for a direction that was not captured"


def sentences(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield what is said of this connection, each with what says it."""
    yield f"the verdict {connection.verdict}", connection.summary
    for finding in connection.findings:
        yield finding.code, finding.summary


def denied(text: str) -> Iterator[End]:
    """Yield the ends of which a text says that they sent no FIN."""
    for pattern, of_peer in DENIALS:
        for name in pattern.findall(text):
            yield End(name).peer if of_peer else End(name)


def fins(connection: Connection, end: End) -> list[int]:
    """Return the times of the captured FINs of an end that are part of the connection."""
    events = (e for e in connection.conversation.events if e.packet not in connection.timeline.strays)
    return [e.time_ns for e in events if e.sender is end and e.fin and not e.rst]


def explains_the_same(connection: Connection, codes: set[str], shared: set[int]) -> bool:
    """Whether a packet that two findings share is of the kind that both explain."""
    events = [event for event in connection.conversation.events if event.packet in shared]
    if "challenge-ack" in codes:
        return any(event.rst for event in events)
    if "data-after-close" in codes:
        return any(event.length for event in events)
    return any(event.fin for event in events)


CHECKS: tuple[Callable[[Connection], Iterator[str]], ...] = (
    times_run_forward,
    nothing_outlasts_the_connection,
    no_text_outlasts_the_connection,
    no_fin_is_denied,
    no_finding_rests_on_what_was_lost,
    what_was_lost_moves_nobody,
    what_is_called_lost_is_drawn_lost,
    no_packet_has_two_causes,
    one_fault_is_one_problem,
    nothing_unseen_is_waited_for,
)
