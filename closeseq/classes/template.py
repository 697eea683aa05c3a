"""The timeline and judgement of a class, into which each member's numbers are put.

A replay on noting numbers leaves a timeline and a judgement in which each number knows the form that it
stands for. For another connection of the same class they are the same, with that connection's values of these
forms, and texts are made of those. Nothing is inferred again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from closeseq.classes.numbers import Number
from closeseq.connections.conversation import ENDS, End
from closeseq.tcp.distance import Distance
from closeseq.tcp.timeline import Step, Timeline, Transition
from closeseq.verdict import Judgement
from closeseq.verdict.model import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from closeseq.classes.forms import TextHole, Wording
    from closeseq.classes.tree import Columns
    from closeseq.connection import Connection
    from closeseq.connections.conversation import Conversation

Values: TypeAlias = "list[Any]"  # a connection's values of all slots of a template
Get: TypeAlias = "Callable[[Values, Conversation], Any]"


class Template:
    """The timeline, judgement and shape of one class.

    A *slot* is a place for a number: an index into the values that a connection brings.

    Args:
        connection: judged on noting numbers, with texts.
        wording: the holes of its texts.
    """

    def __init__(self, connection: Connection, wording: Wording) -> None:
        self._wording = wording
        self._slot_of: dict[tuple[int, int], int] = {}  # a form, and what is added to it
        timeline, judgement = connection.timeline, connection.judgement
        self._shape = connection.shape
        place = {id(transition): at for at, transition in enumerate(timeline.transitions)}
        self._transitions = [
            (
                self._get(t.packet),
                self._get(t.time_ns),
                t.endpoint,
                t.before,
                t.after,
                self._text(t.cause),
                t.certainty,
            )
            for t in timeline.transitions
        ]
        self._steps = [
            (
                s.client,
                s.server,
                s.arrived,
                None if s.note is None else self._text(s.note),
                [place[id(t)] for t in s.transitions],
            )
            for s in timeline.steps
        ]
        distance = timeline.distance
        assert distance is not None
        self._least = [(end, self._get(distance.least_ns[end])) for end in ENDS]
        self._late = [(end, self._get(distance.late_ns[end])) for end in ENDS]
        self._first = [(end, self._get(ns)) for end, ns in distance.first_ns.items()]
        self._expiries = [(end, self._get(ns)) for end, ns in timeline.expiries.items()]
        self._strays = [self._get(packet) for packet in timeline.strays]
        self._now, self._ongoing = self._get(timeline.now_ns), self._get(timeline.ongoing)
        verdict = judgement.verdict
        self._verdict = (verdict.code, verdict.initiator, verdict.client_role, verdict.server_role)
        self._summary = self._text(verdict.summary)
        self._packets = [self._get(packet) for packet in verdict.packets]
        self._findings = [
            (
                (f.code, f.severity, f.endpoint, f.certainty),
                self._get(f.since_ns),
                self._get(f.duration_ns),
                [self._get(packet) for packet in f.packets],
                self._text(f.summary),
                self._text(f.advice),
            )
            for f in judgement.findings
        ]

    def values(self, columns: Columns, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of some connections, to be put into the slots.

        Args:
            columns: the numbers of the connections of a skeleton.
            rows: int64, which of these, ascending.

        Returns:
            A row for each of these, a column a slot; int64, or Python's whole numbers where 64 bits do not
            hold them.
        """
        found = [columns.number(form, offset, rows) for form, offset in self._slot_of]
        return np.stack(found, axis=1) if found else np.zeros((len(rows), 0), np.int64)

    def fill(self, connection: Connection, values: Values) -> None:
        """Give a connection its timeline, judgement and shape.

        Args:
            connection: of this class.
            values: its row of `values`, as plain Python.
        """
        c = connection.conversation
        transitions = tuple(
            Transition(packet(values, c), time_ns(values, c), end, before, after, cause(values, c), certainty)
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
                None if note is None else note(values, c),
                tuple(transitions[at] for at in made),
            )
            for what, (client, server, arrived, note, made) in zip(c.steps, self._steps, strict=True)
        )
        timeline = Timeline(
            c,
            steps,
            transitions,
            self._now(values, c),
            {end: ns(values, c) for end, ns in self._expiries},
            Distance(
                {end: ns(values, c) for end, ns in self._least},
                {end: ns(values, c) for end, ns in self._late},
                {end: ns(values, c) for end, ns in self._first},
            ),
            frozenset(packet(values, c) for packet in self._strays),
            ongoing=bool(self._ongoing(values, c)),
        )
        verdict = Verdict(
            *self._verdict, self._summary(values, c), tuple(packet(values, c) for packet in self._packets)
        )
        findings = tuple(
            Finding(
                *what,
                since_ns(values, c),
                duration_ns(values, c),
                tuple(packet(values, c) for packet in packets),
                summary(values, c),
                advice(values, c),
            )
            for what, since_ns, duration_ns, packets, summary, advice in self._findings
        )
        connection.judged(timeline, Judgement(verdict, findings), self._shape)

    def _get(self, one: Any) -> Get:
        """Return what gets this from a connection's values: a number, a list, an address, or itself."""
        if one.__class__ is Number:
            slot = self._slot_of.setdefault((one.form, one.offset), len(self._slot_of))
            return lambda values, _: values[slot]
        if isinstance(one, list):
            parts = [self._get(part) for part in one]
            return lambda values, c: [part(values, c) for part in parts]
        if isinstance(one, End):
            return lambda _, c: c.address(one)
        return lambda _, __: one

    def _text(self, text: str) -> Get:
        """Return what makes this text with a connection's values."""
        pieces = self._wording.pieces(text)
        if all(isinstance(piece, str) for piece in pieces):
            return lambda _, __: text
        parts = [self._words(piece) for piece in pieces]
        return lambda values, c: "".join([part(values, c) for part in parts])

    def _words(self, piece: str | TextHole) -> Get:
        if isinstance(piece, str):
            return lambda _, __: piece
        how, given = piece.how, [self._get(one) for one in piece.given]
        return lambda values, c: how(*[one(values, c) for one in given])
