"""Two network namespaces with a path between them: the client's, which we are in, and the server's.

A process of its own carries the packets from one to the other (`Relay`), and records them where they pass
the capture point. It ends with us, and its two TUN devices with it; the server's namespace ends with the last
process and socket in it. So nothing is left behind, however we end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import select
import signal
import struct
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from closeseq.capture.pcap import NANOSECONDS
from closeseq.connections.conversation import ENDS, End
from closeseq.lab.network import die_with_parent
from closeseq.lab.relay import Relay
from closeseq.lab.tun import open_tun, packets_lost
from closeseq.linux.namespaces import coming_back, enter_new, open_ours, return_to
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from closeseq.lab.faults import Fault, PathSettings

NAMES = {End.CLIENT: "path-client", End.SERVER: "path-server"}  # of the devices
HOSTS = {
    4: {End.CLIENT: "10.9.0.1", End.SERVER: "10.9.0.2"},
    6: {End.CLIENT: "fd09::1", End.SERVER: "fd09::2"},
}
PREFIXES = {4: 24, 6: 64}
RAW_IP = 101  # LINKTYPE_RAW
SNAP_LENGTH = 256  # bytes
LARGEST = 65536  # bytes of a packet
TIMEOUT = 20.0  # seconds for an answer of the relay
PR_SET_TIMERSLACK = 29  # linux/prctl.h
NICE = -15  # the relay has little to do, and must do it in time


class PathError(RuntimeError):
    """The relay failed, or the devices lost packets that it was to carry."""


@dataclass(frozen=True)
class Injection:
    """A fault in place on a path."""

    network: PathNetwork
    number: int  # of the fault

    def count(self) -> int:
        """Return how many segments it has met so far."""
        return self.network.count(self.number)

    def wait_for(self, segments: int) -> None:
        """Wait until it has met so many segments. Raises TimeoutError."""
        deadline = time.monotonic() + TIMEOUT
        while (met := self.count()) < segments:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the fault has met only {met} of {segments} segments")
            time.sleep(0.005)


class PathNetwork:
    """The path, from when it is made until it is closed.

    This process must be in a network namespace of its own, and be root there; no other threads may run while
    it is made.

    Args:
        capture: the file that is written, a pcap of raw IP packets with nanoseconds.
        settings: what the path is like.

    Raises:
        TunError: there are no TUN devices for us.
        NamespaceError: there is no second namespace for us.
    """

    def __init__(self, capture: Path, settings: PathSettings) -> None:
        self._hosts = HOSTS[settings.ip]
        self._open = contextlib.ExitStack()
        try:
            self._namespaces = {End.CLIENT: self._here()}
            with coming_back():
                enter_new()
                self._namespaces[End.SERVER] = self._here()
            self._relay = self._open.enter_context(self._started(capture, settings))
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the path; what is under way arrives nowhere. Again does no harm."""
        self._open.close()

    def host(self, end: End) -> str:
        """Return the address of an end."""
        return self._hosts[end]

    @contextlib.contextmanager
    def at(self, end: End) -> Iterator[None]:
        """Be in the namespace of an end within the block; a socket that is opened there stays there."""
        return_to(self._namespaces[end])
        try:
            yield
        finally:
            return_to(self._namespaces[End.CLIENT])

    def inject(self, fault: Fault) -> int:
        """Put a fault in place, for what is sent from now on; return its number."""
        return int(self._relay.ask("inject", fault))

    def count(self, number: int) -> int:
        """Return how many segments a fault has met so far."""
        return int(self._relay.ask("count", number))

    def remove(self, number: int) -> int:
        """Remove a fault, and return how many segments it has met."""
        return int(self._relay.ask("remove", number))

    @contextlib.contextmanager
    def injected(self, fault: Fault) -> Iterator[Injection]:
        """Have a fault in place while the block runs."""
        injection = Injection(self, self.inject(fault))
        try:
            yield injection
        finally:
            self.remove(injection.number)

    @property
    def dropped(self) -> int:
        """Packets for which the devices had no room, so that the relay never got them."""
        lost = 0
        for end in ENDS:
            with self.at(end):
                lost += packets_lost(NAMES[end])
        return lost

    def check(self) -> None:
        """Make sure that the relay runs, and has got all packets.

        Raises:
            PathError: it does not, or has not.
        """
        self._relay.ask("check")
        if lost := self.dropped:
            raise PathError(f"the devices of the path had no room for {lost} packets")

    def _here(self) -> int:
        """Return a descriptor of the namespace that we are in, until the path is closed."""
        descriptor = open_ours()
        self._open.callback(os.close, descriptor)
        return descriptor

    def _started(self, capture: Path, settings: PathSettings) -> _RelayProcess:
        """Make the devices, and start the relay, which alone keeps them."""
        with contextlib.ExitStack() as until_forked:
            devices = {}
            for end in ENDS:
                with self.at(end):
                    devices[end] = open_tun(NAMES[end], self._hosts[end], PREFIXES[settings.ip])
                until_forked.callback(os.close, devices[end])
            recorder = until_forked.enter_context(capture.open("wb", buffering=0))
            recorder.write(struct.pack("<IHHiIII", NANOSECONDS, 2, 4, 0, 0, SNAP_LENGTH, RAW_IP))
            return _RelayProcess(_Carrier(devices, recorder.fileno(), settings))


