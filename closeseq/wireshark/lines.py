"""closeseq's lines in Wireshark's files of colours and filter buttons, among those of the user.

Wireshark writes both files again when its user changes something in its dialogs; comments are then lost. So a
line is ours by the name that it has in these dialogs. All others are kept byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MADE = b"# closeseq made this file; uninstalling removes it, unless it was changed\n"
WHITE, DARK = (0xFFFF, 0xFFFF, 0xFFFF), (0x1212, 0x1C1C, 0x2424)


class ColorRule(NamedTuple):
    """A rule for the colours of packets."""

    name: str
    filter: str  # a display filter: which packets
    background: tuple[int, int, int]  # 16 bits each
    foreground: tuple[int, int, int] = DARK


class FilterButton(NamedTuple):
    """A button beside the display filter; before `//` stands the menu that it is in."""

    name: str
    filter: str  # a display filter: which packets it shows
    comment: str  # what Wireshark says of the button


# The first that fits a packet gives its colours. Green and blue: as in the classic state diagrams.
COLORS = (
    ColorRule("closeseq: problem", 'closeseq.severity == "problem"', (0xC5C5, 0x2222, 0x2222), WHITE),
    ColorRule("closeseq: lost", 'closeseq.note contains "lost"', (0xFFFF, 0xC4C4, 0x8C8C)),
    ColorRule(
        "closeseq: active close", 'closeseq.transition contains "-> FIN_WAIT_1"', (0x9C9C, 0xDADA, 0x9898)
    ),
    ColorRule(
        "closeseq: passive close", 'closeseq.transition contains "-> LAST_ACK"', (0x9D9D, 0xC3C3, 0xF2F2)
    ),
    ColorRule("closeseq: state changes", "closeseq.transition", (0xFFFF, 0xF7F7, 0xCCCC)),
)
BUTTONS = (
    FilterButton("closeseq//All comments", "closeseq", "packets that closeseq says something about"),
    FilterButton("closeseq//Problems", 'closeseq.severity == "problem"', "packets that show a problem"),
    FilterButton("closeseq//Findings", "closeseq.finding", "packets that show a problem or a notice"),
    FilterButton("closeseq//State changes", "closeseq.transition", "packets that change a TCP state"),
    FilterButton("closeseq//Lost", 'closeseq.note contains "lost"', "packets that did not arrive"),
    FilterButton(
        "closeseq//Assumed states",
        'closeseq.client.certainty == "assumed" || closeseq.server.certainty == "assumed"',
        "states that no packet proves",
    ),
)


def color_line(rule: ColorRule) -> bytes:
    """Return a rule as a line of `colorfilters`."""
    colors = "".join(f"[{','.join(map(str, color))}]" for color in (rule.background, rule.foreground))
    return f"@{rule.name}@{rule.filter}@{colors}\n".encode()


def color_name(line: bytes) -> str | None:
    """Return the name of the rule in a line of `colorfilters`; None if it has none."""
    parts = line.removeprefix(b"!").split(b"@", 2)  # ! before a rule that is switched off
    return parts[1].decode(errors="replace") if len(parts) > 2 and not parts[0] else None  # noqa: PLR2004


def button_line(button: FilterButton) -> bytes:
    """Return a button as a line of `dfilter_buttons`."""
    quoted = (text.replace("\\", "\\x5c").replace('"', "\\x22") for text in button)
    return ('"TRUE",' + ",".join(f'"{text}"' for text in quoted) + "\n").encode()


def button_name(line: bytes) -> str | None:
    """Return the name of the button in a line of `dfilter_buttons`; None if it has none."""
    parts = line.split(b'"', 4)
    return parts[3].decode(errors="replace") if len(parts) > 4 and not parts[0] else None  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class LineFile:
    """One of the two kinds of files."""

    name: str  # of the file
    lines: dict[str, bytes]  # ours, by name
    name_of: Callable[[bytes], str | None]  # of a line; None: it is no rule or button
    from_common: bool  # whether without this file that of Wireshark itself holds, and with it no more

    def added(self, data: bytes) -> bytes:
        """Return a file with our lines before the user's; those that are there already stay as they are.

        Args:
            data: the whole file; empty if there is none.
        """
        lines = data.splitlines(keepends=True)
        there = {self.name_of(line) for line in lines}
        first = next((i for i, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
        if lines and not lines[-1].endswith((b"\n", b"\r")) and first == len(lines):
            lines[-1] += b"\n"
        new = [line for name, line in self.lines.items() if name not in there]
        return b"".join([*lines[:first], *new, *lines[first:]])

    def removed(self, data: bytes) -> bytes:
        """Return a file, given as a whole, without our lines."""
        lines = data.splitlines(keepends=True)
        return b"".join(line for line in lines if line != MADE and self.name_of(line) not in self.lines)

    def has(self, data: bytes) -> bool:
        """Return whether any line of a file, given as a whole, is ours."""
        return self.removed(data) != data


COLOR_FILE = LineFile(
    "colorfilters", {rule.name: color_line(rule) for rule in COLORS}, color_name, from_common=True
)
BUTTON_FILE = LineFile(
    "dfilter_buttons",
    {button.name: button_line(button) for button in BUTTONS},
    button_name,
    from_common=False,
)
