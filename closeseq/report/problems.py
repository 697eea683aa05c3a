"""The problems of a capture by cause: a finding at one of the endpoints, the worst first.

Within a cause they are grouped by address, since one faulty program makes many stuck connections.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, overload

from closeseq.connections.conversation import Address, End
from closeseq.report.containment import bare_lines, contained
from closeseq.report.selection import gravity, rank, troubles
from closeseq.report.text import Style, evidence, printable
from closeseq.units import count, listed
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import CODE, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from closeseq.classes.outcome import FindingOutcome, Outcome
    from closeseq.connection import Connection
    from closeseq.report.selection import Selection
    from closeseq.verdict.model import Finding

    Notice = tuple[str, str]  # its code, and at which endpoint
    Place = tuple[str, End | None, Address | None]  # code of a problem, and where
    Waiting = tuple[End, Address]  # where a program has not closed yet
    Grouped = TypeVar("Grouped", "Group", "ProblemCause")
    Cause = TypeVar("Cause", bound="ProblemCause")
    Failed = Callable[[Iterable[int], Exception], None]  # records that closeseq failed at these connections

MOST_GROUPS = 5  # causes of problems, named at the top
MOST_PLACES = 3  # of each cause, the worst


@dataclass(slots=True)
class Group:
    """Connections with the same problem at the same address."""

    code: str  # of the finding; of connections at which closeseq failed, of their verdict
    end: End | None  # whose problem it is; None: both, or neither
    address: Address | None  # of a server's program with its port; None if `end` is
    indices: list[int] = field(default_factory=list)  # in the analysis
    connections: list[Connection] = field(default_factory=list)  # those to be shown

    @property
    def number(self) -> int:
        """How many connections there are."""
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
        """The code of the finding, or verdict, that all groups have."""
        return self.groups[0].code

    @property
    def end(self) -> End | None:
        """The endpoint that all groups have; None: both, or neither."""
        return self.groups[0].end

    @property
    def places(self) -> int:
        """How many groups there are."""
        return len(self.groups)

    @property
    def number(self) -> int:
        """How many connections there are, of all groups."""
        return sum(group.number for group in self.groups)

    @property
    def first(self) -> int:
        """What puts it before others of the same number: the first of its connections."""
        return min(group.first for group in self.groups)

    @property
    def indices(self) -> list[int]:
        """The indices of the connections of all groups, group by group."""
        return [index for group in self.groups for index in group.indices]


def causes(groups: Iterable[Group]) -> list[ProblemCause]:
    """Return the causes of problems: the worst first, of the same gravity the most frequent.

    Args:
        groups: each code, endpoint and address once.
    """
    found: dict[tuple[str, End | None], list[Group]] = {}
    for group in groups:
        found.setdefault((group.code, group.end), []).append(group)
    several = [
        ProblemCause(sorted(one, key=lambda group: (-group.number, group.first))) for one in found.values()
    ]
    return worst_first(several)


def worst_first(found: Iterable[Cause]) -> list[Cause]:
    """Return causes in the order of reports."""
    return sorted(found, key=lambda cause: (rank(cause.code), -cause.number, cause.first))


def shares(found: Iterable[ProblemCause], most: int | None) -> list[list[int]]:
    """Return how many connections of each group to show: a list for each cause, in the order of its groups.

    Args:
        found: the causes.
        most: how many in all, shared out among the MOST_PLACES worst groups of each cause; None for all there
            are.
    """
    sizes = [[group.number for group in cause.groups] for cause in found]
    if most is None:
        return sizes
    shown = allot([size for one in sizes for size in one[:MOST_PLACES]], most)
    return [[shown.pop(0) if place < MOST_PLACES else 0 for place in range(len(one))] for one in sizes]


def gather(selection: Selection, most: int | None) -> list[ProblemCause]:
    """Return the causes of problems, the worst first.

    Args:
        selection: the connections that are asked for; of each the worst problem counts.
        most: how many connections will be shown: each group keeps only its share of them. None for all.
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
    """Return the problem that best shows what to fix.

    Raises:
        ValueError: there is none.
    """
    return min(troubles(judged), key=gravity)


def of_group(group: Grouped, draw: Callable[[Grouped], list[str]], style: Style, failed: Failed) -> list[str]:
    """Return what `draw` makes of a group or cause; a line about the fault if closeseq itself fails at it.

    Args:
        group: whose lines are drawn.
        draw: returns its lines.
        style: how text may look: width, colours, ASCII only.
        failed: is called with the group's indices and the fault.
    """
    try:
        return draw(group)
    except Exception as fault:  # noqa: BLE001 - only this group is affected
        failed(group.indices, fault)
        text = f"{group.code}: closeseq failed to show this: {place(fault)}"
        return style.wrap(text, first=f"{group.number:>7,}  ")


