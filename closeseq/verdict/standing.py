"""Where the ends of a connection stand, and what was remarkable, in a few words for a verdict's summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End
from closeseq.tcp.states import State
from closeseq.verdict.loss import fins_lost, repeated_in_vain
from closeseq.verdict.missing import captured
from closeseq.verdict.text import span, times

if TYPE_CHECKING:
    from closeseq.verdict.case import Case


def remarks(case: Case) -> str:
    """Say what was remarkable about a completed close, in the order of its course."""
    remarks = []
    for end in ENDS:
        lost, proved = fins_lost(case, end)
        if lost:
            tries = f"lost {times(len(lost))}" if proved else f"sent {times(len(case.close(end).copies))}"
            remarks.append(f"{end}'s FIN {tries}")
    for end in ENDS:
        for stay in case.stays(end, State.CLOSE_WAIT):
            waited = case.lasted(stay)
            if waited >= case.limits.slow_close_ns:
                remarks.append(f"{end} closed {span(waited)} later")
    again = sum(len(repeated_in_vain(case, end)) for end in ENDS)
    if again:
        remarks.append(f"final ACK lost {times(again)}")
    if case.endings:
        remarks.append(f"a RST came after it (#{case.endings[0][1].packet})")
    return "".join(f"; {remark}" for remark in remarks)


# What an end waits for, and since when, by the state it waits in.
WAITS = {
    State.FIN_WAIT_1: ("its FIN has not been acknowledged", "its FIN"),
    State.FIN_WAIT_2: ("its peer has not closed", "its FIN was acknowledged"),
    State.CLOSE_WAIT: ("has not closed", "the FIN"),
    State.CLOSING: ("its FIN has not been acknowledged", "the FINs crossed"),
    State.LAST_ACK: ("its FIN has not been acknowledged", "its FIN"),
}


def standing(case: Case, end: End) -> str:
    """Say where an end stands in a close that has not ended.

    A short wait is not stuck: then only the state is named, and how long it had lasted.
    """
    if not captured(case.conversation, end):
        return f"what the {end} did was not captured"
    stay = case.unacknowledged(end, *WAITS) or case.present(end)
    state = case.state(end) if stay is None else stay.state
    if stay is not None and stay.left is not None and case.by_reset(stay.left) is None:
        waited = span(case.lasted(stay))
        return f"{end} has been in {state} for {waited}, unless the last ACK of its FIN arrived"
    if stay is None or state not in WAITS:
        return f"{end} is {state}" if state is State.CLOSED else f"{end} is in {state}"
    if not captured(case.conversation, end.peer):
        return f"{end} was last seen in {state}; how it went on shows in what the {end.peer} sent"
    closes = {State.CLOSE_WAIT: end, State.FIN_WAIT_2: end.peer}.get(state)
    if closes is not None and case.close(closes).copies:
        return f"{end} is in {state}"  # the FIN that it waits for was sent, but does not fit
    waits_for, since = WAITS[state]
    waited, tries = span(case.lasted(stay)), len(case.close(end).copies)
    sent = f", sent {times(tries)}" if tries > 1 and state is not State.FIN_WAIT_2 else ""
    if case.lasted(stay) >= case.limits.stuck_after_ns:
        return f"{end} is in {state} and {waits_for} for {waited}{sent}"
    if not case.lasted(stay):
        return f"{end} is in {state}"
    still = f"is in {state}" if case.ongoing else f"was still in {state} when the capture ended"
    return f"{end} {still}, {waited} after {since}{sent}"
