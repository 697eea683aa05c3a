"""What `live` writes of its updates: blocks of text, lines of JSON or CSV, or nothing before the summary.

A busy server closes thousands of connections a second, nearly all alike, and a person reads the text. So
text is throttled: of updates that are alike, a few are shown with their timelines and some more in a line
each; the others are counted, and the counts written now and then. Problems have an allowance of their own.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from itertools import islice
from typing import TYPE_CHECKING

from closeseq.report.containment import bare_lines, contained
from closeseq.report.live_text import bare_line, block, headline, line, others
from closeseq.report.records import csv_header, csv_record, population_line
from closeseq.report.summary import together
from closeseq.watch.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from closeseq.cli.output import Output
    from closeseq.connections.conversation import End
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.verdict.model import FindingCode
    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.kernel_view import KernelAnswer, KernelView
    from closeseq.watch.updates import Pattern, Update, Updates

SECONDS = 10.0  # for which the following allowances are, and after which counts are written
ALIKE = 3  # blocks of updates that are alike: of the same kind and pattern
BLOCKS = {False: 12, True: 24}  # blocks in all, without and with a problem
LINES = {False: 50, True: 100}
LAST_BLOCKS = {False: 8, True: 8}  # at the end, when a person waits for the summary
LAST_LINES = {False: 16, True: 32}
CROWD = 16  # with more alike updates at once, only one block is written, and no lines
COUNTS = 8  # patterns with a count of their own; the others are counted together
MOST_KINDS = 1000  # kinds and patterns whose allowance is kept


class Allowance:
    """How much may still be written within `SECONDS`.

    Args:
        most: how many things within that time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: deque[float] = deque(maxlen=most)

    def left(self) -> int:
        """Return how much is left now."""
        since = time.monotonic() - SECONDS
        while self._times and self._times[0] <= since and len(self._times) > 1:
            self._times.popleft()
        return self._most - sum(one > since for one in self._times)

    def take(self, number: int) -> None:
        """Use that much of it."""
        self._times.extend([time.monotonic()] * min(number, self._most))


class Throttle:
    """Decides which updates are shown in blocks and lines, and counts the others."""

    def __init__(self) -> None:
        self._alike: dict[tuple[UpdateKind, Pattern], Allowance] = {}
        # Of what was shown in a block as stuck: its shape, the finding, and the endpoint.
        self._stuck: set[tuple[str, FindingCode, End | None]] = set()
        self._rest: Counter[tuple[UpdateKind, Pattern]] = Counter()
        self._next_counts = 0.0
        self._blocks = {grave: Allowance(most) for grave, most in BLOCKS.items()}
        self._lines = {grave: Allowance(most) for grave, most in LINES.items()}

    def share(self, updates: Updates) -> tuple[int, int]:
        """Return how many of these connections to show in a block each, and then how many in a line each."""
        if len(self._alike) > MOST_KINDS:
            self._alike = {key: alike for key, alike in self._alike.items() if alike.left() < ALIKE}
        key, number = (updates.kind, updates.pattern), len(updates)
        grave = is_grave(updates)
        alike = self._alike.setdefault(key, Allowance(ALIKE))
        blocks = min(alike.left(), self._blocks[grave].left(), 1 if number > CROWD else number)
        stuck = {(updates.pattern.shape, *one) for one in updates.pattern.stuck}
        if updates.kind is UpdateKind.OPEN and stuck & self._stuck:
            blocks = 0  # it was shown, with its timeline, when it was found stuck; time may have added to it
        if updates.kind is UpdateKind.STUCK and blocks and len(self._stuck) < MOST_KINDS:
            self._stuck |= stuck
        lines = 0 if number > CROWD else min(number - blocks, self._lines[grave].left())
        alike.take(blocks)
        self._blocks[grave].take(blocks)
        self._lines[grave].take(lines)
        self._rest[key] += number - blocks - lines
        return blocks, lines

    @property
    def due(self) -> bool:
        """Whether it is time to write how many were only counted."""
        return bool(+self._rest) and time.monotonic() >= self._next_counts

    def counts(self, style: Style) -> Iterator[str]:
        """Yield how many connections were only counted since the last time, the grave ones first."""
        found = sorted((+self._rest).items(), key=lambda one: (not _is_grave(*one[0]), -one[1]))
        self._rest.clear()
        self._next_counts = time.monotonic() + SECONDS
        for (kind, pattern), number in found[:COUNTS]:
            yield from others(kind, pattern, number, style)
        if len(found) > COUNTS:
            number = sum(number for _, number in found[COUNTS:])
            text = f"and {number:,} more connections in {len(found) - COUNTS:,} other ways"
            yield from style.wrap(text, first="    ")

    def end(self) -> None:
        """Renew the allowances for the end."""
        self._blocks = {grave: Allowance(most) for grave, most in LAST_BLOCKS.items()}
        self._lines = {grave: Allowance(most) for grave, most in LAST_LINES.items()}
        self._next_counts = 0.0


