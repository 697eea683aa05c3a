"""What grows with the connections of a capture, divided so that each part has all of what it has any of.

A part has all connections to some of the servers, all problems of some of the addresses, and all connections
of some of the shapes. A shard's parts stand in one file, behind a table of where each begins.
"""

from __future__ import annotations

import pickle
import zlib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from closeseq.cluster.kinds import MergedCounts
from closeseq.connections.grouping import packed
from closeseq.connections.idling import Closes
from closeseq.report.problems import advice_of, detail, gather
from closeseq.report.summary import close_waits
from closeseq.shards.keys import get, hashed
from closeseq.shards.tables import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.conversation import Address, End
    from closeseq.report.selection import Selection
    from closeseq.report.text import Style
    from closeseq.shards.keys import Held

MEMBERS = 1 << 15  # connections in one part: some 110 bytes each
MOST_PARTS = 1 << 10  # each reads a piece of what each shard has


@dataclass
class ProblemPlace:
    """Connections with the same problem at the same address, as a `Group` that can be sent and merged."""

    number: int  # of connections
    first: int  # the least number of a connection
    advice: str  # of the first of them
    shown: list[tuple[int, list[str]]]  # the first of them: number, and lines of the summary

    def merge(self, other: ProblemPlace, most: int | None) -> None:
        """Add the connections of another shard.

        Args:
            other: of the same problem at the same address.
            most: how many connections are shown of both together; None for all.
        """
        self.number += other.number
        if other.first < self.first:
            self.first, self.advice = other.first, other.advice
        self.shown = sorted([*self.shown, *other.shown])[:most]


@dataclass
class Spread:
    """What grows with the connections of some shards, or a part of it."""

    # each of some connections; empty where only some are asked for
    closes: list[Closes] = field(default_factory=list)
    problems: dict[tuple[str, End | None, Address | None], ProblemPlace] = field(default_factory=dict)
    # endpoints in CLOSE_WAIT
    close_waits: MergedCounts[tuple[End, Address]] = field(default_factory=MergedCounts)
    shapes: MergedCounts[str] = field(default_factory=MergedCounts)

    def __bool__(self) -> bool:
        return bool(self.closes or self.problems or self.close_waits.of or self.shapes.of)

    @classmethod
    def of(cls, selection: Selection, style: Style, most: int | None) -> Spread:
        """Return what one shard has.

        Args:
            selection: of the shard.
            style: how text may look.
            most: how many connections with a problem may be shown; None for all.
        """
        made, numbers = cls(), selection.analysis.numbers
        for outcome, members in selection.classes:
            made.shapes.add(outcome.shape, len(members), (numbers[members[0]], 0))
        for waiting, indices in close_waits(selection).items():
            made.close_waits.add(waiting, len(indices), (numbers[min(indices)], 0))
        for group in (group for cause in gather(selection, None) for group in cause.groups):
            shown = group.connections[:most]
            made.problems[group.code, group.end, group.address] = ProblemPlace(
                group.number,
                group.connections[0].id,
                advice_of(group),
                [(one.id, detail(one, style)) for one in shown],
            )
        made.closes = [] if selection.wanted else [selection.analysis.closes]
        return made

    def merge(self, other: Spread, most: int | None) -> None:
        """Add what another shard has.

        Args:
            other: its connections are none of these.
            most: how many connections are shown of each problem at each address; None for all.
        """
        self.closes += other.closes
        self.close_waits.merge(other.close_waits)
        self.shapes.merge(other.shapes)
        for key, problem in other.problems.items():
            if key in self.problems:
                self.problems[key].merge(problem, most)
            else:
                self.problems[key] = problem

    def take_closes(self) -> Closes:
        """Return the rows of all connections, of which there must be some; none stay here.

        They are joined column by column, so that there is never more than one column twice.
        """
        columns = [[getattr(one, each.name) for one in self.closes] for each in fields(Closes)]
        self.closes.clear()
        return Closes(*(np.concatenate(columns.pop(0)) for _ in fields(Closes)))

    def divided(self, parts: int, key: int) -> list[Spread]:
        """Return the same in parts.

        Args:
            parts: how many.
            key: 64 bits of the run: all its tasks divide alike, and nobody else knows how.
        """
        made = [Spread() for _ in range(parts)]
        for closes in self.closes:
            for part, some in _by_server(closes, parts, key):
                made[part].closes.append(some)
        for where, problem in self.problems.items():
            made[_part_of(where, parts, key)].problems[where] = problem
        for name in ("close_waits", "shapes"):
            counts = getattr(self, name)
            for kind, number in counts.of.items():
                getattr(made[_part_of(kind, parts, key)], name).add(kind, number, counts.first[kind])
        return made


def _by_server(closes: Closes, parts: int, key: int) -> Iterator[tuple[int, Closes]]:
    """Yield the rows of each part that has any. What rules group together are connections to one server."""
    server = [closes.server_high, closes.server_low, packed(closes.version, closes.server_port)]
    part = (hashed(server, key) % np.uint64(parts)).astype(np.int64)
    closes = closes.some(np.argsort(part, kind="stable"))
    ends: NDArray[np.int64] = np.cumsum(np.bincount(part, minlength=parts))
    begin = 0
    for number, end in enumerate(ends.tolist()):
        if end > begin:
            yield number, closes.some(slice(begin, end))
        begin = end


def _part_of(kind: object, parts: int, key: int) -> int:
    """Return the part of something whose text is the same in every process."""
    return zlib.crc32(repr(kind).encode(), key & 0xFFFFFFFF) % parts


def parts_for(connections: int) -> int:
    """Return into how many parts to divide what so many connections have."""
    return min(max(1, -(-connections // MEMBERS)), MOST_PARTS)


def as_bytes(several: Sequence[Spread]) -> bytes:
    """Return parts as bytes, of which each can be read alone."""
    pieces = [zlib.compress(pickle.dumps(one), QUICK) if one else b"" for one in several]
    edges = np.cumsum([0, *map(len, pieces)]) + 8 * (len(pieces) + 1)
    return edges.astype(np.int64).tobytes() + b"".join(pieces)


def piece_of(held: Held, part: int) -> Spread:
    """Return one of the parts that a shard has.

    Args:
        held: what `as_bytes` has made of them, or where it is.
        part: which part, from 0.

    Raises:
        OSError: the file cannot be read.
    """
    begin, end = np.frombuffer(get(held, 8 * part, 8 * (part + 2)), np.int64).tolist()
    if begin == end:
        return Spread()
    piece: Spread = pickle.loads(zlib.decompress(get(held, begin, end)))  # noqa: S301 - of our own run
    return piece
