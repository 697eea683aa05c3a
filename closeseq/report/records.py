"""One object a connection, for programs. Field names are stable; `record.schema.json` describes them.

Numbers are numbers, absent is null, times are seconds since the connection's start.
"""

from __future__ import annotations

import csv
import io
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from closeseq.connections.conversation import Conversation, End, Event, Stream, Traffic
from closeseq.report import aka
from closeseq.report.filed import in_files, of_files
from closeseq.report.text import moment, named, printable, seconds
from closeseq.verdict.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.reading import Reading
    from closeseq.report.selection import Selection
    from closeseq.tcp.timeline import Step, Transition
    from closeseq.verdict.findings import Finding

SCHEMA = "closeseq/1"

Record: TypeAlias = dict[str, Any]


def schema() -> Record:
    """Return the JSON Schema (2020-12) of a record; a capture's header is its `$defs/capture`."""
    text = files("closeseq.report").joinpath("record.schema.json").read_text(encoding="utf-8")
    loaded: Record = json.loads(text)
    return loaded


def record(connection: Connection) -> Record:
    """Return everything known of one connection."""
    conversation, timeline = connection.conversation, connection.timeline
    start = conversation.first_ns
    told = {
        "schema": SCHEMA,
        "capture": named(connection.capture),
        "id": connection.id,
        "incarnation": connection.incarnation,
        "community_id": community_id(conversation),
        "start": moment(start),
        "duration": seconds(conversation.last_ns - start),
        "packets": connection.packets,
        "opener": connection.opener.value,
        "client": _endpoint(connection, End.CLIENT),
        "server": _endpoint(connection, End.SERVER),
        "verdict": connection.verdict,
        "initiator": connection.initiator.value,
        "shape": connection.shape,
        "summary": connection.summary,
        "findings": [_finding(finding, start) for finding in connection.findings],
        "timeline": [_step(step, start) for step in timeline],
        "transitions": [_transition(transition, start) for transition in timeline.transitions],
        "path": {end.value: _way(conversation, end) for end in End},
        "aka": {
            "zeek_conn_state": aka.zeek_conn_state(conversation),
            "zeek_history": aka.zeek_history(conversation),
            "wireshark_completeness": aka.wireshark_completeness(conversation),
        },
        **_frames(conversation),
    }
    return in_files(told, connection.files) if connection.files.several else told


def _frames(conversation: Conversation) -> Record:
    """Return what only frames tell, where there is something: VLANs and duplicates."""
    told: Record = {}
    if conversation.client_vlans or conversation.server_vlans:
        told["vlans"] = {"client": [*conversation.client_vlans], "server": [*conversation.server_vlans]}
    if conversation.copies:
        names = ("captured", "delivered", "unclear", "resets")
        told["duplicates"] = {name: getattr(conversation.duplicates, name) for name in names}
    return told


def community_id(conversation: Conversation) -> str:
    """Return the Community ID (version 1, seed 0) of a connection's addresses and ports."""
    from communityid import CommunityID, FlowTuple  # only records need it

    client, server = conversation.client, conversation.server
    flow = FlowTuple.make_tcp(client.address, server.address, client.port, server.port)
    return str(CommunityID().calc(flow))


def _endpoint(connection: Connection, end: End) -> Record:
    endpoint = connection.end(end)
    expiry = connection.timeline.expiries.get(end)
    return {
        "address": endpoint.address,
        "port": endpoint.port,
        "state": endpoint.state.value,
        "role": endpoint.role.value,
        "packets": endpoint.packets,
        "bytes": endpoint.bytes,
        "expires": None if expiry is None else seconds(expiry - connection.conversation.first_ns),
    }


def _way(conversation: Conversation, end: End) -> Record:
    path = conversation.path(end)
    return {
        "lost": conversation.lost_near(end),
        "reordered": path.reordered,
        "missed": path.missed,
        "response": None if path.response_ns is None else seconds(path.response_ns),
    }


def _finding(finding: Finding, start: int) -> Record:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "endpoint": None if finding.endpoint is None else finding.endpoint.value,
        "certainty": finding.certainty.value,
        "since": seconds(finding.since_ns - start),
        "duration": None if finding.duration_ns is None else seconds(finding.duration_ns),
        "packets": list(finding.packets),
        "summary": finding.summary,
        "advice": finding.advice,
    }


