"""Compares what closeseq infers from packets with what the kernel reports, endpoint by endpoint.

In three ways:

- at every step, with the packets until then: no wrong transition may be called observed or proved;
- at every step, with all packets of the experiment, since later packets correct earlier inferences: both
  endpoints' states must be the kernel's;
- each endpoint's whole sequence of states, where the kernel's tracepoint could be read.

Not everything the kernel does causes a packet. An experiment declares at which steps a state is hidden, of
which endpoint, and why; only there the two may differ, and at one of these steps they must.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from closeseq.analysis import Analysis
from closeseq.connection import Connection
from closeseq.connections.conversation import ENDS, End
from closeseq.settings import SECOND
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from closeseq.lab.kernel_answers import Answers, SocketEntry, TableMoment
    from closeseq.settings import Settings
    from closeseq.tcp.timeline import Transition
    from closeseq.verdict.population.rules import PopulationFinding

SAME_INSTANT_NS = SECOND // 200  # that the capture and the tracepoint may be apart about one event; on a path
UNHURRIED_NS = 3 * SECOND // 100  # so much more, and four times the way from the tap to the further end
CLOCK_NS = SECOND // 4  # that a timer may be off: the kernel counts in ticks, and rounds
CERTAIN = (Certainty.OBSERVED, Certainty.PROVED)
CLOCKED = (State.TIME_WAIT, State.FIN_WAIT_2)


@dataclass(frozen=True, slots=True)
class View:
    """One endpoint of one connection at one moment, as inferred and in the kernel."""

    connection: Connection
    end: End
    inferred: State  # then
    certainty: Certainty | None  # of the transition into it; None before the first one
    expiry_ns: int | None  # when its clock will have run out, since the epoch
    moment: TableMoment  # when, and the whole socket table
    entry: SocketEntry | None  # None where the kernel had no socket

    @property
    def kernel(self) -> State:
        """The kernel's state."""
        return self.entry.state if self.entry else State.CLOSED

    @property
    def agrees(self) -> bool:
        """Whether the states are the same; a listener's socket does not belong to this connection yet."""
        return self.kernel is (State.CLOSED if self.inferred is State.LISTEN else self.inferred)

    @property
    def hidden(self) -> str:
        """Why no packet shows the state; empty if one does."""
        if self.inferred is State.UNKNOWN:
            return "its beginning was not captured"
        return self.moment.hidden.get(self.end, "")

    @property
    def clock_ns(self) -> int | None:
        """When the kernel's timer will have run out, since the epoch, in a state that a timer ends."""
        entry = self.entry
        if entry is None or entry.state not in CLOCKED or not entry.orphaned or entry.expires_ms is None:
            return None
        return self.moment.time_ns + entry.expires_ms * SECOND // 1000

    @property
    def clocks_differ(self) -> bool:
        """Whether inference and kernel expect the state to end at different times."""
        if not self.agrees or self.clock_ns is None or self.expiry_ns is None:
            return False
        return abs(self.clock_ns - self.expiry_ns) > CLOCK_NS

    def __str__(self) -> str:
        inferred = f"{self.inferred} ({self.certainty})" if self.certainty else str(self.inferred)
        return f"#{self.connection.id} {self.end}: inferred {inferred}, kernel {self.kernel}"


@dataclass
class Agreement:
    """The result of the comparison."""

    moments: int = 0  # endpoints' states compared, over all steps
    sequences: int | None = None  # whole sequences compared; None without the tracepoint
    revised: int = 0  # states whose assumption was corrected by later packets
    hidden: dict[str, str] = field(default_factory=dict)  # "server: FIN_WAIT_1" -> why packets cannot tell
    wrong: list[str] = field(default_factory=list)  # everything that should not be


