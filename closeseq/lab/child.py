"""The process of one experiment: it moves to its namespaces, carries the experiment out, and tells of it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from closeseq.lab.namespace import NamespaceError, die_with_parent, run_apart
from closeseq.lab.outcome import Outcome
from closeseq.lab.trace import Trace

if TYPE_CHECKING:
    from closeseq.lab.registry import Experiment
    from closeseq.report.text import Style

TIME_LIMIT = 90  # seconds; the longest experiment takes ten


def load() -> None:
    """Import what every experiment needs, before the processes are forked that need it."""
    import dpkt
    import numpy as np
    import numpy.ma
    import psutil
    import pyroute2

    from closeseq import analysis, segments
    from closeseq.capture import live
    from closeseq.lab import conduct

    del analysis, conduct, dpkt, live, np, numpy, psutil, pyroute2, segments


def carry_out(
    experiment: Experiment, folder: Path | None, style: Style, *, first_port: int, parent: int
) -> int:
    """Carry an experiment out in this forked process, and return its exit status.

    Args:
        experiment: which one.
        folder: where its capture and the kernel's answers are kept; nowhere if it is not said.
        style: how its story may look.
        first_port: of those that clients get.
        parent: the process that forked this one, and with which this one ends.
    """
    try:
        os.setsid()  # Ctrl-C is for the parent, which ends us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            return Outcome.FAILED
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text("closeseq-lab")  # what owns the sockets without a program
        # Begun out here: what ends the tracing, should we be killed, has to outlive the namespaces.
        with Trace() as trace:
            return run_apart(lambda: _conduct(experiment, folder, style, first_port, trace))
    except NamespaceError as error:
        _complain(str(error))
        return Outcome.NOT_PERMITTED
    except BaseException as error:  # noqa: BLE001 - a forked process must not do what its parent was about to
        _complain(_told(error))
        return Outcome.FAILED


def _conduct(experiment: Experiment, folder: Path | None, style: Style, first_port: int, trace: Trace) -> int:
    """Carry the experiment out; this process is already alone in its namespaces."""
    from closeseq.lab.conduct import conduct

    # The first process of a namespace is not ended by signals that it does not handle.
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(TIME_LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return conduct(experiment, folder, style, _write, first_port=first_port, trace=trace)
    except BrokenPipeError:
        return Outcome.AGREED  # whoever reads has seen enough, as with `| head`
    except Exception as error:  # noqa: BLE001 - whatever it is, it is one line for who ran the experiment
        _complain(_told(error))
        return Outcome.FAILED


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError(f"not done within {TIME_LIMIT} s")


def _told(error: BaseException) -> str:
    """Say what went wrong, and where."""
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f" ({Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno})" if at else ""
    return f"{type(error).__name__}: {error}{where}"


def _write(line: str) -> None:
    _say(1, line)


def _complain(text: str) -> None:
    _say(2, text)


def _say(stream: int, line: str) -> None:
    """Write a line past Python's buffers, which are those of the process that this one was forked from."""
    rest = memoryview(f"{line}\n".encode(errors="backslashreplace"))
    while rest:
        rest = rest[os.write(stream, rest) :]