def is_grave(updates: Updates) -> bool:
    """Return whether a person has to see these: stuck, revised, or with a problem."""
    return _is_grave(updates.kind, updates.pattern)


def _is_grave(kind: UpdateKind, pattern: Pattern) -> bool:
    return kind in {UpdateKind.REVISED, UpdateKind.STUCK} or bool(pattern.problems)


BUDGET = 0.2  # seconds that writing records may take before packets are read again
PROMPT = 0.05  # seconds that a record may wait for others, to be written together
FEWEST = 4  # records at a time, however slow the output is
ORDER = (UpdateKind.REVISED, UpdateKind.STUCK, UpdateKind.CLOSED, UpdateKind.OPEN, UpdateKind.MORE)


class UpdateWriter:
    """Writes updates in one of the formats of `live`.

    Args:
        form: timeline, jsonl, csv or summary.
        output: where to write.
        style: how text may look.
        wanted: the connections to write.
        kernel: the kernel's view; None if it is not asked.
        population: whether JSON lines also tell what connections show together.
    """

    def __init__(
        self,
        form: str,
        output: Output,
        style: Style,
        wanted: Wanted,
        kernel: KernelView | None,
        *,
        population: bool = False,
    ) -> None:
        self.form = form
        self.output = output
        self.style = style
        self.wanted = wanted
        self.kernel = kernel
        self.population = population
        self.written: Counter[UpdateKind] = Counter()
        self._records_a_second = 500.0
        self._throttle = Throttle()
        if form == "csv":
            output.write([csv_header()])

    @property
    def most(self) -> int | None:
        """How many updates to take at once: as many as can be written within BUDGET; None for all."""
        if self.form not in {"jsonl", "csv"}:
            return None
        return max(FEWEST, round(self._records_a_second * BUDGET))

    def seconds_for(self, number: int) -> float:
        """Return how many seconds writing so many connections takes; 0 if only some are shown."""
        return 0.0 if self.most is None else number / self._records_a_second

    @property
    def due(self) -> bool:
        """Whether there is something to write without a new update."""
        return self.form == "timeline" and self._throttle.due

    def write(self, updates: Iterable[Updates], *, last: bool = False) -> None:
        """Write updates; `last`: there will be no others, so everything is written now."""
        chosen = sorted((one for one in updates if self.wanted.of_pattern(one.pattern)), key=_order)
        for one in chosen:
            self.written[one.kind] += len(one)
        if self.form == "timeline":  # for a person, updates that change nothing are left out
            if last:
                self._throttle.end()
            self.output.write(self._text([one for one in chosen if one.kind is not UpdateKind.MORE]))
        elif self.form != "summary":
            began, number = time.monotonic(), sum(len(one) for one in chosen)
            self.output.write(self._records(chosen), within=PROMPT)
            if number:
                self._records_a_second = number / max(time.monotonic() - began, 1e-6)

    def write_news(self, found: Sequence[PopulationFinding], capture: str) -> None:
        """Write what connections show together, as soon as it shows; nothing in a table or at the end only.

        Args:
            found: what is new.
            capture: the name of the interface or file.
        """
        if self.form == "timeline":
            self.output.write(_lines([*together(found, self.style), ""]))
        elif self.form == "jsonl" and self.population:
            self.output.write([population_line(capture, found)])

    def _records(self, updates: Iterable[Updates]) -> Iterator[str]:
        for seen in (seen for one in updates for seen in one):
            yield csv_record(seen) if self.form == "csv" else contained(seen, self._line, bare_line)

    def _text(self, updates: list[Updates]) -> Iterator[str]:
        """Yield blocks, then single lines, then counts, as the throttle allows."""
        for one in updates:
            blocks, lines = self._throttle.share(one)
            for seen in islice(one, blocks):
                yield from _lines(contained(seen, self._block, self._bare))
                yield "\n"
            for at in range(blocks, blocks + lines):
                yield from _lines(contained(one[at], self._headline, self._bare))
            if lines:
                yield "\n"
        if self._throttle.due:
            yield from _lines(self._throttle.counts(self.style))
            yield "\n"

    def _line(self, seen: Update) -> str:
        return line(seen, self._answers(seen) if self.kernel else None)

    def _block(self, seen: Update) -> list[str]:
        return list(block(seen, self._answers(seen), self.style))

    def _headline(self, seen: Update) -> list[str]:
        return list(headline(seen, self._answers(seen) if seen.has_problem else {}, self.style))

    def _bare(self, seen: Update) -> list[str]:
        return bare_lines(seen, self.style)

    def _answers(self, seen: Update) -> Mapping[End, KernelAnswer]:
        if self.kernel is None:
            return {}
        return self.kernel.answers(seen, wait=0.1 if seen.has_problem else 0.0)


def _order(updates: Updates) -> tuple[int, bool]:
    return ORDER.index(updates.kind), not is_grave(updates)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (text + "\n" for text in lines)
