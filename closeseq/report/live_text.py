"""What `live` prints: a block or line for each update, the table of states, and the summary at the end."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import to_builtins
from msgspec.structs import replace

from closeseq.connections.conversation import ENDS, End
from closeseq.linux.reset_wording import in_words
from closeseq.report import rows
from closeseq.report.containment import bare_record
from closeseq.report.json_text import encode
from closeseq.report.problems import MOST_GROUPS, MOST_PLACES, Group, ProblemCause, blame, causes
from closeseq.report.records import draw
from closeseq.report.rows import Record, in_files
from closeseq.report.selection import FIRST_BLAME
from closeseq.report.summary import MOST_SHAPES, how_they_ended, remarks_on, their_shapes, together
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
    from closeseq.report.problems import Place
    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.counts import SocketCounts
    from closeseq.watch.kernel_resets import KernelReset
    from closeseq.watch.kernel_view import KernelAnswer, Leftover
    from closeseq.watch.monitor import Monitor
    from closeseq.watch.updates import Pattern, Update, Updates

WORDS = {
    UpdateKind.CLOSED: "closed",
    UpdateKind.STUCK: "stuck",
    UpdateKind.REVISED: "revised: later packets contradict the earlier report",
    UpdateKind.OPEN: "not over when the capture ended",
    UpdateKind.MORE: "more packets came, and changed nothing",
}
MILLISECOND = 1_000_000
FIN_TAKEN = frozenset({State.CLOSE_WAIT, State.LAST_ACK, State.CLOSING})


def block(seen: Update, answers: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield the lines about one connection: why it is reported, its timeline, the kernel's answers.

    Args:
        seen: the connection as it is reported.
        answers: the kernel's, for endpoints on this machine; empty if it was not asked.
        style: how text may look: width, colours, ASCII only.
    """
    mark = "problem" if seen.has_problem else "heading"
    for row in style.wrap(f"{clock(seen.as_of_ns)}  {WORDS[seen.kind]}", then="    "):
        yield style.paint(row, mark)
    drawn = format_timeline(seen, width=style.width, ascii=style.ascii, color=style.color)
    yield from drawn.removesuffix("\n").split("\n")
    yield from kernel_lines(answers, style)


