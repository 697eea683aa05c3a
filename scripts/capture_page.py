"""The page captures/README.md: what the captures are, and what closeseq finds in each.

Everything on it is taken from the experiments' own texts, the captures, and the kernel's answers.
"""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from closeseq.lab.agreement import Recording, agreement
from closeseq.lab.experiments import experiments
from closeseq.lab.kernel_answers import Answers
from closeseq.lab.story import numbers, verdict_of
from closeseq.report.text import evidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from closeseq.connection import Connection
    from closeseq.lab.registry import Experiment
    from closeseq.verdict.population.rules import PopulationFinding

WIDTH = 110
FORMATS = (".pcap", ".pcap.gz", ".pcapng")

HEAD = """\
# Captures

Small recordings of real sockets, one experiment a file: on Linux's loopback device, in the last chapter
over a path between two network namespaces, and in the one about a box through a router between two. They
are made by

    sudo .venv/bin/python scripts/record_captures [NAME...]

which runs the experiments of `closeseq lab`, each in a network namespace of its own, and writes this
page. Packets are captured with their first 128 bytes (on a path, 256 bytes of raw IP), in nanoseconds.

Beside each capture, `NAME.kernel.jsonl` holds what the kernel's socket table said after each step of the
experiment: the time in nanoseconds since the epoch, the step, and each socket's addresses, state, queues,
owner and timer. A socket that is not listed is CLOSED; listening ones are left out. Where no packet shows the
state of an end, `untold` says why. A line `transitions` lists every transition that the kernel's tracepoint
reported, a line `one_way_ns` how long packets take between the client and the capture point, and between that
and the server.

Three things to know when reading. The capture point on loopback is where a packet *arrives*: what is lost
"after the capture" is captured and never received; what is lost "before the capture" was sent and is not
there. Linux delays an ACK by up to 40 ms, so that a FIN often waits that long for its ACK. And the kernel
counts a FIN as one byte in its queues.

The server's port is 8080 everywhere; the client's varies from one recording to the next. Unless said
otherwise, packets 1 to 3 are the handshake and 4 to 7 an echo.

## What `closeseq analyze` has to find

A test reads this table. `verdict` and `initiator` list the distinct ones of a capture, in the order in which
its connections first show them; `findings` is what all its connections together have, in alphabetical order.
The capture ends with its last packet, so that what shows only in the silence after it, `closeseq lab` finds
and this table has not.

| capture | options | connections | verdict | initiator | findings |
|---|---|---|---|---|---|
"""


def page(captures: Path) -> str:
    """Return the page for the captures in a folder."""
    recorded = [one for one in experiments().values() if (captures / f"{one.name}.pcap").exists()]
    rows = [row(captures / f"{one.name}{form}", one) for one in recorded for form in FORMATS]
    parts = [HEAD, *filter(None, rows)]
    chapter = ""
    for one in recorded:
        title = (inspect.getmodule(one.run).__doc__ or "").strip().rstrip(".")
        if title != chapter:
            chapter = title
            parts.append(f"\n## {title}\n")
        parts += [f"\n{line}\n" for line in section(captures, one)]
    return "".join(parts)


def row(path: Path, one: Experiment) -> str:
    """Return a capture's row of the table; empty if there is no such file."""
    if not path.exists():
        return ""
    found = analyzed(path, one)
    verdicts = dict.fromkeys(each.verdict for each in found)
    initiators = dict.fromkeys(str(each.initiator) for each in found)
    codes = sorted({finding.code for each in found for finding in each.findings})
    cells = [
        path.name,
        one.options,
        str(len(found)),
        ", ".join(verdicts),
        ", ".join(initiators),
        " ".join(codes),
    ]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |") + "\n"


def section(captures: Path, one: Experiment) -> Iterator[str]:
    """Yield the paragraphs on one experiment."""
    path = captures / f"{one.name}.pcap"
    yield f"### {one.name}"
    for paragraph in one.text.split("\n\n"):
        yield filled(paragraph)
    found = analyzed(path, one)
    shapes = Counter(each.shape for each in found)
    yield "\n".join(
        f"    {shape}{f'   ({times} connections)' * (times > 1)}" for shape, times in shapes.items()
    )
    yield "\n".join(lines(found))
    together = Recording(path, one.settings).together()
    if together:
        yield "\n".join(["Of all connections together:\n", *map(of_all, together)])
    answers = Answers.read(path.with_suffix(".kernel.jsonl"))
    agreed = agreement(Recording(path, one.settings), answers)
    for what, why in agreed.hidden.items():
        yield filled(f"No packet shows that the {what}: {why}.")
    yield filled(f"{'. '.join(verdict_of(agreed))}.")


def lines(found: list[Connection]) -> Iterator[str]:
    """Yield verdicts and findings as a list; of connections that closed alike only the first one's."""
    alike: dict[tuple[str, str], list[Connection]] = {}
    for each in found:
        alike.setdefault((each.verdict, each.shape), []).append(each)
    for group in alike.values():
        one = group[0]
        who = f"{numbers([each.id for each in group])}: " if len(found) > 1 else ""
        yield filled(f"{who}`{one.verdict}`: {one.summary}", "- ")
        for finding in one.findings:
            about = f" ({finding.endpoint})" if finding.endpoint else ""
            shown = evidence(finding)
            known = f"{finding.certainty}{f'; {shown}' if shown else ''}"
            yield filled(f"`{finding.code}`{about}: {finding.summary} [{known}]", "  - ")


def of_all(finding: PopulationFinding) -> str:
    """Return what connections show together as an item of a list."""
    return filled(f"`{finding.code}`: {finding.summary} [{finding.certainty}]", "- ")


def analyzed(path: Path, one: Experiment) -> list[Connection]:
    """Analyse a capture as its row in the table says."""
    return list(Recording(path, one.settings).until())


def filled(text: str, first: str = "") -> str:
    """Return a paragraph in lines."""
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
