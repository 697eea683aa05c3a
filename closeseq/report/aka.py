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
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from closeseq.connections.conversation import Conversation, End, Traffic
from closeseq.packets.segments import ACK, FIN, RST, SYN

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


class ToolSegment(NamedTuple):
    """What one segment, or one end's part of a stretch of traffic, looks like to the other tools.

    It tells no number of the connection, so that those which went the same way look the same.
    """

    sender: End
    flags: int
    data: bool
    single: bool  # one segment
    again: bool  # the same number as the last one with these flags of this end

    @classmethod
    def of(cls, look: int) -> ToolSegment:
        """Return what one of `looks` means."""
        end = End.SERVER if look & OF_SERVER else End.CLIENT
        return cls(end, look & 0xFF, bool(look & DATA), not look & SEVERAL, bool(look & AGAIN))

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
        if self.data:
            return "D"
        return "A" if self.flags & ACK else ""


# Bits of a look, above those of the flags.
OF_SERVER, DATA, SEVERAL, AGAIN = 1 << 8, 1 << 9, 1 << 10, 1 << 11


def looks(conversation: Conversation) -> Iterator[int]:
    """Yield a conversation as the other tools would see it, packet by packet: bits of a `ToolSegment`."""
    last: dict[int, int] = {}  # the number of the last segment with these flags of this end
    for step in conversation.steps:
        if isinstance(step, Traffic):
            yield from _in_traffic(step)
            continue
        flags = step.flags & (SYN | FIN | RST | ACK)
        side = OF_SERVER if step.sender is End.SERVER else 0
        look = flags | side | (DATA if step.length else 0)
        if flags != ACK:
            kind = side | (flags if flags == SYN | ACK else flags & (SYN | FIN | RST))
            number = step.seq + step.length if flags & FIN else step.seq  # of a FIN its own, as Zeek compares
            if last.get(kind) == number:
                look |= AGAIN
            last[kind] = number
        yield look


def _in_traffic(traffic: Traffic) -> list[int]:
    client, server = traffic.client, traffic.server
    found = []
    for stream, side in ((client, 0), (server, OF_SERVER)):
        if stream.segments:
            several = SEVERAL if stream.segments > 1 else 0
            found.append(ACK | side | several | (DATA if stream.bytes else 0))
    return found[::-1] if server.segments and server.first_packet < client.first_packet else found


@dataclass(slots=True)
class ZeekConnection:
    """What Zeek knows of a connection so far."""

    state: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    before: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    history: str = ""

    def see(self, sight: ToolSegment) -> None:
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

    def _write(self, sight: ToolSegment) -> None:
        letter = sight.code
        code = letter if sight.sender is End.CLIENT else letter.lower()
        if letter and (code not in self.history or (letter in "SHFR" and not sight.again)):
            self.history += code

    def _move(self, end: End, state: Zeek | None) -> None:
        if state is not None and state is not self.state[end]:
            self.before[end], self.state[end] = self.state[end], state

    def _begin(self, sight: ToolSegment) -> None:
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
        if end is End.SERVER and not sight.data and self.state[peer] is Zeek.SYN_SENT:
            return  # some answer a SYN with a bare ACK first
        established = sight.flags & ACK and self.state[peer] is Zeek.ESTABLISHED
        self._move(end, Zeek.ESTABLISHED if established else Zeek.PARTIAL)

    def _go_on(self, sight: ToolSegment) -> None:
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


class Words(NamedTuple):
    """What the other tools call a connection."""

    zeek_conn_state: str
    zeek_history: str
    wireshark_completeness: int


def words(conversation: Conversation) -> Words:
    """Return what the other tools call a connection."""
    silent = not conversation.client_bytes and not conversation.server_bytes
    return _words(tuple(looks(conversation)), silent)


@lru_cache(maxsize=1 << 12)
def _words(seen: tuple[int, ...], silent: bool) -> Words:
    """Return the words for these looks; `silent` tells that neither end sent data."""
    watch, sights = ZeekConnection(), [ToolSegment.of(look) for look in seen]
    for sight in sights:
        watch.see(sight)
    return Words(_conn_state(watch, silent), watch.history, _completeness(sights))


def zeek_history(conversation: Conversation) -> str:
    """Return Zeek's `history`: a letter for each kind of packet, upper case from the client."""
    return words(conversation).zeek_history


def zeek_conn_state(conversation: Conversation) -> str:
    """Return Zeek's `conn_state`, decided from the two ends' states as Zeek's conn script does."""
    return words(conversation).zeek_conn_state


def wireshark_completeness(conversation: Conversation) -> int:
    """Return Wireshark's `tcp.completeness`.

    As there, a SYN counts only as the very first packet, which counts for nothing else; and whatever
    acknowledges without data counts as an ACK, be it a FIN or a RST.
    """
    return words(conversation).wireshark_completeness


def _conn_state(watch: ZeekConnection, silent: bool) -> str:
    client, server = watch.state[End.CLIENT], watch.state[End.SERVER]
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


def _completeness(sights: list[ToolSegment]) -> int:
    complete = Completeness(0)
    for index, sight in enumerate(sights):
        kind = sight.flags & (SYN | ACK)
        if index == 0 and sight.single:
            if kind == SYN:
                complete |= Completeness.SYN | (Completeness.DATA if sight.data else Completeness(0))
            continue
        if kind == SYN | ACK:
            complete |= Completeness.SYN_ACK
        if kind == ACK:
            complete |= Completeness.DATA if sight.data else Completeness.ACK
        if sight.flags & FIN and sight.flags & ACK:
            complete |= Completeness.FIN
        if sight.flags & RST:
            complete |= Completeness.RST
    return int(complete)
