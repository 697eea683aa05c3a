"""How wide the terminal is, and help that fits it."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

USUAL_HELP = 50  # columns of click's narrowest help
WIDEST_HELP = 100
UNBROKEN = "\N{NON-BREAKING HYPHEN}"
EXAMPLE = re.compile(r"(?P<indent> *)(?P<command>\S.*?\S) {2,}(?P<comment>[^ #].*)")


def columns(stream: TextIO, otherwise: int = 80) -> int:
    """Return how wide the terminal is that a stream goes to; COLUMNS says it before the terminal does."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except (OSError, ValueError, AttributeError):  # no terminal, or not even a descriptor
        return otherwise


def help_settings() -> dict[str, Any]:
    """Return click's settings for how help looks, also where it has to be narrower than click has it."""
    settings: dict[str, Any] = {
        "help_option_names": ["-h", "--help"],
        "max_content_width": WIDEST_HELP,
    }
    narrow = columns(sys.stdout) < USUAL_HELP + 2
    return settings | ({"terminal_width": columns(sys.stdout) - 2} if narrow else {})


class HelpFormatter(click.HelpFormatter):
    """Help whose columns are shared out by the terminal's width, and whose words stay whole."""

    def write_text(self, text: str) -> None:
        """Write a text; of examples, what is said of them goes below where it has no room."""
        super().write_text(_whole(fitted(text, self.width - self.current_indent)))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms with their definitions; a third of the width is enough for the terms."""
        whole = [(term, _whole(text)) for term, text in rows]
        super().write_dl(whole, min(col_max, self.width // 3), col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(UNBROKEN, "-")


class Context(click.Context):
    """click's, with our help."""

    formatter_class = HelpFormatter


def with_our_help(command: click.Command) -> None:
    """Let a command, and those below it, write their help so."""
    command.context_class = Context
    for below in getattr(command, "commands", {}).values():
        with_our_help(below)


def _whole(text: str) -> str:
    """Return the text with hyphens at which click breaks no line."""
    return text.replace("-", UNBROKEN)


def fitted(epilog: str, width: int) -> str:
    """Return examples so that what is said of a command stands under it where it has no room beside it.

    The commands themselves stay in one piece, to be copied.
    """
    lines = []
    for line in epilog.split("\n"):
        found = EXAMPLE.fullmatch(line) if len(line) > width else None
        if found:
            deeper = found["indent"] + " " * 4
            lines.append(found["indent"] + found["command"])
            lines += textwrap.wrap(found["comment"], width, initial_indent=deeper, subsequent_indent=deeper)
        elif len(line) > width and not line.startswith("  "):
            lines += textwrap.wrap(line, width)
        else:
            lines.append(line)
    return "\n".join(lines)
