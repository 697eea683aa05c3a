"""The captures that benchmarks measure on: made anew each time, the same for the same seed.

They are for measuring time and memory. What is in them is plausible, not the product of real stacks, so they
say nothing about whether closeseq is right. All connections of a capture are made together, in columns: a
million packets take a few seconds.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = 0, 1
BEGIN_NS = 1_700_000_000 * 10**9
SNAPLEN = 100  # bytes of each frame that are captured: the longest headers have 98
WHOLE = 1600  # no frame is longer
MSS = 1448
OVERTAKEN = 0.003  # the share of segments
WRAP = 1 << 32
FILE_HEADER, WHOLE_HEADER = (
    struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, 1) for snaplen in (SNAPLEN, WHOLE)
)
EACH = 6000  # bytes; the frames of a varied connection have some more on the average
RECORD = struct.Struct("<IIII")

# What TCP options look like, by system: those of a SYN, and whether timestamps follow (RFC 7323).
TIMESTAMPS = bytes([8, 10, *bytes(8)])
SYN_OPTIONS = {
    "linux": b"\2\4\5\xb4\4\2" + TIMESTAMPS + b"\1\3\3\7",
    "windows": b"\2\4\5\xb4\1\3\3\x08\1\1\4\2",
    "apple": b"\2\4\5\xb4\1\3\3\6\1\1" + TIMESTAMPS + b"\4\2\0\0",
    "small": b"\2\4\5\xb4",  # an embedded system
}
STAMPED = {"linux": True, "windows": False, "apple": True, "small": False}
SYSTEMS = tuple(SYN_OPTIONS)
SACK = bytes([1, 1, 5, 10, *bytes(8)])  # with one block
# All options that a segment may have: none, timestamps, both with a SACK block, and those of the SYNs.
STAMP = b"\1\1" + TIMESTAMPS
OPTIONS = (b"", STAMP, SACK, STAMP + SACK, *SYN_OPTIONS.values())
PLAIN, WITH_STAMP, WITH_SACK, FIRST_SYN = 0, 1, 2, 4


@dataclass(frozen=True)
class Rows:
    """Segments, as columns of equal length."""

    connection: np.ndarray  # int64
    time_ns: np.ndarray  # int64, since the capture began
    sender: np.ndarray  # int64, CLIENT or SERVER
    flags: np.ndarray  # int64
    seq: np.ndarray  # int64
    ack: np.ndarray  # int64
    length: np.ndarray  # int64, bytes of payload
    sacked: np.ndarray  # int64, the left edge of a SACK block of MSS bytes; -1 without

    def take(self, rows: np.ndarray) -> Rows:
        """Return those that an index array or a mask selects."""
        return Rows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Hosts:
    """Who talks in each connection, and the habits of both ends' systems; an entry for client and server."""

    six: np.ndarray  # bool, IPv6
    address: tuple[np.ndarray, np.ndarray]  # uint32: all of an IPv4 address, the end of an IPv6 one
    port: tuple[np.ndarray, np.ndarray]
    system: tuple[np.ndarray, np.ndarray]  # index in SYSTEMS
    ttl: tuple[np.ndarray, np.ndarray]
    window: tuple[np.ndarray, np.ndarray]
    tick_ns: tuple[np.ndarray, np.ndarray]  # of the timestamp clock
    clock: tuple[np.ndarray, np.ndarray]  # its value when the capture began


