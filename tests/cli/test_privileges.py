"""Privileges: the command that has them, and being rid of them for good. Real users, in processes."""

import json
import os
import pwd
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import closeseq
from closeseq.cli.privileges import PrivilegeError, capability_command, drop, needed_command
from machine import needs

NOBODY = pwd.getpwnam("nobody")
needs_root = needs("becoming another user", root=True)


# The command that would be permitted


def test_the_command_runs_this_closeseq_with_the_same_arguments():
    sudo, *command = shlex.split(needed_command(["--version"]))
    assert sudo == "sudo"
    assert Path(command[0]).is_absolute()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("closeseq ")


def test_arguments_are_quoted_for_the_shell():
    arguments = ["live", "-p", "8080", "-w", "my file; rm -rf /", "host ::1 or 'x'"]
    line = needed_command(arguments)
    assert "\n" not in line
    told = subprocess.run(
        ["sh", "-c", f'sudo() {{ printf "%s\\0" "$@"; }}; {line}'], capture_output=True, text=True, check=True
    )
    assert told.stdout.split("\0")[-1 - len(arguments) : -1] == arguments


def without_script(folder):
    """Return the command that is told where no script is beside the interpreter, as under sudo."""
    python = folder / "a python"
    python.symlink_to(sys.executable)
    code = "from closeseq.cli.privileges import needed_command; print(needed_command(['--version']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=True)
    sudo, *command = shlex.split(done.stdout)
    assert sudo == "sudo"
    return python, command


def test_without_a_script_beside_it_the_interpreter_runs_the_module(tmp_path):
    python, command = without_script(tmp_path)
    assert command[-5:] == [str(python), "-P", "-m", "closeseq", "--version"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )  # sudo keeps no PYTHONPATH either
    assert done.stdout.startswith("closeseq ")


