"""Where Wireshark keeps what belongs to its user: colours and buttons, Lua plugins, extcap programs.

An installed Wireshark is asked (`tshark -G folders`), for this has changed from version to version. Where
none is found, the places are those of the present version's manual.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAMS = ("tshark", "wireshark")  # either can be asked
PATIENCE = 30.0  # seconds
FOLDER = re.compile(r"^([\w ]+):\s+(/.*)$", re.MULTILINE)
LUA = re.compile(r"\bwith\s+Lua\b")


@dataclass(frozen=True, slots=True)
class Folders:
    """A user's folders, which need not be there yet."""

    personal: Path  # configuration: colours, buttons, profiles
    plugins: Path  # in Lua
    extcap: Path  # programs that capture for Wireshark
    common: Path | None = None  # configuration that comes with Wireshark; None if no Wireshark is found
    lua: bool = True  # whether this Wireshark runs plugins in Lua

    def profile(self, name: str | None) -> Path:
        """Return the folder of a profile; of the default one without a name."""
        return self.personal if name is None else self.personal / "profiles" / name

    def profiles(self) -> list[Path]:
        """Return the folders of all profiles that are there, the default one first."""
        try:
            others = sorted(one for one in (self.personal / "profiles").iterdir() if one.is_dir())
        except OSError:
            others = []
        return [self.personal, *others]


def find_folders(environment: Mapping[str, str] | None = None) -> Folders:
    """Return the folders of this user.

    Args:
        environment: the environment's variables; by default those of this process.
    """
    environment = os.environ if environment is None else environment
    by_manual = _by_manual(environment)
    program = next(filter(None, (shutil.which(one, path=environment.get("PATH")) for one in PROGRAMS)), None)
    if program is None:
        return by_manual
    told = dict(FOLDER.findall(_asked(program, environment, "-G", "folders")))
    if "Personal configuration" not in told:
        return by_manual
    personal = Path(told["Personal configuration"])
    extcap = told.get("Personal Extcap path")  # before version 4.2 it was not listed, and was this one
    common = told.get("Global configuration")
    return Folders(
        personal,
        Path(told.get("Personal Lua Plugins", by_manual.plugins)),
        Path(extcap) if extcap else personal / "extcap",
        Path(common) if common else None,
        lua=LUA.search(_asked(program, environment, "--version")) is not None,
    )


def _by_manual(environment: Mapping[str, str]) -> Folders:
    """Return the folders of Wireshark 4.2 and later, as its manual has them."""
    home = Path(environment.get("HOME") or Path.home())
    library = home / ".local" / "lib" / "wireshark"
    personal = Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "wireshark"
    old = home / ".wireshark"
    if environment.get("WIRESHARK_CONFIG_DIR"):
        personal = Path(environment["WIRESHARK_CONFIG_DIR"])
    elif not personal.is_dir() and old.is_dir():
        personal = old
    return Folders(personal, library / "plugins", library / "extcap")


def _asked(program: str, environment: Mapping[str, str], *arguments: str) -> str:
    """Return what Wireshark prints; nothing if it cannot be asked."""
    try:
        done = subprocess.run(  # noqa: S603 - a program that is in the user's PATH
            [program, *arguments],
            env={**environment, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
