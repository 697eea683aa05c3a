"""What a case is made of: an end's stay in a state, and an end's part in the close."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.packets.value import value

if TYPE_CHECKING:
    from closeseq.connections.conversation import End, Event
    from closeseq.tcp.states import State
    from closeseq.tcp.timeline import Transition


@value
class Stay:
    """An end was in a state for a time."""

    end: End
    state: State
    entered: Transition
    left: Transition | None  # None: it is still there

    @property
    def since_ns(self) -> int:
        return self.entered.time_ns


@value
class Close:
    """One end's FIN, as far as anything is known of it."""

    end: End
    copies: tuple[Event, ...]  # every captured segment that carries it, in order
    sent: Transition | None  # by which this end sent it
    taken: Transition | None  # by which the other end received it
    heard: Transition | None  # by which this end learned that it was acknowledged
    order: int  # place of the first of these transitions among all; one packet can make several
    covers: tuple[tuple[int, int], ...]  # (packet, time) of what the other end sent that acknowledges it

    def __bool__(self) -> bool:
        return self.sent is not None or bool(self.copies)

    @property
    def began(self) -> tuple[int, int]:
        """When it was sent at the latest, and a packet that shows it: (time, packet)."""
        known = [
            (t.time_ns, t.packet) for t in (self.sent, self.taken) if t is not None and t.packet is not None
        ]
        known += [(e.time_ns, e.packet) for e in self.copies[:1]]
        return min(known)

    @property
    def acknowledged(self) -> bool:
        """Whether the other end acknowledged it, as far as anyone could know.

        An acknowledgement counts as long as this end did not repeat the FIN after it.
        """
        if self.heard is not None:
            return True
        if not self.copies:  # only its acknowledgement shows that there was one
            return self.taken is not None
        return bool(self.covers) and self.covers[-1][0] > self.copies[-1].packet

    @property
    def packets(self) -> tuple[int, ...]:
        """Its first copy, and what acknowledged it after its last."""
        if not self.copies:
            return ()
        after = [packet for packet, _ in self.covers if packet > self.copies[-1].packet]
        return (self.copies[0].packet, *(after[:1] or [packet for packet, _ in self.covers[-1:]]))