class _RelayProcess:
    """The process of the relay, and the line to it."""

    def __init__(self, carrier: _Carrier) -> None:
        self._line, far_end = multiprocessing.Pipe()
        parent, self._pid = os.getpid(), os.fork()
        if not self._pid:
            self._line.close()
            os._exit(_run(carrier, far_end, parent))
        far_end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def ask(self, *question: Any) -> Any:
        """Have the relay do something, and return its answer, once it has done it. Raises PathError."""
        try:
            self._line.send(question)
            if not self._line.poll(TIMEOUT):
                raise PathError(f"the relay did not answer within {TIMEOUT:.0f} s")
            answer = self._line.recv()
        except (EOFError, OSError) as error:
            raise PathError("the relay has ended") from error
        if isinstance(answer, Exception):
            raise PathError(f"the relay: {type(answer).__name__}: {answer}")
        return answer


class _Carrier:
    """The relay at work: packets from one device to the other, and into the capture."""

    def __init__(self, devices: dict[End, int], recorder: int, settings: PathSettings) -> None:
        self._devices = devices
        self._recorder = recorder
        self._relay = Relay(settings, clock=time.monotonic_ns, record=self._record, deliver=self._deliver)

    def carry(self, line: Connection) -> None:
        """Carry packets, and do what is asked for, until whoever asks is gone."""
        sources = [*self._devices.values(), line.fileno()]
        while True:
            due_ns = self._relay.next_ns
            wait = None if due_ns is None else max(0, due_ns - time.monotonic_ns()) / SECOND
            ready, _, _ = select.select(sources, [], [], wait)
            # What was sent before a question was asked comes before it.
            if ready:
                self._take()
            self._relay.work()
            if line.fileno() in ready:
                try:
                    name, *arguments = line.recv()
                except EOFError:
                    return
                line.send(self._answer(name, arguments))

    def _take(self) -> None:
        """Take in what either end has sent."""
        for end, device in self._devices.items():
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._relay.send(end, os.read(device, LARGEST))

    def _answer(self, name: str, arguments: list[Any]) -> Any:
        """Do what is asked for; of an error, whoever asked is told."""
        try:
            match name:
                case "inject":
                    return self._relay.inject(*arguments)
                case "count":
                    return self._relay.count(*arguments)
                case "remove":
                    return self._relay.remove(*arguments)
                case "check":
                    return True
        except KeyError as error:
            return error
        return ValueError(f"no such question: {name}")

    def _record(self, packet: bytes) -> None:
        seconds, nanoseconds = divmod(time.time_ns(), SECOND)
        kept = packet[:SNAP_LENGTH]
        os.write(self._recorder, struct.pack("<IIII", seconds, nanoseconds, len(kept), len(packet)) + kept)

    def _deliver(self, end: End, packet: bytes) -> None:
        os.write(self._devices[end], packet)


def _run(carrier: _Carrier, line: Connection, parent: int) -> int:
    """Be the relay's process, and return its exit status."""
    try:
        os.setsid()  # Ctrl-C is for our parent, which ends us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()
        if os.getppid() != parent:
            return 1
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        with contextlib.suppress(PermissionError):
            os.nice(NICE)
        gc.disable()  # there are no circles, and no pauses wanted
        carrier.carry(line)
    except BaseException:  # noqa: BLE001 - a forked process must not do what its parent was about to
        traceback.print_exc()
        return 1
    return 0
