"""What a watch says, written as it comes: blocks of text, lines of JSON or CSV, or nothing but a summary."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from closeseq.cli.crowd import Crowd, is_grave
from closeseq.report.news import block, headline, line
from closeseq.report.records import csv_header, csv_line
from closeseq.watch.news import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from closeseq.cli.output import Output
    from closeseq.connections.conversation import End
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.watch.news import News, Sighting
    from closeseq.watch.witness import Testimony, Witness

BUDGET = 0.2  # seconds that writing records may take before packets are looked at again
PROMPT = 0.05  # seconds that a record may wait for others, to be written together with them
FEWEST = 4  # records at a time, however slow the output is
ORDER = (Kind.REVISED, Kind.STUCK, Kind.CLOSED, Kind.OPEN, Kind.MORE)


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
        self._crowd = Crowd()
        if form == "csv":
            output.write([csv_header()])

    @property
    def most(self) -> int | None:
        """How many connections to be told of at once: as many as can be written meanwhile; None for all."""
        if self.form not in {"jsonl", "csv"}:
            return None
        return max(FEWEST, round(self._records_a_second * BUDGET))

    def seconds_for(self, number: int) -> float:
        """Return how long writing of so many connections will take; 0 where only some of them are shown."""
        return 0.0 if self.most is None else number / self._records_a_second

    @property
    def due(self) -> bool:
        """Whether there is something to write although there is no news."""
        return self.form == "timeline" and self._crowd.due

    def tell(self, news: Iterable[News], *, last: bool = False) -> None:
        """Write what there is to say; of what is said last nothing waits for another time."""
        chosen = sorted((one for one in news if self.wanted.of_label(one.label)), key=_order)
        for one in chosen:
            self.told[one.kind] += len(one)
        if self.form == "timeline":  # for a person, what changes nothing is no news
            if last:
                self._crowd.end()
            self.output.write(self._text([one for one in chosen if one.kind is not Kind.MORE]))
        elif self.form != "summary":
            began, number = time.monotonic(), sum(len(one) for one in chosen)
            self.output.write(self._records(chosen), within=PROMPT)
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
        for one in news:
            blocks, lines = self._crowd.share(one)
            for seen in islice(one, blocks):
                yield from _lines(block(seen, self._testimony(seen), self.style))
                yield "\n"
            for at in range(blocks, blocks + lines):
                seen = one[at]
                yield from _lines(
                    headline(seen, self._testimony(seen) if seen.has_problem else {}, self.style)
                )
            if lines:
                yield "\n"
        if self._crowd.due:
            yield from _lines(self._crowd.counts(self.style))
            yield "\n"

    def _testimony(self, seen: Sighting) -> Mapping[End, Testimony]:
        if self.witness is None:
            return {}
        return self.witness.testimony(seen, patience=0.1 if seen.has_problem else 0.0)


def _order(news: News) -> tuple[int, bool]:
    return ORDER.index(news.kind), not is_grave(news)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (text + "\n" for text in lines)
