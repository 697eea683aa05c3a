"""The summary that `analyze` prints: what was read, which program to fix, how the connections closed.

The first screen must show which program to fix, so problems come before counts. They are grouped by cause, a
finding at one of the endpoints, the worst first; and within it by address, since one faulty program makes
many stuck connections.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, overload

from closeseq.connections.conversation import Address, End
from closeseq.report.containment import bare_lines, contained
from closeseq.report.selection import gravity, rank, troubles
from closeseq.report.text import Style, evidence, printable, when
from closeseq.tcp.states import State
from closeseq.units import count, listed, span
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import CODE, place
from closeseq.verdict.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from closeseq.classes.outcome import FindingOutcome, Outcome
    from closeseq.connection import Connection
    from closeseq.reading import Reading
    from closeseq.report.selection import Selection
    from closeseq.settings import Settings
    from closeseq.verdict.model import Finding
    from closeseq.verdict.population.rules import PopulationFinding

    Notice = tuple[str, str]  # its code, and at which endpoint
    Place = tuple[str, End | None, Address | None]  # code of a problem, and where
    Waiting = tuple[End, Address]  # where a program has not closed yet
    Grouped = TypeVar("Grouped", "Group", "ProblemCause")
    Failed = Callable[[Iterable[int], Exception], None]  # records that closeseq failed at these connections

MOST_GROUPS = 5  # causes of problems, named at the top
MOST_PLACES = 3  # of each cause, the worst
MOST_SHAPES = 10
MOST_TOGETHER = 6  # findings of many connections
MOST_FILES = 20  # of a capture in many files, named at the top
MOST_GAPS = 5


@dataclass(slots=True)
class Group:
    """Connections with the same problem at the same address."""

    code: str
    end: End | None
    address: Address | None
    indices: list[int] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)  # those to be shown

    @property
    def number(self) -> int:
        return len(self.indices)

    @property
    def first(self) -> int:
        """What puts it before others of the same number: the first of its connections."""
        return min(self.indices)


@dataclass(frozen=True, slots=True)
class ProblemCause:
    """The groups of one finding at one endpoint: the same fault in several places, the worst first."""

    groups: Sequence[Group]

    @property
    def code(self) -> str:
        return self.groups[0].code

    @property
    def end(self) -> End | None:
        return self.groups[0].end

    @property
    def number(self) -> int:
        return sum(group.number for group in self.groups)

    @property
    def first(self) -> int:
        return min(group.first for group in self.groups)

    @property
    def indices(self) -> list[int]:
        return [index for group in self.groups for index in group.indices]


def causes(groups: Iterable[Group]) -> list[ProblemCause]:
    """Return the causes of problems: the worst first, of the same gravity the most frequent."""
    found: dict[tuple[str, End | None], list[Group]] = {}
    for group in groups:
        found.setdefault((group.code, group.end), []).append(group)
    several = [
        ProblemCause(sorted(one, key=lambda group: (-group.number, group.first))) for one in found.values()
    ]
    return sorted(several, key=lambda cause: (rank(cause.code), -cause.number, cause.first))


def shares(found: Iterable[ProblemCause], most: int | None) -> list[list[int]]:
    """Return how many connections of each group to show, for each cause; without `most` all of them."""
    sizes = [[group.number for group in cause.groups] for cause in found]
    if most is None:
        return sizes
    shown = allot([size for one in sizes for size in one[:MOST_PLACES]], most)
    return [[shown.pop(0) if place < MOST_PLACES else 0 for place in range(len(one))] for one in sizes]


def summary(selection: Selection, style: Style, most: int | None) -> Iterator[str]:
    """Yield the lines of the summary, with at most so many problem connections (None: all of them)."""
    yield from what_was_read(selection, style)
    if not len(selection):
        return
    found = gather(selection, most)
    if not selection.wanted:
        yield from _together(selection, style)
    yield ""
    yield from blame(found, style, selection.analysis.failed_at)
    if not found:
        waits = sorted(close_waits(selection).items(), key=lambda one: (-len(one[1]), min(one[1])))
        yield from still_open({where: len(indices) for where, indices in waits}, style)
    yield ""
    yield from how_they_ended(selection.verdicts, style)
    yield from _notices(selection, style)
    yield ""
    yield from their_shapes(selection.shapes, style, all_of_them=most is None)
    if found:
        yield ""
        yield from _details(found, style, selection.analysis.failed_at)


def _together(selection: Selection, style: Style) -> list[str]:
    """Return what the connections show together; a line about the fault if closeseq itself fails at it."""
    try:
        return list(together(selection.analysis.population, style))
    except Exception as fault:  # noqa: BLE001 - only these lines are affected
        return style.wrap(f"closeseq failed to show what connections show together: {place(fault)}")


def together(population: Sequence[PopulationFinding], style: Style) -> Iterator[str]:
    """Yield what connections show together, warnings first."""
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
    if len(population) > MOST_TOGETHER:
        yield f"  {len(population) - MOST_TOGETHER:,} more; -f json has all of them"


def what_was_read(selection: Selection, style: Style) -> Iterator[str]:
    """Yield what the capture holds, what was skipped and why, and what the capture lost."""
    analysis = selection.analysis
    reading = analysis.reading
    lasted = ""
    if reading.first_ns is not None and reading.last_ns is not None:
        lasted = f" in {span(reading.last_ns - reading.first_ns)} from {when(reading.first_ns)}"
    read = f"{title(reading)}: {count(reading.packets, 'packet')}{lasted}, "
    read += count(len(analysis), "TCP connection")
    if selection.wanted:
        read += f"; {len(selection):,} of them with {selection.wanted}"
    yield from (style.paint(line, "heading") for line in style.wrap(read, then="  "))
    for text in [*remarks_on(reading), *on_the_path(*analysis.losses)]:
        yield from style.wrap(text, first="  ", then="    ")
    if not len(analysis):
        yield from style.wrap(nothing(selection), first="  ", then="    ")


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
    """Yield how many segments were lost on either side of the capture point, and how many out of order."""
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


def gather(selection: Selection, most: int | None) -> list[ProblemCause]:
    """Return the causes of problems, the worst first.

    Each group keeps only the connections that will be shown: its share of `most`.
    """
    analysis = selection.analysis
    found: dict[Place, Group] = {}
    for outcome, members in selection.classes:
        try:
            placed = _placed(selection, outcome, members)
        except Exception as fault:  # noqa: BLE001 - only these connections are affected
            analysis.failed_at(map(int, members), fault)
            placed = [((CODE, None, None), list(map(int, members)))]
        for key, indices in placed:
            found.setdefault(key, Group(*key)).indices += indices
    several = causes(found.values())
    for cause, shown in zip(several, shares(several, most), strict=True):
        for group, share in zip(cause.groups, shown, strict=True):
            group.connections = [analysis[i] for i in sorted(group.indices)[:share]]
    return several


def _placed(selection: Selection, outcome: Outcome, members: Sequence[int]) -> list[tuple[Place, list[int]]]:
    """Return the problem of the members of a class by place; nothing if they have none."""
    if not outcome.has_problem:
        return []
    worst = worst_of(outcome)
    code, end = worst.code, worst.endpoint
    if end is None:
        return [((code, None, None), list(map(int, members)))]
    found = selection.analysis.places(members, end)
    return [((code, end, where), indices) for where, indices in found]


@overload
def worst_of(judged: Connection) -> Finding: ...
@overload
def worst_of(judged: Outcome) -> FindingOutcome: ...
def worst_of(judged: Connection | Outcome) -> Finding | FindingOutcome:
    """Return the problem that best shows what to fix."""
    return min(troubles(judged), key=gravity)


def of_group(group: Grouped, draw: Callable[[Grouped], list[str]], style: Style, failed: Failed) -> list[str]:
    """Return what `draw` makes of a group or cause; a line about the fault if closeseq itself fails at it."""
    try:
        return draw(group)
    except Exception as fault:  # noqa: BLE001 - only this group is affected
        failed(group.indices, fault)
        text = f"{group.code}: closeseq failed to show this: {place(fault)}"
        return style.wrap(text, first=f"{group.number:>7,}  ")


def blame(found: Sequence[ProblemCause], style: Style, failed: Failed) -> Iterator[str]:
    """Yield the causes of problems and their worst places, a line each."""
    if not found:
        yield style.paint("No problems found.", "good")
        return
    number = sum(cause.number for cause in found)
    yield style.paint(f"{count(number, 'connection')} with a problem", "problem")
    for cause in found[:MOST_GROUPS]:
        yield from of_group(cause, lambda one: _blamed(one, style), style, failed)
    if len(found) > MOST_GROUPS:
        yield f"{sum(cause.number for cause in found[MOST_GROUPS:]):>7,}  others"


def _blamed(cause: ProblemCause, style: Style) -> list[str]:
    where = f"at {_where(cause.groups[0])}" if cause.end is not None else ""
    if len(cause.groups) > 1:
        where = f"at the {cause.end} {_places(cause.groups)}"
    text = f"{cause.code} {where}{': ' if where else ''}{vocabulary.lookup(cause.code).meaning}"
    return style.wrap(text, first=f"{cause.number:>7,}  ")


def _places(groups: Sequence[Group]) -> str:
    """Return the worst places, each with its number of connections, and how many more there are."""
    named = [f"{_place(group)} ({group.number:,})" for group in groups[:MOST_PLACES]]
    rest = groups[MOST_PLACES:]
    if rest:
        number = sum(group.number for group in rest)
        named.append(f"{count(len(rest), 'other')} ({number:,})")
    return listed(named)


def _place(group: Group) -> str:
    """Return an address: a client's without a port, since these vary."""
    assert group.address is not None
    return group.address.address if group.end is End.CLIENT else str(group.address)


