"""All connections of a capture in one pass: counts, problems by cause, and the rows of the table.

A capture may have a million connections, so that nothing is kept of one but its row, and rows only up to a
limit: of more, those with a problem, then the first ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import Address, End
from closeseq.report.page.line import line
from closeseq.report.page.occupancy import OTHERS, Occupancy, most_used
from closeseq.report.problems import Group, causes
from closeseq.tcp.states import State
from closeseq.verdict.fault import CODE

if TYPE_CHECKING:
    from closeseq.report.page.line import PageRow, Place, RowEnding
    from closeseq.report.problems import ProblemCause
    from closeseq.report.selection import Selection

MOST_ROWS = 100_000  # of the table; some 50 bytes each
MOST_PORTS = 256  # whose sockets are counted by themselves
BINS = 60  # of the closes over time


@dataclass
class Overview:
    """What all connections show together, and the rows of the table."""

    occupancy: Occupancy
    number: int = 0  # of connections
    verdicts: Counter[str] = field(default_factory=Counter)  # connections with each
    shapes: Counter[str] = field(default_factory=Counter)  # likewise
    findings: Counter[str] = field(default_factory=Counter)  # connections that have one with this code
    notices: Counter[Place] = field(default_factory=Counter)  # connections with each
    states: Counter[str] = field(default_factory=Counter)  # connections with an endpoint that ends in it
    ports: Counter[int] = field(default_factory=Counter)  # connections by server port, as in occupancy.ports
    troubled_ports: Counter[int] = field(default_factory=Counter)  # those with a problem
    # Connections that ended, by verdict, in each bin of time.
    closes: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(BINS)])
    begun: list[int] = field(default_factory=lambda: [0] * BINS)  # problems, by when they began
    waiting: Counter[tuple[End, Address]] = field(default_factory=Counter)  # CLOSE_WAIT, but no problem yet
    troubled: list[int] = field(default_factory=list)  # indices of the connections with a problem
    examples: dict[tuple[str, str], int] = field(default_factory=dict)  # by verdict and shape: the first one
    _since: dict[Place, int] = field(default_factory=dict)
    _groups: dict[tuple[str, End | None, Address | None], Group] = field(default_factory=dict)
    _rows: list[PageRow] = field(default_factory=list)
    _others: list[PageRow] = field(default_factory=list)

    @classmethod
    def of(cls, selection: Selection) -> Overview:
        """Count the connections of a selection."""
        analysis = selection.analysis
        indices = selection.indices
        servers: Counter[int] = Counter()
        for address, members in analysis.places(indices, End.SERVER) if len(indices) else ():
            servers[address.port] += len(members)
        first_ns = analysis.reading.first_ns or 0
        found = cls(Occupancy(first_ns, analysis.reading.end_ns or first_ns, most_used(servers, MOST_PORTS)))
        for index, one in zip(indices, selection.drawn(line), strict=True):
            found.add(index, one)
        return found

    def add(self, index: int, one: PageRow) -> None:
        """Count one connection; `index` is its place in the analysis."""
        ending = one.ending
        self.number += 1
        self.verdicts[ending.verdict] += 1
        self.shapes[ending.shape] += 1
        self.notices.update(ending.notices)
        self.findings.update({code for code, _ in (*ending.problems, *ending.notices)})
        self.states.update(set(ending.states))
        self.examples.setdefault((ending.verdict, ending.shape), index)
        port = one.server.port if one.server.port in self.occupancy.ports else OTHERS
        self.ports[port] += 1
        self.occupancy.add(port, one.moves)
        if one.closed_ns is not None:
            self.closes[self.bin(one.closed_ns)][ending.verdict] += 1
        if one.blame is not None:
            self.troubled_ports[port] += 1
        self._blame(index, one)
        kept = self._rows if ending.problems or ending.verdict == CODE else self._others
        if len(kept) < MOST_ROWS:
            kept.append(one)

    def _blame(self, index: int, one: PageRow) -> None:
        if one.blame is None:
            for where, state in zip(End, one.ending.states, strict=True):
                if state == State.CLOSE_WAIT:
                    self.waiting[where, _program(one, where)] += 1
            return
        code, end, since_ns = one.blame
        self.troubled.append(index)
        self.begun[self.bin(since_ns)] += 1
        self._since[code, end] = min(since_ns, self._since.get((code, end), since_ns))
        key = code, end, None if end is None else _program(one, end)
        self._groups.setdefault(key, Group(*key)).indices.append(index)

    def bin(self, time_ns: int) -> int:
        """Return the bin, from 0, of a time since the Unix epoch; the capture's end is in the last one."""
        place = (time_ns - self.occupancy.first_ns) * BINS // self.occupancy.span_ns
        return min(max(place, 0), BINS - 1)

    @property
    def causes(self) -> list[ProblemCause]:
        """The problems by cause, the worst first; a cause's groups have no connections yet."""
        return causes(self._groups.values())

    def since_ns(self, cause: ProblemCause) -> int:
        """Return when a cause first showed, since the Unix epoch."""
        return self._since[cause.code, cause.end]

    @property
    def listed(self) -> int:
        """How many connections the table has."""
        return min(self.number, MOST_ROWS)

    @property
    def rows(self) -> list[PageRow]:
        """The connections of the table, by number."""
        return sorted([*self._rows, *self._others[: MOST_ROWS - len(self._rows)]])

    def table(self) -> dict[str, Any]:
        """Return the rows as columns for JSON; what repeats is a place in a list.

        Times are in microseconds: `start` since the capture began, `lasted` from first packet to last. Of
        `id` and `start`, which ascend or nearly do, each entry is the difference to the one before.
        """
        rows, first_ns = self.rows, self.occupancy.first_ns
        hosts: dict[str, int] = {}
        endings: dict[RowEnding, int] = {}

        def host(address: Address) -> int:
            return hosts.setdefault(address.address, len(hosts))

        columns = {
            "id": _differences([one.id for one in rows]),
            "start": _differences([(one.start_ns - first_ns) // 1000 for one in rows]),
            "lasted": [(one.last_ns - one.start_ns) // 1000 for one in rows],
            "client": [host(one.client) for one in rows],
            "client_port": [one.client.port for one in rows],
            "server": [host(one.server) for one in rows],
            "server_port": [one.server.port for one in rows],
            "packets": [one.packets for one in rows],
            "bytes": [one.bytes for one in rows],
            "ending": [endings.setdefault(one.ending, len(endings)) for one in rows],
        }
        return {"hosts": list(hosts), "endings": list(endings), "columns": columns}


def _differences(numbers: list[int]) -> list[int]:
    return [one - before for before, one in pairwise([0, *numbers])]


def _program(one: PageRow, end: End) -> Address:
    """Return where a program is: a server's address and port; of a client, whose ports vary, the address."""
    return Address(one.client.address, 0) if end is End.CLIENT else one.server
