"""The tasks of workers: each is a function of its arguments alone, and may run twice.

part       writes the records of one shard, and counts its connections
continued  tells which connections go on as some of one shard, because a NAT has forgotten them
digested   tells what the summary can show of one part of what grows with the connections
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from closeseq.analysis import Analysis
from closeseq.cluster.digest import Digest
from closeseq.cluster.spread import Spread, as_bytes, piece_of
from closeseq.cluster.totals import Totals
from closeseq.report.records import csv_header, csv_lines, jsonl
from closeseq.report.selection import Selection
from closeseq.shards.keys import get, put, write_whole
from closeseq.shards.tasks import JUDGING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from closeseq.connections.strays import Encounters, Stray
    from closeseq.reading import Reading
    from closeseq.report.selection import Wanted
    from closeseq.report.text import Style
    from closeseq.settings import Settings
    from closeseq.shards.keys import Held
    from closeseq.shards.tasks import Numbered

FORMS = ("summary", "jsonl", "csv")  # that can be written in parts
SUMMARY = "summary.txt"
JOINED = 256  # shards whose rows are made one array: of a few rows each, arrays take more than their rows


@dataclass(frozen=True, slots=True)
class Order:
    """What every worker has to make of a shard."""

    settings: Settings  # ports, hosts, limits and timers
    reading: Reading  # what was read of the whole capture
    wanted: Wanted  # which connections are asked for
    style: Style  # how text may look
    most: int | None  # connections with a problem in the summary; None for all
    form: str  # of FORMS; of a summary nothing is written
    folder: str | None  # URL of the folder for what tasks hand on; None: it is handed on as it is
    parts: int  # into how many what grows with the connections is divided
    key: int  # 64 bits, by which it is


def handed_on(order: Order) -> Held:
    """Store an order where every task can read it: it may list many files.

    Args:
        order: what the workers have to make.

    Returns:
        What finds it: the argument of `part`.
    """
    return put(order.folder, "order", pickle.dumps(order))


@lru_cache(maxsize=1)
def _order(held: Held) -> Order:
    order: Order = pickle.loads(get(held))  # noqa: S301 - of our own run
    return order


class JudgedShard(NamedTuple):
    """The result of `part`."""

    totals: Totals
    spread: Held | None  # as spread.as_bytes has it; None if no connection is asked for


def part(held: Held, numbered: Numbered, url: str | None) -> JudgedShard:
    """Judge the connections of a shard, write their records to a URL, and return their totals.

    Args:
        held: the order, from `handed_on`.
        numbered: the shard, with the numbers of its connections in the whole capture.
        url: of the file to write; None for none.
    """
    order = _order(held)
    connections = numbered.connections(order.settings)
    analysis = Analysis.of_some(connections, order.reading, order.settings)
    wanted = order.wanted
    if wanted.ids:
        here = frozenset(at for at, number in enumerate(analysis.numbers, 1) if number in wanted.ids)
        if not here:
            return JudgedShard(Totals(len(analysis), 0, analysis.losses), None)
        wanted = replace(wanted, ids=here)
    selection = Selection(analysis, wanted)
    with JUDGING:
        if url is not None and order.form != "summary" and len(selection):
            write_whole(url, _lines(order.form, selection))
        totals, spread = Totals.of(selection), Spread.of(selection, order.style, order.most)
    if not spread:
        return JudgedShard(totals, None)
    return JudgedShard(totals, put(order.folder, "spread", as_bytes(spread.divided(order.parts, order.key))))


def continued(held: Held, numbered: Numbered, suspects: Held) -> list[Stray]:
    """Return which connections continue some of a shard.

    Args:
        held: the order, from `handed_on`.
        numbered: the shard, with the numbers of its connections in the whole capture.
        suspects: `Encounters` of connections that may, of all shards.
    """
    encounters: Encounters = pickle.loads(get(suspects))  # noqa: S301 - of our own run
    return numbered.connections(_order(held).settings).strays(encounters)


def _lines(form: str, selection: Selection) -> Iterator[str]:
    if form == "csv":
        return chain([csv_header()], csv_lines(selection))
    return jsonl(selection)


def gathered(order: Order, spreads: Sequence[Held]) -> Held:
    """Store where the shards' spreads are, which are many.

    Args:
        order: what the workers had to make.
        spreads: as `part` has returned them.

    Returns:
        What finds them: an argument of `digested`.
    """
    return put(order.folder, "spreads", pickle.dumps(spreads))


def digested(held: Held, spreads: Held, number: int) -> Digest:
    """Return what the summary can show of one part.

    Args:
        held: the order, from `handed_on`.
        spreads: of all shards, from `gathered`.
        number: which part, from 0.
    """
    order, whole = _order(held), Spread()
    shards: list[Held] = pickle.loads(get(spreads))  # noqa: S301 - of our own run
    for begin in range(0, len(shards), JOINED):
        some = Spread()
        for one in shards[begin : begin + JOINED]:
            some.merge(piece_of(one, number), order.most)
        some.closes = [some.take_closes()] if some.closes else []
        whole.merge(some, order.most)
    return Digest.of(whole, order.settings, order.most)
