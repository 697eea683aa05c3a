"""Arithmetic on numbers that wrap at 2**32: sequence numbers (RFC 9293 3.4) and timestamps (RFC 7323).

This is the only place in closeseq where wrap-around is handled.
"""

from __future__ import annotations

import numpy as np

MODULUS = 1 << 32
HALF = 1 << 31


def difference(a: int, b: int) -> int:
    """Return how far 32-bit `a` lies past 32-bit `b`, in -2**31 <= d < 2**31."""
    return ((a - b + HALF) & (MODULUS - 1)) - HALF


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return `difference` of two uint32 columns, as int64."""
    return (a.astype(np.uint32) - b.astype(np.uint32)).view(np.int32).astype(np.int64)
