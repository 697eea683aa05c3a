"""The kernel's answers during an experiment, and the file that keeps them: `NAME.kernel.jsonl`.

The file has one line a step: the time in nanoseconds since the epoch, what had been done, and each socket of
the table except listening ones. A socket that is not listed is CLOSED. Then, if the tracepoint could be read,
one line with every transition; if packets were made by hand, one with their endpoints; if there was a path,
one with the one-way delays between either endpoint and the capture point.

At the end of the module: the trace of all transitions, where the kernel permits it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from closeseq.connections.conversation import Address, End
from closeseq.errors import KernelError
from closeseq.linux.tracepoint import SocketTransition, Tracepoint
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from closeseq.linux.owners import Owner
    from closeseq.linux.socket_table import Socket

PORT = 8080  # of every server in the lab

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SocketEntry:
    """One line of the socket table."""

    local: str  # address and port
    peer: str
    state: State
    receive_queue: int = 0  # bytes that the program has not read
    send_queue: int = 0  # bytes that the peer has not acknowledged
    owner: str | None = None  # name of the program; None without one, or if it may not be known
    pid: int | None = None  # its process
    orphaned: bool = False  # its program has closed it
    unaccepted: bool = False  # its program has not accepted it
    timer: str | None = None  # kind of the timer that runs
    expires_ms: int | None = None  # when it will have run out, from then


@dataclass(frozen=True, slots=True)
class TableMoment:
    """The socket table after a step."""

    time_ns: int  # since the epoch
    after: str  # what had been done
    sockets: tuple[SocketEntry, ...]  # of both endpoints' namespaces
    hidden: dict[End, str] = field(default_factory=dict)  # endpoints whose state no packet shows, and why
    clock: str = ""  # why the time left is not what is inferred

    def entry(self, local: Address, peer: Address) -> SocketEntry | None:
        """Return the socket with these ends; None if there is none.

        Args:
            local: the socket's own address and port.
            peer: those of the other end.
        """
        wanted = str(local), str(peer)
        return next((one for one in self.sockets if (one.local, one.peer) == wanted), None)


@dataclass(frozen=True, slots=True)
class Move:
    """A transition that the kernel made."""

    time_ns: int  # since the epoch
    local: int  # port
    peer: int  # port
    before: State
    after: State


@dataclass
class Answers:
    """All of the kernel's answers during one experiment."""

    moments: list[TableMoment] = field(default_factory=list)  # one a step
    moves: list[Move] | None = None  # None where the tracepoint was not to be had
    handmade: tuple[End, ...] = ()  # ends that are no sockets: their packets were made by hand
    # How long packets took between the client and the capture point, and between that and the server.
    one_way_ns: tuple[int, int] = (0, 0)

    def write(self, path: Path) -> None:
        """Write the file."""
        lines: list[Json] = [_moment(one) for one in self.moments]
        if self.moves is not None:
            lines.append({"transitions": [_move(one) for one in self.moves]})
        if self.handmade:
            lines.append({"handmade": [str(end) for end in self.handmade]})
        if any(self.one_way_ns):
            lines.append({"one_way_ns": list(self.one_way_ns)})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @classmethod
    def read(cls, path: Path) -> Answers:
        """Read the file."""
        answers = cls()
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if "transitions" in line:
                answers.moves = [_read_move(one) for one in line["transitions"]]
            elif "handmade" in line:
                answers.handmade = tuple(End(end) for end in line["handmade"])
            elif "one_way_ns" in line:
                answers.one_way_ns = tuple(line["one_way_ns"])
            else:
                answers.moments.append(_read_moment(line))
        return answers


def entry(socket: Socket, owner: Owner | None) -> SocketEntry:
    """Return what is kept of a socket and of the program that holds it.

    Args:
        socket: as the kernel's table shows it.
        owner: the oldest process that holds it; None if there is none, or none that may be known.
    """
    timer = socket.timer
    return SocketEntry(
        str(socket.local),
        str(socket.remote),
        socket.state,
        socket.receive_queue,
        socket.send_queue,
        owner.name if owner else None,
        owner.pid if owner else None,
        socket.orphaned,
        socket.unaccepted,
        timer.kind if timer else None,
        timer.expires_ms if timer else None,
    )


def _moment(moment: TableMoment) -> Json:
    line: Json = {"time_ns": moment.time_ns, "after": moment.after}
    line["sockets"] = [_entry(one) for one in moment.sockets]
    if moment.hidden:
        line["untold"] = {str(end): why for end, why in moment.hidden.items()}
    if moment.clock:
        line["clock"] = moment.clock
    return line


