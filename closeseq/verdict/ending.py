"""The verdict: how a connection ended, and who began the end.

`RULES`, at the end, is read from the top; the first rule that returns an ending is the verdict. Each rule
decides in one place whether it matches, and gives the summary and the packets that show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from closeseq.connections.conversation import ENDS, End, Event
from closeseq.packets.value import value
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, listed, span, times
from closeseq.verdict.findings.loss import fins_lost, retransmitted_in_vain
from closeseq.verdict.findings.vanished import vanished
from closeseq.verdict.incomplete import captured
from closeseq.verdict.model import Initiator, Role, Verdict, VerdictCode
from closeseq.verdict.origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.verdict.case import Case


def remarks(case: Case) -> str:
    """Return what was remarkable about a completed close, in the order of time; "" if nothing was.

    Where nobody reads it, it is "" too: what is compared for it would part connections that close alike.
    """
    if not case.worded:
        return ""
    remarks = []
    for end in ENDS:
        lost, proved = fins_lost(case, end)
        if lost:
            tries = (
                f"lost {times(len(lost))}" if proved else f"sent {times(len(case.close(end).transmissions))}"
            )
            remarks.append(f"{end}'s FIN {tries}")
    for end in ENDS:
        for stay in case.stays(end, State.CLOSE_WAIT):
            waited = case.lasted(stay)
            if waited >= case.limits.slow_close_ns:
                remarks.append(f"{end} closed {span(waited)} later")
    again = sum(len(retransmitted_in_vain(case, end)) for end in ENDS)
    if again:
        remarks.append(f"final ACK lost {times(again)}")
    if case.endings:
        remarks.append(f"a RST came after it (#{case.endings[0][1].packet})")
    return "".join(f"; {remark}" for remark in remarks)


# What an endpoint waits for, and since when, by the state it waits in.
WAITS = {
    State.FIN_WAIT_1: ("its FIN has not been acknowledged", "its FIN"),
    State.FIN_WAIT_2: ("its peer has not closed", "its FIN was acknowledged"),
    State.CLOSE_WAIT: ("has not closed", "it received the FIN"),
    State.CLOSING: ("its FIN has not been acknowledged", "the FINs crossed"),
    State.LAST_ACK: ("its FIN has not been acknowledged", "its FIN"),
}


def standing(case: Case, end: End) -> str:
    """Return where an endpoint is in a close that has not ended, as a clause.

    A short wait is not stuck: then only the state is named, and how long it had lasted.

    Args:
        case: the connection.
        end: which endpoint.
    """
    if not captured(case.conversation, end):
        return f"what the {end} did was not captured"
    if case.closed_unseen(end):
        return f"whether the {end} had closed before the capture began is not known"
    stay = case.unacknowledged(end, *WAITS) or case.present(end)
    state = case.state(end) if stay is None else stay.state
    if stay is not None and stay.left is not None and case.by_reset(stay.left) is None:
        waited = span(case.lasted(stay))
        return f"{end} has been in {state} for {waited}, unless the last ACK of its FIN arrived"
    if stay is None or state not in WAITS:
        return f"{end} is {state}" if state is State.CLOSED else f"{end} is in {state}"
    if state is State.FIN_WAIT_2 and case.closed_unseen(end.peer):
        return f"{end}'s FIN was acknowledged"
    if not captured(case.conversation, end.peer):
        return f"{end} was last seen in {state}"
    closes = {State.CLOSE_WAIT: end, State.FIN_WAIT_2: end.peer}.get(state)
    if closes is not None and case.close(closes).transmissions:
        return f"{end} is in {state}"  # the FIN that it waits for was sent, but is out of order
    waits_for, since = WAITS[state]
    waited, tries = span(case.lasted(stay)), len(case.close(end).transmissions)
    sent = f", sent {times(tries)}" if tries > 1 and state is not State.FIN_WAIT_2 else ""
    if case.lasted(stay) >= case.limits.stuck_after_ns:
        return f"{end} is in {state} and {waits_for} for {waited}{sent}"
    if not case.lasted(stay):
        return f"{end} is in {state}"
    still = f"is in {state}" if case.ongoing else f"was still in {state} when the capture ended"
    return f"{end} {still}, {waited} after {since}{sent}"


@value
class Ending:
    """What a rule returns of a connection it matches."""

    summary: str  # one line, as `Verdict.summary`
    packets: tuple[int, ...]  # that show it
    initiator: Initiator = Initiator.NONE  # who began the end
    roles: tuple[tuple[End, Role], ...] = ()  # an endpoint that is not named has none


Rule: TypeAlias = "Callable[[Case], Ending | None]"


def verdict(case: Case) -> Verdict:
    """Return how the connection ended, by the first rule that matches.

    Raises:
        AssertionError: no rule does, though the last one matches everything.
    """
    for code, rule in RULES.items():
        ending = rule(case)
        if ending is not None:
            roles = dict(ending.roles)
            return Verdict(
                code,
                ending.initiator,
                roles.get(End.CLIENT, Role.NONE),
                roles.get(End.SERVER, Role.NONE),
                ending.summary,
                tuple(dict.fromkeys(ending.packets)),
            )
    raise AssertionError("the last rule matches everything")


def unanswered(case: Case) -> Ending | None:
    """SYN, no answer."""
    for end in ENDS if len(case.events) == len(case.conversation.steps) else ():
        sent = [event for event in case.events if event.sender is end]
        only_syns = bool(sent) and all(event.letters == "S" for event in sent)
        if only_syns and not captured(case.conversation, end.peer):
            tries = (
                ""
                if len(sent) == 1
                else f", sent {times(len(sent))} in {span(sent[-1].time_ns - sent[0].time_ns)}"
            )
            return Ending(f"the {end}'s SYN was not answered{tries}", tuple(event.packet for event in sent))
    return None


def refused(case: Case) -> Ending | None:
    """SYN answered by RST: the endpoint that answers never sent anything else (RFC 9293 3.10.7.1)."""
    if not case.resets or any(not isinstance(step, Event) for step in case.conversation.steps):
        return None
    for end in ENDS:
        asked = [event for event in case.events if event.sender is end and event.letters == "S"]
        answers = [event for event in case.events if event.sender is end.peer]
        if asked and answers and all(event.rst for event in answers):
            return Ending(
                f"the {end.peer}'s RST answered the SYN",
                (asked[0].packet, answers[0].packet),
                Initiator(end.peer),
                ((end.peer, Role.ABORTER), (end, Role.ABORTED)),
            )
    return None


def aborted_open(case: Case) -> Ending | None:
    """The handshake was reset, or given up, before both endpoints were ESTABLISHED."""
    if all(case.synchronized(end) for end in ENDS):
        return None
    how_far = f"the client had reached {_reached(case, End.CLIENT)}, the server {_reached(case, End.SERVER)}"
    if case.endings:
        reset = case.endings[0][1]
        return Ending(
            f"the {reset.sender} reset the handshake (#{reset.packet}); {how_far}",
            (case.events[0].packet, reset.packet),
            Initiator(reset.sender),
            ((reset.sender, Role.ABORTER), (reset.sender.peer, Role.ABORTED)),
        )
    if case.first_closer is not None:
        return None
    quiet = case.timeline.now_ns - case.conversation.last_ns
    if case.conversation.successor is not None or quiet >= case.limits.stuck_after_ns:
        return Ending(f"the handshake was given up; {how_far}", tuple(e.packet for e in case.events[:3]))
    return None


def _reached(case: Case, end: End) -> str:
    """Return the furthest state of an endpoint in a handshake that failed."""
    states = [t.after.value for t in case.transitions(end) if t.after is not State.CLOSED]
    return states[-1] if states else case.timeline.first_state(end).value


def reset(case: Case) -> Ending | None:
    """A RST ended it; a RST after both FINs were acknowledged ends nothing."""
    if not case.endings or completed(case):
        return None
    first = case.endings[0][1]
    sender, closer = first.sender, case.first_closer
    closed_before = closer is not None and case.close(closer).began < (first.time_ns, first.packet)
    both = case.crossed and all(case.close(end).began < (first.time_ns, first.packet) for end in ENDS)
    packets = [*(case.close(closer).packets if closer and closed_before else ()), first.packet]
    unseen = closer is not None and case.closed_unseen(closer.peer)
    which = "closed" if unseen else "closed first"
    began = "both closed at once; " if both else f"{closer} {which}; " if closed_before else ""
    summary = f"{began}{_ended_by(case, first)}" if case.worded else ""
    if origin_of(case, first).foreign:
        by = Initiator(closer) if closer is not None and closed_before else Initiator.NONE
        by = Initiator.BOTH if both else by
        return Ending(summary, tuple(sorted(packets)), by, ((sender.peer, Role.ABORTED),))
    initiator = Initiator(closer) if closer is not None and closed_before else Initiator(sender)
    initiator = Initiator.NONE if unseen and closed_before else initiator
    return Ending(
        summary,
        tuple(sorted(packets)),
        Initiator.BOTH if both else initiator,
        ((sender, Role.ABORTER), (sender.peer, Role.ABORTED)),
    )


def _ended_by(case: Case, reset: Event) -> str:
    """Return whose RST ended the connection, as far as that is known, and in which phase."""
    sender = reset.sender
    if origin_of(case, reset).foreign:
        return (
            f"a RST in the {sender}'s name ended it, which the {sender} did not send ({_when(case, reset)})"
        )
    return _by_whom(case, reset) + _not_after(case, reset)


def _by_whom(case: Case, reset: Event) -> str:
    """Return who reset the connection, and in which phase."""
    sender = reset.sender
    aborts = [t for t, by in case.endings if by is reset and t.endpoint is sender]
    known = not any(map(case.closed_unseen, ENDS))  # or it may have been in CLOSE_WAIT, say
    if reset.ack is not None and aborts and aborts[0].before is not State.UNKNOWN and known:
        return f"{sender} reset it in {aborts[0].before} ({_when(case, reset)})"
    if reset.ack is not None:
        return f"{sender} reset it ({_when(case, reset)})"
    if aborts:
        return f"{sender} answered with RST, it no longer had the connection ({_when(case, reset)})"
    return f"a RST from the {sender} ended it ({_when(case, reset)})"


def _when(case: Case, reset: Event) -> str:
    """Return the packet of a RST, and in which phase of the close it came."""
    fins = sum(
        bool(case.close(end)) and case.close(end).began < (reset.time_ns, reset.packet) for end in ENDS
    )
    if not fins and any(map(case.closed_unseen, ENDS)):
        return f"#{reset.packet}, before any FIN that was captured"
    return f"#{reset.packet}, {('before any FIN', 'after one FIN', 'after both FINs')[fins]}"


def _not_after(case: Case, reset: Event) -> str:
    """Return that the RST did not reach its receiver, where that is known."""
    return f"; the RST did not reach the {reset.sender.peer}" if reset.packet in case.lost else ""


def completed(case: Case) -> bool:
    """Whether both endpoints sent FIN and both were acknowledged.

    A captured acknowledgement counts until the wait for it shows that it did not arrive. One that was lost
    counts too once a RST has ended the wait: all data had been delivered.
    """
    for end in ENDS:
        close = case.close(end)
        ended = any(t.endpoint is end for t, _ in case.endings)
        if not close or not (close.acknowledged or (close.covers and ended)):
            return False
        stay = case.unacknowledged(end, State.LAST_ACK, State.CLOSING)
        if stay is None or case.by_reset(stay.left) is not None:
            continue
        if case.lasted(stay) >= case.limits.stuck_after_ns:
            return False
    return True


def simultaneous(case: Case) -> Ending | None:
    """Both sent FIN before receiving the other's (RFC 9293 3.6, case 3), and both were acknowledged."""
    if not completed(case) or not case.crossed:
        return None
    packets = sorted({*case.close(End.CLIENT).packets, *case.close(End.SERVER).packets})
    return Ending(
        "both closed at once: neither had received the other's FIN when it sent its own" + remarks(case),
        tuple(packets),
        Initiator.BOTH,
        ((End.CLIENT, Role.BOTH_CLOSERS), (End.SERVER, Role.BOTH_CLOSERS)),
    )


