"""What RSTs carry beside their header: the first bytes of a payload, and the option MP_TCPRST.

Few segments are RSTs, and few of those carry anything: these are looked at one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.reset_reasons import MOST_BYTES, ReasonKind, ResetReason
from closeseq.packets.segments import RST

if TYPE_CHECKING:
    from numpy.typing import NDArray

END, NOP, MPTCP = 0, 1, 30  # kinds of options (RFC 9293 3.2, RFC 8684)
MP_TCPRST = 0x8  # subtype
MP_TCPRST_BYTES = 4


def read(
    buffer: NDArray[np.uint8],
    flags: NDArray[np.uint8],
    *,
    options: NDArray[np.int64],
    payload: NDArray[np.int64],
    past: NDArray[np.int64],
) -> list[tuple[int, ResetReason]]:
    """Return the rows of RSTs that carry something, each with what it is.

    Args:
        buffer: the batch's.
        flags: the control bits of each row.
        options: int64, where each header's options begin in the buffer.
        payload: int64, where its payload begins.
        past: int64, where that ends, as far as it was captured.

    Returns:
        Index of the row, and its reason; ascending. A payload of nothing but zeros is none.
    """
    found = []
    rows = np.flatnonzero(flags & RST)
    for row in rows[past[rows] > options[rows]].tolist():
        begin, end = int(payload[row]), int(past[row])
        if end > begin:
            octets = buffer[begin : min(end, begin + MOST_BYTES)].tobytes()
            if octets.strip(b"\0"):
                found.append((row, ResetReason(ReasonKind.PAYLOAD, octets)))
                continue
        code = _mp_tcprst(buffer[int(options[row]) : min(begin, end)].tobytes())
        if code is not None:
            found.append((row, ResetReason(ReasonKind.MPTCP, bytes([code]))))
    return found


def _mp_tcprst(options: bytes) -> int | None:
    """Return the reason in the option MP_TCPRST; None without one."""
    at = 0
    while at + 1 < len(options) and options[at] != END:
        if options[at] == NOP:
            at += 1
            continue
        length = options[at + 1]
        if length < 2 or at + length > len(options):  # noqa: PLR2004 - kind and length themselves
            return None
        if options[at] == MPTCP and length == MP_TCPRST_BYTES and options[at + 2] >> 4 == MP_TCPRST:
            return options[at + 3]
        at += length
    return None
