"""What is monitored as counters, in Prometheus' text format: closes, findings, sockets, packets.

What counts when:

- A connection counts in `closes` once, when it is reported as closed, with its verdict at that moment. If
  later packets contradict that, it counts in `revised`, with its new verdict; a counter never goes back.
- Each finding of a connection counts once, when the connection is first reported with it.
- Sockets are a gauge: how many are in each state now, from `Monitor.counts`.

No label holds an address, or anything else from a packet but the ports that were asked for: their number, and
that of all series, is known from the start, and each series begins with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from closeseq.connections.conversation import ENDS, End
from closeseq.settings import SECOND
from closeseq.tcp.states import NO_SOCKET, State
from closeseq.verdict.model import ENDED, FindingCode, Initiator, VerdictCode
from closeseq.watch.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from closeseq.watch.monitor import Monitor
    from closeseq.watch.updates import Updates

Labels: TypeAlias = "tuple[str, ...]"  # a family's labels, or the values of one series, in the same order

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER_PORT = "other"
BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric: its name, what it means, and the names of its labels."""

    name: str
    kind: str  # counter, gauge or histogram
    meaning: str  # one sentence
    labels: Labels = ()  # their names


CLOSES = MetricFamily(
    "closeseq_closes_total",
    "counter",
    "Connections reported as closed, by verdict, by who began the end, and by server port.",
    ("verdict", "initiator", "port"),
)
REVISED = MetricFamily(
    "closeseq_revised_total",
    "counter",
    "Connections that later packets showed to have closed in another way, by their new verdict.",
    ("verdict", "port"),
)
FINDINGS = MetricFamily(
    "closeseq_findings_total",
    "counter",
    "Connections with each finding (closeseq explain CODE), by server port.",
    ("code", "port"),
)
CLOSE_SECONDS = MetricFamily(
    "closeseq_close_duration_seconds",
    "histogram",
    "From a connection's first FIN to the last event of its close, by server port.",
    ("port",),
)
SOCKETS = MetricFamily(
    "closeseq_sockets", "gauge", "Sockets in each state now, as packets show them.", ("endpoint", "state")
)
OPEN = MetricFamily("closeseq_open_connections", "gauge", "Connections that are not over.")
CONNECTIONS = MetricFamily("closeseq_connections_total", "counter", "Connections seen.")
EVICTED = MetricFamily(
    "closeseq_evicted_connections_total",
    "counter",
    "Connections dropped unfinished, to stay within --max-connections.",
)
FAILED = MetricFamily(
    "closeseq_unjudged_connections",
    "gauge",
    "Connections at which closeseq itself has failed; 0 if all is well.",
)
PACKETS = MetricFamily("closeseq_packets_total", "counter", "Packets captured.")
LOST = MetricFamily("closeseq_lost_packets_total", "counter", "Packets that the capture has lost.")
FAMILIES = (
    *(CLOSES, REVISED, FINDINGS, CLOSE_SECONDS, SOCKETS),
    *(OPEN, CONNECTIONS, EVICTED, FAILED, PACKETS, LOST),
)
# Verdicts of connections that are reported as closed.
CLOSED_VERDICTS = tuple(code for code in VerdictCode if code in ENDED or code is VerdictCode.UNANSWERED)


