"""Connect and fall asleep: what the server sends lies unread. Quits at the end of its input."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import HOST, arguments, run, say

if TYPE_CHECKING:
    import argparse


def main(given: argparse.Namespace) -> None:
    """Connect and wait."""
    with socket.socket() as server:
        if given.buffer:  # before connect(), because the handshake announces how windows are scaled
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, given.buffer)
        server.connect((HOST, given.port))
        say("connected")
        sys.stdin.read()


if __name__ == "__main__":
    parser = arguments("sleeping-client")
    parser.add_argument("--buffer", type=int, help="bytes that the kernel keeps for the program, about")
    sys.exit(run(parser, main))
