"""A small language for connections: one word a segment, as real columns.

    C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A

Each segment acknowledges all that its sender has received: whatever the peer sent before it, unless that was
lost. Words:

    C:FA        the client sends a segment with FIN and ACK; letters out of S F R A P
    S:A+100     the server sends 100 bytes of data
    S:A/0       with a window of 0; by default it is 65535
    C:K         a keepalive probe: an ACK numbered one below the next number
    C:FA|S:FA   they cross: neither sender knows of the other segment
    ~           a little ordinary traffic: C:PA+100 S:PA+200 C:A; data only of endpoints that sent no FIN
    +2.5s       a pause; also +300ms
    C:FA!       lost after the capture: it was captured and is never received (or !C:FA)
    C:FA?       lost before the capture: it is sent, but neither captured nor received (or ?C:FA)
    (C:FA)      missed by the capture: it is sent and received, but not captured
    C:FA*       a retransmission, with the old sequence numbers: of the oldest of this kind (SYN, FIN, RST or
                else data) that is not acknowledged, or of the newest if all are; with the newest ACK number

What follows by itself:

    C:S again   a new connection of the same two endpoints, with new numbers, unless marked by *
    C:FA again  a retransmission of the FIN, as with *; also C:SA after C:S, in a simultaneous open
    C:A         also reports, on Linux, that a segment came twice (D-SACK, RFC 2883)
    S:R         answers what the server received last: its number is that segment's acknowledgement, its
                window 0
    S:RA        answers a SYN, with number 0, if the server has sent nothing (RFC 9293 3.10.7.1);
                else it aborts, and has the next number
    C:A ...     a script that does not begin with SYNs begins in the middle of a connection

Times are fixed: segments are a millisecond apart by default, and begin at `START_NS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import numpy as np

from closeseq.connections import Connections
from closeseq.errors import ScriptError
from closeseq.packets.segments import ACK, COLUMNS, DTYPES, FIN, MODULUS, RST, SYN, Segments, from_letters

if TYPE_CHECKING:
    from closeseq.connections.conversation import Conversation

START_NS = 1_700_000_000_000_000_000  # since the Unix epoch
GAP_NS = 1_000_000
NUMBERS = (MODULUS - 3, MODULUS - 120)  # initial sequence numbers: both wrap within the first bytes
NEXT_CONNECTION = 1_000_000  # how far the numbers of the next connection lie past those of this one
ADDRESSES = (0xC0000201, 0xC6336402)  # 192.0.2.1 and 198.51.100.2, for documentation (RFC 5737)
PORTS = (40000, 80)
WINDOW = 65535
MOST_BYTES = 1 << 30  # of a segment; beyond half the sequence space nobody could order them
TIMESTAMPS = (1_000_000, 5_000_000)  # the endpoints' clocks at the start, in ms


class System(NamedTuple):
    """An operating system, by what its packets show."""

    ttl: int  # with which its packets begin
    options: int  # the kinds of its SYN's options in order, four bits each
    options_with_timestamps: int  # the same where it offers timestamps
    counts: bool  # whether it counts its packets in IPv4's identification
    dsack: bool = False  # whether it reports where a segment came twice (RFC 2883)


SYSTEMS = {
    "linux": System(64, 0x211413, 0x24813, counts=True, dsack=True),
    "windows": System(128, 0x213114, 0x213148, counts=True),
    "macos": System(64, 0x213114, 0x2131184, counts=False),
    "bsd": System(64, 0x2134, 0x21348, counts=False),
}

TRAFFIC = {
    (False, False): "C:PA+100 S:PA+200 C:A",  # (client, server) has sent FIN
    (True, False): "S:PA+200 C:A",
    (False, True): "C:PA+100 S:A",
}
PAUSE = re.compile(r"\+(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)(?P<unit>ms|s)")
WORD = re.compile(
    r"(?P<missed>\()?(?P<before>[!?]?)(?P<end>[CS]):(?P<letters>[SFRAPK]+)"
    r"(\+(?P<length>[0-9]+))?(/(?P<window>[0-9]+))?(?P<after>[*!?]*)(?(missed)\))"
)


class Word(NamedTuple):
    """One word of a script."""

    text: str  # as written
    end: int  # 0 the client, 1 the server
    flags: int  # control bits
    length: int | None  # bytes of data; None if the word names none
    window: int  # as on the wire
    keepalive: bool  # K: numbered one below the next
    again: bool  # *: a retransmission is asked for
    captured: bool  # whether the capture sees it
    received: bool  # whether its receiver gets it


class ScriptSegment(NamedTuple):
    """A segment on its way. Numbers begin at the initial ones and do not wrap."""

    word: Word
    seq: int
    ack: int  # 0 without the flag
    flags: int
    length: int  # bytes of data
    tsval: int | None  # in ms; None without timestamps
    tsecr: int | None
    sacked: int = 0  # how far beyond `ack` it reports data
    twice: tuple[int, int] = (0, 0)  # what it reports to have come twice; the same number twice for nothing

    @property
    def end(self) -> int:
        """The number after it; SYN and FIN take one each."""
        return self.seq + self.length + bool(self.flags & SYN) + bool(self.flags & FIN)

    @property
    def kind(self) -> int:
        """Its SYN, FIN and RST bits: what makes two segments transmissions of one."""
        return self.flags & (SYN | FIN | RST)


@dataclass(slots=True)
class Talker:
    """One endpoint: what it has sent and received."""

    next: int  # number of the next new byte
    expected: int  # number of the next byte from the peer
    acked: int  # by the peer, as far as this endpoint has received
    sent: list[ScriptSegment] = field(default_factory=list)  # all of it, in order of time
    early: list[ScriptSegment] = field(default_factory=list)  # received, behind a hole
    last: ScriptSegment | None = None  # received last
    recent: int = 0  # timestamp to echo (RFC 7323 4.3)
    twice: tuple[int, int] | None = None  # what came twice, and is to be reported to the peer

    def receive(self, segment: ScriptSegment) -> None:
        """Take in a segment of the peer, as a receiver that keeps what comes behind a hole."""
        self.last = segment
        if segment.flags & ACK:
            self.acked = max(self.acked, segment.ack)
        if segment.flags & RST:
            return
        if segment.seq < segment.end <= self.expected and not segment.flags & SYN:
            self.twice = segment.seq, segment.end
        if segment.tsval is not None and segment.seq <= self.expected:
            self.recent = max(self.recent, segment.tsval)
        self.early.append(segment)
        for waiting in sorted(self.early, key=lambda one: one.seq):
            if waiting.seq <= self.expected:
                self.expected = max(self.expected, waiting.end)
                self.early.remove(waiting)


class Script:
    """Plays a script, and keeps the segments that its capture sees as rows.

    Args:
        numbers: the initial sequence numbers of client and server.
        start_ns: time of the first segment, since the Unix epoch.
        gap_ns: time between two segments.
        timestamps: whether segments carry the timestamps option.
        system: whose packets both endpoints send; a key of `SYSTEMS`.
    """

    def __init__(
        self, numbers: tuple[int, int], start_ns: int, gap_ns: int, *, timestamps: bool, system: str
    ) -> None:
        self._system = SYSTEMS[system]
        self._numbers = numbers
        self._start_ns = self._time_ns = start_ns
        self._gap_ns = gap_ns
        self._timestamps = timestamps
        self._talkers = self._new_talkers(numbers)
        self._packets = [0, 0]
        self.rows: list[dict[str, int]] = []

    @staticmethod
    def _new_talkers(numbers: tuple[int, int]) -> tuple[Talker, Talker]:
        client, server = numbers
        return Talker(client, server, client), Talker(server, client, server)

    def play(self, script: str) -> None:
        """Play all words of a script, after those played before.

        Raises:
            ScriptError: a word is none, or no segment can do what it asks for.
        """
        for words in script.split():
            pause = PAUSE.fullmatch(words)
            if pause:
                unit = 1_000_000 if pause["unit"] == "ms" else 1_000_000_000
                self._time_ns += round(float(pause["number"]) * unit)
            elif words == "~":
                self.play(self._traffic())
            else:
                self._cross([read(word, words) for word in words.split("|")])

    def _traffic(self) -> str:
        """Return the words for a little traffic: data of the endpoints that may still send some."""
        client, server = (any(one.flags & FIN for one in talker.sent) for talker in self._talkers)
        if client and server:
            raise ScriptError("~: both endpoints have sent FIN, so there can be no data")
        return TRAFFIC[client, server]

    def _cross(self, words: list[Word]) -> None:
        """Send these segments, then let them arrive."""
        flying = []
        for word in words:
            segment = self._send(word)
            self._talkers[word.end].sent.append(segment)
            flying.append(segment)
            if word.captured:
                self._capture(segment)
            self._packets[word.end] += 1
            self._time_ns += self._gap_ns
        for segment in flying:
            if segment.word.received:
                self._talkers[1 - segment.word.end].receive(segment)

    def _send(self, word: Word) -> ScriptSegment:
        """Return the segment that a stack would send, and count it as sent."""
        own = self._talkers[word.end]
        if word.flags & (SYN | ACK) == SYN and not word.again and any(one.flags & SYN for one in own.sent):
            client, server = self._numbers
            self._numbers = (client + NEXT_CONNECTION, server + NEXT_CONNECTION)
            self._talkers = self._new_talkers(self._numbers)
            own = self._talkers[word.end]
        elif not word.flags & SYN and not own.sent and not (word.flags & RST and own.last):
            self._begin_in_the_middle(word.end)
        length = word.length or 0
        once = word.flags & (SYN | FIN)
        if word.again or (once and any(one.flags & once == once for one in own.sent)):
            return self._send_again(word, own)
        if word.flags & RST:
            return self._reset(word, own)
        if (length or once) and any(one.flags & FIN for one in own.sent):
            raise ScriptError(f"{word.text}: this endpoint has sent its FIN, and nothing new can follow that")
        segment = self._segment(word, own, own.next - word.keepalive, length)
        own.next = max(own.next, segment.end)
        return segment

    def _begin_in_the_middle(self, end: int) -> None:
        """Let the numbers of an endpoint that sends no SYN begin after it."""
        own, peer = self._talkers[end], self._talkers[1 - end]
        if own.next == self._numbers[end]:
            own.next = own.acked = peer.expected = own.next + 1
        if not peer.sent:
            self._talkers[end].expected = self._numbers[1 - end] + 1

    def _send_again(self, word: Word, own: Talker) -> ScriptSegment:
        """Return a retransmission, with the newest acknowledgement and time."""
        kind = word.flags & (SYN | FIN | RST)
        old = [one for one in own.sent if one.kind == kind and (kind or one.length)]
        if word.length is not None:
            old = [one for one in old if one.length == word.length]
        if not old:
            raise ScriptError(f"{word.text}: this endpoint has sent nothing of this kind to retransmit")
        open_ = [one for one in old if one.end > own.acked]
        again = open_[0] if open_ else old[-1]
        return self._segment(word, own, again.seq, again.length)

    def _reset(self, word: Word, own: Talker) -> ScriptSegment:
        """Return a RST, numbered as RFC 9293 3.10.7 says."""
        length, answered = word.length or 0, own.last
        if answered is None or (word.flags & ACK and own.sent):
            return self._segment(word, own, own.next, length)  # an abort
        if answered.flags & ACK:
            seq = answered.ack
        elif word.flags & ACK:
            seq = 0  # as on the wire
        else:
            seq = own.next
        return self._segment(word, own, seq, length)._replace(tsval=None, tsecr=None)

    def _segment(self, word: Word, own: Talker, seq: int, length: int) -> ScriptSegment:
        elapsed = (self._time_ns - self._start_ns) // 1_000_000
        stamped = self._timestamps
        twice = own.twice if self._system.dsack and word.flags & (SYN | RST | ACK) == ACK else None
        if twice is not None:
            own.twice = None
        return ScriptSegment(
            word=word,
            seq=seq,
            ack=own.expected if word.flags & ACK else 0,
            flags=word.flags,
            length=length,
            tsval=TIMESTAMPS[word.end] + elapsed if stamped else None,
            tsecr=own.recent if stamped else None,
            sacked=max((one.end for one in own.early), default=own.expected) - own.expected,
            twice=twice or (0, 0),
        )

    def _capture(self, segment: ScriptSegment) -> None:
        end = segment.word.end
        stamped = segment.tsval is not None
        options = self._system.options_with_timestamps if stamped else self._system.options
        self.rows.append(
            {
                "number": len(self.rows) + 1,
                "time_ns": self._time_ns,
                "version": 4,
                "src_high": 0,
                "src_low": ADDRESSES[end],
                "dst_high": 0,
                "dst_low": ADDRESSES[1 - end],
                "src_port": PORTS[end],
                "dst_port": PORTS[1 - end],
                "seq": segment.seq % MODULUS,
                "ack": segment.ack % MODULUS,
                "flags": segment.flags,
                "window": 0 if segment.flags & (RST | ACK) == RST else segment.word.window,
                "length": segment.length,
                "ttl": self._system.ttl,
                "ip_id": self._packets[end] % 65535 + 1 if self._system.counts else 0,
                "has_timestamps": stamped,
                "tsval": (segment.tsval or 0) % MODULUS,
                "tsecr": (segment.tsecr or 0) % MODULUS,
                "dsack_left": segment.twice[0] % MODULUS,
                "dsack_right": segment.twice[1] % MODULUS,
                "sacked": segment.sacked,
                "syn_options": options if segment.flags & SYN else 0,
                "vlan": 0,
                "place": 0,
            }
        )


def read(text: str, words: str) -> Word:
    """Read one word of a script.

    Args:
        text: one segment, such as C:FA.
        words: what it was written in, which may be several that cross (C:FA|S:FA); named in the error.

    Raises:
        ScriptError: it is no word, or its letters, sizes or marks contradict each other.
    """
    match = WORD.fullmatch(text)
    if match is None:
        where = f"{text!r} in {words!r}" if text != words else repr(text)
        raise ScriptError(f"{where}: not a word such as C:FA, S:A+100, C:FA|S:FA, ~ or +2.5s")
    letters = match["letters"]
    keepalive = letters == "K"
    if "K" in letters and not keepalive:
        raise ScriptError(f"{text}: K is a keepalive and stands alone")
    marks = match["before"] + match["after"]
    length, window = match["length"], match["window"] or str(WINDOW)
    if len(window) > len(str(WINDOW)) or int(window) > WINDOW:
        raise ScriptError(f"{text}: a window is at most {WINDOW}")
    if length and (len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES):
        raise ScriptError(f"{text}: a segment has at most {MOST_BYTES} bytes here")
    lost = "!" in marks or "?" in marks
    if match["missed"] and lost:
        raise ScriptError(f"{text}: what was lost cannot be received, as the brackets say")
    return Word(
        text=text,
        end="CS".index(match["end"]),
        flags=ACK if keepalive else from_letters(letters),
        length=int(length) if length else None,
        window=int(window),
        keepalive=keepalive,
        again="*" in marks,
        captured="?" not in marks and not match["missed"],
        received=not lost,
    )


class Options(TypedDict, total=False):
    """The other arguments of `segments`, for functions that pass them on."""

    numbers: tuple[int, int]  # the initial sequence numbers of client and server, 0 to 2**32 - 1
    start_ns: int  # time of the first segment, since the Unix epoch
    gap_ns: int  # time between two segments
    timestamps: bool  # with the timestamps option (RFC 7323), in milliseconds
    system: str  # of both endpoints: linux, windows, macos or bsd


def segments(
    script: str,
    *,
    numbers: tuple[int, int] = NUMBERS,
    start_ns: int = START_NS,
    gap_ns: int = GAP_NS,
    timestamps: bool = False,
    system: str = "linux",
) -> Segments:
    """Return the segments that a capture of this script holds.

    Args:
        script: the module's docstring explains the language.
        numbers: the initial sequence numbers of client and server, 0 to 2**32 - 1.
        start_ns: time of the first segment, in nanoseconds since the Unix epoch.
        gap_ns: time between two segments, in nanoseconds.
        timestamps: with the timestamps option (RFC 7323), in milliseconds.
        system: whose packets both endpoints send: linux, windows, macos or bsd.

    Raises:
        ScriptError: a word is none, or no segment can do what it asks for; its text names the word.
        KeyError: the system is not known.
    """
    played = Script(numbers, start_ns, gap_ns, timestamps=timestamps, system=system)
    played.play(script)
    columns: list[Any] = [np.array([row[name] for row in played.rows], DTYPES[name]) for name in COLUMNS]
    return Segments(*columns)


def conversations(script: str, **options: Unpack[Options]) -> list[Conversation]:
    """Return every connection of this script, the earliest first.

    Args:
        script: as for `segments`.
        options: the other arguments of `segments`.

    Raises:
        ScriptError: as `segments`.
        KeyError: as `segments`.
    """
    found = Connections()
    found.feed(segments(script, **options))
    return list(found.conversations(np.arange(len(found))))


def conversation(script: str, **options: Unpack[Options]) -> Conversation:
    """Return the first connection of this script.

    Args:
        script: as for `segments`.
        options: the other arguments of `segments`.

    Raises:
        ScriptError: a word is none, or no segment can do what it asks for, or nothing at all was captured.
        KeyError: the system is not known.
    """
    found = conversations(script, **options)
    if not found:
        raise ScriptError(f"{script!r}: no segment of it was captured")
    return found[0]