def _where(group: Group) -> str:
    if group.address is None or group.end is None:
        return "both endpoints"
    return program(group.end, group.address)


def program(end: End, address: Address) -> str:
    """Return where a program is: a client's address, a server's address and port."""
    return f"the {end} {address.address if end is End.CLIENT else address}"


def close_waits(selection: Selection) -> dict[Waiting, list[int]]:
    """Return the connections that end in CLOSE_WAIT and have no problem, by index, for each program."""
    found: dict[Waiting, list[int]] = {}
    for outcome, members in selection.classes:
        for end, state in ((End.CLIENT, outcome.client_state), (End.SERVER, outcome.server_state)):
            if state is State.CLOSE_WAIT and not outcome.has_problem:
                for address, indices in selection.analysis.places(members, end):
                    found.setdefault((end, address), []).extend(indices)
    return found


def still_open(counts: Mapping[Waiting, int], style: Style) -> Iterator[str]:
    """Yield which programs had not closed when the capture ended: no problem yet, but perhaps a leak."""
    if not counts:
        return
    yield from style.wrap(
        "Waiting for close() when the capture ended; a problem only after --stuck-after SECONDS:"
    )
    for (end, address), number in list(counts.items())[:MOST_GROUPS]:
        text = f"CLOSE_WAIT at {program(end, address)}: {vocabulary.lookup('CLOSE_WAIT').meaning}"
        yield from style.wrap(text, first=f"{number:>7,}  ")


