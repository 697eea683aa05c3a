"""`closeseq lab`: make each way of closing happen with real sockets, and compare with the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from closeseq.lab.registry import Experiment


EPILOG = """\b
Examples:
  closeseq lab list
  closeseq lab run client-closes
  closeseq lab run server-interrupted time-wait-blocks-bind
  closeseq lab run leaky-server --keep .    and then: closeseq timeline leaky-server.pcap
  closeseq lab run all --quiet

Exit status: 0 inference and kernel agree in every experiment; 1 they disagree in one,
or one could not be run; 2 wrong usage; 5 not permitted.
"""
ALL = "all"


@click.group(epilog=EPILOG, short_help="Make closes happen with real sockets.")
def lab() -> None:
    """Make each way of closing happen with real sockets, and compare inference and kernel.

    Every experiment runs in a network namespace of its own, apart from the machine's network. Root is not
    needed where users may create namespaces.
    """


@lab.command("list")
def list_() -> None:
    """List the experiments."""
    from closeseq.cli.lab_run import listing

    listing()


@lab.command(epilog=EPILOG, short_help="Run experiments, and show each step.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...|all")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save packets as NAME.pcap, and the kernel's answers as NAME.kernel.jsonl, in this directory.",
)
@click.option("--force", is_flag=True, help="With --keep: overwrite existing files.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run at most N experiments at once; by default 6 for each processor.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only the outcome of each experiment.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw without line-drawing characters.")
@click.pass_context
def run(ctx: click.Context, /, names: tuple[str, ...], **given: Any) -> None:
    """Run experiments, and show each step: packets, both endpoints' states, and the kernel's states.

    One experiment is shown as it runs; of several, each is shown when it has ended.
    """
    from closeseq.cli.lab_run import carry_out
    from closeseq.cli.requests import LabRequest

    ctx.exit(carry_out(LabRequest(chosen(names), **given)))


def chosen(names: tuple[str, ...]) -> list[Experiment]:
    """Return the experiments of these names, each once. Raises BadParameter."""
    from difflib import get_close_matches

    from closeseq.lab.experiments import experiments

    known = experiments()
    for name in names:
        if name not in known and name != ALL:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "'closeseq lab list' lists all"
            raise click.BadParameter(f"there is no experiment {name!r}; {hint}", param_hint="NAME")
    return [one for name, one in known.items() if name in names or ALL in names]
