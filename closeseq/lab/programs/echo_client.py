"""Send each line that the user types, and print what comes back; quit at the end of the input.

While it waits for its user it hears nothing from the server, not even that the server has closed.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import HOST, arguments, run, say

if TYPE_CHECKING:
    import argparse


def main(given: argparse.Namespace) -> None:
    """Connect and talk."""
    with socket.create_connection((HOST, given.port)) as server:
        say("connected")
        for line in sys.stdin:
            server.sendall(line.encode())
            say(server.recv(1024).decode().rstrip())


if __name__ == "__main__":
    sys.exit(run(arguments("echo-client"), main))
