"""A live capture as its user sees it: opened on one or several devices, read batch by batch."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

import numpy as np

from closeseq.capture.live.bpf import Program, chain, cut
from closeseq.capture.live.devices import Device, DeviceState, find_devices
from closeseq.capture.live.filter import FilterRequest, tcp_program
from closeseq.errors import DeviceError, NoRingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from closeseq.capture.live.devices import Device
    from closeseq.packets.frames import Frames

MOST = 1 << 15  # frames in a batch, so that its columns fit a cache
# Seconds from batch to batch, as long as no backlog is waiting. It feels live, and at twenty batches a
# second the work that is done once a batch does not count.
PACE = 0.05
LOOK_AGAIN = 0.5  # seconds until a device that is down is looked at again
LONGEST_WAIT = 86_400.0  # seconds, in one call of the system

# Bytes of a frame that are kept: Ethernet 14, two VLAN tags 8, IPv6 40, TCP with all options 60, which
# makes 122; and 70 for extension headers or a tunnel's headers (VXLAN over IPv4: 50).
SNAP_LENGTH = 192
# Bytes of ring memory. A packet of TCP needs 280 at most, so this is 240,000 packets: nearly three
# seconds of the most that loopback was seen to do.
BUFFER_BYTES = 64 << 20


def open_live(
    interfaces: Sequence[str],
    *,
    ports: AbstractSet[int] = frozenset(),
    hosts: AbstractSet[str] = frozenset(),
    expression: str | None = None,
    source: Literal["auto", "ring", "scapy"] = "auto",
    snap_length: int = SNAP_LENGTH,
    buffer_bytes: int = BUFFER_BYTES,
) -> LiveCapture:
    """Begin to capture TCP. From the return on every packet is kept, as long as there is room for it.

    Args:
        interfaces: names of network devices; `any` is all of them (Linux only).
        ports: only TCP with one of these ports, at either end; empty: all.
        hosts: only from or to one of these IP addresses; empty: all.
        expression: only what this filter expression of libpcap passes as well.
        source: "ring" is Linux's ring of memory, "scapy" is scapy's socket, slower; "auto" the best there is.
        snap_length: bytes to keep of each frame.
        buffer_bytes: memory a device for packets that nobody has read yet.

    Ports and hosts are a matter of speed: frames that the kernel's filter cannot judge, such as tunnels,
    get in anyhow.

    Raises:
        NotPermittedError: the process may not capture.
        DeviceError: there is no device of that name, or it is down, or the system has no such source.
        FilterError: the expression is wrong, or libpcap is missing.
    """
    has_ring = hasattr(socket, "AF_PACKET")
    if source == "ring" and not has_ring:
        raise DeviceError("rings of captured packets are Linux's; here the source is scapy")
    devices = find_devices(interfaces)
    if not devices:
        raise DeviceError("no interface is named")
    text = expression.strip() if expression else ""
    with ExitStack() as opened:
        sources: list[DeviceSource] = []
        for device in devices:
            demand = Demand(
                device, FilterRequest(frozenset(ports), frozenset(hosts)), text, snap_length, buffer_bytes
            )
            sources.append(_open_source(source if has_ring else "scapy", demand))
            opened.callback(sources[-1].close)
        capture = LiveCapture(sources)
        opened.pop_all()
    return capture


class Demand(NamedTuple):
    """What the source for one device is opened with."""

    device: Device
    wanted: FilterRequest  # ports and hosts
    expression: str  # "" for none
    snap_length: int  # bytes
    size: int  # bytes of memory

    def program(self, snap_length: int) -> Program:
        """Return the program for the wanted ports and hosts, and the expression if there is one.

        Args:
            snap_length: bytes to keep of each frame that passes.

        Raises:
            FilterError: the expression is wrong, or libpcap is missing.
            NotPermittedError: the expression needs the open device, and the process may not capture.
        """
        program = tcp_program(self.device, self.wanted, snap_length)
        if not self.expression:
            return program
        from closeseq.capture.live.bpf import compile_expression

        return chain(program, cut(compile_expression(self.expression, self.device), snap_length))


def _open_source(how: str, demand: Demand) -> DeviceSource:
    if how != "scapy":
        from closeseq.capture.live.ring import Ring

        try:
            return Ring(demand.device, demand.program(demand.snap_length), demand.size)
        except NoRingError:  # some sandboxes look like Linux, and have only its plain sockets
            if how == "ring":
                raise
    from closeseq.capture.live.scapy_socket import LARGEST, Sniffer, text_filter

    text = text_filter(demand.wanted, demand.expression)
    return Sniffer(demand.device, demand.program(LARGEST), text, demand.snap_length, demand.size)


class DeviceSource(Protocol):
    """Where the packets of one device come from: a `Ring` or a `Sniffer`."""

    device: Device
    quiet: float  # seconds after which every packet captured before is ready

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to read."""

    @property
    def dropped(self) -> int:
        """Packets lost so far, because nobody read them in time."""

    def ready(self) -> bool:
        """Return whether `take` has frames to return."""

    def take(self, most: int, number: int) -> Frames:
        """Return frames that are ready, about `most`, numbered from `number` on; good until `release`."""

    def release(self) -> None:
        """Take back the memory of the frames that were returned."""

    def failed(self) -> bool:
        """Return whether nothing more will come, because the device is down or gone."""

    def condition(self) -> DeviceState:
        """Return the state of the device."""

    def stop(self) -> None:
        """Stop capturing. What was captured can still be taken."""

    def close(self) -> None:
        """Close the device."""


