"""Arithmetic on numbers that wrap.

At 2**32: sequence numbers (RFC 9293 3.4) and timestamps (RFC 7323). At 2**16: the identification of IPv4
packets (RFC 791 3.1).

This is the only place in closeseq where wrap-around is handled.
"""

from __future__ import annotations

import numpy as np

MODULUS = 1 << 32
HALF = 1 << 31
IP_IDS = 1 << 16


def difference(a: int, b: int) -> int:
    """Return how far 32-bit `a` lies past 32-bit `b`, in -2**31 <= d < 2**31."""
    return ((a - b + HALF) & (MODULUS - 1)) - HALF


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return `difference` of two uint32 columns, as int64."""
    return (a.astype(np.uint32) - b.astype(np.uint32)).view(np.int32).astype(np.int64)


def steps(ip_id: int, before: int) -> int:
    """Return how far 16-bit `ip_id` lies past 16-bit `before`, in 0 <= d < 2**16."""
    return (ip_id - before) % IP_IDS


def counts_on(ip_id: int, before: int) -> bool:
    """Return whether `ip_id` lies past `before`, by less than half of the numbers; 0 and below are none."""
    return ip_id > 0 and before > 0 and 0 < steps(ip_id, before) < IP_IDS // 2


def count_on(ip_id: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return `counts_on` of two integer columns, as a mask."""
    past = (ip_id - before) % IP_IDS
    result: np.ndarray = (ip_id > 0) & (before > 0) & (past > 0) & (past < IP_IDS // 2)
    return result
