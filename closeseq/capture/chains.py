"""Which capture files continue each other.

A ring of files that `tcpdump -G`, `dumpcap -b` or `closeseq live --rotate` wrote is one capture: a connection
does not end where a file does. The times decide. Files that follow one another are a chain, in the order of
their first packets; files that overlap in time were captured in different places, so are different chains.
Only where a file could go on in more than one chain, its name decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from typing import TYPE_CHECKING, NamedTuple

from closeseq.capture.extent import extent, is_stream
from closeseq.capture.reader import STANDARD_INPUT
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from closeseq.capture.extent import Extent

SLACK_NS = 1_000_000_000  # a file's first packet may be so much before the last one of the file before it,
SLACK_SHARE = 10  # and at most this part of the shorter one's time
ENDING = re.compile(r"(\.(pcapng|pcap|cap|dmp)\d*)?(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)
DIGITS = re.compile(r"\d+")


class Chain(NamedTuple):
    """Files that are one capture."""

    paths: tuple[str, ...]  # in the order of their times
    empty: tuple[str, ...] = ()  # files beside them that hold no packet
    beside: tuple[str, ...] = ()  # the first files of other chains, which overlap this one in time


class Timed(NamedTuple):
    """A file that holds packets; they sort by their times."""

    first_ns: int
    last_ns: int
    natural: tuple[str | int, ...]
    position: int  # among the files that were named
    path: str

    def follows(self, other: Timed) -> bool:
        """Whether it may go on where the other one, which begins no later, ends."""
        shorter_ns = min(self.last_ns - self.first_ns, other.last_ns - other.first_ns)
        return self.first_ns >= other.last_ns - min(SLACK_NS, shorter_ns // SLACK_SHARE)


def find_chains(paths: Sequence[str]) -> tuple[list[Chain], list[CaptureError]]:
    """Return the chains that these files make, in the order in which their first ones are named.

    What cannot be looked at before it is read (standard input, a pipe) is a chain of its own.

    Returns:
        The chains, and why files are in none of them: they are no captures, or cannot be read.
    """
    if len(paths) == 1:
        return [Chain((paths[0],))], []
    extents: dict[int, Extent] = {}
    broken, alone = [], []
    for index, path in enumerate(paths):
        if path == STANDARD_INPUT or is_stream(path):
            alone.append((index, Chain((path,))))
            continue
        try:
            extents[index] = extent(path)
        except CaptureError as error:
            broken.append(error)
    found = sorted([*_with_the_empty(extents), *alone])
    return [chain for _, chain in found], broken


def _with_the_empty(extents: dict[int, Extent]) -> list[tuple[int, Chain]]:
    """Return the chains of files that were looked at, each with the least index of its files."""
    timed = [
        Timed(one.first_ns, one.last_ns, natural(one.path), index, one.path)
        for index, one in extents.items()
        if one.first_ns is not None and one.last_ns is not None
    ]
    empty = [(index, one.path) for index, one in extents.items() if one.first_ns is None]
    runs = arranged(timed)
    if not runs:
        return [(index, Chain((path,))) for index, path in empty]
    belonging: list[list[str]] = [[] for _ in runs]
    for _, path in empty:
        nearest = max(
            range(len(runs)), key=lambda number: max(likeness(path, one.path) for one in runs[number])
        )
        belonging[nearest].append(path)
    return [
        (
            min(one.position for one in run),
            Chain(tuple(one.path for one in run), tuple(without), _beside(run, runs)),
        )
        for run, without in zip(runs, belonging, strict=True)
    ]


def _beside(run: list[Timed], runs: list[list[Timed]]) -> tuple[str, ...]:
    """Return the first files of the other chains whose times overlap."""
    first_ns, last_ns = run[0].first_ns, max(one.last_ns for one in run)
    return tuple(
        other[0].path
        for other in runs
        if other is not run and other[0].first_ns <= last_ns and max(o.last_ns for o in other) >= first_ns
    )


def arranged(files: Iterable[Timed]) -> list[list[Timed]]:
    """Return files in chains, each in the order of its times.

    First those of one naming, which are of one rotation if they are of any; then chains of which no file
    overlaps one of the other are one.
    """
    families: dict[str, list[list[Timed]]] = {}
    for one in sorted(files):
        runs = families.setdefault(family(one.path), [])
        ending = [run for run in runs if one.follows(run[-1])]
        if ending:
            max(ending, key=lambda run: (likeness(run[-1].path, one.path), run[-1].last_ns)).append(one)
        else:
            runs.append([one])
    chains: list[list[Timed]] = []
    for run in sorted(run for runs in families.values() for run in runs):
        into = next((chain for chain in chains if _fits(run, chain)), None)
        if into is None:
            chains.append(run)
        else:
            for one in run:
                insort(into, one)
    return chains


def _fits(run: list[Timed], chain: list[Timed]) -> bool:
    """Whether no file of the run overlaps one of the chain."""
    for one in run:
        at = bisect_left(chain, one)
        if at and not one.follows(chain[at - 1]):
            return False
        if at < len(chain) and not chain[at].follows(one):
            return False
    return True


def family(path: str) -> str:
    """Return what the names of one rotation have in common: all but numbers, and how each file is packed."""
    return DIGITS.sub("0", ENDING.sub("", path))


def likeness(one: str, other: str) -> int:
    """Return how many characters two names have in common at their beginnings and at their ends."""
    return _in_common(one, other) + _in_common(one[::-1], other[::-1])


def _in_common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def natural(path: str) -> tuple[str | int, ...]:
    """Return what sorts names by their numbers: f9 comes before f10."""
    parts = re.split(r"(\d+)", path)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
