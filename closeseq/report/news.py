"""What is said while a capture goes on: a block a connection with the kernel's word, a table of states."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from msgspec import to_builtins
from msgspec.structs import replace

from closeseq.connections.conversation import ENDS, End
from closeseq.report import rows
from closeseq.report.contained import bare_record
from closeseq.report.filed import in_files
from closeseq.report.records import Record, draw, encode
from closeseq.report.text import Style, moment, printable
from closeseq.report.timeline import format_timeline
from closeseq.tcp.states import State
from closeseq.verdict.text import count, span
from closeseq.watch.news import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from closeseq.kernel.owners import Owner
    from closeseq.kernel.socket_table import Socket
    from closeseq.watch.census import Census
    from closeseq.watch.labels import Label
    from closeseq.watch.news import Sighting
    from closeseq.watch.witness import Testimony

WORDS = {
    Kind.CLOSED: "closed",
    Kind.STUCK: "stuck",
    Kind.REVISED: "revised: later packets tell otherwise than was said",
    Kind.OPEN: "not over when the capture ended",
    Kind.MORE: "more packets came, and changed nothing",
}
MILLISECOND = 1_000_000
FIN_TAKEN = frozenset({State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING})


def block(seen: Sighting, kernel: Mapping[End, Testimony], style: Style) -> Iterator[str]:
    """Yield the lines about one connection: why it is shown, its timeline, what the kernel says."""
    mark = "problem" if seen.has_problem else "heading"
    for row in style.wrap(f"{clock(seen.as_of_ns)}  {WORDS[seen.kind]}", then="    "):
        yield style.paint(row, mark)
    drawn = format_timeline(seen, width=style.width, ascii=style.ascii, color=style.color)
    yield from drawn.removesuffix("\n").split("\n")
    yield from testimonies(kernel, style)


def headline(seen: Sighting, kernel: Mapping[End, Testimony], style: Style) -> Iterator[str]:
    """Yield one connection in one line, and who holds what of it is stuck."""
    c = seen.conversation
    text = f"#{seen.id}  {c.client} {style.to} {c.server}  {seen.verdict}: "
    text += printable(seen.files.text(seen.summary))
    for end, one in kernel.items():
        if seen.has_problem and one.owners and not one.remembered:
            text += f"; {end} held by {', '.join(named(owner) for owner in one.owners)}"
    yield from style.wrap(f"{clock(seen.as_of_ns)}  {seen.kind}  {text}", then="    ")


def others(kind: Kind, label: Label, number: int, style: Style) -> Iterator[str]:
    """Yield a line for so many more connections of which the same is to be said."""
    states = f"client {label.client}, server {label.server}"
    codes = sorted({code for code, _ in label.problems})
    problems = f" ({', '.join(codes)})" if codes else ""
    said = f"{label.verdict}{problems}; {states}"
    yield from style.wrap(f"and {count(number, 'more connection')} {kind} the same way: {said}", first="    ")


def clock(time_ns: int) -> str:
    """Return a time of day in UTC, to the millisecond: `12:18:06.194`."""
    return moment(time_ns, 3)[11:-1]


def testimonies(kernel: Mapping[End, Testimony], style: Style) -> Iterator[str]:
    """Yield what the kernel says of each end that is on this machine."""
    for end, one in kernel.items():
        mark = "" if one.agrees or one.inferred is State.UNKNOWN else "  (the packets tell otherwise)"
        yield from style.wrap(f"{end}: {told(one)}{mark}", first="    kernel  ", then=" " * 14)
        if one.why:
            yield from style.wrap(f"packets tell {one.inferred}: {one.why}", first=" " * 14)


def told(one: Testimony) -> str:
    """Return what the kernel says of one end, in one line."""
    socket = one.socket
    owners = ", ".join(named(owner) for owner in one.owners)
    if socket is None:
        return f"no socket{f'; it was held by {owners}' if owners else ''}"
    parts = [socket.state.value]
    parts += unread(socket)
    parts += [f"{count(socket.send_queue, 'byte')} not acknowledged"] if socket.send_queue else []
    if socket.timer is not None and socket.timer.kind == "time-wait":
        parts.append(f"{span(socket.timer.expires_ms * MILLISECOND)} left")
    if socket.unaccepted:
        parts.append("not accepted yet: it waits in the listener's queue")
    elif socket.orphaned:
        parts.append(f"no owner: the program has closed it{f' ({owners})' if owners else ''}")
    else:
        parts.append(f"held by {owners}" if owners else "its owner is not to be seen from here")
    return ", ".join(parts)


def unread(socket: Socket) -> list[str]:
    """Return what the program has not read. Linux counts the peer's FIN in the queue until it has."""
    number, fin = socket.receive_queue, socket.state in FIN_TAKEN
    if not fin:
        return [f"{count(number, 'byte')} not read"] if number else []
    if not number:
        return ["everything read"] if socket.state is State.CLOSE_WAIT else []
    return [f"{count(number - 1, 'byte')} and end of file not read" if number > 1 else "end of file not read"]