def _step(step: Step, start: int) -> Record:
    event, traffic = step.event, step.traffic
    return {
        "packet": step.packet,
        "time": seconds(step.time_ns - start),
        **(_EMPTY if event is None else _event(event)),
        "arrived": None if step.arrived is None else step.arrived.value,
        "note": step.note,
        "client": step.client.value,
        "server": step.server.value,
        "traffic": None if traffic is None else _traffic(traffic, start),
    }


_EMPTY: Record = dict.fromkeys(("from", "flags", "seq", "ack", "length", "position"))


def _event(event: Event) -> Record:
    return {
        "from": event.sender.value,
        "flags": event.letters,
        "seq": event.seq,
        "ack": event.ack,
        "length": event.length,
        "position": event.position.value,
    }


def _traffic(traffic: Traffic, start: int) -> Record:
    return {
        "client": _stream(traffic.client),
        "server": _stream(traffic.server),
        "last": seconds(traffic.last_ns - start),
    }


def _stream(stream: Stream) -> Record:
    return {"packets": stream.segments, "bytes": stream.bytes, "retransmissions": stream.retransmissions}


def _transition(transition: Transition, start: int) -> Record:
    return {
        "packet": transition.packet,
        "time": seconds(transition.time_ns - start),
        "endpoint": transition.endpoint.value,
        "from": transition.before.value,
        "to": transition.after.value,
        "cause": transition.cause,
        "certainty": transition.certainty.value,
    }


def header(reading: Reading, connections: int) -> Record:
    """Return what was read of one capture."""
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


def jsonl(selection: Selection) -> Iterator[str]:
    """Yield one line of JSON a connection."""
    for connection in selection:
        yield json.dumps(record(connection)) + "\n"


def json_object(selection: Selection) -> Iterator[str]:
    """Yield one capture's header with its connections, a piece at a time: a capture may have a million."""
    head = json.dumps(header(selection.analysis.reading, len(selection)), indent=2)
    yield head.removesuffix("\n}") + ',\n  "connections": ['
    between = "\n"
    for connection in selection:
        yield between + "    " + json.dumps(record(connection))
        between = ",\n"
    yield ("\n  ]" if between == ",\n" else "]") + "\n}"


FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how what spreadsheets compute begins
CSV_ENDPOINT = ("address", "port", "state", "role", "packets", "bytes", "expires")
CSV_COLUMNS = (
    *("capture", "id", "incarnation", "community_id", "start", "duration", "packets", "opener"),
    *(f"{end}_{name}" for end in ("client", "server") for name in CSV_ENDPOINT),
    *("verdict", "initiator", "summary", "problems", "notices", "shape"),
    *("zeek_conn_state", "zeek_history", "wireshark_completeness"),
)


def csv_header() -> str:
    """Return the names of the CSV columns as the first line."""
    return _csv_line(dict(zip(CSV_COLUMNS, CSV_COLUMNS, strict=True)))


def csv_lines(selection: Selection) -> Iterator[str]:
    """Yield one line of CSV a connection."""
    return map(csv_line, selection)


def csv_line(connection: Connection) -> str:
    """Return the record without its lists as a line of CSV, codes of findings space-separated.

    Text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a carriage return)
    has an apostrophe before it; numbers, also those below zero, are as they are.
    """
    return _csv_line(_flat(record(connection)))


def _flat(full: Record) -> Record:
    flat = {name: full[name] for name in CSV_COLUMNS if name in full}
    flat["capture"] = printable(full["capture"])
    for end in ("client", "server"):
        flat |= {f"{end}_{name}": full[end][name] for name in CSV_ENDPOINT}
    for severity in Severity:
        codes = [f["code"] for f in full["findings"] if f["severity"] == severity]
        flat[f"{severity}s"] = " ".join(dict.fromkeys(codes))
    flat |= full["aka"]
    return flat


def _csv_line(row: Record) -> str:
    line = io.StringIO()
    cells = {name: _harmless(value) if isinstance(value, str) else value for name, value in row.items()}
    csv.DictWriter(line, CSV_COLUMNS, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe comes before what begins one.

    Whoever names a capture or an interface could otherwise have it run. Numbers are left as they are.
    """
    return f"'{text}" if text.startswith(FORMULA) else text
