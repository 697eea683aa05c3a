"""Sets of ports, as ranges for the kernel to compare with."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


def ranges(ports: Collection[int]) -> list[tuple[int, int]]:
    """Return the ports as few ranges (first, last), in order.

    Raises:
        ValueError: one is no port.
    """
    ordered = sorted(set(ports))
    if ordered and not 0 <= ordered[0] <= ordered[-1] <= 65535:  # noqa: PLR2004  # 16 bits
        raise ValueError("a port is a number from 0 to 65535")
    breaks = [at for at, (port, after) in enumerate(pairwise(ordered), 1) if after != port + 1]
    edges = [0, *breaks, len(ordered)] if ordered else []
    return [(ordered[first], ordered[behind - 1]) for first, behind in pairwise(edges)]
