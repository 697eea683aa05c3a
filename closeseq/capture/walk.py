"""The walk along the records of a capture, for any format.

A walker is handed a window (any buffer: a piece of a file or a stream), goes along the record headers in it,
and returns how far it came. It keeps only what the format itself carries on from record to record, so a file
that still grows is walked by handing it the longer window.

Only a record's length shows where the next one begins, so a walk is a loop, one step of Python a record.
`walk` starts at many places together, and numpy takes all of them one record further in each round. Where a
record begins in the middle of a window can only be guessed, by a header that looks like those before it. A
stretch counts only if the walk up to there ends exactly where it begins; so a wrong guess only costs time:
the plain loop goes on until it meets a stretch that begins right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The greatest limit that libpcap has for a packet of any link layer. A record that claims more is damaged,
# and believing it would let a small file ask for all memory.
MAXIMUM_RECORD = 128 * 1024 * 1024

DAMAGE_REMEDY = "the packets before it are good; if the original is undamaged, copy it again"
CUT_REMEDY = "the rest is missing: let the capture finish, or copy the file again"

SAMPLE = 64  # records walked plainly first, to see how long they are and what their headers look like
APART = 64  # records, roughly, from one stretch's begin to the next one's
FEWEST = 8  # stretches for which a round of numpy is worth it
MOST_ROUNDS = 4 * APART  # then the records are not what they were in the sample


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a capture cannot be read on, and where: the parts of a `CaptureError` that a walker knows.

    Args:
        problem: what is wrong, as a clause.
        at: where, in bytes from the start of the window.
        remedy: what to do about it, as a clause.
    """

    problem: str
    at: int
    remedy: str = DAMAGE_REMEDY


def _none(dtype: type[np.generic]) -> NDArray[Any]:
    return np.empty(0, dtype)


@dataclass(slots=True)
class Walked:
    """The result of a walk: the columns of `Frames`, one entry a record, and where and why it stopped."""

    end: int  # the first byte of the window that was not used up
    wanted: int  # bytes that must follow from `end` for the next record to be whole, as far as is known
    trouble: Trouble | None = None  # why no walk can go on beyond `end`; None if more bytes may help
    offset: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # into the window
    captured: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # bytes
    wire: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # bytes
    time_ns: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # since the epoch
    link_type: NDArray[np.uint16] = field(default_factory=lambda: _none(np.uint16))  # LINKTYPE_
    interface: NDArray[np.uint32] = field(default_factory=lambda: _none(np.uint32))  # empty: there is one
    begin: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # of the record, in the window
    sections: NDArray[np.int64] = field(default_factory=lambda: _none(np.int64))  # a pcapng's section headers


class Walker(Protocol):
    """One format: `PcapWalker` or `PcapngWalker`."""

    @property
    def begins(self) -> int:
        """Where the first record begins, in bytes from the start of the file."""

    @property
    def dropped(self) -> int:
        """Packets that were lost, as the capture itself reports."""

    @property
    def untimed(self) -> int:
        """Packets that carry no time of their own."""

    @property
    def ended_ns(self) -> int | None:
        """When the capture ended, as it reports, since the epoch; None if it does not, or not plausibly."""

    def walk(self, window: memoryview, at: int, most: int) -> Walked:
        """Go along records of a window.

        The walker keeps state: no record may be walked twice, except the one at `Walked.end`.

        Args:
            window: a piece of the file; the columns of the result point into it.
            at: the byte at which to begin, which begins a record.
            most: the most records to go along.
        """

    def cut(self, window: memoryview, at: int) -> Trouble:
        """Return what the file's end cuts short.

        Args:
            window: a piece of the file, to its end.
            at: the byte beyond which the walk did not come; the window has more behind it.
        """


def first(where: NDArray[np.bool_]) -> int:
    """Return the index of the first true row, or the number of rows if none is."""
    return int(np.argmax(where)) if where.any() else len(where)


