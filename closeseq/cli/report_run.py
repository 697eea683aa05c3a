"""One run of `report`: read a capture, and write the page about it."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from closeseq.cli.analyze_run import analyzed, ports_seen
from closeseq.cli.one_capture import concluded, one_capture
from closeseq.cli.output import opened, streamed
from closeseq.cli.requests import ReadOptions
from closeseq.cli.terminal import Refusal, Status, complain
from closeseq.errors import CaptureError
from closeseq.report.page.document import Page
from closeseq.report.page.examples import examples
from closeseq.report.page.overview import Overview
from closeseq.report.selection import Selection
from closeseq.report.text import STYLES, printable
from closeseq.units import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.cli.requests import ReportRequest
    from closeseq.report.text import Style


def write(request: ReportRequest) -> Status:
    """Write the page; return the exit status.

    Args:
        request: what is asked.

    Raises:
        Refusal: the page would go to a terminal, there are several captures, or the file cannot be written.
    """
    if request.output in {None, "-"} and sys.stdout.isatty():
        raise Refusal("a page of HTML is not for a terminal: name a file with -o report.html")
    named = one_capture(request.captures, "report")
    if named.chain is None:
        return Status.CAPTURE
    with opened(request.output, force=request.force, captures=named.paths) as output:
        try:
            analysis = analyzed(named.chain, request.reading, request.jobs)
        except CaptureError as error:
            complain(str(error))
            return Status.CAPTURE
        selection = Selection(analysis, request.wanted)
        if not len(analysis) and request.reading.narrowed:
            selection.instead = ports_seen(named.chain)
        overview = Overview.of(selection)
        page = _page(selection, overview, request)
        output.keep = True
        output.write(page.pieces())
    if output.path is not None:
        said = streamed(sys.stdout)
        said.write(f"{line}\n" for line in _told(page, output.path, said.style(ascii_only=False)))
    found = any(overview.verdicts[code] or overview.findings[code] for code in request.fail_on)
    found |= any(one.code in request.fail_on for one in page.together)
    return concluded(selection, broken=named.broken, found=found)


def _told(page: Page, path: str, style: Style) -> Iterator[str]:
    """Yield what the page begins with, and what it holds."""
    first = page.answer
    for text, kind in ((first.sentence, first.kind), (first.how_often, ""), (first.advice, "")):
        yield from (style.paint(line, kind) if kind in STYLES else line for line in style.wrap(text) if line)
    whole, number = len(page.examples), page.overview.number
    held = f"{whole:,} of {count(number, 'connection')}" if whole < number else count(number, "connection")
    yield from style.wrap(f"{printable(path)}: {held} with ladder, evidence and record", then="  ")


def _page(selection: Selection, overview: Overview, request: ReportRequest) -> Page:
    from closeseq import __version__

    return Page(
        selection,
        overview,
        examples(selection, overview, request.ladders),
        command=timeline_command(request.captures, request.reading),
        version=__version__,
    )


def timeline_command(captures: tuple[str, ...], reading: ReadOptions) -> str:
    """Return the command that shows connections of the same analysis, with the same numbers.

    Args:
        captures: as they were named.
        reading: how they were read and judged.
    """
    usual = ReadOptions()
    named = [f"./{one}" if one.startswith("-") and one != "-" else one for one in captures]
    words = ["closeseq", "timeline", *named]
    words += [word for port in reading.port for word in ("-p", str(port))]
    words += [word for host in reading.host for word in ("--host", host)]
    for name in ("count", "stuck_after", "os", "time_wait", "fin_timeout", "ephemeral_ports"):
        value = getattr(reading, name)
        if value != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(value).removesuffix(".0")]
    return shlex.join(words)