class Recording:
    """A capture that is read once, and can be analysed up to any moment.

    Args:
        path: of the capture.
        settings: when a wait or a timer counts as over.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        from closeseq.capture import open_capture
        from closeseq.segments import Decoder

        self._path = str(path)
        self._settings = settings
        with open_capture(self._path) as capture:
            decoder = Decoder()
            self._batches = [decoder.decode(frames) for frames in capture.batches()]

    def until(self, time_ns: int | None = None, *, now_ns: int | None = None) -> list[Connection]:
        """Return the connections of the packets until then, or of all, as they stand at a moment.

        Args:
            time_ns: of the last packet to be looked at, since the epoch; all, if not said.
            now_ns: for which moment, likewise; if not said, `time_ns` or else that of the last packet.
        """
        analysis = self._analysis(time_ns)
        now = now_ns or time_ns or analysis.now_ns
        return [Connection(one.conversation, one.settings, now, capture=self._path) for one in analysis]

    def together(self) -> list[PopulationFinding]:
        """Return what all connections show together."""
        return self._analysis(None).population

    def _analysis(self, time_ns: int | None) -> Analysis:
        analysis = Analysis(self._path, self._settings)
        for batch in self._batches:
            analysis.feed(batch if time_ns is None else batch.take(batch.time_ns <= time_ns))
        return analysis


def views(connections: Iterable[Connection], moment: TableMoment) -> list[View]:
    """Return both endpoints of each connection that existed at a moment.

    Args:
        connections: as they stand then, or with what later packets show.
        moment: the socket table then.

    Returns:
        client and server of each connection, in turn, in the order of the connections.
    """
    return [_view(one, end, moment) for one in connections if _present(one, moment.time_ns) for end in ENDS]


def agreement(recording: Recording, answers: Answers) -> Agreement:
    """Compare a capture with the kernel's answers.

    Args:
        recording: of the capture.
        answers: from the same experiment.
    """
    result = Agreement()
    whole = recording.until(now_ns=answers.moments[-1].time_ns if answers.moments else None)
    for moment in answers.moments:
        then = views(recording.until(moment.time_ns), moment)
        _compare_moment(result, then, views(whole, moment), moment)
    result.wrong += _needless(result, answers)
    if answers.moves is not None:
        result.sequences = 0
        for one in whole:
            for end in set(ENDS) - set(answers.handmade):
                _compare_sequence(result, Sequence.of(one, end, answers), answers)
    return result


def same_instant_ns(one_way_ns: tuple[int, int]) -> int:
    """Return by how much the capture and the tracepoint may be apart about one event.

    Args:
        one_way_ns: how long packets take between each end and the capture point; 0 on loopback.
    """
    away_ns = max(one_way_ns)
    return SAME_INSTANT_NS + (UNHURRIED_NS + 4 * away_ns if away_ns else 0)


def _present(one: Connection, at_ns: int) -> bool:
    """Whether it had begun, and its addresses and ports were not yet those of the next one."""
    successor = one.conversation.successor
    return one.start_ns <= at_ns and not (successor and successor.time_ns <= at_ns)


def _view(one: Connection, end: End, moment: TableMoment) -> View:
    timeline, at = one.timeline, moment.time_ns
    moves = [t for t in timeline.transitions if t.endpoint is end and t.time_ns <= at]
    addresses = one.conversation.address(end), one.conversation.address(end.peer)
    return View(
        one,
        end,
        timeline.state(end, at),
        moves[-1].certainty if moves else None,
        timeline.expiries.get(end),
        moment,
        moment.entry(*addresses),
    )


def _compare_moment(result: Agreement, then: list[View], hindsight: list[View], moment: TableMoment) -> None:
    """Compare the states after a step: inferred then, and with all packets."""
    when = f"after {moment.after!r}"
    for early, late in zip(then, hindsight, strict=False):
        result.moments += 1
        if late.hidden and not (early.agrees and late.agrees):
            result.hidden[f"{late.end} is in {late.kernel}"] = late.hidden
        elif not late.agrees:
            result.wrong.append(f"{when}: {late}")
        elif withdrawn := _withdrawn(early, late):
            result.wrong.append(f"{when}: {early}: {withdrawn}")
        elif early.clocks_differ and not moment.clock:
            result.wrong.append(f"{when}: {early}: {_clocks(early)}")
        elif not early.agrees:
            result.revised += 1


def _needless(result: Agreement, answers: Answers) -> Iterator[str]:
    """Yield the states that were declared hidden, and were inferred at every such step."""
    for why in {why for moment in answers.moments for why in moment.hidden.values()}:
        if why not in result.hidden.values():
            yield f"packets show a state that was declared hidden: {why}"


def _withdrawn(early: View, late: View) -> str:
    """Return which transition was called observed or proved, and is no longer inferred; empty if none."""
    kept = {(t.packet, t.after) for t in late.connection.timeline.transitions if t.endpoint is late.end}
    for one in early.connection.timeline.transitions:
        if one.endpoint is early.end and one.certainty in CERTAIN and (one.packet, one.after) not in kept:
            return f"{one.after} was called {one.certainty}, and is withdrawn"
    return ""


def _clocks(view: View) -> str:
    """Return in words when a state ends, by inference and kernel."""
    assert view.clock_ns is not None, "the kernel has a timer"
    assert view.expiry_ns is not None, "so has the inference"
    left = [(clock - view.moment.time_ns) / SECOND for clock in (view.expiry_ns, view.clock_ns)]
    return f"inferred to last {left[0]:.1f} s more, in the kernel {left[1]:.1f} s"


@dataclass(frozen=True, slots=True)
class Sequence:
    """One endpoint's states from beginning to end, as inferred and in the kernel."""

    connection: Connection
    end: End
    kernel: tuple[State, ...]  # as `comparable` has them
    transitions: tuple[Transition, ...]  # inferred

    @classmethod
    def of(cls, one: Connection, end: End, answers: Answers) -> Sequence:
        """Return the sequence of one endpoint of one connection, until its last packet.

        Args:
            one: the connection, as it stands at the end.
            end: which endpoint.
            answers: with the kernel's transitions.
        """
        c, timeline, moves = one.conversation, one.timeline, answers.moves or []
        local, peer = c.address(end).port, c.address(end.peer).port
        # On a slow line a connection's first packet is captured some time after it was sent.
        first = c.first_ns - SAME_INSTANT_NS if c.incarnation > 1 else 0
        last = min(c.last_ns, c.successor.time_ns - 2 * SAME_INSTANT_NS if c.successor else c.last_ns)
        last += same_instant_ns(answers.one_way_ns)
        own = [m.after for m in moves if (m.local, m.peer) == (local, peer) and first <= m.time_ns <= last]
        inferred = [
            t for t in timeline.transitions if t.endpoint is end and t.certainty is not Certainty.TIMER
        ]
        return cls(one, end, tuple(comparable([timeline.first_state(end), *own])), tuple(inferred))

    @property
    def inferred(self) -> tuple[State, ...]:
        """The states by inference, the first one included, as `comparable` has them."""
        return self.states(len(self.transitions))

    def states(self, count: int) -> tuple[State, ...]:
        """Return the states of the first so many inferred transitions."""
        first = self.connection.timeline.first_state(self.end)
        return tuple(comparable([first, *(t.after for t in self.transitions[:count])]))

    @property
    def first_wrong(self) -> Transition | None:
        """The first inferred transition after which the states no longer begin the kernel's sequence."""
        for number, transition in enumerate(self.transitions, 1):
            states = self.states(number)
            if states != self.kernel[: len(states)]:
                return transition
        return None

    def __str__(self) -> str:
        return (
            f"#{self.connection.id} {self.end}: inferred {' '.join(self.inferred)}, "
            f"kernel {' '.join(self.kernel)}"
        )


