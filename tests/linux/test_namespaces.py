"""Other network namespaces: entered for real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from closeseq.linux.namespaces import NamespaceError, coming_back, enter_named, enter_new, enter_of
from machine import needs
from places import ROOT

OURS = Path("/proc/thread-self/ns/net")

pytestmark = needs("a network namespace of our own", root=True)

# `ip netns` names namespaces by files under /run, which a test must not leave behind: in mounts of its own.
NAMED = """
mount --make-rprivate / && mount -t tmpfs none /run && ip netns add blue && ip netns add green && {command}
"""


def interfaces():
    return [
        line.split(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().split("\n")[2:-1]
    ]


def python(program):
    return f'"{sys.executable}" -c "{program}"'


def run(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_network_has_loopback_only_and_the_way_back_leads_back():
    before = OURS.stat().st_ino
    with coming_back():
        enter_new()
        assert OURS.stat().st_ino != before
        assert interfaces() == ["lo"]
        assert "inet 127.0.0.1/8" in run(["ip", "address", "show", "dev", "lo", "up"])
    assert OURS.stat().st_ino == before


def test_the_way_back_is_taken_from_an_error_too():
    before = OURS.stat().st_ino
    way = coming_back()
    way.__enter__()
    enter_new()
    with pytest.raises(ZeroDivisionError):
        way.gen.throw(ZeroDivisionError())
    assert OURS.stat().st_ino == before


def test_a_processs_network_can_be_entered():
    program = (
        "import sys; from closeseq.linux.namespaces import enter_new; enter_new(); print(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        other.stdout.readline()
        theirs = Path(f"/proc/{other.pid}/ns/net").stat().st_ino
        with coming_back():
            enter_of(other.pid)
            assert OURS.stat().st_ino == theirs
        other.stdin.close()


def test_a_named_network_can_be_entered():
    program = (
        "from closeseq.linux.namespaces import enter_named; import os; enter_named('green'); "
        "print(os.stat('/proc/self/ns/net').st_ino == os.stat('/run/netns/green').st_ino)"
    )
    assert run(["unshare", "-m", "sh", "-c", NAMED.format(command=python(program))]) == "True\n"


def test_a_name_that_does_not_exist_is_answered_with_those_that_do():
    program = (
        "from closeseq.linux.namespaces import enter_named, NamespaceError\n"
        "try:\n    enter_named('red')\nexcept NamespaceError as error:\n    print(error)"
    )
    said = run(["unshare", "-m", "sh", "-c", NAMED.format(command=python(program))])
    assert said == "no network namespace 'red'; there are: blue, green\n"


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "a\0b", "a\x1b[2J/"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(NamespaceError, match=r"cannot be the name of a network namespace") as refused:
        enter_named(name)
    assert str(refused.value).isprintable()


def test_a_file_that_is_no_namespace_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("closeseq.linux.namespaces.NAMED", tmp_path)
    (tmp_path / "blue").touch()
    with pytest.raises(NamespaceError, match=r"blue is no network namespace"):
        enter_named("blue")


@pytest.mark.parametrize("pid", [0, -1, 2**31])
def test_a_process_that_does_not_exist_is_refused(pid):
    with pytest.raises(NamespaceError, match=rf"no process {pid}, or it has ended"):
        enter_of(pid)


def test_who_is_not_permitted_is_told_so():
    program = """
import os
from closeseq.linux.namespaces import NamespaceError, coming_back, enter_new, enter_of
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for attempt in (enter_new, lambda: enter_of(1)):
    try:
        attempt()
    except NamespaceError as error:
        print(error)
"""
    assert run([sys.executable, "-c", program]).splitlines() == [
        "a network namespace of our own: permitted to root (CAP_SYS_ADMIN) only",
        "network namespace of process 1: permitted to root (CAP_SYS_ADMIN) only",
    ]
