"""What a verdict and a finding are made of.

What an entry of the vocabulary holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from closeseq.packets.value import value

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.timeline import Certainty


class Severity(StrEnum):
    """How grave a finding is."""

    PROBLEM = "problem"  # something to mend
    NOTICE = "notice"  # something to know


class Initiator(StrEnum):
    """Who began the end of the connection."""

    CLIENT = "client"
    SERVER = "server"
    BOTH = "both"
    NONE = "none"


class Role(StrEnum):
    """What an end did in the close."""

    ACTIVE_CLOSER = "active-closer"
    PASSIVE_CLOSER = "passive-closer"
    BOTH_CLOSERS = "both-closers"
    ABORTER = "aborter"
    ABORTED = "aborted"
    NONE = "none"


@value
class Verdict:
    """How the connection ended: exactly one a connection."""

    code: str
    initiator: Initiator
    client_role: Role
    server_role: Role
    summary: str  # one line for a person: "server closed first; final ACK lost 5 times"
    packets: tuple[int, ...]  # that show it

    def role(self, end: End) -> Role:
        return self.client_role if end.value == "client" else self.server_role


@value
class Finding:
    """Something that deserves attention."""

    code: str
    severity: Severity
    endpoint: End | None  # that it is about; None when it is about both or the capture
    certainty: Certainty
    since_ns: int  # when it began, since the Unix epoch
    duration_ns: int | None  # how long it lasted, or has lasted so far
    packets: tuple[int, ...]  # that show it
    summary: str  # one line with the facts of this case
    advice: str  # what to do about it, one line


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
