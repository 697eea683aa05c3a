"""The walk along a chain of records, many stretches of it at once.

Only a record's length tells where the next one begins, so a walk is a loop, one step of Python a record.
Here it starts at many places together, and numpy takes all of them one record further in each round.

Where a record begins in the midst of a window can only be guessed, by a header that looks like those
before it. A stretch counts only if the walk up to there ends exactly where it begins; so a wrong guess costs
time, and nothing else: the plain loop goes on until it meets a stretch that begins right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from closeseq.capture.records import first

SAMPLE = 64  # records walked plainly first, to see how long they are and what their headers look like
APART = 64  # records, roughly, from one stretch's begin to the next one's
FEWEST = 8  # stretches for which a round of numpy is worth it
MOST_ROUNDS = 4 * APART  # then the records are not what they were in the sample


class Chain(Protocol):
    """The records of one window, in one format."""

    last: int  # the last byte at which a record's header is whole in the window, if it begins there

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from record to record in a plain loop. What it answers is what every walk has to answer.

        Returns:
            Where records begin: before the byte `before`, and at most `most` of them. And where it
            ended, which is where the next one begins, if there is any more.
        """

    def following(self, at: np.ndarray) -> np.ndarray:
        """Return where the records behind these begin, as `plain` says; `at` itself if it ends there.

        Never less than `at`. Beyond `last` any answer will do.
        """

    def plausible(self, at: np.ndarray, width: int, sample: np.ndarray) -> np.ndarray:
        """Tell where records may begin.

        Args:
            at: the first of `width` bytes each that are to be judged, none of them beyond `last`.
            width: how many.
            sample: where records do begin.

        Returns:
            A mask of `width` columns, one row for each of `at`.
        """


@dataclass(frozen=True, slots=True)
class Stretches:
    """Parts of the chain, as it is if records begin where these do; columns of equal length but `records`."""

    begin: np.ndarray  # int64, ascending
    end: np.ndarray  # int64, where the next record begins: before the next stretch, there, or beyond
    behind: np.ndarray  # int64, index in `records` behind its last
    records: np.ndarray  # int64, where the records begin, stretch by stretch

    def run(self, index: int) -> tuple[np.ndarray, int]:
        """Return the records from this stretch on, while one ends where the next begins; and the last end."""
        last = index + first(self.end[index:-1] != self.begin[index + 1 :])
        before = int(self.behind[index - 1]) if index else 0
        return self.records[before : self.behind[last]], int(self.end[last])


def walk(chain: Chain, at: int, most: int) -> tuple[np.ndarray, int]:
    """Return what `chain.plain` does of everything from `at` on, as an array.

    Where it ended is told only if that is before `most` records.
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


def _plain(chain: Chain, at: int, before: int, most: int) -> tuple[np.ndarray, int]:
    records, at = chain.plain(at, before, most)
    return np.array(records, np.int64), at


def _stretches(chain: Chain, sample: np.ndarray, at: int, most: int) -> Stretches:
    """Walk from many places behind `at`, from each until it comes to the next; none if not worth it."""
    guesses = _guesses(chain, sample, at, most)
    if len(guesses) <= FEWEST:
        return Stretches(*[np.empty(0, np.int64)] * 4)
    begin, stop = guesses[:-1], guesses[1:]
    rounds = [begin]
    while np.count_nonzero(rounds[-1] < stop) >= FEWEST and len(rounds) <= MOST_ROUNDS:
        rounds.append(chain.following(rounds[-1]))  # also of those that have arrived: it costs less
    table = np.array(rounds).T
    records, following = table[:, :-1], table[:, 1:]
    own = (records < stop[:, np.newaxis]) & (records < following)
    count = np.count_nonzero(own, axis=1)
    return Stretches(begin, table[np.arange(len(begin)), count], np.cumsum(count), records[own])


def _guesses(chain: Chain, sample: np.ndarray, at: int, most: int) -> np.ndarray:
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
    distinct: np.ndarray = found[np.diff(found, prepend=-1) > 0]
    return distinct