def named(owner: Owner) -> str:
    """Return a process as a person would look for it."""
    inside = f", container {owner.container}" if owner.container else ""
    if owner.namespace is not None:
        inside += f", network namespace {owner.namespace}"
    return f"{printable(owner.name)} (pid {owner.pid}, user {printable(owner.user)}{inside})"


def line(seen: Sighting, kernel: Mapping[End, Testimony] | None) -> str:
    """Return one connection as a line of JSON: its record, with why there is one under `live`."""
    row = live_record(seen, kernel)
    if seen.files.several:
        return json.dumps(in_files(to_builtins(row), seen.files)) + "\n"
    return encode(row) + "\n"


def live_record(seen: Sighting, kernel: Mapping[End, Testimony] | None) -> rows.Record:
    """Return the record of a connection as it stands; `kernel` is None where the kernel was not asked."""
    asked = None if kernel is None else {end.value: _testimony(kernel.get(end)) for end in ENDS}
    return replace(draw(seen), live=_live(seen, asked))


def bare_line(seen: Sighting) -> str:
    """Return as a line of JSON a connection at which closeseq itself fails."""
    return encode(bare_record(seen) | {"live": _live(seen, None)}) + "\n"


def _live(seen: Sighting, asked: Record | None) -> rows.Live:
    return rows.Live(seen.kind, moment(seen.as_of_ns), asked)


def _testimony(one: Testimony | None) -> Record | None:
    if one is None:
        return None
    socket = one.socket
    timer = None if socket is None else socket.timer
    return {
        "state": one.state.value,
        "agrees": one.agrees,
        "why": one.why or None,
        "receive_queue": None if socket is None else socket.receive_queue,
        "send_queue": None if socket is None else socket.send_queue,
        "timer": None if timer is None else timer.kind,
        "expires": None if timer is None else timer.expires_ms / 1000,
        "owned": not one.remembered,
        "owners": [dataclasses.asdict(owner) for owner in one.owners],
    }


def states(census: Census, now_ns: int, style: Style) -> Iterator[str]:
    """Yield the table of states: how many sockets of clients and servers are in each."""
    from tabulate import tabulate  # costs 50 ms, and only tables need it

    for row in style.wrap(f"{clock(now_ns)}  {counted(census)}", then="    "):
        yield style.paint(row, "heading")
    rows = [
        (state.value, census.client[state], census.server[state])
        for state in State
        if census.client[state] or census.server[state]
    ]
    if rows:
        yield from tabulate(rows, ("state", "clients", "servers"), tablefmt="plain").split("\n")


def counted(census: Census) -> str:
    """Return how many connections there were, and how many are not over."""
    text = f"{count(census.seen, 'connection')} seen, {census.open:,} not over"
    if census.evicted:
        text += f"; {census.evicted:,} given up, the longest idle (--max-connections)"
    return text
