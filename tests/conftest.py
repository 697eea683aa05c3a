"""How tests are run.

Properties try the same examples in every run, so that a failure is one for everybody.
`HYPOTHESIS_PROFILE=explore` tries thirty times as many, and others each time: for looking, not for CI;
`quick` tries a tenth, for a first look. There is no deadline in any of them, because speed is no matter of
tests on shared machines.

closeseq contains its own faults: they cost what is said of one connection. Here each of them fails its test,
but for the tests that plant one.

With pytest-xdist (`pytest -n 4`) tests run in several processes, in any order, except those that share what
the machine has only once: they stay in one process, in their order, and begin first, since they take longest.
They go before all other processes, where that is permitted, to see their packets in time. Others that take
long follow, so that none is left alone at the end.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import PurePath

import pytest
from hypothesis import settings

from closeseq.connection import Connection
from closeseq.verdict.fault import Faults
from forked import urgent

# Containers forbid to keep compiled files. Each of some hundred processes would then compile all of closeseq,
# and each process of pytest all tests, which takes more time than the tests themselves.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("quick", max_examples=10, derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell lets its background jobs ignore Ctrl-C, and so would every program that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules and tests that trace the kernel, which sees every socket of the machine, or drive the lab's
# experiments, which keep its processors busy and must see their own packets in time.
ONE_BY_ONE = (
    *("test_live_lab", "test_lab", "test_verify_against_kernel"),
    *("test_tracepoint", "test_reset_trace", "test_kernel_resets"),
    "test_the_experiment_of_the_readme_tells_the_same_story",
)

# Modules of which all tests share something that takes long to make, or that start many processes: each stays
# in one process, and begins before the others, those that take longest first.
TOGETHER = (
    *("test_cluster", "test_jobs", "test_metrics_live", "test_shards", "test_parts", "test_parquet"),
    *("test_docs", "test_benchmark", "test_chains_as_one_capture", "test_in_wireshark"),
    *("test_page_in_browser", "test_diff", "test_follow", "test_architecture"),
)

# Modules with tests that take or wait for seconds: they begin next, so that only short ones are left at last.
LONG = (
    *("test_live", "test_readme", "test_pytest_plugin", "test_image", "test_classes", "test_extcap"),
    *("test_rotation", "test_monitor", "test_fuzz_live", "test_installation", "test_tutorial"),
    *("test_attacks", "test_reference", "test_no_contradictions", "test_captures", "test_terminal"),
    *("test_devices", "test_path", "test_faults", "test_compression", "test_changing", "test_census"),
)

WITH_FAULTS = ("test_faults", "test_table_faults")


def module(nodeid):
    return PurePath(nodeid.partition("::")[0]).stem


def one_by_one(nodeid):
    function = nodeid.partition("[")[0].rpartition("::")[2]
    return module(nodeid) in ONE_BY_ONE or function in ONE_BY_ONE


def turn(nodeid):
    """Return what tests are sorted by; those with the same stay in their order."""
    if one_by_one(nodeid):
        return (0,)
    name = module(nodeid)
    return (1, TOGETHER.index(name)) if name in TOGETHER else (2 if name in LONG else 3,)


def pytest_collection_finish():
    """Have the garbage collector leave the thousands of tests alone, and come seldom, as in the command."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: turn(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    if not one_by_one(item.nodeid):
        return (yield)
    with urgent():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if module(item.nodeid) in WITH_FAULTS:
        return (yield)
    met, note, merge = [], Connection._note, Faults.merge

    def noting(connection, fault):
        met.append(fault)
        note(connection, fault)

    def merging(faults, others):
        met.extend(AssertionError(f"in a worker: {one}") for one in others.named)
        merge(faults, others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Connection, "_note", noting)
        patched.setattr(Faults, "merge", merging)
        result = yield
    if met:
        raise AssertionError("a fault in closeseq, contained") from met[0]
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        # The mark `xdist_group` does the same, but needs a private name of pytest that 9.2 no longer has.
        def _split_scope(self, nodeid):
            name = module(nodeid)
            if one_by_one(nodeid):
                return "one by one"
            return name if name in TOGETHER else nodeid

    return Scheduling(config, log)
