"""The image's recipe: what it copies is there, and is enough to install a closeseq that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from places import ROOT

RECIPE = (ROOT / "scripts" / "image" / "Containerfile").read_text()
COPIES = [line.split()[1:] for line in re.findall(r"^COPY (?!--from).*$", RECIPE, re.MULTILINE)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel made of nothing but what the recipe copies."""
    folder = tmp_path_factory.mktemp("image")
    for *sources, target in COPIES:
        into = folder / target.strip("/")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, into)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", folder, folder / "src"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("needs hatchling, and there is no package index")
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("closeseq-*.whl")
    return made


def test_the_recipe_is_made_of_what_is_there():
    assert COPIES
    assert all((ROOT / source).exists() for *sources, _ in COPIES for source in sources)
    assert re.findall(r"^FROM (\S+)", RECIPE, re.MULTILINE) == ["$BASE", "$BASE"]


def test_what_it_copies_makes_a_closeseq_that_runs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    for arguments in (
        ["live", "--help"],
        ["explain", "CLOSE_WAIT"],
        ["analyze", ROOT / "captures/refused.pcap"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "closeseq", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        assert done.stdout
    assert (tmp_path / "closeseq" / "report" / "record.schema.json").exists()
