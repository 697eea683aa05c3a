"""The shape of a connection: its major events in one line, such as `C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS, Conversation, End, Position, Traffic
from closeseq.packets.flags import FIN, PSH, RST, SYN, letters

if TYPE_CHECKING:
    from collections.abc import Iterator

TRAFFIC = "~"
LETTER = {End.CLIENT: "C", End.SERVER: "S"}


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
        if isinstance(step, Traffic):
            acked.update(end for end in ENDS if step.of(end).ack is not None)
            yield TRAFFIC
            continue
        sender, peer, flags = step.sender, step.sender.peer, step.flags
        acknowledges = step.ack is not None
        covers_syn = acknowledges and peer in syn and sender not in acked
        covers_fin = step.ack is not None and peer in uncovered and step.ack >= uncovered[peer]
        major = flags & (SYN | FIN | RST) or covers_syn or covers_fin
        yield f"{LETTER[sender]}:{letters(flags & ~PSH)}" if major else TRAFFIC
        if acknowledges:
            acked.add(sender)
        if flags & SYN:
            syn.add(sender)
        if covers_fin:
            del uncovered[peer]
        if flags & FIN and step.position is not Position.OUTSIDE:
            fin_end[sender] = uncovered[sender] = max(step.end, fin_end.get(sender, step.end))
