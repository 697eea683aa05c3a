"""How many processors this process may use."""

from __future__ import annotations

import os

import pytest

from closeseq.workers.processors import processors, quota

# What systems say: of each file its path and its text, and how many processors' time that is.
GROUPS = {
    "version 2": ({"self": "0::/user.slice/job\n", "user.slice/job/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, a group above": (
        {
            "self": "0::/kubepods/pod1/app\n",
            "kubepods/pod1/cpu.max": "50000 100000\n",
            "kubepods/pod1/app/cpu.max": "max 100000\n",
        },
        0.5,
    ),
    "version 2, in a container": ({"self": "0::/\n", "cpu.max": "300000 100000\n"}, 3),
    "version 2, a path outside of the container": (
        {"self": "0::/../other\n", "cpu.max": "100000 100000\n"},
        1,
    ),
    "version 2, no quota": ({"self": "0::/job\n", "job/cpu.max": "max 100000\n"}, None),
    "version 1": (
        {
            "self": "12:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n",
            "cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        },
        2.5,
    ),
    "version 1, no quota": (
        {
            "self": "4:cpu,cpuacct:/\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "none": ({}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_control_group_gives_a_share(name, tmp_path):
    files, expected = GROUPS[name]
    for path, text in files.items():
        target = tmp_path / ("proc/self/cgroup" if path == "self" else f"sys/fs/cgroup/{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    there = len(os.sched_getaffinity(0))
    if expected is None:
        assert quota(tmp_path) > 1000
        assert processors(tmp_path) == there
    else:
        assert quota(tmp_path) == expected
        assert processors(tmp_path) == min(there, -(-expected // 1))


def test_affinity_counts():
    all_of_them = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(all_of_them)})
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, all_of_them)
