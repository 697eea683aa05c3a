"""The command in a process of its own, without the half second that importing everything takes.

The process is forked from the tests', which has imported closeseq. All else is as if it had been started:
arguments, environment, folder, three standard streams with descriptors, exit status.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, NoReturn

from closeseq.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

for module in (
    "numpy.ma",
    "closeseq.cli.main",
    "closeseq.analysis",
    "closeseq.connections",
    "closeseq.segments",
):
    importlib.import_module(module)


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes | None, cwd: Path | None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command with these arguments and nothing but this environment, and wait for its end."""
    files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - closed below
    try:
        files[0].write(stdin or b"")
        files[0].seek(0)
        pid = os.fork()
        if not pid:
            become([file.fileno() for file in files], ["closeseq", *arguments], environment, cwd)
        _, status = os.waitpid(pid, 0)
        for file in files:
            file.seek(0)
        _, out, err = (file.read() for file in files)
        return subprocess.CompletedProcess([*arguments], os.waitstatus_to_exitcode(status), out, err)
    finally:
        for file in files:
            file.close()


def become(
    streams: Sequence[int], argv: list[str], environment: Mapping[str, str], cwd: Path | None
) -> NoReturn:
    """Be the command, in this forked process; end without what the tests would do at their end."""
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin, sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding="utf-8", errors=errors)
            for number, mode, errors in (
                (0, "rb", "strict"),
                (1, "wb", "strict"),
                (2, "wb", "backslashreplace"),
            )
        )
        sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd or ".")
        sys.argv = argv
        main()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    except BaseException:  # noqa: BLE001 - a forked process must not go on with the tests
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
