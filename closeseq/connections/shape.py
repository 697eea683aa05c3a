"""The shape of a connection: its major events in one line, such as `C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import Conversation, End, Event, Position
from closeseq.packets.flags import PSH, letters

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAFFIC = "~"


def shape(conversation: Conversation) -> str:
    """Return one word for each SYN, FIN, RST and ACK that first covers a SYN or FIN; the rest is `~`."""
    words: list[str] = []
    for word in _words(conversation):
        if word != TRAFFIC or words[-1:] != [TRAFFIC]:
            words.append(word)
    return " ".join(words)


def _words(conversation: Conversation) -> Iterator[str]:
    """Yield a word for each step."""
    acked: set[End] = set()  # have sent an acknowledgement
    syn: set[End] = set()  # have sent a SYN
    uncovered: dict[End, int] = {}  # FINs sent and not yet acknowledged: their end
    fin_end: dict[End, int] = {}
    for step in conversation.steps:
        if not isinstance(step, Event):
            acked.update(end for end in End if step.of(end).ack is not None)
            yield TRAFFIC
            continue
        peer = step.sender.peer
        covers_syn = step.ack is not None and peer in syn and step.sender not in acked
        covers_fin = step.ack is not None and peer in uncovered and step.ack >= uncovered[peer]
        major = step.syn or step.fin or step.rst or covers_syn or covers_fin
        yield f"{step.sender.value[0].upper()}:{letters(step.flags & ~PSH)}" if major else TRAFFIC
        if step.ack is not None:
            acked.add(step.sender)
        if step.syn:
            syn.add(step.sender)
        if covers_fin:
            del uncovered[peer]
        if step.fin and step.position is not Position.OUTSIDE:
            fin_end[step.sender] = uncovered[step.sender] = max(step.end, fin_end.get(step.sender, step.end))
