"""What a replay may look at in connections whose steps have the same codes, as columns of small numbers.

Two connections with equal signatures have equal replays: nothing that is compared anywhere in `tcp`
comes out differently. What is compared is: an acknowledgement with what the other end had sent, a RST's
number with what was sent and acknowledged, a timestamp's echo with the timestamps before it, the times
of two events with a threshold. The numbers themselves are free. Who compares anything else in `tcp` adds
it here; tests/test_connections_classes.py holds classes against the replay.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from closeseq.connections.skeleton import DATA, EVENT, FROM_SERVER, PRESENT
from closeseq.connections.state import NONE
from closeseq.packets.flags import ACK, FIN, RST, SYN
from closeseq.packets.sequence import IP_IDS, count_on, differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connections.steps import Steps

MOST_TIMED = 18  # times that are compared: of the handshake, of traffic, and some 12 of the close
NEVER = 1 << 30
FAR_NS = np.iinfo(np.int64).max
UNKNOWN = 9
MOST_UNSEEN = 16


class Thresholds(NamedTuple):
    """What the time between two events is compared with, in nanoseconds."""

    brief: (
        np.ndarray
    )  # int64, ascending; only between a FIN and the other end's ACK, or an ACK and its own FIN
    fixed: np.ndarray  # int64, ascending
    scaled: Sequence[tuple[int, int]]  # (base, factor): base + factor * round trip of the handshake

    def buckets(self, span: np.ndarray, round_trip: np.ndarray, *, answers: bool) -> Iterator[np.ndarray]:
        """Yield columns that tell how times lie to the thresholds: below, equal or above."""
        for fixed in (self.fixed, self.brief) if answers else (self.fixed,):
            bucket = np.searchsorted(fixed, span, side="left") + np.searchsorted(fixed, span, side="right")
            yield bucket.astype(np.uint8)
        for base, factor in self.scaled:
            yield (np.sign(span - base - factor * round_trip) + 1).astype(np.uint8)


class Moments(NamedTuple):
    """Times of each connection of a group, in nanoseconds since the epoch."""

    now: int
    last: np.ndarray  # int64, of its last packet
    successor: np.ndarray | None  # int64, of the next connection's first packet, if all have one


class Counted(NamedTuple):
    """The last step of an end whose packet had a number (IPv4's identification), one entry a connection."""

    ip_id: np.ndarray  # int64; 0 if there is none
    later: np.ndarray  # int64, how many events of this end came after it
    asked: np.ndarray  # int64, how many of the other end that call for an answer


class Talker:
    """What one end had said up to some step, one entry a connection; NONE where it had said nothing."""

    def __init__(self, connections: int) -> None:
        self.sent = np.full(connections, NONE)  # highest number past any segment but RST
        self.acked = np.full(connections, NONE)  # highest acknowledgement
        self.reset = np.full(connections, NONE)  # number of the last RST
        self.acked_with_fin = np.full(connections, NONE)  # what its FIN acknowledged
        self.ttl = np.full(connections, NONE)  # of the last event
        self.stamped = np.zeros(connections, np.bool_)
        self.tsval = np.zeros(connections, np.uint32)
        self.stamps: list[tuple[np.ndarray, np.ndarray]] = []  # per event: tsval, and whether it is a new one
        self.ends: list[np.ndarray] = []  # per event with SYN, FIN or data: the number after it
        self.event_ns: np.ndarray | None = None  # time of what it said last, if that was an event
        self.ip_id = np.zeros(connections, np.int64)  # of the last packet with a number
        self.counted = Counted(*np.zeros((3, connections), np.int64))
        self.pushed: tuple[np.ndarray, Counted] | None = None  # the other's FIN: its time, and `counted` then
        self.since_pushed = 0  # events it sent after that


class Signature:
    """Reads a group of connections whose steps have the same codes, one step after the other."""

    def __init__(self, codes: list[int], rows: np.ndarray, client: np.ndarray, steps: Steps) -> None:
        """Take a group: the codes of its steps, their rows (a row a connection), and its clients (0 or 1)."""
        self._codes = codes
        self._rows = rows
        self._client = client
        self._steps = steps
        self._talkers = (Talker(len(rows)), Talker(len(rows)))
        self._waits: list[np.ndarray] = []  # between an event and the traffic of its sender right after it
        self._clock_ns = np.zeros(len(rows), np.int64)  # time of the step before
        self.irregular = np.zeros(len(rows), np.bool_)  # connections that are alike to no other

    def columns(self, moments: Moments, thresholds: Thresholds) -> Iterator[np.ndarray]:
        """Yield the uint8 columns of the signature."""
        self._answer_ns = max(thresholds.brief, default=FAR_NS)
        for column, code in enumerate(self._codes):
            rows = self._rows[:, column]
            yield from self._event(code, rows) if code & EVENT else self._traffic(code, rows)
        yield from self._times(moments, thresholds)

    def _event(self, code: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        kept, sender = self._steps.kept, int(code & FROM_SERVER > 0)
        own, peer = self._talkers[sender], self._talkers[1 - sender]
        seq, ttl = kept.seq[rows], kept.ttl[rows].astype(np.int64)
        self._let_time_pass(kept.time_ns[rows], kept.time_ns[rows])
        if code & ACK:
            ack = kept.ack[rows]
            yield relation(ack, peer.sent)
            yield relation(ack, peer.reset)
            yield (ack >= 1).view(np.uint8)  # covers a SYN, captured or not
            yield from covered(ack, peer)
            self.irregular |= (ack < own.acked) | ((peer.sent != NONE) & (ack > peer.sent))
            own.acked = np.maximum(own.acked, ack)
            yield relation(ack, own.acked_with_fin)  # it has taken data or a FIN since
            if code & FIN:
                own.acked_with_fin = ack
        if code & RST:
            yield relation(seq, peer.acked)
            yield relation(seq, own.sent)
            yield relation(ttl, own.ttl)  # another one betrays a middlebox
            own.reset = seq
        else:
            end = seq + kept.length[rows] + bool(code & SYN) + bool(code & FIN)
            own.sent = np.maximum(own.sent, end)
            if code & (SYN | FIN | DATA):
                own.ends.append(end)
        own.ttl, own.event_ns = ttl, kept.time_ns[rows]
        self._mark_tried(code, rows, own, peer)
        yield from self._timestamps(rows, own, peer)
        if code & (RST | DATA):
            yield from self._outstanding()

    def _outstanding(self) -> Iterator[np.ndarray]:
        """Yield whether all that each end has sent is acknowledged."""
        client, server = self._talkers
        yield relation(client.sent, server.acked)
        yield relation(server.sent, client.acked)

    def _let_time_pass(self, first_ns: np.ndarray, last_ns: np.ndarray) -> None:
        """Mark connections in which time runs back: there the order of steps is not that of their times."""
        self.irregular |= first_ns < self._clock_ns
        self._clock_ns = np.maximum(self._clock_ns, last_ns)

    def _mark_tried(self, code: int, rows: np.ndarray, own: Talker, peer: Talker) -> None:
        """Mark connections where a FIN in one breath with the other end's had been sent before, unseen."""
        kept = self._steps.kept
        ip_id, (counted, later, asked) = kept.ip_id[rows].astype(np.int64), own.counted
        fin = code & (FIN | RST) == FIN
        if fin and own.pushed is not None:
            pushed_ns, before = own.pushed
            number = (ip_id - before.ip_id) % IP_IDS - 1 - before.later - own.since_pushed
            breath = kept.time_ns[rows] - pushed_ns < self._answer_ns
            told = breath & (ip_id > 0) & (before.ip_id > 0) & (number <= MOST_UNSEEN)
            self.irregular |= told & (number > before.asked)
        numbered = (ip_id > 0) & (code & (RST | ACK) != RST)
        tells = np.where((own.ip_id == 0) | count_on(ip_id, own.ip_id), ip_id, 0)
        own.counted = Counted(
            np.where(numbered, tells, counted), np.where(numbered, 0, later + 1), np.where(numbered, 0, asked)
        )
        own.ip_id = np.where(numbered, ip_id, own.ip_id)
        own.since_pushed += 1
        peer.pushed, peer.since_pushed = (kept.time_ns[rows], peer.counted) if fin else None, 0
        if code & (SYN | FIN | DATA) and not code & RST:
            peer.counted = peer.counted._replace(asked=peer.counted.asked + 1)

    def _timestamps(self, rows: np.ndarray, own: Talker, peer: Talker) -> Iterator[np.ndarray]:
        kept = self._steps.kept
        stamped, tsval, tsecr = kept.has_timestamps[rows], kept.tsval[rows], kept.tsecr[rows]
        since = differences(tsval, own.tsval)
        new = stamped & (~own.stamped | (since > 0))
        self.irregular |= stamped & own.stamped & (since < 0)
        yield stamped.view(np.uint8)
        yield new.view(np.uint8)
        for earlier, was_new in peer.stamps:
            order = np.sign(differences(tsecr, earlier)) + 1
            self.irregular |= stamped & was_new & (order == 0)  # it had not arrived, or one of them waited
            yield np.where(stamped & was_new, order, UNKNOWN).astype(np.uint8)
        own.stamps.append((tsval, new))
        own.tsval = np.where(stamped, tsval, own.tsval)
        own.stamped = own.stamped | stamped

    def _traffic(self, code: int, rows: np.ndarray) -> Iterator[np.ndarray]:
        stretches = self._steps.stretches
        for sender, talker in enumerate(self._talkers):
            if not code & PRESENT[sender]:
                continue
            cell = (rows, self._client if sender == 0 else 1 - self._client)
            ack, stamped = stretches.ack[cell], stretches.has_timestamps[cell]
            yield (ack != NONE).view(np.uint8)
            yield (ack >= 1).view(np.uint8)
            yield from covered(ack, self._talkers[1 - sender])
            peer = self._talkers[1 - sender]
            peer.pushed, open_ = None, stretches.unanswered[cell] > 0
            if not code & PRESENT[1 - sender]:
                peer.counted = peer.counted._replace(ip_id=np.where(open_, 0, peer.counted.ip_id))
            none, ip_id = np.zeros(len(rows), np.int64), stretches.ip_id[cell].astype(np.int64)
            tells = np.where((talker.ip_id == 0) | count_on(ip_id, talker.ip_id), np.maximum(ip_id, 0), 0)
            talker.counted = Counted(tells, none, none)
            talker.ip_id = np.where(ip_id > 0, ip_id, talker.ip_id)
            if talker.event_ns is not None:
                self._waits.append(stretches.first_ns[cell] - talker.event_ns)
                talker.event_ns = None
            self.irregular |= (
                stamped & talker.stamped & (differences(stretches.tsval[cell], talker.tsval) < 0)
            )
            talker.sent = np.maximum(talker.sent, stretches.end[cell])
            talker.acked = np.maximum(talker.acked, ack)
            talker.tsval = np.where(stamped, stretches.tsval[cell], talker.tsval)
            talker.stamped = talker.stamped | stamped
        present = stretches.segments[rows] > 0
        first_ns = np.where(present, stretches.first_ns[rows], FAR_NS).min(axis=1)
        self._let_time_pass(first_ns, np.where(present, stretches.last_ns[rows], 0).max(axis=1))
        yield from self._outstanding()

    def _times(self, moments: Moments, thresholds: Thresholds) -> Iterator[np.ndarray]:
        """Compare the time of each event of the close with those before it, and all with the end."""
        closes = next((i for i, code in enumerate(self._codes) if code & EVENT and code & (FIN | RST)), NEVER)
        timed = list(self._timed())
        if len(timed) > MOST_TIMED:
            self.irregular[:] = True
            return
        round_trip = self._round_trip()
        ends = [moments.now] if moments.successor is None else [moments.now, moments.successor]
        spans = [(end - moments.last, False) for end in ends] + [(wait, False) for wait in self._waits]
        for place, (_, code, time_ns) in enumerate(timed):
            spans += [(end - time_ns, False) for end in ends]
            for step, later, later_ns in timed[place + 1 :]:
                # Only a RST tells something about the traffic before it: who was gone since when.
                if step >= closes and (code & EVENT or later & RST):
                    spans.append((later_ns - time_ns, answers(code, later)))
        for span, brief in spans:
            yield from thresholds.buckets(span, round_trip, answers=brief)

    def _timed(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield the steps with their codes and times; traffic gives one for each end."""
        resets = any(code & EVENT and code & RST for code in self._codes)
        for step, code in enumerate(self._codes):
            rows = self._rows[:, step]
            if code & EVENT:
                yield step, code, self._steps.kept.time_ns[rows]
                continue
            for sender, column in enumerate((self._client, 1 - self._client)):
                if code & PRESENT[sender]:
                    yield step, code, self._steps.stretches.last_ns[rows, column]
                    if resets:  # since when an end is gone that answers with RST
                        yield step, code, self._steps.stretches.unanswered_ns[rows, column]

    def _round_trip(self) -> np.ndarray:
        """Return the longest answer time of the handshake: how long packets can cross."""
        result = np.zeros(len(self._rows), np.int64)
        first = [(i, code) for i, code in enumerate(self._codes[:4]) if code & EVENT and not code & RST]
        for (step, code), (later, answer) in pairwise(first):
            if code & SYN and (code ^ answer) & FROM_SERVER:
                time_ns = self._steps.kept.time_ns
                result = np.maximum(result, time_ns[self._rows[:, later]] - time_ns[self._rows[:, step]])
        return result


def answers(code: int, later: int) -> bool:
    """Whether two events may be of one breath: a FIN and its ACK, or an ACK and its sender's own FIN."""
    same = (code ^ later) & FROM_SERVER == 0
    return bool(later & FIN) if same else bool(code & FIN and not later & FIN)


def covered(ack: np.ndarray, peer: Talker) -> Iterator[np.ndarray]:
    """Yield which of the peer's events an acknowledgement covers."""
    for end in peer.ends:
        yield (ack >= end).view(np.uint8)


def relation(number: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how numbers lie to others, as far as it matters: equal, one off (a SYN or FIN), or more."""
    order = np.clip(number - other, -2, 2) + 2
    return np.where((number == NONE) | (other == NONE), UNKNOWN, order).astype(np.uint8)
