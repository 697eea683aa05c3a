"""The summary of a capture whose connections are elsewhere: line by line as `report.summary` has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from closeseq.report.problems import (
    Group,
    ProblemCause,
    blame,
    details,
    shares,
    titled,
    worst_first,
)
from closeseq.report.summary import (
    grave,
    how_they_ended,
    not_told,
    noticed,
    still_open,
    their_shapes,
    together,
    what_was_read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.cluster.digest import Digest, WorstPlaces
    from closeseq.cluster.orders import Order
    from closeseq.cluster.spread import ProblemPlace
    from closeseq.cluster.totals import Totals
    from closeseq.connections.conversation import End
    from closeseq.report.text import Style


@dataclass(slots=True)
class Numerous(Group):
    """A group whose connections are elsewhere: only their number is known."""

    size: int = 0  # how many connections it has
    least: int = 0  # the number of its first connection

    @property
    def number(self) -> int:
        """How many connections it has."""
        return self.size

    @property
    def first(self) -> int:
        """The least number of one of them."""
        return self.least


@dataclass(frozen=True, slots=True)
class Widespread(ProblemCause):
    """A cause of which only the worst groups are here."""

    all_of_it: WorstPlaces

    @classmethod
    def of(cls, code: str, end: End | None, places: WorstPlaces) -> Widespread:
        """Return a cause.

        Args:
            code: of its finding, or verdict.
            end: whose problem it is; None: both, or neither.
            places: what is known of its groups.
        """
        groups = [
            Numerous(code, end, address, size=one.number, least=one.first)
            for address, one in places.worst.items()
        ]
        return cls(groups, places)

    @property
    def places(self) -> int:
        """How many groups there are, here and elsewhere."""
        return self.all_of_it.places

    @property
    def number(self) -> int:
        """How many connections there are, of all groups."""
        return self.all_of_it.number

    @property
    def first(self) -> int:
        """The least number of one of them."""
        return self.all_of_it.first


def summary_of(totals: Totals, digest: Digest, order: Order) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        totals: of all shards.
        digest: of all parts.
        order: what the workers had to make.
    """
    style, most, settings = order.style, order.most, order.settings
    yield from what_was_read(_Stand(totals, order).selection, style)
    if not totals.selected:
        return
    found = worst_first(Widespread.of(*cause, places) for cause, places in digest.causes.items())
    if digest.failed:
        yield from not_told(digest.failed, style)
    yield from together(digest.population, style, more=digest.more)
    yield ""
    waits = {} if found else digest.close_waits.ordered()
    yield from blame(found, style, _reraise, together=grave(digest.together), waiting=bool(waits))
    yield from still_open(waits, style, settings.limits.stuck_after_ns)
    yield ""
    yield from how_they_ended(totals.verdicts.ordered(), style)
    yield from noticed(totals.notices.ordered(), style)
    yield ""
    shapes = digest.shapes
    yield from their_shapes(shapes.ordered(), style, kinds=shapes.kinds, total=shapes.number)
    if found:
        yield ""
        yield from _details(digest, found, shares(found, most), style)


def _details(
    digest: Digest, found: Sequence[ProblemCause], shown: Sequence[Sequence[int]], style: Style
) -> Iterator[str]:
    share = {
        (group.code, group.end, group.address): number
        for cause, numbers in zip(found, shown, strict=True)
        for group, number in zip(cause.groups, numbers, strict=True)
    }

    def at(group: Group) -> ProblemPlace:
        return digest.causes[group.code, group.end].worst[group.address]

    def title(group: Group) -> list[str]:
        return titled(group, at(group).advice, style)

    def lines(group: Group) -> Iterator[str]:
        for _, drawn in at(group).shown[: share[group.code, group.end, group.address]]:
            yield from drawn

    yield from details(found, shown, title, lines, style)


def _reraise(_indices: object, fault: Exception) -> None:
    raise fault


class _Stand:
    """Stands for an analysis whose connections are elsewhere, for `what_was_read`."""

    def __init__(self, totals: Totals, order: Order) -> None:
        self.reading, self.settings, self.losses = order.reading, order.settings, totals.losses
        self._length = totals.connections
        self.selection: Any = _Selected(self, order, totals.selected)

    def __len__(self) -> int:
        return self._length


class _Selected:
    """Stands for a selection of it."""

    instead = ""

    def __init__(self, analysis: _Stand, order: Order, length: int) -> None:
        self.analysis, self.wanted, self._length = analysis, order.wanted, length

    def __len__(self) -> int:
        return self._length
