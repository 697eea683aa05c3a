"""The connections of an analysis that are asked for, and their counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, overload

from closeseq.verdict.model import FindingCode, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from closeseq.analysis import Analysis
    from closeseq.classes.outcome import FindingOutcome, Outcome
    from closeseq.connection import Connection
    from closeseq.verdict.model import Finding
    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.updates import Pattern

    Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Wanted:
    """What is asked for: connections that match any entry of each field that is not empty."""

    verdicts: frozenset[str] = frozenset()  # codes
    findings: frozenset[str] = frozenset()  # codes
    ids: frozenset[int] = frozenset()  # numbers of connections
    errors: frozenset[str] = frozenset()  # that a program got

    def __bool__(self) -> bool:
        return bool(self.verdicts or self.findings or self.ids or self.errors)

    def of_class(self, outcome: Outcome) -> bool:
        """Whether connections with this outcome are asked for; `ids` are not looked at."""
        if self.verdicts and outcome.verdict not in self.verdicts:
            return False
        if self.errors and not any(code in self.errors for code, _ in outcome.errors):
            return False
        return not self.findings or any(outcome.has(code) for code in self.findings)

    def of_pattern(self, pattern: Pattern) -> bool:
        """Whether connections with this pattern are asked for; `ids` and `errors` are not looked at."""
        if self.verdicts and pattern.verdict not in self.verdicts:
            return False
        return not self.findings or bool(
            self.findings & {code for code, _ in pattern.problems | pattern.notices}
        )

    def __str__(self) -> str:
        named = [f"--connection {number}" for number in sorted(self.ids)]
        named += [f"--verdict {code}" for code in sorted(self.verdicts)]
        named += [f"--finding {code}" for code in sorted(self.findings)]
        named += [f"--why {','.join(sorted(self.errors))}"] if self.errors else []
        return " ".join(named)


@dataclass
class Selection:
    """The connections of one analysis that are asked for, in the order of their first packets.

    Counts come from the outcomes of classes, not from single connections: a capture may have a million.
    """

    analysis: Analysis
    wanted: Wanted = field(default_factory=Wanted)
    instead: str = ""  # what the capture holds in place of the ports or hosts asked for

    def __iter__(self) -> Iterator[Connection]:
        return self.analysis.among(self.indices)

    @property
    def indices(self) -> Sequence[int]:
        """Their indices in the analysis, ascending."""
        if not self.wanted:
            return range(len(self.analysis))
        return self._indices()

    def _indices(self, *, troubled: bool = False) -> list[int]:
        """Return the indices of all that are asked for, or of those with a problem."""
        found = [members for outcome, members in self.classes if outcome.has_problem or not troubled]
        return self.analysis.ordered(found)

    def drawn(self, draw: Callable[[Connection], Drawn]) -> Iterator[Drawn]:
        """Yield what `draw` makes of each of them; see `Analysis.drawn`."""
        return self.analysis.drawn(draw, self.indices)

    def __len__(self) -> int:
        return sum(len(members) for _, members in self.classes) if self.wanted else len(self.analysis)

    @property
    def classes(self) -> Iterator[tuple[Outcome, Sequence[int]]]:
        """The outcome of each class, and the indices of its members that are asked for.

        Not kept: every connection may be in a class of its own.
        """
        for one in self.analysis.classes:
            if not self.wanted.of_class(one.outcome):
                continue
            members = one.among(self.wanted.ids)
            if len(members):
                yield one.outcome, members

    @cached_property
    def verdicts(self) -> Mapping[str, int]:
        """How many connections have each verdict."""
        return self._count(lambda outcome: {outcome.verdict})

    @cached_property
    def findings(self) -> Mapping[str, int]:
        """How many connections have each finding."""
        return self._count(lambda outcome: {finding.code for finding in outcome.findings})

    @cached_property
    def shapes(self) -> Mapping[str, int]:
        """How many connections have each shape, the most frequent first."""
        return self._count(lambda outcome: {outcome.shape})

    def _count(self, codes: Callable[[Outcome], set[str]]) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for outcome, members in self.classes:
            for code in codes(outcome):
                counts[code] += len(members)
        return dict(counts.most_common())

    @property
    def population(self) -> list[PopulationFinding]:
        """What they show together; nothing where only some connections are asked for."""
        return [] if self.wanted else self.analysis.population

    def problems(self) -> list[int]:
        """Return the indices of the connections with a problem, ascending."""
        return self._indices(troubled=True)


@overload
def troubles(judged: Connection) -> list[Finding]: ...
@overload
def troubles(judged: Outcome) -> list[FindingOutcome]: ...
def troubles(judged: Connection | Outcome) -> Sequence[Finding | FindingOutcome]:
    """Return the problems among the findings of a connection or class."""
    return [finding for finding in judged.findings if finding.severity is Severity.PROBLEM]


# The problem that names the program to fix comes first: where one endpoint is stuck in CLOSE_WAIT, the
# FIN_WAIT_2 of its peer is only the consequence.
FIRST_BLAME = (FindingCode.STUCK_CLOSE_WAIT,)


# Of problems the worst first: those that a program causes and that do not mend themselves; then a peer or
# path that is gone; then what the kernels mend.
WORST_FIRST = (
    FindingCode.STUCK_CLOSE_WAIT,
    FindingCode.DATA_AFTER_CLOSE,
    FindingCode.HALF_OPEN,
    FindingCode.STUCK_FIN_WAIT_2,
    FindingCode.STUCK_FIN_WAIT_1,
    FindingCode.STUCK_CLOSING,
    FindingCode.STUCK_LAST_ACK,
    FindingCode.TIME_WAIT_ASSASSINATED,
    FindingCode.FINAL_ACK_LOST,
)
RANK: dict[str, int] = {code: rank for rank, code in enumerate(WORST_FIRST)}
MIDDLE = RANK[FindingCode.HALF_OPEN]  # of those not named here


def rank(code: str) -> int:
    """Return how grave a problem is; 0 is the worst."""
    return RANK.get(code, MIDDLE)


def gravity(finding: Finding | FindingOutcome) -> tuple[bool, bool]:
    """Return the key that sorts findings: problems first, and of these FIRST_BLAME."""
    return finding.severity is not Severity.PROBLEM, finding.code not in FIRST_BLAME
