"""Write to one client for as long as it lives, and never read."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import listening, run, server_arguments

if TYPE_CHECKING:
    import argparse

BUFFER = 8192  # bytes that the kernel takes from the program before they are sent


def main(given: argparse.Namespace) -> None:
    """Write a kilobyte after the other."""
    with listening(given.port, reuse=given.reuse) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)  # accepted sockets inherit it
        client, _ = listener.accept()
        with client:
            while True:
                client.sendall(bytes(1024))
                time.sleep(given.pause)


if __name__ == "__main__":
    parser = server_arguments("endless-server")
    parser.add_argument("--pause", type=float, default=0, help="seconds between two writes")
    sys.exit(run(parser, main))
