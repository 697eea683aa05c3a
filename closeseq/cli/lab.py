"""`closeseq lab`: make each way of closing happen with real sockets, and watch."""

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

Exit status: 0 inference and kernel agree in every experiment; 1 they do not in some,
or some could not be carried out; 2 wrong usage; 5 not permitted.
"""
ALL = "all"


@click.group(epilog=EPILOG)
def lab() -> None:
    """Make each way of closing happen with real sockets, and hold what packets tell against the kernel.

    Every experiment runs in a network namespace of its own, apart from the machine's network; root is not
    needed where the system lets users make namespaces.
    """


@lab.command("list")
def list_() -> None:
    """List the experiments."""
    from closeseq.cli.lab_run import listing

    listing()


@lab.command(epilog=EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME...|all")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save NAME.pcap, and what the kernel said as NAME.kernel.jsonl, there.",
)
@click.option("--force", is_flag=True, help="With --keep: overwrite files that are there already.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Carry out at most N experiments at once; 6 for each processor unless given.",
)
@click.option("-q", "--quiet", is_flag=True, help="Tell what came of each experiment, and not its story.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw without line-drawing characters.")
@click.pass_context
def run(ctx: click.Context, /, names: tuple[str, ...], **given: Any) -> None:
    """Carry out experiments, and tell what happens: packets, both ends' states, and what the kernel says.

    One experiment tells its story as it goes; of several each tells it when it has ended.
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
