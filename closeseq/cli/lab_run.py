"""One run of `closeseq lab`: run experiments, and report their outcomes."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from closeseq.cli.output import Output, opened
from closeseq.cli.privileges import needed_command
from closeseq.cli.terminal import Refusal, Status, complain
from closeseq.lab.registry import ExperimentOutcome
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from closeseq.cli.requests import LabRequest
    from closeseq.lab.registry import Experiment
    from closeseq.lab.run import ExperimentResult
    from closeseq.report.text import Style


OUTCOMES = {
    ExperimentOutcome.AGREED: "inference and kernel agree",
    ExperimentOutcome.AGREED_WHERE_SHOWN: "inference and kernel agree wherever packets can show it",
    ExperimentOutcome.DISAGREED: "inference and kernel disagree",
    ExperimentOutcome.LEFT_OUT: "left out",
    ExperimentOutcome.FAILED: "could not be run",
}


def listing() -> None:
    """Print the experiments."""
    from closeseq.lab.experiments import experiments

    known = experiments()
    width = max(map(len, known)) + 2
    with opened(None) as output:
        style = output.style(ascii_only=False)
        for one in known.values():
            output.write(f"{line}\n" for line in style.wrap(one.summary, first=f"{one.name:{width}}"))


def carry_out(request: LabRequest) -> Status:
    """Run experiments and report them; return the exit status."""
    from closeseq.lab.run import Run

    chosen, quiet = request.experiments, request.quiet
    if request.keep is not None:
        prepare(request.keep, chosen, force=request.force)
    outcomes: Counter[ExperimentOutcome] = Counter()
    with opened(None) as output:
        style = output.style(ascii_only=request.ascii_only)
        alone = len(chosen) == 1 and not quiet
        run = Run(chosen, style, folder=request.keep, jobs=request.jobs or 0, aloud=alone)
        with closing(run.results()) as results:
            for result in results:
                outcomes[result.outcome] += 1
                if result.outcome is ExperimentOutcome.NOT_PERMITTED:
                    complain(refusal(result.complaint))
                    return Status.NOT_PERMITTED
                report(output, result, style, quiet=quiet, alone=alone)
        if len(chosen) > 1:
            output.write(f"{line}\n" for line in style.wrap(total(outcomes), then="  "))
    return Status.DONE if all(outcome.good for outcome in outcomes) else Status.FOUND


def refusal(complaint: str) -> str:
    """Return why no network namespace can be made, and the command that works."""
    return complaint if os.geteuid() == 0 else f"{complaint}; this works: {needed_command(sys.argv[1:])}"


def report(output: Output, result: ExperimentResult, style: Style, *, quiet: bool, alone: bool) -> None:
    """Write the story of an experiment, or only its outcome; report on standard error what went wrong.

    Args:
        output: where to write.
        result: what came of the experiment.
        style: how text may look: width, colours, ASCII only.
        quiet: write the outcome only.
        alone: the story was written while it went, since there is no other experiment.
    """
    name = result.experiment.name
    if quiet:
        paint = "good" if result.outcome.good else "problem"
        lines = style.wrap(OUTCOMES[result.outcome], first=f"{name:26} ")
        output.write([style.paint(line, paint) + "\n" for line in lines])
    elif not alone:
        output.write([result.story, "\n\n"])
    if result.complaint:
        complain(f"{name}: {' / '.join(result.complaint.splitlines())}")
    elif result.outcome is ExperimentOutcome.FAILED:
        complain(f"{name}: did not run to its end")


def total(outcomes: Counter[ExperimentOutcome]) -> str:
    """Return a line that counts the outcomes."""
    parts = [f"{number} {OUTCOMES[outcome]}" for outcome, number in sorted(outcomes.items())]
    return f"{count(outcomes.total(), 'experiment')}: {'; '.join(parts)}"


def prepare(keep: Path, chosen: Iterable[Experiment], *, force: bool) -> None:
    """Make the folder for captures and kernel answers.

    Args:
        keep: the folder.
        chosen: the experiments whose files go there.
        force: whether existing files of theirs may be overwritten.

    Raises:
        Refusal: they may not, and one is there.
    """
    there = [
        path
        for one in chosen
        for path in (keep / f"{one.name}.pcap", keep / f"{one.name}.kernel.jsonl")
        if path.exists()
    ]
    if there and not force:
        raise Refusal(f"{there[0]} exists already; --force overwrites it")
    keep.mkdir(parents=True, exist_ok=True)
