"""Which RSTs came another way than their sender's other frames: columns against a plain reading."""

from __future__ import annotations

import numpy as np
import pytest

from closeseq.connections import Connections
from closeseq.connections.conversation import ENDS
from closeseq.packets.segments import RST
from closeseq.script import segments


def plainly(rows):
    """Return the packets of RSTs that came another way, and how often each port's place changed."""
    place, moves, odd = {}, {}, []
    columns = (rows.number, rows.src_port, rows.flags, rows.place, rows.vlan)
    for number, port, flags, here, vlan in zip(*(one.tolist() for one in columns), strict=True):
        known = place.get(port, (here, vlan))
        if flags & RST:
            odd += [number] if known != (here, vlan) and not (known[0] | here) & 1 else []
        else:
            moves[port] = moves.get(port, 0) + (known != (here, vlan))
            place[port] = here, vlan
    return odd, moves


@pytest.mark.parametrize("seed", range(20))
def test_places_in_batches_of_any_size(seed):
    rng = np.random.default_rng(seed)
    rows = segments("C:S S:SA C:A ~ C:R! ~ S:R! S:R! ~ ~ C:R! C:RA! ~ C:FA S:R C:R S:A", timestamps=True)
    rows.place[:] = rng.choice([2, 2, 2, 2, 8, 9], len(rows))
    rows.vlan[:] = rng.choice([4, 4, 4, 5] if seed % 2 else [0], len(rows))
    rows.ip_id[:] = np.arange(1, len(rows) + 1)  # none is a duplicate
    odd, moves = plainly(rows)
    for size in (1, 2, 3, len(rows)):
        found = Connections()
        for begin in range(0, len(rows), size):
            found.feed(rows.take(np.arange(begin, min(begin + size, len(rows)))))
        one = found.conversation(0)
        assert [e.packet for e in one.events if e.elsewhere] == odd
        assert [one.path(end).moves for end in ENDS] == [moves[one.address(end).port] for end in ENDS]
