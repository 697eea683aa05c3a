"""Begin a live capture: find the devices, make the filters, open the sources."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal, NamedTuple

from closeseq.capture.live.devices import Device, find_devices
from closeseq.capture.live.instructions import Program, chain, cut
from closeseq.capture.live.live import LiveCapture, Source
from closeseq.capture.live.problems import DeviceError, NoRingError
from closeseq.capture.live.program import Wanted, tcp_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

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
        sources: list[Source] = []
        for device in devices:
            demand = Demand(
                device, Wanted(frozenset(ports), frozenset(hosts)), text, snap_length, buffer_bytes
            )
            sources.append(_open_source(source if has_ring else "scapy", demand))
            opened.callback(sources[-1].close)
        capture = LiveCapture(sources)
        opened.pop_all()
    return capture


class Demand(NamedTuple):
    """What is demanded of the source for one device."""

    device: Device
    wanted: Wanted
    expression: str  # "" for none
    snap_length: int  # bytes
    size: int  # bytes of memory

    def program(self, snap_length: int) -> Program:
        """Return the program for what is wanted, and passes the expression too if there is one."""
        program = tcp_program(self.device, self.wanted, snap_length)
        if not self.expression:
            return program
        from closeseq.capture.live.expression import compile_expression

        return chain(program, cut(compile_expression(self.expression, self.device), snap_length))


def _open_source(how: str, demand: Demand) -> Source:
    if how != "scapy":
        from closeseq.capture.live.ring import Ring

        try:
            return Ring(demand.device, demand.program(demand.snap_length), demand.size)
        except NoRingError:  # some sandboxes look like Linux, and have only its plain sockets
            if how == "ring":
                raise
    from closeseq.capture.live.sniffer import LARGEST, Sniffer, text_filter

    text = text_filter(demand.wanted, demand.expression)
    return Sniffer(demand.device, demand.program(LARGEST), text, demand.snap_length, demand.size)