class RecordChain(Protocol):
    """The records of one window, in one format."""

    last: int  # the last byte at which a record's header is whole in the window, if it begins there

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from record to record in a plain loop. Every other walk must give the same.

        Args:
            at: the byte of the window at which to begin, which begins a record.
            before: records that begin at this byte or behind are left.
            most: the most records to go along.

        Returns:
            Where records begin, ascending. And where it ended, which is where the next one begins, if there
            is any more.
        """

    def following(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the records behind these begin, as `plain` says; `at` itself if it ends there.

        Never less than `at`. Beyond `last` any result will do.

        Args:
            at: int64, bytes of the window at which records begin, or may.
        """

    def plausible(self, at: NDArray[np.int64], width: int, sample: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return where records may begin.

        Args:
            at: int64, the first of `width` bytes each, none of them beyond `last`.
            width: how many bytes from each of these are possible beginnings.
            sample: int64, where records do begin; at least one, ascending.

        Returns:
            A mask of `width` columns, one row for each of `at`.
        """


@dataclass(frozen=True, slots=True)
class WalkStretches:
    """Parts of the chain, as it is if records begin where these do; columns of equal length but `records`."""

    begin: NDArray[np.int64]  # ascending
    end: NDArray[np.int64]  # where the next record begins: before the next stretch, there, or beyond
    behind: NDArray[np.int64]  # index in `records` behind its last
    records: NDArray[np.int64]  # where the records begin, stretch by stretch

    def run(self, index: int) -> tuple[NDArray[np.int64], int]:
        """Return the records from one stretch on, while one ends where the next begins; and the last end.

        Args:
            index: of the stretch to begin with, from 0.
        """
        last = index + first(self.end[index:-1] != self.begin[index + 1 :])
        before = int(self.behind[index - 1]) if index else 0
        return self.records[before : self.behind[last]], int(self.end[last])


def walk(chain: RecordChain, at: int, most: int) -> tuple[NDArray[np.int64], int]:
    """Return what `chain.plain` does for everything from `at` on, as an array.

    Args:
        chain: the records of a window.
        at: the byte at which to begin, which begins a record.
        most: the most records to go along.

    Returns:
        int64, ascending: where records begin. And where the walk ended, which is right only if that is before
        `most` records.
    """
    part, at = _plain(chain, at, chain.last + 1, min(most, SAMPLE))
    parts, count = [part], len(part)
    if count == SAMPLE:
        stretches = _stretches(chain, part, at, most - count)
        while count < most and len(part):
            index = int(np.searchsorted(stretches.begin, at))
            if index == len(stretches.begin):
                break
            begin = int(stretches.begin[index])
            if begin == at:
                part, at = stretches.run(index)
            else:  # where a guess was wrong, or none was made
                part, at = _plain(chain, at, begin, most - count)
            parts.append(part)
            count += len(part)
    if count < most:
        part, at = _plain(chain, at, chain.last + 1, most - count)
        parts.append(part)
    return np.concatenate(parts)[:most], at


def _plain(chain: RecordChain, at: int, before: int, most: int) -> tuple[NDArray[np.int64], int]:
    records, at = chain.plain(at, before, most)
    return np.array(records, np.int64), at


def _stretches(chain: RecordChain, sample: NDArray[np.int64], at: int, most: int) -> WalkStretches:
    """Walk from many places behind `at`, from each until it comes to the next; none if not worth it."""
    guesses = _guesses(chain, sample, at, most)
    if len(guesses) <= FEWEST:
        return WalkStretches(*[np.empty(0, np.int64)] * 4)
    begin, stop = guesses[:-1], guesses[1:]
    rounds = [begin]
    while np.count_nonzero(rounds[-1] < stop) >= FEWEST and len(rounds) <= MOST_ROUNDS:
        rounds.append(chain.following(rounds[-1]))  # also of those that have arrived: it costs less
    table = np.array(rounds).T
    records, following = table[:, :-1], table[:, 1:]
    own = (records < stop[:, np.newaxis]) & (records < following)
    count = np.count_nonzero(own, axis=1)
    return WalkStretches(begin, table[np.arange(len(begin)), count], np.cumsum(count), records[own])


def _guesses(chain: RecordChain, sample: NDArray[np.int64], at: int, most: int) -> NDArray[np.int64]:
    """Return where records may begin, about as many records apart as `APART` says; ascending."""
    length = np.diff(sample, append=at)
    apart = max(int(length.mean()) * APART, 1)
    width = min(int(length.max()), apart)
    end = min(chain.last - width + 1, at + most * apart // APART)
    places = np.arange(at, end, apart)
    if len(places) <= FEWEST:
        return places[:0]
    plausible = chain.plausible(places, width, sample)
    there = plausible.any(axis=1)
    found = places[there] + np.argmax(plausible[there], axis=1)
    distinct: NDArray[np.int64] = found[np.diff(found, prepend=-1) > 0]
    return distinct
