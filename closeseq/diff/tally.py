"""One side of a comparison: the connections of captures, or of records from `analyze -f jsonl`, counted.

A capture and its records count alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import DecodeError, Struct, ValidationError
from msgspec import field as renamed
from msgspec.json import Decoder

from closeseq.analysis import analyze_chain
from closeseq.capture.chains import find_chains
from closeseq.capture.names import files_named
from closeseq.errors import CaptureError
from closeseq.report.records import SCHEMA
from closeseq.tcp.states import State
from closeseq.verdict.model import FindingCode, Initiator, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from closeseq.analysis import Analysis
    from closeseq.connection import Connection
    from closeseq.settings import Settings
    from closeseq.tcp.timeline import Timeline
    from closeseq.verdict.fault import Faults

GRACEFUL = frozenset({VerdictCode.GRACEFUL, VerdictCode.SIMULTANEOUS})
AT_THE_END = frozenset({State.TIME_WAIT, State.CLOSED})
SECOND_NS = 1_000_000_000


class Feature(NamedTuple):
    """What is counted: a verdict, a finding at an endpoint, or who closed first."""

    kind: str  # verdict, finding or closed-first
    code: str  # of the verdict or finding; of closed-first the value of an Initiator
    endpoint: str | None = None  # of a finding: client, server, or None for both or neither


@dataclass(frozen=True)
class Example:
    """A connection that has a feature."""

    capture: str  # its file
    id: int  # its number there
    client: str  # address and port
    server: str
    text: str  # what it shows: the summary of the verdict, or of the finding


@dataclass
class Side:
    """The connections of one side, counted."""

    name: str  # as the user gave it
    records: bool = False  # whether it was read from records
    connections: int = 0
    counts: Counter[Feature] = field(default_factory=Counter)  # connections with each
    closes_ns: list[int] = field(default_factory=list)  # how long each graceful close took
    notices: list[str] = field(default_factory=list)  # what was left out
    errors: list[CaptureError] = field(default_factory=list)  # what could not be read
    faults: list[Faults] = field(default_factory=list)  # of closeseq itself
    _examples: dict[Feature, Callable[[], Example]] = field(default_factory=dict)
    _slowest: tuple[int, Callable[[], Example]] | None = None

    def add(self, features: Iterable[Feature], number: int, example: Callable[[Feature], Example]) -> None:
        """Count connections that are alike.

        Args:
            features: of each of them.
            number: how many there are.
            example: makes an example of one of them, for a feature.
        """
        self.connections += number
        for feature in features:
            self.counts[feature] += number
            if feature not in self._examples:
                self._examples[feature] = partial(example, feature)

    def add_close(self, close_ns: int, example: Callable[[], Example]) -> None:
        """Count how long a graceful close took.

        Args:
            close_ns: nanoseconds from the first FIN until both endpoints have closed.
            example: makes an example of the connection; it is called only if this close turns out to be the
                slowest.
        """
        self.closes_ns.append(close_ns)
        if self._slowest is None or close_ns > self._slowest[0]:
            self._slowest = close_ns, example

    def example(self, feature: Feature) -> Example | None:
        """Return the first connection with this feature."""
        made = self._examples.get(feature)
        return None if made is None else made()

    def slowest(self) -> Example | None:
        """Return the connection whose graceful close took longest."""
        return None if self._slowest is None else self._slowest[1]()


def tally_of(
    name: str,
    settings: Settings,
    *,
    count: int | None = None,
    jobs: int | None = 1,
    progress: Callable[[int, int | None], None] | None = None,
) -> Side:
    """Count the connections of captures or of a file of records.

    Args:
        name: a capture, a directory or pattern of captures, or a file that `analyze -f jsonl` wrote.
        settings: what to look at; limits and timers do not change records, which were judged already.
        count: packets to read of each capture; None for all. It does not change records either.
        jobs, progress: as for `analyze_chain`.

    Returns:
        the tally, of what could be read; `errors` says what could not.

    Raises:
        CaptureError: nothing could be read.
    """
    counted = Side(name)
    if _holds_records(name):
        counted.records = True
        _count_records(counted, settings)
        return counted
    named = files_named([name])
    found, broken = find_chains(named.paths)
    counted.notices = named.notices
    counted.errors = [*named.broken, *broken]
    read = False
    for chain in found:
        try:
            analysis = analyze_chain(chain, settings, count=count, jobs=jobs, progress=progress)
        except CaptureError as error:
            counted.errors.append(error)
            continue
        _count_capture(counted, analysis)
        read = True
    if counted.errors and not read:
        raise counted.errors[0]
    return counted


# ------------------------------------------------------------------------------------------ captures


def _count_capture(counted: Side, analysis: Analysis) -> None:
    """Count the connections of a capture, class by class: one replay tells of all that closed alike."""
    graceful: dict[int, tuple[int, int] | None] = {}  # each with the steps between which it was closing
    for one in analysis.classes:
        outcome = one.outcome
        features = _features(
            outcome.verdict, outcome.initiator, ((each.code, each.endpoint) for each in outcome.findings)
        )
        counted.add(features, len(one), partial(_example, analysis, int(one.indices[0])))
        if outcome.verdict in GRACEFUL:
            graceful.update(dict.fromkeys(one.members, _closing_steps(one.example.timeline)))
    chosen = sorted(graceful)
    for index, connection in zip(chosen, analysis.among(chosen), strict=True):
        close_ns = _close_ns(connection, graceful[index])
        if close_ns is not None:
            counted.add_close(close_ns, partial(_example, analysis, index, None))
    counted.errors += analysis.reading.files.errors()
    if analysis.failed:
        counted.faults.append(analysis.faults)


def _closing_steps(timeline: Timeline) -> tuple[int, int] | None:
    """Return the steps at which a graceful close began and ended: the same ones in all of a class.

    None if one of them is not a packet of its own, but in the midst of other traffic.
    """
    whole = _closing((one.packet, one.time_ns, one.after) for one in timeline.transitions)
    if whole is None:
        return None
    steps = {step.time_ns: number for number, step in enumerate(timeline.steps) if step.event}
    known = steps.keys() >= {*whole} and len(steps) == sum(step.event is not None for step in timeline.steps)
    return (steps[whole[0]], steps[whole[1]]) if known else None


def _close_ns(connection: Connection, closing: tuple[int, int] | None) -> int | None:
    """Return how long a graceful close took; None if it was not captured from its beginning to its end."""
    if closing is not None:
        first, last = (connection.conversation.steps[step].time_ns for step in closing)
        return last - first
    whole = _closing((one.packet, one.time_ns, one.after) for one in connection.timeline.transitions)
    return None if whole is None else whole[1] - whole[0]


def _example(analysis: Analysis, index: int, feature: Feature | None) -> Example:
    connection = analysis[index]
    text = connection.summary
    if feature is not None and feature.kind == "finding":
        text = next(one.summary for one in connection.findings if _is(feature, one.code, one.endpoint))
    conversation = connection.conversation
    return Example(
        connection.capture,
        connection.id,
        str(conversation.client),
        str(conversation.server),
        connection.files.text(text),
    )


# ------------------------------------------------------------------------------------------ records


class EndRecord(Struct):
    """An endpoint of a record."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class FindingRecord(Struct):
    """A finding of a record."""

    code: FindingCode
    summary: str
    endpoint: str | None = None


