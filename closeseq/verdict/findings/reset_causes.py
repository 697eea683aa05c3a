"""Why a RST was sent: its likely causes in order, each with the evidence for and against it.

Each cause is a function, and `CAUSES` lists them. A function weighs what the packets show: a base weight,
more for evidence for the cause, less for evidence against it. It returns None where its cause is impossible.

How Linux sends RSTs (measured on 6.18, loopback): without a socket, a RST is bare (no ACK, its number taken
from the ACK that it answers, RFC 9293 3.10.7.1), with window 0, no timestamps and IP id 0. A RST that aborts
a connection has RST+ACK, the socket's next number, window and timestamps, and an IP id that goes on counting;
so has that of a keepalive that gives up.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.packets.value import value
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, packets, span, times
from closeseq.verdict.findings import found
from closeseq.verdict.findings.reset_facts import Reset
from closeseq.verdict.findings.vanished import ENOUGH_RETRANSMISSIONS
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from closeseq.connections.conversation import Event
    from closeseq.verdict.case import Case
    from closeseq.verdict.model import Finding

# The least weight of all signs of a forgery together: a strong one, or several. Less is chance.
NAMED_FROM = 4
# A program that accepts in time has done so by then, and what resets at once has reset.
ACCEPTED_WITHIN_NS = SECOND


@value
class Cause:
    """Why a RST may have been sent."""

    what: str  # a clause: what its sender did
    weight: int  # the more the likelier; below 0 it is not named beside others
    speaks_for: tuple[str, ...]  # clauses
    speaks_against: tuple[str, ...]  # clauses
    advice: str  # what to do about it, one line


def unread_data(reset: Reset) -> Cause | None:
    """It closed with unread data: the kernel sends RST, since the data was not delivered (RFC 2525 2.17)."""
    if not reset.aborts or not reset.bytes_sent(reset.peer) or reset.persisted:
        return None
    weight, speaks_for, against = 2, [], []
    sent = reset.bytes_sent(reset.peer)
    speaks_for.append(f"RST+ACK, and it acknowledges {count(sent, 'byte')} from the {reset.peer}")
    if not reset.bytes_sent(reset.sender):
        weight += 2
        speaks_for.append(f"the {reset.sender} never answered")
    elif reset.data_since_fin:
        weight += 1
        speaks_for.append("some of them came after its FIN")
    elif reset.replied:
        weight -= 2
        against.append(f"the {reset.sender} had answered since")
    elif reset.spoke_first:
        weight -= 1
        against.append(f"the {reset.sender} had asked for that data and received its answer")
    else:
        weight += 1
        speaks_for.append(f"the {reset.sender} did not answer the last of them")
    return Cause(
        f"the {reset.sender} closed with unread data",
        weight=weight,
        speaks_for=tuple(speaks_for),
        speaks_against=tuple(against),
        advice=(
            f"fix the program at the {reset.sender}: call shutdown(SHUT_WR), read until recv() returns 0, "
            "then close(); it may stop reading early on an error, a limit or a timeout"
        ),
    )


def linger_zero(reset: Reset) -> Cause | None:
    """It set SO_LINGER with a time of zero: close() aborts at once."""
    if not reset.aborts or reset.persisted or reset.had_no_part:
        return None
    weight, speaks_for, against = 2, ["RST+ACK from an open socket"], []
    if not reset.bytes_sent(reset.peer):
        weight += 1
        speaks_for.append("there was nothing to read")
    elif (reset.replied or reset.spoke_first) and not reset.data_since_fin:
        weight += 1
        speaks_for.append("the data to read was probably read")
    else:
        weight -= 1
        against.append("there was data to read")
    if reset.in_vain is not None and reset.instead_of_fin:
        weight -= 2
        against.append("it came when the next retransmission of its FIN was due")
    return Cause(
        f"the {reset.sender} closed with SO_LINGER 0",
        weight=weight,
        speaks_for=tuple(speaks_for),
        speaks_against=tuple(against),
        advice=(
            f"look in the program at the {reset.sender} for SO_LINGER with l_linger = 0 (some HTTP "
            "libraries, load balancers and health checks set it to avoid TIME_WAIT) and remove it: it drops "
            "unsent data"
        ),
    )


def not_accepted(reset: Reset) -> Cause | None:
    """A listening socket was closed, with its process or without: what nobody has accepted is reset."""
    case = reset.case
    if not reset.aborts or reset.persisted or reset.had_no_part or reset.sender is not End.SERVER:
        return None
    if reset.bytes_sent(reset.sender) or reset.closed_before or not case.timeline.began:
        return None
    waited = reset.event.time_ns - case.conversation.first_ns
    long = waited >= ACCEPTED_WITHIN_NS
    in_time = f" in {span(waited)}" if long else ""
    return Cause(
        "the server's program closed its listening socket, or ended, before it accepted the connection",
        weight=4 if long else 2,
        speaks_for=(f"the server had sent no data and no FIN{in_time}",),
        speaks_against=(),
        advice=(
            "see whether the program at the server was stopped or restarted at that moment, and why it had "
            "not called accept() in time; to lose no connection, it must accept what waits before it closes "
            "the listening socket"
        ),
    )


def process_killed(reset: Reset) -> Cause | None:
    """A process that dies has its sockets closed by the kernel: FIN, or RST if data was unread."""
    if not reset.aborts or reset.persisted or reset.had_no_part:
        return None
    against = ["a killed process leaves FIN, not RST, unless data was unread"]
    return Cause(
        f"the {reset.sender}'s process died",
        weight=int(reset.bytes_sent(reset.peer) > 0 and not reset.replied),
        speaks_for=("the kernel then closes the socket",),
        speaks_against=tuple(against),
        advice=(
            f"look in the logs of the {reset.sender} for a crash, a restart or the OOM killer at that moment"
        ),
    )


def gave_up(reset: Reset) -> Cause | None:
    """Keepalive or retransmission gave up."""
    if not reset.aborts or reset.in_vain is None:
        return None
    weight = 6 if reset.in_vain.enough else 2
    waited = span(reset.event.time_ns - reset.in_vain.since_ns)
    return Cause(
        f"the {reset.sender} gave up",
        weight=weight,
        speaks_for=(f"{reset.in_vain.what} without an answer for {waited} before it",),
        speaks_against=(),
        advice=(
            f"find out what became of the {reset.peer}; how long the {reset.sender} tries is set by "
            "TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT and TCP_USER_TIMEOUT"
        ),
    )


def had_given_up(reset: Reset) -> Cause | None:
    """Retransmission had given up before something came: Linux then sends no RST."""
    number = reset.retransmissions_in_vain
    if reset.aborts or reset.answered is None or number < ENOUGH_RETRANSMISSIONS:
        return None
    return Cause(
        f"the {reset.sender} had given up",
        weight=5,
        speaks_for=(f"{count(number, 'retransmission')} before it, and no ACK for the last data",),
        speaks_against=(),
        advice=(
            f"find out why nothing that the {reset.sender} sent got an answer: packet loss, a firewall, a "
            f"moved address; how long the {reset.sender} tries is set by TCP_USER_TIMEOUT and "
            "net.ipv4.tcp_retries2"
        ),
    )


def after_close(reset: Reset) -> Cause | None:
    """Data was sent to an endpoint that had closed."""
    data = reset.answered
    if reset.aborts or data is None or not data.data or not reset.closed_before:
        return None
    expired = _fin_wait_2_over(reset)
    close = reset.case.close(reset.sender)
    if len(close.transmissions) > 1 and close.received is None:
        tries = times(len(close.transmissions))
        return Cause(
            f"the {reset.peer} sent data (#{data.packet}) to the {reset.sender}, which had closed",
            weight=5,
            speaks_for=(f"the {reset.sender}'s FIN, sent {tries}, had not reached the {reset.peer}",),
            speaks_against=(),
            advice=(
                f"look for what drops packets from the {reset.sender} to the {reset.peer}: a firewall, a "
                f"NAT, a moved address; the program at the {reset.peer} cannot know that its peer has closed"
            ),
        )
    return Cause(
        f"the {reset.peer} sent data (#{data.packet}) to the {reset.sender}, which had closed",
        weight=4 if expired else 5,
        speaks_for=(f"bare RST numbered like the ACK in #{data.packet}",),
        speaks_against=(),
        advice=(
            f"if the {reset.sender} wants the answer, fix its program: call shutdown(SHUT_WR), read until "
            f"recv() returns 0, then close(); else fix the {reset.peer}: stop sending at end of file"
        ),
    )


def _fin_wait_2_over(reset: Reset) -> bool:
    """Whether the sender's FIN_WAIT_2 had expired, by the timeline, which runs the system's timers."""
    stay = reset.fin_wait_2
    if stay is None or stay.left is None:
        return False
    return stay.left.packet is None and stay.left.time_ns <= reset.event.time_ns


def fin_wait_2_expired(reset: Reset) -> Cause | None:
    """FIN_WAIT_2 without an owner expired; what comes later finds no socket."""
    if reset.aborts or reset.answered is None or not _fin_wait_2_over(reset):
        return None
    stay = reset.fin_wait_2
    assert stay is not None
    waited = span(reset.event.time_ns - stay.since_ns)
    return Cause(
        f"the {reset.sender}'s FIN_WAIT_2 had expired",
        weight=6,
        speaks_for=(f"bare RST to a segment that came {waited} after its FIN was acknowledged",),
        speaks_against=(),
        advice=(
            f"fix the program at the {reset.peer}, which stays in CLOSE_WAIT too long; a longer "
            f"net.ipv4.tcp_fin_timeout at the {reset.sender} only hides it"
        ),
    )


def no_such_socket(reset: Reset) -> Cause | None:
    """There is no socket: nobody listens, or the connection is gone."""
    asked = reset.answered
    if asked is not None and asked.syn and not asked.acks and not reset.answered_syn:
        port = reset.case.conversation.address(reset.sender).port
        return Cause(
            f"nobody listens on port {port} of the {reset.sender}, or a firewall rejects",
            weight=6,
            speaks_for=(f"it answers the SYN #{asked.packet}",),
            speaks_against=(),
            advice=(
                f"start the server, or check its address and port ('ss -ltn' at the {reset.sender}); a "
                "firewall that rejects with tcp-reset looks the same"
            ),
        )
    if reset.aborts or asked is None or reset.challenged is not None or after_close(reset) is not None:
        return None
    if asked.syn:
        return Cause(
            f"the {reset.sender} has no socket for the SYN that the {reset.peer} answered",
            weight=5,
            speaks_for=(f"bare RST to the SYN+ACK #{asked.packet}",),
            speaks_against=(),
            advice=(
                "no change is needed at the server: a port scan, a SYN with a forged sender, or a cancelled "
                "connect()"
            ),
        )
    known = reset.closed_before or reset.state is State.CLOSED
    if reset.closed_before and reset.state in (State.FIN_WAIT_1, State.FIN_WAIT_2):
        return Cause(
            f"the {reset.sender} had closed, and its kernel no longer has this connection",
            weight=3,
            speaks_for=(f"bare RST numbered like the ACK in #{asked.packet}",),
            speaks_against=(),
            advice=(
                f"see at the {reset.sender} how long a closed socket is kept: net.ipv4.tcp_fin_timeout, "
                "TCP_LINGER2 (below 0: not at all) and net.ipv4.tcp_max_orphans, or a reboot; and find out "
                f"why the {reset.peer} did not close sooner"
            ),
        )
    return Cause(
        f"the {reset.sender} no longer has this connection",
        weight=3 if known else 4,
        speaks_for=(f"bare RST numbered like the ACK in #{asked.packet}",),
        speaks_against=(),
        advice=(
            f"find out what ended the socket at the {reset.sender} before #{asked.packet} came: a close(), a "
            "timeout (TCP_USER_TIMEOUT), a crash, a reboot, a moved address; or whether it is still there "
            "('ss -tn'), and a firewall at it rejects with tcp-reset"
        ),
    )


def challenge_answered(reset: Reset) -> Cause | None:
    """An endpoint without the old connection answers the challenge ACK for it (RFC 9293 3.5.1)."""
    ack = reset.challenged
    late = reset.answered if reset.state is State.CLOSED and reset.closed_before else None
    if reset.aborts or (ack is None and (late is None or not late.pure_ack)):
        return None
    which = ack or late
    assert which is not None
    return Cause(
        f"the {reset.sender} answered the ACK #{which.packet} for a connection that it no longer has",
        weight=6,
        speaks_for=(
            f"bare RST numbered like that ACK, {span(reset.event.time_ns - which.time_ns)} after it",
        ),
        speaks_against=(),
        advice=(
            f"this RST is correct; find out why the {reset.peer} sent that ACK: only the {reset.sender} had "
            "lost the connection, or a delayed segment came"
        ),
    )


def forged(reset: Reset) -> Cause | None:
    """Something on the path, a firewall or an attacker sent it in its alleged sender's name (`Origin`)."""
    origin, sender = reset.origin, reset.sender
    if origin.weight < NAMED_FROM:
        return None
    others = [e for e in reset.case.events if e.sender is sender and not e.rst]
    against = []
    if not others:
        against = [f"the {sender} sent nothing else to compare it with"]
    elif any(e.ttl == reset.event.ttl for e in others) and not origin.foreign:
        against = [f"its TTL is that of the {sender}'s other packets"]
    return Cause(
        f"not the {sender} but a box on the path, or a firewall, sent it in the {sender}'s name"
        if origin.foreign
        else f"a middlebox or somebody else sent it in the {sender}'s name",
        weight=origin.weight - 1,
        speaks_for=tuple(sign.text + (", which proves it" if sign.proves else "") for sign in origin.signs),
        speaks_against=tuple(against),
        advice=(
            "look at firewalls, NAT, proxies, load balancers and intrusion prevention between the ends, and "
            "at the packet filter of either host (rules that reject, idle timeouts); "
            f"the {sender} did not send this RST and may still hold the connection"
        )
        if origin.foreign
        else (
            "look for firewalls, proxies, load balancers and intrusion prevention on the path (idle "
            f"timeouts, blocked content); capture at the {sender} too, to see that it did not send "
            "this RST"
        ),
    )