class Metrics:
    """The counters of one monitor.

    Args:
        monitor: whose updates are counted, from its beginning.
        ports: server ports that have series of their own.
    """

    def __init__(self, monitor: Monitor, ports: Iterable[int]) -> None:
        self._monitor = monitor
        self._ports = np.array(sorted(set(ports)), np.int64)
        self._names = [*map(str, self._ports.tolist()), OTHER_PORT]
        self._closes = _zeros(CLOSED_VERDICTS, Initiator, self._names)
        self._revised = _zeros(VerdictCode, self._names)
        self._findings = _zeros(FindingCode, self._names)
        self._buckets = {name: np.zeros(len(BOUNDS) + 1, np.int64) for name in self._names}
        self._seconds = dict.fromkeys(self._names, 0.0)

    def take(self, updates: Iterable[Updates]) -> None:
        """Count updates; before the monitor is fed again."""
        for one in updates:
            if one.kind is UpdateKind.MORE or not len(one):
                continue
            index = np.asarray(one.indices, np.int64)
            ports, close_ns = self._monitor.closing(index)
            place = self._places(ports)
            for name, mask in ((self._names[at], place == at) for at in np.unique(place).tolist()):
                self._count(one, name, int(np.count_nonzero(mask)), close_ns[mask])
            for code, new in self._monitor.new_findings(one):
                for at, number in _counted(place[np.isin(index, new)]):
                    self._findings[code.value, self._names[at]] += number

    def _places(self, ports: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Return where in `_names` each port is."""
        at = np.searchsorted(self._ports, ports)
        known = at < len(self._ports)
        known[known] = self._ports[at[known]] == ports[known]
        result: NDArray[np.int64] = np.where(known, at, len(self._ports))
        return result

    def _count(self, updates: Updates, port: str, number: int, close_ns: NDArray[np.int64]) -> None:
        """Count connections of one port that closed, or were revised."""
        verdict = updates.pattern.verdict.value
        if updates.kind is UpdateKind.REVISED:
            self._revised[verdict, port] += number
        if updates.kind is not UpdateKind.CLOSED:
            return
        self._closes[verdict, updates.pattern.initiator, port] += number
        seconds = close_ns[close_ns >= 0] / SECOND
        place = np.searchsorted(BOUNDS, seconds, side="left")  # a bound belongs to its bucket
        self._buckets[port] += np.bincount(place, minlength=len(BOUNDS) + 1)
        self._seconds[port] += float(seconds.sum())

    def page(self, lost: int) -> str:
        """Return all metrics as they stand now, in Prometheus' text format.

        Args:
            lost: packets that the capture has lost so far.
        """
        counts = self._monitor.counts()
        sockets: dict[Labels, int] = {
            (end.value, state.value): (counts.client if end is End.CLIENT else counts.server)[state]
            for end, state in product(ENDS, State)
            if state not in NO_SOCKET
        }
        lines = [
            *_family(CLOSES, self._closes),
            *_family(REVISED, self._revised),
            *_family(FINDINGS, self._findings),
            *self._histogram(),
            *_family(SOCKETS, sockets),
            *_family(OPEN, {(): counts.open}),
            *_family(CONNECTIONS, {(): counts.seen}),
            *_family(EVICTED, {(): counts.evicted}),
            *_family(FAILED, {(): len(self._monitor.faults)}),
            *_family(PACKETS, {(): self._monitor.reading.packets}),
            *_family(LOST, {(): lost}),
        ]
        return "".join(f"{line}\n" for line in lines)

    def _histogram(self) -> Iterator[str]:
        name = CLOSE_SECONDS.name
        yield from _head(CLOSE_SECONDS)
        for port in self._names:
            sums = np.cumsum(self._buckets[port]).tolist()
            for bound, number in zip([*map(str, BOUNDS), "+Inf"], sums, strict=True):
                yield f'{name}_bucket{{port="{port}",le="{bound}"}} {number}'
            yield f'{name}_sum{{port="{port}"}} {self._seconds[port]!r}'
            yield f'{name}_count{{port="{port}"}} {sums[-1]}'


def dashboard() -> str:
    """Return a Grafana board over these metrics, as JSON to import there."""
    return files("closeseq.watch").joinpath("dashboard.json").read_text(encoding="utf-8")


def _zeros(*values: Iterable[str]) -> dict[Labels, int]:
    """Return a series for each combination of labels."""
    return {tuple(str(one) for one in labels): 0 for labels in product(*values)}


def _counted(places: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    numbers, sizes = np.unique(places, return_counts=True)
    return zip(numbers.tolist(), sizes.tolist(), strict=True)


def _head(family: MetricFamily) -> Iterator[str]:
    yield f"# HELP {family.name} {family.meaning}"
    yield f"# TYPE {family.name} {family.kind}"


def _family(family: MetricFamily, series: Mapping[Labels, int]) -> Iterator[str]:
    """Yield the lines of a family; all values of labels are words of ours or port numbers."""
    yield from _head(family)
    for labels, value in series.items():
        named = ",".join(f'{name}="{one}"' for name, one in zip(family.labels, labels, strict=True))
        yield f"{family.name}{{{named}}} {value}" if named else f"{family.name} {value}"