class TransitionRecord(Struct):
    """A transition of a record."""

    time: float  # seconds since the connection began
    after: State = renamed(name="to")
    packet: int | None = None


class CloseRecord(Struct):
    """The fields of a record that are counted; the others are passed over."""

    schema: str
    capture: str
    id: int
    client: EndRecord
    server: EndRecord
    verdict: VerdictCode
    initiator: Initiator
    summary: str
    findings: list[FindingRecord]
    transitions: list[TransitionRecord]


class KindRecord(Struct):
    """A line that is about many connections has a kind."""

    kind: str | None = None


def _holds_records(name: str) -> bool:
    """Whether a file holds JSON, or nothing where it is named as such."""
    path = Path(name)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            beginning = file.read(64).lstrip()
    except OSError:
        return False  # reading it as a capture says why
    return beginning.startswith(b"{") or (not beginning and path.suffix == ".jsonl")


def _count_records(counted: Side, settings: Settings) -> None:
    """Count the records of a file.

    Of a connection that `live` reported more than once the last record counts.
    """
    last: dict[tuple[str, int], CloseRecord] = {}
    try:
        for record in _records(counted.name):
            if _asked_for(record, settings):
                last.pop((record.capture, record.id), None)
                last[record.capture, record.id] = record
    except CaptureError as error:
        if not last:
            raise
        counted.errors.append(error)
    for record in last.values():
        findings = ((one.code, one.endpoint) for one in record.findings)
        counted.add(_features(record.verdict, record.initiator, findings), 1, partial(_recorded, record))
        if record.verdict in GRACEFUL and (close_ns := _recorded_close(record)) is not None:
            counted.add_close(close_ns, partial(_recorded, record, None))


