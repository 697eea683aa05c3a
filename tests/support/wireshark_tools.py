"""Wireshark's command line tools, and what they say of a capture."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE = 60.0  # seconds


def needs_tool(*names: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test where one of these tools is missing."""
    missing = [name for name in names if not shutil.which(name)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (package tshark)")


def tool(name: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a tool that must succeed; return what it printed."""
    done = subprocess.run(
        [name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"} | dict(env or {}),
    )
    assert done.returncode == 0, f"{done.args}: {done.stderr}"
    return done.stdout


def fields(path: Path, *names: str, where: str = "", more: tuple[str | Path, ...] = (), **options) -> list:
    """Return fields of the packets, a list of columns each, as tshark prints them."""
    chosen = [part for name in names for part in ("-e", name)]
    filtered = ["-Y", where] if where else []
    arguments = ["-r", path, *more, *filtered, "-T", "fields", "-E", "aggregator=|", *chosen]
    return [line.split("\t") for line in tool("tshark", *arguments, **options).splitlines()]


def numbers(path: Path, where: str, more: tuple[str | Path, ...] = (), **options) -> list[int]:
    """Return the numbers of the packets that a display filter finds."""
    return [int(row[0]) for row in fields(path, "frame.number", where=where, more=more, **options)]


@functools.cache
def version() -> tuple[int, int]:
    """Return the version of the tshark that is installed."""
    found = re.search(r"(\d+)\.(\d+)", tool("tshark", "--version"))
    return int(found[1]), int(found[2])
