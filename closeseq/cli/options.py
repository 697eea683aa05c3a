"""The options that commands share, and the types of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import ip_address
from typing import Any, TypeVar

import click

from closeseq.errors import UnknownWordError
from closeseq.settings import BY_SYSTEM

F = TypeVar("F", bound=Callable[..., Any])


def seconds(text: str | float) -> float:
    """Return a length of time in seconds: finite, not negative. Raises BadParameter."""
    try:
        number = float(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a number of seconds") from error
    if not (math.isfinite(number) and number >= 0):
        raise click.BadParameter(f"{text!r} is not a length of time")
    return number


def host(text: str) -> str:
    """Return an IP address as closeseq writes it; names are not looked up, here or anywhere.

    An IPv6 address may stand in brackets, as it does beside a port.

    Raises:
        BadParameter: it is no IP address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text
    try:
        return str(ip_address(bare))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not an IP address; names are never looked up") from error


LOOPBACK = "127.0.0.1"
HIGHEST_PORT = 65535


def port(text: str | int) -> int:
    """Return a port's number. Raises BadParameter."""
    number = str(text)
    if not _is_port(number):
        raise click.BadParameter(f"{text!r} is not a port from 0 to 65535; several ports: -p 80 -p 8080")
    return int(number)


def _is_port(text: str) -> bool:
    """Whether it is a port's number. More digits than a port has are not converted: Python may refuse to."""
    return (
        text.isascii()
        and text.isdecimal()
        and len(text) <= len(str(HIGHEST_PORT))
        and int(text) <= HIGHEST_PORT
    )


def listening(text: str) -> tuple[str, int]:
    """Return the address and port to listen on that `ADDRESS:PORT`, `:PORT` or `PORT` names.

    Without an address it is LOOPBACK.

    Raises:
        BadParameter: it is none of these.
    """
    address, _, number = text.rpartition(":")
    if not _is_port(number):
        raise click.BadParameter(f"{text!r} does not end with a port, as in :9469")
    if ":" in address and not (address.startswith("[") and address.endswith("]")):
        raise click.BadParameter(f"{text!r}: write an IPv6 address in brackets, as in [::1]:9469")
    return host(address.strip("[]")) if address else LOOPBACK, int(number)


def codes(*kinds: str) -> Callable[[str], frozenset[str]]:
    """Return a converter of comma-separated codes that refuses codes of other kinds.

    Args:
        kinds: as for `code`.

    Returns:
        the converter, which raises BadParameter.
    """

    def convert(text: str) -> frozenset[str]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:  # an empty shell variable would otherwise select everything, and fail on nothing
            raise click.BadParameter(f"no {' or '.join(_short(kinds))} is named")
        return frozenset(code(word, kinds) for word in words)

    return convert


def code(word: str, kinds: tuple[str, ...]) -> str:
    """Return the code of a word that `explain` knows.

    Args:
        word: in any spelling that `vocabulary.lookup` knows.
        kinds: what it may be: "verdict", "finding" and so on, values of EntryKind.

    Raises:
        BadParameter: it is not known, or of another kind.
    """
    from closeseq.verdict import vocabulary

    try:
        entry = vocabulary.lookup(word, kinds)
    except UnknownWordError as unknown:
        raise click.BadParameter(str(unknown)) from unknown
    if entry.kind not in kinds:
        raise click.BadParameter(f"{word!r} is a {entry.kind}, not a {' or a '.join(_short(kinds))}")
    return entry.code


def _short(kinds: tuple[str, ...]) -> list[str]:
    """Return kinds of words without saying again of how many connections a finding is."""
    return list(dict.fromkeys(kind.partition(" of ")[0] for kind in kinds))


def errors(text: str) -> frozenset[str]:
    """Return the error codes that comma-separated names or texts mean. Raises BadParameter."""
    from closeseq.verdict.model import ErrorCode
    from closeseq.verdict.vocabulary.foreign import foreign

    found = set()
    for word in text.split(","):
        codes = {entry.error for entry in foreign(word) if entry.error is not None}
        if not codes:
            raise click.BadParameter(f"{word.strip()!r} is not one of {', '.join(ErrorCode)}")
        found |= codes
    return frozenset(found)


# A file that is there and must not be read is reported where it is opened, as any other that cannot be read.
FILE = click.Path(allow_dash=True, readable=False)

FORMATS = ("summary", "table", "timeline", "json", "jsonl", "csv")
PICTURES = ("svg", "diagram", "mermaid", "plantuml", "msc", "dot")  # of one connection
PARQUET, PCAPNG = "parquet", "pcapng"  # formats of `analyze` that are no text