def unknown(reset: Reset) -> Cause:
    """Nothing else is likely: weighed below all."""
    if reset.aborts:
        return Cause(
            f"the {reset.sender} aborted the connection",
            weight=-1,
            speaks_for=("RST+ACK",),
            speaks_against=(),
            advice=f"look in the program and the logs of the {reset.sender} for what ended the connection",
        )
    return Cause(
        f"the {reset.sender} has no socket for something that was sent to it",
        weight=-1,
        speaks_for=("a bare RST",),
        speaks_against=("no captured segment has the number that it answers",),
        advice=(
            f"capture at the {reset.sender}, where the segment passes that it answers; if none does, "
            "somebody else sent the RST"
        ),
    )


CAUSES: tuple[Callable[[Reset], Cause | None], ...] = (
    unread_data,
    linger_zero,
    not_accepted,
    after_close,
    no_such_socket,
    fin_wait_2_expired,
    gave_up,
    had_given_up,
    challenge_answered,
    process_killed,
    forged,
    unknown,
)


MOST_CAUSES = 3


def reset_cause(case: Case) -> Iterator[Finding]:
    """One finding for each RST, or for each run of RSTs of one sender that look alike."""
    if len(case.resets) > 1:
        runs = [list(run) for _, run in groupby(case.resets, key=_likeness)]
    else:
        runs = [[reset] for reset in case.resets]
    for resets in runs:
        until = resets[-1].time_ns if len(resets) > 1 else None
        first = Reset(case, resets[0])
        summary, advice = _texts(first, resets) if case.worded else ("", "")
        yield found(
            FindingCode.RESET_CAUSE,
            resets[0].sender,
            Certainty.PROVED if first.origin.foreign else Certainty.ASSUMED,
            since_ns=resets[0].time_ns,
            until_ns=until,
            packets=[r.packet for r in resets],
            summary=summary,
            advice=advice,
        )


