"""Where the report goes: when what is written bit by bit reaches whoever reads."""

from __future__ import annotations

import math
import os

import pytest

from closeseq.cli.output import AT_ONCE, Output


def available(descriptor):
    """Return what can be read at this moment."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, AT_ONCE * 2).decode()
    except BlockingIOError:
        return ""


@pytest.mark.parametrize(
    ("within", "size", "at_once"),
    [(0, 1, True), (math.inf, 1, False), (math.inf, AT_ONCE, True)],
    ids=["it has waited", "more will come", "there is much of it"],
)
def test_what_is_written_waits_for_more_or_not(within, size, at_once):
    reading, writing = os.pipe()
    first, seen = "x" * (size - 1) + "\n", []

    def pieces():
        yield first
        seen.append(available(reading))
        yield "second\n"

    with os.fdopen(writing, "w") as stream:
        Output(stream, None).write(pieces(), within=within)
    seen.append(available(reading))
    os.close(reading)
    assert seen == ([first, "second\n"] if at_once else ["", first + "second\n"])


def test_what_was_made_before_an_error_is_written():
    reading, writing = os.pipe()

    def pieces():
        yield "first\n"
        raise ZeroDivisionError

    with os.fdopen(writing, "w") as stream, pytest.raises(ZeroDivisionError):
        Output(stream, None).write(pieces())
    assert available(reading) == "first\n"
    os.close(reading)