READING = (
    click.option(
        "-p",
        "--port",
        type=port,
        metavar="PORT",
        multiple=True,
        help="Only connections with this port, client's or server's. May be given more than once.",
    ),
    click.option(
        "--host",
        type=host,
        metavar="ADDRESS",
        multiple=True,
        help="Only connections with this IP address, client's or server's. May be given more than once.",
    ),
    click.option(
        "-c", "--count", type=click.IntRange(min=1), metavar="N", help="Stop after reading N packets."
    ),
    click.option(
        "--stuck-after",
        type=seconds,
        metavar="SECONDS",
        default=60.0,
        show_default=True,
        help="A wait of this length counts as stuck.",
    ),
    click.option(
        "--os",
        "os",
        type=click.Choice(sorted(BY_SYSTEM)),
        default="linux",
        show_default=True,
        help="The system whose timers end TIME_WAIT and FIN_WAIT_2.",
    ),
    click.option(
        "--time-wait",
        type=seconds,
        metavar="SECONDS",
        help="Length of TIME_WAIT (2MSL), instead of the system's.",
    ),
    click.option(
        "--fin-timeout",
        type=seconds,
        metavar="SECONDS",
        help="Length of FIN_WAIT_2 without an owner, instead of the system's.",
    ),
    click.option(
        "--ephemeral-ports",
        type=click.IntRange(min=1),
        metavar="N",
        help="Local ports that a client has to connect from, instead of the system's.",
    ),
    click.option(
        "-n",
        "numeric",
        is_flag=True,
        expose_value=False,
        help="Resolve no names. Always on: closeseq never does.",
    ),
)

TOGETHER = (
    click.option(
        "--each", is_flag=True, help="Analyse each file by itself, also if files continue each other."
    ),
)

OF_ALL = (
    click.option(
        "--population",
        is_flag=True,
        help="With -f jsonl: also a line of the kind population, about what the connections show together.",
    ),
)

WORKING = (
    click.option(
        *("-j", "--jobs"),
        type=click.IntRange(min=1),
        metavar="N",
        help="Use N processes; the output is the same. By default as many as there are processors.",
    ),
)

CHOOSING = (
    click.option(
        "--verdict",
        type=codes("verdict"),
        metavar="CODE,...",
        multiple=True,
        help="Only connections with one of these verdicts, e.g. reset,closing.",
    ),
    click.option(
        "--finding",
        type=codes("finding"),
        metavar="CODE,...",
        multiple=True,
        help="Only connections with one of these findings.",
    ),
    click.option(
        "--connection",
        type=click.IntRange(min=1),
        multiple=True,
        metavar="ID",
        help="Only the connection with this number. May be given more than once.",
    ),
)

ASKING = (
    click.option(
        "--why",
        type=errors,
        metavar="ERROR,...",
        multiple=True,
        help="Only connections in which a program got this error: ECONNRESET, EPIPE, ECONNREFUSED, ETIMEDOUT "
        "or EADDRINUSE. The summary shows at which packet, and why.",
    ),
)

SAVING = (
    click.option(
        "-o",
        "--output",
        type=FILE,
        metavar="FILE",
        help="Write to this file, which must not exist yet.",
    ),
    click.option("--force", is_flag=True, help="With -o: overwrite the file."),
)

WRITING = (
    *SAVING,
    click.option("--ascii", "ascii_only", is_flag=True, help="Draw without line-drawing characters."),
)

FAILING = (
    click.option(
        "--fail-on",
        type=codes("verdict", "finding", "finding of many connections"),
        metavar="CODE,...",
        multiple=True,
        help="Exit with status 1 if a connection shown has one of these verdicts or findings, or all "
        "connections together show one.",
    ),
)

SHOWING = (
    click.option(
        "--all", "show_all", is_flag=True, help="Show every problem, shape and timeline, however many."
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=20,
        show_default=True,
        metavar="N",
        help="Show at most N problem connections, or N timelines.",
    ),
    *FAILING,
)

CAPTURES = click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...", type=FILE)


def options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Return a decorator that gives a command all options of these groups, in this order."""

    def decorate(command: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


FRACTION = re.compile(r"[.,](\d+)(?=$|Z|[+-]\d\d)")


NS = 1_000_000_000


FOREVER = 10**12  # seconds


@dataclass(frozen=True)
class Moment:
    """A moment of a capture: an offset from its first packet, or a time, or (neither) its end."""

    offset_ns: int | None = None
    time_ns: int | None = None  # since the Unix epoch

    def within(self, first_ns: int, last_ns: int) -> int:
        """Return the moment in nanoseconds since the Unix epoch.

        Args:
            first_ns: of the capture's first packet, since the Unix epoch.
            last_ns: of its end.
        """
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
    """Return seconds as nanoseconds, cut to whole ones.

    Raises:
        ValueError: the text is below zero, or FOREVER or more.
        ArithmeticError: it is no number.
    """
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
