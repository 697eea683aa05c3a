"""The words that Zeek and Wireshark have for a connection, for people who come from there.

Zeek gives each end one of seven states of its own, moved by the flags of what is captured, in whatever
order and whether or not it arrived; `conn_state` is a function of the two. `history` has a letter for
each kind of packet when it is first seen. Wireshark's completeness is a sum of bits.

Where stretches of ordinary traffic are known by their digest only, an end that sent data in one is
taken to have sent nothing else in it. Zeek's letters about quality (c g t w) and its marks that depend on
its configuration (^) are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Conversation, End, Event
from closeseq.packets.flags import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from collections.abc import Iterator


class Zeek(StrEnum):
    """The states Zeek knows of an end."""

    INACTIVE = "inactive"
    SYN_SENT = "SYN sent"
    SYN_ACK_SENT = "SYN+ACK sent, by the originator"
    PARTIAL = "partial"  # seen in the middle only
    ESTABLISHED = "established"
    CLOSED = "closed"  # has sent a FIN
    RESET = "reset"  # has sent a RST


class Completeness(IntFlag):
    """Wireshark's tcp.completeness."""

    SYN = 1
    SYN_ACK = 2
    ACK = 4
    DATA = 8
    FIN = 16
    RST = 32


@dataclass(frozen=True, slots=True)
class Sight:
    """What one segment, or one end's part of a stretch of traffic, looks like to the other tools."""

    sender: End
    flags: int
    length: int
    seq: int  # of a FIN the number of the FIN itself, as Zeek compares it
    segments: int = 1

    @property
    def code(self) -> str:
        """Zeek's letter for it; empty where it has none."""
        kinds = [letter for bit, letter in ((SYN, "S"), (FIN, "F"), (RST, "R")) if self.flags & bit]
        if len(kinds) > 1:
            return "I" if self.flags & FIN and self.flags & RST else "Q"
        if kinds == ["S"] and self.flags & ACK:
            return "H"
        if kinds:
            return kinds[0]
        if self.length:
            return "D"
        return "A" if self.flags & ACK else ""


def sights(conversation: Conversation) -> Iterator[Sight]:
    """Yield a conversation as the other tools would see it, in the order of its packets."""
    for step in conversation.steps:
        if isinstance(step, Event):
            seq = step.seq + step.length if step.fin else step.seq
            yield Sight(step.sender, step.flags, step.length, seq)
            continue
        streams = [(step.of(end).first_packet, end) for end in End if step.of(end)]
        for _, end in sorted(streams):
            yield Sight(end, ACK, step.of(end).bytes, 0, step.of(end).segments)


@dataclass(slots=True)
class Watch:
    """What Zeek knows of a connection so far."""

    state: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    before: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    history: str = ""
    last: dict[str, int] = field(default_factory=dict)  # letter -> number of the last packet of that kind

    def see(self, sight: Sight) -> None:
        """Take in one more packet."""
        self._write(sight)
        own = self.state[sight.sender]
        if own is Zeek.INACTIVE:
            self._begin(sight)
        elif own in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT):
            self._move(sight.sender, _ended(sight.flags))
        elif own in (Zeek.ESTABLISHED, Zeek.PARTIAL):
            self._go_on(sight)
        elif own is Zeek.CLOSED and sight.flags & RST and self.state[sight.sender.peer] is not Zeek.CLOSED:
            self._move(sight.sender, Zeek.RESET)

    def _write(self, sight: Sight) -> None:
        code = sight.code if sight.sender is End.CLIENT else sight.code.lower()
        repeats = sight.code in ("S", "H", "F", "R") and self.last.get(code) != sight.seq
        if code and (code not in self.history or repeats):
            self.history += code
        if code:
            self.last[code] = sight.seq

    def _move(self, end: End, state: Zeek | None) -> None:
        if state is not None and state is not self.state[end]:
            self.before[end], self.state[end] = self.state[end], state

    def _begin(self, sight: Sight) -> None:
        """Take in the first packet of an end."""
        end, peer = sight.sender, sight.sender.peer
        if sight.flags & SYN:
            if end is End.CLIENT:
                self._move(end, Zeek.SYN_ACK_SENT if sight.flags & ACK else Zeek.SYN_SENT)
            else:
                if self.state[peer] in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT):
                    self._move(peer, Zeek.ESTABLISHED)
                self._move(end, Zeek.ESTABLISHED)
        self._move(end, _ended(sight.flags))
        if self.state[end] is not Zeek.INACTIVE:
            return
        if end is End.SERVER and not sight.length and self.state[peer] is Zeek.SYN_SENT:
            return  # some answer a SYN with a bare ACK first
        established = sight.flags & ACK and self.state[peer] is Zeek.ESTABLISHED
        self._move(end, Zeek.ESTABLISHED if established else Zeek.PARTIAL)

    def _go_on(self, sight: Sight) -> None:
        """Take in a packet of an end whose connection is running."""
        end, peer = sight.sender, sight.sender.peer
        alone = self.state[end] is Zeek.PARTIAL and self.state[peer] is Zeek.INACTIVE
        if sight.flags & (SYN | ACK) == SYN and alone:
            self._move(end, Zeek.SYN_SENT)
        if sight.flags & FIN and not sight.flags & RST:
            self._move(end, Zeek.CLOSED)
            if self.state[peer] is Zeek.RESET and self.before[peer] is Zeek.CLOSED:
                self._move(peer, Zeek.CLOSED)  # FIN, then RST, then this FIN: a normal end after all
        if sight.flags & RST:
            self._move(end, Zeek.RESET)


