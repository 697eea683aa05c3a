"""The README shows real output, and its Python runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CONSOLE = re.findall(r"```console\n\$ (closeseq [^\n]*)\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {"COLUMNS": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize(("command", "shown"), CONSOLE, ids=[command for command, _ in CONSOLE])
def test_a_command_prints_what_the_readme_shows(command, shown):
    assert run(["-m", *shlex.split(command)]).stdout.rstrip() == shown.rstrip()


def test_there_are_commands_to_run():
    assert len(CONSOLE) >= 4
    assert {command.split()[1] for command, _ in CONSOLE} >= {"analyze", "timeline", "states", "explain"}


@pytest.mark.parametrize("code", PYTHON)
def test_the_python_of_the_readme_runs(code):
    assert run(["-c", code]).stdout


def test_the_two_commands_are_those_that_a_fresh_machine_runs():
    main_job, tests = SHELL
    assert "analyze captures/" in main_job
    assert tests.strip() in (ROOT / ".ci" / "run").read_text()


def test_every_path_that_the_readme_names_is_there():
    for path in re.findall(r"`((?:closeseq|captures|scripts)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path
