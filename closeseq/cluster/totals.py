"""What the summary says of connections by kinds that are few, however many connections there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from closeseq.cluster.kinds import MergedCounts
from closeseq.connections.strays import MOST, Encounters
from closeseq.report.summary import notices_of
from closeseq.verdict.fault import Faults

if TYPE_CHECKING:
    from closeseq.report.selection import Selection


@dataclass
class Totals:
    """Counts of the connections of some shards."""

    connections: int = 0  # in the shards
    selected: int = 0  # of these, those that are asked for
    # near the clients, near the servers, out of order; see `Connections.losses`
    losses: tuple[int, int, int] = (0, 0, 0)
    verdicts: MergedCounts[str] = field(default_factory=MergedCounts)
    findings: MergedCounts[str] = field(default_factory=MergedCounts)
    notices: MergedCounts[tuple[str, str]] = field(default_factory=MergedCounts)
    faults: Faults = field(default_factory=Faults)  # at which connections closeseq itself failed
    # which of them may continue another one, in its order; None where only some are asked for
    suspects: Encounters | None = None

    @classmethod
    def of(cls, selection: Selection) -> Totals:
        """Return the totals of one shard."""
        analysis = selection.analysis
        made, numbers = cls(len(analysis), len(selection), analysis.losses), analysis.numbers
        for outcome, members in selection.classes:
            first, number = numbers[members[0]], len(members)
            made.verdicts.add(outcome.verdict, number, (first, 0))
            for code in {finding.code for finding in outcome.findings}:
                made.findings.add(code, number, (first, 0))
            for place, notice in enumerate(notices_of(outcome)):
                made.notices.add(notice, number, (first, place))
        made.faults = analysis.faults
        made.suspects = None if selection.wanted else analysis.suspects
        return made

    def merge(self, other: Totals) -> None:
        """Add the totals of another shard: its connections are none of these."""
        self.connections += other.connections
        self.selected += other.selected
        one, two, three = (a + b for a, b in zip(self.losses, other.losses, strict=True))
        self.losses = one, two, three
        for name in ("verdicts", "findings", "notices"):
            getattr(self, name).merge(getattr(other, name))
        self.faults.merge(other.faults)
        if other.suspects is not None:
            both = [other.suspects] if self.suspects is None else [self.suspects, other.suspects]
            self.suspects = Encounters.joined(both).some(slice(MOST))
