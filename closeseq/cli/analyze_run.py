"""One run of `analyze` or `timeline`: read captures one after the other, and report on each.

First the report in each of its six formats, then the run. A capture is a chain of files that continue each
other, often only one.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from closeseq.analysis import Analysis, analyze_chain
from closeseq.capture.chains import Chain, find_chains
from closeseq.capture.names import files_named
from closeseq.cli.output import opened
from closeseq.cli.requests import AnalyzeRequest, ReadOptions
from closeseq.cli.terminal import Progress, Refusal, Status, complain, fault_in
from closeseq.errors import CaptureError
from closeseq.report.containment import bare_lines, contained
from closeseq.report.records import SCHEMA, csv_header, csv_lines, json_object, jsonl, population_line
from closeseq.report.selection import Selection
from closeseq.report.summary import nothing, remarks_on_files, summary, title
from closeseq.report.table import table
from closeseq.report.timeline_text import format_timeline
from closeseq.report.why import why
from closeseq.units import count
from closeseq.verdict.model import PopulationCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from closeseq.capture.names import NamedFiles
    from closeseq.connection import Connection
    from closeseq.report.text import Style


def pieces(
    form: str,
    selections: Iterable[Selection],
    style: Style,
    *,
    most: int | None,
    several: bool,
    population: bool = False,
) -> Iterator[str]:
    """Yield the report on captures in one of options.FORMATS.

    Args:
        form: the format.
        selections: the connections of each capture to show, as captures are read one after the other.
        style: how text may look.
        most: how many problem connections, or timelines, to show; None for all.
        several: whether more than one capture was named, readable or not.
        population: whether JSON lines end with one about all connections of a capture.
    """
    if form == "json":
        yield from _json(selections, several=several)
    elif form == "jsonl":
        for selection in selections:
            yield from jsonl(selection)
            if population:
                yield population_line(selection.analysis.path, selection.population)
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
    if form == "summary" and selection.wanted.errors:
        return why(selection, style, most)
    if form == "summary":
        return summary(selection, style, most)
    return table(selection, style) if form == "table" else timelines(selection, style, most)


def timelines(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield the timelines of the selected connections; of too many those with a problem first.

    Args:
        selection: the connections that are asked for.
        style: how text may look: width, colours, ASCII only.
        most: how many to show; None for all. Connections that are asked for by number are all shown.
    """
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
        rest = f"{number - most:,} of {number:,} connections are not shown; those with a problem come first"
        yield from style.wrap(f"{rest}: --all shows all, --connection ID shows one")


def first_of(selection: Selection, most: int) -> list[Sequence[int]]:
    """Return the connections to show of too many: those with a problem, then others in their order.

    Args:
        selection: the connections that are asked for.
        most: how many to show.

    Returns:
        two lists of indices in the analysis, each ascending: with a problem, and others.
    """
    problems = selection.problems()[:most]
    shown = set(problems)
    others = (index for index in selection.indices if index not in shown)
    return [problems, list(itertools.islice(others, most - len(problems)))]


class Kept(Protocol):
    """Where a report goes, which stays only if something could be read."""

    keep: bool


GLANCE = 10_000  # connections read to list a capture's ports


class Job:
    """One run, and what it has met so far.

    Args:
        request: what is asked.
    """

    def __init__(self, request: AnalyzeRequest) -> None:
        self.request = request
        self.found = False  # something named with --fail-on
        self.unread = False  # a capture could not be read, or not to its end
        self.failed = False  # closeseq itself
        self.broken: list[str] = []  # errors of captures that could not be read at all

    def run(self) -> Status:
        """Read and report; return the exit status.

        Raises:
            Refusal: the output is a directory, or cannot be opened.
        """
        request = self.request
        if request.output is not None and Path(request.output).is_dir():
            raise Refusal(f"{request.output} is a directory; name a file in it")
        named = meant(request.captures)
        with opened(request.output, force=request.force, captures=named.paths) as output:
            style = output.style(ascii_only=request.ascii)
            chains = self.chains(named)
            selections = self.selections(chains, output)
            text = pieces(
                request.form,
                selections,
                style,
                most=request.most,
                several=named.several,
                population=request.population,
            )
            output.write(text)
        return self.status

    @property
    def status(self) -> Status:
        """The exit status so far."""
        if self.failed:
            return Status.BUG
        if self.unread:
            return Status.CAPTURE
        return Status.FOUND if self.found else Status.DONE

    def chains(self, named: NamedFiles) -> list[Chain]:
        """Return which files are analysed together, and report those that cannot be read.

        Args:
            named: the files of the captures.
        """
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

    def selections(self, chains: Iterable[Chain], output: Kept) -> Iterator[Selection]:
        """Yield the connections to show of each capture that can be read, and report the other captures.

        Args:
            chains: the captures.
            output: is kept once a capture has been read.
        """
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
        """Update the exit status from a capture that has been reported."""
        for error in selection.analysis.reading.files.errors():
            complain(str(error))
            self.unread = True
        if self.request.form != "summary":
            mention(selection)
        fail_on = self.request.fail_on
        self.found |= any(selection.verdicts.get(code) or selection.findings.get(code) for code in fail_on)
        if fail_on & set(PopulationCode):
            self.found |= any(one.code in fail_on for one in selection.population)
        if selection.analysis.failed:
            complain(f"{selection.analysis.path}: {fault_in(selection.analysis.faults)}")
            self.failed = True


def meant(captures: Iterable[str]) -> NamedFiles:
    """Return the files of paths, directories, patterns and lists, and report what was left out."""
    named = files_named(captures)
    for notice in named.notices:
        complain(notice)
    return named


def mention(selection: Selection) -> None:
    """Report gaps between files, and why nothing is shown, for formats that have no place for it."""
    path, number = selection.analysis.path, len(selection.analysis)
    for remark in remarks_on_files(selection.analysis.reading):
        complain(f"{path}: {remark}")
    if not number:
        complain(f"{path}: {nothing(selection)}")
    elif not len(selection):
        complain(f"{path}: none of {count(number, 'connection')} with {selection.wanted}")


def analyzed(chain: Chain, reading: ReadOptions, jobs: int | None = 1) -> Analysis:
    """Analyse one capture, with a progress bar if it takes long.

    Args:
        chain: its files.
        reading: how they are to be read and judged.
        jobs: processes that judge; None for as many as there are processors, if it is worth while.

    Raises:
        CaptureError: none of them can be read at all.
    """
    progress = Progress(chain.paths[0])
    try:
        return analyze_chain(chain, reading.settings, count=reading.count, progress=progress, jobs=jobs)
    finally:
        progress.clear()


def ports_seen(chain: Chain) -> str:
    """Return the server ports in a capture, for a user who asked for another port; empty if it has none."""
    if not all(path != "-" and Path(path).is_file() for path in chain.paths):
        return ""
    try:
        analysis = analyzed(chain, ReadOptions())
    except CaptureError:
        return ""
    ports = Counter(connection.conversation.server.port for connection in itertools.islice(analysis, GLANCE))
    named = [f"{port} ({count(number, 'connection')})" for port, number in ports.most_common(5)]
    return f"server ports seen: {', '.join(named)}" if named else ""
