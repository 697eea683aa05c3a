"""What was not captured of a connection, inferred from the connection itself and the drop counters.

What rests on the *absence* of a packet ("never acknowledged") is no more than assumed where packets of
the connection are known, or likely, to be missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Conversation, End, Event, Opener, Position, Traffic
from closeseq.packets.value import value
from closeseq.units import count, span, were

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.packets.frames import Gap


@value
class Missing:
    """Packets that were not captured."""

    what: str  # a clause of a text
    consequence: str  # what cannot be concluded
    endpoint: End | None  # that sent them; None when it may be either
    packet: int | None  # that shows it
    time_ns: int  # since when, since the Unix epoch


def missing(
    conversation: Conversation,
    dropped: int,
    strays: frozenset[int] = frozenset(),
    gaps: Sequence[Gap] = (),
) -> tuple[Missing, ...]:
    """Return what was not captured of a connection, what matters most first.

    Args:
        conversation: of the connection.
        dropped: packets that the capture itself reports lost, of all connections.
        strays: packets that are no part of the connection, by number.
        gaps: between the files of the capture. The text of a hole names the gap before it, in which its
            packets may have been sent; a gap without a hole is not reported.
    """
    found: list[Missing] = []
    if one := _one_direction(conversation):
        found.append(one)
    elif beginning := _beginning(conversation):
        found.append(beginning)
    for end in ENDS:
        if not one or one.endpoint is not end:
            found += [_with_gap(hole, conversation, gaps) for hole in _holes(conversation, end, strays)]
    if dropped:
        found.append(
            Missing(
                f"the capture lost {count(dropped, 'packet')} of all its connections",
                "a packet that seems never to have been sent may be one of them",
                None,
                None,
                conversation.first_ns,
            )
        )
    return tuple(found)


def _with_gap(hole: Missing, conversation: Conversation, gaps: Sequence[Gap]) -> Missing:
    before = [gap for gap in gaps if conversation.first_ns <= gap.from_ns and gap.to_ns <= hole.time_ns]
    if not before:
        return hole
    gap = before[-1]
    lasted = span(gap.to_ns - gap.from_ns)
    what = f"{hole.what} (no file covers the {lasted} between #{gap.before} and #{gap.after})"
    return replace(hole, what=what)


def captured(conversation: Conversation, end: End) -> int:
    """Return how many packets of an endpoint were captured, in the whole conversation."""
    return conversation.client_packets if end is End.CLIENT else conversation.server_packets


def _one_direction(conversation: Conversation) -> Missing | None:
    """Return that a direction is missing: one endpoint acknowledges what the other sent uncaptured."""
    for end in ENDS:
        if captured(conversation, end):
            continue
        for step in conversation.steps:
            answers = step.ack if isinstance(step, Event) else step.of(end.peer).ack
            if answers is not None:
                return Missing(
                    f"nothing that the {end} sent was captured, although the {end.peer} acknowledges it",
                    f"only the {end.peer}'s part of the close is known",
                    end,
                    step.packet,
                    step.time_ns,
                )
    return None


def _beginning(conversation: Conversation) -> Missing | None:
    first = conversation.steps[0] if conversation.steps else None
    if first is None or (isinstance(first, Event) and first.syn):
        return None
    guessed = conversation.opener is Opener.INFERRED
    return Missing(
        "the beginning of the connection was not captured",
        "what was closed before is not known, and which endpoint is the client is a guess"
        if guessed
        else "what was sent before is not known",
        None,
        first.packet,
        first.time_ns,
    )


def _holes(conversation: Conversation, end: End, strays: frozenset[int]) -> Iterator[Missing]:
    """Find what an endpoint sent uncaptured, and its peer acknowledged.

    A hole that is not acknowledged does not show that: the path lost the packet, or another overtook it. A
    RST's number is not part of the stream: a stray or forged one lies anywhere.
    """
    highest = _highest(conversation, end, strays)
    for step in conversation.steps:
        ack = None if step.packet in strays else ack_of(step, end.peer)
        if ack is None or highest is None or ack <= highest:
            continue
        if ack == highest + 1 and _only_probes(conversation, end):
            return  # a keepalive is numbered one below what its receiver acknowledges
        yield Missing(
            f"packet #{step.packet} acknowledges {count(ack - highest, 'number')} of the {end} more than "
            "was captured",
            "it was a FIN, or as little as a byte of data: the numbers look alike"
            if ack == highest + 1
            else f"what the {end} sent there is not known",
            end,
            step.packet,
            step.time_ns,
        )
        return
    path = conversation.path(end)
    if path.missed:
        yield Missing(
            f"{count(path.missed, 'hole')} in what the {end} sent, first before packet "
            f"#{path.missed_packet}, {were(path.missed)} acknowledged by the {end.peer} although nothing "
            "that fills it was captured",
            f"what the {end} sent there is not known",
            end,
            path.missed_packet,
            path.missed_ns,
        )


def _only_probes(conversation: Conversation, end: End) -> bool:
    """Whether an endpoint sent nothing but possible keepalives; the connection began before the capture."""
    if conversation.opener is Opener.SEEN:
        return False
    sent = conversation.client_bytes if end is End.CLIENT else conversation.server_bytes
    return sent <= captured(conversation, end) and not any(
        e.fin for e in conversation.events if e.sender is end
    )


def _highest(conversation: Conversation, end: End, strays: frozenset[int]) -> int | None:
    ends = []
    for step in conversation.steps:
        if isinstance(step, Traffic):
            ends.append(step.of(end).end)
        elif step.sender is end and not step.rst and step.packet not in strays:
            # A probe or a stray ACK numbered past everything stands for what was not captured.
            ends.append(step.end if step.position is not Position.GAP or step.length else None)
    return max((number for number in ends if number is not None), default=None)


def ack_of(step: Event | Traffic, sender: End) -> int | None:
    """Return the acknowledgement that a sender sent in a step, but for that of a RST."""
    if isinstance(step, Traffic):
        return step.of(sender).ack
    return step.ack if step.sender is sender and not step.rst else None
