"""What is said while a capture goes on: a block a connection with the kernel's word, a table of states.

What is printed when a live capture ends: what was seen, what is not over, who is to blame, the counts.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import to_builtins
from msgspec.structs import replace

from closeseq.connections.conversation import ENDS, End
from closeseq.report import rows
from closeseq.report.containment import bare_record
from closeseq.report.records import draw, encode
from closeseq.report.rows import Record, in_files
from closeseq.report.selection import FIRST_BLAME
from closeseq.report.summary import MOST_GROUPS, Group, blame, how_they_ended, remarks_on, their_shapes
from closeseq.report.text import Style, moment, printable
from closeseq.report.timeline_text import format_timeline
from closeseq.tcp.states import State
from closeseq.units import count, span
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import CODE
from closeseq.watch.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from closeseq.linux.owners import Owner
    from closeseq.linux.socket_table import Socket
    from closeseq.reading import Reading
    from closeseq.report.summary import Place
    from closeseq.watch.counts import SocketCounts
    from closeseq.watch.kernel_view import KernelAnswer
    from closeseq.watch.monitor import Monitor
    from closeseq.watch.updates import Pattern, Update, Updates

WORDS = {
    UpdateKind.CLOSED: "closed",
    UpdateKind.STUCK: "stuck",
    UpdateKind.REVISED: "revised: later packets tell otherwise than was said",
    UpdateKind.OPEN: "not over when the capture ended",
    UpdateKind.MORE: "more packets came, and changed nothing",
}
MILLISECOND = 1_000_000
FIN_TAKEN = frozenset({State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING})


def block(seen: Update, kernel: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield the lines about one connection: why it is shown, its timeline, what the kernel says."""
    mark = "problem" if seen.has_problem else "heading"
    for row in style.wrap(f"{clock(seen.as_of_ns)}  {WORDS[seen.kind]}", then="    "):
        yield style.paint(row, mark)
    drawn = format_timeline(seen, width=style.width, ascii=style.ascii, color=style.color)
    yield from drawn.removesuffix("\n").split("\n")
    yield from testimonies(kernel, style)


