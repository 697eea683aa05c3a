"""Connections as the columns of the four tables, some thousand at a time.

What all rows have in common, or what follows from another column, is computed for whole columns; of each
connection only a tuple a row is made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from closeseq.connections.community import community_id
from closeseq.connections.conversation import End, Event
from closeseq.settings import SECOND
from closeseq.tables.fields import (
    CONNECTIONS,
    EVENTS,
    FINDINGS,
    TABLES,
    TRANSITIONS,
    Field,
    FieldType,
    TableOf,
)
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from closeseq.connection import Connection
    from closeseq.packets.frames import Files
    from closeseq.tcp.states import State

Row: TypeAlias = "tuple[Any, ...]"
NumpyTable: TypeAlias = "dict[str, NDArray[Any]]"


class NumpyTables(NamedTuple):
    """Connections as tables: of each the columns by name, of equal length (see tables/fields.py).

    pandas, polars and duckdb take each table as it is. `capture` and `id` together name a connection.
    """

    connections: NumpyTable  # one row a connection
    transitions: NumpyTable  # one row a change of an endpoint's state
    events: NumpyTable  # one row a segment that can change a state or prove something
    findings: NumpyTable  # one row a finding of a connection


@dataclass(frozen=True, slots=True)
class Codes:
    """A column of texts, each kept once."""

    code: NDArray[np.integer[Any]]  # index into `words`; -1 where there is none
    words: list[str]  # each text once

    def texts(self) -> NDArray[np.object_]:
        """Return the texts: one object a row, None where there is none."""
        found: NDArray[np.object_] = np.array([*self.words, None], object)[self.code]
        return found

    def repeated(self, counts: NDArray[np.int64]) -> Codes:
        """Return the column with each row so many times.

        Args:
            counts: int64, one for each row.
        """
        return Codes(np.repeat(self.code, counts), self.words)


# A column is an array, Codes, or (of texts that seldom repeat) a list.
TableColumn: TypeAlias = "NDArray[Any] | Codes | list[str | None]"
TableColumns: TypeAlias = "dict[str, TableColumn]"  # by name, in the order of TableOf.fields


def tabulated(connections: Iterable[Connection]) -> list[TableColumns]:
    """Return connections as columns, a dictionary for each of TABLES.

    Args:
        connections: of one analysis; some thousand at most, as all rows are held.
    """
    rows = [_contained(one) for one in connections]
    files = rows[0].files if rows else None
    made = [_columns(CONNECTIONS, [one.connection for one in rows])]
    for table, name in ((TRANSITIONS, "transitions"), (EVENTS, "events"), (FINDINGS, "findings")):
        counts = np.array([len(getattr(one, name)) for one in rows], np.int64)
        columns = _columns(table, list(chain.from_iterable(getattr(one, name) for one in rows)))
        made.append(_completed(table, columns, made[0], counts, files))
    return made


def joined(several: Sequence[list[TableColumns]]) -> NumpyTables:
    """Return what `tabulated` made, one after the other, as arrays of numpy.

    Args:
        several: of connections in the order of the rows.
    """
    return NumpyTables(
        *(
            {field.name: _array(field, [one[place][field.name] for one in several]) for field in table.fields}
            for place, table in enumerate(TABLES)
        )
    )


class _Rows(NamedTuple):
    """The rows of one connection; cells that `_completed` adds are left out."""

    files: Files
    connection: Row
    transitions: list[Row]
    events: list[Row]
    findings: list[Row]


# What `_completed` adds to the tables but the first; all other fields are cells of a row, in their order.
_ADDED = frozenset({"capture", "id", "file", "file_packet", "time", "since"})


def _contained(connection: Connection) -> _Rows:
    """Return the rows of a connection; as not judged where closeseq itself fails at it."""
    try:
        return _rows(connection)
    except Exception as fault:  # noqa: BLE001 - a fault in closeseq, whatever it is
        return _rows(connection.unjudged(fault))


def _rows(connection: Connection) -> _Rows:
    files, timeline = connection.files, connection.timeline
    transitions = [
        (t.packet, t.time_ns, t.endpoint, t.before, t.after, t.cause, t.certainty)
        for t in timeline.transitions
    ]
    events = [
        (
            event.packet,
            event.time_ns,
            event.sender,
            event.letters,
            event.seq,
            event.ack,
            event.length,
            event.position,
            step.arrived,
            step.note or "",
            step.client,
            step.server,
        )
        for step in timeline.steps
        if isinstance(event := step.what, Event)
    ]
    findings = [
        (
            *(f.code, f.severity, f.endpoint, f.certainty, f.since_ns),
            None if f.duration_ns is None else f.duration_ns / SECOND,
            " ".join(map(str, f.packets)),
            files.text(f.summary),
            f.advice,
        )
        for f in connection.findings
    ]
    if files.several:  # texts name packets
        transitions = [(*row[:5], files.text(row[5]), *row[6:]) for row in transitions]
        events = [(*row[:9], files.text(row[9]), *row[10:]) for row in events]
    return _Rows(files, _of_connection(connection), transitions, events, findings)


def _of_connection(connection: Connection) -> Row:
    conversation, timeline = connection.conversation, connection.timeline
    first_ns = conversation.first_ns
    states = {t.endpoint: t.after for t in timeline.transitions}  # the last ones
    return (
        os.fsencode(connection.capture).decode("utf-8", "backslashreplace"),
        conversation.id,
        conversation.incarnation,
        community_id(conversation.client, conversation.server),
        first_ns,
        (conversation.last_ns - first_ns) / SECOND,
        connection.packets,
        conversation.opener,
        *_of_endpoint(connection, End.CLIENT, states.get(End.CLIENT)),
        *_of_endpoint(connection, End.SERVER, states.get(End.SERVER)),
        connection.verdict,
        connection.initiator,
        connection.shape,
        connection.files.text(connection.summary),
        _named(connection, Severity.PROBLEM),
        _named(connection, Severity.NOTICE),
        conversation.copies,
    )


def _of_endpoint(connection: Connection, end: End, state: State | None) -> Row:
    """Return the cells of an endpoint; its state is None if it never changed."""
    conversation, timeline = connection.conversation, connection.timeline
    client, path = end is End.CLIENT, conversation.path(end)
    address, expiry = conversation.address(end), timeline.expiries.get(end)
    return (
        *address,
        timeline.first_state(end) if state is None else state,
        connection.judgement.verdict.role(end),
        conversation.client_packets if client else conversation.server_packets,
        conversation.client_bytes if client else conversation.server_bytes,
        None if expiry is None else (expiry - conversation.first_ns) / SECOND,
        *(conversation.lost_near(end), path.reordered, path.missed),
        None if path.response_ns is None else path.response_ns / SECOND,
    )


def _named(connection: Connection, severity: Severity) -> str:
    return " ".join(dict.fromkeys(one.code for one in connection.findings if one.severity is severity))


def _columns(table: TableOf, rows: list[Row]) -> TableColumns:
    """Return the cells of rows by column."""
    whole = table is CONNECTIONS
    fields = [field for field in table.fields if whole or field.name not in _ADDED]
    cells: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else ((),) * len(fields)
    return {field.name: _column(field, one) for field, one in zip(fields, cells, strict=True)}


def _column(field: Field, cells: Sequence[Any]) -> TableColumn:
    """Return the cells of one column; a missing number as NaN."""
    if field.type is FieldType.WORD:
        index = _INDEX[field.words]
        return Codes(np.fromiter(map(index.__getitem__, cells), np.int8, len(cells)), list(field.words))
    if field.type is FieldType.TIME:
        return np.array(cells, np.int64).view("datetime64[ns]")
    if field.type is not FieldType.TEXT:
        return np.array(cells, _dtype(field))
    return _coded(cells) if field.name in _REPEATED else list(cells)


_REPEATED = frozenset({"capture", "flags", "note", "cause", "advice", "shape", "problems", "notices"})
_INDEX: dict[tuple[str, ...], dict[str | None, int]] = {
    field.words: {**{word: code for code, word in enumerate(field.words)}, None: -1}
    for table in TABLES
    for field in table.fields
}


def _coded(cells: Sequence[str | None]) -> Codes:
    """Return a column of texts of which many are equal."""
    index: dict[str | None, int] = {}
    code = np.fromiter((index.setdefault(cell, len(index)) for cell in cells), np.int32, len(cells))
    if (missing := index.get(None)) is None:
        return Codes(code, [word for word in index if word is not None])
    code = np.where(code == missing, -1, code - (code > missing)).astype(np.int32)
    return Codes(code, [word for word in index if word is not None])


def _dtype(field: Field) -> type[np.generic]:
    """Return the dtype of a column of numbers; whole numbers of which some are missing are floats."""
    if field.type is FieldType.WHOLE:
        return np.float64 if field.missing else np.int64
    return np.uint16 if field.type is FieldType.PORT else np.float64


def _completed(
    table: TableOf,
    columns: TableColumns,
    connections: TableColumns,
    counts: NDArray[np.int64],
    files: Files | None,
) -> TableColumns:
    """Return the columns of a table with those that follow from others, in their order.

    Args:
        table: not that of the connections.
        columns: without those.
        connections: the columns of the connections.
        counts: of each connection, how many rows of the table it has.
        files: of the capture; None where there is no row.
    """
    found = dict(columns)
    capture, number, start = connections["capture"], connections["id"], connections["start"]
    assert isinstance(capture, Codes)
    assert isinstance(number, np.ndarray)
    assert isinstance(start, np.ndarray)
    found["capture"] = capture.repeated(counts)
    found["id"] = np.repeat(number, counts)
    name = "since" if table is FINDINGS else "time"
    time = found[f"{name}_utc"]
    assert isinstance(time, np.ndarray)
    found[name] = (time - np.repeat(start, counts)).astype(np.int64) / SECOND
    packet = found.get("packet")
    if isinstance(packet, np.ndarray):
        found["file"], found["file_packet"] = _in_files(packet, files, found["capture"])
    return {field.name: found[field.name] for field in table.fields}


def _in_files(packet: NDArray[Any], files: Files | None, capture: TableColumn) -> tuple[Codes, NDArray[Any]]:
    """Return the file of each packet, and its number there. Where there is no packet, both are missing."""
    assert isinstance(capture, Codes)
    there = ~np.isnan(packet)
    if files is None or not files.several:
        return Codes(np.where(there, capture.code, -1), capture.words), packet
    begins = np.array(files.begins, np.int64)
    place = np.maximum(np.searchsorted(begins, np.where(there, packet, 1) - 1, side="right") - 1, 0)
    names = [os.fsencode(file.path).decode("utf-8", "backslashreplace") for file in files.files]
    return Codes(np.where(there, place, -1), names), packet - begins[place]


def _array(field: Field, several: Sequence[TableColumn]) -> NDArray[Any]:
    """Return the parts of one column as one array."""
    if field.type in {FieldType.TEXT, FieldType.WORD}:
        parts = [one.texts() if isinstance(one, Codes) else np.array(one, object) for one in several]
        return np.concatenate([np.empty(0, object), *parts])
    if field.type is FieldType.TIME:
        return np.concatenate([np.empty(0, "datetime64[ns]"), *several])
    return np.concatenate([np.empty(0, _dtype(field)), *several])