@pytest.mark.parametrize("which", ["script", "module"])
def test_no_module_of_the_current_folder_is_loaded(which, tmp_path):
    command = without_script(tmp_path)[1] if which == "module" else shlex.split(needed_command(["-V"]))[1:]
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("closeseq", "click", "json", "os", "numpy", "psutil"):
        (trap / f"{name}.py").write_text("raise SystemExit('a module of the current folder was loaded')")
    done = subprocess.run(command, cwd=trap, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("closeseq ")


def test_all_commands_that_run_a_module_keep_the_current_folder_out():
    """Also those that a person is told, wherever in the program."""
    root = Path(closeseq.__file__).parent
    words = re.compile(r"""-m["', ]+closeseq""")
    lines = [
        (path.name, line.strip())
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if words.search(line) and not line.startswith('"""')
    ]
    assert lines
    assert [(name, line) for name, line in lines if "-P" not in line] == []


@needs_root
@needs("setcap")
def test_a_copy_of_the_interpreter_may_capture_and_only_we_may_run_it(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    code = "from closeseq.cli.privileges import capability_command as c; print(c(['--version']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [tmp_path / "venv" / "bin" / "python", "-c", code]
    line = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    shell = ["sh", "-ec", f'sudo() {{ "$@"; }}; {line}']
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    if "not supported" in done.stderr:
        pytest.skip(f"no capabilities on this disk: {done.stderr.strip()}")
    assert done.stdout.startswith("closeseq ")
    copy = tmp_path / "venv" / "bin" / "closeseq-python"
    told = subprocess.run(["getcap", copy], capture_output=True, text=True, check=True)
    assert told.stdout == f"{copy} cap_net_raw=ep\n"
    assert (copy.stat().st_mode & 0o7777, copy.stat().st_uid) == (0o500, os.getuid())


def test_the_command_for_a_copy_is_one_line():
    line = capability_command(["live", "-p", "80"])
    assert "\n" not in line
    assert line.endswith("closeseq-python -P -m closeseq live -p 80")


# Dropping

DROP = """
import json, os, sys
from pathlib import Path
from closeseq.cli.privileges import PrivilegeError, drop
{before}
try:
    who = drop({user!r}, no_drop={no_drop})
    told = who and [who.uid, who.gid, who.name, who.home]
except PrivilegeError as error:
    told = str(error)
tasks = [task.read_text() for task in Path("/proc/self/task").glob("*/status")]
capabilities = [
    task.partition(f"Cap{{kind}}:\\t")[2].partition("\\n")[0] for task in tasks for kind in ("Eff", "Prm")
]
print(json.dumps({{
    "told": told, "uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()),
    "threads": len(tasks), "capable": any(int(mask, 16) for mask in capabilities),
    "environment": {{name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")}},
}}))
{after}
"""
SUDO = ("SUDO_UID", "SUDO_GID", "SUDO_USER")


def dropped(user=None, *, no_drop=False, before="", after="", wrapper=(), **environment):
    """Start as root, as after sudo, drop, and return what became of it."""
    given = {name: value for name, value in os.environ.items() if name not in SUDO} | environment
    script = DROP.format(user=user, no_drop=no_drop, before=before, after=after)
    command = [*wrapper, sys.executable, "-c", script]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def by_sudo(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, user="nobody"):
    return {"SUDO_UID": str(uid), "SUDO_GID": str(gid), "SUDO_USER": user}


def stayed(result):
    return (result["told"], result["uids"], result["capable"]) == (None, [0, 0, 0], True)


@needs_root
def test_after_sudo_we_become_who_called_it_with_nothing_left():
    before = "import threading, time; os.setgroups([0, 1, 4])\n"
    before += "threading.Thread(target=time.sleep, args=[0.3]).start()"
    result = dropped(**by_sudo(), XDG_CACHE_HOME="/root/.cache", before=before)
    assert result["told"] == [NOBODY.pw_uid, NOBODY.pw_gid, "nobody", NOBODY.pw_dir]
    assert result["uids"] == [NOBODY.pw_uid] * 3
    assert result["gids"] == [NOBODY.pw_gid] * 3
    assert result["groups"] == sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert (result["threads"], result["capable"]) == (2, False)
    assert result["environment"] == {
        "HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody", "XDG_CACHE_HOME": None
    }  # fmt: skip


@needs_root
@pytest.mark.parametrize("user", ["daemon", str(pwd.getpwnam("daemon").pw_uid)])
def test_a_user_that_is_named_comes_before_who_called_sudo(user):
    daemon = pwd.getpwnam("daemon")
    result = dropped(user, **by_sudo())
    assert result["told"] == [daemon.pw_uid, daemon.pw_gid, "daemon", daemon.pw_dir]
    assert result["uids"] == [daemon.pw_uid] * 3


@needs_root
def test_a_user_without_a_name_is_a_user_too():
    result = dropped(**by_sudo(4_000_000_000, 4_000_000_001, "stranger"), before="os.setgroups([0, 1, 4])")
    assert result["told"] == [4_000_000_000, 4_000_000_001, None, "/nonexistent"]
    assert (result["uids"], result["groups"]) == ([4_000_000_000] * 3, [4_000_000_001])
    assert result["environment"]["USER"] == "4000000000"


@needs_root
def test_a_name_that_belongs_to_another_number_is_not_believed():
    assert dropped(**by_sudo(user="root"))["told"] == [NOBODY.pw_uid, NOBODY.pw_gid, "nobody", NOBODY.pw_dir]


@needs_root
@pytest.mark.parametrize("variable", ["SUDO_UID", "SUDO_GID"])
@pytest.mark.parametrize("value", ["", "-1", "nobody", "1.0", "4294967295", "9" * 5000, "\u0661"])
def test_a_number_that_is_none_is_refused(variable, value):
    result = dropped(**{**by_sudo(), variable: value})
    assert result["told"].startswith(f"{variable} is {value!r}, which is no user's")
    assert "\n" not in result["told"]
    assert result["uids"] == [0, 0, 0]


@needs_root
def test_root_stays_root_where_there_is_nobody_to_become():
    assert stayed(dropped())
    assert stayed(dropped(**by_sudo(0, 0, "root")))
    assert stayed(dropped("root"))


@needs_root
def test_root_stays_root_where_it_is_asked_to():
    assert stayed(dropped(no_drop=True, **by_sudo()))


@needs_root
def test_the_only_user_of_a_namespace_stays_as_it_is():
    wrapper = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    assert stayed(dropped(wrapper=wrapper, **by_sudo()))
    assert dropped("nobody", wrapper=wrapper)["told"].startswith("this user namespace has no other user")


@needs_root
def test_a_way_back_to_root_is_noticed():
    keep = "import ctypes; ctypes.CDLL(None).prctl(28, 0b101111, 0, 0, 0)"  # PR_SET_SECUREBITS: keep all
    result = dropped(before=keep, **by_sudo())
    assert result["told"] == "becoming user nobody failed: the way back to root is still open"


@needs_root
@needs("unshare", "ip", "live packets")
def test_a_capture_that_was_opened_before_goes_on_and_files_belong_to_the_user(tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o711)
    before = (
        "import socket, subprocess\n"
        "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
        "packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
        "packets.settimeout(5)\n"
    )
    after = (
        "try:\n    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)\n"
        "except PermissionError:\n    pass\nelse:\n    raise SystemExit('still privileged')\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'here', ('127.0.0.1', 9))\n"
        "assert b'here' in packets.recv(1000)\n"
        f"Path({str(tmp_path / 'file')!r}).write_text('saved')\n"
    )
    dropped(before=before, after=after, wrapper=["unshare", "--net"], **by_sudo())
    assert (tmp_path / "file").stat().st_uid == NOBODY.pw_uid


@needs_root
@pytest.mark.parametrize("user", ["no-such-user", "", "4000000000", "9" * 5000, "nobody\0"])
def test_a_user_who_is_not_there_is_refused(user):
    with pytest.raises(PrivilegeError, match="there is no user"):
        drop(user)


def test_two_wishes_that_exclude_each_other_are_refused():
    with pytest.raises(PrivilegeError, match="exclude each other"):
        drop("nobody", no_drop=True)


@needs_root
def test_who_is_not_root_has_nothing_to_drop():
    before = "os.setresuid(65534, 65534, 65534)"
    assert dropped(before=before, **by_sudo(1, 1, "daemon"))["told"] is None
    assert dropped("daemon", before=before)["told"] == "only root can become another user; leave out --user"
