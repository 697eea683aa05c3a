"""The lab as it is used: real processes, real sockets, the real kernel, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import closeseq
from closeseq.lab.experiments import experiments
from closeseq.verdict.ending import RULES as VERDICTS
from closeseq.verdict.judgement import RULES as FINDINGS
from forked import DEVNULL, PIPE, Forked, run_code, run_forked
from machine import needs, tracing_folder
from places import ROOT
from process_tree import descendants, everyone, namespaces

COMMAND = [sys.executable, "-m", "closeseq", "lab"]
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT),
    "LC_ALL": "C.UTF-8",
}
NOBODY = 65534

as_root = needs("the lab's namespaces", "live packets", "the kernel's tracing", root=True)
with_nft = needs("nft", "nft's tables")


def lab(*arguments):
    return run_forked(["lab", *arguments], text=True, env=ENVIRONMENT, cwd="/")


# What the experiments are


def test_every_verdict_and_every_finding_comes_of_some_experiment():
    known = experiments().values()
    assert {code for one in known for code in one.verdicts} == set(VERDICTS)
    assert {code for one in known for code in one.findings} == set(FINDINGS)


def test_every_experiment_says_what_it_does_and_needs_only_what_a_package_has():
    for one in experiments().values():
        assert re.match(r"[A-Z].+[.]$", one.summary), one.name
        assert set(one.needs) <= {"nft"}


def test_they_are_listed():
    done = lab("list")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")] == list(
        experiments()
    )


def test_an_unknown_one_is_refused_and_the_nearest_named():
    done = lab("run", "leaky-servers")
    assert done.returncode == 2
    assert "did you mean 'leaky-server'?" in done.stderr


# What comes of them


@pytest.fixture(scope="module")
def everything():
    """All experiments, side by side."""
    return lab("run", "all", "--ascii")


def story(everything, name):
    """Return the story of one of them."""
    text = f"\n{everything.stdout}"
    begin = text.index(f"\n{name}: ")
    return text[begin : text.find("\n\n\n", begin)]


@as_root
@with_nft
def test_inference_and_kernel_agree_in_all_of_them(everything):
    told = [story(everything, name) for name in experiments()]
    wrong = [one for one in told if "\nWRONG: " in one or "\nInference and kernel agree" not in one]
    assert not wrong, "\n\n".join(wrong)  # alone: among all the stories nobody would find them
    assert not everything.stderr
    assert everything.returncode == 0, everything.stdout.split("\n\n")[-1]
    assert f"{len(experiments())} experiments: " in everything.stdout.split("\n\n")[-1]


@as_root
@with_nft
def test_the_story_shows_packets_and_both_ends_as_inferred_and_as_the_kernel_has_them(everything):
    told = story(everything, "server-interrupted")
    assert told.index("> Ctrl-C at the server") < told.index("> the server is restarted")
    assert re.search(r"<-+ FIN ACK --  FIN_WAIT_1 +#\d+", told)
    assert re.search(r"client +CLOSE_WAIT\?? +CLOSE_WAIT, echo-client \(pid \d+\), end of file unread", told)
    assert re.search(r"server +FIN_WAIT_2\?? +FIN_WAIT_2, no owner, [\d.]+ s left", told)
    assert "Address already in use" in told
    assert "checked: bind() without SO_REUSEADDR fails with EADDRINUSE" in told
    assert "! stuck-close-wait (client)" in told


@as_root
@with_nft
def test_what_packets_cannot_tell_is_said_plainly(everything):
    told = story(everything, "fin-behind-window")
    assert "No packet shows that the server is in FIN_WAIT_1: its FIN waits behind" in told
    assert "agree wherever packets can show it" in told


@as_root
@with_nft
def test_later_packets_put_right_what_was_told_and_connections_alike_are_told_once(everything):
    told = story(everything, "final-ack-lost")
    first = told.index("> the client closes; the final ACK is lost")
    assert re.search(r"client +CLOSED\? .*no packet shows it so far", told[first:])
    again = told.index("revised by these packets:", told.index("> the path is well again"))
    assert re.search(r"x-+ ACK -- +#11  lost", told[again:])
    assert "likewise #2 to #5" in story(everything, "leaky-server")


@as_root
def test_one_alone_tells_its_story_as_it_goes():
    with Forked(["lab", "run", "client-closes"], stdout=PIPE, text=True, env=ENVIRONMENT) as run:
        told = iter(run.stdout)
        assert next(told).startswith("client-closes: ")
        assert any("> the client has sent a line" in line for line in told)
        assert run.poll() is None
        assert any("> the client quits" in line for line in told)
        run.stdout.read()
    assert run.returncode == 0


@as_root
def test_captures_and_answers_are_kept_and_not_overwritten_unless_forced(tmp_path):
    assert lab("run", "refused", "-q", "--keep", tmp_path / "kept").returncode == 0
    capture, answers = tmp_path / "kept/refused.pcap", tmp_path / "kept/refused.kernel.jsonl"
    assert [connection.verdict for connection in closeseq.analyze(str(capture))] == ["refused"]
    assert "after" in json.loads(answers.read_text().splitlines()[0])
    again = lab("run", "refused", "-q", "--keep", tmp_path / "kept")
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert lab("run", "refused", "-q", "--keep", tmp_path / "kept", "--force").returncode == 0


WRONG = """
from dataclasses import replace
from closeseq.lab.experiments import experiments
from closeseq.lab.run import Run
from closeseq.report.text import Style
wrong = replace(experiments()["refused"], verdicts=("graceful",))
for result in Run([wrong], Style()).results():
    print(result.outcome.name, result.story)
