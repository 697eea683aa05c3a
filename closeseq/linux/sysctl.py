"""Settings of the kernel, in the network namespace of this process."""

from __future__ import annotations

from pathlib import Path

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ephemeral_ports() -> int:
    """Return how many local ports connect() chooses from; 0 if the kernel does not say."""
    try:
        first, last = map(int, PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return 0
    return max(last - first + 1, 0)
