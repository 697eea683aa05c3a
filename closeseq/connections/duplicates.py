"""What a connection's duplicates were: captured twice, or delivered twice. Plain Python, for one connection.

Where frames do not tell (`copies.AGAIN`), two other things may:

- A capture that sees packets twice sees nearly all of them twice; a network that duplicates does so now and
  then.
- Who gets a segment twice answers the second with an ACK, which says so if it has a D-SACK (RFC 2883). In
  TIME_WAIT too it answers a FIN (RFC 9293 3.10.7.4). For a segment that was captured twice nobody does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import Duplicates, End, Event, Position, Traffic

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST = 4  # packets of an end, of which it says something that most came twice
MOST = 0.75  # of them
ANSWER_NS = 1_000_000_000  # within which a duplicate is answered

Row = dict[str, Any]  # one row of a table, as plain Python values


def duplicates(history: Row, sides: dict[End, Row], steps: Sequence[Event | Traffic]) -> Duplicates:
    """Return how many of a connection's duplicates were of which kind.

    Args:
        history: its row of `Histories`.
        sides: the rows of `Sides` of its ends.
        steps: its events and traffic.
    """
    captured, delivered, unclear = history["elsewhere"], 0, 0
    packets: tuple[int, ...] = ()
    for end, side in sides.items():
        again = side["doubled"]
        answer = answer_to_fin(end, side, steps) if side["fin_again"] else None
        delivered += side["delivered"]
        if answer is not None:
            packets += (side["fin_again"], answer.packet)
        if side["packets"] >= FEWEST and again >= MOST * side["packets"]:
            captured += again
            continue
        answered = min(again, int(answer is not None and not side["fin_again_later"]))
        if again and not sent_again(end, steps):
            answered = max(answered, min(again, sides[end.peer]["dsacks"]))
        delivered += answered
        unclear += again - answered
    return Duplicates(captured, delivered, unclear, history["repeated_resets"], packets)


def answer_to_fin(end: End, side: Row, steps: Sequence[Event | Traffic]) -> Event | None:
    """Return the ACK with which the other end answered this end's FIN, delivered once more."""
    number, time_ns = side["fin_again"], side["fin_again_ns"]
    events = [step for step in steps if isinstance(step, Event)]
    fins = [e for e in events if e.sender is end and e.fin]
    if not fins or fins[-1].packet > number:  # the FIN was sent again, so an ACK may be for that
        return None
    fin = fins[-1]
    acks = [
        e
        for e in events
        if e.sender is end.peer and e.packet > fin.packet and (e.ack or 0) >= fin.end and not e.rst
    ]
    # The first one answers the FIN itself, wherever between the two it stands.
    for ack in acks[1:]:
        if ack.packet > number and ack.pure_ack and ack.time_ns - time_ns <= ANSWER_NS:
            return ack
    return None


def sent_again(end: End, steps: Sequence[Event | Traffic]) -> bool:
    """Return whether this end sent anything again."""
    again = (Position.RETRANSMISSION, Position.OVERLAP)
    return any(
        (step.sender is end and step.end > step.seq and step.position in again)
        if isinstance(step, Event)
        else step.of(end).retransmissions > 0
        for step in steps
    )
