"""Records: one object a connection, as JSON, JSON lines or CSV. `record.schema.json` describes the fields.

Field names are stable. Absent values are null, times are seconds since the connection's start.
"""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import UNSET, UnsetType, to_builtins

from closeseq.classes import Drawer
from closeseq.connections.community import community_id
from closeseq.connections.conversation import Conversation, End, Stream, Traffic
from closeseq.report import aka, json_text, rows
from closeseq.report.containment import bare_record, contained
from closeseq.report.json_text import encode
from closeseq.report.rows import Record, in_files, of_files
from closeseq.report.text import moment, named, printable, seconds
from closeseq.verdict import vocabulary
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.classes.drawing import NumberHole
    from closeseq.classes.forms import TextHole, Wording
    from closeseq.connection import Connection
    from closeseq.connections.conversation import Opener
    from closeseq.reading import Reading
    from closeseq.report.selection import Selection
    from closeseq.tcp.timeline import Step, Transition
    from closeseq.verdict.model import Finding, Initiator
    from closeseq.verdict.population.rules import PopulationFinding

SCHEMA = "closeseq/1"

Head: TypeAlias = (  # the fields of a rows.Brief
    "tuple[str, str, int, int, str, str, float, int, Opener, rows.EndpointRow, rows.EndpointRow, "
    "str, Initiator, str, str]"
)


def schema() -> Record:
    """Return the JSON Schema (2020-12) of a record; a capture's header is its `$defs/capture`."""
    text = files("closeseq.report").joinpath("record.schema.json").read_text(encoding="utf-8")
    loaded: Record = json.loads(text)
    return loaded


def record(connection: Connection) -> Record:
    """Return the record of one connection, as plain dictionaries, lists, numbers and text.

    Args:
        connection: of an analysis, or an update of `live`.

    Returns:
        fields as in `record.schema.json`; times in seconds since `start`.
    """
    plain: Record = to_builtins(draw(connection))
    return in_files(plain, connection.files) if connection.files.several else plain


def _line(connection: Connection) -> str:
    """Return the record as JSON in one line."""
    return json.dumps(record(connection)) if connection.files.several else encode(draw(connection))


def draw(connection: Connection) -> rows.FullRecord:
    """Return the record of one connection as a row for `encode`; without the fields of several files."""
    conversation, timeline = connection.conversation, connection.timeline
    start = conversation.first_ns
    return rows.FullRecord(
        *_head(connection),
        [_finding(finding, start) for finding in connection.findings],
        [_step(step, start) for step in timeline.steps],
        [_transition(transition, start) for transition in timeline.transitions],
        rows.WayRows(_way(conversation, End.CLIENT), _way(conversation, End.SERVER)),
        rows.Aka(*aka.words(conversation)),
        _vlans(conversation),
        _duplicates(conversation),
    )


# ------------------------------------------------------------------------------------------- its parts


def _head(connection: Connection) -> Head:
    """Return the fields of a `rows.Brief`."""
    conversation = connection.conversation
    start = conversation.first_ns
    return (
        SCHEMA,
        named(connection.capture),
        conversation.id,
        conversation.incarnation,
        community_id(conversation.client, conversation.server),
        moment(start),
        seconds(conversation.last_ns - start),
        connection.packets,
        conversation.opener,
        _endpoint(connection, End.CLIENT),
        _endpoint(connection, End.SERVER),
        connection.verdict,
        connection.initiator,
        connection.shape,
        connection.summary,
    )


def _endpoint(connection: Connection, end: End) -> rows.EndpointRow:
    endpoint = connection.end(end)
    expiry = connection.timeline.expiries.get(end)
    return rows.EndpointRow(
        endpoint.address,
        endpoint.port,
        endpoint.state,
        endpoint.role,
        endpoint.packets,
        endpoint.bytes,
        None if expiry is None else seconds(expiry - connection.conversation.first_ns),
    )


def _way(conversation: Conversation, end: End) -> rows.WayRow:
    path = conversation.path(end)
    response = None if path.response_ns is None else seconds(path.response_ns)
    return rows.WayRow(conversation.lost_near(end), path.reordered, path.missed, response)


