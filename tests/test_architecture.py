"""The data goes one way: a later stage may import an earlier one, never the other way round."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "closeseq"

# In the order the data goes. Modules of closeseq/ itself stand where they are used.
STAGES = (
    "errors",
    "workers",
    "packets",
    "capture",
    "segments",
    "connections",
    "script",
    "tcp",
    "verdict",
    "settings",
    "connection",
    "classes",
    "reading",
    "shards",
    "analysis",
    "kernel",
    "watch",
    "report",
    "cluster",
    "lab",
    "cli",
    "__main__",
)
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def stage(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_stages(path: Path) -> set[str]:
    """Return the stages that a module imports, wherever in it, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("closeseq.")}
    return found & set(STAGES)


def test_every_module_belongs_to_a_stage():
    assert {stage(path) for path in MODULES} == set(STAGES)


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_no_module_imports_a_later_stage(path):
    own = STAGES.index(stage(path))
    later = {name for name in imported_stages(path) if STAGES.index(name) > own}
    assert not later


def test_the_right_half_knows_no_numpy():
    plain = [p for p in MODULES if stage(p) in ("tcp", "verdict", "report", "cli")]
    assert plain
    assert not [p for p in plain if "numpy" in p.read_text()]


def test_only_the_command_line_knows_click():
    assert {stage(p) for p in MODULES if "import click" in p.read_text()} == {"cli"}


def test_nothing_between_capture_and_command_line_reads_a_clock():
    stages = ("packets", "segments", "connections", "tcp", "verdict", "report")
    clocks = ("time.time", "monotonic(", "perf_counter", "datetime.now", "utcnow")
    found = [p for p in MODULES if stage(p) in stages for clock in clocks if clock in p.read_text()]
    assert not found
