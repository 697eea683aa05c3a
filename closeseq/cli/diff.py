"""`closeseq diff`: what is different between the connections of two captures, and what is worse."""

from __future__ import annotations

import math
from typing import Any

import click

from closeseq.cli.options import FILE, READING, WORKING, WRITING, options

EPILOG = """\b
Examples:
  closeseq diff before.pcap after.pcap
  closeseq diff before.jsonl after.pcap -p 8080 --fail-on-worse
  closeseq diff 'monday/*.pcap' 'tuesday/*.pcap' -f json | jq '.changes[] | select(.way == "worse")'
  closeseq diff old.pcap new.pcap --chance 1 --fail-on-worse   tests that always make the same connections
"""


def probability(text: str | float) -> float:
    """Return a number above 0, up to 1. Raises BadParameter."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:  # NaN is not, either
        raise click.BadParameter(f"{text!r} is not a number above 0, up to 1")
    return number


@click.command(epilog=EPILOG, short_help="Compare two captures: what got worse?")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@click.option(
    *("-f", "--format", "form"),
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What to print.",
)
@click.option("--fail-on-worse", is_flag=True, help="Exit with status 1 if something is worse.")
@click.option(
    "--chance",
    type=probability,
    default=0.05,
    show_default=True,
    metavar="P",
    help="How likely something may be called worse where nothing differs: above 0, up to 1. 1: every rise is "
    "worse.",
)
@options(READING, WORKING, WRITING)
@click.pass_context
def diff(ctx: click.Context, /, before: str, after: str, **given: Any) -> None:
    """Compare how the connections of two captures closed, and show what got worse, with an example.

    BEFORE and AFTER are captures, directories or patterns as for analyze, or files of records that analyze
    -f jsonl wrote. Of records, --count, --stuck-after and the timers are those with which they were
    written.

    Compared are the shares of connections with each verdict and finding, who closed first, and how long
    graceful closes took (median, 99th percentile).

    Worse is a larger share of connections that were not answered, refused, reset, replaced, given up or left
    half closed, or that have a problem; and a close that takes longer. It must be more by a tenth (a time
    also by 1 ms), and must not be chance: Fisher's exact test, with a limit P that all lines share. So one
    more of three connections says nothing, and all of five where it was none of five is worse. What would be
    worse and may be chance is shown apart, and does not count.
    """
    from closeseq.cli.diff_run import run_diff
    from closeseq.cli.requests import DiffRequest

    ctx.exit(run_diff(DiffRequest.of(before, after, given)))
