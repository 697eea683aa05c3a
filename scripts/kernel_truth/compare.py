"""Compare the states that closeseq infers from packets with those that the kernel reports, by endpoint.

Kernel and packets cannot show quite the same:

- The kernel replaces a socket that enters TIME_WAIT, or an ownerless one in FIN_WAIT_2, by a smaller
  one. The tracepoint shows the first as CLOSED; which of the two it was, the socket table tells.
- A FIN that an application queued and that never reached the wire is not in the packets. Such an
  endpoint is counted as hidden, apart from the others.
- What the kernel does after the connection's last packet (giving up, say) is not in the packets.

On a path, each packet passes the capture point some time after it was sent, and arrives some time later.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from closeseq.lab.agreement import comparable, same_instant_ns
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from kernel_truth.programs import SIDES

UNSETTLED = 0.050  # seconds around an event in which the socket table may show either state; and a round trip
FIRST_STATE = {"client": "CLOSED", "server": "LISTEN"}
SENT_FIN = {"FIN_WAIT_1", "LAST_ACK"}
CERTAIN = {"observed", "proved"}

Json = dict[str, Any]


@dataclass
class Score:
    """What was compared, and how much of it agreed."""

    endpoints: int = 0
    right_endpoints: int = 0
    hidden: int = 0
    overclaims: int = 0  # endpoints whose first wrong transition was called certain
    moments: int = 0
    right_moments: int = 0
    missing: int = 0  # connections without a record
    extra: int = 0  # records without a connection, or a second one for the same
    disagreements: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing certain was wrong, and every connection was found, once."""
        return not (self.overclaims or self.missing or self.extra)

    def __str__(self) -> str:
        """Tell the shares as a few lines."""
        lines = [
            f"sequences   {_share(self.right_endpoints, self.endpoints)}; {self.hidden} hidden",
            f"moments     {_share(self.right_moments, self.moments)}",
            f"overclaims  {self.overclaims}",
        ]
        if self.missing or self.extra:
            lines.append(f"records     {self.missing} missing, {self.extra} too many")
        return "\n".join(lines)


@dataclass(frozen=True)
class Endpoint:
    """One end of one connection, as the kernel and as closeseq saw it."""

    side: str
    kernel: list[list[Any]]  # [[Unix time, old state, new state], ...]
    inferred: list[Json]  # its transitions in the record
    start: float  # Unix time of the connection's first packet
    last: float  # Unix time of its last packet
    packets: list[float]  # Unix times of the record's timeline
    sent_fin: bool
    one_way: tuple[float, float]  # seconds between client and tap, and between tap and server

    @property
    def same_instant(self) -> float:
        """Seconds that the tap and the tracepoint may be apart about one event."""
        client, server = (round(one * SECOND) for one in self.one_way)
        return same_instant_ns((client, server)) / SECOND

    @property
    def hidden(self) -> bool:
        """The application closed, and no packet shows it."""
        return not self.sent_fin and any(new in SENT_FIN for _, _, new in self.kernel)

    def kernel_states(self) -> list[str]:
        """List the states that packets can tell of, evened out."""
        seen = [new for time, _, new in self.kernel if time <= self.last + self.same_instant]
        return _comparable([FIRST_STATE[self.side], *seen])

    def inferred_states(self, count: int | None = None) -> list[str]:
        """List the states closeseq tells of, up to the given number of transitions, evened out.

        Timers are left out: the tracepoint says nothing of the sockets they belong to.
        """
        return _comparable([FIRST_STATE[self.side], *(one["to"] for one in self.by_packets()[:count])])

    def by_packets(self) -> list[Json]:
        """Leave the timers out of the inferred transitions."""
        return [one for one in self.inferred if one["certainty"] != "timer"]

    def first_wrong(self) -> Json | None:
        """Find the first inferred transition after which the kernel's states no longer begin alike."""
        kernel = self.kernel_states()
        for count, transition in enumerate(self.by_packets(), 1):
            states = self.inferred_states(count)
            if states != kernel[: len(states)]:
                return transition
        return None

    def inferred_state_at(self, time: float) -> str:
        """Return the state closeseq gives this end at a Unix time."""
        state = FIRST_STATE[self.side]
        for transition in self.inferred:
            if self.start + transition["time"] <= time:
                state = transition["to"]
        return state

    def settled_at(self, time: float) -> bool:
        """Whether nothing happened so near to this time that the order of things is unclear."""
        events = (*self.packets, *(time for time, _, _ in self.kernel))
        unsettled = UNSETTLED + 2 * sum(self.one_way)
        return all(abs(time - event) >= unsettled for event in events)


