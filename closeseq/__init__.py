"""How a TCP connection closed, who closed it, and who is to blame if it is not closed.

The way of the data, one line a stage. A later stage may import an earlier one, never the other way:

    errors       what closeseq raises: one line with file, packet, byte and remedy
    workers      other processes that do a part of the work
    packets      the types that stages pass on, and 32-bit sequence arithmetic
    settings     what to look at, timers, and when a wait counts as long
    units        spans of time, counts and packet numbers as text
    capture      a capture file or interface -> frames
    segments     frames -> columns of TCP headers, one row a segment
    connections  rows -> who talks to whom, and the few events that matter, as plain Python
    script       a small language for connections, as the tests write them
    tcp          events -> the eleven states of both endpoints, step by step, each with its certainty
    verdict      states -> how it closed, what deserves attention, with evidence and advice
    connection   one analysed connection
    classes      connections that go the same way share one replay
    reading      a capture's files, one after the other, and what was met in them
    judging      what analysis and watch share: connections that can be judged
    shards       the same in portions, by tasks on other machines
    tables       connections as columns, for data frames and Parquet
    analysis     the pipeline end to end: a capture's connections
    linux        what Linux itself reports: socket table, tracepoint, owner of a socket
    watch        the same pipeline in small steps as time passes
    report       text, records, pictures
    wireshark    comments on packets, and what shows them in Wireshark
    cluster      the report of a cluster's workers, made in parts
    diff         two sides compared: what got worse
    lab          real sockets, driven into each way of closing, and compared with the kernel
    testing      what a test asserts of its connections; the plugin for pytest is pytest_plugin
    cli          the command `closeseq`

Words of our own; all others are those of RFC 9293, tcpdump and Wireshark:

    frame         captured bytes from the link layer up, with time and lengths
    segment       a TCP header and the length of its payload: one row of columns
    end           one side of a connection: End.CLIENT opened it, End.SERVER listened; in texts, endpoint
    event         a segment that can change a state or prove something: SYN, FIN, RST, some ACKs
    traffic       everything between two events, kept as counts
    step          an event or a stretch of traffic: a line of the timeline
    conversation  a connection as its steps: what the packets show, before anything is inferred
    signal        what moves the state machine: sends FIN, receives the ACK of its FIN ...
    receipt       the arrival of a segment at its receiver, as far as it is known
    certainty     observed: it was sent; proved: later packets show it; assumed: nothing contradicts it; timer
    timeline      both endpoints' states, step by step
    case          a timeline arranged for judging
    shape         a connection's events in one line: C:S S:SA C:A ~ C:FA S:A S:FA C:A
    class         connections that take the same way through tcp and verdict, judged once
    pair          two addresses and ports; its connections, one after the other, are incarnations
    pattern       what is reported of connections that closed alike, while they are watched
    duplicate     a packet that was captured or delivered twice; a retransmission is sent twice

    import closeseq

    analysis = closeseq.analyze("web.pcapng", port=8080)
    for connection in analysis:
        print(connection.verdict, connection.initiator, connection.server.state)

Everything public is named here, and loaded when it is first used: `closeseq --help` waits for nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closeseq.analysis import Analysis, analyze, chains, from_script
    from closeseq.classes.members import ConnectionClass
    from closeseq.connection import Connection, Endpoint
    from closeseq.connections.conversation import (
        Address,
        Conversation,
        Duplicates,
        End,
        Event,
        Opener,
        Position,
        Stream,
        Traffic,
    )
    from closeseq.errors import (
        CaptureError,
        CloseseqError,
        DeviceError,
        FilterError,
        NotPermittedError,
        SaveError,
        ScriptError,
        TablesError,
        UnknownWordError,
        WorkerError,
    )
    from closeseq.packets.frames import File, Files
    from closeseq.reading import Reading
    from closeseq.report.records import record
    from closeseq.report.timeline_text import format_timeline
    from closeseq.settings import Limits, Settings, Timers
    from closeseq.tables.columns import NumpyTables
    from closeseq.tcp.states import State
    from closeseq.tcp.timeline import Arrival, Certainty, Step, Timeline, Transition
    from closeseq.verdict.model import Finding, Initiator, Role, Severity, Verdict
    from closeseq.watch.live import Live, live
    from closeseq.watch.updates import Update, UpdateKind

__all__ = [
    "Address",
    "Analysis",
    "Arrival",
    "CaptureError",
    "Certainty",
    "CloseseqError",
    "Connection",
    "ConnectionClass",
    "Conversation",
    "DeviceError",
    "Duplicates",
    "End",
    "Endpoint",
    "Event",
    "File",
    "Files",
    "FilterError",
    "Finding",
    "Initiator",
    "Limits",
    "Live",
    "NotPermittedError",
    "NumpyTables",
    "Opener",
    "Position",
    "Reading",
    "Role",
    "SaveError",
    "ScriptError",
    "Settings",
    "Severity",
    "State",
    "Step",
    "Stream",
    "TablesError",
    "Timeline",
    "Timers",
    "Traffic",
    "Transition",
    "UnknownWordError",
    "Update",
    "UpdateKind",
    "Verdict",
    "WorkerError",
    "analyze",
    "chains",
    "format_timeline",
    "from_script",
    "live",
    "record",
]

_HOMES = {
    "analysis": ("Analysis", "analyze", "chains", "from_script"),
    "classes.members": ("ConnectionClass",),
    "connection": ("Connection", "Endpoint"),
    "connections.conversation": (
        *("Address", "Conversation", "Duplicates", "End", "Event", "Opener", "Position", "Stream", "Traffic"),
    ),
    "errors": (
        *("CaptureError", "CloseseqError", "DeviceError", "FilterError", "NotPermittedError"),
        *("SaveError", "ScriptError", "TablesError", "UnknownWordError", "WorkerError"),
    ),
    "packets.frames": ("File", "Files"),
    "reading": ("Reading",),
    "report.records": ("record",),
    "report.timeline_text": ("format_timeline",),
    "settings": ("Limits", "Settings", "Timers"),
    "tables.columns": ("NumpyTables",),
    "tcp.states": ("State",),
    "tcp.timeline": ("Arrival", "Certainty", "Step", "Timeline", "Transition"),
    "verdict.model": ("Finding", "Initiator", "Role", "Severity", "Verdict"),
    "watch.live": ("Live", "live"),
    "watch.updates": ("UpdateKind", "Update"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in (PEP 562)."""
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'closeseq' has no attribute {name!r}")
    value = getattr(import_module(f"closeseq.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # costs 30 ms

    try:
        return version("closeseq")
    except PackageNotFoundError:
        return "0+unknown"  # run from a source tree that is not installed
