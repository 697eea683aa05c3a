"""Zeek's and Wireshark's terms for a connection: `conn_state`, `history` and `tcp.completeness`.

Zeek gives each endpoint one of seven states, moved by the flags of captured segments, in whatever order and
whether or not they arrived; `conn_state` is a function of the two. `history` has a letter for each kind of
packet when it is first seen. Wireshark's completeness is a sum of bits.

Where only a digest of ordinary traffic is kept, an endpoint that sent data in it counts as sending nothing
else. Zeek's letters about quality (c g t w) and its mark that depends on configuration (^) are left out.
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
    """The states Zeek knows of an endpoint."""

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
    """One segment, or one endpoint's part of a stretch of traffic, as the other tools see it.

    It has no numbers, so that connections that went the same way are equal.
    """

    sender: End
    flags: int  # those of SYN, FIN, RST and ACK
    data: bool  # with payload
    single: bool  # one segment; of later ones than the first that is not asked
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
    for place, step in enumerate(conversation.steps):
        if isinstance(step, Traffic):
            yield from _in_traffic(step, counted=place == 0)
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


def _in_traffic(traffic: Traffic, *, counted: bool) -> list[int]:
    """Return a stretch as looks, at most one an endpoint; `counted`: whether they must show several."""
    client, server = traffic.client, traffic.server
    found = []
    for stream, side in ((client, 0), (server, OF_SERVER)):
        if stream.segments:
            several = SEVERAL if counted and stream.segments > 1 else 0
            found.append(ACK | side | several | (DATA if stream.bytes else 0))
    return found[::-1] if server.segments and server.first_packet < client.first_packet else found


@dataclass(slots=True)
class ZeekConnection:
    """What Zeek knows of a connection so far."""

    state: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    # The state of each endpoint before that.
    before: dict[End, Zeek] = field(default_factory=lambda: dict.fromkeys(End, Zeek.INACTIVE))
    history: str = ""  # letters, upper case from the client

    def see(self, segment: ToolSegment) -> None:
        """Take in one more packet."""
        self._write(segment)
        own = self.state[segment.sender]
        if own is Zeek.INACTIVE:
            self._begin(segment)
        elif own in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT):
            self._move(segment.sender, _ended(segment.flags))
        elif own in (Zeek.ESTABLISHED, Zeek.PARTIAL):
            self._go_on(segment)
        elif (
            own is Zeek.CLOSED and segment.flags & RST and self.state[segment.sender.peer] is not Zeek.CLOSED
        ):
            self._move(segment.sender, Zeek.RESET)

    def _write(self, segment: ToolSegment) -> None:
        letter = segment.code
        code = letter if segment.sender is End.CLIENT else letter.lower()
        if letter and (code not in self.history or (letter in "SHFR" and not segment.again)):
            self.history += code

    def _move(self, end: End, state: Zeek | None) -> None:
        if state is not None and state is not self.state[end]:
            self.before[end], self.state[end] = self.state[end], state

    def _begin(self, segment: ToolSegment) -> None:
        """Take in the first packet of an endpoint."""
        end, peer = segment.sender, segment.sender.peer
        if segment.flags & SYN:
            if end is End.CLIENT:
                self._move(end, Zeek.SYN_ACK_SENT if segment.flags & ACK else Zeek.SYN_SENT)
            else:
                if self.state[peer] in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT):
                    self._move(peer, Zeek.ESTABLISHED)
                self._move(end, Zeek.ESTABLISHED)
        self._move(end, _ended(segment.flags))
        if self.state[end] is not Zeek.INACTIVE:
            return
        if end is End.SERVER and not segment.data and self.state[peer] is Zeek.SYN_SENT:
            return  # some answer a SYN with a bare ACK first
        established = segment.flags & ACK and self.state[peer] is Zeek.ESTABLISHED
        self._move(end, Zeek.ESTABLISHED if established else Zeek.PARTIAL)

    def _go_on(self, segment: ToolSegment) -> None:
        """Take in a packet of an endpoint whose connection is running."""
        end, peer = segment.sender, segment.sender.peer
        alone = self.state[end] is Zeek.PARTIAL and self.state[peer] is Zeek.INACTIVE
        if segment.flags & (SYN | ACK) == SYN and alone:
            self._move(end, Zeek.SYN_SENT)
        if segment.flags & FIN and not segment.flags & RST:
            self._move(end, Zeek.CLOSED)
            if self.state[peer] is Zeek.RESET and self.before[peer] is Zeek.CLOSED:
                self._move(peer, Zeek.CLOSED)  # FIN, then RST, then this FIN: a normal end after all
        if segment.flags & RST:
            self._move(end, Zeek.RESET)


def _ended(flags: int) -> Zeek | None:
    return Zeek.RESET if flags & RST else Zeek.CLOSED if flags & FIN else None


class Words(NamedTuple):
    """The other tools' terms for a connection."""

    zeek_conn_state: str
    zeek_history: str
    wireshark_completeness: int


def words(conversation: Conversation) -> Words:
    """Return the other tools' terms for a connection."""
    seen = tuple(looks(conversation))
    reset = {look & OF_SERVER for look in seen if look & RST}
    silent = len(reset) > 1 and not conversation.client_bytes and not conversation.server_bytes
    return _words(seen, silent)


@lru_cache(maxsize=1 << 12)
def _words(seen: tuple[int, ...], silent: bool) -> Words:
    """Return the words for these looks; `silent`: both endpoints sent RST, and neither sent data."""
    zeek, segments = ZeekConnection(), [ToolSegment.of(look) for look in seen]
    for segment in segments:
        zeek.see(segment)
    return Words(_conn_state(zeek, silent), zeek.history, _completeness(segments))


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


def _conn_state(zeek: ZeekConnection, silent: bool) -> str:
    client, server = zeek.state[End.CLIENT], zeek.state[End.SERVER]
    unseen = (Zeek.INACTIVE, Zeek.PARTIAL)
    if server is Zeek.RESET:
        if client in (Zeek.SYN_SENT, Zeek.SYN_ACK_SENT) or (client is Zeek.RESET and silent):
            return "REJ"
        return "RSTRH" if client in unseen else "RSTR"
    if client is Zeek.RESET:
        if server not in unseen:
            return "RSTO"
        return "RSTOS0" if re.match(r"S[^HAFGIQ]*R", zeek.history) else "OTH"
    if client is Zeek.CLOSED and server is Zeek.CLOSED:
        return "SF"
    if client is Zeek.CLOSED:
        return "SH" if server in unseen else "S2"
    if server is Zeek.CLOSED:
        return "SHR" if client in unseen else "S3"
    if client is Zeek.SYN_SENT and server is Zeek.INACTIVE:
        return "S0"
    return "S1" if client is server is Zeek.ESTABLISHED else "OTH"


def _completeness(segments: list[ToolSegment]) -> int:
    complete = Completeness(0)
    for index, segment in enumerate(segments):
        kind = segment.flags & (SYN | ACK)
        if index == 0 and segment.single:
            if kind == SYN:
                complete |= Completeness.SYN | (Completeness.DATA if segment.data else Completeness(0))
            continue
        if kind == SYN | ACK:
            complete |= Completeness.SYN_ACK
        if kind == ACK:
            complete |= Completeness.DATA if segment.data else Completeness.ACK
        if segment.flags & FIN and segment.flags & ACK:
            complete |= Completeness.FIN
        if segment.flags & RST:
            complete |= Completeness.RST
    return int(complete)
