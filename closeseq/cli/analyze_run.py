"""The six formats of a report: pieces of text for one capture after the other.

One run of `analyze` or `timeline`: read captures one after the other and report on each.

A capture is a chain of files that continue each other, often of one.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from closeseq.analysis import Analysis, analyze_chain
from closeseq.capture.chains import Chain, find_chains
from closeseq.capture.names import files_named
from closeseq.cli.output import Output, opened
from closeseq.cli.terminal import Progress, Refusal, Status, complain, fault_in
from closeseq.errors import CaptureError
from closeseq.report.containment import bare_lines, contained
from closeseq.report.records import SCHEMA, csv_header, csv_lines, json_object, jsonl
from closeseq.report.selection import Selection, Wanted
from closeseq.report.summary import nothing, remarks_on_files, summary, title
from closeseq.report.table import table
from closeseq.report.timeline_text import format_timeline
from closeseq.settings import settings_of
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.capture.names import NamedFiles
    from closeseq.connection import Connection
    from closeseq.report.text import Style


def pieces(
    form: str, selections: Iterable[Selection], style: Style, *, most: int | None, several: bool
) -> Iterator[str]:
    """Yield the report on captures in one of options.FORMATS.

    Args:
        form: the format.
        selections: what is to be shown of each capture, as they are read one after the other.
        style: how text may look.
        most: of how many problem connections, or timelines; None for all.
        several: whether more than one capture was asked for, whatever became of them.
    """
    if form == "json":
        yield from _json(selections, several=several)
    elif form == "jsonl":
        yield from itertools.chain.from_iterable(map(jsonl, selections))
    elif form == "csv":
        yield csv_header()
        yield from itertools.chain.from_iterable(map(csv_lines, selections))
    else:
        yield from _text(form, selections, style, most=most, several=several)


def _json(selections: Iterable[Selection], *, several: bool) -> Iterator[str]:
    if not several:
        for selection in selections:
            yield from json_object(selection)
            yield "\n"
        return
    yield f'{{"schema": {json.dumps(SCHEMA)}, "captures": ['
    between = "\n"
    for selection in selections:
        yield between
        yield from json_object(selection)
        between = ",\n"
    yield "\n]}\n"


def _text(
    form: str, selections: Iterable[Selection], style: Style, *, most: int | None, several: bool
) -> Iterator[str]:
    between = ""
    for selection in selections:
        yield between
        between = "\n"
        if several and form != "summary":
            yield style.paint(title(selection.analysis.reading), "heading") + "\n\n"
        for line in _lines(form, selection, style, most):
            yield line + "\n"


def _lines(form: str, selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    if form == "summary":
        return summary(selection, style, most)
    return table(selection, style) if form == "table" else timelines(selection, style, most)


def timelines(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield the timelines of the selected connections; of too many those with a problem first."""
    number = len(selection)
    named = bool(selection.wanted.ids)
    some = most is not None and number > most and not named
    chosen = first_of(selection, most) if some and most is not None else [selection.indices]

    def draw(connection: Connection) -> str:
        return contained(
            connection,
            lambda one: format_timeline(one, width=style.width, ascii=style.ascii, color=style.color),
            lambda one: "\n".join(bare_lines(one, style)),
        ).removesuffix("\n")

    texts = itertools.chain.from_iterable(selection.analysis.drawn(draw, one) for one in chosen)
    for index, text in enumerate(texts):
        if index:
            yield ""
        yield text
    if most is not None and number > most and not named:
        yield ""
        rest = (
            f"{number - most:,} more of {number:,} connections are not shown, those with a problem come first"
        )
        yield from style.wrap(f"{rest}: --all shows every one, --connection ID one of them")


def first_of(selection: Selection, most: int) -> list[Sequence[int]]:
    """Return which connections to show of too many: those with a problem, then others as they come."""
    problems = selection.problems()[:most]
    shown = set(problems)
    others = (index for index in selection.indices if index not in shown)
    return [problems, list(itertools.islice(others, most - len(problems)))]


GLANCE = 10_000  # connections looked at to tell which ports a capture has


@dataclass(frozen=True)
class ReadOptions:
    """How captures are to be read and judged: the arguments of `closeseq.analyze`."""

    port: tuple[int, ...] = ()
    host: tuple[str, ...] = ()
    count: int | None = None
    stuck_after: float = 60.0
    os: str = "linux"
    time_wait: float | None = None
    fin_timeout: float | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> ReadOptions:
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
    reading: ReadOptions = field(default_factory=ReadOptions)
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
            ReadOptions.of(given),
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

    def chains(self, named: NamedFiles) -> list[Chain]:
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


def meant(captures: Iterable[str]) -> NamedFiles:
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


def analyzed(chain: Chain, reading: ReadOptions, jobs: int | None = 1) -> Analysis:
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
        analysis = analyzed(chain, ReadOptions())
    except CaptureError:
        return ""
    ports = Counter(connection.conversation.server.port for connection in itertools.islice(analysis, GLANCE))
    named = [f"{port} ({count(number, 'connection')})" for port, number in ports.most_common(5)]
    return f"server ports seen: {', '.join(named)}" if named else ""