def _comparable(states: Iterable[str]) -> list[str]:
    return [str(state) for state in comparable(map(State, states))]


def compare(records_path: Path, truth_path: Path) -> Score:
    """Score a file of records (`closeseq analyze -f jsonl`) against the truth of the same capture."""
    score = Score()
    records: dict[tuple[int, int], Json] = {}
    for record in _read(records_path):
        ports = record["client"]["port"], record["server"]["port"]
        score.extra += ports in records
        records.setdefault(ports, record)
    for truth in _read(truth_path):
        found = records.pop((truth["client_port"], truth["server_port"]), None)
        if found is None:
            score.missing += 1
            score.disagreements.append(f"{_name(truth)}: no record\n    program     {_program(truth)}")
        else:
            for side in SIDES:
                _compare_endpoint(score, truth, _endpoint(side, truth, found))
    score.extra += len(records)
    return score


def _endpoint(side: str, truth: Json, record: Json) -> Endpoint:
    start = datetime.fromisoformat(record["start"]).timestamp()
    timeline = record["timeline"]
    return Endpoint(
        side,
        truth["transitions"][side],
        [one for one in record["transitions"] if one["endpoint"] == side],
        start,
        start + max([record["duration"] or 0.0, *(step["time"] for step in timeline)]),
        [start + step["time"] for step in timeline],
        any(step["from"] == side and "F" in step["flags"] for step in timeline),
        tuple(truth.get("one_way", (0.0, 0.0))),
    )


def _compare_endpoint(score: Score, truth: Json, end: Endpoint) -> None:
    """Add one endpoint to the score: its sequence of states, and its state at each snapshot."""
    if end.hidden:
        score.hidden += 1
        return
    right, wrong = end.kernel_states() == end.inferred_states(), end.first_wrong()
    overclaim = wrong is not None and wrong["certainty"] in CERTAIN
    score.endpoints += 1
    score.right_endpoints += right
    score.overclaims += overclaim

    snapshots = [look for look in truth["snapshots"] if end.settled_at(look["time"])]
    differing = [look for look in snapshots if not _same_moment(end, look)]
    score.moments += len(snapshots)
    score.right_moments += len(snapshots) - len(differing)
    if not right or differing:
        score.disagreements.append(_explain(truth, end, wrong, differing))


def _same_moment(end: Endpoint, look: Json) -> bool:
    """Whether the socket table agrees; it shows a listener as no socket of this connection: CLOSED."""
    inferred = end.inferred_state_at(look["time"])
    return bool(look[end.side] == ("CLOSED" if inferred == "LISTEN" else inferred))


def _explain(truth: Json, end: Endpoint, wrong: Json | None, differing: list[Json]) -> str:
    """Tell one endpoint's disagreement, with the program that led to it."""
    mark = "  OVERCLAIM" if wrong is not None and wrong["certainty"] in CERTAIN else ""
    lines = [
        f"{_name(truth)} {end.side}{mark}",
        f"    program     {_program(truth)}",
        f"    kernel      {' '.join(end.kernel_states())}",
        f"    closeseq    {' '.join(end.inferred_states())}",
    ]
    if wrong is not None:
        change = f"{wrong['from']} to {wrong['to']} at {wrong['time']:.6f}, {wrong['cause']}"
        lines.append(f"    wrong       #{wrong['packet']}: {change} ({wrong['certainty']})")
    lines += [
        f"    at {look['time'] - end.start:.6f} after {look['after']!r}: kernel {look[end.side]}, "
        f"closeseq {end.inferred_state_at(look['time'])}"
        for look in differing
    ]
    return "\n".join(lines)


def _name(truth: Json) -> str:
    return f"connection {truth['connection']} ({truth['client_port']} > {truth['server_port']})"


def _program(truth: Json) -> str:
    return ", ".join(truth["program"])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.2f} % ({part} of {whole})"


def _read(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]
