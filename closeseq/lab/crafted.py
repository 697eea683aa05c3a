"""Segments that no socket would send, made with scapy from what the capture shows so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closeseq.capture.live.sniffer import quiet_scapy

if TYPE_CHECKING:
    from collections.abc import Callable

    from scapy.packet import Packet

    from closeseq.lab.bench import Bench


def last_segment(bench: Bench, matches: Callable[[Packet], bool]) -> Packet:
    """Give the last captured IP packet whose TCP header matches."""
    scapy = _scapy()
    bench.tap.catch_up()
    packets: list[Packet] = [frame[scapy.IP] for frame in scapy.rdpcap(str(bench.path))]
    return [packet for packet in packets if matches(packet[scapy.TCP])][-1]


def send_again(packet: Packet) -> None:
    """Send an exact copy of a captured packet, as a network does that kept it somewhere for a while."""
    # Loopback leaves the checksum to a network card that is not there: as captured it is wrong.
    del packet["TCP"].chksum
    _scapy().send(packet, verbose=False)


def send_reset_like(model: Packet, *, ahead: int = 0) -> None:
    """Send a RST of the model's connection and direction, so many bytes ahead of it."""
    scapy = _scapy()
    header = model["TCP"]
    reset = scapy.TCP(sport=header.sport, dport=header.dport, seq=(header.seq + ahead) % 2**32, flags="R")
    scapy.send(scapy.IP(src=model.src, dst=model.dst) / reset, verbose=False)


def send_syn(port: int, to: int) -> None:
    """Send a SYN on behalf of no socket at all."""
    scapy = _scapy()
    syn = scapy.TCP(sport=port, dport=to, seq=1_000_000, flags="S")
    scapy.send(scapy.IP(src="127.0.0.1", dst="127.0.0.1") / syn, verbose=False)


def _scapy() -> Any:
    """Import scapy, which takes a while, only where it is used."""
    with quiet_scapy():
        import scapy.all

    # Packets for loopback have to go through the IP layer, not onto a wire.
    scapy.all.conf.L3socket = scapy.all.L3RawSocket
    return scapy.all
