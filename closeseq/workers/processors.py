"""How many processors this process may use: its affinity, limited by its control groups' quotas.

A container mostly gets a share of the time of all processors (a quota), and so sees more than it can use.
"""

from __future__ import annotations

import os
from itertools import chain
from math import ceil
from pathlib import Path

SYSTEM = Path("/")
V1_CONTROLLER = "cpu"


def processors(root: Path = SYSTEM) -> int:
    """Return how many processors this process may use, at least 1.

    Args:
        root: where the system's files are.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # which not every system has
    number = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(number, ceil(quota(root))))


def quota(root: Path = SYSTEM) -> float:
    """Return how many processors' time the control groups of this process may take; far more without any.

    Args:
        root: where the system's files are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float(1 << 20)
    least = float(1 << 20)
    for line in lines:
        _, controllers, path = line.split(":", 2)
        named = controllers.split(",")
        if not controllers:
            folder, shares = root / "sys/fs/cgroup", _share
        elif V1_CONTROLLER in named:
            found = (root / "sys/fs/cgroup" / name for name in (controllers, V1_CONTROLLER))
            folder, shares = next((one for one in found if one.is_dir()), root / "none"), _share_v1
        else:
            continue
        # Every group above has a quota of its own; within a container the path may be one outside of it.
        group = folder / path.strip("/")
        for one in chain([group], (above for above in group.parents if above.is_relative_to(folder))):
            least = min(least, shares(one))
    return least


def _share(group: Path) -> float:
    """Return the quota of a group (version 2): `MICROSECONDS PERIOD`, or `max PERIOD` without one."""
    return _of(_words(group / "cpu.max"))


def _share_v1(group: Path) -> float:
    """Return the quota of a group (version 1), which is -1 without one."""
    return _of(_words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _of(words: list[str]) -> float:
    try:
        allowed, period = (float(word) for word in words)
    except ValueError:  # there is no such file, or no quota
        return float(1 << 20)
    return allowed / period if allowed > 0 and period > 0 else float(1 << 20)
