"""TCP options: timestamps (RFC 7323 3.2), SACK (RFC 2018), D-SACK (RFC 2883 4), and which ones a SYN has.

The order of a SYN's options shows which system sent it.

Nearly every segment of a connection with timestamps carries them and nothing else, laid out as RFC 7323
appendix A advises; those are read in place. The others are walked together: each step takes one option
off every header that still has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

from closeseq.packets.gather import gather_padded
from closeseq.packets.segments import ACK, SYN, differences
from closeseq.segments.layouts import TCP_FIXED

END, NOP, SACK, TIMESTAMPS = 0, 1, 5, 8  # kinds of options (RFC 9293 3.2, RFC 2018 3, RFC 7323 3.2)
LARGEST = 40  # bytes of options in a TCP header
TIMESTAMPS_BYTES = 10
BLOCK_BYTES = 8  # of a SACK block: its edges
MOST_BLOCKS = 4  # that fit in a header (RFC 2018 3)
MOST_KINDS = 8  # of a SYN's options that are kept, four bits each
OTHER_KIND = 15  # stands for all higher kinds
NOP_NOP_TIMESTAMPS = 0x0101080A

_ROOM = np.dtype((np.void, LARGEST + 2))  # a kind and a length can be read even behind the last option
_STAMPS = np.dtype([("tsval", ">u4"), ("tsecr", ">u4")])
_BLOCK = np.dtype([("left", ">u4"), ("right", ">u4")])
_BLOCKS = np.dtype([("left", ">u4"), ("right", ">u4"), ("next_left", ">u4"), ("next_right", ">u4")])
_TOO_LONG = 255  # no option of this length fits, so the walk of its header ends


def read(
    buffer: NDArray[np.uint8], header: NDArray[np.void], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return the columns of `Segments` that come from options, by name.

    Args:
        buffer: the batch's.
        header: a column of dtype `layouts.TCP`.
        begin: int64, where each header's options begin in the buffer.
        end: int64, where they end; where the snap length cuts them it is there, and whole options are read.
    """
    plain = (end - begin == TIMESTAMPS_BYTES + 2) & (header["options_lead"] == NOP_NOP_TIMESTAMPS)
    columns = {
        "has_timestamps": plain,
        "tsval": np.where(plain, header["tsval"], 0).astype(np.uint32),
        "tsecr": np.where(plain, header["tsecr"], 0).astype(np.uint32),
        "dsack_left": np.zeros(len(header), dtype=np.uint32),
        "dsack_right": np.zeros(len(header), dtype=np.uint32),
        "sacked": np.zeros(len(header), dtype=np.uint32),
        "syn_options": np.zeros(len(header), dtype=np.uint32),
    }
    rows = np.flatnonzero(~plain & (end > begin))
    if not len(rows):
        return columns
    octets = gather_padded(buffer, begin[rows], _ROOM).view(np.uint8)
    stamps, sacks, blocks, kinds = _walk(octets, (end - begin)[rows])
    syn = header["control_bits"][rows] & SYN > 0
    columns["syn_options"][rows[syn]] = kinds[syn]
    _read_stamps(columns, octets, rows, stamps)
    here = np.flatnonzero(sacks * (header["control_bits"][rows] & ACK))  # a SACK belongs to an ACK
    ack = header["acknowledgment_number"][rows[here]].astype(np.uint32)
    _read_dsack(columns, rows[here], gather_padded(octets, sacks[here], _BLOCKS), blocks[here], ack)
    _read_sack(columns, rows[here], octets, sacks=sacks[here], blocks=blocks[here], ack=ack)
    return columns


def _walk(
    octets: NDArray[np.uint8], limit: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Walk the options of all headers together; `octets` holds `_ROOM` bytes a header, `limit` of them count.

    Return per header the positions in `octets` of the timestamps and of the first SACK block, 0 where
    there is none, the number of SACK blocks, and the kinds of all options in order. An option whose length
    is below 2, or that reaches beyond the limit, ends the walk of its header, as in Linux. Of several, the
    last counts.
    """
    header = np.arange(len(limit))
    at = header * _ROOM.itemsize
    end = at + limit
    stamps, sacks, blocks, kinds = (np.zeros(len(limit), dtype=np.int64) for _ in range(4))
    walked = 0
    while len(at):
        kind = octets[at]
        length = octets[at + 1].astype(np.int64)
        length[length < 2] = _TOO_LONG  # noqa: PLR2004  # kind and length themselves
        length[kind == NOP] = 1
        length[kind == END] = _TOO_LONG
        whole = at + length <= end
        if not whole.all():
            header, at, end = header[whole], at[whole], end[whole]
            kind, length = kind[whole], length[whole]
        if walked < MOST_KINDS:
            kinds[header] = kinds[header] << 4 | np.minimum(kind, OTHER_KIND)
            walked += 1
        is_stamps = (kind == TIMESTAMPS) & (length == TIMESTAMPS_BYTES)
        stamps[header[is_stamps]] = at[is_stamps] + 2
        is_sack = (kind == SACK) & (length > 2) & ((length - 2) % BLOCK_BYTES == 0)  # noqa: PLR2004
        sacks[header[is_sack]] = at[is_sack] + 2
        blocks[header[is_sack]] = (length[is_sack] - 2) // BLOCK_BYTES
        at = at + length
    return stamps, sacks, blocks, kinds


def _read_stamps(
    columns: dict[str, NDArray[Any]],
    octets: NDArray[np.uint8],
    rows: NDArray[np.int64],
    stamps: NDArray[np.int64],
) -> None:
    here = np.flatnonzero(stamps)
    values = gather_padded(octets, stamps[here], _STAMPS)
    columns["has_timestamps"][rows[here]] = True
    columns["tsval"][rows[here]] = values["tsval"]
    columns["tsecr"][rows[here]] = values["tsecr"]


def _read_dsack(
    columns: dict[str, NDArray[Any]],
    rows: NDArray[np.int64],
    block: NDArray[np.void],
    blocks: NDArray[np.int64],
    ack: NDArray[np.uint32],
) -> None:
    """Fill in the D-SACKs: a first block that lies below the acknowledgment or within the second block.

    RFC 2883 4: either way it reports what the receiver had already, that is, what arrived twice.
    """
    left, right, next_left, next_right = (block[name].astype(np.uint32) for name in block.dtype.names or ())
    acknowledged = differences(right, ack) <= 0
    within = (differences(left, next_left) >= 0) & (differences(right, next_right) <= 0)
    twice = (differences(right, left) > 0) & (acknowledged | ((blocks > 1) & within))
    columns["dsack_left"][rows[twice]] = left[twice]
    columns["dsack_right"][rows[twice]] = right[twice]


def _read_sack(
    columns: dict[str, NDArray[Any]],
    rows: NDArray[np.int64],
    octets: NDArray[np.uint8],
    *,
    sacks: NDArray[np.int64],
    blocks: NDArray[np.int64],
    ack: NDArray[np.uint32],
) -> None:
    """Fill in how far beyond its acknowledgment a segment reports data: up to the highest right edge."""
    for number in range(MOST_BLOCKS):
        here = np.flatnonzero(blocks > number)
        if not len(here):
            return
        right = gather_padded(octets, sacks[here] + number * BLOCK_BYTES, _BLOCK)["right"].astype(np.uint32)
        beyond = differences(right, ack[here])
        sacked = columns["sacked"][rows[here]].astype(np.int64)
        columns["sacked"][rows[here]] = np.maximum(beyond, sacked)


assert LARGEST + TCP_FIXED == 0x0F * 4  # the largest data offset