def graceful(case: Case) -> Ending | None:
    """Both sent FIN, one after the other, and both were acknowledged."""
    first = case.first_closer
    if first is None or not completed(case):
        return None
    packets = sorted({*case.close(End.CLIENT).packets, *case.close(End.SERVER).packets})
    return Ending(
        f"{first} closed first" + remarks(case),
        tuple(packets),
        Initiator(first),
        ((first, Role.ACTIVE_CLOSER), (first.peer, Role.PASSIVE_CLOSER)),
    )


def replaced(case: Case) -> Ending | None:
    """A new connection began on the same pair without this one having ended."""
    successor = case.conversation.successor
    if successor is None:
        return None
    begun = _begun(case)
    states = listed([f"the {end} was last seen in {case.state(end)}" for end in ENDS])
    return Ending(
        f"a new connection of the same addresses and ports began before this one had ended; {states}",
        begun.packets if begun else tuple(event.packet for event in case.events[-1:]),
        begun.initiator if begun else Initiator.NONE,
        begun.roles if begun else (),
    )


def closing(case: Case) -> Ending | None:
    """A close has begun and not ended; the states of both endpoints show how far it is."""
    return _begun(case)


def _begun(case: Case) -> Ending | None:
    first = case.first_closer
    if first is None:
        return None
    packets = sorted({packet for end in ENDS for packet in case.close(end).packets})
    where = "; ".join(standing(case, end) for end in ENDS) if case.worded else ""
    if case.crossed:
        roles = ((End.CLIENT, Role.BOTH_CLOSERS), (End.SERVER, Role.BOTH_CLOSERS))
        return Ending(f"both closed; {where}", tuple(packets), Initiator.BOTH, roles)
    sent = case.close(first).sent
    unseen = not captured(case.conversation, first.peer) or case.closed_unseen(first.peer)
    if unseen and sent is not None and sent.certainty is Certainty.ASSUMED:
        # What it had received before its FIN is not known: its peer may have closed first.
        return Ending(f"{first} closed; {where}", tuple(packets) or (case.close(first).began[1],))
    other = case.close(first.peer) or case.close(first).received is not None
    return Ending(
        f"{first} closed first; {where}",
        tuple(packets) or (case.close(first).began[1],),
        Initiator(first),
        ((first, Role.ACTIVE_CLOSER), *(((first.peer, Role.PASSIVE_CLOSER),) if other else ())),
    )


