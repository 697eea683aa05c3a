"""The processes that a process has started, and the network namespaces that they use."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descendants(pid):
    """Return the numbers of the processes that a process has started, and those that these have."""
    found, new = set(), {pid}
    while new:
        parents, new = new, set()
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) in parents:
                    new.add(int(status.parent.name))
        found |= new
    return found


def namespaces(pids):
    """Return the network namespaces that processes are in or keep open, but for that of the tests."""
    found = set()
    for pid in pids:
        process = Path(f"/proc/{pid}")
        links = [process / "ns/net"]
        with contextlib.suppress(OSError):
            links += (process / "fd").iterdir()
        for link in links:
            with contextlib.suppress(OSError):
                if (target := str(link.readlink())).startswith("net:"):
                    found.add(target)
    return found - {str(Path("/proc/self/ns/net").readlink())}


def everyone():
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]
