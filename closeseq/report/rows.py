"""The objects of a record, field by field, as `record.schema.json` describes them.

They are msgspec's, which makes one in a fifth of the time of a dictionary, and writes it as JSON without one.
A field that is `UNSET` is left out.

First, the fields that are added where a capture goes on through several files. `packet` remains a number that
runs on from file to file, so that programs can compare two of them. Beside it is `file_packet`, "3:17", to
look the packet up: the 17th of file 3, whose name is in `files`. Texts name packets in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

from closeseq.report.text import moment, named, printable, seconds

if TYPE_CHECKING:
    from closeseq.connections.conversation import End, Opener, Position
    from closeseq.packets.frames import File, Files
    from closeseq.reading import Reading
    from closeseq.tcp.states import State
    from closeseq.tcp.timeline import Arrival, Certainty
    from closeseq.verdict.model import Initiator, Role, Severity
    from closeseq.watch.updates import UpdateKind

Record: TypeAlias = dict[str, Any]


def in_files(record: Record, files: Files) -> Record:
    """Add `file_packet` for each packet of a connection's record, and the names of the files."""
    packets = set()
    for one in [*record["timeline"], *record["transitions"]]:
        packet = one["packet"]
        one["file_packet"] = None if packet is None else files.name(packet)
        packets.add(packet)
        for text in ("note", "cause"):
            if one.get(text):
                one[text] = files.text(one[text])
    for finding in record["findings"]:
        packets.update(finding["packets"])
        finding["file_packets"] = [files.name(packet) for packet in finding["packets"]]
        finding["summary"] = files.text(finding["summary"])
    record["summary"] = files.text(record["summary"])
    among = files.among(packet for packet in packets if packet is not None)
    record["files"] = {str(number): named(path) for number, path in among.items()}
    return record


def of_files(reading: Reading) -> Record:
    """Return the fields of a capture's header about its files; those that do not apply are left out."""
    files = reading.files
    fields: Record = {}
    if files.several:
        fields["files"] = [_file(number, file) for number, file in enumerate(files.files, 1)]
        fields["gaps"] = [
            {
                "before": files.name(gap.before),
                "after": files.name(gap.after),
                "duration": seconds(gap.to_ns - gap.from_ns),
            }
            for gap in files.gaps()
        ]
    if reading.empty:
        fields["empty"] = [named(path) for path in reading.empty]
    if reading.beside:
        fields["beside"] = [named(path) for path in reading.beside]
    return fields


def _file(number: int, file: File) -> Record:
    return {
        "number": number,
        "name": named(file.path),
        "packets": file.packets,
        "start": None if file.first_ns is None else moment(file.first_ns),
        "end": None if file.last_ns is None else moment(file.last_ns),
        "error": None if file.error is None else printable(str(file.error)),
    }


class Row(Struct, frozen=True, gc=False):
    """An object of a record. It has no reference cycles, so garbage collection is off (`gc`)."""


class EndpointRow(Row, frozen=True, gc=False):
    """One endpoint at the end of the capture."""

    address: str
    port: int
    state: State
    role: Role
    packets: int  # that it sent
    bytes: int  # of payload in them, retransmissions included
    expires: float | None  # when its 2MSL or FIN_WAIT_2 timer ends or ended, in seconds since `start`


class FindingRow(Row, frozen=True, gc=False):
    """A finding, with its evidence and advice."""

    code: str
    severity: Severity
    endpoint: End | None
    certainty: Certainty
    since: float  # seconds since `start`
    duration: float | None  # seconds
    packets: list[int]  # that show it
    summary: str
    advice: str


class StreamRow(Row, frozen=True, gc=False):
    """One direction's part of traffic."""

    packets: int
    bytes: int  # of payload
    retransmissions: int  # segments


class TrafficRow(Row, frozen=True, gc=False):
    """The traffic between two events, both directions."""

    client: StreamRow
    server: StreamRow
    last: float  # the time of its last packet, in seconds since `start`


class StepRow(Row, frozen=True, gc=False):
    """A line of the timeline: an event, or traffic, for which an event's fields are None."""

    packet: int  # of traffic the first
    time: float  # seconds since `start`
    sender: End | None = field(name="from")
    flags: str | None  # letters of SFRAP
    seq: int | None  # relative to the sender's SYN
    ack: int | None  # relative to the receiver's SYN; None without ACK flag
    length: int | None  # bytes of payload
    position: Position | None
    arrived: Arrival | None
    note: str | None
    client: State  # after it
    server: State
    traffic: TrafficRow | None


class TransitionRow(Row, frozen=True, gc=False):
    """A change of one endpoint's state."""

    packet: int | None  # None: a timer made it
    time: float  # seconds since `start`
    endpoint: End
    before: State = field(name="from")
    after: State = field(name="to")
    cause: str
    certainty: Certainty


class WayRow(Row, frozen=True, gc=False):
    """What the path did to one endpoint's segments."""

    lost: int  # segments of either endpoint, between this one and the capture point
    reordered: int  # its segments that came out of order
    missed: int  # gaps: what the capture missed and the peer acknowledged
    response: float | None  # shortest time in which it answered, in seconds


class WayRows(Row, frozen=True, gc=False):
    """What the path did, by endpoint."""

    client: WayRow
    server: WayRow


class Aka(Row, frozen=True, gc=False):
    """What Zeek and Wireshark call it."""

    zeek_conn_state: str
    zeek_history: str
    wireshark_completeness: int  # a sum of bits


class Vlans(Row, frozen=True, gc=False):
    """The VLANs of each endpoint's packets."""

    client: list[int]  # their ids
    server: list[int]


class DuplicatesRow(Row, frozen=True, gc=False):
    """How many packets were duplicates, by kind."""

    captured: int
    delivered: int
    unclear: int
    resets: int


class LiveRow(Row, frozen=True, gc=False):
    """Why there is a record while the capture goes on, and the kernel's answers about both endpoints."""

    event: UpdateKind
    as_of: str  # when, ISO 8601 in UTC
    kernel: dict[str, Any] | None


class Brief(Row, frozen=True, gc=False):
    """The fields of a connection that a line of CSV has too."""

    schema: str
    capture: str
    id: int
    incarnation: int
    community_id: str
    start: str  # of its first packet, ISO 8601 in UTC
    duration: float  # seconds until its last packet
    packets: int
    opener: Opener
    client: EndpointRow
    server: EndpointRow
    verdict: str
    initiator: Initiator
    shape: str
    summary: str


class FullRecord(Brief, frozen=True, gc=False):
    """A whole record."""

    findings: list[FindingRow]
    timeline: list[StepRow]
    transitions: list[TransitionRow]
    path: WayRows
    aka: Aka
    vlans: Vlans | UnsetType = UNSET
    duplicates: DuplicatesRow | UnsetType = UNSET
    live: LiveRow | UnsetType = UNSET
