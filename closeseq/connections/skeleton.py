"""The steps of many connections as codes, one byte a step: what they have in common before any comparison.

An event's byte holds its sender, flags, whether it carries data and whether it closes the window; a
stretch of traffic's holds who sent anything and who sent data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.grouping import lengths
from closeseq.packets.flags import ACK, FIN, RST, SYN

if TYPE_CHECKING:
    from closeseq.connections.extent import Extent
    from closeseq.connections.steps import Kept, Steps
    from closeseq.connections.traffic import Stretches

MOST_STEPS = 64

FLAGS = SYN | FIN | RST | ACK  # keep their places in an event's byte
DATA = 0x08
CLOSED_WINDOW = 0x20
FROM_SERVER = 0x40
EVENT = 0x80
TRAFFIC = 0x10  # in a stretch's byte
PRESENT = (0x01, 0x02)  # the client sent something, the server did
BYTES = (0x04, 0x08)
assert not FLAGS & (DATA | CLOSED_WINDOW | FROM_SERVER | EVENT)


@dataclass(frozen=True, slots=True)
class Skeletons:
    """A row a connection, a column a step."""

    code: np.ndarray  # uint8, 0 past the last step
    row: np.ndarray  # int32, of steps.Kept or traffic.Stretches


def skeletons(
    steps: Steps, extent: Extent, chosen: np.ndarray, client: np.ndarray, open_stretch: np.ndarray
) -> Skeletons:
    """Return the steps of chosen connections of an extent, each of which has at most MOST_STEPS.

    `chosen` and `client` (0 or 1) have an entry for every connection, `open_stretch` for every chosen one.
    """
    place = np.cumsum(chosen) - 1  # of a chosen connection among them
    code = np.zeros((len(open_stretch), MOST_STEPS), np.uint8)
    row = np.zeros((len(open_stretch), MOST_STEPS), np.int32)

    kept, stretches = steps.kept, steps.stretches
    at = np.flatnonzero(chosen[extent.event_place])
    at = at[np.argsort(extent.event_place[at], kind="stable")]
    event, connection = extent.event_rows(at), extent.event_place[at]
    stretch = kept.stretch[event]
    start = np.flatnonzero(np.diff(connection, prepend=-1))
    count = np.cumsum(1 + (stretch >= 0))  # steps up to and including each event
    before = np.zeros(len(start), np.int64)
    before[1:] = count[start[1:] - 1]
    at = count - 1 - np.repeat(before, lengths(start, len(event)))
    code[place[connection], at], row[place[connection], at] = (
        event_codes(kept, event, client[connection]),
        event,
    )

    with_stretch = stretch >= 0
    connection, at, stretch = connection[with_stretch], at[with_stretch] - 1, stretch[with_stretch]
    code[place[connection], at] = stretch_codes(stretches, stretch, client[connection])
    row[place[connection], at] = stretch

    last = np.flatnonzero(open_stretch >= 0)
    at = np.count_nonzero(code[last], axis=1)
    code[last, at] = stretch_codes(stretches, open_stretch[last], client[chosen][last])
    row[last, at] = open_stretch[last]
    return Skeletons(code, row)


def event_codes(kept: Kept, event: np.ndarray, client: np.ndarray) -> np.ndarray:
    """Return the bytes of these rows of `Kept`; `client` is that of each row's connection."""
    flags = kept.flags[event]
    code: np.ndarray = (flags & FLAGS) | np.uint8(EVENT)
    code[kept.sender[event] != client] |= FROM_SERVER
    code[kept.length[event] > 0] |= DATA
    code[(kept.window[event] == 0) & (flags & RST == 0)] |= CLOSED_WINDOW
    return code


def stretch_codes(stretches: Stretches, stretch: np.ndarray, client: np.ndarray) -> np.ndarray:
    """Return the bytes of these rows of `Stretches`; `client` is that of each row's connection."""
    code = np.full(len(stretch), TRAFFIC, np.uint8)
    for end, column in enumerate((client, 1 - client)):
        code[stretches.segments[stretch, column] > 0] |= PRESENT[end]
        code[stretches.bytes[stretch, column] > 0] |= BYTES[end]
    return code