def blame(
    found: Sequence[ProblemCause],
    style: Style,
    failed: Failed,
    *,
    together: bool = False,
    waiting: bool = False,
) -> Iterator[str]:
    """Yield the causes of problems and their worst places.

    Args:
        found: the causes, the worst first; if none, that is said.
        style: how text may look: width, colours, ASCII only.
        failed: is called if closeseq itself fails at a cause: with the indices of its connections, and the
            fault.
        together: many connections together have a problem, which was said before.
        waiting: some were in CLOSE_WAIT when the capture ended, which is said next.
    """
    if not found:
        if together:
            yield "No connection has a problem by itself."
        elif waiting:
            yield style.paint("No problem yet.", "heading")
        else:
            yield style.paint("No problems found.", "good")
        return
    number = sum(cause.number for cause in found)
    yield style.paint(f"{count(number, 'connection')} with a problem", "problem")
    for cause in found[:MOST_GROUPS]:
        yield from of_group(cause, lambda one: _blamed(one, style), style, failed)
    if len(found) > MOST_GROUPS:
        yield f"{sum(cause.number for cause in found[MOST_GROUPS:]):>7,}  others"


def _blamed(cause: ProblemCause, style: Style) -> list[str]:
    where = where_of(cause)
    text = f"{cause.code}{f' at {where}: ' if where else ' '}{vocabulary.lookup(cause.code).meaning}"
    return style.wrap(text, first=f"{cause.number:>7,}  ")


def where_of(cause: ProblemCause) -> str:
    """Return where a problem is, its worst places if there are several; empty if at no one endpoint."""
    if len(cause.groups) > 1:
        return f"the {cause.end} {_places(cause)}"
    return "" if cause.end is None else _where(cause.groups[0])


def _places(cause: ProblemCause) -> str:
    """Return the worst places, each with its number of connections, and how many more there are."""
    worst = cause.groups[:MOST_PLACES]
    named = [f"{_place(group)} ({group.number:,})" for group in worst]
    rest = cause.places - len(worst)
    if rest:
        number = cause.number - sum(group.number for group in worst)
        named.append(f"{count(rest, 'other')} ({number:,})")
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
    """Return where a program is: a client's address, a server's address and port.

    Args:
        end: which of the two it is.
        address: of this endpoint.
    """
    return f"the {end} {address.address if end is End.CLIENT else address}"


def all_details(found: Sequence[ProblemCause], style: Style, failed: Failed) -> Iterator[str]:
    """Yield a line for each problem connection that a group keeps, under the advice for the cause.

    Args:
        found: the causes, the worst first.
        style: how text may look: width, colours, ASCII only.
        failed: as in `blame`.
    """

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
    """Return the lines about a problem connection.

    Args:
        connection: one with a problem.
        style: how text may look: width, colours, ASCII only.
    """
    return contained(
        connection,
        lambda one: _problem(one, style),
        lambda one: [f"    {line}" for line in bare_lines(one, style)],
    )


def not_shown(number: int, style: Style, what: str = "problem connections") -> Iterator[str]:
    """Yield how many connections are not shown; nothing if all are.

    Args:
        number: of them; below 1 if all are shown.
        style: how text may look: width, colours, ASCII only.
        what: their name, in the plural.
    """
    if number > 0:
        text = f"{number:,} more {what}; --all shows them, --limit N the first N"
        yield from style.wrap(text, first="  ", then="    ")


def advice_of(group: Group) -> str:
    """Return the advice for a group's connections: that of the first one it keeps; it must keep one."""
    if troubles(group.connections[0]):
        return printable(worst_of(group.connections[0]).advice)
    return printable(vocabulary.lookup(group.code).advice)


def titled(group: Group, advice: str, style: Style) -> list[str]:
    """Return the lines with a group's problem, where it is, and the advice.

    Args:
        group: its number of connections is said too.
        advice: printable.
        style: how text may look: width, colours, ASCII only.
    """
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
    """Return how many of each group to show, so that each group has a share.

    Args:
        sizes: how many each group has.
        most: how many to show in all; all of them if there are fewer.
    """
    shares = [0] * len(sizes)
    while most and shares != sizes:
        for i, size in enumerate(sizes):
            if most and shares[i] < size:
                shares[i] += 1
                most -= 1
    return shares