def headline(seen: Update, answers: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield one connection in one line, with the owners of its sockets if it has a problem.

    Args:
        seen: the connection as it is reported.
        answers: as in `block`.
        style: how text may look: width, colours, ASCII only.
    """
    c = seen.conversation
    text = f"#{seen.id}  {c.client} {style.to} {c.server}  {seen.verdict}: "
    text += printable(seen.files.text(seen.summary))
    for end, one in answers.items():
        if seen.has_problem and one.owners and not one.remembered:
            text += f"; {end} held by {', '.join(named(owner) for owner in one.owners)}"
    yield from style.wrap(f"{clock(seen.as_of_ns)}  {seen.kind}  {text}", then="    ")


def others(kind: UpdateKind, pattern: Pattern, number: int, style: Style) -> Iterator[str]:
    """Yield a line for more connections that are reported for the same reason and closed alike.

    Args:
        kind: the reason.
        pattern: their judgement.
        number: how many there are.
        style: how text may look: width, colours, ASCII only.
    """
    states = f"client {pattern.client}, server {pattern.server}"
    codes = sorted({code for code, _ in pattern.problems})
    problems = f" ({', '.join(codes)})" if codes else ""
    said = f"{pattern.verdict}{problems}; {states}"
    yield from style.wrap(f"and {count(number, 'more connection')} {kind} the same way: {said}", first="    ")


def leftover(one: Leftover) -> str:
    """Return which sockets were in CLOSE_WAIT before the capture began, in one line."""
    at = "at" if one.end is End.SERVER else "of clients of"
    owners = ", ".join(named(owner) for owner in one.owners)
    who = f", held by {owners}," if owners else ", which no program has accepted," if one.unaccepted else ""
    are, peer = ("is", "its peer has") if one.number == 1 else ("are", "their peers have")
    sockets = f"{count(one.number, 'socket')} {at} {one.service}{who}"
    return f"{sockets} {are} in CLOSE_WAIT already: {peer} closed, and the program has not"


def clock(time_ns: int) -> str:
    """Return a time since the Unix epoch as time of day in UTC, to the millisecond: `12:18:06.194`."""
    return moment(time_ns, 3)[11:-1]


def kernel_lines(answers: Mapping[End, KernelAnswer], style: Style) -> Iterator[str]:
    """Yield the kernel's answer about each endpoint on this machine.

    Args:
        answers: as in `block`.
        style: how text may look: width, colours, ASCII only.
    """
    for end, one in answers.items():
        mark = "" if one.agrees or one.inferred is State.UNKNOWN else "  (inference and kernel disagree)"
        yield from style.wrap(f"{end}: {kernel_text(one)}{mark}", first="    kernel  ", then=" " * 14)
        if one.why:
            yield from style.wrap(f"inferred {one.inferred}; perhaps {one.why}", first=" " * 14)
        if one.reset is not None:
            text = f"{end}: {reset_text(one.reset)}"
            yield from style.wrap(text, first="    kernel  ", then=" " * 14)
        if one.listener is not None:
            text = f"{end}'s listener: {queue_text(one.listener, full=one.queue_is_full)}"
            yield from style.wrap(text, first="    kernel  ", then=" " * 14)


def kernel_text(one: KernelAnswer) -> str:
    """Return the kernel's answer about one endpoint, in one line."""
    socket = one.socket
    owners = ", ".join(named(owner) for owner in one.owners)
    if socket is None:
        return f"no socket{f'; last owner {owners}' if owners else ''}"
    parts = [socket.state.value]
    parts += unread(socket)
    parts += [f"{count(socket.send_queue, 'byte')} not acknowledged"] if socket.send_queue else []
    if socket.timer is not None and socket.timer.kind == "time-wait":
        parts.append(f"{span(socket.timer.expires_ms * MILLISECOND)} left")
    if socket.unaccepted:
        parts.append("not accepted yet: in the listener's accept queue")
    elif socket.orphaned:
        parts.append(f"no owner: the program has closed it{f' ({owners})' if owners else ''}")
    else:
        parts.append(f"held by {owners}" if owners else "owner not visible from this namespace")
    return ", ".join(parts)


def reset_text(one: KernelReset) -> str:
    """Return what the kernel says of an endpoint's RSTs."""
    if not one.sent:
        return "this kernel's TCP did not send its RST: another host did, or a firewall or raw socket here"
    reasons = "; then ".join(map(in_words, one.reasons))
    return f"sent RST: {reasons}" if reasons else "sent RST; this kernel gives no reasons"


def queue_text(listener: Socket, *, full: bool) -> str:
    """Return how full a listener's accept queue is."""
    waiting = count(listener.receive_queue, "connection")
    text = f"{waiting} not accepted yet, backlog {listener.send_queue}"
    return f"{text}: its accept queue is full, so this kernel takes no more connections" if full else text


def unread(socket: Socket) -> list[str]:
    """Return what the program has not read. Linux counts the peer's FIN as a byte of the receive queue."""
    number, fin = socket.receive_queue, socket.state in FIN_TAKEN
    if not fin:
        return [f"{count(number, 'byte')} not read"] if number else []
    if not number:
        return ["everything read"] if socket.state is State.CLOSE_WAIT else []
    return [f"{count(number - 1, 'byte')} and end of file not read" if number > 1 else "end of file not read"]


def named(owner: Owner) -> str:
    """Return a process by name, pid, user, and container or namespace if it is in another one."""
    inside = f", container {owner.container}" if owner.container else ""
    if owner.namespace is not None:
        inside += f", network namespace {owner.namespace}"
    return f"{printable(owner.name)} (pid {owner.pid}, user {printable(owner.user)}{inside})"


def line(seen: Update, answers: Mapping[End, KernelAnswer] | None) -> str:
    """Return one connection as a line of JSON: its record, with the reason for the update under `live`.

    Args:
        seen: the connection as it is reported.
        answers: the kernel's, for endpoints on this machine; None where the kernel was not asked.
    """
    row = live_record(seen, answers)
    if seen.files.several:
        return json.dumps(in_files(to_builtins(row), seen.files)) + "\n"
    return encode(row) + "\n"


def live_record(seen: Update, answers: Mapping[End, KernelAnswer] | None) -> rows.FullRecord:
    """Return the record of a connection as it stands.

    Args:
        seen: the connection as it is reported.
        answers: as in `line`.
    """
    asked = None if answers is None else {end.value: _kernel_row(answers.get(end)) for end in ENDS}
    return replace(draw(seen), live=_live(seen, asked))


def bare_line(seen: Update) -> str:
    """Return a connection at which closeseq itself fails as a line of JSON."""
    return encode(bare_record(seen) | {"live": _live(seen, None)}) + "\n"


def _live(seen: Update, asked: Record | None) -> rows.LiveRow:
    return rows.LiveRow(seen.kind, moment(seen.as_of_ns), asked)


def _kernel_row(one: KernelAnswer | None) -> Record | None:
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
        **({"reset_reasons": list(one.reset.reasons)} if one.reset is not None and one.reset.reasons else {}),
        **({} if one.listener is None else {"accept_queue": _accept_queue(one)}),
    }


def _accept_queue(one: KernelAnswer) -> Record:
    assert one.listener is not None
    return {
        "waiting": one.listener.receive_queue,
        "backlog": one.listener.send_queue,
        "full": one.queue_is_full,
    }


def states(counts: SocketCounts, now_ns: int, style: Style) -> Iterator[str]:
    """Yield the table of states: how many sockets of clients and servers are in each.

    Args:
        counts: as `Monitor.counts` returns them.
        now_ns: when they were counted, since the Unix epoch.
        style: how text may look: width, colours, ASCII only.
    """
    from tabulate import tabulate  # costs 50 ms, and only tables need it

    for row in style.wrap(f"{clock(now_ns)}  {counted(counts)}", then="    "):
        yield style.paint(row, "heading")
    rows = [
        (state.value, counts.client[state], counts.server[state])
        for state in State
        if counts.client[state] or counts.server[state]
    ]
    if rows:
        yield from tabulate(rows, ("state", "clients", "servers"), tablefmt="plain").split("\n")


