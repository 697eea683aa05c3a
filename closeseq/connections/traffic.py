"""The digest of the traffic between two events: all that is kept of most packets.

Also how soon each endpoint has answered, as seen at the capture point (`measure`). A segment that
acknowledges the very segment before it, of the peer, answers it: the time between the two is the way from the
capture point to the endpoint and back, and the endpoint's own delay. The least of these is a bound: a segment
that follows another sooner than that does not answer it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from closeseq.connections.sequence_space import GAP, NEW, OVERLAP, PROBE, REORDERED, RETRANSMISSION
from closeseq.connections.state import NONE, ColumnTable, column
from closeseq.packets.segments import FIN, RST, SYN, count_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.sequence_space import Batch
    from closeseq.connections.state import Histories, Sides

Columns: TypeAlias = "dict[str, NDArray[Any]]"

ADDED = ("segments", "bytes", "retransmissions", "gaps", "reordered", "probes", "zero_windows", "controls")
HIGHEST = ("end", "ack")
OF_FIRST = ("first_number", "first_ns", "first_ip_id")
OF_LAST = ("last_number", "last_ns", "has_timestamps", "tsval", "tsecr")
OF_PROBE = ("probe_number", "probe_ns")
TAIL = ("unanswered_number", "unanswered_ns")

REPEATED_NS = 900_000_000  # a SYN+ACK that was lost unseen is retransmitted after 1 s (RFC 6298 2.1)
LEAST_IDLE_NS = 1_000_000_000  # a shorter silence is no idleness


class Stretches(ColumnTable):
    """One row a stretch of traffic between two events; two values a row, of end 0 and end 1."""

    connection: NDArray[np.int32] = column(np.int32)  # index into Histories
    segments: NDArray[np.int64] = column(np.int64, width=2)
    bytes: NDArray[np.int64] = column(np.int64, width=2)  # of payload, retransmissions included
    first_number: NDArray[np.int64] = column(np.int64, width=2)  # of the packet
    last_number: NDArray[np.int64] = column(np.int64, width=2)
    first_ns: NDArray[np.int64] = column(np.int64, width=2)  # since the epoch
    last_ns: NDArray[np.int64] = column(np.int64, width=2)
    # segments with data, position retransmission or overlap
    retransmissions: NDArray[np.int64] = column(np.int64, width=2)
    gaps: NDArray[np.int64] = column(np.int64, width=2)  # segments with position gap
    reordered: NDArray[np.int64] = column(np.int64, width=2)  # segments that were overtaken
    probes: NDArray[np.int64] = column(np.int64, width=2)  # keepalives
    probe_number: NDArray[np.int64] = column(np.int64, width=2)  # the first of them
    probe_ns: NDArray[np.int64] = column(np.int64, width=2)  # and its time
    end: NDArray[np.int64] = column(np.int64, NONE, width=2)  # highest
    ack: NDArray[np.int64] = column(np.int64, NONE, width=2)  # highest
    has_timestamps: NDArray[np.bool_] = column(np.bool_, width=2)  # the last segment has
    tsval: NDArray[np.uint32] = column(np.uint32, width=2)  # of the last segment; 0 without timestamps
    tsecr: NDArray[np.uint32] = column(np.uint32, width=2)  # likewise
    first_ip_id: NDArray[np.int32] = column(np.int32, width=2)  # of the first segment; -1 for IPv6
    # of the last segment; -1 for IPv6; 0 if they do not simply count up
    ip_id: NDArray[np.int32] = column(np.int32, width=2)
    # segments that announce a window of 0, but for RSTs
    zero_windows: NDArray[np.int64] = column(np.int64, width=2)
    controls: NDArray[np.int64] = column(np.int64, width=2)  # with SYN, FIN or RST, of too many alike
    unanswered: NDArray[np.int64] = column(np.int64, width=2)  # segments after the other end's last one
    unanswered_number: NDArray[np.int64] = column(np.int64, width=2)  # the first of them
    unanswered_ns: NDArray[np.int64] = column(np.int64, width=2)  # and its time


def digest(
    batch: Batch, stretch: NDArray[np.int64], begins: NDArray[np.bool_], ends: NDArray[np.bool_]
) -> Columns:
    """Return the columns of `Stretches` for the stretches of a batch.

    Args:
        batch: the rows; the other arguments have an entry for each, in the order by connection.
        stretch: int64, the number of the row's stretch in this batch, from 0, or -1 for an event.
        begins: a mask of the first row of each stretch.
        ends: a mask of the last row of each stretch.
    """
    count = int(np.count_nonzero(begins))
    result = {
        name: np.full((count, 2), what.default, what.dtype)
        for name, what in Stretches.declared().items()
        if what.width
    }
    place = np.flatnonzero(stretch[batch.senders.order] >= 0)  # rows of traffic, by sender
    if not len(place):
        return result
    of_row = stretch[batch.senders.order[place]]
    sender = batch.rows.sender[batch.senders.order[place]]
    start = np.flatnonzero(np.diff(of_row * 2 + sender, prepend=-1))
    first, last = place[start], place[np.append(start[1:], len(place)) - 1]
    cell = (of_row[start], sender[start])
    segments, numbers = batch.segments, batch.numbers

    position, length = numbers.position[place], segments.length[place]
    reset = segments.flags[place] & RST > 0
    again = ((position == RETRANSMISSION) | (position == OVERLAP)) & (length > 0)
    for name, values in (
        ("segments", np.ones(len(place), np.int64)),
        ("bytes", length),
        ("retransmissions", again.astype(np.int64)),
        ("gaps", (position == GAP).astype(np.int64)),
        ("reordered", (position == REORDERED).astype(np.int64)),
        ("probes", (position == PROBE).astype(np.int64)),
        ("zero_windows", ((segments.window[place] == 0) & ~reset).astype(np.int64)),
        ("controls", (segments.flags[place] & (SYN | FIN | RST) > 0).astype(np.int64)),
    ):
        result[name][cell] = np.add.reduceat(values, start)
    probe = np.minimum.reduceat(np.where(position == PROBE, place, len(segments)), start)
    probed = np.flatnonzero(probe < len(segments))
    of_probe = (cell[0][probed], cell[1][probed])
    result["probe_number"][of_probe] = segments.number[probe[probed]]
    result["probe_ns"][of_probe] = segments.time_ns[probe[probed]]
    # A RST's numbers are not part of the stream. NONE is the lowest number.
    result["end"][cell] = np.maximum.reduceat(np.where(reset, NONE, numbers.end[place]), start)
    result["ack"][cell] = np.maximum.reduceat(np.where(reset, NONE, numbers.ack[place]), start)
    result["first_number"][cell], result["first_ns"][cell] = segments.number[first], segments.time_ns[first]
    result["last_number"][cell], result["last_ns"][cell] = segments.number[last], segments.time_ns[last]
    for name in ("has_timestamps", "tsval", "tsecr"):
        result[name][cell] = getattr(segments, name)[last]
    ip_id = segments.ip_id[place]
    goes_on = count_on(ip_id, np.roll(ip_id, 1))
    goes_on[start] = ip_id[start] > 0
    result["first_ip_id"][cell] = segments.ip_id[first]
    result["ip_id"][cell] = counting(segments.ip_id[last], np.logical_and.reduceat(goes_on, start))
    add_tails(result, batch, begins, np.flatnonzero(ends))
    return result


def add_tails(result: Columns, batch: Batch, begins: NDArray[np.bool_], last: NDArray[np.int64]) -> None:
    """Fill in what one endpoint sent at the end of each stretch and the peer has not answered.

    Only what takes sequence numbers, and a probe, calls for an answer (RFC 9293 3.8.4, 3.8.6.3).

    Args:
        result: the columns of `Stretches`, in which the last three are filled in.
        batch: the rows.
        begins: a mask of the first row of each stretch, in the order by connection.
        last: int64, ascending: the last row of each stretch, in that order.
    """
    sender, place = batch.rows.sender, batch.senders.place
    turns = begins | (np.diff(sender, prepend=sender[:1]) != 0)
    first = np.maximum.accumulate(np.where(turns, np.arange(len(turns)), 0))[last]
    numbers = batch.numbers
    calls = (numbers.end > numbers.seq) | (numbers.position == PROBE)
    calling = np.flatnonzero(calls[place])
    begin, past = np.searchsorted(calling, first), np.searchsorted(calling, last, side="right")
    stretch = np.flatnonzero(past > begin)
    cell = (stretch, sender[last[stretch]])
    row = place[calling[begin[stretch]]]
    result["unanswered"][cell] = (past - begin)[stretch]
    result["unanswered_number"][cell] = batch.segments.number[row]
    result["unanswered_ns"][cell] = batch.segments.time_ns[row]


def counting(ip_id: NDArray[np.int32], holds: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the last identifications where all counted on, and else 0; -1 (IPv6) stays -1.

    Two packets that two processors send may pass the capture point the other way round.

    Args:
        ip_id: int32, of the last packets.
        holds: a mask, of the same shape, true where all counted on.
    """
    return np.where(holds | (ip_id < 0), ip_id, 0)


