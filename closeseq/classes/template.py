"""The timeline and judgement of a class, into which each member's numbers are put.

A replay on noting numbers leaves a timeline and a judgement in which each number knows the form that it
stands for. For another connection of the same class they are the same, with that connection's values of these
forms, and texts are made of those. Nothing is inferred again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.classes.slots import Slots
from closeseq.connections.conversation import ENDS
from closeseq.tcp.distance import Distance
from closeseq.tcp.timeline import Step, Timeline, Transition
from closeseq.verdict import Judgement
from closeseq.verdict.model import Finding, Verdict

if TYPE_CHECKING:
    from closeseq.classes.forms import Wording
    from closeseq.classes.slots import Values
    from closeseq.connection import Connection


class Template:
    """The timeline, judgement and shape of one class.

    Args:
        connection: judged on noting numbers, with texts.
        wording: the holes of its texts.
    """

    def __init__(self, connection: Connection, wording: Wording) -> None:
        self.slots = slots = Slots(wording)
        timeline, judgement = connection.timeline, connection.judgement
        self._shape = connection.shape
        place = {id(transition): at for at, transition in enumerate(timeline.transitions)}
        self._transitions = [
            (
                slots.get(t.packet),
                slots.get(t.time_ns),
                t.endpoint,
                t.before,
                t.after,
                slots.text(t.cause),
                t.certainty,
            )
            for t in timeline.transitions
        ]
        self._steps = [
            (
                s.client,
                s.server,
                s.arrived,
                None if s.note is None else slots.text(s.note),
                [place[id(t)] for t in s.transitions],
            )
            for s in timeline.steps
        ]
        distance = timeline.distance
        assert distance is not None
        self._least = [(end, slots.get(distance.least_ns[end])) for end in ENDS]
        self._late = [(end, slots.get(distance.late_ns[end])) for end in ENDS]
        self._first = [(end, slots.get(ns)) for end, ns in distance.first_ns.items()]
        self._expiries = [(end, slots.get(ns)) for end, ns in timeline.expiries.items()]
        self._strays = [slots.get(packet) for packet in timeline.strays]
        self._now, self._ongoing = slots.get(timeline.now_ns), slots.get(timeline.ongoing)
        verdict = judgement.verdict
        self._verdict = (verdict.code, verdict.initiator, verdict.client_role, verdict.server_role)
        self._summary = slots.text(verdict.summary)
        self._packets = [slots.get(packet) for packet in verdict.packets]
        self._findings = [
            (
                (f.code, f.severity, f.endpoint, f.certainty),
                slots.get(f.since_ns),
                slots.get(f.duration_ns),
                [slots.get(packet) for packet in f.packets],
                slots.text(f.summary),
                slots.text(f.advice),
            )
            for f in judgement.findings
        ]

    def fill(self, connection: Connection, values: Values) -> None:
        """Give a connection its timeline, judgement and shape.

        Args:
            connection: of this class.
            values: its row of `slots.values`, as plain Python.
        """
        c = connection.conversation
        ends = c.client, c.server
        transitions = tuple(
            Transition(
                packet(values, ends),
                time_ns(values, ends),
                end,
                before,
                after,
                cause(values, ends),
                certainty,
            )
            for packet, time_ns, end, before, after, cause, certainty in self._transitions
        )
        start = c.first_ns
        steps = tuple(
            Step(
                what,
                start,
                client,
                server,
                arrived,
                None if note is None else note(values, ends),
                tuple(transitions[at] for at in made),
            )
            for what, (client, server, arrived, note, made) in zip(c.steps, self._steps, strict=True)
        )
        timeline = Timeline(
            c,
            steps,
            transitions,
            self._now(values, ends),
            {end: ns(values, ends) for end, ns in self._expiries},
            Distance(
                {end: ns(values, ends) for end, ns in self._least},
                {end: ns(values, ends) for end, ns in self._late},
                {end: ns(values, ends) for end, ns in self._first},
            ),
            frozenset(packet(values, ends) for packet in self._strays),
            ongoing=bool(self._ongoing(values, ends)),
        )
        verdict = Verdict(
            *self._verdict,
            self._summary(values, ends),
            tuple(packet(values, ends) for packet in self._packets),
        )
        findings = tuple(
            Finding(
                *what,
                since_ns(values, ends),
                duration_ns(values, ends),
                tuple(packet(values, ends) for packet in packets),
                summary(values, ends),
                advice(values, ends),
            )
            for what, since_ns, duration_ns, packets, summary, advice in self._findings
        )
        connection.judged(timeline, Judgement(verdict, findings), self._shape)