def counted(counts: SocketCounts) -> str:
    """Return how many connections were seen, and how many are not over."""
    text = f"{count(counts.seen, 'connection')} seen, {counts.open:,} not over"
    if counts.evicted:
        text += f"; {counts.evicted:,} longest-idle ones dropped (--max-connections)"
    return text


def closing(
    monitor: Monitor,
    last: Sequence[Updates],
    asked: str,
    style: Style,
    owners: Callable[[Group], Mapping[str, int]],
    *,
    population: Sequence[PopulationFinding] = (),
) -> Iterator[str]:
    """Yield the lines of the summary at the end.

    Args:
        monitor: ended.
        last: its last updates: the connections that are not over.
        asked: the ports and hosts that were asked for; printed if no connection was seen.
        style: how text may look.
        owners: returns the programs that own the sockets of a group of problems, with their number.
        population: what all connections showed together.
    """
    counts, reading = monitor.counts(), monitor.reading
    yield from _seen(counts, reading, asked, style)
    if not counts.seen:
        return
    yield from together(population, style)
    found = _gather(monitor, last)
    if found:
        yield ""
        yield from blame(found, style, monitor.failed_at)
        for group in (one for cause in found[:MOST_GROUPS] for one in cause.groups[:MOST_PLACES]):
            for owner, number in owners(group).items():
                text = f"held by {owner}: {count(number, 'socket')}"
                yield from style.wrap(text, first=" " * 9)
    yield from _over(counts, last, style)
    yield ""
    yield from how_they_ended(counts.verdicts, style)
    yield ""
    shown = dict(counts.shapes.most_common(MOST_SHAPES))
    yield from their_shapes(shown, style, len(counts.shapes), counts.shapes.total())


def _over(counts: SocketCounts, last: Sequence[Updates], style: Style) -> Iterator[str]:
    """Yield the problems of the connections that are over."""
    rest = Counter(counts.problems)
    for updates in last:
        for one in {code for code, _ in updates.pattern.problems}:
            rest[one] -= len(updates)
    rest = +rest
    if rest:
        yield ""
        yield style.paint("Problems of connections that are over", "heading")
    for code, number in rest.most_common():
        yield from style.wrap(f"{code}: {vocabulary.lookup(code).meaning}", first=f"{number:>7,}  ")


def _seen(counts: SocketCounts, reading: Reading, asked: str, style: Style) -> Iterator[str]:
    lasted = ""
    if reading.first_ns is not None and reading.last_ns is not None:
        lasted = f" in {span(reading.last_ns - reading.first_ns)}"
    text = f"{printable(reading.path)}: {count(reading.packets, 'packet')}{lasted}, "
    text += count(counts.seen, "TCP connection")
    yield from (style.paint(row, "heading") for row in style.wrap(text, then="  "))
    for remark in remarks_on(reading):
        yield from style.wrap(remark, first="  ", then="    ")
    if not reading.dropped and counts.seen:
        yield "  no packet was lost"
    if counts.evicted:
        dropped = f"{count(counts.evicted, 'longest-idle connection')} dropped before the end"
        yield from style.wrap(f"{dropped} (--max-connections)", first="  ", then="    ")
    if not counts.seen:
        yield from style.wrap(f"no TCP connection{f' of {asked}' if asked else ''}", first="  ", then="    ")
    if counts.open:
        ends = [
            f"{state} {counts.client[state] + counts.server[state]:,}"
            for state in State
            if _any(counts, state)
        ]
        yield from style.wrap(
            f"{counts.open:,} not over; sockets: {', '.join(ends)}", first="  ", then="    "
        )


def _any(counts: SocketCounts, state: State) -> bool:
    return bool(counts.client[state] or counts.server[state])


def _gather(monitor: Monitor, last: Iterable[Updates]) -> list[ProblemCause]:
    """Return the causes of the problems of connections that are not over, the worst first."""
    found: dict[Place, Group] = {}
    for updates in last:
        try:
            placed = _placed(monitor, updates)
        except Exception as fault:  # noqa: BLE001 - only these connections are affected
            monitor.failed_at(updates.indices, fault)
            placed = [((CODE, None, None), updates.indices)]
        for key, indices in placed:
            found.setdefault(key, Group(*key)).indices += indices
    return causes(found.values())


def _placed(monitor: Monitor, updates: Updates) -> list[tuple[Place, Sequence[int]]]:
    """Return the problem of connections by place; nothing if they have none."""
    if not updates.pattern.problems:
        return []
    code, end = min(updates.pattern.problems, key=lambda one: (one[0] not in FIRST_BLAME, one[0]))
    if end is None:
        return [((code, None, None), updates.indices)]
    return [((code, end, where), indices) for where, indices in monitor.places(updates.indices, end)]