def how_they_ended(verdicts: Mapping[str, int], style: Style) -> Iterator[str]:
    """Yield the verdicts with their meaning, the most frequent first."""
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
    """Yield notices, in the order of the mapping."""
    if not counts:
        return
    yield ""
    yield style.paint("Notices (details: closeseq timeline)", "heading")
    for (code, where), number in counts.items():
        text = f"{code}{where}: {vocabulary.lookup(code).meaning}"
        yield from style.wrap(text, first=f"{number:>7,}  ")


def their_shapes(shapes: Mapping[str, int], style: Style, *, all_of_them: bool) -> Iterator[str]:
    """Yield the shapes of connections in the order of the mapping, the first MOST_SHAPES unless all."""
    total = sum(shapes.values())
    for line in style.wrap("Shapes (C client, S server, ~ traffic)", then="  "):
        yield style.paint(line, "heading")
    shown = list(shapes.items())[: None if all_of_them else MOST_SHAPES]
    for shape, number in shown:
        share = f"{100 * number / total:.1f} %"
        yield from style.wrap(shape, first=f"{number:>7,}  {share:>7}  ")
    rest = len(shapes) - len(shown)
    if rest:
        others = total - sum(n for _, n in shown)
        yield from style.wrap(f"in {count(rest, 'more shape')}; --all shows them", first=f"{others:>7,}  ")


