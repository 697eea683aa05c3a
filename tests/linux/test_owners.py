"""Who holds a socket: real processes that do."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from closeseq.linux.namespaces import coming_back, enter_of
from closeseq.linux.owner_server import LARGEST_INODE, MOST_BYTES, MOST_INODES, read_question, serve
from closeseq.linux.owner_service import OwnerService
from closeseq.linux.owners import CONTAINER, owners
from machine import needs
from places import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
as_root = needs("becoming another user", root=True)

NOBODY = 65534
USER = pwd.getpwuid(os.geteuid()).pw_name

HOLDER = """
import os, socket, sys, time
kept = socket.socket()
{before}
print(os.fstat(kept.fileno()).st_ino, flush=True)
sys.stdin.read()
"""

# Asks as somebody who may not look into another's processes, and says who it is.
ASKER = """
import os, sys
from closeseq.linux.owner_service import OwnerService
service = OwnerService()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in sys.stdin:
    found = service.owners([int(line)], 20)
    print([one.pid for one in found[int(line)]], service._process.pid, flush=True)
{after}
"""


@pytest.fixture
def service():
    with OwnerService() as running:
        yield running


@contextmanager
def running(program, *arguments):
    """Run a program until the block is left, with its input and output at hand."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def holder(before=""):
    return running(HOLDER.format(before=before))


def inode(one):
    return os.fstat(one.fileno()).st_ino


