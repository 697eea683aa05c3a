"""Keep only the segments that someone asked for, by port or address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from closeseq.packets.segments import Segments

LOW_HALF = (1 << 64) - 1


def narrow(segments: Segments, ports: AbstractSet[int], hosts: AbstractSet[str]) -> Segments:
    """Return the rows that have one of the ports, and one of the addresses, at either end.

    An empty set asks for nothing in particular. The counts of what was skipped stay with `segments`.
    Raises ValueError for a host that is no IP address.
    """
    keep = np.ones(len(segments), dtype=np.bool_)
    if ports:
        wanted = np.array(sorted(ports), dtype=np.uint16)
        keep &= np.isin(segments.src_port, wanted) | np.isin(segments.dst_port, wanted)
    if hosts:
        named = np.zeros(len(segments), dtype=np.bool_)
        for host in hosts:
            named |= _has(segments, host)
        keep &= named
    return segments if keep.all() else segments.take(keep)


def _has(segments: Segments, host: str) -> np.ndarray:
    """Return which rows have this address at either end: a boolean column."""
    address = ip_address(host)
    high, low = np.uint64(int(address) >> 64), np.uint64(int(address) & LOW_HALF)
    source = (segments.src_high == high) & (segments.src_low == low)
    destination = (segments.dst_high == high) & (segments.dst_low == low)
    named: np.ndarray = (segments.version == address.version) & (source | destination)
    return named