def headline(seen: Update, kernel: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield one connection in one line, and who holds what of it is stuck."""
    c = seen.conversation
    text = f"#{seen.id}  {c.client} {style.to} {c.server}  {seen.verdict}: "
    text += printable(seen.files.text(seen.summary))
    for end, one in kernel.items():
        if seen.has_problem and one.owners and not one.remembered:
            text += f"; {end} held by {', '.join(named(owner) for owner in one.owners)}"
    yield from style.wrap(f"{clock(seen.as_of_ns)}  {seen.kind}  {text}", then="    ")


def others(kind: UpdateKind, label: Pattern, number: int, style: Style) -> Iterator[str]:
    """Yield a line for so many more connections of which the same is to be said."""
    states = f"client {label.client}, server {label.server}"
    codes = sorted({code for code, _ in label.problems})
    problems = f" ({', '.join(codes)})" if codes else ""
    said = f"{label.verdict}{problems}; {states}"
    yield from style.wrap(f"and {count(number, 'more connection')} {kind} the same way: {said}", first="    ")


def clock(time_ns: int) -> str:
    """Return a time of day in UTC, to the millisecond: `12:18:06.194`."""
    return moment(time_ns, 3)[11:-1]


def testimonies(kernel: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield what the kernel says of each end that is on this machine."""
    for end, one in kernel.items():
        mark = "" if one.agrees or one.inferred is State.UNKNOWN else "  (the packets tell otherwise)"
        yield from style.wrap(f"{end}: {told(one)}{mark}", first="    kernel  ", then=" " * 14)
        if one.why:
            yield from style.wrap(f"packets tell {one.inferred}: {one.why}", first=" " * 14)


def told(one: KernelAnswer) -> str:
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


def line(seen: Update, kernel: Mapping[End, KernelAnswer] | None) -> str:
    """Return one connection as a line of JSON: its record, with why there is one under `live`."""
    row = live_record(seen, kernel)
    if seen.files.several:
        return json.dumps(in_files(to_builtins(row), seen.files)) + "\n"
    return encode(row) + "\n"


def live_record(seen: Update, kernel: Mapping[End, KernelAnswer] | None) -> rows.FullRecord:
    """Return the record of a connection as it stands; `kernel` is None where the kernel was not asked."""
    asked = None if kernel is None else {end.value: _testimony(kernel.get(end)) for end in ENDS}
    return replace(draw(seen), live=_live(seen, asked))


def bare_line(seen: Update) -> str:
    """Return as a line of JSON a connection at which closeseq itself fails."""
    return encode(bare_record(seen) | {"live": _live(seen, None)}) + "\n"


def _live(seen: Update, asked: Record | None) -> rows.LiveRow:
    return rows.LiveRow(seen.kind, moment(seen.as_of_ns), asked)


def _testimony(one: KernelAnswer | None) -> Record | None:
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


def states(census: SocketCounts, now_ns: int, style: Style) -> Iterator[str]:
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


def counted(census: SocketCounts) -> str:
    """Return how many connections there were, and how many are not over."""
    text = f"{count(census.seen, 'connection')} seen, {census.open:,} not over"
    if census.evicted:
        text += f"; {census.evicted:,} given up, the longest idle (--max-connections)"
    return text


def closing(
    watch: Monitor,
    last: Sequence[Updates],
    asked: str,
    style: Style,
    owners: Callable[[Group], Mapping[str, int]],
) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        watch: that has ended.
        last: what it said at its end: the connections that are not over.
        asked: the ports and hosts that were asked for, for when there was nothing.
        style: how text may look.
        owners: tells which programs hold the sockets that a group of problems is about, and how many.
    """
    census, reading = watch.census(), watch.reading
    yield from _seen(census, reading, asked, style)
    if not census.seen:
        return
    groups = _gather(watch, last)
    if groups:
        yield ""
        yield from blame(groups, sum(group.number for group in groups), style, watch.failed_at)
        for group in groups[:MOST_GROUPS]:
            for owner, number in owners(group).items():
                text = f"held by {owner}: {count(number, 'socket')}"
                yield from style.wrap(text, first=" " * 9)
    yield from _over(census, last, style)
    yield ""
    yield from how_they_ended(census.verdicts, style)
    yield ""
    yield from their_shapes(dict(census.shapes.most_common()), style, all_of_them=False)


def _over(census: SocketCounts, last: Sequence[Updates], style: Style) -> Iterator[str]:
    """Yield the problems of the connections that are over."""
    rest = Counter(census.problems)
    for news in last:
        for one in {code for code, _ in news.label.problems}:
            rest[one] -= len(news)
    rest = +rest
    if rest:
        yield ""
        yield style.paint("Problems of connections that are over", "heading")
    for code, number in rest.most_common():
        yield from style.wrap(f"{code}: {vocabulary.lookup(code).meaning}", first=f"{number:>7,}  ")


def _seen(census: SocketCounts, reading: Reading, asked: str, style: Style) -> Iterator[str]:
    lasted = ""
    if reading.first_ns is not None and reading.last_ns is not None:
        lasted = f" in {span(reading.last_ns - reading.first_ns)}"
    text = f"{printable(reading.path)}: {count(reading.packets, 'packet')}{lasted}, "
    text += count(census.seen, "TCP connection")
    yield from (style.paint(row, "heading") for row in style.wrap(text, then="  "))
    for remark in remarks_on(reading):
        yield from style.wrap(remark, first="  ", then="    ")
    if not reading.dropped and census.seen:
        yield "  no packet was lost"
    if census.evicted:
        given_up = f"{count(census.evicted, 'connection')} given up unfinished, the longest idle"
        yield from style.wrap(f"{given_up} (--max-connections)", first="  ", then="    ")
    if not census.seen:
        yield from style.wrap(f"no TCP connection{f' of {asked}' if asked else ''}", first="  ", then="    ")
    if census.open:
        ends = [
            f"{state} {census.client[state] + census.server[state]:,}"
            for state in State
            if _any(census, state)
        ]
        yield from style.wrap(
            f"{census.open:,} not over; sockets: {', '.join(ends)}", first="  ", then="    "
        )


def _any(census: SocketCounts, state: State) -> bool:
    return bool(census.client[state] or census.server[state])


def _gather(watch: Monitor, last: Iterable[Updates]) -> list[Group]:
    """Return the problems of connections that are not over, by what and where, the most frequent first."""
    found: dict[Place, Group] = {}
    for news in last:
        try:
            placed = _placed(watch, news)
        except Exception as fault:  # noqa: BLE001 - it costs what is said of these connections alone
            watch.failed_at(news.indices, fault)
            placed = [((CODE, None, None), news.indices)]
        for key, indices in placed:
            found.setdefault(key, Group(*key)).indices += indices
    return sorted(found.values(), key=lambda group: -group.number)


def _placed(watch: Monitor, news: Updates) -> list[tuple[Place, Sequence[int]]]:
    """Return what is wrong with connections, and where; nothing if they have no problem."""
    if not news.label.problems:
        return []
    code, end = min(news.label.problems, key=lambda one: (one[0] not in FIRST_BLAME, one[0]))
    if end is None:
        return [((code, None, None), news.indices)]
    return [((code, end, where), indices) for where, indices in watch.places(news.indices, end)]
