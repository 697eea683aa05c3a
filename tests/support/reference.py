"""A second road from segments to conversations: one row at a time, in plain Python, slow and obvious.

The column engine in closeseq/connections must give exactly what this gives, in batches of any size.
It is written to be checked by reading, against the rules that closeseq/connections documents.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

from closeseq.connections.compose import duplicates
from closeseq.connections.conversation import (
    Address,
    Conversation,
    End,
    Event,
    Opener,
    Path,
    Position,
    Stream,
    Traffic,
)
from closeseq.packets.segments import ACK, COLUMNS, FIN, PSH, RST, SYN, Segments, difference, letters

MINOR_LIMIT = 32
ALIKE_LIMIT = 32
REPEATED_NS = 900_000_000  # what comes so late may be an answer sent again
COVER_LIMIT = 64
MOST_HOLES = 16
AGAIN = (Position.RETRANSMISSION, Position.OVERLAP)
MOST_WINDOW = 1 << 30
COPY_NS = 1_000_000
COPY_MARKED_NS = 10_000_000
IDENTITY = (
    *("seq", "ack", "flags", "window", "length", "ip_id"),
    *("tsval", "tsecr", "dsack_left", "dsack_right"),
)


def rows(segments: Segments):
    columns = [getattr(segments, name).tolist() for name in COLUMNS]
    for values in zip(*columns, strict=True):
        yield dict(zip(COLUMNS, values, strict=True))


@dataclass
class Side:
    """What one end has sent, as far as captured."""

    origin: int | None = None  # 32-bit number that is relative 0
    last_raw: int = 0
    last_rel: int = 0
    ack_raw: int | None = None  # the last acknowledgement this side sent
    ack_rel: int = 0
    sent_end: int | None = None  # highest sequence number past any segment (but RST) of this side
    acked: int | None = None  # highest acknowledgement this side sent
    fin_end: int | None = None  # highest end of a segment with FIN
    syn_raw: int | None = None
    fin_covered: bool = False  # the *other* side has covered the newest FIN segment of this side
    packets: int = 0
    bytes: int = 0
    reach: int = MOST_WINDOW
    kinds: Counter = field(default_factory=Counter)  # SYNs, FINs, RSTs it sent
    response_ns: int | None = None  # least time in which it answered the segment right before
    answers: int = 0  # how many times it did
    place: tuple | None = None  # where its last segment but RSTs was captured
    moves: int = 0  # how often that changed
    holes: list[dict] = field(default_factory=list)  # open ones, oldest first
    reordered: int = 0
    lost: int = 0
    repeated: int = 0
    dsacks: int = 0
    missed: list[dict] = field(
        default_factory=list
    )  # holes that the peer had acknowledged before they were filled


@dataclass
class Incarnation:
    pair: tuple
    number: int  # incarnation
    order: int
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))
    steps: list = field(default_factory=list)  # ("event", row dict) and ("traffic", [row dicts])
    minor: int = 0
    covers: int = 0
    closing: bool = False
    only_syns: bool = True
    vlans: dict = field(default_factory=dict)  # end -> in which VLAN it was first seen
    copies: int = 0
    kinds: Counter = field(default_factory=Counter)  # of copies, and their senders
    fin_again: dict = field(default_factory=dict)  # end -> number, time, whether it came later
    dsacks: Counter = field(default_factory=Counter)  # of each end
    first_ns: int = 0
    last_ns: int = 0
    first_sender: int = 0
    successor: dict | None = None
    last: dict | None = None  # the row before


REACH = 1 << 24


class Lane:
    """What belongs together of the packets between two endpoints, in whatever VLANs."""

    def __init__(self):
        self.near = [None, None]  # a number near the newest of each end
        self.seen = [False, False]  # whether it was seen, or only acknowledged
        self.vlans = [set(), set()]  # in which each end's packets were seen

    def distance(self, row):
        """None: nothing to compare; False: it contradicts."""
        s, steps = row["sender"], []
        syn, ack = bool(row["flags"] & SYN), bool(row["flags"] & ACK)
        if self.near[s] is not None and not (syn and ack):
            step = difference(row["seq"], self.near[s])
            steps.append(abs(step))
            if step not in (0, -1) if syn else abs(step) > REACH:
                return False
        if ack and self.near[1 - s] is not None:
            step = difference(row["ack"], self.near[1 - s])
            steps.append(abs(step))
            if not 0 <= step <= 1461 if syn else abs(step) > REACH:
                return False
        return max(steps, default=None)

    def take(self, row):
        s = row["sender"]
        self.near[s], self.seen[s] = row["seq"], True
        if row["flags"] & ACK and not self.seen[1 - s]:
            self.near[1 - s] = (row["ack"] - 1) % 2**32


def lane_of(lanes: list[Lane], row: dict, copy: bool) -> int:
    """Return the lane of a packet, by the rule in vlans.py; a new one is added."""
    s, vlan = row["sender"], row["vlan"]
    far = [lane.distance(row) for lane in lanes]
    fitting = [(far[n], n) for n in range(len(lanes)) if far[n] is not None and far[n] is not False]
    beside = [vlan in lane.vlans[1 - s] for lane in lanes]
    own = next((n for n, lane in enumerate(lanes) if vlan in lane.vlans[s]), None)
    found = own
    if own is not None:
        if far[own] is False and fitting:
            found = min(fitting)[1]
    elif fitting:
        found = min((not beside[n], step, n) for step, n in fitting)[2]
    elif None in far:
        unknown = [n for n in range(len(lanes)) if far[n] is None]
        found = min(unknown, key=lambda n: (not beside[n], bool(lanes[n].vlans[s]), n))
    else:
        found = next((n for n, lane in enumerate(lanes) if beside[n] and not lane.vlans[s]), None)
    if copy:
        return found or 0
    if found is None:
        found = len(lanes)
        lanes.append(Lane())
    if own is None:
        lanes[found].vlans[s].add(vlan)
    lanes[found].take(row)
    return found


def split(segments: Segments) -> list[Incarnation]:
    present: dict[tuple, Incarnation] = {}
    vlans: dict[tuple, dict[int, int]] = defaultdict(dict)
    all_lanes: dict[tuple, list[Lane]] = {}
    everything: list[Incarnation] = []
    recent: dict[tuple, int] = {}
    handshakes: dict[tuple, int] = {}
    clock = 0
    for row in rows(segments):
        clock = max(clock, row["time_ns"])
        a = (row["version"], row["src_high"], row["src_low"], row["src_port"])
        b = (row["version"], row["dst_high"], row["dst_low"], row["dst_port"])
        pair, sender = ((a, b), 0) if a <= b else ((b, a), 1)
        row["sender"] = sender
        kind = copy_kind(recent, handshakes, clock, pair, row)
        copy = kind is not None
        pair = (pair, lane_of(all_lanes.setdefault(pair, [Lane()]), row, copy))
        incarnation = present.get(pair)
        if copy:
            incarnation.copies += 1
            incarnation.kinds[kind, sender] += 1
            if kind in ("again", "later") and row["flags"] & FIN:
                incarnation.fin_again[sender] = (row["number"], row["time_ns"], kind == "later")
            continue
        if incarnation is None or opens_next(incarnation, row):
            number = 1 if incarnation is None else incarnation.number + 1
            following = Incarnation(pair[0], number, len(everything), first_sender=sender)
            following.first_ns = row["time_ns"]
            following.vlans = vlans[pair]
            if incarnation is not None:
                incarnation.successor = row
            incarnation = present[pair] = following
            everything.append(following)
        vlans[pair].setdefault(sender, row["vlan"])
        add(incarnation, row)
    return everything


LATE_NS = 1_000_000_000


def copy_kind(recent: dict, handshakes: dict, clock: int, pair: tuple, row: dict) -> str | None:
    """The same header again within a moment; longer where IP id or timestamps would tell a retransmission.

    The time is measured from the newest packet of the same identity, a copy included. `clock` is the
    latest time of the capture so far: what it has left behind is forgotten, even if a packet's own time
    lies back.
    """
    identity = (pair, row["sender"], *(row[name] for name in IDENTITY))
    place = (*identity, row["place"], row["vlan"], row["ttl"])
    marked = row["ip_id"] > 0 or row["has_timestamps"]
    limit = COPY_MARKED_NS if marked else COPY_NS

    def age(memory, key, longest, limit):
        before = memory.get(key)
        memory[key] = row["time_ns"]
        if before is None or before < clock - longest or not 0 <= row["time_ns"] - before <= limit:
            return None
        return row["time_ns"] - before

    copy = age(recent, identity, COPY_MARKED_NS, limit) is not None
    here = age(recent, place, COPY_MARKED_NS, limit)
    late = None
    if row["flags"] & (SYN | FIN) and not row["flags"] & RST and row["ip_id"] > 0 and row["has_timestamps"]:
        late = age(handshakes, place, LATE_NS, LATE_NS)
    if copy and here is None:
        return "elsewhere"
    if copy:
        if here > COPY_NS:
            return "later"
        return "reset" if row["flags"] & RST and not marked else "again"
    return None if late is None else "later"


def opens_next(present: Incarnation, row: dict) -> bool:
    """Whether a segment begins a new incarnation instead of belonging to the present one."""
    if not row["flags"] & SYN or row["flags"] & RST:
        return False  # what trails behind a close never opens a connection
    own, peer = present.sides[row["sender"]], present.sides[1 - row["sender"]]
    answers = (
        bool(row["flags"] & ACK) and peer.syn_raw is not None and difference(row["ack"], peer.syn_raw) == 1
    )
    if own.syn_raw is not None:
        return own.syn_raw != row["seq"] and not answers
    if own.origin is not None:
        fits = difference(own.origin, row["seq"]) == 0  # right in front of the first number seen
        return not fits and not answers
    if row["flags"] & ACK:
        return peer.syn_raw is None
    return not present.only_syns  # else a simultaneous open


def add(incarnation: Incarnation, row: dict) -> None:
    s = row["sender"]
    own, peer = incarnation.sides[s], incarnation.sides[1 - s]
    flags, length = row["flags"], row["length"]
    has_ack = bool(flags & ACK)
    if own.origin is None:
        own.origin = row["seq"] if flags & SYN else (row["seq"] - 1) % 2**32
        own.last_raw = own.origin
    if has_ack and peer.origin is None:
        peer.origin = (row["ack"] - 1) % 2**32
        peer.last_raw = peer.origin
    seq = own.last_rel + difference(row["seq"], own.last_raw)
    own.last_raw, own.last_rel = row["seq"], seq
    ack = None
    if has_ack:
        if own.ack_raw is None:
            ack = difference(row["ack"], peer.origin)
        else:
            ack = own.ack_rel + difference(row["ack"], own.ack_raw)
        own.ack_raw, own.ack_rel = row["ack"], ack
    end = seq + length + bool(flags & SYN) + bool(flags & FIN)
    if flags & SYN and row["syn_options"] and "3" not in f"{row['syn_options']:x}":
        own.reach = peer.reach = 65535
    position = where(own, peer, flags, seq, end)
    position, fills = follow_holes(own, peer, row, seq=seq, end=end, position=position)
    count_retransmissions(own, peer, row, end, fills or position not in AGAIN or end == seq)
    dsack = None
    incarnation.dsacks[s] += row["dsack_left"] != row["dsack_right"]
    if has_ack and row["dsack_left"] != row["dsack_right"]:
        dsack = tuple(ack + difference(row[edge], row["ack"]) for edge in ("dsack_left", "dsack_right"))

    covers_syn = has_ack and peer.syn_raw is not None and own.acked is None
    covers_fin = has_ack and peer.fin_end is not None and not peer.fin_covered and ack >= peer.fin_end
    beyond = has_ack and peer.sent_end is not None and ack > peer.sent_end
    betrays = position is Position.GAP and length == 0
    control = bool(flags & (SYN | FIN | RST))
    own.kinds.update(bit for bit in (SYN, FIN, RST) if flags & bit)
    major = any(flags & bit and own.kinds[bit] <= ALIKE_LIMIT for bit in (SYN, FIN, RST))
    if not control and (covers_syn or covers_fin) and incarnation.covers < COVER_LIMIT:
        major = True
        incarnation.covers += 1
    noteworthy = not control and (beyond or betrays or incarnation.closing)
    minor = not major and noteworthy and incarnation.minor < MINOR_LIMIT
    before = incarnation.last
    if before is not None and before["sender"] != s and not flags & RST and ack is not None:
        asks = before["end"] > before["seq_rel"] and before["position"] is Position.NEW
        waited = row["time_ns"] - before["time_ns"]
        if asks and not before["flags"] & RST and before["end"] == ack and 0 <= waited < REPEATED_NS:
            own.answers += 1
            own.response_ns = waited if own.response_ns is None else min(own.response_ns, waited)
    incarnation.last = row
    place = (row["place"], row["vlan"])
    before = own.place or place
    moved = before != place
    if not flags & RST:
        own.place, own.moves = place, own.moves + moved
    row |= {
        "elsewhere": bool(flags & RST) and moved and not (place[0] | before[0]) & 1,
        "seq_rel": seq,
        "ack_rel": ack,
        "position": position,
        "dsack_rel": dsack,
        "end": end,
        "major": major,
    }
    if major or minor:
        incarnation.steps.append(("event", row))
        incarnation.minor += minor
    else:
        if not incarnation.steps or incarnation.steps[-1][0] == "event":
            incarnation.steps.append(("traffic", []))
        incarnation.steps[-1][1].append(row)

    incarnation.closing |= bool(flags & (FIN | RST))
    incarnation.only_syns &= bool(flags & SYN) and not has_ack
    if flags & SYN and own.syn_raw is None:
        own.syn_raw = row["seq"]
    outside = position is Position.OUTSIDE
    if flags & FIN and not outside:
        own.fin_end = end if own.fin_end is None else max(own.fin_end, end)
        own.fin_covered = False
    if covers_fin:
        peer.fin_covered = True
    if not flags & RST and not outside:
        restarts = flags & SYN and seq != 0  # what went by before was of an older connection
        own.sent_end = end if own.sent_end is None or restarts else max(own.sent_end, end)
    if has_ack:
        own.acked = ack if own.acked is None else max(own.acked, ack)
    own.packets += 1
    own.bytes += length
    incarnation.last_ns = max(incarnation.last_ns, row["time_ns"])
    incarnation.first_ns = min(incarnation.first_ns, row["time_ns"])


def follow_holes(
    own: Side, peer: Side, row: dict, *, seq: int, end: int, position: Position
) -> tuple[Position, bool]:
    """Open, or fill, holes in what an end sent; return the position then, and whether any was filled."""
    flags = row["flags"]
    if flags & RST:
        return position, False
    stamp = row["tsval"] if row["has_timestamps"] else None
    if position is Position.GAP and not flags & SYN and seq - own.sent_end <= MOST_WINDOW:
        own.holes.append({"start": own.sent_end, "end": seq, "row": row, "stamp": stamp})
        del own.holes[:-MOST_HOLES]
    elif position in (Position.RETRANSMISSION, Position.OVERLAP, Position.PROBE):
        filled = [hole for hole in own.holes if seq < hole["end"] and end > hole["start"]]
        if not filled:
            return position, False
        newest = filled[-1]
        if overtaken(row, stamp, newest):
            own.reordered += 1
            position = Position.REORDERED
        elif peer.acked is not None and peer.acked >= min(end, newest["end"]):
            own.missed.append(filled[0])
        else:
            own.lost += 1
        rest = [hole for hole in own.holes if hole not in filled]
        for hole in filled:
            rest += [
                hole | {"start": a, "end": b} for a, b in ((hole["start"], seq), (end, hole["end"])) if a < b
            ]
        own.holes = sorted(rest, key=lambda hole: hole["row"]["time_ns"])[-MOST_HOLES:]
        position = Position.RETRANSMISSION if position is Position.PROBE else position
        return position, True
    return position, False


def overtaken(row: dict, stamp: int | None, hole: dict) -> bool:
    waited = row["time_ns"] - hole["row"]["time_ns"]
    if waited > 10**9:
        return False
    if stamp is not None and hole["stamp"] is not None and stamp != hole["stamp"]:
        return difference(stamp, hole["stamp"]) < 0
    ours, theirs = row["ip_id"], hole["row"]["ip_id"]
    if ours > 0 and theirs > 0:
        return 0 < (theirs - ours) % 65536 < 32768
    return waited <= 10**6


def count_retransmissions(own: Side, peer: Side, row: dict, end: int, fresh: bool) -> None:
    """Count what is sent again unacknowledged, holes apart, and reports of what arrived twice."""
    if row["dsack_left"] != row["dsack_right"]:
        own.dsacks += 1
    challenged = row["flags"] & SYN and peer.acked is not None
    opens_too = row["flags"] & SYN and row["flags"] & ACK and own.acked is None
    if fresh or row["flags"] & RST or challenged or opens_too:
        return
    if peer.acked is None or peer.acked < end:
        own.repeated += 1


def path_of(own: Side, peer: Side) -> Path:
    starts = [hole["start"] for hole in own.holes]
    acked = peer.acked is not None and bool(starts) and min(starts) < peer.acked
    shown = own.missed or (own.holes if acked else [])
    return Path(
        response_ns=own.response_ns,
        answers=own.answers,
        moves=own.moves,
        reordered=own.reordered,
        lost_before=own.lost,
        lost_after=max(own.repeated - peer.dsacks, 0),
        missed=len(own.missed) + acked,
        missed_packet=shown[0]["row"]["number"] if shown else 0,
        missed_ns=shown[0]["row"]["time_ns"] if shown else 0,
    )


def is_stray_fin(flags: int) -> bool:
    return flags & (FIN | ACK | SYN | RST) == FIN


def where(own: Side, peer: Side, flags: int, seq: int, end: int) -> Position:
    if own.sent_end is None or seq == own.sent_end or (flags & SYN and not flags & RST and seq != 0):
        return Position.OUTSIDE if is_stray_fin(flags) else Position.NEW
    if not flags & RST and (
        (seq - own.sent_end > own.reach and not (flags & SYN and seq)) or is_stray_fin(flags)
    ):
        return Position.OUTSIDE
    if seq > own.sent_end:
        return Position.GAP
    plain = not flags & (SYN | FIN | RST)
    fin_acked = end == seq and peer.acked is not None and peer.acked >= own.sent_end
    if plain and seq == own.sent_end - 1 and end - seq <= 1 and (own.fin_end is None or fin_acked):
        return Position.PROBE
    return Position.OVERLAP if end > own.sent_end else Position.RETRANSMISSION


def conversations(segments: Segments, ports: frozenset[int] = frozenset()) -> list[Conversation]:
    """Return every connection of these segments, in the order of their first packets."""
    incarnations = split(segments)
    clients_of = count_clients(incarnations)
    return [describe(one, clients_of, ports) for one in incarnations]


def shapes(segments: Segments) -> list[str]:
    """Return the shape of every connection."""
    incarnations = split(segments)
    clients_of = count_clients(incarnations)
    return [shape(one, orient(one, clients_of, frozenset())[0]) for one in incarnations]


def count_clients(incarnations: list[Incarnation]) -> dict[tuple, set[tuple]]:
    """Return with whom each endpoint talks."""
    clients_of = defaultdict(set)
    for one in incarnations:
        for i in (0, 1):
            clients_of[one.pair[i]].add(one.pair[1 - i])
    return clients_of


def describe(one: Incarnation, clients_of: dict, ports: frozenset[int]) -> Conversation:
    client, opener = orient(one, clients_of, ports)
    ends = (End.CLIENT, End.SERVER) if client == 0 else (End.SERVER, End.CLIENT)
    shift = [0, 0]  # numbers count from the end's first SYN, wherever that was captured
    for kind, what in reversed(one.steps):
        if kind == "event" and what["flags"] & SYN:
            shift[what["sender"]] = what["seq_rel"]
    steps = tuple(
        event(what, ends, shift) if kind == "event" else traffic(what, ends, shift)
        for kind, what in one.steps
    )
    named, kinds = [text(endpoint) for endpoint in one.pair], one.kinds
    return Conversation(
        id=one.order + 1,
        incarnation=one.number,
        client=named[client],
        server=named[1 - client],
        opener=opener,
        steps=steps,
        client_packets=one.sides[client].packets,
        server_packets=one.sides[1 - client].packets,
        client_bytes=one.sides[client].bytes,
        server_bytes=one.sides[1 - client].bytes,
        first_ns=one.first_ns,
        last_ns=one.last_ns,
        copies=one.copies,
        client_path=path_of(one.sides[client], one.sides[1 - client]),
        server_path=path_of(one.sides[1 - client], one.sides[client]),
        duplicates=duplicates(
            {
                "elsewhere": kinds["elsewhere", 0] + kinds["elsewhere", 1],
                "repeated_resets": kinds["reset", 0] + kinds["reset", 1],
            },
            {end: doubles(one, index) for end, index in zip(End, (client, 1 - client), strict=True)},
            steps,
        ),
        successor=None if one.successor is None else event(one.successor, ends, [0, 0]),
        client_vlans=tuple(v for v in [one.vlans.get(client, 0)] if v),
        server_vlans=tuple(v for v in [one.vlans.get(1 - client, 0)] if v),
    )


def doubles(one: Incarnation, end: int) -> dict:
    """Return what duplicates.py asks of an end."""
    number, time_ns, later = one.fin_again.get(end, (0, 0, False))
    return {
        "packets": one.sides[end].packets,
        "doubled": one.kinds["again", end],
        "delivered": one.kinds["later", end],
        "dsacks": one.dsacks[end],
        "fin_again": number,
        "fin_again_ns": time_ns,
        "fin_again_later": later,
    }


def orient(one: Incarnation, clients_of: dict, ports: frozenset[int]) -> tuple[int, Opener]:
    """Return which end of the pair is the client, and how we know."""
    for want in (SYN, SYN | ACK):
        for kind, what in one.steps:
            if kind == "event" and what["flags"] & (SYN | ACK) == want:
                return (what["sender"] if want == SYN else 1 - what["sender"]), Opener.SEEN
    port = [endpoint[3] for endpoint in one.pair]
    asked = [p in ports for p in port]
    if asked[0] != asked[1]:
        return asked.index(False), Opener.INFERRED
    clients = [len(clients_of[endpoint]) for endpoint in one.pair]
    if clients[0] != clients[1]:
        return (0 if clients[0] < clients[1] else 1), Opener.INFERRED
    if port[0] != port[1]:
        return (0 if port[0] > port[1] else 1), Opener.INFERRED
    return one.first_sender, Opener.INFERRED


def shape(one: Incarnation, client: int) -> str:
    """Return the words of the major events, one `~` for whatever lies between two of them."""
    words = []
    for kind, what in one.steps:
        if kind == "event" and what["major"]:
            words.append("CS"[what["sender"] != client] + ":" + letters(what["flags"] & ~PSH))
        elif words[-1:] != ["~"]:
            words.append("~")
    return " ".join(words)


def event(row: dict, ends: tuple[End, End], shift: list[int]) -> Event:
    s = row["sender"]
    own, peer = shift[s], shift[1 - s]
    ack, dsack, stamped = row.get("ack_rel"), row.get("dsack_rel"), row["has_timestamps"]
    return Event(
        packet=row["number"],
        time_ns=row["time_ns"],
        sender=ends[s],
        flags=row["flags"],
        seq=row.get("seq_rel", 0) - own,
        ack=None if ack is None else ack - peer,
        length=row["length"],
        position=row.get("position", Position.NEW),
        window=row["window"],
        tsval=row["tsval"] if stamped else None,
        tsecr=row["tsecr"] if stamped else None,
        dsack=None if dsack is None else (dsack[0] - peer, dsack[1] - peer),
        sack=ack + row["sacked"] - peer if ack is not None and row["sacked"] else None,
        ttl=row["ttl"],
        ip_id=row["ip_id"],
        syn_options=row["syn_options"],
        elsewhere=row.get("elsewhere", False),
    )


def counting(ip_ids: list[int]) -> int:
    """Return the last number if all of them count up, by less than half of the numbers there are; else 0."""
    up = all(0 < (b - a) % 65536 < 32768 for a, b in pairwise(ip_ids))
    return ip_ids[-1] if up and min(ip_ids) > 0 else 0


def traffic(stretch: list[dict], ends: tuple[End, End], shift: list[int]) -> Traffic:
    streams = {}
    for s in (0, 1):
        own = [row for row in stretch if row["sender"] == s]
        if not own:
            streams[ends[s]] = Stream()
            continue
        last = own[-1]
        other = [i for i, row in enumerate(stretch) if row["sender"] != s]
        tail = stretch[other[-1] + 1 :] if other else stretch
        # Only what takes numbers, and a probe, calls for an answer (RFC 9293 3.8.4, 3.8.6.3).
        tail = [row for row in tail if row["end"] > row["seq_rel"] or row["position"] is Position.PROBE]
        plain = [row for row in own if not row["flags"] & RST]
        numbers = [row["end"] for row in plain]
        acks = [row["ack_rel"] for row in plain if row["ack_rel"] is not None]
        positions = Counter(row["position"] for row in own)
        probes = [row for row in own if row["position"] is Position.PROBE]
        streams[ends[s]] = Stream(
            segments=len(own),
            bytes=sum(row["length"] for row in own),
            first_packet=own[0]["number"],
            last_packet=last["number"],
            first_ns=own[0]["time_ns"],
            last_ns=last["time_ns"],
            retransmissions=sum(
                row["position"] in (Position.RETRANSMISSION, Position.OVERLAP) and row["length"] > 0
                for row in own
            ),
            gaps=positions[Position.GAP],
            reordered=positions[Position.REORDERED],
            probes=positions[Position.PROBE],
            probe_packet=probes[0]["number"] if probes else 0,
            probe_ns=probes[0]["time_ns"] if probes else 0,
            end=max(numbers) - shift[s] if numbers else None,
            ack=max(acks) - shift[1 - s] if acks else None,
            tsval=last["tsval"] if last["has_timestamps"] else None,
            tsecr=last["tsecr"] if last["has_timestamps"] else None,
            ip_id=-1 if last["ip_id"] < 0 else counting([row["ip_id"] for row in own]),
            zero_windows=sum(row["window"] == 0 for row in plain),
            controls=sum(row["flags"] & (SYN | FIN | RST) > 0 for row in own),
            unanswered=len(tail),
            unanswered_packet=tail[0]["number"] if tail else 0,
            unanswered_ns=tail[0]["time_ns"] if tail else 0,
        )
    return Traffic(client=streams[End.CLIENT], server=streams[End.SERVER])


def text(endpoint: tuple) -> Address:
    version, high, low, port = endpoint
    number = high << 64 | low
    return Address(str(IPv4Address(number) if version == 4 else IPv6Address(number)), port)
