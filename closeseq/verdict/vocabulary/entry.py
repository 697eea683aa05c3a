"""What an entry of the vocabulary holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closeseq.verdict.findings import Severity


@dataclass(frozen=True, slots=True)
class Entry:
    """A word, and what a person should know of it."""

    code: str  # "CLOSE_WAIT", "graceful", "stuck-close-wait"
    kind: str  # "state", "verdict" or "finding"
    severity: Severity | None  # of findings
    meaning: str  # one line, no full stop
    explanation: str  # paragraphs, with an empty line between them
    advice: str  # what to do; may be empty


def entry(
    code: str, kind: str, severity: Severity | None, *, meaning: str, explanation: str, advice: str
) -> Entry:
    """Return an entry; the lines of a paragraph are joined, empty lines part paragraphs."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in explanation.strip().split("\n\n")]
    return Entry(code, kind, severity, meaning, "\n\n".join(paragraphs), " ".join(advice.split()))