class Conversations:
    """Connections that are made together, each at its own moment, with its own round trip.

    Every method takes the indices of the connections that do something now.
    """

    def __init__(self, chance: np.random.Generator, start: np.ndarray) -> None:
        number = len(start)
        self.chance = chance
        self.now = start.copy()  # seconds
        self.next = [chance.integers(0, WRAP, number) for _ in (CLIENT, SERVER)]
        self.got = [np.zeros(number, np.int64) for _ in (CLIENT, SERVER)]
        trip = np.clip(chance.lognormal(-3.9, 0.9, number), 0.001, 0.4)  # seconds, of the whole path
        self.trip = (trip * 0.05, trip * 0.95)  # from the capture point to the SERVER and back; to the CLIENT
        self._parts: list[Rows] = []

    def some(self, on: np.ndarray, share: float) -> np.ndarray:
        """Return about so many of these."""
        chosen: np.ndarray = on[self.chance.random(len(on)) < share]
        return chosen

    def wait(self, on: np.ndarray, seconds: np.ndarray | float) -> None:
        """Let time pass."""
        self.now[on] += seconds

    def think(self, on: np.ndarray, mean: float = 0.004) -> None:
        """Let a program take its time: so many seconds, on the average."""
        self.wait(on, self.chance.exponential(mean, len(on)))

    def answer(self, on: np.ndarray, by: int) -> None:
        """Have this end receive all that was sent, and wait until its answer to that is seen."""
        self.got[by][on] = self.next[1 - by][on]
        self.wait(on, (self.trip[SERVER - by][on]) * (1 + 0.05 * self.chance.random(len(on))))

    def send(
        self,
        on: np.ndarray,
        by: int,
        flags: int,
        length: np.ndarray | int = 0,
        *,
        seq: np.ndarray | None = None,
        later: np.ndarray | float = 0.0,
        sacked: np.ndarray | int = -1,
    ) -> np.ndarray:
        """Send a segment each: what comes next, or with `seq` something anew. Returns the numbers sent."""
        number = self.next[by][on] if seq is None else seq
        length = np.broadcast_to(np.asarray(length), on.shape)
        ack = self.got[by][on] if flags & ACK else np.zeros(len(on), np.int64)
        full = [np.full(len(on), value) for value in (by, flags)]
        time_ns = ((self.now[on] + later) * 1e9).astype(np.int64)
        sacks = np.broadcast_to(np.asarray(sacked), on.shape)
        self._parts.append(Rows(on, time_ns, *full, number % WRAP, ack, length, sacks))
        if seq is None:
            self.next[by][on] = (number + length + bool(flags & SYN) + bool(flags & FIN)) % WRAP
        return number

    def rows(self) -> Rows:
        """Return all segments, in no order."""
        names = Rows.__dataclass_fields__
        return Rows(*(np.concatenate([getattr(part, name) for part in self._parts]) for name in names))


# What connections do


def handshake(talk: Conversations, on: np.ndarray) -> None:
    """Open connections."""
    talk.send(on, CLIENT, SYN)
    talk.answer(on, SERVER)
    talk.send(on, SERVER, SYN | ACK)
    talk.answer(on, CLIENT)
    talk.send(on, CLIENT, ACK)


def requests(talk: Conversations, on: np.ndarray, loss: float) -> None:
    """Ask and answer one to four times; `loss` is the share of segments lost, if any then also the first."""
    many = np.minimum(4, 1 + talk.chance.exponential(0.8, len(on)).astype(np.int64))
    for one in range(int(many.max(initial=0))):
        asking = on[many > one]
        talk.think(talk.some(asking, 0.33))
        talk.send(asking, CLIENT, PSH | ACK, talk.chance.choice([80, 220, 517, 900, 1300], len(asking)))
        talk.answer(asking, SERVER)
        talk.send(talk.some(asking, 0.6), SERVER, ACK)
        talk.think(asking)
        left = np.clip(talk.chance.lognormal(7.6, 1.0, len(asking)), 12, 30_000).astype(np.int64)
        share = 1.0 if loss and not one else loss
        while len(asking):
            part = np.minimum(left, MSS)
            segment(talk, asking, part, share)
            share = loss
            going = left > part
            asking, left = asking[going], (left - part)[going]
        asking = on[many > one]
        talk.answer(asking, CLIENT)
        talk.send(asking, CLIENT, ACK)


def segment(talk: Conversations, on: np.ndarray, length: np.ndarray, loss: float) -> None:
    """Send data to the clients. Of some it is lost on the way, or overtaken by what follows."""
    late = np.where(talk.chance.random(len(on)) < OVERTAKEN, 3e-5, 0.0)
    number = talk.send(on, SERVER, PSH | ACK, length, later=late)
    lost = np.flatnonzero(talk.chance.random(len(on)) < loss)
    again, seq, part = on[lost], number[lost], length[lost]
    talk.got[CLIENT][again] = seq
    for copy in range(3):
        beyond = (seq + part) % WRAP
        talk.send(talk_about(again, copy), CLIENT, ACK, later=0.001 * copy, sacked=talk_about(beyond, copy))
    slow = talk.chance.random(len(again)) < 0.5  # noqa: PLR2004 - a time-out; else a fast retransmission
    talk.wait(again, talk.trip[1][again] + np.where(slow, 0.2, 0.002))
    talk.send(again, SERVER, PSH | ACK, part, seq=seq)
    talk.wait(on, 1.2e-5)


