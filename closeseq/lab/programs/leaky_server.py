"""Answer each client once and keep its socket for ever; whether it has closed, nobody looks.

Typed commands make up for it, late: `send 1` sends to the first client, `close 2` closes the second.
"""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import listening, run, say, server_arguments

if TYPE_CHECKING:
    import argparse
    import socket


def main(given: argparse.Namespace) -> None:
    """Serve until the input ends."""
    clients: list[socket.socket] = []
    with listening(given.port, reuse=given.reuse) as listener:
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if listener in ready:
                client, _ = listener.accept()
                client.sendall(client.recv(1024))
                clients.append(client)
            elif line := sys.stdin.readline():
                command, number = line.split()
                late = clients[int(number) - 1]
                late.sendall(b"late data") if command == "send" else late.close()
                say("done")
            else:
                return


if __name__ == "__main__":
    sys.exit(run(server_arguments("leaky-server"), main))
