"""A fault in closeseq while it draws one connection affects the report on that connection only.

The connection is drawn again as not judged. If that fails too, a bare form is used that needs little code:
its addresses, its packets, and where closeseq failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from closeseq.connections.conversation import End, Event
from closeseq.report.text import moment, packets, seconds
from closeseq.tcp.states import State
from closeseq.verdict.fault import CODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.connection import Connection
    from closeseq.connections.conversation import Traffic
    from closeseq.report.text import Style

    Drawn = TypeVar("Drawn")
    Subject = TypeVar("Subject", bound=Connection)

UNKNOWN = State.UNKNOWN.value


def contained(
    connection: Subject, draw: Callable[[Subject], Drawn], bare: Callable[[Subject], Drawn]
) -> Drawn:
    """Return what `draw` makes of a connection.

    Args:
        connection: judged or not.
        draw: must not write anything itself, and not leave anything to be computed later.
        bare: makes the bare form, where `draw` fails even for the connection as not judged.
    """
    try:
        return draw(connection)
    except Exception as fault:  # noqa: BLE001 - a fault in closeseq, whatever it is
        unjudged = connection.unjudged(fault)
    try:
        return draw(unjudged)
    except Exception:  # noqa: BLE001 - the same one, most likely
        return bare(unjudged)


def bare_lines(connection: Connection, style: Style) -> list[str]:
    """Return the bare form as text.

    Args:
        connection: as `Connection.unjudged` gives it.
        style: how text may look: width, colours, ASCII only.
    """
    conversation = connection.conversation
    who = f"#{connection.id}  {conversation.client} {style.to} {conversation.server}"
    heading = style.wrap(f"{who}  {connection.verdict}: {connection.summary}", then="    ")
    numbers = packets((step.packet for step in conversation.steps), 20)
    return [*(style.paint(line, "heading") for line in heading), *style.wrap(numbers, first="    ")]


def bare_row(connection: Connection) -> tuple[str, ...]:
    """Return the bare form as the cells of table.HEADERS."""
    conversation = connection.conversation
    who = str(connection.id), str(conversation.client), str(conversation.server)
    return (*who, CODE, connection.initiator.value, UNKNOWN, UNKNOWN, "", "")


def bare_record(connection: Connection) -> dict[str, Any]:
    """Return the bare form as a record: the least that the schema allows.

    `aka` is as for a connection of which those tools saw nothing.
    """
    conversation = connection.conversation
    start_ns = conversation.first_ns
    return {
        "schema": "closeseq/1",
        "capture": connection.capture.encode("utf-8", "backslashreplace").decode(),
        "id": connection.id,
        "incarnation": connection.incarnation,
        "community_id": "1:",
        "start": moment(start_ns),
        "duration": seconds(conversation.last_ns - start_ns),
        "packets": connection.packets,
        "opener": connection.opener.value,
        "client": _bare_end(connection, End.CLIENT),
        "server": _bare_end(connection, End.SERVER),
        "verdict": CODE,
        "initiator": connection.initiator.value,
        "shape": connection.shape,
        "summary": connection.summary,
        "findings": [],
        "timeline": [_bare_step(step, start_ns) for step in conversation.steps],
        "transitions": [],
        "path": {end.value: _NO_WAY for end in End},
        "aka": {"zeek_conn_state": "OTH", "zeek_history": "", "wireshark_completeness": 0},
    }


_NO_WAY = {"lost": 0, "reordered": 0, "missed": 0, "response": None}


def _bare_end(connection: Connection, end: End) -> dict[str, Any]:
    conversation = connection.conversation
    address, client = conversation.address(end), end is End.CLIENT
    return {
        "address": address.address,
        "port": address.port,
        "state": UNKNOWN,
        "role": "none",
        "packets": conversation.client_packets if client else conversation.server_packets,
        "bytes": conversation.client_bytes if client else conversation.server_bytes,
        "expires": None,
    }


def _bare_step(step: Event | Traffic, start_ns: int) -> dict[str, Any]:
    event = step if isinstance(step, Event) else None
    return {
        "packet": step.packet,
        "time": seconds(step.time_ns - start_ns),
        "from": None if event is None else event.sender.value,
        "flags": None if event is None else event.letters,
        "seq": None if event is None else event.seq,
        "ack": None if event is None else event.ack,
        "length": None if event is None else event.length,
        "position": None if event is None else event.position.value,
        "arrived": None,
        "note": None,
        "client": UNKNOWN,
        "server": UNKNOWN,
        "traffic": None,
    }