def talk_about(column: np.ndarray, copy: int) -> np.ndarray:
    """Return every one for the first duplicate ACK, every second one for the next, and so on."""
    return column[:: copy + 1]


def keepalives(talk: Conversations, on: np.ndarray) -> None:
    """Be idle for a while, with probes."""
    for by in (CLIENT, SERVER, CLIENT):
        talk.wait(on, 15 + talk.chance.random(len(on)))
        talk.send(on, by, ACK, seq=(talk.next[by][on] - 1) % WRAP)
        talk.wait(on, talk.trip[by][on])
        talk.send(on, 1 - by, ACK)
        on = talk.some(on, 0.5)


# How connections end; `first` is the end that begins with it


def four_segments(talk: Conversations, on: np.ndarray, first: int) -> None:
    """FIN, ACK, and a little or much later FIN, ACK; now and then the first FIN has to come again."""
    number = talk.send(on, first, FIN | ACK)
    again = talk.some(np.arange(len(on)), 0.02)
    talk.wait(on[again], 0.2 + 2 * talk.trip[first][on[again]])
    talk.send(on[again], first, FIN | ACK, seq=number[again])
    talk.answer(on, 1 - first)
    talk.send(on, 1 - first, ACK)
    talk.think(on)
    talk.think(talk.some(on, 0.3), 0.5)
    last(talk, on, first)


def three_segments(talk: Conversations, on: np.ndarray, first: int) -> None:
    """FIN, FIN with the ACK, ACK."""
    talk.send(on, first, FIN | ACK)
    talk.answer(on, 1 - first)
    last(talk, on, first)


def last(talk: Conversations, on: np.ndarray, first: int) -> None:
    """The other end's FIN, and the final ACK, which is lost now and then."""
    number = talk.send(on, 1 - first, FIN | ACK)
    talk.answer(on, first)
    talk.send(on, first, ACK)
    again = talk.some(np.arange(len(on)), 0.015)
    talk.wait(on[again], 0.2 + 2 * talk.trip[first][on[again]])
    talk.send(on[again], 1 - first, FIN | ACK, seq=number[again])
    talk.answer(on[again], first)
    talk.send(on[again], first, ACK)


def simultaneous(talk: Conversations, on: np.ndarray, first: int) -> None:
    """Both FINs cross."""
    talk.send(on, first, FIN | ACK)
    talk.send(on, 1 - first, FIN | ACK, later=talk.trip[1 - first][on] / 2)
    talk.answer(on, CLIENT)
    talk.send(on, CLIENT, ACK)
    talk.answer(on, SERVER)
    talk.send(on, SERVER, ACK)


def half_closed(talk: Conversations, on: np.ndarray, first: int) -> None:
    """One end closes, and the other sends for a while before it does."""
    talk.send(on, first, FIN | ACK)
    talk.answer(on, 1 - first)
    for _ in range(3):
        talk.think(on, 0.1)
        talk.send(on, 1 - first, PSH | ACK, talk.chance.integers(1, MSS, len(on)))
        talk.answer(on, first)
        talk.send(on, first, ACK)
    last(talk, on, first)


def stuck(talk: Conversations, on: np.ndarray, first: int) -> None:
    """One end closes, the other never does."""
    talk.send(on, first, FIN | ACK)
    talk.answer(on, 1 - first)
    talk.send(on, 1 - first, ACK)


def aborted(talk: Conversations, on: np.ndarray, first: int) -> None:
    """RST out of the blue."""
    talk.send(on, first, RST | ACK)


def reset_answers_fin(talk: Conversations, on: np.ndarray, first: int) -> None:
    """FIN, and RST for it."""
    talk.send(on, first, FIN | ACK)
    talk.answer(on, 1 - first)
    talk.send(on, 1 - first, RST | ACK)


