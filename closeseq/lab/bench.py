"""The workplace of one experiment: its capture, its story, its sockets and programs, the kernel's answers."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from closeseq.connections.conversation import ENDS, Address, End
from closeseq.lab import box, network
from closeseq.lab.agreement import Recording, views
from closeseq.lab.box import BoxNetwork
from closeseq.lab.kernel_answers import PORT, Answers, TableMoment, entry
from closeseq.lab.path import PathNetwork
from closeseq.lab.processes import Program
from closeseq.lab.tap import PathTap, Tap
from closeseq.linux.owners import owners
from closeseq.linux.socket_table import SocketTable
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from closeseq.connection import Connection
    from closeseq.lab.agreement import View
    from closeseq.lab.faults import Fault
    from closeseq.lab.kernel_answers import Trace
    from closeseq.lab.path import Injection
    from closeseq.lab.registry import Experiment
    from closeseq.lab.story import Story
    from closeseq.linux.socket_table import Socket
    from closeseq.tcp.states import State
    from closeseq.verdict.model import Finding

CLIENTS = 100  # ports that an experiment has for clients; the first is for those who want to come back
PAUSE = 0.1  # seconds; longer than Linux delays an ACK (40 ms), so that a step's packets belong to it
UNSETTLED_NS = SECOND // 100  # around a packet, in which the socket table may show either state
USUAL = (
    0.3  # seconds that a step takes at most for looking and telling; with its wait, less than a slow close
)
LOOKS = 20  # at the socket table, until one is not too near to a packet


class Bench:
    """One experiment in progress.

    Used in a network namespace of its own: it changes the kernel's settings there and takes the
    namespace's whole socket table for its own. Where the experiment has a path, the server's end of it is
    in a second namespace.

    Args:
        experiment: which one.
        path: of the capture.
        story: is told what happens.
        first_port: of the CLIENTS ports that clients get.
        trace: of the kernel's transitions, begun.
    """

    def __init__(
        self, experiment: Experiment, path: Path, story: Story, *, first_port: int, trace: Trace
    ) -> None:
        self.experiment = experiment
        self.path = path
        self.story = story
        self.client_port = first_port
        self.answers = Answers()
        self.complaints: list[str] = []  # what had to be so and was not
        self.connections: list[Connection] = []  # as they stood after the last step
        self.views: list[View] = []  # likewise
        self.untraced = ""  # why there are no transitions of the kernel's
        self.doubt = ""  # why there may be too few
        self.late = 0.0  # seconds that a step took longer than planned, at most: the machine was busy
        self.path_network: PathNetwork | None = None
        self.box_network: BoxNetwork | None = None
        self._hosts = dict.fromkeys(ENDS, "127.0.0.1")
        self._known_as: dict[str, str] = {}  # addresses that a NAT replaces, with those it gives
        self._trace = trace
        self._open = contextlib.ExitStack()
        self._kept: list[socket.socket] = []  # lest their being collected as garbage close them

    def __enter__(self) -> Self:
        """Set the namespaces up and begin to capture."""
        self.tap: Tap | PathTap
        if self.experiment.box:
            self.box_network = self._open.enter_context(BoxNetwork())
            self._hosts = {end: self.box_network.host(end) for end in ENDS}
            self.tap = self._open.enter_context(Tap(self.path, box.DEVICE, self.experiment.keep))
        elif self.experiment.path is None:
            self.tap = self._open.enter_context(Tap(self.path, self.experiment.device, self.experiment.keep))
        else:
            settings = self.experiment.path
            self.path_network = self._open.enter_context(PathNetwork(self.path, settings))
            self._hosts = {end: self.path_network.host(end) for end in ENDS}
            self.answers.one_way_ns = settings.one_way_ns()
            self.tap = PathTap(self.path, self.path_network, settings.one_way_ns())
        self._tables = {}
        for end in ENDS if self._apart else (End.SERVER,):
            with self.at(end):
                self._set_up()
                self._tables[end] = self._open.enter_context(SocketTable())
        self.story.begin(self.experiment)
        return self

    def _set_up(self) -> None:
        """Make settings in the namespace that we are in."""
        # The machine may prefer another, such as bbr, which paces; reno is allowed everywhere.
        network.set_parameter("tcp_congestion_control", "reno")
        network.set_parameter(
            "ip_local_port_range", f"{self.client_port + 1} {self.client_port + CLIENTS - 1}"
        )

    @property
    def _apart(self) -> PathNetwork | BoxNetwork | None:
        """What gives client and server a namespace each; None if they share one."""
        return self.path_network or self.box_network

    @property
    def box(self) -> BoxNetwork:
        """The box between client and server."""
        assert self.box_network, "the experiment declares a box"
        return self.box_network

    def at(self, end: End) -> contextlib.AbstractContextManager[None]:
        """Be in the namespace of an end within the block."""
        return self._apart.at(end) if self._apart else contextlib.nullcontext()

    def host(self, end: End) -> str:
        """Return the address of an end."""
        return self._hosts[end]

    def known_as(self, end: End, address: str) -> None:
        """Note the address by which an endpoint is captured: a NAT gives it that.

        Args:
            end: which endpoint.
            address: an IP address, in place of that of its own socket.
        """
        self._known_as[self.host(end)] = address

    def injected(self, fault: Fault) -> contextlib.AbstractContextManager[Injection]:
        """Have the path do something on purpose while a block runs."""
        assert self.path_network, "the experiment declares a path"
        return self.path_network.injected(fault)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the capture, and only then let go of the sockets and programs."""
        self.tap.catch_up()
        self.answers.moves = self._trace.moves(range(self.client_port, self.client_port + CLIENTS))
        self.untraced, self.doubt = self._trace.refusal, self._trace.doubt
        if self.tap.dropped:
            self.complaints.append(f"the capture lost {self.tap.dropped} packets")
        self._open.close()
        for one in self._kept:
            one.close()

    # ------------------------------------------------------------------------------- telling

    def step(
        self,
        what: str,
        *,
        wait: float = PAUSE,
        hidden: Mapping[End, str] | None = None,
        clock: str = "",
    ) -> None:
        """Let the packets of what was just done go by, then look at both ends.

        Args:
            what: was done, as a sentence.
            wait: seconds.
            hidden: the ends whose state no packet shows now, and why not.
            clock: why the kernel's timers will run out at another time than is inferred.
        """
        began = time.monotonic()
        self.story.act(what)
        self.tap.listen(wait)
        moment = self._look(what, dict(hidden or {}), clock)
        self.answers.moments.append(moment)
        self.connections = Recording(self.path, self.experiment.settings).until(moment.time_ns)
        self.views = views(self.connections, moment)
        self.story.packets(self.connections)
        self.story.ends(self.views)
        self.late = max(self.late, time.monotonic() - began - wait - USUAL)

    def check(self, what: str, truth: object) -> None:
        """State what has to be so.

        Args:
            what: has to be so, in words.
            truth: whether it is so.
        """
        self.story.fact(what, holds=bool(truth))
        if not truth:
            self.complaints.append(f"not so: {what}")

    def finding(self, code: str) -> Finding | None:
        """Return a finding of the last step, with this code."""
        found = (finding for one in self.connections for finding in one.findings if finding.code == code)
        return next(found, None)

    def end(self, end: End) -> View:
        """Return one end of the newest connection as it stood after the last step."""
        return [view for view in self.views if view.end is end][-1]

    def _look(self, what: str, hidden: dict[End, str], clock: str) -> TableMoment:
        """Ask the kernel for its table, at a moment that is not too near to a packet."""
        for _ in range(LOOKS):
            before = time.time_ns()
            sockets = [one for table in self._tables.values() for one in table.sockets()]
            now = time.time_ns()
            held_by = owners({one.inode for one in sockets if one.inode})
            self._trace.catch_up()
            self.tap.catch_up()
            if not self.tap.near(now, UNSETTLED_NS + now - before):
                break
        entries = tuple(
            entry(self._as_captured(one), next(iter(held_by.get(one.inode, [])), None)) for one in sockets
        )
        return TableMoment(now, what, entries, hidden, clock)

    def _as_captured(self, one: Socket) -> Socket:
        """Return a socket with the address by which it is captured."""
        address = self._known_as.get(one.local.address)
        return replace(one, local=Address(address, one.local.port)) if address else one

    # ------------------------------------------------------------------------------- programs

    def start(self, name: str, *arguments: str | float) -> Program:
        """Start one of the lab's programs as a process of its own, and wait until it is ready.

        Args:
            name: of a module in closeseq/lab/programs, with dashes.
            arguments: for its command line, behind the port.

        Raises:
            TimeoutError: it says nothing.
            RuntimeError: it has ended.
        """
        program = self._open.enter_context(Program(name, PORT, *arguments))
        self.story.note(f"{program}: {program.hear()}")
        return program

    def fails_to_start(self, name: str, *arguments: str | float) -> str:
        """Start a program that is expected to end at once, and return what it says.

        Args:
            name: as in `start`.
            arguments: as in `start`.
        """
        with Program(name, PORT, *arguments) as program:
            said = program.hear()
            self.story.note(f"{program}: {said}")
        return said

    # -------------------------------------------------------------------------------- sockets

    def listen(self, address: str = "") -> socket.socket:
        """Open a listening socket on the experiment's port; on the server's address, if none is given."""
        address = address or self._hosts[End.SERVER]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.at(End.SERVER):
            return self.keep(socket.create_server((address, PORT), family=family))

    def connect(self, address: str = "", *, port: int = 0, receive_buffer: int = 0) -> socket.socket:
        """Connect to the experiment's port.

        Args:
            address: of the listener; empty: the server's.
            port: to connect from; 0: one that the kernel chooses.
            receive_buffer: SO_RCVBUF in bytes; 0: as the system has it.
        """
        address = address or self._hosts[End.SERVER]
        client = self.keep(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
        if receive_buffer:  # has to be set before the handshake, which announces the window scale
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if port:
            client.bind(("" if self._apart else address, port))
        client.connect((address, PORT))
        return client

    def connection(self, address: str = "") -> tuple[socket.socket, socket.socket]:
        """Give both ends of a new connection, client first, in this process.

        Args:
            address: as in `connect`.
        """
        with self.listen(address) as listener:
            client = self.connect(address)
            return client, self.accept(listener)

    def accept(self, listener: socket.socket) -> socket.socket:
        """Accept the next connection."""
        server, _ = listener.accept()
        return self.keep(server)

    def keep(self, kept: socket.socket) -> socket.socket:
        """Hold on to a socket until the capture has ended."""
        kept.settimeout(network.TIMEOUT)
        self._kept.append(kept)
        return kept

    def forget(self, state: State) -> None:
        """Destroy the server's socket in this state without a packet, as a reboot would."""
        table = self._tables[End.SERVER]
        found = [one for one in table.sockets() if one.local.port == PORT and one.state is state]
        assert found, f"the server has a socket in {state}"
        for one in found:
            table.destroy(one)
