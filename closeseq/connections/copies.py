"""Identical copies of a packet: the "any" device, bonds, bridges, loopback seen twice.

A packet is a copy when the same header went by within a moment before it. A retransmission is none: on
Linux its IP id or timestamp differs. Where both are absent only a very short moment tells them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import arrange, hashed, packed

if TYPE_CHECKING:
    from closeseq.packets.segments import Segments

MOMENT_NS = 1_000_000
MARKED_MOMENT_NS = 10_000_000  # where an IP id or a timestamp would tell a retransmission
LONGEST_NS = max(MOMENT_NS, MARKED_MOMENT_NS)
# A copy comes at most so many segments after its original. Where time stands still or runs backwards, a
# moment may be the whole capture, and every batch would be compared with all of it.
MOST_APART = 1 << 15


class Copies:
    """Finds copies, across batches: remembers the identities of the last moment."""

    def __init__(self) -> None:
        self._words: list[np.ndarray] = []  # identities of the last moment, see `identities`
        self._time_ns = np.empty(0, np.int64)
        self._place = np.empty(0, np.int64)  # among all segments so far
        self._seen = 0  # segments so far
        self._clock_ns = np.iinfo(np.int64).min  # the latest time so far; it never runs back

    def find(self, segments: Segments, sides: np.ndarray) -> np.ndarray:
        """Return a mask of the rows that are copies; `sides` tells pair and sender of each row."""
        old = len(self._time_ns)
        words = identities(segments, sides)
        if old:
            words = [np.concatenate(both) for both in zip(self._words, words, strict=True)]
        time_ns = np.concatenate([self._time_ns, segments.time_ns])
        place = np.concatenate([self._place, self._seen + np.arange(len(segments))])
        clock_ns = np.maximum(np.maximum.accumulate(time_ns), self._clock_ns)
        before, after = same_identity(words)

        # What is forgotten once does not come back, whatever later packets' clocks say.
        age = time_ns[after] - time_ns[before]
        marked = (segments.ip_id > 0) | segments.has_timestamps
        limit = np.concatenate([np.zeros(old, np.int64), np.where(marked, MARKED_MOMENT_NS, MOMENT_NS)])
        remembered = time_ns[before] >= clock_ns[after] - LONGEST_NS
        remembered &= place[after] - place[before] <= MOST_APART
        copies = np.zeros(len(time_ns), np.bool_)
        copies[after[(age >= 0) & (age <= limit[after]) & remembered]] = True

        self._clock_ns = int(clock_ns[-1])
        self._seen += len(segments)
        keep = (time_ns >= self._clock_ns - LONGEST_NS) & (place >= self._seen - MOST_APART)
        keep[before] = False  # only the newest packet of an identity counts
        self._words = [word[keep] for word in words]
        self._time_ns, self._place = time_ns[keep], place[keep]
        return copies[old:]

    def renumber(self, new_pair: np.ndarray) -> None:
        """Take new indices of pairs: `new_pair` gives each old one its new one, or -1 where it is gone."""
        if not self._words:
            return
        side = self._words[0].astype(np.int64)
        pair = new_pair[side // 2]
        known = pair >= 0
        self._words = [word[known] for word in self._words]
        self._words[0] = (pair * 2 + side % 2)[known].astype(np.uint64)
        self._time_ns, self._place = self._time_ns[known], self._place[known]


def identities(segments: Segments, sides: np.ndarray) -> list[np.ndarray]:
    """Return what two copies have in common, packed into a few uint64 columns without loss."""
    small = segments.flags.astype(np.uint64) << np.uint64(16) | segments.window.astype(np.uint64)
    return [
        sides.astype(np.uint64),
        packed(segments.seq, segments.ack),
        packed(segments.tsval, segments.tsecr),
        packed(segments.dsack_left, segments.dsack_right),
        packed(small, segments.ip_id.view(np.uint32)),
        segments.length.astype(np.uint64),
    ]


def same_identity(words: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows of one identity that follow each other: all the earlier, all the later."""
    digest = hashed(words)
    ordered = np.sort(digest)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    rows = np.flatnonzero(np.isin(digest, repeated)) if len(repeated) else np.empty(0, np.int64)
    order, begins = arrange([word[rows] for word in words])
    order, again = rows[order], np.flatnonzero(~begins)
    return order[again - 1], order[again]