def _ended(flags: int) -> Zeek | None:
    return Zeek.RESET if flags & RST else Zeek.CLOSED if flags & FIN else None


def watched(conversation: Conversation) -> Watch:
    """Return what Zeek would know of the whole conversation."""
    watch = Watch()
    for sight in sights(conversation):
        watch.see(sight)
    return watch


def zeek_history(conversation: Conversation) -> str:
    """Return Zeek's `history`: a letter for each kind of packet, upper case from the client."""
    return watched(conversation).history


def zeek_conn_state(conversation: Conversation) -> str:
    """Return Zeek's `conn_state`, decided from the two ends' states as Zeek's conn script does."""
    watch = watched(conversation)
    client, server = watch.state[End.CLIENT], watch.state[End.SERVER]
    silent = not conversation.client_bytes and not conversation.server_bytes
    unseen = (Zeek.INACTIVE, Zeek.PARTIAL)
    if server is Zeek.RESET:
        if client in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT) or (client is Zeek.RESET and silent):
            return "REJ"
        return "RSTRH" if client in unseen else "RSTR"
    if client is Zeek.RESET:
        if server not in unseen:
            return "RSTO"
        return "RSTOS0" if re.match(r"S[^HAFGIQ]*R", watch.history) else "OTH"
    if client is Zeek.CLOSED and server is Zeek.CLOSED:
        return "SF"
    if client is Zeek.CLOSED:
        return "SH" if server in unseen else "S2"
    if server is Zeek.CLOSED:
        return "SHR" if client in unseen else "S3"
    if client is Zeek.SYN_SENT and server is Zeek.INACTIVE:
        return "S0"
    return "S1" if client is server is Zeek.ESTABLISHED else "OTH"


def wireshark_completeness(conversation: Conversation) -> int:
    """Return Wireshark's `tcp.completeness`.

    As there, a SYN counts only as the very first packet, which counts for nothing else; and whatever
    acknowledges without data counts as an ACK, be it a FIN or a RST.
    """
    complete = Completeness(0)
    for index, sight in enumerate(sights(conversation)):
        kind = sight.flags & (SYN | ACK)
        if index == 0 and sight.segments == 1:
            if kind == SYN:
                complete |= Completeness.SYN | (Completeness.DATA if sight.length else Completeness(0))
            continue
        if kind == SYN | ACK:
            complete |= Completeness.SYN_ACK
        if kind == ACK:
            complete |= Completeness.DATA if sight.length else Completeness.ACK
        if sight.flags & FIN and sight.flags & ACK:
            complete |= Completeness.FIN
        if sight.flags & RST:
            complete |= Completeness.RST
    return int(complete)
