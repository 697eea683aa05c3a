"""Text, numbers and times for people, without characters that a terminal would interpret."""

from __future__ import annotations

import os
import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.verdict.model import Finding


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NS = 1_000_000_000

NARROWEST = 40  # columns that reports are made for
READABLE = 24  # columns that a paragraph needs
SHALLOW = 4  # columns to indent by where there are few
STYLES = {"problem": "1;31", "good": "32", "lost": "31", "state": "1", "dim": "2", "heading": "1"}


@dataclass(frozen=True, slots=True)
class Style:
    """How text may look: its width, whether only ASCII, whether coloured."""

    width: int = 100  # columns
    ascii: bool = False  # draw with ASCII only
    color: bool = False  # with ANSI escape sequences

    def paint(self, text: str, style: str) -> str:
        """Return the text in one of STYLES; as it is without colour.

        Args:
            text: printable, of one line.
            style: a name in STYLES.
        """
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.color and text.strip() else text

    @property
    def to(self) -> str:
        """An arrow from one thing to another."""
        return "->" if self.ascii else "→"

    def wrap(self, text: str, *, first: str = "", then: str | None = None) -> list[str]:
        """Return the text in lines of at most `width`.

        Where what the lines begin with leaves too few columns, the text goes under `first`, indented less.
        Words are not broken: one that is longer than a line sticks out.

        Args:
            text: of one paragraph.
            first: what the first line begins with.
            then: what the later lines begin with; by default so many blanks as `first` has characters.
        """
        later = " " * len(first) if then is None else then
        most = max(0, self.width - READABLE)  # columns to indent by
        if len(later) > most:
            later = later[: min(most, SHALLOW)]
        if len(first) > most:
            return (
                [first.rstrip(), *self._wrapped(text, later, later)]
                if first.strip()
                else self._wrapped(text, later, later)
            )
        return self._wrapped(text, first, later) or [first.rstrip()]

    def _wrapped(self, text: str, first: str, later: str) -> list[str]:
        return textwrap.wrap(
            text,
            max(self.width, len(later) + 1),
            initial_indent=first,
            subsequent_indent=later,
            break_long_words=False,
            break_on_hyphens=False,
        )


def printable(text: str) -> str:
    r"""Return the text with every character that is not printable written as an escape.

    Names come from anywhere: escape sequences, line ends, characters that change the direction of writing,
    and bytes that are not UTF-8 must not reach a terminal as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@lru_cache(maxsize=64)
def named(path: str) -> str:
    """Return a file's name as text for JSON, with bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def seconds(ns: int) -> float:
    """Return nanoseconds as seconds: the nearest float, so that no digits are printed beyond them."""
    return ns / NS


def moment(ns: int, digits: int = 9) -> str:
    """Return a time as ISO 8601 in UTC, from integers: `2026-11-20T12:18:06.194Z`.

    Args:
        ns: since the Unix epoch.
        digits: of the second's fraction, which is cut there and not rounded; 0 to 9.
    """
    whole, rest = divmod(ns, NS)
    date = _second(whole)
    return f"{date}.{rest:09d}"[: len(date) + 1 + digits].rstrip(".") + "Z"


@lru_cache(maxsize=1024)
def _second(whole: int) -> str:
    """Return a time in whole seconds; many connections begin within one."""
    return (EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")


def when(ns: int, digits: int = 6) -> str:
    """Return a time for a person: `2026-11-20 12:18:06.194806 UTC`.

    Args:
        ns: since the Unix epoch.
        digits: as in `moment`.
    """
    return moment(ns, digits).replace("T", " ").replace("Z", " UTC")


def evidence(finding: Finding, most: int = 6) -> str:
    """Return the packets that show a finding, without those in its summary.

    Args:
        finding: its packets are numbered as in the capture.
        most: how many to name; of more, how many more there are.
    """
    named = {int(number) for number in re.findall(r"#(\d+)", finding.summary)}
    return packets((number for number in finding.packets if number not in named), most)


def packets(numbers: Iterable[int], most: int = 6) -> str:
    """Return packet numbers as `#8 #9 #12`; of many the first ones and how many more.

    Args:
        numbers: in the order to name them; one that comes again is named once.
        most: how many to name.
    """
    named = list(dict.fromkeys(numbers))
    shown = " ".join(f"#{number}" for number in named[:most])
    return shown if len(named) <= most else f"{shown} and {len(named) - most} more"
