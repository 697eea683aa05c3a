"""Which end of many connections is the client: the column form of what `events.describe` finds for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.flags import ACK, SYN

if TYPE_CHECKING:
    from closeseq.connections.extent import Extent
    from closeseq.connections.guess import Guess
    from closeseq.connections.steps import Steps
    from closeseq.connections.table import Table


def clients(table: Table, steps: Steps, guess: Guess, extent: Extent) -> tuple[np.ndarray, np.ndarray]:
    """Return each connection's client, 0 or 1, and whether a SYN or SYN+ACK told it."""
    histories, kept = table.histories, steps.kept
    client = np.full(len(extent), -1)
    flags, sender = kept.flags[extent.event] & (SYN | ACK), kept.sender[extent.event]
    for wanted, of_peer in ((SYN | ACK, 1), (SYN, 0)):  # a SYN without ACK decides before a SYN+ACK
        at = np.flatnonzero(flags == wanted)[::-1]  # of several the first one stays
        client[extent.event_place[at]] = sender[at] ^ of_peer
    seen = client >= 0
    if not seen.all():
        unknown = extent.connection[~seen]
        client[~seen] = guess.clients(histories.pair[unknown], histories.first_sender[unknown])
    return client, seen
