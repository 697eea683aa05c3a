"""One batch on its way through: its rows, ordered in two ways, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from closeseq.connections.sequence import Numbers, Senders
    from closeseq.connections.table import Rows
    from closeseq.packets.segments import Segments


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of the rows of a batch before it is decided which of them matter."""

    rows: Rows  # in the order by connection
    connection: np.ndarray  # int64, index into Histories, in the order by connection
    senders: Senders  # the order by sender, and the way from one to the other
    segments: Segments  # in the order by sender
    numbers: Numbers  # in the order by sender
