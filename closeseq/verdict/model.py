"""What a verdict, a finding and an entry of the vocabulary are made of.

Codes are what programs compare and records hold: they are strings, and never change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from closeseq.packets.value import value
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.timeline import Certainty


class VerdictCode(StrEnum):
    """How a connection ended; the vocabulary explains each."""

    UNANSWERED = "unanswered"
    REFUSED = "refused"
    ABORTED_OPEN = "aborted-open"
    RESET = "reset"
    SIMULTANEOUS = "simultaneous"
    GRACEFUL = "graceful"
    REPLACED = "replaced"
    CLOSING = "closing"
    OPEN = "open"
    NOT_JUDGED = "not-judged"  # closeseq itself failed

    @property
    def ended(self) -> bool:
        """Whether the connection is over, but for TIME_WAIT."""
        return self in ENDED


ENDED = frozenset(
    {
        *(VerdictCode.REFUSED, VerdictCode.ABORTED_OPEN, VerdictCode.RESET),
        *(VerdictCode.SIMULTANEOUS, VerdictCode.GRACEFUL, VerdictCode.REPLACED),
    }
)


class FindingCode(StrEnum):
    """What deserves attention; the vocabulary explains each."""

    STUCK_CLOSE_WAIT = "stuck-close-wait"
    STUCK_FIN_WAIT_2 = "stuck-fin-wait-2"
    STUCK_FIN_WAIT_1 = "stuck-fin-wait-1"
    STUCK_LAST_ACK = "stuck-last-ack"
    STUCK_CLOSING = "stuck-closing"
    HALF_OPEN = "half-open"
    IDLE_CUT = "idle-cut"
    HALF_CLOSE_CUT = "half-close-cut"
    BLOCKED_BY_OLD_CONNECTION = "blocked-by-old-connection"
    ACCEPT_QUEUE_FULL = "accept-queue-full"
    KEEPALIVE_RACE = "keepalive-race"
    DATA_AFTER_CLOSE = "data-after-close"
    FINAL_ACK_LOST = "final-ack-lost"
    FIN_LOST = "fin-lost"
    TIME_WAIT_ASSASSINATED = "time-wait-assassinated"
    TIME_WAIT_RESTARTED = "time-wait-restarted"
    TIME_WAIT_REUSED = "time-wait-reused"
    BIND_BLOCKED = "bind-blocked"
    NEVER_ACCEPTED = "never-accepted"
    SLOW_OPEN = "slow-open"
    RESET_CAUSE = "reset-cause"
    CHALLENGE_ACK = "challenge-ack"
    SLOW_CLOSE = "slow-close"
    HALF_CLOSE = "half-close"
    THREE_SEGMENT_CLOSE = "three-segment-close"
    FIN_WITH_DATA = "fin-with-data"
    KEEPALIVE = "keepalive"
    CAPTURE_INCOMPLETE = "capture-incomplete"
    DUPLICATE_PACKETS = "duplicate-packets"

    @classmethod
    def stuck_in(cls, state: State) -> FindingCode | None:
        """Return the code of an endpoint that is stuck in a state; None for other states."""
        return STUCK_IN.get(state)

    @property
    def arises_with_time(self) -> bool:
        """Whether the passing of time, without a packet, brings it about: an endpoint waits in vain."""
        return self in VANISHED or self in STUCK_IN.values()


STUCK_IN = {
    State.CLOSE_WAIT: FindingCode.STUCK_CLOSE_WAIT,
    State.FIN_WAIT_2: FindingCode.STUCK_FIN_WAIT_2,
    State.FIN_WAIT_1: FindingCode.STUCK_FIN_WAIT_1,
    State.LAST_ACK: FindingCode.STUCK_LAST_ACK,
    State.CLOSING: FindingCode.STUCK_CLOSING,
}


# Its peer does not answer, or its program does not.
VANISHED = frozenset(
    {
        *(FindingCode.HALF_OPEN, FindingCode.IDLE_CUT, FindingCode.HALF_CLOSE_CUT),
        FindingCode.NEVER_ACCEPTED,
    }
)


class PopulationCode(StrEnum):
    """What many connections show together, warnings before facts; the vocabulary explains each."""

    FORGOTTEN_BY_NAT = "forgotten-by-nat"
    PORT_PRESSURE = "port-pressure"
    TIMEOUTS_IN_WRONG_ORDER = "timeouts-in-wrong-order"
    IDLE_TIMEOUT = "idle-timeout"
    RESETS_BY_HABIT = "resets-by-habit"


class ErrorCode(StrEnum):
    """What a system call of a program fails with, as errno names it."""

    ECONNRESET = "ECONNRESET"
    EPIPE = "EPIPE"
    ECONNREFUSED = "ECONNREFUSED"
    ETIMEDOUT = "ETIMEDOUT"
    EADDRINUSE = "EADDRINUSE"


class Severity(StrEnum):
    """How grave a finding is."""

    PROBLEM = "problem"  # something to fix
    NOTICE = "notice"  # something to know


class Initiator(StrEnum):
    """Who began the end of the connection."""

    CLIENT = "client"
    SERVER = "server"
    BOTH = "both"
    NONE = "none"


class Role(StrEnum):
    """What an endpoint did in the close."""

    ACTIVE_CLOSER = "active-closer"
    PASSIVE_CLOSER = "passive-closer"
    BOTH_CLOSERS = "both-closers"
    ABORTER = "aborter"
    ABORTED = "aborted"
    NONE = "none"


@value
class Verdict:
    """How a connection ended; each has exactly one."""

    code: VerdictCode
    initiator: Initiator
    client_role: Role
    server_role: Role
    summary: str  # one line for a reader: "server closed first; final ACK lost 5 times"
    packets: tuple[int, ...]  # that show it

    def role(self, end: End) -> Role:
        """Return what an endpoint did in the close."""
        return self.client_role if end.value == "client" else self.server_role


@value
class Finding:
    """Something that deserves attention."""

    code: FindingCode
    severity: Severity
    endpoint: End | None  # that it is about; None when it is about both or the capture
    certainty: Certainty  # how we know
    since_ns: int  # when it began, since the Unix epoch
    duration_ns: int | None  # how long it lasted, or has lasted so far
    packets: tuple[int, ...]  # that show it
    summary: str  # one line: what is wrong, where, shown by which packets
    advice: str  # what to do about it, one line


Code: TypeAlias = State | VerdictCode | FindingCode | PopulationCode


class EntryKind(StrEnum):
    """What an entry of the vocabulary is about."""

    STATE = "state"
    VERDICT = "verdict"
    FINDING = "finding"
    POPULATION = "finding of many connections"

    @property
    def plural(self) -> str:
        """The heading of a list of them."""
        noun, _, rest = self.partition(" ")
        return f"{noun}s {rest}".rstrip()


KIND_OF: dict[type[StrEnum], EntryKind] = {
    State: EntryKind.STATE,
    VerdictCode: EntryKind.VERDICT,
    FindingCode: EntryKind.FINDING,
    PopulationCode: EntryKind.POPULATION,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A code, and what a reader should know of it."""

    code: Code
    meaning: str  # one line, no full stop
    explanation: str  # paragraphs, with an empty line between them
    advice: str  # what to do; may be empty
    severity: Severity | None = None  # of findings

    @property
    def kind(self) -> EntryKind:
        """What it is about: a state, a verdict, a finding, or a finding of many connections."""
        return KIND_OF[type(self.code)]


def entry(
    code: Code, meaning: str, explanation: str, advice: str = "", *, severity: Severity | None = None
) -> Entry:
    """Return an entry of the vocabulary; the lines of a paragraph are joined, empty lines part paragraphs.

    Args:
        code: of a state, a verdict or a finding.
        meaning: one line, no full stop.
        explanation: paragraphs, wrapped and indented as in the source.
        advice: what to do, wrapped in the same way; may be empty.
        severity: of a finding; None for all else.
    """
    paragraphs = [" ".join(paragraph.split()) for paragraph in explanation.strip().split("\n\n")]
    return Entry(code, meaning, "\n\n".join(paragraphs), " ".join(advice.split()), severity)
