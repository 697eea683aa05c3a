"""Where the connections of a recording live: on loopback, or at two ends of a path.

Either is a context: the capture begins with it and ends with it.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from closeseq.connections.conversation import Address, End
from closeseq.lab.faults import Action, Conditions, Fault, Leg, PathSettings, SegmentKind
from closeseq.lab.path import PathNetwork
from closeseq.lab.tap import Tap
from closeseq.linux.socket_table import SocketTable
from closeseq.settings import SECOND
from kernel_truth.loss import Losses
from kernel_truth.programs import SIDES

HOSTS = {4: "127.0.0.1", 6: "::1"}
TAKE_IN = 0.1  # seconds that the tap is read at a time

# Where the capture point of a path lies, on the way from client to server.
TAPS = {"near": 0.02, "mid": 0.5, "far": 0.98, "clean": 0.3}
ROUND_TRIPS = (0.0002, 0.25)  # seconds; as many between 1 and 10 ms as between 10 and 100 ms
MOST_LOST, MOST_REORDERED, MOST_DUPLICATED = 0.06, 0.06, 0.03  # shares of packets, drawn for each connection


class Network(Protocol):
    """What a recording asks of the network that its connections live in."""

    def host(self, side: str) -> str:
        """Return the address of a side."""

    def at(self, side: str) -> AbstractContextManager[None]:
        """Be where that side's sockets are opened, within the block."""

    def state(self, side: str, local: int, remote: int) -> str:
        """Return the state of a side's socket with these ports; CLOSED without one."""

    def drop(self, place: str, side: str, local: int, remote: int) -> None:
        """Drop what this side of a connection sends from now on. Twice is as good as once."""

    def heal(self, place: str, side: str, local: int, remote: int) -> None:
        """Let what it sends through again."""

    def lose(self, place: str, side: str, kind: str, local: int, remote: int) -> None:
        """Drop the next segment of a kind that this side sends, and no other."""

    def facts(self, server_port: int) -> dict[str, object]:
        """Return what the truth is to say of the network between the two ends of a connection."""

    def check(self) -> None:
        """Raise an error unless everything was captured that passed."""


class Loopback:
    """One namespace's loopback interface, with the lab's tap on it; nftables drops packets."""

    def __init__(self, losses: Losses, table: SocketTable, tap: Tap, host: str) -> None:
        self._losses, self._table, self._tap, self._host = losses, table, tap, host

    def host(self, side: str) -> str:  # noqa: ARG002 - both are the same
        return self._host

    def at(self, side: str) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def state(self, side: str, local: int, remote: int) -> str:  # noqa: ARG002
        found = self._table.lookup(Address(self._host, local), Address(self._host, remote))
        return str(found.state) if found else "CLOSED"

    def drop(self, place: str, side: str, local: int, remote: int) -> None:  # noqa: ARG002
        self._losses.drop(place, local, remote)

    def heal(self, place: str, side: str, local: int, remote: int) -> None:  # noqa: ARG002
        self._losses.heal(place, local, remote)

    def lose(self, place: str, side: str, kind: str, local: int, remote: int) -> None:
        raise NotImplementedError("on loopback whole directions are dropped")

    def facts(self, server_port: int) -> dict[str, object]:  # noqa: ARG002
        return {}

    def check(self) -> None:
        _check_nothing_lost(self._tap)


class OverPath:
    """Two namespaces joined by a relay that records where packets pass its capture point."""

    def __init__(self, path: PathNetwork, settings: PathSettings, tables: dict[str, SocketTable]) -> None:
        self._path, self._settings, self._tables = path, settings, tables
        self._dropping: dict[tuple[str, str, int], int] = {}  # numbers of faults

    def host(self, side: str) -> str:
        return self._path.host(End(side))

    def at(self, side: str) -> AbstractContextManager[None]:
        return self._path.at(End(side))

    def state(self, side: str, local: int, remote: int) -> str:
        end = End(side)
        here, there = Address(self._path.host(end), local), Address(self._path.host(end.peer), remote)
        found = self._tables[side].lookup(here, there)
        return str(found.state) if found else "CLOSED"

    def drop(self, place: str, side: str, local: int, remote: int) -> None:
        port = _server_port(side, local, remote)
        if (place, side, port) not in self._dropping:
            fault = Fault(Action.LOSE, End(side), Leg(place), server_port=port)
            self._dropping[place, side, port] = self._path.inject(fault)

    def heal(self, place: str, side: str, local: int, remote: int) -> None:
        number = self._dropping.pop((place, side, _server_port(side, local, remote)), None)
        if number is not None:
            self._path.remove(number)

    def lose(self, place: str, side: str, kind: str, local: int, remote: int) -> None:
        port = _server_port(side, local, remote)
        self._path.inject(Fault(Action.LOSE, End(side), Leg(place), SegmentKind(kind), port, times=1))

    def facts(self, server_port: int) -> dict[str, object]:
        round_trip_ns = self._settings.special[server_port].round_trip_ns
        one_way = [time_ns / SECOND for time_ns in self._settings.one_way_ns(server_port)]
        return {"rtt": round_trip_ns / SECOND, "one_way": one_way}

    def check(self) -> None:
        self._path.check()


NetworkOf = Callable[[Path, range, int], AbstractContextManager[Network]]


@contextmanager
def loopback(capture: Path, ports: range, ip: int) -> Iterator[Network]:
    """Capture on loopback while the block runs."""
    del ports  # nothing else is on this namespace's loopback
    with ExitStack() as at_end, Tap(capture, "lo", None) as tap, _read(tap):
        losses = Losses()
        at_end.callback(losses.close)
        yield Loopback(losses, at_end.enter_context(SocketTable()), tap, HOSTS[ip])


@contextmanager
def _read(tap: Tap) -> Iterator[None]:
    """Have a thread read a tap while the block runs, and all that is left at its end."""
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            tap.listen(TAKE_IN)
        tap.catch_up()

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read)
        try:
            yield
        finally:
            over.set()
        reading.result()
    _check_nothing_lost(tap)


def _check_nothing_lost(tap: Tap) -> None:
    if tap.dropped:
        raise RuntimeError(f"the capture itself lost {tap.dropped} packets, so it cannot be compared")


def over_path(kind: str, dice: random.Random) -> NetworkOf:
    """Return what makes a path of one kind, a key of TAPS, and captures on it while a block runs."""

    @contextmanager
    def made(capture: Path, ports: range, ip: int) -> Iterator[Network]:
        conditions = {port: random_conditions(dice, lossless=kind == "clean") for port in ports}
        settings = PathSettings(TAPS[kind], Conditions(0), conditions, ip, seed=str(dice.random()))
        with PathNetwork(capture, settings) as path, ExitStack() as at_end:
            tables = {}
            for side in SIDES:
                with path.at(End(side)):
                    tables[side] = at_end.enter_context(SocketTable())
            yield OverPath(path, settings, tables)

    return made


def random_conditions(dice: random.Random, *, lossless: bool) -> Conditions:
    """Throw the dice for the path of one connection."""
    shortest, longest = ROUND_TRIPS
    round_trip = shortest * (longest / shortest) ** dice.random()
    loss, reordering, duplication = (
        dice.uniform(0, most) for most in (MOST_LOST, MOST_REORDERED, MOST_DUPLICATED)
    )
    return Conditions(round(round_trip * SECOND), 0.0 if lossless else loss, reordering, duplication)


def _server_port(side: str, local: int, remote: int) -> int:
    return local if side == "server" else remote
