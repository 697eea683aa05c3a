"""The kernel's own transitions of an experiment's sockets, where it lets itself be traced."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from closeseq.kernel.errors import KernelError
from closeseq.kernel.tracepoint import Tracepoint, Transition
from closeseq.lab.answers import Move
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

PORT = 8080  # of every server


class Trace:
    """Follows the tracepoint of socket states, if that is permitted; it is root's."""

    def __init__(self) -> None:
        self._found: list[Transition] = []
        self._open = contextlib.ExitStack()
        self.refusal = ""  # why it is not followed
        self._tracepoint: Tracepoint | None = None

    def __enter__(self) -> Self:
        try:
            self._tracepoint = self._open.enter_context(Tracepoint(frozenset({PORT})))
        except KernelError as error:
            self.refusal = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def doubt(self) -> str:
        """Why the transitions may not be all, or not at the right times; empty if nothing speaks for that."""
        if self._tracepoint is not None and self._tracepoint.lost:
            return f"the kernel had no room for {self._tracepoint.lost} transitions"
        if self._tracepoint is not None and self._tracepoint.clock_was_set:
            return "somebody set the machine's clock meanwhile"
        return ""

    def catch_up(self) -> None:
        """Take in what the kernel has told by now."""
        if self._tracepoint is not None:
            self._found += self._tracepoint.transitions()

    def moves(self, clients: Collection[int]) -> list[Move] | None:
        """Return the transitions of the connections of these clients' ports; None if they are not known.

        The tracepoint tells of all network namespaces, and experiments run side by side.
        """
        self.catch_up()
        if self._tracepoint is None:
            return None
        return sorted(
            (
                Move(one.time_ns, local, remote, one.before, one.after)
                for (local, remote), moves in by_ends(self._found).items()
                for one in moves
                if PORT in (local, remote) and {local, remote} - {PORT} <= set(clients) and local != remote
            ),
            key=lambda move: move.time_ns,
        )


def by_ends(transitions: Iterable[Transition]) -> dict[tuple[int, int], list[Transition]]:
    """Return the transitions of each socket by its two ports, the local one first, in time order.

    A client's port is not known yet at its first transition, nor to a server's socket at its first one: there
    the socket itself, which is the same in the next one, tells whose it is.
    """
    lives: list[list[Transition]] = []
    newest: dict[int, list[Transition]] = {}
    for one in sorted(transitions, key=lambda each: each.time_ns):
        if one.socket not in newest or _is_birth(one):
            newest[one.socket] = []
            lives.append(newest[one.socket])
        newest[one.socket].append(one)
    found: dict[tuple[int, int], list[Transition]] = {}
    for life in lives:
        ends = life[-1].local.port, life[-1].remote.port
        found.setdefault(ends, []).extend(life)
    return found


def _is_birth(one: Transition) -> bool:
    """Whether it is a socket's first transition; the kernel uses a dead one's memory again."""
    return one.before is State.CLOSED or (one.before, one.after) == (State.LISTEN, State.SYN_RECEIVED)
