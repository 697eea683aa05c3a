"""Scripts, captures and mirror images to judge."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from closeseq.capture import open_capture
from closeseq.connections import Connections
from closeseq.connections.conversation import Conversation, End, Event, Traffic
from closeseq.script import conversations
from closeseq.segments import decode
from closeseq.settings import SECOND, Limits, Timers
from closeseq.tcp.replay import replay
from closeseq.verdict import Judgement, judge
from places import CAPTURES

if TYPE_CHECKING:
    from closeseq.tcp.timeline import Timeline

OPEN = "C:S S:SA C:A ~ "


def judged(
    script: str, *, wait: float = 0, stuck_after: float = 60, fin_timeout: float = 60, dropped: int = 0
) -> Judgement:
    """Judge the first connection of a script, so many seconds after its last packet."""
    timers = Timers(fin_timeout_ns=round(fin_timeout * SECOND))
    return judge(
        timeline(script, wait=wait, timers=timers),
        Limits(stuck_after_ns=round(stuck_after * SECOND)),
        dropped=dropped,
    )


def timeline(script: str, *, wait: float = 0, timers: Timers | None = None, which: int = 0) -> Timeline:
    told = conversations(script, timestamps=True)
    now_ns = max(one.last_ns for one in told) + round(wait * SECOND)
    return replay(told[which], timers or Timers(), now_ns)


def codes(judgement: Judgement) -> set[str]:
    return {finding.code for finding in judgement.findings}


def the(judgement: Judgement, code: str):
    """Return the only finding with a code."""
    (finding,) = (finding for finding in judgement.findings if finding.code == code)
    return finding


@dataclass(frozen=True)
class Row:
    """What the table in captures/README.md expects of a capture."""

    capture: str
    options: tuple[str, ...]
    connections: int
    verdicts: list[str]
    initiators: list[str]
    findings: list[str]

    def option(self, name: str, default: float) -> float:
        return float(self.options[self.options.index(name) + 1]) if name in self.options else default


def rows() -> list[Row]:
    lines = (CAPTURES / "README.md").read_text().splitlines()
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in lines if re.match(r"\| [\w-]+\.pcap", line)
    ]
    return [
        Row(
            name,
            tuple(options.split()),
            int(number),
            verdict.split(", "),
            initiator.split(", "),
            found.split(),
        )
        for name, options, number, verdict, initiator, found in cells
    ]


def timelines(capture: str, timers: Timers | None = None) -> list[Timeline]:
    """Return the timelines of a capture's connections."""
    connections, last_ns = Connections(), 0
    with open_capture(str(CAPTURES / capture)) as source:
        for frames in source.batches():
            segments = decode(frames)
            last_ns = max(last_ns, int(segments.time_ns.max()))
            connections.feed(segments)
    found = [connections.conversation(i) for i in range(len(connections))]
    return [replay(one, timers or Timers(), last_ns) for one in found]


def mirrored(timeline: Timeline) -> Timeline:
    """Return a timeline with both endpoints swapped, as if the other had opened the connection."""
    steps = tuple(
        replace(
            step,
            what=_mirrored(step.what),
            client=step.server,
            server=step.client,
            transitions=tuple(replace(t, endpoint=t.endpoint.peer) for t in step.transitions),
        )
        for step in timeline.steps
    )
    return replace(
        timeline,
        conversation=_mirrored_conversation(timeline.conversation),
        steps=steps,
        transitions=tuple(replace(t, endpoint=t.endpoint.peer) for t in timeline.transitions),
        expiries={end.peer: due for end, due in timeline.expiries.items()},
    )


def _mirrored_conversation(c: Conversation) -> Conversation:
    return replace(
        c,
        client=c.server,
        server=c.client,
        steps=tuple(_mirrored(step) for step in c.steps),
        client_packets=c.server_packets,
        client_path=c.server_path,
        server_path=c.client_path,
        server_packets=c.client_packets,
        client_bytes=c.server_bytes,
        server_bytes=c.client_bytes,
        successor=None if c.successor is None else _mirrored(c.successor),
    )


def _mirrored(step: Event | Traffic) -> Event | Traffic:
    if isinstance(step, Traffic):
        return Traffic(step.server, step.client)
    return replace(step, sender=step.sender.peer)


def packets(conversation: Conversation) -> set[int]:
    """Return the numbers of a conversation's packets that are known: those between are in its traffic."""
    known: set[int] = set(conversation.duplicates.packets)
    for step in conversation.steps:
        if isinstance(step, Event):
            known.add(step.packet)
        else:
            streams = [step.of(end) for end in End if step.of(end)]
            first, last = min(s.first_packet for s in streams), max(s.last_packet for s in streams)
            known.update(range(first, last + 1))
    return known


# Which end listens, and is asked for something, is the one thing that is not the same for both.
OF_CLIENT_AND_SERVER = {
    *("bind-blocked", "slow-open", "accept-queue-full", "never-accepted", "blocked-by-old-connection"),
    "keepalive-race",
}


def check_mirror(one):
    plain, swapped = judge(one), judge(mirrored(one))
    swap = {"client": "server", "server": "client", "both": "both", "none": "none", None: None}
    assert swapped.verdict.code == plain.verdict.code
    assert swapped.verdict.initiator == swap[plain.verdict.initiator]
    assert swapped.verdict.client_role == plain.verdict.server_role
    assert swapped.verdict.server_role == plain.verdict.client_role
    assert swapped.verdict.packets == plain.verdict.packets
    seen = {
        (f.code, swap[f.endpoint], f.certainty, f.since_ns, f.packets)
        for f in plain.findings
        if f.code not in OF_CLIENT_AND_SERVER
    }
    assert seen == {
        (f.code, f.endpoint, f.certainty, f.since_ns, f.packets)
        for f in swapped.findings
        if f.code not in OF_CLIENT_AND_SERVER
    }