def _entry(one: SocketEntry) -> Json:
    """Return an entry without what is nothing."""
    line: Json = {"local": one.local, "peer": one.peer, "state": str(one.state)}
    more = {name: getattr(one, name) for name in SocketEntry.__dataclass_fields__ if name not in line}
    return line | {name: value for name, value in more.items() if value}


def _read_moment(line: Json) -> TableMoment:
    sockets = tuple(_read_entry(one) for one in line["sockets"])
    hidden = {End(end): why for end, why in line.get("untold", {}).items()}
    return TableMoment(line["time_ns"], line["after"], sockets, hidden, line.get("clock", ""))


def _read_entry(line: Json) -> SocketEntry:
    return SocketEntry(**(line | {"state": State(line["state"])}))


def _move(move: Move) -> Json:
    return {
        "time_ns": move.time_ns,
        "local": move.local,
        "peer": move.peer,
        "from": str(move.before),
        "to": str(move.after),
    }


def _read_move(line: Json) -> Move:
    return Move(line["time_ns"], line["local"], line["peer"], State(line["from"]), State(line["to"]))


class Trace:
    """Records the kernel's transitions of TCP sockets, where it permits that: only root may trace.

    Args:
        ports: of the sockets to trace, at either endpoint.
    """

    def __init__(self, ports: Collection[int] = (PORT,)) -> None:
        self.transitions: list[SocketTransition] = []  # taken in so far, of all network namespaces
        self.refusal = ""  # why nothing is traced
        self._ports = frozenset(ports)
        self._open = contextlib.ExitStack()
        self._tracepoint: Tracepoint | None = None

    def __enter__(self) -> Self:
        try:
            self._tracepoint = self._open.enter_context(Tracepoint(self._ports))
        except KernelError as error:
            self.refusal = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def doubt(self) -> str:
        """Why transitions may be missing or have wrong times; empty if there is no reason."""
        if self._tracepoint is not None and self._tracepoint.lost:
            return f"the kernel's trace lost {self._tracepoint.lost} transitions"
        if self._tracepoint is not None and self._tracepoint.clock_was_set:
            return "the system's clock was set meanwhile"
        return ""

    def catch_up(self) -> None:
        """Take in the transitions until now."""
        if self._tracepoint is not None:
            self.transitions += self._tracepoint.transitions()

    def moves(self, clients: Collection[int]) -> list[Move] | None:
        """Return the transitions of the connections from these client ports to PORT; None if not traced.

        The tracepoint reports sockets of all network namespaces, and experiments run side by side.
        """
        self.catch_up()
        if self._tracepoint is None:
            return None
        return sorted(
            (
                Move(one.time_ns, local, remote, one.before, one.after)
                for (local, remote), moves in by_ends(self.transitions).items()
                for one in moves
                if PORT in (local, remote) and {local, remote} - {PORT} <= set(clients) and local != remote
            ),
            key=lambda move: move.time_ns,
        )


def by_ends(transitions: Iterable[SocketTransition]) -> dict[tuple[int, int], list[SocketTransition]]:
    """Return the transitions of each socket by its two ports, the local one first, in time order.

    At its first transition a client's socket has no port yet, and a server's has no remote port: it is
    attributed by the socket itself, which is the same in the next transition. Another program's socket, of
    whose birth nothing was traced, may follow in the same memory: then the ports are others.
    """
    lives: list[list[SocketTransition]] = []
    newest: dict[int, list[SocketTransition]] = {}
    for one in sorted(transitions, key=lambda each: each.time_ns):
        if one.socket not in newest or _is_birth(one) or _is_another(newest[one.socket][-1], one):
            newest[one.socket] = []
            lives.append(newest[one.socket])
        newest[one.socket].append(one)
    found: dict[tuple[int, int], list[SocketTransition]] = {}
    for life in lives:
        ends = life[-1].local.port, life[-1].remote.port
        found.setdefault(ends, []).extend(life)
    return found


def _is_another(before: SocketTransition, one: SocketTransition) -> bool:
    """Whether two transitions in the same memory are of different sockets: one keeps its ports."""
    ends = ((before.local.port, one.local.port), (before.remote.port, one.remote.port))
    return any(first and then and first != then for first, then in ends)


def _is_birth(one: SocketTransition) -> bool:
    """Whether it is a socket's first transition: the kernel reuses the memory of a closed socket."""
    return one.before is State.CLOSED or (one.before, one.after) == (State.LISTEN, State.SYN_RECEIVED)