def _details(found: Sequence[ProblemCause], style: Style, failed: Failed) -> Iterator[str]:
    """Yield a line for each problem connection that a group keeps, under the advice for the cause."""

    def lines(group: Group) -> Iterator[str]:
        for connection in group.connections:
            yield from detail(connection, style)

    def title(group: Group) -> list[str]:
        return of_group(group, lambda one: titled(one, advice_of(one), style), style, failed)

    shown = [[len(group.connections) for group in cause.groups] for cause in found]
    yield from details(found, shown, title, lines, style)


def details(
    found: Sequence[ProblemCause],
    shown: Sequence[Sequence[int]],
    title: Callable[[Group], list[str]],
    lines: Callable[[Group], Iterable[str]],
    style: Style,
) -> Iterator[str]:
    """Yield the causes with what to do and their connections.

    Args:
        found: the causes.
        shown: how many connections of each of their groups are shown.
        title: makes the heading of a cause's worst group, with what to do.
        lines: makes the lines about the connections of a group.
        style: how text may look.
    """
    yield style.paint("Problems", "heading")
    for cause, numbers in zip(found, shown, strict=True):
        told = False
        for group, number in zip(cause.groups, numbers, strict=True):
            if not number:
                continue
            if told:
                also = f"also at {_where(group)} ({count(group.number, 'connection')})"
                yield from (style.paint(line, "problem") for line in style.wrap(also, first="  "))
            else:
                yield from title(group)
            told = True
            yield from lines(group)
    total = sum(cause.number for cause in found)
    yield from not_shown(total - sum(map(sum, shown)), style)


def detail(connection: Connection, style: Style) -> list[str]:
    """Return the lines about a problem connection."""
    return contained(
        connection,
        lambda one: _problem(one, style),
        lambda one: [f"    {line}" for line in bare_lines(one, style)],
    )


def not_shown(number: int, style: Style, what: str = "problem connections") -> Iterator[str]:
    """Yield how many connections are not shown."""
    if number > 0:
        text = f"{number:,} more {what}; --all shows them, --limit N the first N"
        yield from style.wrap(text, first="  ", then="    ")


def advice_of(group: Group) -> str:
    """Return the advice for a group's connections."""
    if troubles(group.connections[0]):
        return printable(worst_of(group.connections[0]).advice)
    return printable(vocabulary.lookup(group.code).advice)


def titled(group: Group, advice: str, style: Style) -> list[str]:
    """Return a group's problem, where it is, and the advice."""
    where = f" at {_where(group)}" if group.end is not None else ""
    title = f"{group.code}{where} ({count(group.number, 'connection')})"
    return [
        *(style.paint(line, "problem") for line in style.wrap(title, first="  ")),
        *style.wrap(advice, first="    "),
    ]


def _problem(connection: Connection, style: Style) -> list[str]:
    conversation, finding = connection.conversation, worst_of(connection)
    peer = conversation.server if finding.endpoint is None else conversation.address(finding.endpoint.peer)
    other = f"{conversation.client} {style.to} {peer}"
    if finding.endpoint is not None:
        port = f":{conversation.client.port} " if finding.endpoint is End.CLIENT else ""
        other = f"{port}with {peer}"
    shown = evidence(finding, 4)
    said = connection.files.text(f"{printable(finding.summary)}{f' [{shown}]' if shown else ''}")
    text = f"{other}: {said}"
    return style.wrap(text, first=f"    #{connection.id}  ")


def allot(sizes: list[int], most: int) -> list[int]:
    """Return how many of each group to show, so that `most` are shown in all and each group has a share."""
    shares = [0] * len(sizes)
    while most and shares != sizes:
        for i, size in enumerate(sizes):
            if most and shares[i] < size:
                shares[i] += 1
                most -= 1
    return shares
