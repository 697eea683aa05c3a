"""The summary that `analyze` prints: what was read, which program to fix, how the connections closed.

The first screen must show which program to fix, so problems come before counts.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from closeseq.connections.conversation import Address, End
from closeseq.report.problems import MOST_GROUPS, Group, ProblemCause, all_details, blame, gather, program
from closeseq.report.text import Style, printable, when
from closeseq.tcp.states import State
from closeseq.units import count, span
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import place
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from closeseq.classes.outcome import Outcome
    from closeseq.reading import Reading
    from closeseq.report.selection import Selection
    from closeseq.settings import Settings
    from closeseq.verdict.population.rules import PopulationFinding

    Notice = tuple[str, str]  # its code, and at which endpoint
    Place = tuple[str, End | None, Address | None]  # code of a problem, and where
    Waiting = tuple[End, Address]  # where a program has not closed yet
    Grouped = TypeVar("Grouped", "Group", "ProblemCause")
    Failed = Callable[[Iterable[int], Exception], None]  # records that closeseq failed at these connections

MOST_SHAPES = 10
MOST_TOGETHER = 6  # findings of many connections
MOST_FILES = 20  # of a capture in many files, named at the top
MOST_GAPS = 5


def summary(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        selection: the connections that are asked for.
        style: how text may look: width, colours, ASCII only.
        most: how many problem connections to show; None for all of them, and for all shapes.
    """
    yield from what_was_read(selection, style)
    if not len(selection):
        return
    found = gather(selection, most)
    told, troubled = _together(selection, style)
    yield from told
    yield ""
    waits = {} if found else close_waits(selection)
    yield from blame(found, style, selection.analysis.failed_at, together=troubled, waiting=bool(waits))
    ordered = sorted(waits.items(), key=lambda one: (-len(one[1]), min(one[1])))
    limits = selection.analysis.settings.limits
    yield from still_open({where: len(indices) for where, indices in ordered}, style, limits.stuck_after_ns)
    yield ""
    yield from how_they_ended(selection.verdicts, style)
    yield from _notices(selection, style)
    yield ""
    shapes, shown = selection.shapes, None if most is None else MOST_SHAPES
    yield from their_shapes(dict(islice(shapes.items(), shown)), style, len(shapes), sum(shapes.values()))
    if found:
        yield ""
        yield from all_details(found, style, selection.analysis.failed_at)


def _together(selection: Selection, style: Style) -> tuple[list[str], bool]:
    """Return what the connections show together, and whether that is a problem.

    Where closeseq itself fails at it, a line says so.
    """
    try:
        population = selection.population
        return list(together(population, style)), grave({one.code for one in population})
    except Exception as fault:  # noqa: BLE001 - only these lines are affected
        return not_told(place(fault), style), False


def not_told(where: str, style: Style) -> list[str]:
    """Return the lines that stand for what connections show together, if closeseq itself fails at it.

    Args:
        where: it failed, and what happened, as `fault.place` has it.
        style: how text may look: width, colours, ASCII only.
    """
    return style.wrap(f"closeseq failed to show what connections show together: {where}")


def grave(codes: Iterable[str]) -> bool:
    """Return whether one of these codes, of findings of many connections, means a problem to fix."""
    return any(vocabulary.lookup(code).severity is Severity.PROBLEM for code in codes)


def together(population: Sequence[PopulationFinding], style: Style, more: int = 0) -> Iterator[str]:
    """Yield what connections show together, warnings first; nothing if they show nothing.

    Args:
        population: warnings first, as `Analysis.population` has them.
        style: how text may look: width, colours, ASCII only.
        more: how many there are beside these, if these are at least MOST_TOGETHER.
    """
    if not population:
        return
    yield ""
    yield style.paint("Of many connections together", "heading")
    for one in population[:MOST_TOGETHER]:
        text = f"{one.code}: {one.summary}"
        lines = style.wrap(text, first="  ", then="    ")
        if vocabulary.lookup(one.code).severity is Severity.PROBLEM:
            lines = [*(style.paint(line, "problem") for line in lines), *style.wrap(one.advice, first="    ")]
        yield from lines
    more += max(0, len(population) - MOST_TOGETHER)
    if more:
        yield f"  {more:,} more; -f json has all of them"


