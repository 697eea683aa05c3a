"""A program of its own, as a real process: it can be typed to, interrupted and killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

PACKAGES = Path(__file__).resolve().parent.parent.parent  # the folder that closeseq is in
TIMEOUT = 20.0  # seconds until a program that says nothing is given up; it may have to share a processor


class Program:
    """One of the lab's programs, running.

    Args:
        name: of a module in closeseq/lab/programs, with dashes.
        arguments: for its command line.
    """

    def __init__(self, name: str, *arguments: str | float) -> None:
        self.name = name
        self.arguments = " ".join(map(str, arguments))
        # Not from the working folder (-P), which may be anybody's, but from where we are ourselves.
        command = [sys.executable, "-P", "-m", f"closeseq.lab.programs.{name.replace('-', '_')}"]
        paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(  # noqa: S603 - a module of ours, and numbers
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __str__(self) -> str:
        return f"{self.name} {self.arguments}"

    def say(self, line: str, *, answered: bool = True) -> str:
        """Type a line to it, and return the line that it prints then.

        Args:
            line: without its end.
            answered: whether it prints one; else nothing is waited for, and the answer is empty.

        Raises:
            TimeoutError: it says nothing.
            RuntimeError: it has ended.
        """
        assert self._process.stdin, "its standard input is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it has ended, and has said why
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        return self.hear() if answered else ""

    def hear(self) -> str:
        """Return the next line that it prints, without its end.

        Raises:
            TimeoutError: it says nothing.
            RuntimeError: it has ended.
        """
        assert self._process.stdout, "its standard output is a pipe"
        deadline = time.monotonic() + TIMEOUT
        while b"\n" not in self._heard:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self} said nothing for {TIMEOUT:.0f} s")
            part = os.read(self._process.stdout.fileno(), 4096)
            if not part:
                raise RuntimeError(f"{self} ended with status {self._process.wait(TIMEOUT)}")
            self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def quit(self) -> None:
        """End its input, at which it quits, and wait for that."""
        assert self._process.stdin, "its standard input is a pipe"
        self._process.stdin.close()
        self._process.wait(TIMEOUT)

    def interrupt(self) -> None:
        """Send it SIGINT, as Ctrl-C does, and wait until it has ended."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TIMEOUT)

    def kill(self) -> None:
        """Send it SIGKILL, which it never learns of, and wait until it has ended."""
        self._process.kill()
        self._process.wait(TIMEOUT)

    def wait(self) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        return self._process.wait(TIMEOUT)

    def end(self) -> None:
        """Make sure that it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
