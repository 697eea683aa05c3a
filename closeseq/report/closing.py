"""What is printed when a live capture ends: what was seen, what is not over, who is to blame, the counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from closeseq.report.selection import FIRST_BLAME
from closeseq.report.summary import MOST_GROUPS, Group, blame, how_they_ended, remarks_on, their_shapes
from closeseq.report.text import Style, printable
from closeseq.tcp.states import State
from closeseq.verdict import vocabulary
from closeseq.verdict.fault import CODE
from closeseq.verdict.text import count, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from closeseq.reading import Reading
    from closeseq.report.summary import Place
    from closeseq.watch.census import Census
    from closeseq.watch.news import News
    from closeseq.watch.watch import Watch


def closing(
    watch: Watch, last: Sequence[News], asked: str, style: Style, owners: Callable[[Group], Mapping[str, int]]
) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        watch: that has ended.
        last: what it said at its end: the connections that are not over.
        asked: the ports and hosts that were asked for, for when there was nothing.
        style: how text may look.
        owners: tells which programs hold the sockets that a group of problems is about, and how many.
    """
    census, reading = watch.census(), watch.reading
    yield from _seen(census, reading, asked, style)
    if not census.seen:
        return
    groups = _gather(watch, last)
    if groups:
        yield ""
        yield from blame(groups, sum(group.number for group in groups), style, watch.failed_at)
        for group in groups[:MOST_GROUPS]:
            for owner, number in owners(group).items():
                text = f"held by {owner}: {count(number, 'socket')}"
                yield from style.wrap(text, first=" " * 9)
    yield from _over(census, last, style)
    yield ""
    yield from how_they_ended(census.verdicts, style)
    yield ""
    yield from their_shapes(dict(census.shapes.most_common()), style, all_of_them=False)


def _over(census: Census, last: Sequence[News], style: Style) -> Iterator[str]:
    """Yield the problems of the connections that are over."""
    rest = Counter(census.problems)
    for news in last:
        for code in {code for code, _ in news.label.problems}:
            rest[code] -= len(news)
    rest = +rest
    if rest:
        yield ""
        yield style.paint("Problems of connections that are over", "heading")
    for code, number in rest.most_common():
        yield from style.wrap(f"{code}: {vocabulary.lookup(code).meaning}", first=f"{number:>7,}  ")


def _seen(census: Census, reading: Reading, asked: str, style: Style) -> Iterator[str]:
    lasted = ""
    if reading.first_ns is not None and reading.last_ns is not None:
        lasted = f" in {span(reading.last_ns - reading.first_ns)}"
    text = f"{printable(reading.path)}: {count(reading.packets, 'packet')}{lasted}, "
    text += count(census.seen, "TCP connection")
    yield from (style.paint(row, "heading") for row in style.wrap(text, then="  "))
    for remark in remarks_on(reading):
        yield from style.wrap(remark, first="  ", then="    ")
    if not reading.dropped and census.seen:
        yield "  no packet was lost"
    if census.evicted:
        given_up = f"{count(census.evicted, 'connection')} given up unfinished, the longest idle"
        yield from style.wrap(f"{given_up} (--max-connections)", first="  ", then="    ")
    if not census.seen:
        yield from style.wrap(f"no TCP connection{f' of {asked}' if asked else ''}", first="  ", then="    ")
    if census.open:
        ends = [
            f"{state} {census.client[state] + census.server[state]:,}"
            for state in State
            if _any(census, state)
        ]
        yield from style.wrap(
            f"{census.open:,} not over; sockets: {', '.join(ends)}", first="  ", then="    "
        )


def _any(census: Census, state: State) -> bool:
    return bool(census.client[state] or census.server[state])


def _gather(watch: Watch, last: Iterable[News]) -> list[Group]:
    """Return the problems of connections that are not over, by what and where, the most frequent first."""
    found: dict[Place, Group] = {}
    for news in last:
        try:
            placed = _placed(watch, news)
        except Exception as fault:  # noqa: BLE001 - it costs what is said of these connections alone
            watch.failed_at(news.indices, fault)
            placed = [((CODE, None, None), news.indices)]
        for key, indices in placed:
            found.setdefault(key, Group(*key)).indices += indices
    return sorted(found.values(), key=lambda group: -group.number)


def _placed(watch: Watch, news: News) -> list[tuple[Place, Sequence[int]]]:
    """Return what is wrong with connections, and where; nothing if they have no problem."""
    if not news.label.problems:
        return []
    code, end = min(news.label.problems, key=lambda one: (one[0] not in FIRST_BLAME, one[0]))
    if end is None:
        return [((code, None, None), news.indices)]
    return [((code, end, where), indices) for where, indices in watch.places(news.indices, end)]
