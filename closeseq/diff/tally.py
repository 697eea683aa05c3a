"""One side of a comparison: the connections of captures, or of records from `analyze -f jsonl`, counted.

Both come down to the same few facts of each connection (`Facts`), so that a capture and its records count
alike.
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
    from closeseq.verdict.fault import Faults

GRACEFUL = frozenset({VerdictCode.GRACEFUL, VerdictCode.SIMULTANEOUS})
AT_THE_END = frozenset({State.TIME_WAIT, State.CLOSED})
SECOND_NS = 1_000_000_000


class Feature(NamedTuple):
    """What is counted: a verdict, a finding at an endpoint, or who closed first."""

    kind: str  # verdict, finding or closed-first
    code: str
    endpoint: str | None = None  # of a finding: client, server, or None for both or neither


class Facts(NamedTuple):
    """What is counted of one connection."""

    features: tuple[Feature, ...]
    close_ns: int | None  # from the first FIN until both have closed; None if it was not closed gracefully


@dataclass(frozen=True)
class Example:
    """A connection that has a feature."""

    capture: str
    id: int
    client: str
    server: str
    text: str  # what it shows: the summary of the verdict, or of the finding


@dataclass
class Tally:
    """The connections of one side, counted."""

    name: str  # as the user gave it
    records: bool = False  # whether it was read from records
    connections: int = 0
    counts: Counter[Feature] = field(default_factory=Counter)
    closes_ns: list[int] = field(default_factory=list)  # how long each graceful close took
    errors: list[CaptureError] = field(default_factory=list)  # what could not be read
    faults: list[Faults] = field(default_factory=list)  # of closeseq itself
    _examples: dict[Feature, Callable[[], Example]] = field(default_factory=dict)
    _slowest: tuple[int, Callable[[], Example]] | None = None

    def add(self, facts: Facts, example: Callable[[Feature | None], Example]) -> None:
        """Count a connection.

        Args:
            facts: of the connection.
            example: makes an example of it, for a feature or, with None, for the time it took to close.
        """
        self.connections += 1
        for feature in facts.features:
            self.counts[feature] += 1
            if feature not in self._examples:
                self._examples[feature] = partial(example, feature)
        if facts.close_ns is not None:
            self.closes_ns.append(facts.close_ns)
            if self._slowest is None or facts.close_ns > self._slowest[0]:
                self._slowest = facts.close_ns, partial(example, None)

    def example(self, feature: Feature) -> Example | None:
        """Return the first connection with this feature."""
        made = self._examples.get(feature)
        return None if made is None else made()

    def slowest(self) -> Example | None:
        """Return the connection whose graceful close took longest."""
        return None if self._slowest is None else self._slowest[1]()


def tally(
    name: str,
    settings: Settings,
    *,
    jobs: int | None = 1,
    progress: Callable[[int, int | None], None] | None = None,
) -> Tally:
    """Count the connections of captures or of a file of records.

    Args:
        name: a capture, a directory or pattern of captures, or a file that `analyze -f jsonl` wrote.
        settings: what to look at; limits and timers do not change records, which were judged already.
        jobs, progress: as for `analyze_chain`.

    Returns:
        the tally, of what could be read; `errors` says what could not.

    Raises:
        CaptureError: nothing could be read.
    """
    counted = Tally(name)
    if _holds_records(name):
        counted.records = True
        _count_records(counted, settings)
        return counted
    named = files_named([name])
    found, broken = find_chains(named.paths)
    counted.errors = [*named.broken, *broken]
    for chain in found:
        try:
            analysis = analyze_chain(chain, settings, jobs=jobs, progress=progress)
        except CaptureError as error:
            counted.errors.append(error)
            continue
        _count_capture(counted, analysis)
    if not found and counted.errors:
        raise counted.errors[0]
    return counted


# ------------------------------------------------------------------------------------------ captures


def _count_capture(counted: Tally, analysis: Analysis) -> None:
    everything = range(len(analysis))
    for index, facts in zip(everything, analysis.drawn(facts_of, everything), strict=True):
        counted.add(facts, partial(_example, analysis, index))
    counted.errors += analysis.reading.files.errors()
    if analysis.failed:
        counted.faults.append(analysis.faults)


def facts_of(connection: Connection) -> Facts:
    """Return what is counted of a connection."""
    start_ns = connection.start_ns
    return _facts(
        connection.verdict,
        connection.initiator,
        ((one.code, one.endpoint) for one in connection.findings),
        ((one.packet, one.time_ns - start_ns, one.after) for one in connection.timeline.transitions),
    )


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

    time: float
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


def _count_records(counted: Tally, settings: Settings) -> None:
    """Count the records of a file.

    Of a connection that `live` reported more than once the last record counts.
    """
    last: dict[tuple[str, int], tuple[Facts, CloseRecord]] = {}
    try:
        for record in _records(counted.name):
            if _asked_for(record, settings):
                last.pop((record.capture, record.id), None)
                last[record.capture, record.id] = _facts_in(record), record
    except CaptureError as error:
        if not last:
            raise
        counted.errors.append(error)
    for facts, record in last.values():
        counted.add(facts, partial(_recorded, record))


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


def _facts_in(record: CloseRecord) -> Facts:
    return _facts(
        record.verdict,
        record.initiator,
        ((one.code, one.endpoint) for one in record.findings),
        ((one.packet, round(one.time * SECOND_NS), one.after) for one in record.transitions),
    )


def _recorded(record: CloseRecord, feature: Feature | None) -> Example:
    text = record.summary
    if feature is not None and feature.kind == "finding":
        text = next(one.summary for one in record.findings if _is(feature, one.code, one.endpoint))
    return Example(record.capture, record.id, str(record.client), str(record.server), text)


# ------------------------------------------------------------------------------------------ both


def _facts(
    verdict: VerdictCode,
    initiator: Initiator,
    findings: Iterable[tuple[FindingCode, str | None]],
    transitions: Iterable[tuple[int | None, int, State]],
) -> Facts:
    """Return the facts of a connection.

    Args:
        verdict, initiator: of the connection.
        findings: the code of each and its endpoint.
        transitions: the packet of each, its time in nanoseconds, and the state after it.
    """
    found = dict.fromkeys(
        Feature("finding", code.value, None if end is None else str(end)) for code, end in findings
    )
    features = (Feature("verdict", verdict.value), Feature("closed-first", initiator.value), *found)
    return Facts(features, _close_ns(transitions) if verdict in GRACEFUL else None)


def _close_ns(transitions: Iterable[tuple[int | None, int, State]]) -> int | None:
    """Return the time from the first FIN until both endpoints have closed, or wait in TIME_WAIT."""
    first = last = None
    for packet, time_ns, after in transitions:
        if first is None and after is State.FIN_WAIT_1:
            first = time_ns
        if packet is not None and after in AT_THE_END:
            last = time_ns
    return None if first is None or last is None else last - first


def _is(feature: Feature, code: str, endpoint: str | None) -> bool:
    return (code, None if endpoint is None else str(endpoint)) == (feature.code, feature.endpoint)
