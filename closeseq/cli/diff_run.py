"""One run of `diff`: count both sides, compare, and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.cli.output import opened
from closeseq.cli.terminal import Progress, Status, complain, fault_in
from closeseq.diff import compare, tally_of
from closeseq.diff.diff_text import diff_json, diff_lines
from closeseq.errors import CaptureError

if TYPE_CHECKING:
    from closeseq.cli.requests import DiffRequest
    from closeseq.diff import Side


def run_diff(request: DiffRequest) -> Status:
    """Compare and report; return the exit status.

    Args:
        request: what is asked.
    """
    sides = (request.before, request.after)
    with opened(request.output, force=request.force, captures=sides) as output:
        counted = [_counted(name, request) for name in sides]
        before, after = counted
        if before is None or after is None:
            return Status.CAPTURE
        comparison = compare(before, after, request.chance)
        output.keep = True
        if request.form == "json":
            output.write([diff_json(comparison)])
        else:
            style = output.style(ascii_only=request.ascii)
            output.write(f"{line}\n" for line in diff_lines(comparison, style))
    return _status(before, after, failed=request.fail_on_worse and comparison.worse)


def _counted(name: str, request: DiffRequest) -> Side | None:
    """Count one side; None if nothing of it can be read, which is reported."""
    reading, progress = request.reading, Progress(name)
    try:
        return tally_of(name, reading.settings, count=reading.count, jobs=request.jobs, progress=progress)
    except CaptureError as error:
        progress.clear()
        complain(str(error))
        return None
    finally:
        progress.clear()


def _status(before: Side, after: Side, *, failed: bool) -> Status:
    """Report what was left out, and what could not be read or judged; return the exit status."""
    for notice in [*before.notices, *after.notices]:
        complain(notice)
    errors = [*before.errors, *after.errors]
    for error in errors:
        complain(str(error))
    faults = [*before.faults, *after.faults]
    for one in faults:
        complain(fault_in(one))
    if faults:
        return Status.BUG
    if errors:
        return Status.CAPTURE
    return Status.FOUND if failed else Status.DONE