def reset_answers_data(talk: Conversations, on: np.ndarray, first: int) -> None:
    """FIN, and RST for what still comes: with the number that was expected."""
    talk.send(on, first, FIN | ACK)
    talk.send(on, 1 - first, PSH | ACK, talk.chance.integers(1, 400, len(on)))
    talk.wait(on, talk.trip[1 - first][on])
    talk.send(on, first, RST, seq=talk.got[1 - first][on])


def open_still(talk: Conversations, on: np.ndarray, first: int) -> None:
    """Nobody closes while the capture lasts."""


def refused(talk: Conversations, on: np.ndarray) -> None:
    """Nobody listens."""
    talk.send(on, CLIENT, SYN)
    talk.answer(on, SERVER)
    talk.send(on, SERVER, RST | ACK)


def unanswered(talk: Conversations, on: np.ndarray) -> None:
    """Nobody is there; the SYN comes again."""
    number = talk.send(on, CLIENT, SYN)
    for wait in (1.0, 3.0):
        again = talk.some(np.arange(len(on)), 0.6)
        talk.send(on[again], CLIENT, SYN, seq=number[again], later=wait)


ENDS: tuple[tuple[Callable[[Conversations, np.ndarray, int], None], float], ...] = (
    (four_segments, 0.40),
    (three_segments, 0.28),
    (simultaneous, 0.02),
    (half_closed, 0.03),
    (stuck, 0.05),
    (aborted, 0.08),
    (reset_answers_fin, 0.04),
    (reset_answers_data, 0.04),
    (open_still, 0.06),
)


def converse(talk: Conversations, on: np.ndarray, loss: np.ndarray) -> None:
    """Take connections through their lives; `loss` is the share of segments lost, of each."""
    handshake(talk, on)
    for share in np.unique(loss):
        requests(talk, on[loss == share], float(share))
    keepalives(talk, talk.some(on, 0.05))
    talk.think(talk.some(on, 0.33), 2.0)
    shares = np.array([share for _, share in ENDS])
    end = talk.chance.choice(len(ENDS), len(on), p=shares / shares.sum())
    first = np.where(talk.chance.random(len(on)) < 0.55, CLIENT, SERVER)  # noqa: PLR2004
    for number, (finish, _) in enumerate(ENDS):
        for by in (CLIENT, SERVER):
            finish(talk, on[(end == number) & (first == by)], by)


# The captures


def varied(path: Path, connections: int, seed: int, *, losing: float = 0.08, loss: float = 0.05) -> int:
    """Write connections as unlike each other as those of a busy server; return how many packets that is.

    Args:
        path: where.
        connections: how many.
        seed: of chance.
        losing: the share of connections that lose segments.
        loss: the share of segments that they lose, at least one each.
    """
    return write(path, *unlike(connections, seed, losing, loss))


def unlike(connections: int, seed: int, losing: float, loss: float, rate: float = 3000) -> tuple[Rows, Hosts]:
    """Return connections as unlike each other as those of a busy server, and who talks in them.

    Args:
        connections: how many.
        seed: of chance.
        losing: the share of connections that lose segments.
        loss: the share of segments that they lose, at least one each.
        rate: how many begin in a second.
    """
    chance = np.random.default_rng(seed)
    start = np.sort(chance.random(connections)) * max(10.0, connections / rate)
    talk = Conversations(chance, start)
    every = np.arange(connections)
    fate = chance.random(connections)
    refused(talk, every[fate < 0.02])  # noqa: PLR2004
    unanswered(talk, every[(fate >= 0.02) & (fate < 0.03)])  # noqa: PLR2004
    on = every[fate >= 0.03]  # noqa: PLR2004
    converse(talk, on, np.where(chance.random(len(on)) < losing, loss, 0.0))
    rows, hosts = talk.rows(), strangers(chance, connections)
    cut = every[chance.random(connections) < 0.02]  # noqa: PLR2004 - the capture began in their midst
    begins = np.zeros(connections, np.int64)
    begins[cut] = ((start[cut] + 3 * talk.trip[1][cut]) * 1e9).astype(np.int64)
    rows = rows.take(rows.time_ns >= begins[rows.connection])
    return reused(chance, rows, hosts), hosts


