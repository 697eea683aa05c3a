"""What a watch says, written as it comes: blocks of text, lines of JSON or CSV, or nothing but a summary."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from itertools import islice
from typing import TYPE_CHECKING

from closeseq.report.news import block, headline, line, others
from closeseq.report.records import csv_header, csv_line
from closeseq.watch.news import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from closeseq.cli.output import Output
    from closeseq.connections.conversation import End
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.watch.labels import Label
    from closeseq.watch.news import News, Sighting
    from closeseq.watch.witness import Testimony, Witness

BLOCKS = 8  # of text at a time; nobody reads more, and each takes a millisecond
HEADLINES = 16  # beyond them, a line each
ALIKE = 3  # blocks that say the same, within ALIKE_SECONDS; then a line each
ALIKE_SECONDS = 10.0
BUDGET = 0.2  # seconds that writing records may take before packets are looked at again
FEWEST = 16  # records at a time, however slow the output is
ORDER = (Kind.REVISED, Kind.STUCK, Kind.CLOSED, Kind.OPEN, Kind.MORE)


class Alike:
    """When blocks were written about connections of which the same is said."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=ALIKE)

    def __bool__(self) -> bool:
        return bool(self._times)

    def room(self) -> int:
        """Return how many more may be written now."""
        recent = [one for one in self._times if one > time.monotonic() - ALIKE_SECONDS]
        return ALIKE - len(recent)

    def note(self, number: int) -> None:
        """Remember that so many were written."""
        self._times.extend([time.monotonic()] * min(number, ALIKE))


class Teller:
    """Writes news in one of the formats of `live`.

    Args:
        form: timeline, jsonl, csv or summary.
        output: where to.
        style: how text may look.
        wanted: which connections.
        witness: the kernel's word on them; None if it is not asked.
    """

    def __init__(
        self, form: str, output: Output, style: Style, wanted: Wanted, witness: Witness | None
    ) -> None:
        self.form = form
        self.output = output
        self.style = style
        self.wanted = wanted
        self.witness = witness
        self.told: Counter[Kind] = Counter()
        self._records_a_second = 500.0
        self._alike: defaultdict[tuple[Kind, Label], Alike] = defaultdict(Alike)
        if form == "csv":
            output.write([csv_header()])

    @property
    def most(self) -> int | None:
        """How many connections to judge at once: as many as can be written meanwhile; None for all."""
        if self.form not in {"jsonl", "csv"}:
            return None
        return max(FEWEST, round(self._records_a_second * BUDGET))

    def tell(self, news: Iterable[News]) -> None:
        """Write what there is to say."""
        chosen = sorted(
            (one for one in news if self.wanted.of_label(one.label)), key=lambda one: ORDER.index(one.kind)
        )
        for one in chosen:
            self.told[one.kind] += len(one)
        if self.form == "timeline":  # for a person, what changes nothing is no news
            self.output.write(self._text([one for one in chosen if one.kind is not Kind.MORE]))
        elif self.form != "summary":
            began, number = time.monotonic(), sum(len(one) for one in chosen)
            for record in self._records(chosen):
                self.output.write([record])  # whoever reads gets each at once
            if number:
                self._records_a_second = number / max(time.monotonic() - began, 1e-6)

    def _records(self, news: Iterable[News]) -> Iterator[str]:
        for seen in (seen for one in news for seen in one):
            if self.form == "csv":
                yield csv_line(seen)
            else:
                yield line(seen, self._testimony(seen) if self.witness else None)

    def _text(self, news: list[News]) -> Iterator[str]:
        """Yield blocks; of what is alike and of too much single lines, or how many more there are."""
        blocks, headlines = BLOCKS, HEADLINES
        for one in news:
            alike = self._alike[one.kind, one.label]
            share = min(len(one), blocks, alike.room()) if len(one) <= ALIKE + headlines else min(blocks, 1)
            if one.kind is Kind.OPEN and self._alike[Kind.STUCK, one.label]:
                share = 0  # it has been told, with its timeline, when it was found stuck
            for seen in islice(one, share):
                yield from _lines(block(seen, self._testimony(seen), self.style))
                yield "\n"
            alike.note(share)
            blocks -= share
            singly = len(one) - share if len(one) - share <= headlines else 0
            for at in range(share, share + singly):
                seen = one[at]
                yield from _lines(
                    headline(seen, self._testimony(seen) if seen.has_problem else {}, self.style)
                )
            headlines -= singly
            if rest := len(one) - share - singly:
                yield from _lines(others(one, rest, self.style))
            if singly or rest:
                yield "\n"

    def _testimony(self, seen: Sighting) -> Mapping[End, Testimony]:
        if self.witness is None:
            return {}
        return self.witness.testimony(seen, patience=0.1 if seen.has_problem else 0.0)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (text + "\n" for text in lines)
