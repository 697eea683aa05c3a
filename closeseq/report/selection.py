"""Which connections of an analysis are asked for, and what they come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from closeseq.verdict.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from closeseq.analysis import Analysis, Connection


@dataclass(frozen=True)
class Wanted:
    """What is asked for. Within a field any one will do, every field that is not empty must hold."""

    verdicts: frozenset[str] = frozenset()
    findings: frozenset[str] = frozenset()
    ids: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.verdicts or self.findings or self.ids)

    def __contains__(self, connection: Connection) -> bool:
        if self.ids and connection.id not in self.ids:
            return False
        if self.verdicts and connection.verdict not in self.verdicts:
            return False
        return not self.findings or any(connection.has(code) for code in self.findings)

    def __str__(self) -> str:
        named = [f"--connection {number}" for number in sorted(self.ids)]
        named += [f"--verdict {code}" for code in sorted(self.verdicts)]
        named += [f"--finding {code}" for code in sorted(self.findings)]
        return " ".join(named)


@dataclass
class Selection:
    """The connections of one analysis that are asked for, in the order of their first packets.

    Without a wish everything comes from the analysis, which knows its counts without looking at each
    connection; a capture may have a million.
    """

    analysis: Analysis
    wanted: Wanted = field(default_factory=Wanted)
    instead: str = ""  # what the capture holds in place of the ports or hosts asked for

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._chosen) if self.wanted else iter(self.analysis)

    def __len__(self) -> int:
        return len(self._chosen) if self.wanted else len(self.analysis)

    @cached_property
    def _chosen(self) -> list[Connection]:
        analysis, ids = self.analysis, self.wanted.ids
        asked = (analysis[i - 1] for i in sorted(ids) if i <= len(analysis)) if ids else analysis
        return [connection for connection in asked if connection in self.wanted]

    @cached_property
    def verdicts(self) -> Mapping[str, int]:
        """How many connections have each verdict."""
        return Counter(c.verdict for c in self._chosen) if self.wanted else self.analysis.verdicts

    @cached_property
    def findings(self) -> Mapping[str, int]:
        """How many connections have each finding."""
        if not self.wanted:
            return self.analysis.findings
        return Counter(code for c in self._chosen for code in {f.code for f in c.findings})

    @cached_property
    def shapes(self) -> Mapping[str, int]:
        """How many connections have each shape, the most frequent first."""
        if not self.wanted:
            return self.analysis.shapes
        return dict(Counter(c.shape for c in self._chosen).most_common())

    def problems(self) -> Iterator[Connection]:
        """Yield the connections with something to mend, in the order of their first packets."""
        if self.wanted:
            return (connection for connection in self._chosen if troubles(connection))
        return self.analysis.problems()


def troubles(connection: Connection) -> list[Finding]:
    """Return the findings of a connection that are something to mend."""
    return [finding for finding in connection.findings if finding.severity is Severity.PROBLEM]


# Of several problems of one connection the one that names the end to mend comes first: where an end is
# stuck in CLOSE_WAIT, that its peer is stuck in FIN_WAIT_2 is only the consequence.
FIRST_BLAME = ("stuck-close-wait",)


def gravity(finding: Finding) -> tuple[bool, bool]:
    """Return what sorts findings by how much they matter to who is to mend something."""
    return finding.severity is not Severity.PROBLEM, finding.code not in FIRST_BLAME