def open_(case: Case) -> Ending:
    """No FIN, no RST."""
    last = tuple(event.packet for event in case.events[-1:])
    states = {case.state(end) for end in ENDS}
    if not all(case.synchronized(end) for end in ENDS):
        complete = "is not complete" if case.ongoing else "was not complete when the capture ended"
        return Ending(
            f"the handshake {complete}: client {case.state(End.CLIENT)}, server {case.state(End.SERVER)}",
            last,
        )
    gone = next((found for end in ENDS if (found := vanished(case, end))), None)
    if gone is not None:
        return Ending(
            f"still open, but the {gone.end.peer} has not answered the {gone.end} for "
            f"{span(case.now_ns - gone.since_ns)}",
            gone.packets,
        )
    c = case.conversation
    carried = (
        f"{count(c.client_bytes, 'byte')} from the client, {count(c.server_bytes, 'byte')} from the server"
    )
    closed = [end for end in ENDS if case.window_closed(end)]
    if closed:
        carried += f"; the {listed(closed)}'s window is 0: the program there does not read"
    if states == {State.ESTABLISHED}:
        when = "" if case.ongoing else " when the capture ended"
        return Ending(f"still open{when}; {carried}", last)
    return Ending(f"neither FIN nor RST was captured; {carried}", last)


RULES: dict[VerdictCode, Rule] = {
    VerdictCode.UNANSWERED: unanswered,
    VerdictCode.REFUSED: refused,
    VerdictCode.ABORTED_OPEN: aborted_open,
    VerdictCode.RESET: reset,
    VerdictCode.SIMULTANEOUS: simultaneous,
    VerdictCode.GRACEFUL: graceful,
    VerdictCode.REPLACED: replaced,  # before closing and open: it shows why nothing more came
    VerdictCode.CLOSING: closing,
    VerdictCode.OPEN: open_,
}