def _vlans(conversation: Conversation) -> rows.Vlans | UnsetType:
    if not conversation.client_vlans and not conversation.server_vlans:
        return UNSET
    return rows.Vlans([*conversation.client_vlans], [*conversation.server_vlans])


def _duplicates(conversation: Conversation) -> rows.DuplicatesRow | UnsetType:
    if not conversation.copies:
        return UNSET
    found = conversation.duplicates
    return rows.DuplicatesRow(found.captured, found.delivered, found.unclear, found.resets)


def _finding(finding: Finding, start: int) -> rows.FindingRow:
    return rows.FindingRow(
        finding.code,
        finding.severity,
        finding.endpoint,
        finding.certainty,
        seconds(finding.since_ns - start),
        None if finding.duration_ns is None else seconds(finding.duration_ns),
        list(finding.packets),
        finding.summary,
        finding.advice,
    )


def _step(step: Step, start: int) -> rows.StepRow:
    event, arrived, note, client, server = step.what, step.arrived, step.note, step.client, step.server
    if isinstance(event, Traffic):
        first, time = event.packet, seconds(event.time_ns - start)
        traffic = _traffic(event, start)
        return rows.StepRow(first, time, *_NO_EVENT, arrived, note, client, server, traffic)
    return rows.StepRow(
        event.packet,
        seconds(event.time_ns - start),
        event.sender,
        event.letters,
        event.seq,
        event.ack,
        event.length,
        event.position,
        arrived,
        note,
        client,
        server,
        None,
    )


_NO_EVENT = (None,) * 6  # sender, flags, seq, ack, length, position


def _traffic(traffic: Traffic, start: int) -> rows.TrafficRow:
    last = seconds(traffic.last_ns - start)
    return rows.TrafficRow(_stream(traffic.client), _stream(traffic.server), last)


def _stream(stream: Stream) -> rows.StreamRow:
    return rows.StreamRow(stream.segments, stream.bytes, stream.retransmissions)


def _transition(transition: Transition, start: int) -> rows.TransitionRow:
    return rows.TransitionRow(
        transition.packet,
        seconds(transition.time_ns - start),
        transition.endpoint,
        transition.before,
        transition.after,
        transition.cause,
        transition.certainty,
    )


def header(reading: Reading, connections: int) -> Record:
    """Return the header of a capture: what was read, and how many connections follow.

    Args:
        reading: of the capture.
        connections: their number.
    """
    return {
        "schema": SCHEMA,
        "capture": named(reading.path),
        "packets": reading.packets,
        "segments": reading.segments,
        "start": None if reading.first_ns is None else moment(reading.first_ns),
        "end": None if reading.end_ns is None else moment(reading.end_ns),
        "skipped": dict(reading.skipped),
        "notes": dict(reading.notes),
        "dropped": reading.dropped,
        "copies": reading.copies,
        "error": None if reading.error is None else printable(str(reading.error)),
        "count": connections,
        **of_files(reading),
    }


def json_record(connection: Connection) -> str:
    """Return a connection's record as JSON in one line; see `contained` for faults."""
    return contained(connection, _line, lambda one: encode(bare_record(one)))


def _pieces(connection: Connection, wording: Wording) -> list[str | TextHole | NumberHole]:
    """Return the record of a connection on noting numbers in pieces."""
    return json_text.pieces(draw(connection), wording)


# For whole captures: the record of one connection serves for all that close alike.
JSON_RECORDS = Drawer(
    json_record, _pieces, json_text.numbers, json_text.texts, modules=(__name__, aka.__name__)
)


def jsonl(selection: Selection) -> Iterator[str]:
    """Yield one line of JSON a connection."""
    for text in selection.drawn(JSON_RECORDS):
        yield text + "\n"


def population(selection: Selection) -> Record:
    """Return what the connections of a capture show together; nothing where only some are asked for."""
    return {"findings": [_of_many(one) for one in selection.population]}


def _of_many(one: PopulationFinding) -> Record:
    return {
        "code": one.code.value,
        "severity": vocabulary.lookup(one.code).severity,
        "certainty": one.certainty.value,
        "server": {"address": one.server.address, "port": one.server.port},
        "client": one.client,
        "endpoint": one.endpoint.value,
        "seconds": seconds(one.value_ns) if one.value_ns else None,
        "members": one.members,
        "of": one.of,
        "summary": one.summary,
        "advice": one.advice,
    }


