"""Rows of segments for the tests of `connections`: given by hand, random, or out of the captures."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import strategies as st

from closeseq.capture import open_capture
from closeseq.connections import Connections
from closeseq.packets.segments import (
    ACK,
    COLUMNS,
    DTYPES,
    FIN,
    MODULUS,
    PSH,
    RST,
    SYN,
    Segments,
    from_letters,
)
from closeseq.segments import decode
from places import ROOT

CAPTURES = sorted((ROOT / "captures").glob("*.pcap"))
START_NS = 1_700_000_000 * 10**9
MILLISECOND = 10**6

A, B, C = (4, 0, 10, 40000), (4, 0, 20, 80), (4, 0, 30, 41000)  # version, address, port
DEFAULTS = {
    "number": None,
    "time_ns": None,
    "seq": 0,
    "ack": 0,
    "flags": ACK,
    "window": 65535,
    "length": 0,
    "ttl": 64,
    "ip_id": 0,
    "has_timestamps": False,
    "tsval": 0,
    "tsecr": 0,
    "dsack_left": 0,
    "dsack_right": 0,
    "sacked": 0,
    "syn_options": 0,
    "vlan": 0,
    "place": 0,
}


def row(source, destination, flags=ACK, seq=0, ack=0, **other):
    """Return one row; its number, and its time of a millisecond after the row before, may be left out."""
    ends = {}
    for name, (version, high, low, port) in (("src", source), ("dst", destination)):
        ends |= {"version": version, f"{name}_high": high, f"{name}_low": low, f"{name}_port": port}
    numbers = {"seq": seq % MODULUS, "ack": ack % MODULUS}
    return DEFAULTS | ends | numbers | {"flags": flags, **other}


def columns(rows):
    """Return rows as Segments."""
    time_ns, filled = START_NS, []
    for number, one in enumerate(rows, start=1):
        time_ns = time_ns + MILLISECOND if one["time_ns"] is None else one["time_ns"]
        filled.append(one | {"number": number, "time_ns": time_ns})
    return Segments(*(np.array([one[name] for one in filled], DTYPES[name]) for name in COLUMNS))


def fed(segments, size=100_000, ports=frozenset()):
    """Return Connections that were fed with these segments in batches of a size."""
    connections = Connections(ports=ports)
    for first in range(0, len(segments), size):
        connections.feed(segments.take(np.arange(first, min(first + size, len(segments)))))
    return connections


def conversations(segments, size=100_000, ports=frozenset()):
    connections = fed(segments, size, ports)
    return [connections.conversation(index) for index in range(len(connections))]


def at_once(segments, size=100_000, ports=frozenset()):
    connections = fed(segments, size, ports)
    return list(connections.conversations(np.arange(len(connections))))


def captured(path):
    """Return the segments of a capture."""
    with open_capture(str(path)) as capture:
        batches = [decode(frames) for frames in capture.batches()]
    return joined(batches)


def joined(batches):
    return Segments(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in COLUMNS))


# Random rows: few ends, and numbers so near each other, and near the wrap, that everything happens.

ENDS = {
    4: [(4, 0, 10, 1000), (4, 0, 20, 80), (4, 0, 20, 1000)],
    6: [(6, 0, 10, 1000), (6, 0, 20, 80), (6, 1 << 63, 20, 80)],
}
STEPS_NS = [0, 10**5, 10**6, 10**6 + 1, 10**7, 10**7 + 1, 5 * 10**8, 10**9, -(10**6), -2 * 10**7]
FLAGS = [SYN, SYN, SYN | ACK, ACK, ACK, ACK, ACK | PSH, FIN | ACK, FIN | ACK, FIN, RST, RST | ACK]
FLAGS += [SYN | RST, SYN | FIN, 0, SYN | 0xC0]
NEAR = [-2, -1, 0, 0, 0, 1, 1, 2, 3, 4, 1000, 1 << 31]
EDGES = [0] * len(NEAR) + NEAR


def one_of_each(**choices):
    """Return a strategy that chooses one of each at once: to draw is what costs, not among how many."""
    return st.sampled_from([dict(zip(choices, each, strict=True)) for each in product(*choices.values())])


# Of three ends the third is the rarest, and of four pairs one speaks IPv6.
pairs = st.sampled_from(
    [
        (ENDS[version][source], ENDS[version][destination])
        for version in (4, 4, 4, 6)
        for source, destination in product([0, 1, 0, 1, 2], repeat=2)
    ]
)
paces = st.sampled_from(list(product([False] * 7 + [True], STEPS_NS)))  # whether it is a repetition, and when
numbers = st.sampled_from(list(product(NEAR, repeat=2)))
dsack_edges = one_of_each(
    dsack_left=[edge % MODULUS for edge in EDGES], dsack_right=[edge % MODULUS for edge in EDGES]
)
shapes = one_of_each(flags=FLAGS, window=[65535, 0], length=[0, 0, 1, 2, 100])
others = one_of_each(
    ip_id=[-1, 0, 7],
    vlan=[0, 0, 0, 10, 20],
    has_timestamps=[False, True],
    tsval=[0, 1],
    tsecr=[0, 1],
)
changes = st.sampled_from([{}, {}, {"vlan": 30}, {"place": 5}, {"ttl": 63}])


@st.composite
def soups(draw, most=50):
    """Return random rows, some of them repeated, as Segments."""
    base = draw(st.sampled_from([0, 5, MODULUS - 3, (1 << 31) - 2]))
    rows, time_ns = [], START_NS
    for _ in range(draw(st.integers(1, most))):
        repeated, step_ns = draw(paces)
        time_ns += step_ns
        if rows and repeated:
            again = rows[-draw(st.integers(1, min(6, len(rows))))]
            rows.append(again | {"time_ns": time_ns} | draw(changes))
            continue
        seq, ack = (base + number for number in draw(numbers))
        filled = row(*draw(pairs), seq=seq, ack=ack, time_ns=time_ns)
        rows.append(filled | draw(dsack_edges) | draw(shapes) | draw(others))
    return columns(rows)


def recorded(text):
    """Return the one conversation of a recording that is given line by line, its ends Linux.

    A line has the time in ms, the sender (C or S), flags, seq, ack, length, TSval/TSecr (- without) and IP
    identification; and `twice 1-2` for a D-SACK block, `sack 9` for the highest edge of a SACK block.
    """
    rows = []
    for line in text.split("\n"):
        fields = line.split()
        if not fields:
            continue
        time, end, letters, seq, ack, length, stamps, ip_id, *blocks = fields
        other = dict(zip(blocks[::2], blocks[1::2], strict=True))
        left, right = map(int, other.get("twice", "0-0").split("-"))
        tsval, tsecr = (0, 0) if stamps == "-" else map(int, stamps.split("/"))
        flags = from_letters(letters)
        rows.append(
            row(
                *((A, B) if end == "C" else (B, A)),
                flags,
                int(seq),
                int(ack),
                time_ns=START_NS + round(float(time) * MILLISECOND),
                length=int(length),
                ip_id=int(ip_id),
                has_timestamps=stamps != "-",
                tsval=tsval,
                tsecr=tsecr,
                dsack_left=left,
                dsack_right=right,
                sacked=max(int(other.get("sack", ack)) - int(ack), 0),
                syn_options=0x24813 if flags & SYN else 0,
            )
        )
    (told,) = conversations(columns(rows))
    return told
