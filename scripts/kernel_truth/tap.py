"""tcpdump on the loopback interface of this process's network namespace."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from closeseq.lab.network import die_with_parent

PATIENCE = 20  # seconds tcpdump may take to start or to finish


class CaptureLostError(RuntimeError):
    """The capture itself lost packets, so it cannot be held against the truth."""


@contextmanager
def tap(path: Path, first_port: int, last_port: int) -> Iterator[None]:
    """Capture to `path`, nanosecond times and 256 bytes a packet, while the block runs."""
    command = ["tcpdump", "-i", "lo", "-n", "-s", "256", "--nano", "-U", "-B", "65536", "-Z", "root"]
    command += ["-w", str(path), f"tcp portrange {first_port}-{last_port}"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509  no other thread runs yet
        start_new_session=True,  # Ctrl-C is for us; tcpdump is told when we are done
    )
    said: list[str] = []
    try:
        _wait_until_listening(process, said)
        yield
        time.sleep(0.3)  # let the last packets through its buffer
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=PATIENCE)
        _check_nothing_lost("".join(said) + rest)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)


def _wait_until_listening(process: subprocess.Popen[str], said: list[str]) -> None:
    """Return when tcpdump says it captures; what it says until then is added to `said`."""
    assert process.stderr is not None
    alarm = threading.Timer(PATIENCE, process.kill)
    alarm.start()
    try:
        for line in process.stderr:
            said.append(line)
            if "listening on" in line:
                return
    finally:
        alarm.cancel()
        alarm.join()
    raise RuntimeError(f"tcpdump did not start: {''.join(said)}")


def _check_nothing_lost(said: str) -> None:
    dropped = re.search(r"(\d+) packets? dropped by kernel", said)
    if dropped is None or int(dropped[1]) != 0:
        raise CaptureLostError(f"tcpdump lost packets, or did not say: {said}")
