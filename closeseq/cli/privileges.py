"""Capturing needs privileges: how to get them, and how to be rid of them as soon as it has begun."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from closeseq.errors import CloseseqError

ROOT = 0
COPY = "closeseq-python"  # an interpreter beside this one, that may capture
HIGHEST_ID = 2**32 - 2  # the next one, -1, means "leave it as it is" to the system
HOME_OF_NOBODY = "/nonexistent"
# Where programs keep things for a user; those of root are not for whom we become.
FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


class PrivilegeError(CloseseqError):
    """We cannot become the user that we are to become."""


def needed_command(arguments: list[str]) -> str:
    """Return the command that runs this very closeseq with these arguments as root."""
    return shlex.join(["sudo", *_program(), *arguments])


def capability_command(arguments: list[str]) -> str:
    """Return the command that lets this user alone capture without root, and runs closeseq so.

    It makes a copy of the interpreter for that, beside it, so that it finds the same packages: whoever may
    run an interpreter that may capture can capture with any program.
    """
    real, copy = os.path.realpath(sys.executable), str(Path(sys.executable).with_name(COPY))
    install = ["sudo", "install", "-m", "500", "-o", str(os.getuid()), real, copy]
    permit = ["sudo", "setcap", "cap_net_raw=ep", copy]
    run = [*_with_path(), copy, "-P", "-m", "closeseq", *arguments]
    return " && ".join(shlex.join(command) for command in (install, permit, run))


def interpreter_command() -> list[str]:
    """Return what runs this closeseq by an interpreter, by the copy that may capture if there is one."""
    copy = Path(sys.executable).with_name(COPY)
    python = str(copy) if os.access(copy, os.X_OK) else sys.executable or "python3"
    return [*_with_path(), python, "-P", "-m", "closeseq"]


def _program() -> list[str]:
    """Return what runs this closeseq, and loads nothing from the current folder, which may be anybody's.

    A script's own folder comes first instead; with -m only the option -P keeps the current one out.
    """
    python = Path(sys.executable or "python3")
    script = python.with_name("closeseq")
    if os.access(script, os.X_OK):
        return [str(script)]
    return [*_with_path(), str(python), "-P", "-m", "closeseq"]


def _with_path() -> list[str]:
    """Return what comes before the interpreter where it does not find closeseq by itself, as sudo runs it."""
    alone = [sys.executable or "python3", "-P", "-E", "-s", "-c", "import closeseq"]
    with contextlib.suppress(OSError):
        if not subprocess.run(alone, cwd="/", capture_output=True, check=False).returncode:  # noqa: S603
            return []
    homes = (find_spec(name) for name in ("closeseq", "click"))  # the others lie beside these
    path = dict.fromkeys(str(Path(home.origin).parent.parent) for home in homes if home and home.origin)
    return ["env", f"PYTHONPATH={os.pathsep.join(path)}"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become."""

    uid: int
    gid: int
    name: str | None  # None if the system knows no name for the uid
    home: str  # folder


def drop(user: str | None, *, no_drop: bool = False) -> Identity | None:
    """Become the user who asked for root's help. To be called as soon as the capture is open.

    That is the user who called sudo, or the one given. Root itself, without sudo, stays root unless a
    user is given: there is nobody whose files these would be. (tcpdump becomes a user of its own then,
    who can write its files hardly anywhere.)

    Args:
        user: the name or number of the user to become.
        no_drop: stay what we are.

    Returns:
        Who we are now, or None if nothing has changed.

    Raises:
        PrivilegeError: there is no such user, or we cannot become that user.
    """
    if no_drop:
        if user is not None:
            raise PrivilegeError("--user and --no-drop exclude each other")
        return None
    if not hasattr(os, "geteuid") or os.geteuid() != ROOT:
        if user is not None:
            raise PrivilegeError("only root can become another user; leave out --user")
        return None
    identity = _named(user) if user is not None else _caller()
    if identity is None or identity.uid == ROOT:
        return None
    if _alone():
        if user is not None:
            raise PrivilegeError("this user namespace has no other user; leave out --user")
        return None
    _become(identity)
    return identity


def _named(user: str) -> Identity:
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, ValueError, OverflowError):
        raise PrivilegeError(f"there is no user {user}") from None
    return Identity(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


def _caller() -> Identity | None:
    """Return who called sudo, or None if nobody did."""
    import pwd

    if "SUDO_UID" not in os.environ:
        return None
    uid, gid = _identifier("SUDO_UID"), _identifier("SUDO_GID")
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid, gid, None, HOME_OF_NOBODY)
    # Several names may share a number, and their groups differ.
    name = os.environ.get("SUDO_USER", entry.pw_name)
    try:
        named = pwd.getpwnam(name)
    except KeyError:
        named = entry
    entry = named if named.pw_uid == uid else entry
    return Identity(uid, gid, entry.pw_name, entry.pw_dir)


def _identifier(variable: str) -> int:
    text = os.environ.get(variable, "")
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(HIGHEST_ID))
    if not digits or int(text) > HIGHEST_ID:
        raise PrivilegeError(
            f"{variable} is {text!r}, which is no user's; say --user NAME, or --no-drop to stay root"
        )
    return int(text)


def _alone() -> bool:
    """Return whether this user namespace has one user only, as `unshare --user` makes them.

    Root there is an ordinary user outside, who is who to become anyway.
    """
    try:
        ranges = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return False
    return sum(int(line.split()[2]) for line in ranges) == 1


def _become(identity: Identity) -> None:
    uid, gid = identity.uid, identity.gid
    try:
        if identity.name is None:
            os.setgroups([gid])
        else:
            os.initgroups(identity.name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except (OSError, OverflowError) as error:
        raise PrivilegeError(f"becoming user {identity.name or uid} failed: {error}") from error
    if not _for_good(identity):
        raise PrivilegeError(
            f"becoming user {identity.name or uid} failed: the way back to root is still open"
        )
    for folder in FOLDERS:
        os.environ.pop(folder, None)
    os.environ["HOME"] = identity.home
    os.environ["USER"] = os.environ["LOGNAME"] = identity.name or str(uid)


def _for_good(identity: Identity) -> bool:
    """Return whether we are that user and nobody else, and cannot become root again."""
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        return False
    ways = [(os.setresuid, (-1, ROOT, -1)), (os.setresuid, (ROOT, ROOT, ROOT))]
    if identity.gid != ROOT:
        ways.append((os.setresgid, (ROOT, ROOT, ROOT)))
    for way, ids in ways:
        try:
            way(*ids)
        except PermissionError:
            continue
        return False
    return True
