"""Segments: the TCP headers of a batch as columns, one row a segment."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Segments:
    """TCP segments in the order of capture; all columns have equal length.

    Addresses are 128-bit numbers in two halves; an IPv4 address is the number itself (high half 0),
    and `version` tells the two families apart.
    """

    number: np.ndarray  # int64, the packet's number in its capture, counted from 1
    time_ns: np.ndarray  # int64, nanoseconds since the Unix epoch
    version: np.ndarray  # uint8, 4 or 6: that of the innermost IP header
    src_high: np.ndarray  # uint64
    src_low: np.ndarray  # uint64
    dst_high: np.ndarray  # uint64
    dst_low: np.ndarray  # uint64
    src_port: np.ndarray  # uint16
    dst_port: np.ndarray  # uint16
    seq: np.ndarray  # uint32, as on the wire
    ack: np.ndarray  # uint32, as on the wire; meaningless without the ACK flag
    flags: np.ndarray  # uint8, the bits of packets.flags (and URG, ECE, CWR as on the wire)
    window: np.ndarray  # uint16, as on the wire, not scaled
    length: np.ndarray  # int64, bytes of payload, from the IP length (not from what was captured)
    ttl: np.ndarray  # uint8, TTL or hop limit
    ip_id: np.ndarray  # int32, IPv4 identification; -1 for IPv6
    has_timestamps: np.ndarray  # bool, the timestamps option is there (RFC 7323)
    tsval: np.ndarray  # uint32, 0 without the option
    tsecr: np.ndarray  # uint32, 0 without the option
    dsack_left: np.ndarray  # uint32, left edge of a D-SACK block (RFC 2883); equal to dsack_right if none
    dsack_right: np.ndarray  # uint32, right edge
    sacked: np.ndarray  # uint32, how far beyond `ack` its SACK blocks reach (RFC 2018); 0 without
    syn_options: np.ndarray  # uint32, the kinds of a SYN's options in order, four bits each; 0 for others
    vlan: np.ndarray  # uint64, the VLANs of its frame, 16 bits a tag, the innermost lowest; 0 without tags
    place: np.ndarray  # uint64, equal where link headers do not tell that two frames were captured apart
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> frames that gave no row
    notes: Mapping[str, int] = field(default_factory=dict)  # remark -> rows it is true of

    def __len__(self) -> int:
        return len(self.number)

    def take(self, rows: np.ndarray) -> Segments:
        """Return the rows that an index array or a boolean mask selects; the counts stay with `self`."""
        return Segments(*(getattr(self, name)[rows] for name in COLUMNS))


COLUMNS = tuple(f.name for f in fields(Segments) if f.name not in ("skipped", "notes"))
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
