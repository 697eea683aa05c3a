"""Spans of time, counts and packet numbers as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONG = 180  # from so many seconds on a span is in minutes, from so many minutes on in hours
MOST_NAMED = 6  # packets in one sentence


def span(ns: int) -> str:
    """Return a span of nanoseconds with three significant digits: `35 us`, `12.4 s`, `5 min 20 s`."""
    seconds = ns / SECOND
    if abs(ns) < SECOND // 10_000:
        return f"{ns / 1000:.3g} us" if ns else "0 s"
    if abs(ns) < SECOND - 500_000:  # what is closer to a second is one, with three digits
        return f"{seconds * 1000:.3g} ms"
    if abs(seconds) < LONG:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < LONG:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 byte`, `12,345 bytes`.

    Args:
        number: how many, from 0.
        noun: in the singular.
        plural: what it is for any number but 1; None for the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def were(number: int) -> str:
    """Return the verb for so many things in the past: `was` for one, `were` for any other number."""
    return "was" if number == 1 else "were"


def times(number: int) -> str:
    """Return `once`, `twice`, `5 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def packets(numbers: Iterable[int]) -> str:
    """Return packet numbers as text: `#8`, `#8 #9`; of more than `MOST_NAMED` the first ones and the last."""
    named = [f"#{number}" for number in numbers]
    return " ".join(named if len(named) <= MOST_NAMED else [*named[: MOST_NAMED - 2], "...", named[-1]])


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list in a sentence: `a`, `a and b`, `a, b and c`; empty for none.

    Args:
        words: in their order.
        last: the word in front of the last one: "and", "or".
    """
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
