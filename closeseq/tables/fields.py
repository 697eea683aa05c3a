"""The four tables: which columns each has, of which type, in which unit, and what they mean.

This is the whole description: columns are made, written and explained (`closeseq explain tables`) from it.
Columns are never renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Opener, Position
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty
from closeseq.verdict.model import FindingCode, Initiator, Role, Severity, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Iterator


ABOUT = (
    "-f parquet writes each table as a file, such as connections.parquet; analysis.tables() gives the same "
    "as columns of numpy. In every table, capture and id together name a connection. Where there is no "
    "value, it is null; in numpy NaN, NaT or None, and whole numbers that may be missing are float64."
)


class FieldType(StrEnum):
    """What the values of a column are, by their name in Parquet."""

    WHOLE = "int64"
    PORT = "uint16"
    NUMBER = "float64"
    TIME = "timestamp[ns]"  # UTC; numpy: datetime64[ns]
    TEXT = "string"
    WORD = "dictionary"  # one of the few words of `Field.words`; numpy: as a text


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table."""

    name: str
    type: FieldType
    meaning: str  # one line
    unit: str = ""  # such as s or bytes; empty: none
    missing: str = ""  # when there is no value; empty: always is one
    words: tuple[str, ...] = ()  # of a WORD: all that can occur


@dataclass(frozen=True, slots=True)
class TableOf:
    """One of the tables: a row for each of what it is named after."""

    name: str
    meaning: str
    fields: tuple[Field, ...]


def _whole(name: str, meaning: str, unit: str = "", missing: str = "") -> Field:
    return Field(name, FieldType.WHOLE, meaning, unit, missing)


def _number(name: str, meaning: str, unit: str, missing: str = "") -> Field:
    return Field(name, FieldType.NUMBER, meaning, unit, missing)


def _time(name: str, meaning: str) -> Field:
    return Field(name, FieldType.TIME, meaning, "UTC")


def _text(name: str, meaning: str, missing: str = "") -> Field:
    return Field(name, FieldType.TEXT, meaning, "", missing)


def _word(name: str, words: type[StrEnum], meaning: str, missing: str = "") -> Field:
    return Field(name, FieldType.WORD, meaning, "", missing, tuple(one.value for one in words))


# These two, together, name a connection in every table.
_KEY = (
    _text("capture", "the capture file with the connection's first packet"),
    _whole("id", "the connection's number in its capture, from 1"),
)
_NO_PACKET = "a timer made it"


def _packet(missing: str = "") -> Iterator[Field]:
    yield _whole("packet", "the packet's number in the capture, from 1", missing=missing)
    yield _text("file", "the capture file that this packet is in", missing)
    yield _whole("file_packet", "its number there, as Wireshark shows it", missing=missing)
    yield _time("time_utc", "when")
    yield _number("time", "the same, since the connection's start", "seconds")


def _endpoint(end: End) -> Iterator[Field]:
    yield _text(f"{end}_address", f"IP address of the {end}")
    yield Field(f"{end}_port", FieldType.PORT, f"port of the {end}")
    yield _word(f"{end}_state", State, f"the {end}'s state when the capture ended")
    yield _word(f"{end}_role", Role, f"what the {end} did in the close")
    yield _whole(f"{end}_packets", f"packets that the {end} sent, without duplicates")
    yield _whole(f"{end}_bytes", f"payload that the {end} sent, with retransmissions", "bytes")
    yield _number(
        f"{end}_expires", "when its TIME_WAIT or FIN_WAIT_2 ends, since start", "seconds", "no timer"
    )
    yield _whole(f"{end}_lost", f"segments lost between the {end} and the capture point")
    yield _whole(f"{end}_reordered", f"segments of the {end} that were overtaken")
    yield _whole(f"{end}_missed", f"times that the capture missed something of the {end}")
    yield _number(f"{end}_response", f"the least time in which the {end} answered", "seconds", "it never did")


CONNECTIONS = TableOf(
    "connections",
    "one row a connection, in the order of their first packets",
    (
        *_KEY,
        _whole("incarnation", "which connection of this pair of addresses and ports, from 1"),
        _text("community_id", "Community ID 1 of the pair, as Zeek and Suricata write it"),
        _time("start", "time of the first packet"),
        _number("duration", "from the first packet to the last", "seconds"),
        _whole("packets", "packets of both endpoints, without duplicates"),
        _word("opener", Opener, "whether the SYN was seen, or the client is inferred"),
        *_endpoint(End.CLIENT),
        *_endpoint(End.SERVER),
        _word("verdict", VerdictCode, "how it ended"),
        _word("initiator", Initiator, "who began the end"),
        _text("shape", "the close in short"),
        _text("summary", "how it closed, in one line"),
        _text("problems", "codes of its problems, with a space between two"),
        _text("notices", "codes of its notices, with a space between two"),
        _whole("copies", "duplicates of packets, which were left out"),
    ),
)
TRANSITIONS = TableOf(
    "transitions",
    "one row for each change of an endpoint's state",
    (
        *_KEY,
        *_packet(_NO_PACKET),
        _word("endpoint", End, "whose state changed"),
        _word("before", State, "from this state"),
        _word("after", State, "to this one"),
        _text("cause", "why"),
        _word("certainty", Certainty, "how that is known"),
    ),
)
EVENTS = TableOf(
    "events",
    "one row for each segment that can change a state or proves something; the traffic between is left out",
    (
        *_KEY,
        *_packet(),
        _word("sender", End, "who sent it"),
        _text("flags", "its flags, as letters out of SFRAP"),
        _whole("seq", "sequence number, relative to its sender's SYN"),
        _whole("ack", "acknowledgment number, relative to the other SYN", missing="no ACK flag"),
        _whole("length", "payload", "bytes"),
        _word("position", Position, "against what its sender had sent before"),
        _word("arrived", Arrival, "whether it reached its receiver", "the connection was not judged"),
        _text("note", "a remark for the reader; mostly empty"),
        _word("client_state", State, "the client's state after it"),
        _word("server_state", State, "the server's state after it"),
    ),
)
FINDINGS = TableOf(
    "findings",
    "one row for each finding",
    (
        *_KEY,
        _word("code", FindingCode, "what was found; closeseq explain CODE explains it"),
        _word("severity", Severity, "a problem to fix, or a notice"),
        _word("endpoint", End, "which endpoint it is about", "both, or the capture"),
        _word("certainty", Certainty, "how that is known"),
        _time("since_utc", "when it began"),
        _number("since", "the same, since the connection's start", "seconds"),
        _number("duration", "how long it lasted, or has lasted so far", "seconds", "it is of a moment"),
        _text("packets", "numbers of the packets that show it, with a space between two"),
        _text("summary", "what is wrong, in one line"),
        _text("advice", "what to do about it"),
    ),
)
TABLES = (CONNECTIONS, TRANSITIONS, EVENTS, FINDINGS)
