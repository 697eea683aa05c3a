"""A shard's records, written where they are to be; and what its connections come to."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from closeseq.analysis import Analysis
from closeseq.cluster.totals import Totals
from closeseq.report.records import csv_header, csv_lines, jsonl
from closeseq.report.selection import Selection, Wanted
from closeseq.shards.held import get, put, write_whole
from closeseq.shards.tasks import JUDGING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.reading import Reading
    from closeseq.report.text import Style
    from closeseq.settings import Settings
    from closeseq.shards.held import Held
    from closeseq.shards.tasks import Numbered

FORMS = ("summary", "jsonl", "csv")  # in which parts can stand side by side
SUMMARY = "summary.txt"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made of every shard."""

    settings: Settings
    reading: Reading
    wanted: Wanted
    style: Style
    most: int | None  # connections with a problem in the summary; None for all
    form: str  # of FORMS; of a summary nothing is written


def handed_on(order: Order, folder: str | None) -> Held:
    """Return an order as what every task is given: a list of many files need not go along with each."""
    return put(folder, "order", pickle.dumps(order))


@lru_cache(maxsize=1)
def _order(held: Held) -> Order:
    order: Order = pickle.loads(get(held))  # noqa: S301 - of our own run
    return order


def part(held: Held, numbered: Numbered, url: str | None) -> Totals:
    """Judge the connections of a shard, write their records to a URL, and return what they come to.

    Args:
        held: the order, as `handed_on` gave it.
        numbered: the shard.
        url: of the file to write; None for none.
    """
    order = _order(held)
    connections = numbered.connections(order.settings)
    analysis = Analysis.of_some(connections, order.reading, order.settings)
    wanted = order.wanted
    if wanted.ids:
        here = frozenset(at for at, number in enumerate(analysis.numbers, 1) if number in wanted.ids)
        if not here:
            return Totals(len(analysis), 0, analysis.losses)
        wanted = replace(wanted, ids=here)
    selection = Selection(analysis, wanted)
    with JUDGING:
        if url is not None and order.form != "summary" and len(selection):
            write_whole(url, _lines(order.form, selection))
        return Totals.of(selection, order.style, order.most)


def _lines(form: str, selection: Selection) -> Iterator[str]:
    if form == "csv":
        return chain([csv_header()], csv_lines(selection))
    return jsonl(selection)
