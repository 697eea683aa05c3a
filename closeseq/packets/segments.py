"""TCP headers: the control bits, arithmetic on numbers that wrap, and a batch of headers as columns.

Numbers wrap at 2**32: sequence numbers (RFC 9293 3.4) and timestamps (RFC 7323). At 2**16: the identification
of IPv4 packets (RFC 791 3.1). Only here in closeseq wrap-around is handled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from closeseq.packets.reset_reasons import ResetReason

# Control bits (RFC 9293 3.1).
FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10

LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (ACK, "A"), (PSH, "P"))


@cache
def letters(flags: int) -> str:
    """Return the set bits as letters out of SFRAP, in that order: `letters(SYN | ACK) == "SA"`."""
    return "".join(letter for bit, letter in LETTERS if flags & bit)


def from_letters(text: str) -> int:
    """Return the bits for letters out of SFRAP, in any order.

    Raises:
        KeyError: the text has any other letter.
    """
    bits = {letter: bit for bit, letter in LETTERS}
    flags = 0
    for letter in text:
        flags |= bits[letter]
    return flags


MODULUS = 1 << 32
HALF = 1 << 31
IP_IDS = 1 << 16


def difference(a: int, b: int) -> int:
    """Return how far 32-bit `a` lies past 32-bit `b`, in -2**31 <= d < 2**31."""
    return ((a - b + HALF) & (MODULUS - 1)) - HALF


def differences(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return `difference` of each entry of two uint32 columns, as int64.

    Args:
        a: what is compared; positive where it lies past `b`.
        b: of equal length.
    """
    return (a.astype(np.uint32) - b.astype(np.uint32)).view(np.int32).astype(np.int64)


def steps(ip_id: int, before: int) -> int:
    """Return how far 16-bit `ip_id` lies past 16-bit `before`, in 0 <= d < 2**16."""
    return (ip_id - before) % IP_IDS


def counts_on(ip_id: int, before: int) -> bool:
    """Return whether a packet may come after another of the same counter, by IPv4's identification.

    Args:
        ip_id: 16 bits, of the later packet; 0 and -1 (IPv6) are no count.
        before: of the earlier one.

    Returns:
        Whether the one lies past the other, by less than half of the numbers.
    """
    return ip_id > 0 and before > 0 and 0 < steps(ip_id, before) < IP_IDS // 2


def count_on(ip_id: NDArray[np.int32], before: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return `counts_on` of two columns, as a mask.

    Args:
        ip_id: int32, IPv4 identifications of the later packets; 0 and -1 are no count.
        before: of the earlier ones, of equal length.
    """
    past = (ip_id - before) % IP_IDS
    return (ip_id > 0) & (before > 0) & (past > 0) & (past < IP_IDS // 2)


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP segments in the order of capture, as columns with one entry a segment.

    Addresses are 128-bit numbers in two halves; an IPv4 address is the number itself (high half 0), and
    `version` distinguishes the two families.
    """

    number: NDArray[np.int64]  # the packet's number in its capture, counted from 1
    time_ns: NDArray[np.int64]  # nanoseconds since the Unix epoch
    version: NDArray[np.uint8]  # 4 or 6: that of the innermost IP header
    src_high: NDArray[np.uint64]  # of the sender's address
    src_low: NDArray[np.uint64]
    dst_high: NDArray[np.uint64]  # of the receiver's
    dst_low: NDArray[np.uint64]
    src_port: NDArray[np.uint16]
    dst_port: NDArray[np.uint16]
    seq: NDArray[np.uint32]  # as on the wire
    ack: NDArray[np.uint32]  # as on the wire; meaningless without the ACK flag
    flags: NDArray[np.uint8]  # the control bits above (and URG, ECE, CWR as on the wire)
    window: NDArray[np.uint16]  # as on the wire, not scaled
    length: NDArray[np.int64]  # bytes of payload, from the IP length (not from what was captured)
    ttl: NDArray[np.uint8]  # TTL or hop limit
    ip_id: NDArray[np.int32]  # IPv4 identification; -1 for IPv6
    has_timestamps: NDArray[np.bool_]  # the timestamps option is there (RFC 7323)
    tsval: NDArray[np.uint32]  # 0 without the option
    tsecr: NDArray[np.uint32]  # 0 without the option
    dsack_left: NDArray[np.uint32]  # left edge of a D-SACK block (RFC 2883); equal to dsack_right if none
    dsack_right: NDArray[np.uint32]  # right edge
    sacked: NDArray[np.uint32]  # how far beyond `ack` its SACK blocks reach (RFC 2018); 0 without
    syn_options: NDArray[np.uint32]  # the kinds of a SYN's options in order, four bits each; 0 for others
    vlan: NDArray[np.uint64]  # the VLANs of its frame, 16 bits a tag, the innermost lowest; 0 without tags
    # equal unless link headers show that two frames are from different places; odd where they may differ
    # for other reasons too: priority tags, tunnels, 802.11
    place: NDArray[np.uint64]
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames that gave no row
    notes: Mapping[str, int] = field(default_factory=dict)  # remark -> rows it is true of
    reasons: Mapping[int, ResetReason] = field(default_factory=dict)  # packet -> what a RST carries

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: NDArray[np.int64 | np.bool_]) -> Segments:
        """Return the rows that an index array or a boolean mask selects; the counts stay with `self`."""
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        reasons = self.reasons
        if reasons:
            taken = set(columns["number"].tolist())
            reasons = {number: one for number, one in reasons.items() if number in taken}
        return Segments(**columns, reasons=reasons)


COLUMNS = tuple(f.name for f in fields(Segments) if f.name not in ("skipped", "notes", "reasons"))
DTYPES = {
    "number": np.int64, "time_ns": np.int64, "version": np.uint8,
    "src_high": np.uint64, "src_low": np.uint64, "dst_high": np.uint64, "dst_low": np.uint64,
    "src_port": np.uint16, "dst_port": np.uint16, "seq": np.uint32, "ack": np.uint32,
    "flags": np.uint8, "window": np.uint16, "length": np.int64, "ttl": np.uint8, "ip_id": np.int32,
    "has_timestamps": np.bool_, "tsval": np.uint32, "tsecr": np.uint32,
    "dsack_left": np.uint32, "dsack_right": np.uint32, "sacked": np.uint32, "syn_options": np.uint32,
    "vlan": np.uint64, "place": np.uint64,
}  # fmt: skip
assert set(DTYPES) == set(COLUMNS)
