"""The pytest plugin: the fixture `closes`, which watches how a test's TCP connections close.

    def test_the_server_closes(closes, server):
        fetch(server.port)
        closes.on(server.port).all_graceful()
        closes.on(server.port).none_stuck(after=2)

A test that does not ask for the fixture costs nothing: closeseq is loaded when the first one does. Without
the right to capture, a test is skipped where it first asserts something of its connections.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from closeseq.testing import CloseWatch

MARK = "closes_allow"
MARK_HELP = (
    f"{MARK}(*codes, reason=None): connections with one of these verdicts or findings are known, and not at "
    "fault; `closeseq explain` lists the codes"
)
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
MOST_NAMED = 100  # characters of a test's name in that of its capture


@dataclass
class KeptCapture:
    """The capture of a test, and whether it is to be kept."""

    path: Path
    failed: bool = False


KEPT = pytest.StashKey[KeptCapture]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("closeseq", "how TCP connections closed (fixture closes)")
    group.addoption(
        "--closes-dir",
        metavar="DIR",
        help="Keep the captures of failed tests in this folder. By default beside the file of --junitxml, or "
        "else in pytest's temporary folder.",
    )
    group.addoption(
        "--closes-keep",
        choices=("failed", "all"),
        default="failed",
        help="Of which tests to keep the captures.",
    )
    group.addoption(
        "--closes-required",
        action="store_true",
        help="Without the right to capture, fail instead of skipping: for a machine that should have it.",
    )
    parser.addini(
        "closes_interface",
        f"Where the fixture closes captures: one or more interfaces; by default {LOOPBACK}.",
        type="args",
        default=[LOOPBACK],
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARK_HELP)


@pytest.fixture
def closes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloseWatch]:
    """How the TCP connections of this test close: on loopback, from the moment the fixture is set up.

    Ask for it before the fixtures that make connections. pytest gives `request` and `tmp_path_factory`.
    """
    from closeseq.errors import CloseseqError, NotPermittedError
    from closeseq.testing.assertions import CloseWatch
    from closeseq.testing.packet_watch import LivePackets

    config, node = request.config, request.node
    path = _folder(config, tmp_path_factory) / f"{_plain(node.nodeid)}.pcapng"
    allowed = [code for mark in node.iter_markers(MARK) for code in mark.args]
    reason = ""

    def refuse() -> NoReturn:
        if config.getoption("closes_required"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    packets = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an earlier run
        try:
            packets = LivePackets(config.getini("closes_interface"), str(path))
        except NotPermittedError as error:
            reason = f"{error}; {_remedy(config)}"
        watch = CloseWatch(packets, refuse, allowed)
    except (CloseseqError, OSError) as error:
        if packets is not None:
            packets.close()
        pytest.fail(f"closes: {error}", pytrace=False)
    if packets is None:
        yield watch
        return
    kept = node.stash[KEPT] = KeptCapture(path)
    with packets:
        yield watch
        keep = kept.failed or config.getoption("closes_keep") == "all"
        packets.close(whole=keep)
    if keep:
        node.user_properties.append(("closes_capture", str(path)))
    else:
        path.unlink()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test has failed, and name its capture."""
    report = yield
    kept = item.stash.get(KEPT, None)
    if kept is not None and report.failed:
        kept.failed = True
        report.sections.append(("closeseq", f"capture: {kept.path}"))
    return report


def _folder(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """Return the folder for captures that are kept."""
    here = Path(config.invocation_params.dir)
    if folder := config.getoption("closes_dir"):
        return here / str(folder)
    if xml := config.getoption("xmlpath", None):
        return (here / Path(os.path.expandvars(xml)).expanduser()).parent
    return factory.getbasetemp() / "closes"


def _plain(nodeid: str) -> str:
    """Return a test's name as that of a file."""
    plain = re.sub(r"[^\w.-]+", "-", nodeid).strip("-.")
    if plain == nodeid and len(plain) <= MOST_NAMED:
        return plain
    return f"{plain[:MOST_NAMED]}-{hashlib.sha256(nodeid.encode(errors='replace')).hexdigest()[:8]}"


def _remedy(config: pytest.Config) -> str:
    """Return the commands that run these tests with the right to capture."""
    run = shlex.join([sys.executable, "-m", "pytest", *config.invocation_params.args])
    if sys.platform != "linux":
        return f"run the tests as root: sudo {run}"
    alone = shlex.quote(f"ip link set lo up && exec {run}")
    return (
        f"run the tests as root, or on a loopback of their own: unshare --map-root-user --net sh -c {alone}"
    )
