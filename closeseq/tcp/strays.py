"""Segments of a connection's addresses and ports that are no part of it, and change nothing.

- what lies outside any window, and a FIN without ACK (RFC 9293 3.10.7.4: dropped, whatever else it says);
- an ACK that answers a SYN and belongs to an older connection, which its sender still has (RFC 9293 figure
  9), and the RST that answers it in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, End, Event, Opener, Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from closeseq.connections.conversation import Conversation

OUTSIDE = "no part of the connection: its number lies outside the window"
WITHOUT_ACK = "no part of the connection: a FIN without ACK is dropped"
OLDER = "of an older connection, which its sender still has"
ANSWERS_OLDER = "answers a segment of an older connection"


def strays(conversation: Conversation) -> Mapping[int, str]:
    """Return the steps that are no part of the connection, each with the reason."""
    found: dict[int, str] = {}
    for index, step in enumerate(conversation.steps):
        if isinstance(step, Event) and step.position is Position.OUTSIDE:
            found[index] = WITHOUT_ACK if step.fin and step.ack is None else OUTSIDE
    if conversation.opener is Opener.SEEN:
        for end in ENDS:
            found |= _older(conversation, end)
    return found


def _older(conversation: Conversation, end: End) -> dict[int, str]:
    """Find what an end sent of an older connection before it took part in this one, and the answers to it."""
    found: dict[int, str] = {}
    asked = False  # the other end's SYN went by
    numbers: set[int] = set()  # that those segments acknowledge
    for index, step in enumerate(conversation.steps):
        if not isinstance(step, Event):
            break
        if step.sender is end:
            if step.syn or step.rst or not asked:
                break
            if (
                step.ack is not None
                and step.pure_ack
                and step.ack != 1
                and step.position is not Position.OUTSIDE
            ):
                found[index] = OLDER
                numbers.add(step.ack)
            elif index not in found:
                break
        elif step.syn and step.ack is None:
            asked = True
        elif step.rst and step.ack is None and step.seq in numbers:
            found[index] = ANSWERS_OLDER
    return found
