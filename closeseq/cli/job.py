"""One run of `analyze` or `timeline`: read captures one after the other and report on each.

A capture is a chain of files that continue each other, often of one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from closeseq.analysis import Analysis, analyze_chain, settings_of
from closeseq.capture.chains import Chain, find_chains
from closeseq.capture.names import files_named
from closeseq.cli.formats import pieces
from closeseq.cli.output import Output, opened
from closeseq.cli.progress import Progress
from closeseq.cli.status import Refusal, Status, complain, fault_in
from closeseq.errors import CaptureError
from closeseq.report.selection import Selection, Wanted
from closeseq.report.summary import nothing, remarks_on_files
from closeseq.verdict.text import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from closeseq.capture.names import Named

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
    each: bool = False
    jobs: int | None = None  # processes; None for as many as there are processors, if it is worth while

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
            given["each"],
            given["jobs"],
        )


class Job:
    """What was asked, and what has come of it so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.found = False
        self.unread = False
        self.failed = False
        self.broken: list[str] = []  # what could not be read at all: a line each

    def run(self) -> Status:
        """Read and report; return the exit status."""
        request = self.request
        if request.output is not None and Path(request.output).is_dir():
            raise Refusal(f"{request.output} is a directory; name a file in it")
        named = meant(request.captures)
        with opened(request.output, force=request.force, captures=named.paths) as output:
            style = output.style(ascii_only=request.ascii)
            chains = self.chains(named)
            selections = self.selections(chains, output)
            output.write(pieces(request.form, selections, style, most=request.most, several=named.several))
        return self.status

    @property
    def status(self) -> Status:
        """The exit status that what has come of it so far makes."""
        if self.failed:
            return Status.BUG
        if self.unread:
            return Status.CAPTURE
        return Status.FOUND if self.found else Status.DONE

    def chains(self, named: Named) -> list[Chain]:
        """Return which files are to be analysed together, and complain of those that cannot be read."""
        if self.request.each:
            found, broken = [Chain((path,)) for path in named.paths], named.broken
        else:
            found, unread = find_chains(named.paths)
            broken = named.broken + unread
        for error in broken:
            complain(str(error))
            self.broken.append(str(error))
            self.unread = True
        return found

    def selections(self, chains: Iterable[Chain], output: Output) -> Iterator[Selection]:
        """Yield what is to be shown of each capture that can be read, and complain of the others."""
        for chain in chains:
            try:
                analysis = analyzed(chain, self.request.reading, self.request.jobs)
            except CaptureError as error:
                complain(str(error))
                self.unread = True
                continue
            output.keep = True
            selection = Selection(analysis, self.request.wanted)
            if not len(analysis) and self.request.reading.narrowed:
                selection.instead = ports_seen(chain)
            yield selection
            self.conclude(selection)

    def conclude(self, selection: Selection) -> None:
        """Take in what a capture that has been reported on means for the exit status."""
        for error in selection.analysis.reading.files.errors():
            complain(str(error))
            self.unread = True
        if self.request.form != "summary":
            mention(selection)
        fail_on = self.request.fail_on
        self.found |= any(selection.verdicts.get(code) or selection.findings.get(code) for code in fail_on)
        if selection.analysis.failed:
            complain(f"{selection.analysis.path}: {fault_in(selection.analysis.faults)}")
            self.failed = True


def meant(captures: Iterable[str]) -> Named:
    """Return the files that are meant by what was named, and say what was left out."""
    named = files_named(captures)
    for notice in named.notices:
        complain(notice)
    return named


def mention(selection: Selection) -> None:
    """Say of the files, and why there is nothing to see, where the format itself has no place for it."""
    path, number = selection.analysis.path, len(selection.analysis)
    for remark in remarks_on_files(selection.analysis.reading):
        complain(f"{path}: {remark}")
    if not number:
        complain(f"{path}: {nothing(selection)}")
    elif not len(selection):
        complain(f"{path}: none of {count(number, 'connection')} with {selection.wanted}")


def analyzed(chain: Chain, reading: Reading, jobs: int | None = 1) -> Analysis:
    """Analyse one capture, with a progress bar if it takes long. Raises CaptureError."""
    progress = Progress(chain.paths[0])
    settings = settings_of(
        port=reading.port,
        host=reading.host,
        stuck_after=reading.stuck_after,
        os=reading.os,
        time_wait=reading.time_wait,
        fin_timeout=reading.fin_timeout,
    )
    try:
        return analyze_chain(chain, settings, count=reading.count, progress=progress, jobs=jobs)
    finally:
        progress.clear()


def ports_seen(chain: Chain) -> str:
    """Return which servers a capture does have, for someone who asked for another; empty if it has none."""
    if not all(path != "-" and Path(path).is_file() for path in chain.paths):
        return ""
    try:
        analysis = analyzed(chain, Reading())
    except CaptureError:
        return ""
    ports = Counter(connection.conversation.server.port for connection in islice(analysis, GLANCE))
    named = [f"{port} ({count(number, 'connection')})" for port, number in ports.most_common(5)]
    return f"server ports seen: {', '.join(named)}" if named else ""
