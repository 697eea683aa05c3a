"""Connections as bytes, to be judged by another task; and those of several shards as one."""

from __future__ import annotations

import pickle
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from closeseq.connections import Connections
from closeseq.connections.orientation import ClientGuess
from closeseq.connections.state import Pairs
from closeseq.shards.keys import Informed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from closeseq.shards.keys import Peers

QUICK = 1  # of zlib's levels; most columns hold nothing but zeros


class Tables(dict[str, dict[str, NDArray[Any]]]):
    """The columns of all tables of some connections: table -> column -> values. They are complete."""

    @property
    def connections(self) -> int:
        """How many connections they are."""
        return len(self["histories"]["id"])


def taken(connections: Connections) -> Tables:
    """Return the columns of connections."""
    return Tables(
        {
            name: {column: getattr(table, column) for column in table.declared()}
            for name, table in connections.tables.items()
        }
    )


def as_bytes(tables: Tables) -> bytes:
    """Return columns as bytes, compressed."""
    return zlib.compress(pickle.dumps(dict(tables), pickle.HIGHEST_PROTOCOL), QUICK)


def from_bytes(data: bytes) -> Tables:
    """Return the columns that `as_bytes` has packed."""
    return Tables(pickle.loads(zlib.decompress(data)))  # noqa: S301 - of our own tasks


def connections_of(tables: Tables, ports: frozenset[int], peers: Peers | None = None) -> Connections:
    """Return connections made of their columns; nothing can be fed to them.

    Args:
        tables: their columns.
        ports: those that are known to be servers', as for `Connections`.
        peers: of the whole capture, where this is a part of it; None to count them in these connections.
    """
    made = Connections(ports=ports)
    for name, table in made.tables.items():
        columns = tables[name]
        table.grow(len(next(iter(columns.values()))), **columns)
    pairs = made.tables["pairs"]
    assert isinstance(pairs, Pairs)
    made.guess_with(ClientGuess(pairs, ports) if peers is None else Informed(pairs, ports, peers))
    return made


def first_packets(tables: Tables) -> NDArray[np.int64]:
    """Return the number of each connection's first packet, int64, ascending."""
    first = np.full(tables.connections, np.iinfo(np.int64).max)
    kept, stretches = tables["kept"], tables["stretches"]
    np.minimum.at(first, kept["connection"], kept["number"])
    far = np.iinfo(np.int64).max
    number = np.where(stretches["segments"] > 0, stretches["first_number"], far).min(axis=1, initial=far)
    np.minimum.at(first, stretches["connection"], number)
    return first


# Columns that hold rows of other tables; -1 for none.
POINTERS = (
    ("pairs", "present", "histories"),
    ("histories", "pair", "pairs"),
    ("histories", "successor", "histories"),
    ("histories", "last_event", "kept"),
    ("histories", "open_stretch", "stretches"),
    ("kept", "connection", "histories"),
    ("kept", "previous", "kept"),
    ("kept", "stretch", "stretches"),
    ("stretches", "connection", "histories"),
)


def joined(shards: Sequence[Tables]) -> Tables:
    """Return the connections of several shards as one, in the order of their numbers.

    Each pair must be in one shard.
    """
    sizes: dict[str, int] = dict.fromkeys(shards[0], 0)
    moved = []
    for tables in shards:
        here = {name: dict(columns) for name, columns in tables.items()}
        for name, column, to in POINTERS:
            values = here[name][column]
            here[name][column] = np.where(values >= 0, values + sizes[to], values).astype(values.dtype)
        moved.append(here)
        for name, columns in tables.items():
            sizes[name] += len(next(iter(columns.values())))
    whole = Tables(
        {
            name: {column: np.concatenate([one[name][column] for one in moved]) for column in columns}
            for name, columns in shards[0].items()
        }
    )
    order = np.argsort(whole["histories"]["id"], kind="stable")
    new = np.empty_like(order)
    new[order] = np.arange(len(order))
    whole["histories"] = {name: values[order] for name, values in whole["histories"].items()}
    ends = (2 * order[:, None] + np.arange(2)).ravel()
    whole["sides"] = {name: values[ends] for name, values in whole["sides"].items()}
    for name, column, to in POINTERS:
        if to == "histories":
            values = whole[name][column]
            known = values >= 0
            values[known] = new[values[known]]
    return whole
