"""The process of one experiment: it enters its namespaces, runs the experiment, and writes the story.

First the experiment from beginning to end, then the forked process around it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from closeseq.lab.agreement import Recording, agreement
from closeseq.lab.bench import Bench
from closeseq.lab.kernel_answers import Trace
from closeseq.lab.network import NoNamespaceError, die_with_parent, run_apart
from closeseq.lab.registry import ExperimentOutcome
from closeseq.lab.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.lab.registry import Experiment
    from closeseq.report.text import Style

TIMED = ("slow-close ", "three-segment-close ")  # findings that a busy machine brings about, or prevents


def conduct(
    experiment: Experiment,
    folder: Path | None,
    style: Style,
    write: Callable[[str], None],
    *,
    first_port: int,
    trace: Trace,
) -> ExperimentOutcome:
    """Carry an experiment out and tell its story.

    Args:
        experiment: which one.
        folder: where NAME.pcap and NAME.kernel.jsonl are kept; None: nowhere.
        style: how the story may look.
        write: is given each of its lines.
        first_port: of those that clients get.
        trace: of the kernel's transitions, begun.
    """
    # A file without a name, which is gone with this process however that ends.
    path = Path(f"/proc/self/fd/{os.memfd_create(experiment.name)}")
    story = Story(style, write)
    with Bench(experiment, path, story, first_port=first_port, trace=trace) as bench:
        experiment.run(bench)
    answers = bench.answers
    recording = Recording(path, experiment.settings)
    agreed = agreement(recording, answers)
    untraced = bench.untraced
    if agreed.wrong and bench.doubt:
        answers.moves, untraced = None, bench.doubt
        agreed = agreement(recording, answers)
    connections = recording.until(now_ns=answers.moments[-1].time_ns)
    together = {str(one.code) for one in recording.together()}
    complaints = [*bench.complaints, *unexpected(experiment, connections, together)]
    if busy(bench, connections):
        complaints = [each for each in complaints if not each.startswith(TIMED)]
    story.conclude(connections, agreed, complaints, untraced=untraced)
    if folder is not None:
        (folder / f"{experiment.name}.pcap").write_bytes(path.read_bytes())
        answers.write(folder / f"{experiment.name}.kernel.jsonl")
    if agreed.wrong or complaints:
        return ExperimentOutcome.DISAGREED
    return ExperimentOutcome.AGREED_WHERE_SHOWN if agreed.hidden else ExperimentOutcome.AGREED


def busy(bench: Bench, connections: Sequence[Connection]) -> bool:
    """Whether the machine did not get to things in time.

    That is so if a step of ours took much longer than planned, or if a server that closes at once took so
    long that its kernel's delayed ACK, 40 ms later, went ahead of its FIN.

    Args:
        bench: of an experiment that has ended.
        connections: of it, with all packets.
    """
    return bench.late > 0 or any(one.shape.endswith("C:FA S:A S:FA C:A") for one in connections)


def unexpected(
    experiment: Experiment, connections: Sequence[Connection], together: set[str]
) -> Iterator[str]:
    """Yield in what the connections are not judged as the experiment says that they are.

    Args:
        experiment: what is expected.
        connections: at the end.
        together: the codes of what they show together.
    """
    verdicts = tuple(dict.fromkeys(one.verdict for one in connections))
    initiators = tuple(dict.fromkeys(str(one.initiator) for one in connections))
    found: set[str] = {finding.code for one in connections for finding in one.findings}
    if verdicts != experiment.verdicts:
        yield f"verdict {' '.join(verdicts)}, expected {' '.join(experiment.verdicts)}"
    if initiators != experiment.initiators:
        yield f"begun by {' '.join(initiators)}, expected {' '.join(experiment.initiators)}"
    found |= together
    expected = experiment.findings | experiment.population
    for code in sorted(found - expected):
        yield f"{code} found, and not expected"
    for code in sorted(expected - found):
        yield f"{code} expected, and not found"


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

    del analysis, dpkt, live, np, numpy, psutil, pyroute2, segments


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
            return ExperimentOutcome.FAILED
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text("closeseq-lab")  # what owns the sockets without a program
        # Begun out here: what ends the tracing, should we be killed, has to outlive the namespaces.
        with Trace() as trace:
            return run_apart(lambda: _conduct(experiment, folder, style, first_port, trace))
    except NoNamespaceError as error:
        _complain(str(error))
        return ExperimentOutcome.NOT_PERMITTED
    except BaseException as error:  # noqa: BLE001 - a forked process must not do what its parent was about to
        _complain(_told(error))
        return ExperimentOutcome.FAILED


def _conduct(experiment: Experiment, folder: Path | None, style: Style, first_port: int, trace: Trace) -> int:
    """Carry the experiment out; this process is already alone in its namespaces."""
    # The first process of a namespace is not ended by signals that it does not handle.
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(TIME_LIMIT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return conduct(experiment, folder, style, _write, first_port=first_port, trace=trace)
    except BrokenPipeError:
        return ExperimentOutcome.AGREED  # whoever reads has seen enough, as with `| head`
    except Exception as error:  # noqa: BLE001 - whatever it is, it is one line for who ran the experiment
        _complain(_told(error))
        return ExperimentOutcome.FAILED


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