def _compare_sequence(result: Agreement, sequence: Sequence, answers: Answers) -> None:
    assert result.sequences is not None, "there is something to compare with"
    result.sequences += 1
    if sequence.inferred == sequence.kernel or State.UNKNOWN in sequence.inferred:
        return
    wrong = sequence.first_wrong
    if wrong is not None and wrong.certainty in CERTAIN:
        result.wrong.append(f"{sequence}; {wrong.after} was called {wrong.certainty}")
    elif not any(sequence.end in moment.hidden for moment in answers.moments):
        result.wrong.append(str(sequence))


def comparable(states: Iterable[State]) -> Iterator[State]:
    """Yield a sequence of states without what kernel and packets cannot show alike.

    The kernel replaces a socket that enters TIME_WAIT, or one in FIN_WAIT_2 without an owner, by a smaller
    one, and its tracepoint reports that as CLOSED; only the socket table shows which of the two it was. The
    kernel has no socket for a server's endpoint before the handshake is complete, and a listener belongs to
    no connection.
    """
    merged = [State.CLOSED if state in (State.TIME_WAIT, State.LISTEN) else state for state in states]
    merged = [
        state
        for state, after in zip(merged, [*merged[1:], State.CLOSED], strict=True)
        if (state, after) != (State.SYN_RECEIVED, State.CLOSED)
    ]
    for before, state in pairwise([None, *merged]):
        if state is None or state is before or (before, state) == (State.FIN_WAIT_2, State.CLOSED):
            continue
        yield state
