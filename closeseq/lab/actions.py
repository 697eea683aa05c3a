"""Actions of experiments: with sockets of this process, and with segments that no socket would send.

Such segments are made with scapy from what the capture shows so far.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from closeseq.capture.live.scapy_socket import quiet_scapy
from closeseq.lab.network import occupy_line, slow_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from scapy.packet import Packet

    from closeseq.lab.bench import Bench


def echo(client: socket.socket, server: socket.socket) -> None:
    """Five bytes there and back.

    Args:
        client: one end of a connection.
        server: its other end, which reads all that has come and sends it back.
    """
    client.sendall(b"hello")
    server.sendall(server.recv(100))
    assert client.recv(100) == b"hello"


def read_to_end(reader: socket.socket) -> int:
    """Read until end of file and give the number of bytes."""
    count = 0
    while data := reader.recv(65536):
        count += len(data)
    return count


def close_both_on_a_slow_line(client: socket.socket, server: socket.socket) -> None:
    """Close both ends so that their FINs cross, on a machine that is busy as well.

    The client's FIN waits for 80 ms behind other packets. In that time the server's is sent: nothing that its
    program would have to wait for lies between the two.

    Args:
        client: one end of a connection over loopback, which says something first.
        server: its other end.
    """
    slow_line()
    client.sendall(b"last")  # goes through at once, and takes the line
    server.recv(100)
    occupy_line()
    client.close()
    server.close()


def fill_window(writer: socket.socket) -> None:
    """Write until the kernel takes no more, because the peer does not read."""
    writer.setblocking(False)
    try:
        while True:
            writer.send(bytes(1024))
    except BlockingIOError:
        writer.setblocking(True)


def abort(aborting: socket.socket) -> None:
    """Close with SO_LINGER 0: RST instead of FIN."""
    aborting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    aborting.close()


def keep_alive(idle: socket.socket, probes: int) -> None:
    """Have a socket's kernel send keepalive probes, every second while nothing else is sent.

    Args:
        idle: the socket.
        probes: after so many unanswered ones the kernel gives up.
    """
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)


def last_segment(bench: Bench, matches: Callable[[Packet], bool]) -> Packet:
    """Give the last captured IP packet whose TCP header matches.

    Args:
        bench: whose capture is read, after it has caught up.
        matches: is given the TCP header, scapy's.

    Raises:
        IndexError: none matches.
    """
    scapy = _scapy()
    bench.tap.catch_up()
    packets: list[Packet] = [frame[scapy.IP] for frame in scapy.rdpcap(str(bench.path)) if scapy.TCP in frame]
    return [packet for packet in packets if matches(packet[scapy.TCP])][-1]


def send_again(packet: Packet) -> None:
    """Send an exact copy of a captured packet, as a network does that kept it somewhere for a while."""
    # Loopback leaves the checksum to a network card that is not there: as captured it is wrong.
    del packet["TCP"].chksum
    _scapy().send(packet, verbose=False)


def reset_like(model: Packet, *, ahead: int = 0, says: bytes = b"") -> Packet:
    """Make a RST of the model's connection and direction.

    Args:
        model: an IP packet with a TCP header, scapy's.
        ahead: by how many bytes the sequence number is beyond the model's.
        says: a reason that the RST carries, with the model's TTL; empty for none, with the system's TTL.
    """
    scapy = _scapy()
    header = model["TCP"]
    reset = scapy.TCP(sport=header.sport, dport=header.dport, seq=(header.seq + ahead) % 2**32, flags="R")
    around = scapy.IP(src=model.src, dst=model.dst)
    if says:
        around.ttl = model.ttl
        reset /= scapy.Raw(says)
    packet: Packet = around / reset
    return packet


def send_reset_like(model: Packet, *, ahead: int = 0) -> None:
    """Send a RST of the model's connection and direction.

    Args:
        model: as in `reset_like`.
        ahead: as in `reset_like`.
    """
    _scapy().send(reset_like(model, ahead=ahead), verbose=False)


def send_syn(port: int, to: int) -> None:
    """Send a SYN on behalf of no socket at all, from loopback to loopback.

    Args:
        port: its source port.
        to: its destination port.
    """
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