def _texts(first: Reset, resets: Sequence[Event]) -> tuple[str, str]:
    """Return the summary and advice of RSTs that look alike: why the first of them was sent."""
    causes = likely_causes(first)
    repeated = f" (repeated, {times(len(resets))} in all: {packets(r.packet for r in resets)})"
    summary = (
        f"RST #{resets[0].packet} from the {resets[0].sender} ({first.where})"
        + (repeated if len(resets) > 1 else "")
        + (f", {harm}" if (harm := first.harm) else "")
        + (f", says {first.event.reason}, as anybody can" if first.event.reason else "")
        + ": "
        + "; or ".join(map(_weighed, causes))
    )
    return summary, causes[0].advice


def _likeness(reset: Event) -> tuple[End, bool, int, bool, bool, str]:
    """Return what two RSTs that look alike have in common: sender, form, and traits of its stack."""
    return reset.sender, reset.ack is None, reset.ttl, reset.window == 0, reset.elsewhere, reset.reason


def likely_causes(reset: Reset) -> list[Cause]:
    """Return the likeliest causes of a RST, the best first; there is always one."""
    if reset.origin.foreign and (cause := forged(reset)) is not None:
        return [cause]  # no cause at its alleged sender remains
    causes = [cause for rule in CAUSES if (cause := rule(reset)) is not None]
    causes.sort(key=lambda cause: -cause.weight)
    return [cause for cause in causes if cause.weight >= 0][:MOST_CAUSES] or causes[:1]


def _weighed(cause: Cause) -> str:
    evidence = [f"for: {', '.join(cause.speaks_for)}"] if cause.speaks_for else []
    evidence += [f"against: {', '.join(cause.speaks_against)}"] if cause.speaks_against else []
    return f"{cause.what} ({'; '.join(evidence)})" if evidence else cause.what
