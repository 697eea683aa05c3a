"""Objects of records as JSON in one line; those of a class of connections as JSON with holes for numbers."""

from __future__ import annotations

import json
import re
from operator import index
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins
from msgspec.json import Encoder
from msgspec.json import format as json_format

from closeseq.classes.drawing import NumberHole
from closeseq.classes.numbers import Number
from closeseq.report.text import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.classes.forms import TextHole, Wording
    from closeseq.report.rows import Record, Row


def encode(row: Row | Record) -> str:
    """Return a row as JSON in one line, in ASCII, which every terminal and reader takes."""
    try:
        return _line(_ENCODER.encode(row))
    except UnicodeEncodeError:  # half a surrogate pair, as in a name that is no UTF-8
        return json.dumps(to_builtins(row))


def _line(encoded: bytes) -> str:
    return _ascii(json_format(encoded, indent=0).decode())


def _ascii(text: str) -> str:
    return text if text.isascii() else _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


_ENCODER = Encoder()
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


# -------------------------------------------------------------------------------- of a class of connections

# What stands in JSON where a hole is in a text: alone in its quotes, or among other words.
_HOLE = re.compile(r'"\\u0000(\d+)\\u0000"|\\u0000(\d+)\\u0000')
# What makes a number of a hole; and what makes its digits, which are the same in a text, if it has no format.
_OF_NUMBERS: dict[Callable[..., Any], Callable[[int], Any] | None] = {index: None, seconds: seconds}
_DIGITS = (str, format)


def pieces(row: Row, wording: Wording) -> list[str | TextHole | NumberHole]:
    """Return a row of noting numbers as JSON in pieces, and what leaves its holes.

    Args:
        row: with Numbers where another row has whole numbers, and texts with holes.
        wording: keeps the holes.
    """

    def marked(one: object) -> str:
        return str(one) if isinstance(one, str) else wording.mark(index, one)

    text = _line(Encoder(enc_hook=marked).encode(row))
    found: list[str | TextHole | NumberHole] = []
    for place, part in enumerate(_HOLE.split(text)):
        if place % 3 == 0 or part is None:
            found.append(part or "")
            continue
        hole, quote = wording.holes[int(part)], '"' if place % 3 == 1 else ""
        if quote and hole.how in _OF_NUMBERS:
            found.append(NumberHole(hole.given[0], _OF_NUMBERS[hole.how]))
        elif hole.how in _DIGITS and isinstance(hole.given[0], Number) and not any(hole.given[1:]):
            found += [quote, NumberHole(hole.given[0]), quote]
        else:
            found += [quote, hole, quote]
    return found


def numbers(values: list[Any]) -> list[str]:
    """Return numbers as JSON has them."""
    return _ENCODER.encode(values)[1:-1].decode().split(",")


def texts(found: list[str]) -> list[str]:
    """Return texts as they stand between the quotes of JSON."""
    # A quote within a text has a backslash before it, so that `","` stands only between two of them.
    return _ascii(_ENCODER.encode(found)[2:-2].decode()).split('","') if found else []
