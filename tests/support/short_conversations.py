"""Short conversations of two ends, likely or not: written down, enumerated, sampled, and as columns.

One word a segment: sender, flags, sequence number and acknowledgement, as distances from the initial numbers;
P carries data. Words before it say what timestamps it has, and how far apart its segments are: stamps=fresh
echoes what the other end sent last, stamps=stale what it sent first.

    stamps=fresh gap=250ms C:FA@1,1 S:FA@1,2 C:A@2,2

`closeseq.script` writes what a stack would send; these have whatever numbers they are given.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from itertools import combinations, product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq import Connection, Settings
from closeseq.connections import Connections
from closeseq.packets.segments import ACK, COLUMNS, DTYPES, FIN, SYN, Segments, from_letters, letters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from closeseq.connections.conversation import Conversation

KINDS = tuple(from_letters(text) for text in ("S", "SA", "A", "FA", "F", "R", "RA", "PA"))
DATA = from_letters("P")  # a segment with it carries this many bytes:
BYTES = 2
ODD = (-1, 1, 2)  # how far a number may lie from the one that a stack would send
STAMPS = ("none", "fresh", "stale")
GAPS_NS = {"1ms": 10**6, "250ms": 250 * 10**6, "70s": 70 * 10**9}
START_NS = 1_700_000_000_000_000_000
INITIAL = (2**32 - 2, 2**32 - 4)  # of both ends: they wrap within the first bytes
CLOCKS = (1_000_000, 5_000_000)  # the ends' timestamp clocks at the start, in milliseconds
CLIENT_NETWORK, SERVER = 0x0A000000, 0xC0000201  # 10.0.0.0 and 192.0.2.1
PORTS = (40000, 80)
RING = 2**32

Simplicity = tuple[int, int, str]


class Word(NamedTuple):
    """One segment."""

    sender: int  # 0 the client, 1 the server, as far as ports tell
    flags: int
    seq: int  # from the sender's initial number
    ack: int  # from the other end's initial number; of no meaning without the flag

    def __str__(self) -> str:
        numbers = f"{self.seq},{self.ack}" if self.flags & ACK else f"{self.seq}"
        return f"{'CS'[self.sender]}:{letters(self.flags)}@{numbers}"

    @property
    def length(self) -> int:
        return BYTES if self.flags & DATA else 0

    @property
    def end(self) -> int:
        return self.seq + self.length + bool(self.flags & SYN) + bool(self.flags & FIN)


class Told(NamedTuple):
    """One conversation."""

    words: tuple[Word, ...]
    stamps: str = "none"
    gap: str = "1ms"

    def __str__(self) -> str:
        before = [f"stamps={self.stamps}"] if self.stamps != "none" else []
        before += [f"gap={self.gap}"] if self.gap != "1ms" else []
        return " ".join([*before, *map(str, self.words)])

    @property
    def ended_ns(self) -> int:
        """The time of the last segment, in nanoseconds since the Unix epoch."""
        return START_NS + (len(self.words) - 1) * GAPS_NS[self.gap]

    @property
    def simplicity(self) -> Simplicity:
        """What comes first is easier to understand."""
        return len(self.words), STAMPS.index(self.stamps) + list(GAPS_NS).index(self.gap), str(self)


def read(text: str) -> Told:
    """Read a conversation as it is written."""
    words, options = [], {}
    for word in text.split():
        name, is_option, value = word.partition("=")
        if is_option:
            options[name] = value
            continue
        sender, _, rest = word.partition(":")
        flags, _, numbers = rest.partition("@")
        seq, _, ack = numbers.partition(",")
        words.append(Word("CS".index(sender), from_letters(flags), int(seq), int(ack or 0)))
    return Told(tuple(words), **options)


Segment = tuple[int, int, int, int]  # sender, flags, and how far both numbers are from the expected ones


def numbered(segments: Iterable[Segment]) -> tuple[Word, ...]:
    """Give segments their numbers: what a stack would send that received everything, and the given distance.

    An end begins at its initial number with a SYN, and otherwise one later, as if it had sent it before.
    """
    following: list[int | None] = [None, None]
    words = []
    for sender, flags, from_seq, from_ack in segments:
        own, peer = following[sender], following[1 - sender]
        if own is None:
            own = 0 if flags & SYN else 1
        word = Word(sender, flags, own + from_seq, (1 if peer is None else peer) + from_ack)
        following[sender] = max(own, word.end)
        words.append(word)
    return tuple(words)


def everything(longest: int, odd: int) -> Iterator[Told]:
    """Yield all conversations of up to so many segments with up to so many odd numbers, short ones first."""
    for length in range(1, longest + 1):
        for odd_numbers in range(min(odd, 2 * length) + 1):
            for kinds in product(product((0, 1), KINDS), repeat=length):
                if kinds[0][0]:
                    continue  # which end is called the client is no matter: the other way round is the same
                numbers = [(place, what) for place in range(length) for what in _numbers(kinds[place][1])]
                for which in combinations(numbers, odd_numbers):
                    for distances in product(ODD, repeat=odd_numbers):
                        off = dict(zip(which, distances, strict=True))
                        words = numbered(
                            (sender, flags, off.get((place, 0), 0), off.get((place, 1), 0))
                            for place, (sender, flags) in enumerate(kinds)
                        )
                        yield from (Told(words, stamps) for stamps in STAMPS)


def _numbers(flags: int) -> tuple[int, ...]:
    """Return which numbers a segment has: 0 for its own, 1 for its acknowledgement."""
    return (0, 1) if flags & ACK else (0,)


def sample(longest: int, size: int, seed: int) -> Iterator[Told]:
    """Yield so many of them at random: long ones are more likely, and so are expected numbers."""
    chance = random.Random(seed)

    def distance() -> int:
        return chance.choice(ODD) if chance.random() < 0.25 else 0

    for _ in range(size):
        length = min(longest, chance.choice((1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5)))
        segments = [
            (chance.randrange(2), chance.choice(KINDS), distance(), distance()) for _ in range(length)
        ]
        yield Told(numbered(segments), chance.choice(STAMPS), chance.choice(list(GAPS_NS)))


def columns(told: list[Told]) -> Segments:
    """Return the segments of several conversations; the clients' addresses are their places in the list."""
    rows: list[tuple[int, ...]] = []
    for place, one in enumerate(told):
        addresses = (CLIENT_NETWORK + place, SERVER)
        stamped = one.stamps != "none"
        gap_ns = GAPS_NS[one.gap]
        heard: list[list[int]] = [[], []]  # the timestamps that each end has received
        for order, word in enumerate(one.words):
            sender, time_ns = word.sender, order * gap_ns
            value = CLOCKS[sender] + time_ns // 10**6
            echo = 0
            if heard[sender]:
                echo = heard[sender][-1 if one.stamps == "fresh" else 0]
            heard[1 - sender].append(value)
            rows.append(
                (
                    *(len(rows) + 1, START_NS + time_ns, 4),
                    *(0, addresses[sender], 0, addresses[1 - sender], PORTS[sender], PORTS[1 - sender]),
                    *((INITIAL[sender] + word.seq) % RING, (INITIAL[1 - sender] + word.ack) % RING),
                    *(word.flags, 65535, word.length, 64, order + 1),
                    *(stamped, value if stamped else 0, echo if stamped else 0, 0, 0, 0, 0, 0, 0),
                )
            )
    return Segments(
        *(
            np.array(values, DTYPES[name])
            for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True)
        )
    )


def place(conversation: Conversation) -> int:
    """Return which of the conversations that were made columns of together this is."""
    for end in (conversation.client, conversation.server):
        number = int(IPv4Address(end.address))
        if number != SERVER:
            return number - CLIENT_NETWORK
    raise ValueError(f"{conversation.client} and {conversation.server} are none of ours")


def analysed(told: Told, after_ns: int) -> Iterator[Connection]:
    """Yield the connections of one conversation, as they are so long after its last segment."""
    connections = Connections()
    connections.feed(columns([told]))
    for index in range(len(connections)):
        yield Connection(connections.conversation(index), Settings(), told.ended_ns + after_ns)
