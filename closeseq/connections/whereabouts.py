"""Where the frames of an endpoint are captured, and which RSTs came another way.

All frames of an endpoint come from the same link address, in the same VLAN, by the same interface and in the
same direction, as long as the path to it stays as it is (`Segments.place`, `Segments.vlan`). A RST in its
name that does not was sent by another host. How often the place of an endpoint's other frames changed is
counted, since where it changes at all nothing follows; nor does anything from an odd place (`Segments`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.segments import RST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from closeseq.connections.sequence_space import Senders
    from closeseq.connections.state import Sides
    from closeseq.packets.segments import Segments

SPREAD = np.uint64(0x9E3779B97F4A7C15)


def elsewhere(senders: Senders, segments: Segments, sides: Sides) -> NDArray[np.bool_]:
    """Return which RSTs came another way than their sender's segment before.

    Args:
        senders: the order by sender.
        segments: the batch, in that order.
        sides: of all connections; places, and how often they changed, are updated.

    Returns:
        A mask, in the order by sender.
    """
    place = segments.place
    if segments.vlan.any():
        place = place ^ (segments.vlan * SPREAD << np.uint64(1))
    result = np.zeros(len(place), np.bool_)
    reset = segments.flags & RST > 0
    resets = np.flatnonzero(reset)
    other = np.flatnonzero(~reset) if len(resets) else np.arange(len(place))
    side, start, past = senders.side, senders.start, senders.start + senders.length

    begin, end = np.searchsorted(other, start), np.searchsorted(other, past)  # of each group, in `other`
    known, before = sides.placed[side], sides.place[side]
    if len(resets):
        group = np.searchsorted(start, resets, side="right") - 1
        last = np.searchsorted(other, resets) - 1  # the segment before it that is no RST
        here = last >= begin[group]
        compared = before[group]
        compared[here] = place[other[last[here]]]
        sure = (place[resets] | compared) & np.uint64(1) == 0
        result[resets] = (here | known[group]) & (place[resets] != compared) & sure

    filled = np.flatnonzero(end > begin)
    first, newest = place[other[begin[filled]]], place[other[end[filled] - 1]]
    moved = (known[filled] & (first != before[filled])).astype(np.int32)
    changes = np.flatnonzero(place[other][1:] != place[other][:-1]) + 1
    if len(changes):
        group = np.searchsorted(begin, changes, side="right") - 1
        inner = group[changes > begin[group]]  # the others are the first of their group
        moves = np.bincount(inner, minlength=len(start))[filled]
        moved += moves.astype(np.int32)
    sides.moves[side[filled]] += moved
    sides.place[side[filled]], sides.placed[side[filled]] = newest, True
    return result
