"""The data goes one way: a later stage may import an earlier one, never the other way round."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections import Counter
from typing import TYPE_CHECKING

import click
import pytest

from closeseq.cli.main import cli
from docstrings import public_functions, unsaid
from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ROOT = ROOT / "closeseq"

# In the order the data goes. Modules of closeseq/ itself stand where they are used.
STAGES = (
    "errors",
    "workers",
    "packets",
    "settings",
    "units",
    "capture",
    "segments",
    "connections",
    "script",
    "tcp",
    "verdict",
    "connection",
    "classes",
    "reading",
    "judging",
    "shards",
    "tables",
    "analysis",
    "linux",
    "watch",
    "report",
    "wireshark",
    "cluster",
    "diff",
    "lab",
    "testing",
    "pytest_plugin",
    "cli",
    "__main__",
)
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def stage(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Return what a module imports, wherever in it, also for types only."""
    return [one for one in ast.walk(parsed(path)) if isinstance(one, ast.Import | ast.ImportFrom)]


def imported_stages(path: Path) -> set[str]:
    found = set()
    for node in imports(path):
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


def name(path: Path) -> str:
    """Return a module's dotted name; a package's is that of its folder."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name(path): path for path in (*MODULES, ROOT / "__init__.py")}


def imported(path: Path) -> set[str]:
    found = set()
    for node in imports(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(NAMES) - {name(path)}


def test_no_modules_import_each_other_in_a_circle():
    """Also not for types only. A package's own file may gather what its modules offer."""
    left = {one: imported(path) - {"closeseq"} for one, path in NAMES.items() if path.name != "__init__.py"}
    for found in left.values():
        found &= set(left)
    while free := {one for one, needs in left.items() if not needs}:
        left = {one: needs - free for one, needs in left.items() if one not in free}
    assert not left


FOLDERS = sorted(path for path in ROOT.rglob("__init__.py") if path.parent != ROOT)


@pytest.mark.parametrize("package", FOLDERS, ids=[name(p) for p in FOLDERS])
def test_every_module_is_on_its_packages_map(package):
    text = ast.get_docstring(parsed(package)) or ""
    words = set(re.findall(r"\w+", text))
    modules = {path.stem for path in package.parent.glob("*.py")} | {
        path.parent.name for path in package.parent.glob("*/__init__.py")
    }
    assert modules - {"__init__", package.parent.name} <= words


def test_every_stage_is_on_the_map_at_the_door():
    words = set(re.findall(r"\w+", ast.get_docstring(parsed(ROOT / "__init__.py")) or ""))
    assert set(STAGES) - {"__main__"} <= words


# A command's file is called what the command is called, and an experiment's as what it is about.
NAMED_OTHERWISE = ("cli", "experiments", "programs")


def test_no_two_modules_have_the_same_name():
    stems = [p.stem for p in MODULES if p.stem != "__init__" and p.parent.name not in NAMED_OTHERWISE]
    assert not [stem for stem, times in Counter(stems).items() if times > 1]


def test_no_two_public_classes_have_the_same_name():
    classes = Counter(
        node.name
        for path in MODULES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not [one for one, times in classes.items() if times > 1]


def test_the_bare_package_loads_none_of_its_modules():
    code = "import sys, closeseq; print([one for one in sys.modules if one.startswith('closeseq.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout == "[]\n"


def commands(group, prefix="closeseq"):
    for one, command in group.commands.items():
        yield f"{prefix} {one}"
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {one}")


def test_every_command_is_in_the_readme():
    readme = (ROOT.parent / "README.md").read_text()
    assert not [command for command in commands(cli) if command not in readme]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_path_that_a_page_names_is_there(page):
    text = (ROOT.parent / page).read_text()
    named = re.findall(r"`((?:closeseq|captures|scripts|tests)/[\w./]*)`", text)
    assert named
    assert not [path for path in named if not (ROOT.parent / path).exists()]


def defined(path: Path) -> set[str]:
    """Return the public names that a module defines, but for those that a decorator registers."""
    found = set()
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.decorator_list:
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {leaf.id for one in targets for leaf in ast.walk(one) if isinstance(leaf, ast.Name)}
    return {one for one in found if not one.startswith("_")}


@pytest.mark.parametrize("path", MODULES, ids=[str(p.relative_to(ROOT)) for p in MODULES])
def test_docstrings_say_what_parameters_are_and_what_is_raised(path):
    lacking = {name: unsaid(one) for name, one in public_functions(path.read_text())}
    assert not {name: missing for name, missing in lacking.items() if missing}


SAYS_ALL = """
def wait(self, port, within):
    '''Wait until a port is open. Raises TimeoutError.

    Args:
        port: which one.
        within: seconds.
    '''
    raise TimeoutError
"""


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        (SAYS_ALL, []),
        (SAYS_ALL.replace("        within: seconds.\n", ""), ["within"]),
        (SAYS_ALL.replace("within: seconds", "begin: seconds"), ["within"]),
        (SAYS_ALL.replace(" Raises TimeoutError.", ""), ["TimeoutError"]),
        (SAYS_ALL.replace("raise TimeoutError", "raise socket.timeout"), []),
        (SAYS_ALL.replace("self, port, within", "self, port, within, *more, **named"), ["more", "named"]),
        ("def wait(port, within):\n    '''As in `Ports.wait`.'''", []),
        ("def wait(port):\n    '''Wait until it is open.'''", []),
        ("def wait():\n    pass", ["a docstring"]),
        ("class Ports:\n    def wait(self):\n        pass", ["a docstring"]),
    ],
)
def test_what_a_docstring_lacks_is_found(source, lacking):
    ((_, function),) = public_functions(source)
    assert unsaid(function) == lacking


@pytest.mark.parametrize(
    "source",
    [
        "def _wait(): ...",
        "class _Ports:\n    def wait(self): ...",
        "@click.command(epilog='')\ndef wait(ctx, port): ...",
        "class Ports:\n    @property\n    def number(self): ...",
        "@overload\ndef wait(port: int) -> int: ...",
        "class Ports:\n    def __len__(self): ...",
    ],
)
def test_what_speaks_for_itself_needs_no_docstring(source):
    assert not list(public_functions(source))


def test_no_public_name_is_used_nowhere():
    """Neither in the package, nor by the scripts; pytest finds the plugin's hooks by their names."""
    texts = [p.read_text() for p in NAMES.values()]
    texts += [
        p.read_text() for p in (ROOT.parent / "scripts").rglob("*") if p.is_file() and p.suffix != ".pyc"
    ]
    words = Counter(word for text in texts for word in re.findall(r"\w+", text))
    unused = sorted(one for path in MODULES for one in defined(path) if words[one] < 2)
    assert not [one for one in unused if not one.startswith("pytest_")]


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


def test_programs_without_an_ending_are_checked_too():
    listed = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["ruff"]["extend-include"]
    assert listed == sorted(
        f"scripts/{one.name}"
        for one in (ROOT.parent / "scripts").iterdir()
        if one.is_file() and not one.suffix
    )
