"""Write each line that the user types, and never read: nobody tells it that the server has closed."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import HOST, arguments, run, say

if TYPE_CHECKING:
    import argparse


def main(given: argparse.Namespace) -> None:
    """Connect and write."""
    with socket.create_connection((HOST, given.port)) as server:
        say("connected")
        for line in sys.stdin:
            server.sendall(line.encode())
            say("written")


if __name__ == "__main__":
    sys.exit(run(arguments("writing-client"), main))