class LiveBatch(NamedTuple):
    """The result of one `read`: frames of one device, in the order of capture."""

    frames: Frames  # good until the next `read`, `release` or `close`
    device: int  # index into `LiveCapture.devices`


class LiveCapture:
    """Packets as they come, from one or several devices. A context manager.

    Within a device the packets are in the order of capture; between devices only the batches are, about.
    For connections whose two directions take different devices, capture on `any`.

    Args:
        sources: one a device.
    """

    def __init__(self, sources: Sequence[DeviceSource]) -> None:
        self._sources = list(sources)
        self.devices: tuple[Device, ...] = tuple(source.device for source in sources)
        self.packets = 0  # delivered so far, over all devices
        self.notices: list[str] = []  # clauses: which devices went down, came up, or are gone
        self._dropped = 0  # on devices that are gone
        self._ends: dict[DeviceSource, float] = {}  # source that gets nothing now -> when all is surely ready
        self._down: set[DeviceSource] = set()  # of these, whose devices are known to be down
        self._stopped = False
        self._turn = 0  # index of the source that is asked first next time
        self._due = 0.0  # when the next batch may be handed out
        self._poll, self._sleep = select.poll(), select.poll()
        self._wakes, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._poll.register(self._wakes, select.POLLIN)
        self._sleep.register(self._wakes, select.POLLIN)
        for source in self._sources:
            self._poll.register(source.fileno(), select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """Packets that were captured and lost so far, because nobody read them in time."""
        return self._dropped + sum(source.dropped for source in self._sources)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return not self._sources

    @property
    def quiet(self) -> float:
        """Seconds after which every packet that was captured before can be read."""
        return max((source.quiet for source in self._sources), default=0.0)

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors of which one becomes readable when `read` has something to do."""
        return tuple(source.fileno() for source in self._sources)

    def read(self, timeout: float) -> LiveBatch | None:
        """Return the next batch; None if nothing came for `timeout` seconds, or `wake` was called.

        The frames of the batch before are no longer good. A batch has at most `MOST` frames.

        A signal handler that raises an exception may lose the batch that is being made. Let it call `stop`
        or `wake`: a signal alone does not end the waiting.

        After `stop` it returns what was captured until then, and then None, whatever the timeout.

        Args:
            timeout: seconds to wait at most; 0 to return at once.

        Raises:
            DeviceError: the last device is gone; what was captured there before has been delivered. While
                others are left, only a line in `notices` reports it, as for a device that goes down or comes
                up again.
        """
        self.release()
        begin = time.monotonic()
        until = begin + timeout
        if timeout > 0 and self._due > begin and self._sources and not self._stopped:
            # Not for a read without time-out: who waits elsewhere until there is something would spin.
            self._sleep.poll(_milliseconds(min(until, self._due) - begin))
        while not (batch := self._next()):
            now = time.monotonic()
            self._finish(now)
            if not self._sources:
                return None
            limits = [*self._ends.values()] if self._stopped else [until, *self._ends.values()]
            woken = self._look(max(0.0, min(limits) - now))
            if (now >= until or woken) and not self._stopped:
                return self._next()
        return batch

    def release(self) -> None:
        """Give the last batch's memory back now, instead of at the next `read`."""
        for source in self._sources:
            source.release()

    def wake(self) -> None:
        """Let a `read` that waits, or the next one, return soon. For signal handlers and other threads."""
        if self._waker >= 0:
            with contextlib.suppress(BlockingIOError):  # it will wake already
                os.write(self._waker, b"\0")

    def stop(self) -> None:
        """Stop capturing. `read` goes on until it has delivered all that was captured."""
        end = time.monotonic()
        for source in self._sources:
            source.stop()
            self._ends.setdefault(source, end + source.quiet)
        self._stopped = True
        self.wake()

    def close(self) -> None:
        """Close the devices. Batches are no longer good."""
        for source in list(self._sources):
            self._let_go(source)
        wakes, waker, self._wakes, self._waker = self._wakes, self._waker, -1, -1
        if waker >= 0:
            os.close(wakes)
            os.close(waker)

    def _next(self) -> LiveBatch | None:
        """Return a batch if one is ready."""
        # Each in turn, so that a busy one does not hide the others.
        for source in self._sources[self._turn :] + self._sources[: self._turn]:
            if source.ready() and len(frames := source.take(MOST, self.packets + 1)):
                self.packets += len(frames)
                self._due = 0.0 if any(each.ready() for each in self._sources) else time.monotonic() + PACE
                self._turn = self._sources.index(source) + 1
                device = self.devices.index(source.device)
                return LiveBatch(replace(frames, interface=np.full(len(frames), device, np.uint32)), device)
        return None

    def _look(self, timeout: float) -> bool:
        """Wait until something can be read, for `timeout` seconds; return whether `wake` was called."""
        events = self._poll.poll(_milliseconds(timeout))
        if self._wakes not in (descriptor for descriptor, _ in events):
            return False
        os.read(self._wakes, 4096)
        return True

    def _finish(self, now: float) -> None:
        """Close the sources that have delivered all they got, or wait for more."""
        for source in self._sources:
            if source.failed():
                self._ends.setdefault(source, now + source.quiet)
        over = [source for source, end in self._ends.items() if now >= end and not source.ready()]
        for source in over:
            del self._ends[source]
            if self._stopped:
                self._let_go(source)
            else:
                self._go_on(source, now)

    def _go_on(self, source: DeviceSource, now: float) -> None:
        """Report the state of a device that delivers nothing more: up again, still down, or gone."""
        name, state = source.device.name, source.condition()
        was_down = source in self._down
        if state is DeviceState.GONE:
            self._let_go(source)
            if not self._sources:
                raise DeviceError(f"{name} is gone; what was captured before is complete")
            self.notices.append(f"{name} is gone")
        elif state is DeviceState.DOWN:
            self._ends[source] = now + LOOK_AGAIN
            self._down.add(source)
            if not was_down:
                self.notices.append(f"{name} went down; the capture goes on when it is up again")
        else:
            self._down.discard(source)
            self.notices.append(f"{name} is up again" if was_down else f"{name} was down for a moment")

    def _let_go(self, source: DeviceSource) -> None:
        self._sources.remove(source)
        self._down.discard(source)
        self._poll.unregister(source.fileno())
        source.close()
        self._dropped += source.dropped


def _milliseconds(seconds: float) -> int:
    """Return what poll waits for, so that it does not return before the time is over."""
    return math.ceil(min(seconds, LONGEST_WAIT) * 1000)
