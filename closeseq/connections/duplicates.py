"""Duplicates: the same packet again, because it was captured twice or because the network delivered it twice.

A packet is a duplicate when the same header was captured within a moment before it. A retransmission is none:
on Linux its IPv4 identification or timestamp differs. Where both are absent, only a very short time between
the two shows a duplicate. Where both are there, a SYN or FIN is recognised for longer: else it would look
like a retransmission, and so like a loss.

Duplicates are left out and counted, by what their frames show:

- `ELSEWHERE`: in another VLAN, with another TTL, on another interface, with other addresses or in another
  direction at the link: one packet that was captured twice on its way.
- `LATER`: at the same place, more than a millisecond later: no capture takes so long. The network duplicated
  it before, and its receiver got both.
- `AGAIN`: at the same place, at once: one or the other. What followed may show which (compose.py).
- `RESET`: a RST without IPv4 identification and timestamps, at once. Each may be the answer to another
  segment (RFC 9293 3.10.7.1), so it may as well have been sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.connections.grouping import arrange, hashed, packed
from closeseq.packets.segments import FIN, RST, SYN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.packets.segments import Segments

MOMENT_NS = 1_000_000
MARKED_MOMENT_NS = 10_000_000  # where an IP id or a timestamp would show a retransmission
LATE_NS = 1_000_000_000  # where both would, and it is a SYN or FIN
# A duplicate comes at most so many packets after its original. Where time stands still or runs backwards, a
# moment may be the whole capture, and every batch would be compared with all of it.
MOST_APART = 1 << 15

UNIQUE, ELSEWHERE, LATER, AGAIN, RESET = range(5)  # kinds


class DuplicateFinder:
    """Finds duplicates, across batches."""

    def __init__(self) -> None:
        self._recent = RecentPackets(MARKED_MOMENT_NS)
        self._handshakes = RecentPackets(LATE_NS)
        self._clock_ns = np.iinfo(np.int64).min  # the latest time so far; it never runs back

    def find(self, segments: Segments, sides: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the kind of each row, UNIQUE for most.

        Args:
            segments: a batch, which follows those before.
            sides: int64, of each row its pair and sender, 2 * pair + sender.

        Returns:
            uint8, one of the kinds above.
        """
        words = identities(segments, sides)
        where = hashed([segments.place, segments.vlan, segments.ttl.astype(np.uint64)])
        marked = (segments.ip_id > 0) | segments.has_timestamps
        limit = np.where(marked, MARKED_MOMENT_NS, MOMENT_NS)
        clock_ns = np.maximum(np.maximum.accumulate(segments.time_ns), self._clock_ns)
        self._clock_ns = int(clock_ns[-1])
        number = segments.number
        times = np.stack([segments.time_ns, clock_ns, number])
        duplicate, age = self._recent.find(words, where, times, limit)
        kind = np.where(duplicate, ELSEWHERE, UNIQUE).astype(np.uint8)
        kind[duplicate & (age >= 0)] = AGAIN
        kind[duplicate & (age > MOMENT_NS)] = LATER
        kind[(kind == AGAIN) & (segments.flags & RST > 0) & ~marked] = RESET

        # Only of few packets, for they are kept for long.
        rows = np.flatnonzero(
            (segments.flags & (SYN | FIN) > 0)
            & (segments.flags & RST == 0)
            & (segments.ip_id > 0)
            & segments.has_timestamps
        )
        words, limit = [word[rows] for word in words], np.full(len(rows), LATE_NS)
        _, age = self._handshakes.find(words, where[rows], times[:, rows], limit)
        late = rows[age >= 0]
        kind[late[kind[late] == UNIQUE]] = LATER
        return kind

    def renumber(self, new_pair: NDArray[np.int64]) -> None:
        """Take new indices of pairs.

        Args:
            new_pair: int64, by old index: the new one, or -1 where the pair is gone.
        """
        self._recent.renumber(new_pair)
        self._handshakes.renumber(new_pair)


