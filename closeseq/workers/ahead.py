"""A copy of this process makes what comes next, while what came before is worked on.

Columns of numbers are handed over in memory that both share, in slots that are used in turn.
"""

from __future__ import annotations

import mmap
import pickle
from typing import TYPE_CHECKING, Any, TypeVar

from closeseq.workers.forked import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    One = TypeVar("One")

SLOTS = 3
ROOM = 16 << 20  # bytes of a slot; memory that nobody writes to costs nothing
ALIGNED = 64


def made_ahead(items: Iterator[One]) -> Iterator[One]:
    """Yield the same items, made by another process. Each may be used until the next one is asked for.

    Args:
        items: that can be pickled. Nothing but this other process goes through them.

    Raises:
        WorkerError: the other process ended before its work was done.
        Exception: whatever `items` raised.
    """
    slots = [mmap.mmap(-1, ROOM) for _ in range(SLOTS)]
    with Worker(lambda orders: _make(items, slots, orders)) as worker:
        for _ in slots:
            worker.send(b"")
        at = 0
        while True:
            sizes, said = pickle.loads(worker.receive())  # noqa: S301 - of our own copy
            room, begin, buffers = memoryview(slots[at]), 0, []
            for size in sizes:
                buffers.append(room[begin : begin + size])
                begin += -(-size // ALIGNED) * ALIGNED
            kind, item = pickle.loads(said, buffers=buffers)  # noqa: S301
            if kind == "end":
                return
            if kind == "error":
                raise item
            yield item
            del item, buffers
            at = (at + 1) % SLOTS
            worker.send(b"")


def _make(items: Iterator[Any], slots: list[mmap.mmap], orders: Connection) -> None:
    at = 0
    while True:
        orders.recv_bytes()  # a slot is free
        try:
            made: tuple[str, Any] = "item", next(items)
        except StopIteration:
            made = "end", None
        except Exception as error:  # noqa: BLE001 - it is raised where the item would come
            made = "error", error
        orders.send_bytes(_packed(made, slots[at]))
        while made[0] != "item":
            orders.recv_bytes()  # until there is nobody who sends
        at = (at + 1) % SLOTS


def _packed(made: tuple[str, Any], slot: mmap.mmap) -> bytes:
    """Return what to send, with the columns in the slot; all of it if the slot has no room for them."""
    buffers: list[pickle.PickleBuffer] = []
    said = pickle.dumps(made, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    parts = [one.raw() for one in buffers]
    sizes = [part.nbytes for part in parts]
    if sum(-(-size // ALIGNED) * ALIGNED for size in sizes) > len(slot):
        return pickle.dumps(([], pickle.dumps(made, pickle.HIGHEST_PROTOCOL)))
    begin = 0
    for part, size in zip(parts, sizes, strict=True):
        slot[begin : begin + size] = part
        begin += -(-size // ALIGNED) * ALIGNED
    return pickle.dumps((sizes, said))