def merge(stretches: Stretches, which: NDArray[np.int64], newer: Columns) -> None:
    """Add later traffic to stretches that had not ended.

    Args:
        stretches: of all connections.
        which: int64, the rows that go on, each at most once.
        newer: the columns of what is added, a row for each of `which`, as `digest` gives them.
    """
    older = {name: getattr(stretches, name)[which] for name in newer}
    had, has = older["segments"] > 0, newer["segments"] > 0
    answered = has[:, ::-1]  # the peer has sent something since
    unanswered = np.where(answered, 0, older["unanswered"]) + newer["unanswered"]
    for name in TAIL:
        stays = ~answered & (older["unanswered"] > 0)
        getattr(stretches, name)[which] = np.where(stays, older[name], newer[name])
    stretches.unanswered[which] = unanswered
    for name in OF_PROBE:
        getattr(stretches, name)[which] = np.where(older["probes"] > 0, older[name], newer[name])
    for name in ADDED:
        getattr(stretches, name)[which] = older[name] + newer[name]
    for name in HIGHEST:
        getattr(stretches, name)[which] = np.maximum(older[name], newer[name])
    for name in OF_FIRST:
        getattr(stretches, name)[which] = np.where(had, older[name], newer[name])
    both = had & has
    holds = (older["ip_id"] > 0) & count_on(newer["first_ip_id"], older["ip_id"])
    ip_id = np.where(both, counting(newer["ip_id"], holds), newer["ip_id"])
    stretches.ip_id[which] = np.where(has, ip_id, older["ip_id"])
    for name in OF_LAST:
        getattr(stretches, name)[which] = np.where(has, newer[name], older[name])