class RecentPackets:
    """The identities of the last moment, and where they were captured.

    Args:
        longest_ns: how long they are kept.
    """

    def __init__(self, longest_ns: int) -> None:
        self._longest_ns = longest_ns
        self._words: list[NDArray[np.uint64]] = []  # identities of the last moment, see `identities`
        self._where = np.empty(0, np.uint64)
        self._outdated = np.empty(0, np.bool_)  # a newer packet of that identity was captured elsewhere
        self._time_ns = np.empty(0, np.int64)
        self._number = np.empty(0, np.int64)  # of the packet

    def find(
        self,
        words: list[NDArray[np.uint64]],
        where: NDArray[np.uint64],
        times: NDArray[Any],
        limit: NDArray[np.int64],
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which rows are duplicates, and for how long the same had been at the same place, else -1.

        Args:
            words: what two duplicates have in common, from `identities`.
            where: uint64, a hash of the place where each was captured.
            times: three rows, int64: the time since the epoch, the latest time in the capture up to each
                segment, and the number of its packet.
            limit: int64, how much later a duplicate may come, in nanoseconds.

        Returns:
            A mask, and int64 nanoseconds.
        """
        time_ns, clock_ns, number = times
        new = len(time_ns)
        if not new:
            return np.zeros(0, np.bool_), np.zeros(0, np.int64)
        old = len(self._time_ns)
        if old:
            words = [np.concatenate(both) for both in zip(self._words, words, strict=True)]
            where, time_ns = np.concatenate([self._where, where]), np.concatenate([self._time_ns, time_ns])
            number = np.concatenate([self._number, number])
        limit = np.concatenate([np.full(old, -1), limit])
        clock_ns = np.concatenate([time_ns[:old], clock_ns])  # the first ones are not used

        def within(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.bool_]:
            # What is dropped once does not come back, whatever later packets' times are.
            age = time_ns[after] - time_ns[before]
            remembered = time_ns[before] >= clock_ns[after] - self._longest_ns
            remembered &= number[after] - number[before] <= MOST_APART
            result: NDArray[np.bool_] = (age >= 0) & (age <= limit[after]) & remembered
            return result

        order, begins = repeated(words)
        group = np.cumsum(begins).astype(np.uint64)
        again = np.flatnonzero(~begins)
        duplicates = np.zeros(len(time_ns), np.bool_)
        before, after = order[again - 1], order[again]
        outdated = np.concatenate([self._outdated, np.zeros(new, np.bool_)])
        duplicates[after[within(before, after) & ~outdated[before]]] = True
        outdated[before] = True

        place, begins = arrange([group, where[order]])
        order, again = order[place], np.flatnonzero(~begins)
        before, after = order[again - 1], order[again]
        age = np.full(len(time_ns), -1)
        good = within(before, after)
        age[after[good]] = (time_ns[after] - time_ns[before])[good]

        keep = (time_ns >= clock_ns[-1] - self._longest_ns) & (number >= number[-1] - MOST_APART)
        keep[before] = False  # only the newest packet of an identity and a place counts
        self._words, self._where = [word[keep] for word in words], where[keep]
        self._time_ns, self._outdated, self._number = time_ns[keep], outdated[keep], number[keep]
        return duplicates[old:], age[old:]

    def renumber(self, new_pair: NDArray[np.int64]) -> None:
        """Take new indices of pairs; `new_pair` is as in `DuplicateFinder.renumber`."""
        if not self._words:
            return
        side = self._words[0].astype(np.int64)
        pair = new_pair[side // 2]
        known = pair >= 0
        self._words = [word[known] for word in self._words]
        self._words[0] = (pair * 2 + side % 2)[known].astype(np.uint64)
        self._where, self._outdated = self._where[known], self._outdated[known]
        self._time_ns, self._number = self._time_ns[known], self._number[known]


def identities(segments: Segments, sides: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
    """Return what two duplicates have in common, packed into a few uint64 columns without loss.

    Args:
        segments: a batch.
        sides: int64, of each row its pair and sender, 2 * pair + sender.
    """
    small = segments.flags.astype(np.uint64) << np.uint64(16) | segments.window.astype(np.uint64)
    return [
        sides.astype(np.uint64),
        packed(segments.seq, segments.ack),
        packed(segments.tsval, segments.tsecr),
        packed(segments.dsack_left, segments.dsack_right),
        packed(small, segments.ip_id.view(np.uint32)),
        segments.length.astype(np.uint64),
    ]


def repeated(words: list[NDArray[np.uint64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return all rows that share their identity with another (and a few more), and where an identity begins.

    Args:
        words: uint64 columns of equal length, from `identities`.

    Returns:
        int64, rows of one identity as neighbours, each as captured; and a mask over these.
    """
    digest = hashed(words)
    ordered = np.sort(digest)
    several = ordered[1:][ordered[1:] == ordered[:-1]]
    rows = np.flatnonzero(np.isin(digest, several)) if len(several) else np.empty(0, np.int64)
    order, begins = arrange([word[rows] for word in words])
    return rows[order], begins