def _recorded_close(record: CloseRecord) -> int | None:
    whole = _closing((one.packet, round(one.time * SECOND_NS), one.after) for one in record.transitions)
    return None if whole is None else whole[1] - whole[0]


def _records(path: str) -> Iterator[CloseRecord]:
    decoder, kinds = Decoder(CloseRecord), Decoder(KindRecord)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    if b'"kind"' in line and kinds.decode(line).kind is not None:
                        continue
                    record = decoder.decode(line)
                except (DecodeError, ValidationError, UnicodeDecodeError) as error:
                    raise _no_record(path, f"line {number} is no record ({error})") from error
                if record.schema != SCHEMA:
                    raise _no_record(
                        path, f"line {number} is a record of {record.schema!r}, not of {SCHEMA!r}"
                    )
                yield record
    except OSError as error:
        raise CaptureError(f"cannot be read: {error.strerror}", path=path) from error


def _no_record(path: str, problem: str) -> CaptureError:
    return CaptureError(problem, path=path, remedy="records are those of closeseq analyze -f jsonl")


def _asked_for(record: CloseRecord, settings: Settings) -> bool:
    ends = (record.client, record.server)
    ports, hosts = {end.port for end in ends}, {end.address for end in ends}
    return bool(
        (not settings.ports or ports & settings.ports) and (not settings.hosts or hosts & settings.hosts)
    )


def _recorded(record: CloseRecord, feature: Feature | None) -> Example:
    text = record.summary
    if feature is not None and feature.kind == "finding":
        text = next(one.summary for one in record.findings if _is(feature, one.code, one.endpoint))
    return Example(record.capture, record.id, str(record.client), str(record.server), text)


# ------------------------------------------------------------------------------------------ both


def _features(
    verdict: VerdictCode, initiator: Initiator, findings: Iterable[tuple[FindingCode, str | None]]
) -> list[Feature]:
    """Return what is counted of a connection with this verdict, and these findings at these endpoints."""
    found = dict.fromkeys(
        Feature("finding", code.value, None if end is None else str(end)) for code, end in findings
    )
    return [Feature("verdict", verdict.value), Feature("closed-first", initiator.value), *found]


def _closing(transitions: Iterable[tuple[int | None, int, State]]) -> tuple[int, int] | None:
    """Return when a connection began to close, with its first FIN, and when both endpoints had closed.

    An endpoint in TIME_WAIT has closed.

    Args:
        transitions: the packet of each (None for a timer), its time in nanoseconds, and the state after it.

    Returns:
        both times; None if one of them was not captured.
    """
    first = last = None
    for packet, time_ns, after in transitions:
        if first is None and after is State.FIN_WAIT_1:
            first = time_ns
        if packet is not None and after in AT_THE_END:
            last = time_ns
    return None if first is None or last is None else (first, last)


def _is(feature: Feature, code: str, endpoint: str | None) -> bool:
    return (code, None if endpoint is None else str(endpoint)) == (feature.code, feature.endpoint)
