"""One connection as the page counts it: the least that is needed of each, since there may be a million."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from closeseq.connections.conversation import ENDS
from closeseq.report.containment import contained
from closeseq.report.problems import worst_of
from closeseq.tcp.states import State
from closeseq.verdict.fault import CODE
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from closeseq.connection import Connection
    from closeseq.connections.conversation import Address, End

LONGEST_SHAPE = 120  # characters

Place: TypeAlias = "tuple[str, End | None]"  # the code of a finding, and at which endpoint


class RowEnding(NamedTuple):
    """How a connection went: what many have in common. All are texts, for other processes send them."""

    verdict: str
    initiator: str
    states: tuple[str, str]  # of client and server, when the capture ended
    shape: str
    problems: tuple[Place, ...]
    notices: tuple[Place, ...]


class StateEntry(NamedTuple):
    """An endpoint enters a state."""

    time_ns: int  # since the Unix epoch
    end: int  # index into ENDS
    state: str  # the value of a State


class PageRow(NamedTuple):
    """One connection."""

    id: int  # its number in the capture
    start_ns: int  # since the Unix epoch
    last_ns: int  # likewise
    client: Address
    server: Address
    packets: int
    bytes: int  # of payload, sent by both, retransmissions included
    ending: RowEnding
    blame: tuple[str, End | None, int] | None  # its worst problem: code, endpoint, since when (Unix epoch)
    closed_ns: int | None  # when it ended; None where it has not
    moves: tuple[StateEntry, ...]  # in time order, the first states included


def line(connection: Connection) -> PageRow:
    """Return what the page needs of a connection; see `contained` for faults."""
    return contained(connection, _line, _bare)


def _line(connection: Connection) -> PageRow:
    timeline = connection.timeline
    moves = [
        StateEntry(connection.start_ns, number, timeline.first_state(end).value)
        for number, end in enumerate(ENDS)
    ]
    moves += [StateEntry(t.time_ns, ENDS.index(t.endpoint), t.after.value) for t in timeline.transitions]
    by_packet = [t.time_ns for t in timeline.transitions if t.packet is not None]
    worst = worst_of(connection) if connection.has_problem else None
    return _shared(
        connection,
        RowEnding(
            str(connection.verdict),
            str(connection.initiator),
            (timeline.state(ENDS[0]).value, timeline.state(ENDS[1]).value),
            _short(connection.shape),
            _places(connection, Severity.PROBLEM),
            _places(connection, Severity.NOTICE),
        ),
        None if worst is None else (str(worst.code), worst.endpoint, worst.since_ns),
        max(by_packet, default=connection.start_ns) if connection.verdict.ended else None,
        tuple(moves),
    )


def _bare(connection: Connection) -> PageRow:
    """Return the line of a connection at which closeseq itself fails."""
    unknown = State.UNKNOWN.value
    ending = RowEnding(CODE, str(connection.initiator), (unknown, unknown), _short(connection.shape), (), ())
    return _shared(connection, ending, None, None, ())


def _shared(
    connection: Connection,
    ending: RowEnding,
    blame: tuple[str, End | None, int] | None,
    closed_ns: int | None,
    moves: tuple[StateEntry, ...],
) -> PageRow:
    c = connection.conversation
    return PageRow(
        c.id,
        c.first_ns,
        c.last_ns,
        c.client,
        c.server,
        connection.packets,
        c.client_bytes + c.server_bytes,
        ending,
        blame,
        closed_ns,
        moves,
    )


def _short(shape: str) -> str:
    """Return a shape whose length a capture cannot choose; whole, but for a few that no people make."""
    return shape if len(shape) <= LONGEST_SHAPE else f"{shape[:LONGEST_SHAPE].rpartition(' ')[0]} ..."


def _places(connection: Connection, severity: Severity) -> tuple[Place, ...]:
    found = ((str(f.code), f.endpoint) for f in connection.findings if f.severity is severity)
    return tuple(dict.fromkeys(found))
