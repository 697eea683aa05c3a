"""The differences between two sides, and what is to be made of each.

Something is worse if there is more of what nobody wants: a connection that a RST ended, a finding that is a
problem, a close that takes longer. It must be more by a tenth at least, and not by chance. The probability
that chance alone makes such a difference is that of Fisher's exact test, which holds for small numbers too.
It must be below a limit that all lines together share (Bonferroni): who compares two captures that do not
differ is to read of something worse in one of twenty cases at most, however many lines there are.

Who closes first, and notices, may differ; that is neither better nor worse.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from closeseq.diff.chance import of_more
from closeseq.diff.tally import Feature
from closeseq.verdict import vocabulary
from closeseq.verdict.model import Severity, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.diff.tally import Example, Side

CHANCE = 0.05  # that something is called worse where nothing differs
LEAST = 1.1  # times as much, or as little, that a difference must be
LEAST_NS = 1_000_000  # by which a close must take longer or shorter
QUANTILES = {"median": 0.5, "99th percentile": 0.99}  # of the time to close

BAD = frozenset(
    {
        *(VerdictCode.UNANSWERED, VerdictCode.REFUSED, VerdictCode.ABORTED_OPEN),
        *(VerdictCode.RESET, VerdictCode.REPLACED, VerdictCode.CLOSING),
    }
)


class ChangeKind(StrEnum):
    """What is to be made of a difference."""

    WORSE = "worse"
    BETTER = "better"
    DIFFERENT = "different"  # neither better nor worse
    UNCLEAR = "unclear"  # it may be chance, or is small
    SAME = "same"


@dataclass(frozen=True)
class Change:
    """One line of a comparison."""

    feature: Feature  # of the kind time-to-close: its code is a quantile
    before: int  # connections; of a time, nanoseconds
    after: int  # likewise
    chance: float  # the probability that chance alone makes such a difference; 1 if there is none
    way: ChangeKind
    rises: bool  # whether there is more of it after
    example: Example | None = None  # of what is worse or may be: a connection of the second side


@dataclass(frozen=True)
class Comparison:
    """Two sides, and the lines in which they may differ."""

    before: Side
    after: Side
    changes: tuple[Change, ...]
    limit: float  # the probability below which a line is no chance

    def of(self, way: ChangeKind) -> list[Change]:
        """Return the lines of which that is to be made, the least likely by chance first."""
        return sorted((one for one in self.changes if one.way is way), key=lambda one: one.chance)

    @property
    def worse(self) -> bool:
        """Whether something is worse."""
        return any(one.way is ChangeKind.WORSE for one in self.changes)


@dataclass(frozen=True)
class Difference:
    """One line before it is judged."""

    feature: Feature  # these as in `Change`
    before: int
    after: int
    chance: float
    rises: bool
    enough: bool  # whether the difference is large enough to matter
    bad: bool  # whether more of it is worse, and less better


def compare(before: Side, after: Side, chance: float = CHANCE) -> Comparison:
    """Compare two sides.

    Args:
        before, after: the sides.
        chance: the probability at which something is called worse where nothing differs; 1 to call every
            rise worse.
    """
    lines = [*_shares(before, after), *_times(before.closes_ns, after.closes_ns)]
    judged = sum(line.bad for line in lines)
    limit = chance / max(judged, 1) if chance < 1 else 1.0
    changes = []
    for line in lines:
        way = _way(line, limit)
        example = None
        if line.bad and line.rises and way in {ChangeKind.WORSE, ChangeKind.UNCLEAR}:
            time = line.feature.kind == "time-to-close"
            example = after.slowest() if time else after.example(line.feature)
        changes.append(Change(line.feature, line.before, line.after, line.chance, way, line.rises, example))
    return Comparison(before, after, tuple(changes), limit)


def _way(line: Difference, limit: float) -> ChangeKind:
    if line.before == line.after and line.chance >= 1:
        return ChangeKind.SAME
    if line.chance > limit or not line.enough:
        return ChangeKind.UNCLEAR
    if not line.bad:
        return ChangeKind.DIFFERENT
    return ChangeKind.WORSE if line.rises else ChangeKind.BETTER


def _shares(before: Side, after: Side) -> Iterator[Difference]:
    """Yield a line for each verdict, finding, and who closed first."""
    order = {"verdict": 0, "finding": 1, "closed-first": 2}
    features = {**before.counts, **after.counts}
    for feature in sorted(
        features, key=lambda one: (order[one.kind], -before.counts[one] - after.counts[one], one)
    ):
        counts = before.counts[feature], before.connections, after.counts[feature], after.connections
        yield _line(feature, counts, bad=_is_bad(feature))


def _line(feature: Feature, counts: tuple[int, int, int, int], *, bad: bool) -> Difference:
    had, of_before, has, of_after = counts
    if not of_before or not of_after:  # nothing can be said
        return Difference(feature, had, has, 1.0, rises=has > had, enough=False, bad=bad)
    rises, falls = has * of_before > had * of_after, has * of_before < had * of_after
    less, more = sorted((had / of_before, has / of_after))
    chance = 1.0
    if rises:
        chance = of_more(had, of_before, has, of_after)
    elif falls:
        chance = of_more(has, of_after, had, of_before)
    return Difference(feature, had, has, chance, rises=rises, enough=more >= LEAST * less, bad=bad)


def _times(before: Sequence[int], after: Sequence[int]) -> Iterator[Difference]:
    """Yield a line for each quantile of the time to close.

    How many of each side take longer than that quantile of both sides together, or as long, is compared as
    shares are (Mood's median test, for any quantile).
    """
    if not before or not after:
        return
    before, after = sorted(before), sorted(after)
    together = sorted([*before, *after])
    for name, share in QUANTILES.items():
        was, now = quantile(before, share), quantile(after, share)
        begin = _beginning(together, share)
        longer = [len(times) - bisect_left(times, begin) for times in (before, after)]
        line = _line(
            Feature("time-to-close", name), (longer[0], len(before), longer[1], len(after)), bad=True
        )
        rises = now > was
        less, more = sorted((was, now))
        enough = line.rises is rises and more >= LEAST * less and more - less >= LEAST_NS
        yield Difference(line.feature, was, now, line.chance, rises=rises, enough=enough, bad=True)


def _beginning(together: Sequence[int], share: float) -> int:
    """Return the value with which the longest times begin: that of the quantile, or the next larger one.

    Of the two that which parts the times more nearly at the quantile: many may be equal.
    """
    value = quantile(together, share)
    larger = bisect_right(together, value)
    if larger == len(together):
        return value
    goal = share * len(together)
    return value if goal - bisect_left(together, value) < larger - goal else together[larger]


def quantile(ordered: Sequence[int], share: float) -> int:
    """Return the value that this share of the ordered values does not exceed (the nearest rank).

    Args:
        ordered: ascending, at least one.
        share: from 0 to 1, to whole hundredths.
    """
    rank = -(-round(share * 100) * len(ordered) // 100)  # rounded up
    return ordered[max(rank, 1) - 1]


def _is_bad(feature: Feature) -> bool:
    if feature.kind == "verdict":
        return feature.code in BAD
    return feature.kind == "finding" and vocabulary.lookup(feature.code).severity is Severity.PROBLEM