def population_line(capture: str, found: Sequence[PopulationFinding]) -> str:
    """Return what connections show together as a line of JSON lines, told from one by its `kind`.

    Args:
        capture: the name of its file or interface.
        found: as `Analysis.population` has it.
    """
    head = {"schema": SCHEMA, "kind": "population", "capture": named(capture)}
    return json.dumps(head | {"findings": [_of_many(one) for one in found]}) + "\n"


def json_object(selection: Selection) -> Iterator[str]:
    """Yield one capture's header with its connections, a piece at a time: a capture may have a million."""
    whole = header(selection.analysis.reading, len(selection)) | {"population": population(selection)}
    head = json.dumps(whole, indent=2)
    yield head.removesuffix("\n}") + ',\n  "connections": ['
    between = "\n"
    for text in selection.drawn(JSON_RECORDS):
        yield between + "    " + text
        between = ",\n"
    yield ("\n  ]" if between == ",\n" else "]") + "\n}"


FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a formula of a spreadsheet begins with
CSV_ENDPOINT = ("address", "port", "state", "role", "packets", "bytes", "expires")
CSV_COLUMNS = (
    *("capture", "id", "incarnation", "community_id", "start", "duration", "packets", "opener"),
    *(f"{end}_{name}" for end in ("client", "server") for name in CSV_ENDPOINT),
    *("verdict", "initiator", "summary", "problems", "notices", "shape"),
    *("zeek_conn_state", "zeek_history", "wireshark_completeness"),
)


def csv_header() -> str:
    """Return the names of the CSV columns as the first line."""
    return _csv_line(CSV_COLUMNS)


def csv_lines(selection: Selection) -> Iterator[str]:
    """Yield one line of CSV a connection."""
    return selection.drawn(csv_record)


def csv_record(connection: Connection) -> str:
    """Return a connection as a line of CSV; see `contained` for faults."""
    return contained(connection, csv_line, lambda one: _csv_line(_bare_cells(one)))


def csv_line(connection: Connection) -> str:
    """Return the record without its lists as a line of CSV, codes of findings space-separated.

    Text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a carriage return)
    has an apostrophe before it; numbers, also negative ones, have none.
    """
    one = rows.Brief(*_head(connection))
    return _csv_line(
        (
            *(printable(one.capture), one.id, one.incarnation, one.community_id),
            *(one.start, one.duration, one.packets, one.opener),
            *(getattr(one.client, name) for name in CSV_ENDPOINT),
            *(getattr(one.server, name) for name in CSV_ENDPOINT),
            *(one.verdict, one.initiator, connection.files.text(one.summary)),
            *(_codes(connection, severity) for severity in (Severity.PROBLEM, Severity.NOTICE)),
            one.shape,
            *aka.words(connection.conversation),
        )
    )


def _bare_cells(connection: Connection) -> list[Any]:
    """Return the cells of a connection at which closeseq itself fails."""
    one = bare_record(connection)
    ends = {f"{end}_{name}": one[end][name] for end in ("client", "server") for name in CSV_ENDPOINT}
    told = one | ends | one["aka"] | {"capture": printable(one["capture"]), "problems": "", "notices": ""}
    return [told[name] for name in CSV_COLUMNS]


def _codes(connection: Connection, severity: Severity) -> str:
    return " ".join(dict.fromkeys(one.code for one in connection.findings if one.severity is severity))


def _csv_line(cells: Iterable[str | float | None]) -> str:
    line: str = _WRITER.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in cells])
    return line


class _Text:
    """What `csv.writer` writes to, so that `writerow` returns the line."""

    @staticmethod
    def write(line: str) -> str:
        return line


_WRITER: Any = csv.writer(_Text(), lineterminator="\n")


def _harmless(text: str) -> str:
    """Return the text with an apostrophe before what a spreadsheet would take for a formula.

    A capture's or interface's name could otherwise run one.
    """
    return f"'{text}" if text.startswith(FORMULA) else text
