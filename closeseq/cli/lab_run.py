"""One run of `closeseq lab`: carry experiments out, and report what came of them."""

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

    from closeseq.lab.registry import Experiment
    from closeseq.lab.run import ExperimentResult
    from closeseq.report.text import Style


SAID = {
    ExperimentOutcome.AGREED: "inference and kernel agree",
    ExperimentOutcome.AGREED_WHERE_TOLD: "inference and kernel agree wherever packets can tell",
    ExperimentOutcome.DISAGREED: "NOT AS IT SHOULD BE",
    ExperimentOutcome.LEFT_OUT: "left out",
    ExperimentOutcome.FAILED: "could not be carried out",
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


def carry_out(
    chosen: list[Experiment],
    *,
    keep: Path | None,
    force: bool,
    jobs: int | None,
    quiet: bool,
    ascii_only: bool,
) -> Status:
    """Carry experiments out, and return the exit status."""
    from closeseq.lab.run import Run

    if keep is not None:
        prepare(keep, chosen, force=force)
    outcomes: Counter[ExperimentOutcome] = Counter()
    with opened(None) as output:
        style = output.style(ascii_only=ascii_only)
        alone = len(chosen) == 1 and not quiet
        run = Run(chosen, style, folder=keep, jobs=jobs or 0, aloud=alone)
        with closing(run.results()) as results:
            for result in results:
                outcomes[result.outcome] += 1
                if result.outcome is ExperimentOutcome.NOT_PERMITTED:
                    complain(refusal(result.complaint))
                    return Status.NOT_PERMITTED
                tell(output, result, style, quiet=quiet, alone=alone)
        if len(chosen) > 1:
            output.write(f"{line}\n" for line in style.wrap(total(outcomes), then="  "))
    return Status.DONE if all(outcome.good for outcome in outcomes) else Status.FOUND


def refusal(complaint: str) -> str:
    """Say that there is no network of our own to be had, and what helps."""
    return complaint if os.geteuid() == 0 else f"{complaint}; this works: {needed_command(sys.argv[1:])}"


def tell(output: Output, result: ExperimentResult, style: Style, *, quiet: bool, alone: bool) -> None:
    """Tell the story of an experiment, or only what came of it, and what went wrong."""
    name = result.experiment.name
    if quiet:
        paint = "good" if result.outcome.good else "problem"
        lines = style.wrap(SAID[result.outcome], first=f"{name:26} ")
        output.write([style.paint(line, paint) + "\n" for line in lines])
    elif not alone:
        output.write([result.story, "\n\n"])
    if result.complaint:
        complain(f"{name}: {' / '.join(result.complaint.splitlines())}")
    elif result.outcome is ExperimentOutcome.FAILED:
        complain(f"{name}: could not be carried out to its end")


def total(outcomes: Counter[ExperimentOutcome]) -> str:
    """Return a line that counts what came of the experiments."""
    parts = [f"{number} {SAID[outcome]}" for outcome, number in sorted(outcomes.items())]
    return f"{count(outcomes.total(), 'experiment')}: {'; '.join(parts)}"


def prepare(keep: Path, chosen: Iterable[Experiment], *, force: bool) -> None:
    """Make the folder for what is kept; raises Refusal if that would overwrite something."""
    there = [
        path
        for one in chosen
        for path in (keep / f"{one.name}.pcap", keep / f"{one.name}.kernel.jsonl")
        if path.exists()
    ]
    if there and not force:
        raise Refusal(f"{there[0]} is there already; --force overwrites it")
    keep.mkdir(parents=True, exist_ok=True)
