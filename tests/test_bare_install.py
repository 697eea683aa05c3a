"""Where closeseq is installed without its extras, all that needs none of them works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest

from forked import run_forked
from live_namespace import ended, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from places import CAPTURES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# By which name a package is imported, where it is not its own.
IMPORTED = {
    "mkdocs-material": ("material", "mkdocs"),
    "pytest": ("pytest", "_pytest"),
    "pytest-timeout": (),
    "pytest-xdist": ("xdist",),
    "prometheus-client": ("prometheus_client",),
    "flask-cors": ("flask_cors",),
    "types-psutil": (),
    "types-tabulate": (),
}


def named(requirement):
    return re.match(r"[A-Za-z0-9_-]+", requirement)[0]


def absent():
    """Return the names under which the packages of all extras are imported."""
    packages = {named(one) for extra in PROJECT["optional-dependencies"].values() for one in extra}
    packages -= {named(one) for one in PROJECT["dependencies"]} | {"closeseq"}
    return {name for one in packages for name in IMPORTED.get(one, (one,))}


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
BARE = (
    WITHOUT
    + """
sys.path.insert(0, {root!r})
from closeseq.__main__ import main
sys.exit(main())
"""
)
# Forked from a process that has imported all of closeseq, and none of the packages of extras.
FORKED = (
    WITHOUT
    + """
assert not {absent!r} & {{name.partition(".")[0] for name in sys.modules}}
"""
)


@pytest.fixture
def bare(tmp_path):
    """Return the command as it is without extras, as a program for Python."""
    program = tmp_path / "closeseq"
    program.write_text(BARE.format(absent=absent(), root=str(ROOT)))
    return str(program)


CAPTURE = str(CAPTURES / "leaky-server.pcap")
COMMANDS = (
    *(["analyze", CAPTURE, "-f", form] for form in ("summary", "table", "timeline", "json", "jsonl", "csv")),
    *(
        ["timeline", CAPTURE, "--connection", "1", "-f", form]
        for form in ("svg", "diagram", "mermaid", "plantuml", "msc", "dot")
    ),
    ["analyze", CAPTURE, CAPTURE.replace("leaky-server", "refused"), "--each", "--jobs", "2"],
    ["report", CAPTURE, "-o", "-"],
    ["diff", CAPTURE, CAPTURE],
    ["states", CAPTURE, "--at", "+1"],
    ["explain", "stuck-close-wait"],
    ["follow", CAPTURE, "--duration", "0"],
    ["extcap", "--extcap-interfaces"],
    ["lab", "list"],
    ["--version"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: " ".join(one).replace(f"{CAPTURES}/", ""))
def test_what_needs_no_extra_works_without_one(command):
    done = run_forked(command, first=FORKED.format(absent=absent()), cwd=ROOT, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["analyze", CAPTURE, "-f", "parquet", "-o", "x"], "tables"),
        (["analyze", CAPTURE, "--cluster", "tcp://127.0.0.1:1"], "cluster"),
        (["analyze", "s3://captures/x.pcap"], "cluster"),
    ],
)
def test_what_needs_one_says_which(bare, command, extra, tmp_path):
    done = subprocess.run(
        [sys.executable, bare, *command],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode in {2, 3}
    (line,) = done.stderr.splitlines()
    assert f"closeseq[{extra}]" in line


@needs_network
def test_live_gives_up_root_without_any_of_them(bare, net):
    """Before that it imports all that it may need, which is no more than what is installed."""
    command = net.inside(sys.executable, bare, "live", "-p", "8080", "--user", "nobody", "-f", "jsonl")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr.readline().startswith("closeseq: watching")
        net.talk()
        out, complaint = ended(process)
    assert (process.returncode, complaint) == (0, "")
    assert json.loads(out)["verdict"] == "graceful"