def what_was_read(selection: Selection, style: Style) -> Iterator[str]:
    """Yield what the capture holds, what was skipped and why, and what the capture lost.

    Args:
        selection: of whose analysis all is told, and how many connections are asked for.
        style: how text may look: width, colours, ASCII only.
    """
    analysis = selection.analysis
    reading = analysis.reading
    read = f"{title(reading)}: {read_in_short(selection)}"
    yield from (style.paint(line, "heading") for line in style.wrap(read, then="  "))
    for text in [*remarks_on(reading), *on_the_path(*analysis.losses)]:
        yield from style.wrap(text, first="  ", then="    ")
    if not len(analysis):
        yield from style.wrap(nothing(selection), first="  ", then="    ")


def read_in_short(selection: Selection) -> str:
    """Return how much a capture holds: packets, time, connections, and how many of these are shown."""
    reading = selection.analysis.reading
    lasted = ""
    if reading.first_ns is not None and reading.last_ns is not None:
        lasted = f" in {span(reading.last_ns - reading.first_ns)} from {when(reading.first_ns)}"
    read = f"{count(reading.packets, 'packet')}{lasted}, {count(len(selection.analysis), 'TCP connection')}"
    if selection.wanted:
        read += f"; {len(selection):,} of them with {selection.wanted}"
    return read


def title(reading: Reading) -> str:
    """Return the name of a capture: its file, or the first and the last of its files."""
    paths = [file.path for file in reading.files.files]
    if len(paths) < 2:  # noqa: PLR2004 - one, or none
        return printable(reading.path)
    return f"{printable(paths[0])} to {printable(paths[-1])} ({len(paths)} files)"


def _files(reading: Reading) -> str:
    """Return the names of a capture's files, with their numbers."""
    named = [f"{number} {printable(file.path)}" for number, file in enumerate(reading.files.files, 1)]
    if len(named) > MOST_FILES:
        named = [*named[: MOST_FILES - 1], "...", named[-1]]
    return f"files: {', '.join(named)}; #2:7 is packet 7 of file 2"


def remarks_on_files(reading: Reading) -> Iterator[str]:
    """Yield the gaps between a capture's files, and the files that do not belong to it."""
    files = reading.files
    gaps = [
        f"{span(gap.to_ns - gap.from_ns)} between {files.text(f'#{gap.before} and #{gap.after}')}"
        for gap in files.gaps()
    ]
    if len(gaps) > MOST_GAPS:
        gaps = [*gaps[:MOST_GAPS], f"{len(gaps) - MOST_GAPS} more gaps"]
    if gaps:
        yield f"no packet for over a second between files: {', '.join(gaps)}"
    if reading.empty:
        yield f"without a packet: {', '.join(map(printable, reading.empty))}"
    if reading.beside:
        others = [printable(path) for path in reading.beside[:MOST_GAPS]]
        if len(reading.beside) > MOST_GAPS:
            others.append(f"{len(reading.beside) - MOST_GAPS} more")
        yield f"overlaps in time (another capture point), so analysed by itself: {', '.join(others)}"


def remarks_on(reading: Reading) -> Iterator[str]:
    """Yield what limits the analysis: files, gaps, read errors, lost, skipped and duplicate packets."""
    if reading.files.several:
        yield _files(reading)
    yield from remarks_on_files(reading)
    errors = reading.files.errors() or ([] if reading.error is None else [reading.error])
    for error in errors:
        yield f"not read to its end: {printable(str(error))}"
    if reading.dropped:
        yield f"the capture lost {count(reading.dropped, 'packet')} (its own drop counter)"
    if reading.skipped:
        yield f"skipped: {_named(reading.skipped)}"
    if reading.copies:
        copies = count(reading.copies, "packet")
        yield f"duplicates: {copies} captured or delivered more than once, counted once"
    if reading.notes:
        yield f"notes: {_named(reading.notes)}"


def on_the_path(clients: int, servers: int, reordered: int) -> Iterator[str]:
    """Yield how many segments were lost on either side of the capture point, and how many out of order.

    Args:
        clients: segments that were lost between the clients and the capture point.
        servers: those that were lost between it and the servers.
        reordered: those that came out of order.
    """
    if clients or servers:
        yield (
            f"lost and retransmitted: {count(clients, 'segment')} between the clients and the capture point, "
            f"{servers:,} between it and the servers"
        )
    if reordered:
        yield f"out of order: {count(reordered, 'segment')}"


def nothing(selection: Selection) -> str:
    """Return why an analysis has no connection, in one line."""
    reading, asked = selection.analysis.reading, asked_for(selection.analysis.settings)
    if not reading.packets:
        return "the capture holds no packets"
    if not reading.segments:
        instead = f"; it holds {_named(reading.skipped)}" if reading.skipped else ""
        return f"no TCP in this capture{instead}"
    if asked:
        instead = f"; {selection.instead}" if selection.instead else ""
        return f"no TCP packets of {asked}{instead}"
    return "no TCP connection in this capture"


