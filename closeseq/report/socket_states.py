"""The socket table that `netstat -ant` on both machines would have shown at a moment of the capture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.report.containment import contained
from closeseq.report.endpoints import entry
from closeseq.report.records import SCHEMA
from closeseq.report.text import Style, moment, named, printable, seconds, when
from closeseq.tcp.states import NO_SOCKET, State
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.connection import Connection
    from closeseq.report.selection import Selection

HEADERS = ("Proto", "Local Address", "Foreign Address", "State", "Certainty", "Connection")


@dataclass(frozen=True, slots=True)
class EndpointSocket:
    """One endpoint of one connection at a moment."""

    proto: str  # tcp or tcp6
    local: str  # its address and port
    foreign: str  # its peer's
    state: str
    certainty: str | None  # None: the state in which the connection began
    connection: int  # its number in the capture
    end: str  # client or server


def sockets(selection: Selection, at_ns: int, *, everything: bool = False) -> Iterator[EndpointSocket]:
    """Yield the endpoints of all connections that began by a moment, each in its state then.

    Args:
        selection: the connections that are asked for.
        at_ns: the moment, since the Unix epoch.
        everything: also endpoints without a socket: CLOSED, or not yet reached by the SYN.
    """
    for connection in selection:
        if connection.conversation.first_ns > at_ns:
            continue
        for socket in contained(connection, lambda one: _sockets(one, at_ns), _bare_sockets):
            if everything or socket.state not in NO_SOCKET:
                yield socket


def _sockets(connection: Connection, at_ns: int) -> list[EndpointSocket]:
    return [_socket(connection, end, at_ns) for end in End]


def _bare_sockets(connection: Connection) -> list[EndpointSocket]:
    """Return the endpoints of a connection at which closeseq itself fails, in the state UNKNOWN."""
    client, server = (str(connection.conversation.address(end)) for end in End)
    unknown, number = State.UNKNOWN.value, connection.id
    return [
        EndpointSocket("tcp", client, server, unknown, None, number, End.CLIENT.value),
        EndpointSocket("tcp", server, client, unknown, None, number, End.SERVER.value),
    ]


def _socket(connection: Connection, end: End, at_ns: int) -> EndpointSocket:
    local = connection.conversation.address(end)
    entered = entry(connection, end, at_ns)
    state = connection.timeline.first_state(end) if entered is None else entered.after
    return EndpointSocket(
        proto="tcp6" if ":" in local.address else "tcp",
        local=str(local),
        foreign=str(connection.conversation.address(end.peer)),
        state=state.value,
        certainty=None if entered is None else entered.certainty.value,
        connection=connection.id,
        end=end.value,
    )


def states_table(
    selection: Selection, at_ns: int, style: Style, *, everything: bool = False
) -> Iterator[str]:
    """Yield the lines of the table, after one with the moment and the number of sockets.

    Args:
        selection: as in `sockets`.
        at_ns: as in `sockets`.
        style: how text may look: width, colours, ASCII only.
        everything: as in `sockets`.
    """
    from tabulate import tabulate  # costs 50 ms, and only tables need it

    found = list(sockets(selection, at_ns, everything=everything))
    first_ns = selection.analysis.reading.first_ns or 0
    offset = (at_ns - first_ns) / 1e9
    path = printable(selection.analysis.path)
    yield from style.wrap(
        f"{path} at {offset:.6f} s, {when(at_ns)}: {count(len(found), 'socket')}", then="  "
    )
    rows = [
        (s.proto, s.local, s.foreign, s.state, s.certainty or "-", f"#{s.connection} {s.end}") for s in found
    ]
    if rows:
        text = tabulate(rows, HEADERS, tablefmt="plain", disable_numparse=True)
        lines = text.split("\n")
        if max(map(len, lines)) > style.width:
            yield from (line for socket in found for line in _stacked(socket, style))
            return
        yield style.paint(lines[0], "heading")
        yield from lines[1:]


def _stacked(socket: EndpointSocket, style: Style) -> Iterator[str]:
    """Yield the lines of one socket where a row does not fit."""
    state = f"{socket.state} ({socket.certainty})" if socket.certainty else socket.state
    yield from style.wrap(f"{socket.proto} {socket.local} {style.to} {socket.foreign}", then="    ")
    yield from style.wrap(f"{state}  #{socket.connection} {socket.end}", first="    ")


def states_json(selection: Selection, at_ns: int, *, everything: bool = False) -> str:
    """Return the table as one JSON object.

    Args:
        selection: as in `sockets`.
        at_ns: as in `sockets`.
        everything: as in `sockets`.
    """
    first_ns = selection.analysis.reading.first_ns or 0
    found = [asdict(socket) for socket in sockets(selection, at_ns, everything=everything)]
    head = {
        "schema": SCHEMA,
        "capture": named(selection.analysis.path),
        "at": seconds(at_ns - first_ns),
        "time": moment(at_ns),
        "sockets": found,
    }
    return json.dumps(head, indent=2)
