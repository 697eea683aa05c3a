"""What clients and servers do with their sockets, where it needs no program of its own."""

from __future__ import annotations

import socket
import struct


def echo(client: socket.socket, server: socket.socket) -> None:
    """Five bytes there and back."""
    client.sendall(b"hello")
    server.sendall(server.recv(100))
    assert client.recv(100) == b"hello"


def read_to_end(reader: socket.socket) -> int:
    """Read until end of file and give the number of bytes."""
    count = 0
    while data := reader.recv(65536):
        count += len(data)
    return count


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
    """Probe every second while nothing else is sent, and give up after so many unanswered probes."""
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    idle.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes)