def reused(chance: np.random.Generator, rows: Rows, hosts: Hosts) -> Rows:
    """Give some connections the addresses and ports of the one before, and have them begin after its end."""
    number = len(hosts.six)
    ends = np.zeros(number, np.int64)
    begins = np.full(number, np.iinfo(np.int64).max)
    np.maximum.at(ends, rows.connection, rows.time_ns)
    np.minimum.at(begins, rows.connection, rows.time_ns)
    again = np.arange(1, number, 2)[chance.random(number // 2) < 0.04]  # noqa: PLR2004
    again = again[(ends[again] > 0) & (ends[again - 1] > 0)]
    for column in (*hosts.address, *hosts.port, *hosts.system):
        column[again] = column[again - 1]
    hosts.six[again] = hosts.six[again - 1]
    shift = np.zeros(number, np.int64)
    gap = (chance.random(len(again)) * 90e9).astype(np.int64)
    shift[again] = ends[again - 1] + gap - begins[again]
    columns = {name: getattr(rows, name) for name in Rows.__dataclass_fields__}
    return Rows(**columns | {"time_ns": rows.time_ns + shift[rows.connection]})


def lossy(path: Path, connections: int, seed: int) -> int:
    """Write connections that all lose some of what they send."""
    return varied(path, connections, seed, losing=1.0, loss=0.2)


def bulk(path: Path, connections: int, seed: int) -> int:
    """Write twenty long downloads: ten packets for each of the `connections` of other captures."""
    chance = np.random.default_rng(seed)
    number = 20
    talk, on = Conversations(chance, chance.random(number)), np.arange(number)
    handshake(talk, on)
    talk.send(on, CLIENT, PSH | ACK, 100)
    talk.answer(on, SERVER)
    for _ in range(max(connections * 10 // (number * 3), 1)):
        talk.send(on, SERVER, ACK, MSS)
        talk.wait(on, 1e-5)
        talk.send(on, SERVER, ACK, MSS)
        talk.got[CLIENT][on] = talk.next[SERVER][on]
        talk.send(on, CLIENT, ACK, later=5e-6)
        talk.wait(on, 1e-4 * chance.random(number))
    three_segments(talk, on, SERVER)
    return write(path, talk.rows(), strangers(chance, number))


def scan(path: Path, connections: int, seed: int) -> int:
    """Write SYNs to all ports of many hosts, ten for each of the `connections` of other captures."""
    chance = np.random.default_rng(seed)
    number = connections * 10
    talk, every = Conversations(chance, np.arange(number) * 1e-5), np.arange(number)
    talk.send(every, CLIENT, SYN)
    hosts = strangers(chance, number)
    hosts.address[CLIENT][:] = 0x0A000001
    hosts.address[SERVER][:] = 0x0A010000 + every // 60_000
    hosts.port[SERVER][:] = 1 + every % 60_000
    hosts.port[CLIENT][:] = 40_000
    hosts.six[:] = False
    return write(path, talk.rows(), hosts)


# Which of the lab's captures `alike` repeats, in percent: mostly plain closes, some of each kind that needs
# more thought.
MIX = {
    "client-closes": 50,
    "server-closes": 30,
    "three-segment-close": 10,
    "linger-zero": 4,
    "refused": 3,
    "slow-close": 2,
    "fin-lost": 1,
}
APART_NS = 30_000  # one connection begins so long after another


def alike(path: Path, connections: int, seed: int) -> int:
    """Write real connections of the lab over and over, each with another client and a little later."""
    pattern = [name for name, share in MIX.items() for _ in range(share)]
    random.Random(seed).shuffle(pattern)
    kinds = {name: recorded(name) for name in MIX}
    packets = []
    for number in range(connections):
        client = struct.pack(">BBH", 10, 0, number // 50_000)
        port = struct.pack(">H", 10_000 + number % 50_000)
        for after_ns, wire, frame in kinds[pattern[number % len(pattern)]]:
            packets.append((number * APART_NS + after_ns, wire, rewritten(frame, client, port)))
    packets.sort(key=lambda packet: packet[0])
    with path.open("wb") as file:
        file.write(FILE_HEADER)
        for time_ns, wire, frame in packets:
            seconds, nanoseconds = divmod(BEGIN_NS + time_ns, 10**9)
            file.write(RECORD.pack(seconds, nanoseconds, len(frame), wire) + frame)
    return len(packets)


def recorded(name: str) -> list[tuple[int, int, bytes]]:
    """Return time since the first, wire length and bytes of each frame of one of the lab's captures."""
    data = (ROOT / "captures" / f"{name}.pcap").read_bytes()
    at, found, first = len(FILE_HEADER), [], None
    while at < len(data):
        seconds, nanoseconds, captured, wire = RECORD.unpack_from(data, at)
        time_ns = seconds * 10**9 + nanoseconds
        first = time_ns if first is None else first
        found.append((time_ns - first, wire, data[at + RECORD.size : at + RECORD.size + captured]))
        at += RECORD.size + captured
    return found


def rewritten(frame: bytes, client: bytes, port: bytes) -> bytes:
    """Return an Ethernet frame with another client; the servers of the captures have ports below 30000."""
    tcp = 14 + (frame[14] & 15) * 4
    source = int.from_bytes(frame[tcp : tcp + 2], "big") > int.from_bytes(frame[tcp + 2 : tcp + 4], "big")
    if source:
        return frame[:26] + client + frame[30:tcp] + port + frame[tcp + 2 :]
    return frame[:30] + client + frame[34 : tcp + 2] + port + frame[tcp + 4 :]


CAPTURES = {"alike": alike, "varied": varied, "lossy": lossy, "bulk": bulk, "scan": scan}


def strangers(chance: np.random.Generator, number: int) -> Hosts:
    """Return who talks: thousands of clients with systems of all kinds, forty servers."""
    which = chance.integers(0, 40, number)
    server_port = chance.choice([80, 443, 443, 5432, 6379, 8080, 9092], 40)[which]
    client = 0x0A000000 + chance.integers(0, 5000, number)
    # With a port of its own for each of its connections, so that none is reused by chance.
    port = 1024 + np.arange(number) * 7 % 64_000
    client_system = chance.choice(len(SYSTEMS), number, p=[0.5, 0.25, 0.2, 0.05])
    initial = np.array([64, 128, 64, 255])[client_system]
    return Hosts(
        six=chance.random(number) < 0.15,  # noqa: PLR2004
        address=(client + 5000 * (np.arange(number) // 64_000), 0xC0A80A00 + which),
        port=(port, server_port),
        system=(client_system, np.zeros(number, np.int64)),
        ttl=(initial - chance.integers(3, 20, number), np.full(number, 64)),
        window=(chance.choice([502, 512, 1024, 4096, 65535], number), np.full(number, 509)),
        tick_ns=(chance.choice([10**6, 10**6, 4 * 10**6, 10**7], number), np.full(number, 10**6)),
        clock=(chance.integers(0, WRAP, number), chance.integers(0, WRAP, number)),
    )


# Bytes


def write(path: Path, rows: Rows, hosts: Hosts) -> int:
    """Write a nanosecond pcap with these segments, in the order of their times; return how many."""
    with path.open("wb") as file:
        file.write(FILE_HEADER)
        for packed, _ in stretches(rows, hosts, SNAPLEN):
            file.write(packed)
    return len(rows.time_ns)


def ring(folder: Path, files: int, size: int, seed: int, rate: float) -> int:
    """Write varied connections as files that follow one another; return how many packets that is.

    Frames are captured whole. The last file ends in the midst of connections, as files do.

    Args:
        folder: where; the names of files tell their order.
        files: how many.
        size: bytes of each.
        seed: of chance.
        rate: how many connections begin in a second.
    """
    rows, hosts = unlike(int(files * size / EACH) + 100, seed, 0.08, 0.05, rate)
    packets, made, room = 0, 0, 0
    path = folder
    for packed, lengths in stretches(rows, hosts, WHOLE):
        ends = np.cumsum(lengths)
        at, begin = 0, 0
        while at < len(ends):
            if not room:
                if made == files:
                    return packets
                made += 1
                room, path = size - len(WHOLE_HEADER), folder / f"ring-{made:05}.pcap"
                path.write_bytes(WHOLE_HEADER)
            until = min(int(np.searchsorted(ends, begin + room, "right")), len(ends))
            end = int(ends[until - 1]) if until > at else begin
            with path.open("ab") as file:
                file.write(packed[begin:end])
            packets += until - at
            room = room - (end - begin) if until == len(ends) else 0
            at, begin = until, end
    raise AssertionError(f"{len(rows.seq)} packets do not fill {files} files")


def stretches(rows: Rows, hosts: Hosts, snaplen: int) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield records of a nanosecond pcap in the order of their times, thousands at once, and their lengths.

    Args:
        rows: all segments, in any order.
        hosts: who sends them.
        snaplen: bytes of each frame that are captured.
    """
    rows = rows.take(np.argsort(rows.time_ns, kind="stable"))
    stamps, echoes = timestamps(rows, hosts)
    identification = identifications(rows)
    most = (1 << 23) // snaplen
    for begin in range(0, len(rows.time_ns), most):
        part = np.arange(begin, min(begin + most, len(rows.time_ns)))
        times = stamps[part], echoes[part]
        yield frames(rows.take(part), hosts, times, identification[part], snaplen)


def identifications(rows: Rows) -> np.ndarray:
    """Return the IPv4 identification of each: a sender counts on, and leaves it 0 with a SYN that answers."""
    ids = (rows.connection * 40_503 + rows.sender * 977 + np.arange(len(rows.seq))) % 65_535 + 1
    answers = rows.flags & (SYN | ACK) == SYN | ACK
    return np.where(answers, 0, ids)


def timestamps(rows: Rows, hosts: Hosts) -> tuple[np.ndarray, np.ndarray]:
    """Return of each segment its timestamp, and that of the other end that it echoes: the latest one seen."""
    stamps = np.zeros(len(rows.seq), np.int64)
    for end in (CLIENT, SERVER):
        own = rows.sender == end
        which = rows.connection[own]
        ticks = rows.time_ns[own] // hosts.tick_ns[end][which]
        stamps[own] = (hosts.clock[end][which] + ticks) % WRAP
    order = np.argsort(rows.connection, kind="stable")
    sender, place = rows.sender[order], np.arange(len(order))
    new = np.diff(rows.connection[order], prepend=-1) != 0
    begins = np.maximum.accumulate(np.where(new, place, 0))
    echoes = np.zeros(len(order), np.int64)
    for end in (CLIENT, SERVER):
        latest = np.maximum.accumulate(np.where(sender == 1 - end, place, -1))
        known = (sender == end) & (latest >= begins)
        echoes[order[known]] = stamps[order[latest[known]]]
    return stamps, echoes


@dataclass(frozen=True)
class Layout:
    """Records of one layout, and the rows of the room that they are to be written into."""

    room: np.ndarray  # uint8, a record a row
    group: np.ndarray  # int64, which rows
    rows: Rows
    hosts: Hosts
    options: bytes

    def put(self, at: int, values: np.ndarray | int, form: str) -> None:
        """Write a number into each record."""
        column = np.broadcast_to(np.asarray(values), self.group.shape).astype(form)
        width = column.dtype.itemsize
        self.room[self.group, at : at + width] = column.view(np.uint8).reshape(-1, width)

    def of(self, pair: tuple[np.ndarray, np.ndarray], *, other: bool = False) -> np.ndarray:
        """Return what is true of each segment's sender, or of the other end."""
        connection = self.rows.connection
        return np.where(
            (self.rows.sender == CLIENT) ^ other, pair[CLIENT][connection], pair[SERVER][connection]
        )

    def fill(self, stamps: np.ndarray, echoes: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Write all; return how many bytes of each frame are captured."""
        rows = self.rows
        six = bool(self.hosts.six[rows.connection[0]])
        ip = RECORD.size + 14
        tcp = ip + (40 if six else 20)
        header = tcp - ip + 20 + len(self.options)
        whole = 14 + header + rows.length
        captured = np.minimum(whole, self.room.shape[1] - RECORD.size)
        seconds, rest = np.divmod(rows.time_ns + BEGIN_NS, 10**9)
        for at, values in ((0, seconds), (4, rest), (8, captured), (12, whole)):
            self.put(at, values, "<u4")
        self.room[self.group, RECORD.size : ip - 2] = np.frombuffer(b"\2\0\0\0\0\1\2\0\0\0\0\2", np.uint8)
        if six:
            self.fill_ipv6(ip, header - 40 + rows.length)
        else:
            self.fill_ipv4(ip, header + rows.length, ids)
        self.fill_tcp(tcp, stamps, echoes)
        return captured

    def fill_ipv6(self, ip: int, length: np.ndarray) -> None:
        """Write the Ethernet type and the IPv6 header."""
        self.put(ip - 2, 0x86DD, ">u2")
        self.put(ip, 6 << 28, ">u4")
        self.put(ip + 4, length, ">u2")
        self.put(ip + 6, 6, "u1")
        self.put(ip + 7, self.of(self.hosts.ttl), "u1")
        for at, other in ((ip + 8, False), (ip + 24, True)):
            self.put(at, 0x20010DB8, ">u4")
            self.put(at + 12, self.of(self.hosts.address, other=other), ">u4")

    def fill_ipv4(self, ip: int, length: np.ndarray, ids: np.ndarray) -> None:
        """Write the Ethernet type and the IPv4 header."""
        self.put(ip - 2, 0x0800, ">u2")
        self.put(ip, 0x4500, ">u2")
        self.put(ip + 2, length, ">u2")
        self.put(ip + 4, ids, ">u2")
        self.put(ip + 6, 0x4000, ">u2")  # do not fragment
        self.put(ip + 8, self.of(self.hosts.ttl), "u1")
        self.put(ip + 9, 6, "u1")
        self.put(ip + 12, self.of(self.hosts.address), ">u4")
        self.put(ip + 16, self.of(self.hosts.address, other=True), ">u4")

    def fill_tcp(self, tcp: int, stamps: np.ndarray, echoes: np.ndarray) -> None:
        """Write the TCP header and its options."""
        rows, options = self.rows, self.options
        self.put(tcp, self.of(self.hosts.port), ">u2")
        self.put(tcp + 2, self.of(self.hosts.port, other=True), ">u2")
        self.put(tcp + 4, rows.seq, ">u4")
        self.put(tcp + 8, rows.ack, ">u4")
        self.put(tcp + 12, (20 + len(options)) << 2, "u1")
        self.put(tcp + 13, rows.flags, "u1")
        self.put(tcp + 14, self.of(self.hosts.window), ">u2")
        self.room[self.group, tcp + 20 : tcp + 20 + len(options)] = np.frombuffer(options, np.uint8)
        if TIMESTAMPS in options:
            at = tcp + 20 + options.index(TIMESTAMPS) + 2
            self.put(at, stamps, ">u4")
            self.put(at + 4, echoes, ">u4")
        if SACK in options:
            at = tcp + 20 + options.index(SACK) + 4
            self.put(at, rows.sacked, ">u4")
            self.put(at + 4, (rows.sacked + MSS) % WRAP, ">u4")


def frames(
    rows: Rows, hosts: Hosts, stamps: tuple[np.ndarray, np.ndarray], ids: np.ndarray, snaplen: int
) -> tuple[bytes, np.ndarray]:
    """Return the records of these segments, and how many bytes each has."""
    room = np.zeros((len(rows.seq), RECORD.size + snaplen), np.uint8)
    captured = np.zeros(len(room), np.int64)
    system = np.where(
        rows.sender == CLIENT, hosts.system[0][rows.connection], hosts.system[1][rows.connection]
    )
    # Timestamps and SACK only if the client offered them; the server is always able to.
    client = hosts.system[CLIENT][rows.connection]
    stamped = np.array([STAMPED[name] for name in SYSTEMS])[client] & (rows.flags & RST == 0)
    sacked = (rows.sacked >= 0) & (client != SYSTEMS.index("small"))
    kind = np.where(stamped, WITH_STAMP, PLAIN) + np.where(sacked, WITH_SACK, PLAIN)
    kind = np.where(rows.flags & SYN > 0, FIRST_SYN + np.where(stamped, system, client), kind)
    six = hosts.six[rows.connection]
    for version in (False, True):
        for number, template in enumerate(OPTIONS):
            group = np.flatnonzero((six == version) & (kind == number))
            if len(group):
                layout = Layout(room, group, rows.take(group), hosts, template)
                captured[group] = layout.fill(stamps[0][group], stamps[1][group], ids[group])
    within = np.arange(room.shape[1]) < RECORD.size + captured[:, np.newaxis]
    return room[within].tobytes(), RECORD.size + captured
