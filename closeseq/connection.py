"""One analysed connection: its conversation, timeline and judgement, and what is most often read of them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import TYPE_CHECKING, Self

from closeseq.connections import shape
from closeseq.connections.conversation import Conversation, End, Opener
from closeseq.packets.frames import Files
from closeseq.packets.value import cached, value
from closeseq.settings import SECOND
from closeseq.tcp.replay import replay
from closeseq.tcp.timeline import not_replayed
from closeseq.verdict import Judgement, judge
from closeseq.verdict.fault import not_judged
from closeseq.verdict.model import Finding, Initiator, Role, Severity
from closeseq.verdict.program_errors import ProgramError, program_errors

if TYPE_CHECKING:
    from closeseq.settings import Settings
    from closeseq.tcp.states import State
    from closeseq.tcp.timeline import Timeline
    from closeseq.verdict.fault import Faults
    from closeseq.verdict.model import VerdictCode


ONE_FILE = Files()  # for all connections whose packets need no file to be named


@value
class Endpoint:
    """One endpoint of an analysed connection, with its state at the end of the capture."""

    address: str  # IP address, as text
    port: int
    state: State  # at the end of the capture
    role: Role  # what it did in the close
    packets: int  # captured, duplicates left out
    bytes: int  # of payload, retransmissions included


class Connection:
    """One connection, analysed. Its timeline and judgement are computed when first read.

    If a capture is in several files, packet numbers run on from file to file, also in texts such as
    `summary`. `files` maps them: `files.text(summary)` shows file and packet instead.

    Args:
        conversation: what was captured of it.
        settings: timers and limits.
        now_ns: the moment for which it is judged, since the Unix epoch.
        capture: the capture's path.
        dropped: packets that the capture itself reports lost.
        ongoing: whether the capture goes on.
        contained: False: a fault in closeseq is raised; else the connection is `not-judged`.
        worded: False: texts that take long are left out.
        faults: notes this connection if closeseq fails at it.
        files: of the capture.
    """

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        now_ns: int,
        *,
        capture: str = "",
        dropped: int = 0,
        ongoing: bool = False,
        contained: bool = True,
        worded: bool = True,
        faults: Faults | None = None,
        files: Files = ONE_FILE,
    ) -> None:
        self.conversation = conversation
        self.settings = settings
        self.files = files
        self.capture = files.path(conversation.first_packet) if files.several else capture
        self._now_ns = now_ns
        self._dropped = dropped
        self._ongoing = ongoing
        self._contained = contained
        self._worded = worded
        self._fault: Exception | None = None
        self._faults = faults

    def __repr__(self) -> str:
        return (
            f"<Connection {self.id} {self.conversation.client} -> {self.conversation.server} {self.verdict}>"
        )

    @cached
    def timeline(self) -> Timeline:
        """Both endpoints' states, step by step; UNKNOWN if closeseq itself fails."""
        try:
            return replay(self.conversation, self.settings.timers, self._now_ns, ongoing=self._ongoing)
        except Exception as error:
            if not self._contained:
                raise
            self._note(error)
            timeline = not_replayed(self.conversation, self._now_ns)
            return dataclasses.replace(timeline, ongoing=self._ongoing)

    @cached
    def judgement(self) -> Judgement:
        """The verdict and the findings; `not-judged` and none if closeseq itself fails."""
        timeline, fault = self.timeline, self._fault
        if fault is None:
            try:
                gaps = self.files.gaps() if self.files.several else ()
                return judge(
                    timeline, self.settings.limits, dropped=self._dropped, gaps=gaps, worded=self._worded
                )
            except Exception as error:
                if not self._contained:
                    raise
                self._note(error)
                fault = error
        return not_judged(self.conversation, fault)

    def judged(self, timeline: Timeline, judgement: Judgement, shape: str) -> None:
        """Set what is known of this connection already, so that it is not computed again.

        Args:
            timeline: both endpoints' states, as `replay` would give them.
            judgement: as `judge` would give it of this timeline.
            shape: the close in short, as `connections.shape` would give it.
        """
        self.__dict__.update(timeline=timeline, judgement=judgement, shape=shape)

    def unjudged(self, fault: Exception) -> Self:
        """Return this connection as `not-judged`, since closeseq failed to show it.

        Args:
            fault: what was raised.
        """
        self._note(fault)
        other = copy.copy(self)
        known = ""
        with contextlib.suppress(Exception):
            known = shape(self.conversation)
        other.__dict__.update(
            timeline=not_replayed(self.conversation, self._now_ns),
            judgement=not_judged(self.conversation, fault, failed_to="show"),
            shape=known,
        )
        return other

    def _note(self, fault: Exception) -> None:
        self._fault = fault
        if self._faults is not None:
            self._faults.add(self.id, fault)

    @cached
    def shape(self) -> str:
        """The close in short, such as "C:S S:SA C:A ~ C:FA S:A S:FA C:A"."""
        return shape(self.conversation)

    @property
    def id(self) -> int:
        """The number of the connection in its capture, from 1 in the order of the first packet."""
        return self.conversation.id

    @property
    def incarnation(self) -> int:
        """Which of the successive connections of its pair of addresses and ports this is, from 1."""
        return self.conversation.incarnation

    @property
    def opener(self) -> Opener:
        """How it is known which endpoint is the client."""
        return self.conversation.opener

    @property
    def start_ns(self) -> int:
        """The time of the first packet, in nanoseconds since the Unix epoch."""
        return self.conversation.first_ns

    @property
    def duration(self) -> float:
        """Seconds from the first packet to the last."""
        return (self.conversation.last_ns - self.conversation.first_ns) / SECOND

    @property
    def packets(self) -> int:
        """How many packets of both endpoints were captured, duplicates left out."""
        return self.conversation.client_packets + self.conversation.server_packets

    @property
    def client(self) -> Endpoint:
        """The endpoint that opened it actively."""
        return self.end(End.CLIENT)

    @property
    def server(self) -> Endpoint:
        """The endpoint that was listening."""
        return self.end(End.SERVER)

    def end(self, end: End) -> Endpoint:
        """Return an endpoint, with its state at the end of the capture."""
        c = self.conversation
        client = end is End.CLIENT
        address = c.address(end)
        return Endpoint(
            address.address,
            address.port,
            self.timeline.state(end),
            self.judgement.verdict.role(end),
            c.client_packets if client else c.server_packets,
            c.client_bytes if client else c.server_bytes,
        )

    @property
    def verdict(self) -> VerdictCode:
        """The code of the verdict; `closeseq explain CODE` explains it."""
        return self.judgement.verdict.code

    @property
    def initiator(self) -> Initiator:
        """Who began the end."""
        return self.judgement.verdict.initiator

    @property
    def summary(self) -> str:
        """How it closed, in one line."""
        return self.judgement.verdict.summary

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What deserves attention, in the order in which it is reported (`judgement.RULES`)."""
        return self.judgement.findings

    @property
    def errors(self) -> list[ProgramError]:
        """The errors that the system calls of both programs got, in the order of time."""
        return program_errors(self.timeline, self.findings)

    def has(self, code: str) -> bool:
        """Whether there is a finding with this code, such as "fin-lost"."""
        return any(finding.code == code for finding in self.findings)

    @property
    def has_problem(self) -> bool:
        """Whether there is something to fix."""
        return any(finding.severity is Severity.PROBLEM for finding in self.findings)