def wait_until_gone(pid, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True  # it has ended; nobody has asked how
        except FileNotFoundError:
            return True
        time.sleep(0.005)
    return False


def test_a_socket_is_its_processs():
    with holder() as process:
        number = int(process.stdout.readline())
        (found,) = owners([number])[number]
        assert (found.pid, found.user, found.namespace) == (process.pid, USER, None)
        assert found.name.startswith("python")
        assert found.command.startswith(
            f"{sys.executable} -c ?import os"
        )  # a line feed could harm a terminal
        assert len(found.command) == 80


def test_a_socket_of_two_processes_is_first_the_older_ones():
    with holder("if not os.fork():\n    time.sleep(60)\ntime.sleep(0.05)") as process:
        number = int(process.stdout.readline())
        try:
            first, second = owners([number])[number]
            assert first.pid == process.pid
            assert second.pid != process.pid
        finally:
            os.kill(second.pid, signal.SIGKILL)


def test_nobodys_socket_has_no_owner():
    with socket.socket() as ours:
        number = inode(ours)
        assert [one.pid for one in owners([number, LARGEST_INODE])[number]] == [os.getpid()]
    assert owners([number, LARGEST_INODE]) == {number: [], LARGEST_INODE: []}


def test_processes_that_come_and_go_meanwhile_are_no_error():
    with socket.socket() as ours:
        for _ in range(20):
            short = [subprocess.Popen(["/bin/true"]) for _ in range(5)]
            assert [one.pid for one in owners([inode(ours)])[inode(ours)]] == [os.getpid()]
            for one in short:
                one.wait()


@as_root
@needs("a network namespace of our own")
def test_the_namespace_of_an_owner_elsewhere_is_told():
    enter = "from closeseq.linux.namespaces import enter_new; enter_new()"
    with holder(enter) as process:
        number = int(process.stdout.readline())
        (found,) = owners([number])[number]
        assert found.namespace == Path(f"/proc/{process.pid}/ns/net").stat().st_ino


@as_root
def test_the_namespace_that_we_have_entered_is_not_told_and_the_one_we_came_from_is():
    enter = "from closeseq.linux.namespaces import enter_new; enter_new()"
    with holder(enter) as inside, holder() as outside, OwnerService() as service, coming_back():
        there, here = (int(process.stdout.readline()) for process in (inside, outside))
        home = Path("/proc/self/ns/net").stat().st_ino
        enter_of(inside.pid)
        service.moved()
        found = service.owners([there, here], 20)
        assert [one.namespace for one in found[there]] == [None]
        assert [one.namespace for one in found[here]] == [home]


@pytest.mark.parametrize(
    "group",
    [
        "0::/system.slice/docker-{id}.scope",
        "12:cpu:/docker/{id}\n0::/docker/{id}",
        "0::/kubepods.slice/kubepods-pod0f2a_3c.slice/cri-containerd-{id}.scope",
        "0::/kubepods/burstable/pod7d1c2a0e-4d5c-4bd2-9f0a-1b2c3d4e5f60/{id}",
        "0::/machine.slice/libpod-{id}.scope/container",
        "0::/../../docker-{id}.scope/init",
    ],
)
def test_a_containers_id_stands_in_its_control_group(group):
    number = "4f5c" * 16
    assert CONTAINER.findall(group.format(id=number))[-1] == number


@pytest.mark.parametrize(
    "group",
    [
        "0::/user.slice/user-1000.slice/session-2.scope",
        "0::/machine.slice/libpod-conmon-" + "4f5c" * 16 + ".scope",
        "0::/x/" + "4f5c" * 17,
    ],
)
def test_what_is_no_container_has_no_id(group):
    assert CONTAINER.findall(group) == []


def test_the_service_answers_without_being_waited_for(service):
    with socket.socket() as ours:
        service.ask([inode(ours), 0])
        found = {}
        deadline = time.monotonic() + 20
        while not found and time.monotonic() < deadline:
            found = service.answers()
            time.sleep(0.001)
        assert [one.pid for one in found[inode(ours)]] == [os.getpid()]
        assert 0 not in found
        assert service.answers() == {}


def test_the_service_takes_more_questions_than_one_line_holds(service):
    asked = range(LARGEST_INODE - 2 * MOST_INODES - 10, LARGEST_INODE)
    found = service.owners(asked, 60)
    assert found.keys() == set(asked)


def test_the_service_rests_after_each_search(service):
    service.owners([1], 20)
    before = cpu_seconds(service._process.pid)
    began = time.monotonic()
    while time.monotonic() - began < 1:
        service.owners([1], 1)
    used = cpu_seconds(service._process.pid) - before
    assert used <= 0.1 * (time.monotonic() - began)  # clock ticks of 10 ms are coarse


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@as_root
def test_the_service_keeps_the_powers_that_its_user_gives_up():
    with holder() as roots, running(ASKER.format(after="service.close()")) as asker:
        number = roots.stdout.readline()
        answer, _ = asker.communicate(number, timeout=30)
        pids, server = answer.rsplit(" ", 1)
        assert json.loads(pids) == [roots.pid]
        assert asker.returncode == 0
        assert wait_until_gone(int(server))


def fields(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@as_root
def test_the_service_keeps_two_powers_and_is_nobody(service):
    service.owners([1], 20)
    status = fields(service._process.pid)
    two = 1 << 2 | 1 << 19  # CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE: linux/capability.h
    sets = {name: int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert sets == {"CapInh": 0, "CapPrm": two, "CapEff": two, "CapBnd": 0, "CapAmb": 0}
    assert (status["Uid"], status["Gid"], status["Groups"]) == ([str(NOBODY)] * 4, [str(NOBODY)] * 4, [])
    assert status["NoNewPrivs"] == ["1"]


@as_root
def test_the_only_user_of_a_namespace_is_served_too():
    code = (
        "import os, socket\nfrom closeseq.linux.owner_service import OwnerService\n"
        "ours = socket.socket()\nnumber = os.fstat(ours.fileno()).st_ino\n"
        "with OwnerService() as service:\n"
        "    print([one.pid == os.getpid() for one in service.owners([number], 20)[number]])"
    )
    wrapper = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert (done.stdout, done.stderr) == ("[True]\n", "")


@as_root
@pytest.mark.parametrize("moment", [0.0, 0.06, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25])
def test_the_service_is_silent_whenever_its_user_is_killed(moment, tmp_path):
    """At whatever moment: while it starts, while it searches, while it answers."""
    code = (
        "import os, sys\nfrom closeseq.linux.owner_service import OwnerService\nservice = OwnerService()\n"
        "service.ask(range(1, 5000))\nprint(service._process.pid, flush=True)\nsys.stdin.read()"
    )
    heard = tmp_path / "heard"
    with heard.open("w") as errors:
        command = [sys.executable, "-c", code]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        ) as asker:
            server = int(asker.stdout.readline())
            time.sleep(moment)
            asker.kill()
    assert wait_until_gone(server)
    assert heard.read_text() == ""


def test_a_question_that_is_cut_by_the_end_of_who_asks_is_none():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"[1, 2")
        ours.shutdown(socket.SHUT_WR)
        serve(theirs)
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""


def test_a_peer_that_ends_before_its_answer_is_told_from_a_failure():
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(b"[1]\n")
        ours.close()
        with pytest.raises(ConnectionError):
            serve(theirs)


@as_root
def test_the_service_ends_with_its_user_even_if_that_is_killed():
    with holder() as roots, running(ASKER.format(after="")) as asker:
        asker.stdin.write(roots.stdout.readline())
        asker.stdin.flush()
        server = int(asker.stdout.readline().split()[-1])
        assert Path(f"/proc/{server}").exists()
        asker.kill()
        assert wait_until_gone(server)


def test_the_service_ends_with_its_user_though_a_child_of_that_has_the_connection_open():
    # It was forked and has not begun another program, so that nothing closed what it inherited.
    fork = "import time\nif not os.fork():\n    time.sleep(60)\nsys.stdin.read()"
    with running(
        "import os, sys\nfrom closeseq.linux.owner_service import OwnerService\nservice = OwnerService()\n"
        f"service.owners([1], 20)\nprint(service._process.pid, flush=True)\n{fork}"
    ) as asker:
        server = int(asker.stdout.readline())
        (child,) = children(asker.pid) - {server}
        try:
            asker.kill()
            assert wait_until_gone(server)
            assert not wait_until_gone(child, seconds=0)
        finally:
            os.kill(child, signal.SIGKILL)


def children(pid):
    deadline = time.monotonic() + 5
    found = set()
    while len(found) < 2 and time.monotonic() < deadline:
        found = {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return found


def test_the_service_does_not_hear_the_terminal(service):
    with socket.socket() as ours:
        service.owners([inode(ours)], 20)
        pid = service._process.pid
        assert os.getsid(pid) != os.getsid(0)
        os.kill(pid, signal.SIGINT)
        assert service.owners([inode(ours)], 20)[inode(ours)]


def test_a_service_that_was_killed_is_silent():
    with OwnerService() as service:
        service.owners([1], 20)
        service._process.kill()
        service._process.wait()
        began = time.monotonic()
        assert service.owners([2], 20) == {}
        service.ask(range(3, 100_000))
        assert service.answers() == {}
        assert not service.alive
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b'["1"]\n',
        b"[true]\n",
        b"[1.0]\n",
        b"[0]\n",
        b"[-1]\n",
        b"[4294967296]\n",
        b"[1, [2]]\n",
        b"[1",
        b"\xff\n",
        json.dumps([1] * (MOST_INODES + 1)).encode(),
        b" " * (MOST_BYTES + 1),
    ],
)
def test_the_server_reads_nothing_but_short_lists_of_inode_numbers(line):
    with pytest.raises(ValueError, match=r".+"):
        read_question(line)


def test_the_longest_question_fits():
    line = json.dumps([LARGEST_INODE] * MOST_INODES).encode() + b"\n"
    assert len(read_question(line)) == MOST_INODES
