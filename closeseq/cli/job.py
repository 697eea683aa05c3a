"""One run of `analyze` or `timeline`: read captures one after the other and report on each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from closeseq.analysis import Analysis
from closeseq.analysis import analyze as analyze_capture
from closeseq.cli.formats import pieces
from closeseq.cli.output import Output, opened
from closeseq.cli.progress import Progress
from closeseq.cli.status import Refusal, Status, complain, fault_in
from closeseq.errors import CaptureError
from closeseq.report.selection import Selection, Wanted
from closeseq.report.summary import nothing
from closeseq.verdict.text import count

if TYPE_CHECKING:
    from collections.abc import Iterator

GLANCE = 10_000  # connections looked at to tell which ports a capture has


@dataclass(frozen=True)
class Reading:
    """How captures are to be read and judged: the arguments of `closeseq.analyze`."""

    port: tuple[int, ...] = ()
    host: tuple[str, ...] = ()
    count: int | None = None
    stuck_after: float = 60.0
    os: str = "linux"
    time_wait: float | None = None
    fin_timeout: float | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> Reading:
        """Return what the options of READING say."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})

    @property
    def narrowed(self) -> bool:
        """Whether only some addresses or ports are asked for."""
        return bool(self.port or self.host)


def wanted(given: dict[str, Any]) -> Wanted:
    """Return what the options of CHOOSING say."""
    return Wanted(
        verdicts=frozenset().union(*given["verdict"]),
        findings=frozenset().union(*given["finding"]),
        ids=frozenset(given["connection"]),
    )


@dataclass(frozen=True)
class Request:
    """Everything that `analyze` and `timeline` are asked."""

    captures: tuple[str, ...]
    form: str
    reading: Reading = field(default_factory=Reading)
    wanted: Wanted = field(default_factory=Wanted)
    most: int | None = 20
    fail_on: frozenset[str] = frozenset()
    output: str | None = None
    force: bool = False
    ascii: bool = False

    @classmethod
    def of(cls, captures: tuple[str, ...], form: str, given: dict[str, Any]) -> Request:
        """Make a request of what click hands to a command."""
        if captures.count("-") > 1:
            raise Refusal("standard input can be read only once")
        return cls(
            captures,
            form,
            Reading.of(given),
            wanted(given),
            None if given["show_all"] else given["limit"],
            frozenset().union(*given["fail_on"]),
            given["output"],
            given["force"],
            given["ascii_only"],
        )


class Job:
    """What was asked, and what has come of it so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.found = False
        self.unread = False
        self.failed = False

    def run(self) -> Status:
        """Read and report; return the exit status."""
        request = self.request
        with opened(request.output, force=request.force, captures=request.captures) as output:
            style = output.style(ascii_only=request.ascii)
            several = len(request.captures) > 1
            selections = self.selections(output)
            output.write(pieces(request.form, selections, style, most=request.most, several=several))
        if self.failed:
            return Status.BUG
        if self.unread:
            return Status.CAPTURE
        return Status.FOUND if self.found else Status.DONE

    def selections(self, output: Output) -> Iterator[Selection]:
        """Yield what is to be shown of each capture that can be read, and complain of the others."""
        for path in self.request.captures:
            try:
                analysis = analyzed(path, self.request.reading)
            except CaptureError as error:
                complain(str(error))
                self.unread = True
                continue
            output.keep = True
            selection = Selection(analysis, self.request.wanted)
            if not len(analysis) and self.request.reading.narrowed:
                selection.instead = ports_seen(path)
            yield selection
            self.conclude(selection)

    def conclude(self, selection: Selection) -> None:
        """Take in what a capture that has been reported on means for the exit status."""
        error = selection.analysis.reading.error
        if error is not None:
            complain(str(error))
            self.unread = True
        if self.request.form != "summary":
            mention(selection)
        fail_on = self.request.fail_on
        self.found |= any(selection.verdicts.get(code) or selection.findings.get(code) for code in fail_on)
        if selection.analysis.failed:
            complain(f"{selection.analysis.path}: {fault_in(selection.analysis.faults)}")
            self.failed = True


def mention(selection: Selection) -> None:
    """Say why there is nothing to see, where the format itself has no place for it."""
    path, number = selection.analysis.path, len(selection.analysis)
    if not number:
        complain(f"{path}: {nothing(selection)}")
    elif not len(selection):
        complain(f"{path}: none of {count(number, 'connection')} with {selection.wanted}")


def analyzed(path: str, reading: Reading) -> Analysis:
    """Analyse one capture, with a progress bar if it takes long. Raises CaptureError."""
    progress = Progress(path)
    try:
        return analyze_capture(
            path,
            port=reading.port,
            host=reading.host,
            count=reading.count,
            stuck_after=reading.stuck_after,
            os=reading.os,
            time_wait=reading.time_wait,
            fin_timeout=reading.fin_timeout,
            progress=progress,
        )
    finally:
        progress.clear()


def ports_seen(path: str) -> str:
    """Return which servers a capture does have, for someone who asked for another; empty if it has none."""
    if path == "-" or not Path(path).is_file():
        return ""
    try:
        analysis = analyzed(path, Reading())
    except CaptureError:
        return ""
    ports = Counter(connection.conversation.server.port for connection in islice(analysis, GLANCE))
    named = [f"{port} ({count(number, 'connection')})" for port, number in ports.most_common(5)]
    return f"server ports seen: {', '.join(named)}" if named else ""
