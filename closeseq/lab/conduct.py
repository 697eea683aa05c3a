"""One experiment from beginning to end, in the namespace that this process is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.lab.agreement import Recording, agreement
from closeseq.lab.bench import Bench
from closeseq.lab.outcome import Outcome
from closeseq.lab.story import Story

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from closeseq.connection import Connection
    from closeseq.lab.registry import Experiment
    from closeseq.lab.trace import Trace
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
) -> Outcome:
    """Carry an experiment out and tell its story.

    Args:
        experiment: which one.
        folder: where NAME.pcap and NAME.kernel.jsonl are kept; nowhere if it is not said.
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
    complaints = [*bench.complaints, *unexpected(experiment, connections)]
    if busy(bench, connections):
        complaints = [each for each in complaints if not each.startswith(TIMED)]
    story.conclude(connections, agreed, complaints, untraced=untraced)
    if folder is not None:
        (folder / f"{experiment.name}.pcap").write_bytes(path.read_bytes())
        answers.write(folder / f"{experiment.name}.kernel.jsonl")
    if agreed.wrong or complaints:
        return Outcome.DISAGREED
    return Outcome.AGREED_WHERE_TOLD if agreed.untold else Outcome.AGREED


def busy(bench: Bench, connections: Sequence[Connection]) -> bool:
    """Whether the machine did not get to things in time.

    That is so if a step of ours took much longer than planned, or if a server that closes at once took so
    long that its kernel's delayed ACK, 40 ms later, went ahead of its FIN.
    """
    return bench.late > 0 or any(one.shape.endswith("C:FA S:A S:FA C:A") for one in connections)


def unexpected(experiment: Experiment, connections: Sequence[Connection]) -> Iterator[str]:
    """Yield in what the connections are not judged as the experiment says that they are."""
    verdicts = tuple(dict.fromkeys(one.verdict for one in connections))
    initiators = tuple(dict.fromkeys(str(one.initiator) for one in connections))
    found = {finding.code for one in connections for finding in one.findings}
    if verdicts != experiment.verdicts:
        yield f"verdict {' '.join(verdicts)}, expected {' '.join(experiment.verdicts)}"
    if initiators != experiment.initiators:
        yield f"begun by {' '.join(initiators)}, expected {' '.join(experiment.initiators)}"
    for code in sorted(found - experiment.findings):
        yield f"{code} found, and not expected"
    for code in sorted(experiment.findings - found):
        yield f"{code} expected, and not found"