def asked_for(settings: Settings) -> str:
    """Return the ports and hosts that are asked for: `port 80 or host 10.0.0.1`; empty for all."""
    ports = [f"port {port}" for port in sorted(settings.ports)]
    return " or ".join([*ports, *(f"host {host}" for host in sorted(settings.hosts))])


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(reason)} ({number:,})" for reason, number in counts.items())


def close_waits(selection: Selection) -> dict[Waiting, list[int]]:
    """Return the connections that end in CLOSE_WAIT and have no problem, by index, for each program."""
    found: dict[Waiting, list[int]] = {}
    for outcome, members in selection.classes:
        for end, state in ((End.CLIENT, outcome.client_state), (End.SERVER, outcome.server_state)):
            if state is State.CLOSE_WAIT and not outcome.has_problem:
                for address, indices in selection.analysis.places(members, end):
                    found.setdefault((end, address), []).extend(indices)
    return found


def still_open(counts: Mapping[Waiting, int], style: Style, stuck_after_ns: int) -> Iterator[str]:
    """Yield which programs had not closed when the capture ended: no problem yet, but perhaps a leak.

    Args:
        counts: sockets in CLOSE_WAIT at each program, the most first; MOST_GROUPS are named.
        style: how text may look: width, colours, ASCII only.
        stuck_after_ns: from which wait on it is a problem.
    """
    if not counts:
        return
    yield from style.wrap(
        f"Not closed when the capture ended; a problem after {span(stuck_after_ns)} in CLOSE_WAIT "
        "(--stuck-after changes that):"
    )
    for (end, address), number in list(counts.items())[:MOST_GROUPS]:
        text = f"CLOSE_WAIT at {program(end, address)}: {vocabulary.lookup('CLOSE_WAIT').meaning}"
        yield from style.wrap(text, first=f"{number:>7,}  ")


def how_they_ended(verdicts: Mapping[str, int], style: Style) -> Iterator[str]:
    """Yield the verdicts with their meaning, the most frequent first.

    Args:
        verdicts: how many connections have each; a verdict that none has is left out.
        style: how text may look: width, colours, ASCII only.
    """
    yield style.paint("Verdicts", "heading")
    for code, number in sorted(verdicts.items(), key=lambda item: -item[1]):
        if number:
            text = f"{code:13} {vocabulary.lookup(code).meaning}"
            yield from style.wrap(text, first=f"{number:>7,}  ", then=" " * 23)


def _notices(selection: Selection, style: Style) -> Iterator[str]:
    """Yield the notices, the most frequent first."""
    counts: Counter[Notice] = Counter()
    for outcome, members in selection.classes:
        for key in notices_of(outcome):
            counts[key] += len(members)
    yield from noticed(dict(counts.most_common()), style)


def notices_of(outcome: Outcome) -> Iterable[Notice]:
    """Return the notices of the connections of a class, and at which endpoint; each once, in their order."""
    found = [f for f in outcome.findings if f.severity is Severity.NOTICE]
    return dict.fromkeys((f.code, f" at the {f.endpoint}" if f.endpoint else "") for f in found)


def noticed(counts: Mapping[Notice, int], style: Style) -> Iterator[str]:
    """Yield notices, in the order of the mapping.

    Args:
        counts: how many connections have each.
        style: how text may look: width, colours, ASCII only.
    """
    if not counts:
        return
    yield ""
    yield style.paint("Notices (details: closeseq timeline)", "heading")
    for (code, where), number in counts.items():
        text = f"{code}{where}: {vocabulary.lookup(code).meaning}"
        yield from style.wrap(text, first=f"{number:>7,}  ")


def their_shapes(shapes: Mapping[str, int], style: Style, kinds: int, total: int) -> Iterator[str]:
    """Yield shapes of connections, in the order of the mapping, and how many more there are.

    Args:
        shapes: how many connections have each of those to be shown, the most frequent first.
        style: how text may look: width, colours, ASCII only.
        kinds: how many shapes there are.
        total: connections of all shapes.
    """
    for line in style.wrap("Shapes (C client, S server, ~ traffic)", then="  "):
        yield style.paint(line, "heading")
    for shape, number in shapes.items():
        share = f"{100 * number / total:.1f} %"
        yield from style.wrap(shape, first=f"{number:>7,}  {share:>7}  ")
    rest = kinds - len(shapes)
    if rest:
        others = total - sum(shapes.values())
        yield from style.wrap(f"in {count(rest, 'more shape')}; --all shows them", first=f"{others:>7,}  ")
