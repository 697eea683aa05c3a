"""One run of `states`: the socket table of a capture at a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.cli.analyze_run import analyzed
from closeseq.cli.one_capture import concluded, one_capture
from closeseq.cli.output import opened
from closeseq.cli.terminal import Status, complain
from closeseq.errors import CaptureError
from closeseq.report.selection import Selection
from closeseq.report.socket_states import states_json, states_table
from closeseq.units import span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.cli.options import Moment
    from closeseq.cli.requests import StatesRequest
    from closeseq.reading import Reading
    from closeseq.report.text import Style


def show(request: StatesRequest) -> Status:
    """Write the table; return the exit status.

    Args:
        request: what is asked.

    Raises:
        Refusal: there are several captures, or the file cannot be written.
    """
    named = one_capture(request.captures, "states")
    if named.chain is None:
        return Status.CAPTURE
    with opened(request.output, force=request.force, captures=named.paths) as output:
        try:
            selection = Selection(analyzed(named.chain, request.reading), request.wanted)
        except CaptureError as error:
            complain(str(error))
            return Status.CAPTURE
        output.keep = True
        reading = selection.analysis.reading
        at_ns = clamped(request.at, reading, named.chain.paths[0])
        style = output.style(ascii_only=request.ascii)
        output.write(_states(selection, at_ns, request.form, style, everything=request.show_all))
        return concluded(selection, broken=named.broken)


def _states(selection: Selection, at_ns: int, form: str, style: Style, *, everything: bool) -> Iterator[str]:
    if form == "json":
        yield states_json(selection, at_ns, everything=everything) + "\n"
        return
    for line in states_table(selection, at_ns, style, everything=everything):
        yield line + "\n"


def clamped(at: Moment, reading: Reading, capture: str) -> int:
    """Return the moment to show, in nanoseconds since the Unix epoch.

    After the end of the capture nothing is known, so its end is shown.

    Args:
        at: the moment that is asked for.
        reading: of the capture.
        capture: its name, for what is said if the moment is not within it.
    """
    first_ns, last_ns = reading.first_ns or 0, reading.end_ns or 0
    at_ns = at.within(first_ns, last_ns)
    if at_ns > last_ns:
        complain(f"{capture}: the capture ended {span(at_ns - last_ns)} before that moment; shown is its end")
        return last_ns
    if at_ns < first_ns:
        complain(f"{capture}: the capture began {span(first_ns - at_ns)} after that moment")
    return at_ns