def measure(batch: Batch, histories: Histories, sides: Sides) -> None:
    """Keep how soon and how often each endpoint answered, and the longest silence that it ended with data.

    Only the first transmission of something that takes sequence numbers counts as asked: an answer after a
    retransmission may be to either (Karn's algorithm, RFC 6298 3). A RST is no answer: another host may have
    sent it. Nor counts what comes so late that it may be a retransmitted answer.

    Args:
        batch: the rows of a batch.
        histories: all connections; what was asked last is kept there.
        sides: their endpoints; what was measured is kept there.
    """
    rows, place = batch.rows, batch.senders.place
    segments, numbers = batch.segments, batch.numbers
    no_reset = segments.flags & RST == 0
    asks = (numbers.end > numbers.seq) & (numbers.position == NEW) & no_reset
    end = np.where(asks, numbers.end, NONE)[place]
    ack = np.where(no_reset, numbers.ack, NONE)[place]
    time_ns, sender, start = segments.time_ns[place], rows.sender, rows.start
    connection = rows.connection

    asked, asked_ns, asker = np.roll(end, 1), np.roll(time_ns, 1), np.roll(sender, 1)
    asked[start], asked_ns[start] = histories.asked_end[connection], histories.asked_ns[connection]
    asker[start] = histories.last_sender[connection]
    answers = (asked != NONE) & (asker != sender) & (ack == asked) & (time_ns >= asked_ns)
    answers = np.flatnonzero(answers & (time_ns - asked_ns < REPEATED_NS))
    side = 2 * batch.connection[answers] + sender[answers]
    np.minimum.at(sides.response_ns, side, time_ns[answers] - asked_ns[answers])
    np.add.at(sides.answers, side, 1)

    silent = np.flatnonzero((asked_ns > 0) & (time_ns - asked_ns >= LEAST_IDLE_NS))
    there = place[silent]
    further = (segments.length[there] > 0) & (numbers.position[there] == NEW) & (numbers.seq[there] > 1)
    silent = silent[further]
    side = 2 * batch.connection[silent] + sender[silent]
    np.maximum.at(sides.resumed_ns, side, time_ns[silent] - asked_ns[silent])

    last = start + rows.length - 1
    histories.asked_end[connection], histories.asked_ns[connection] = end[last], time_ns[last]
    histories.last_sender[connection] = sender[last]
