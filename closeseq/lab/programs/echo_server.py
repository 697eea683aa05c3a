"""Send back what comes, one client after the other; close when the client has closed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from closeseq.lab.programs.common import listening, run, server_arguments

if TYPE_CHECKING:
    import argparse


def main(given: argparse.Namespace) -> None:
    """Serve until interrupted."""
    with listening(given.port, reuse=given.reuse) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                while data := client.recv(1024):
                    client.sendall(data)
                time.sleep(given.pause)


if __name__ == "__main__":
    parser = server_arguments("echo-server")
    parser.add_argument("--pause", type=float, default=0, help="seconds from end of file to close()")
    sys.exit(run(parser, main))
