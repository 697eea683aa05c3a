"""What clients and servers do with their sockets."""

from __future__ import annotations

import signal
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


def echo_server(listener: socket.socket) -> None:
    """Serve one client as a program of its own; a kill ends it, and the kernel closes its socket."""
    server, _ = listener.accept()
    while data := server.recv(100):
        server.sendall(data)
    signal.pause()


def endless_server(listener: socket.socket) -> None:
    """Write to one client as fast as it can, as a program of its own, until it is killed."""
    # The accepted socket inherits the buffer. Small ones keep the capture small.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    server, _ = listener.accept()
    while True:
        server.sendall(bytes(1024))
