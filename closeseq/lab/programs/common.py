"""What these programs share: their arguments, their name, and how they end."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
INTERRUPTED = 130  # as a shell reports it


def arguments(name: str) -> argparse.ArgumentParser:
    """Return what understands a program's command line, with the port that all of them have."""
    parser = argparse.ArgumentParser(prog=name)
    parser.add_argument("port", type=int)
    return parser


def server_arguments(name: str) -> argparse.ArgumentParser:
    """Return the same for a server."""
    parser = arguments(name)
    parser.add_argument("--reuse", action="store_true", help="set SO_REUSEADDR before bind()")
    return parser


def listening(port: int, *, reuse: bool) -> socket.socket:
    """Open a socket that listens on loopback, and say so.

    Args:
        port: where.
        reuse: SO_REUSEADDR: it may have a port on which old connections remain.

    Raises:
        OSError: it may not have the port.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    say("listening")
    return listener


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> int:
    """Run a program and return its exit status: 0, 1 after an OSError, INTERRUPTED after SIGINT.

    Args:
        parser: of its command line; its name is that of the program.
        main: is given the arguments.
    """
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(parser.prog)  # what ps, ss and we call it
    try:
        main(given)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except OSError as error:
        say(str(error))
        return 1
    return 0
