"""Whole timelines: each file of tests/cases is a sentence, a script, and all that is drawn of it.

A file begins with what it shows and the section of the RFC that says so. Then comes the script, indented
(closeseq/script.py explains the words), with these settings where they are not the usual ones:

    wait = 75            seconds between the last packet and the moment for which the case is judged
    timestamps = yes     both ends send the timestamps option (RFC 7323)
    system = macos       whose packets both ends send: linux, windows, macos or bsd
    timers = macos       whose TIME_WAIT and FIN_WAIT_2 timers are assumed
    numbers = 1 2        initial sequence numbers of client and server
    gap = 0.1            milliseconds between two segments
    dropped = 7          packets that the capture itself says it lost

After the line of dashes stands the text of every connection of the script, as `closeseq timeline` prints it.

After a change that is meant:

    export PYTHONPATH=tests/support
    python tests/tcp/test_cases.py --rewrite              writes the text of all cases anew
    python tests/tcp/test_cases.py --rewrite NAME...      of these; a new file needs no text, nor the dashes

Then read the difference: every state and every `?` was held against RFC 9293 before it went in.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING

import pytest

from closeseq import Connection, Settings, Timers, format_timeline
from closeseq.script import conversations
from closeseq.verdict.fault import CODE as NOT_JUDGED
from closeseq.verdict.vocabulary import entries
from places import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "tests" / "cases"
CASES = sorted(FOLDER.glob("*.txt"))
DASHES = "-" * 100
SETTING = re.compile(r"(?P<name>\w+) = (?P<value>.+)")
SETTINGS = {"wait", "timestamps", "system", "timers", "numbers", "gap", "dropped"}
SECOND = 1_000_000_000

# What no script can show: a fault of closeseq itself (tests/test_faults.py plants some).
NOT_SHOWN = {NOT_JUDGED}


@dataclass(frozen=True)
class Case:
    """One file."""

    head: str  # all before the dashes
    drawn: str  # all after them

    @classmethod
    def read(cls, path: Path) -> Case:
        head, _, drawn = path.read_text().partition(f"\n{DASHES}\n")
        return cls(head.rstrip("\n"), drawn)

    @property
    def title(self) -> str:
        return self.head.partition("\n\n")[0]

    def connections(self) -> list[Connection]:
        """Return the connections of the script, judged for the case's moment."""
        lines = [line.strip() for line in self.head.partition("\n\n")[2].splitlines() if line.strip()]
        matches = {line: SETTING.fullmatch(line) for line in lines}
        given = {match["name"]: match["value"] for match in matches.values() if match}
        assert set(given) <= SETTINGS
        client, server = given.get("numbers", "4294967293 4294967176").split()
        found = conversations(
            " ".join(line for line, match in matches.items() if not match),
            numbers=(int(client), int(server)),
            gap_ns=round(float(given.get("gap", "1")) * SECOND / 1000),
            timestamps="timestamps" in given,
            system=given.get("system", "linux"),
        )
        now_ns = max(one.last_ns for one in found) + round(float(given.get("wait", "0")) * SECOND)
        settings = Settings(timers=Timers.of(given.get("timers", "linux")))
        dropped = int(given.get("dropped", "0"))
        return [Connection(one, settings, now_ns, dropped=dropped) for one in found]

    def draw(self) -> str:
        """Return what is drawn today."""
        return "\n".join(format_timeline(one) for one in self.connections())


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_the_timeline_is_drawn_as_it_was_read(path):
    case = Case.read(path)
    drawn = case.draw()
    if drawn != case.drawn:
        rows = unified_diff(case.drawn.splitlines(), drawn.splitlines(), "in the file", "drawn", lineterm="")
        pytest.fail("\n".join([case.title, "", *rows]), pytrace=False)


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_a_case_says_in_a_sentence_what_it_shows(path):
    assert Case.read(path).title.endswith(".")


def test_every_verdict_and_every_finding_has_a_case():
    shown = set()
    for path in CASES:
        for connection in Case.read(path).connections():
            shown |= {connection.verdict, *(finding.code for finding in connection.findings)}
    assert shown == {entry.code for entry in entries() if entry.kind in ("verdict", "finding")} - NOT_SHOWN


def rewrite(names: list[str]) -> None:
    """Write what is drawn today into the files of these names, or into all."""
    known = {path.stem: path for path in CASES}
    for name in names or known:
        case = Case.read(known[name])
        known[name].write_text(f"{case.head}\n\n{DASHES}\n{case.draw()}")


if __name__ == "__main__":
    if "--rewrite" not in sys.argv:
        sys.exit(__doc__)
    rewrite([name.removesuffix(".txt") for name in sys.argv[1:] if name != "--rewrite"])