"""


@as_root
def test_what_is_not_as_expected_is_told():
    done = run_code(WRONG, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DISAGREED")
    assert "WRONG: verdict refused, expected graceful" in done.stdout


WITHOUT_NFT = """
from closeseq.lab import network
from closeseq.lab.experiments import experiments
from closeseq.lab.run import Run
from closeseq.report.text import Style
network.EVERYWHERE = ""
for result in Run([experiments()["half-open"]], Style()).results():
    print(result.outcome.name, result.complaint)
"""


def test_a_command_that_is_missing_is_named_with_its_package():
    environment = ENVIRONMENT | {"PATH": "/nonexistent"}
    done = run_code(WITHOUT_NFT, text=True, env=environment)
    assert done.stdout == "LEFT_OUT needs nft (package nftables), not installed here\n"


@as_root
def test_whoever_has_seen_enough_ends_it_quietly():
    with Forked(["lab", "run", "slow-close"], stdout=PIPE, stderr=PIPE, env=ENVIRONMENT) as run:
        assert run.stdout.readline()
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0


# Without root


def nobodys_python():
    """Return a Python, and where its packages are, that a user without any rights can run."""
    here = str(Path(pytest.__file__).resolve().parent.parent)
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}", shutil.which("python3")):
        with contextlib.suppress(OSError):  # may not even be looked at, below /root
            tried = subprocess.run(
                [python or "false", "-c", "import numpy, click, psutil, pyroute2, closeseq"],
                **as_nobody(here),
                capture_output=True,
                check=False,
            )
            if tried.returncode == 0:
                return python, here
    return None, None


def as_nobody(packages):
    return {
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": [],
        "cwd": "/",
        "env": ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{packages}"},
    }


@as_root
@needs("unshare", "becoming another user")
def test_it_needs_no_root_where_users_may_make_namespaces():
    python, packages = nobodys_python()
    if python is None:
        pytest.skip("no Python here that the user nobody can run")
    able = subprocess.run(["unshare", "--user", "--net", "true"], **as_nobody(packages), check=False)
    if able.returncode:
        pytest.skip("this system does not let users make namespaces")
    command = [python, "-m", "closeseq", "lab", "run", "client-interrupted", "linger-zero", "refused"]
    done = subprocess.run(
        command, **as_nobody(packages), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo-client (pid" in done.stdout
    assert "only root" in done.stdout  # may have the kernel's transitions traced


@as_root
@needs("setpriv", "unshare")
def test_without_any_rights_it_says_what_is_missing_and_ends_with_status_5():
    nothing = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]
    alone = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        [*alone, forbid, "sh", *nothing, *COMMAND, "run", "refused"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("user namespaces are not to be had here, not even for root")
    assert done.returncode == 5, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "CAP_SYS_ADMIN" in done.stderr


# Nothing is left behind


def traces(pids):
    """Return everything else by which these processes could be seen from outside."""
    instances = tracing_folder().glob("instances/closeseq.*")
    of_ours = [one.name for one in instances if int(one.name.split(".")[1]) in pids]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    named = [one for one in Path("/run/netns").glob("*") if "closeseq" in one.name]
    return [*of_ours, *(line for line in tables.splitlines() if "loss" in line), *named]


@as_root
@with_nft
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing_behind(how):
    names = ["half-open", "fin-unanswered", "server-killed"]
    with Forked(["lab", "run", *names], stdout=DEVNULL, stderr=PIPE, env=ENVIRONMENT, alone=True) as run:
        try:
            until = time.monotonic() + 30
            # Each experiment has two processes and a guardian of its trace; one a server and a client too.
            while len(started := descendants(run.pid)) < 8 or len(own := namespaces(started)) < 3:
                assert time.monotonic() < until
                time.sleep(0.05)
            run.send_signal(how)
            said = run.stderr.read()
            run.wait(20)
            while left := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
                assert time.monotonic() < until, f"still there: {left}"
                time.sleep(0.05)
        finally:
            run.kill()
    assert not own & namespaces(everyone())
    assert not traces(started)
    if how is signal.SIGINT:
        assert run.returncode == 130
        assert said == b"closeseq: interrupted\n"
