"""What this machine lets a test do, found out by doing what closeseq itself does there.

Root in a container may make no namespaces, and a kernel may lack the filter that loses packets: who one is
tells little. Each thing is tried once, in a process of its own, and what that process was told is the
reason for which a test is skipped.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest

from forked import run_code

EVERYWHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
PACKAGES = {
    "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "setcap": "libcap2-bin",
    "setpriv": "util-linux", "tcpdump": "tcpdump", "unshare": "util-linux",
}  # fmt: skip

TRIES = {
    "a network namespace of our own": """
from closeseq.linux.namespaces import enter_new
enter_new()
""",
    "the lab's namespaces": """
from closeseq.lab.network import enter
enter(processes=True)
""",
    "the kernel's tracing": """
from closeseq.linux.tracepoint import Tracepoint
Tracepoint().close()
""",
    "live packets": """
from closeseq.capture.live import open_live
from closeseq.linux.namespaces import enter_new
enter_new()
open_live(["lo"]).close()
""",
    "packets of loopback": """
from closeseq.capture.live import open_live
open_live(["lo"]).close()
""",
    "nft's tables": """
import subprocess
from closeseq.linux.namespaces import enter_new
enter_new()
done = subprocess.run(["nft", "add table inet tried"], capture_output=True, text=True)
if done.returncode:
    raise OSError(done.stderr.strip())
""",
    "becoming another user": """
import os
os.setgroups([]), os.setgid(65534), os.setuid(65534)
""",
    "mounts of our own": """
import subprocess
mount = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /tmp"]
done = subprocess.run(mount, capture_output=True, text=True)
if done.returncode:
    raise OSError(done.stderr.strip())
""",
}


@functools.cache
def why_not(thing: str) -> str:
    """Return why this machine does not let us have a thing of `TRIES`; empty if it does."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    done = run_code(TRIES[thing], env=os.environ | {"PATH": EVERYWHERE}, text=True)
    if done.returncode == 0:
        return ""
    _, _, reason = done.stderr.strip().splitlines()[-1].partition(": ")
    return reason or "nobody says why"


@functools.cache
def tracing_folder() -> Path:
    """Return the folder of tracefs, which need not be mounted anywhere: as the tracepoint finds it."""
    from closeseq.linux.tracing import open_tracefs

    return Path(f"/proc/self/fd/{open_tracefs()}")


def needs(*things: str, root: bool = False) -> pytest.MarkDecorator:
    """Return a mark that skips a test unless it can have all of these: things of `TRIES`, or commands.

    Args:
        things: what it needs.
        root: it also needs to be root, whatever others may do.
    """
    missing = ["needs to be root"] if root and os.geteuid() != 0 else []
    for thing in things if not missing else ():
        if thing not in TRIES:
            if not shutil.which(thing, path=EVERYWHERE):
                missing.append(f"needs {thing} (package {PACKAGES[thing]}), not installed here")
        elif not missing and (reason := why_not(thing)):
            missing.append(f"needs {thing}: {reason}")
    return pytest.mark.skipif(bool(missing), reason="; ".join(missing) or "everything is there")
