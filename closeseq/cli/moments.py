"""A moment of a capture, as people write it after `--at`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import click

FRACTION = re.compile(r"[.,](\d+)(?=$|Z|[+-]\d\d)")
NS = 1_000_000_000
FOREVER = 10**12  # seconds


@dataclass(frozen=True)
class Moment:
    """A moment of a capture: so long after its first packet, or a time, or (neither) its end."""

    offset_ns: int | None = None
    time_ns: int | None = None

    def within(self, first_ns: int, last_ns: int) -> int:
        """Return the moment since the Unix epoch, for a capture of these first and last packets."""
        if self.time_ns is not None:
            return self.time_ns
        return last_ns if self.offset_ns is None else first_ns + self.offset_ns


def moment(text: str) -> Moment:
    """Return the moment that seconds, an ISO 8601 time or `end` name. Raises BadParameter."""
    if text == "end":
        return Moment()
    try:
        return Moment(time_ns=absolute(text)) if "T" in text or " " in text else Moment(relative(text))
    except (ValueError, ArithmeticError) as error:
        what = "neither seconds since the first packet nor an ISO 8601 time nor 'end'"
        raise click.BadParameter(f"{text!r} is {what}") from error


def relative(text: str) -> int:
    """Return seconds as nanoseconds. Raises ValueError or ArithmeticError."""
    number = Decimal(text)
    if not 0 <= number < FOREVER:
        raise ValueError(text)
    return int(number * NS)


def absolute(text: str) -> int:
    """Return an ISO 8601 time as whole nanoseconds since the Unix epoch.

    Raises ValueError, or OverflowError if the time in UTC is outside the years 1 to 9999.
    """
    fraction = FRACTION.search(text)
    whole = datetime.fromisoformat(FRACTION.sub("", text))
    if whole.tzinfo is None:
        whole = whole.replace(tzinfo=UTC)
    since = whole.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    digits = fraction[1][:9] if fraction else ""
    return (since.days * 86_400 + since.seconds) * NS + int(digits.ljust(9, "0"))
