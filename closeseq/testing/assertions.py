"""What a test asserts of its connections: the fixture `closes`, and the connections at some ports.

An assertion that does not hold raises AssertionError, with the timelines of the connections at fault.

A close takes a moment. So an assertion waits, no longer than needed, until the connections are over or the
time is up. Where an event loop runs in the same thread it does not wait, since it would hold up the loop and
with it the servers that are to close; there, `settled` waits.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from closeseq.connections.conversation import Opener
from closeseq.errors import UnknownWordError
from closeseq.report.containment import bare_lines, contained
from closeseq.report.text import Style, printable
from closeseq.report.timeline_text import format_timeline
from closeseq.testing.packet_watch import PacketWatch, SavedPackets, losses
from closeseq.units import count, listed, span
from closeseq.verdict import vocabulary
from closeseq.verdict.model import EntryKind, Severity, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from closeseq.analysis import Analysis
    from closeseq.connection import Connection

NEVER = 60.0  # seconds from which a wait counts as stuck, where a test does not say: as in `analyze`
LOOK_AGAIN = 0.05  # seconds between two looks, at least
MARGIN = 0.5  # seconds: a wait of the asserted length ends a moment later
MOST_DRAWN = 3  # timelines in a message
WIDTH = 92  # columns of a timeline in a message, which pytest indents
GRACEFUL = frozenset({VerdictCode.GRACEFUL, VerdictCode.SIMULTANEOUS})

HOLD_UP = "an event loop runs in this thread, so nothing was waited for: first `await {}.settled(...)`"


class CloseWatch:
    """The fixture `closes`.

    Args:
        packets: the packets of the test; None if they cannot be captured.
        refuse: is called if something is asserted of packets that cannot be captured, and does not return.
        allowed: verdicts and findings that are known: connections with one of them are not at fault.
    """

    def __init__(
        self, packets: PacketWatch | None, refuse: Callable[[], NoReturn], allowed: Iterable[str] = ()
    ) -> None:
        self._packets = packets
        self._refuse = refuse
        self._allowed = codes_named(allowed)

    @property
    def capture(self) -> str:
        """The file to which packets are written; it is kept if the test fails."""
        return self._watched().path

    def on(self, *ports: int, host: str | None = None, earlier: bool = False) -> PortCloses:
        """Return the connections at these ports, a server's or a client's.

        Args:
            ports: one or more.
            host: only with this IP address; None: with any.
            earlier: also connections that were opened before the capture began, such as another test's.

        Raises:
            TypeError: no port is given.
            ValueError: the host is no IP address; raised by the first assertion.
        """
        if not ports:
            raise TypeError("on() needs a port: others on this machine have connections too")
        return PortCloses(self._watched(), ports, host, self._allowed, begun=not earlier)

    def read(self, path: str, *more: str) -> Self:
        """Return the same for a saved capture; this needs no rights.

        Args:
            path: as for `closeseq.analyze`.
            more: likewise.
        """
        packets = SavedPackets(str(path), *map(str, more))
        return type(self)(packets, self._refuse, self._allowed)

    def _watched(self) -> PacketWatch:
        if self._packets is None:
            self._refuse()
        return self._packets


@dataclass(frozen=True)
class Look:
    """The connections as they were at a moment."""

    analysis: Analysis
    connections: list[Connection]
    known: int  # of these, how many are allowed
    faulty: list[Connection]  # those at fault that are not allowed


class PortCloses:
    """The connections at some ports; see `CloseWatch.on`. Each assertion returns this again.

    Args:
        packets: those of the test, or of a capture.
        ports: one or more.
        host: only with this IP address; None: with any.
        allowed: codes of verdicts and findings; a connection with one of them is not at fault.
        begun: only connections whose beginning was captured. It has no effect on a saved capture.
    """

    def __init__(
        self,
        packets: PacketWatch,
        ports: Sequence[int],
        host: str | None,
        allowed: frozenset[str],
        *,
        begun: bool,
    ) -> None:
        self._packets = packets
        self._ports = ports
        self._host = host
        self._allowed = allowed
        self._begun = begun and packets.grows  # only those whose beginning was captured

    def connections(self, *, stuck_after: float = NEVER) -> list[Connection]:
        """Return the connections up to now, as `closeseq.analyze` does, to assert anything else of them.

        Args:
            stuck_after: seconds from which a wait counts as stuck.
        """
        return self._seen(self._analysis(stuck_after))

    def all_graceful(self, *, within: float = 1.0, at_least: int = 1) -> Self:
        """Assert that each connection was closed by both endpoints, with FINs that were acknowledged.

        Args:
            within: seconds to wait for those that are not over yet.
            at_least: how many connections there must be.

        Raises:
            AssertionError: one was not, or there are fewer.
        """
        __tracebackhide__ = True

        def at_fault(one: Connection) -> frozenset[str]:
            return frozenset() if one.verdict in GRACEFUL else codes_of(one)

        def goes_on(look: Look) -> bool:
            few = len(look.connections) < at_least
            return (few or bool(look.faulty)) and not any(one.verdict.ended for one in look.faulty)

        look, waited = self._watch(at_fault, goes_on, within, NEVER)
        return self._judge(look, at_least, f"did not close gracefully{waited}")

    def none_stuck(self, after: float = 2.0, *, at_least: int = 1) -> Self:
        """Assert that no endpoint waits in vain, for so long, for its peer or its program to close.

        Waits for connections whose close has begun, until it has ended or has lasted that long. A connection
        that nobody has begun to close is not stuck.

        Args:
            after: seconds from which a wait counts as stuck.
            at_least: how many connections there must be.

        Raises:
            AssertionError: one does, or there are fewer connections.
        """
        __tracebackhide__ = True

        def at_fault(one: Connection) -> frozenset[str]:
            stuck = {
                f.code for f in one.findings if f.code.arises_with_time and f.severity is Severity.PROBLEM
            }
            return frozenset(stuck if one.verdict is not VerdictCode.NOT_JUDGED else {one.verdict})

        def goes_on(look: Look) -> bool:
            closing = any(one.verdict is VerdictCode.CLOSING for one in look.connections)
            return not look.faulty and (closing or len(look.connections) < at_least)

        look, _ = self._watch(at_fault, goes_on, after + MARGIN, after)
        return self._judge(look, at_least, f"waited in vain for {span(round(after * 1e9))} or longer")

    def without(self, *codes: str, stuck_after: float = NEVER, at_least: int = 1) -> Self:
        """Assert that no connection has one of these verdicts or findings, as packets show up to now.

        Args:
            codes: as `analyze --fail-on` takes them.
            stuck_after: seconds from which a wait counts as stuck.
            at_least: how many connections there must be.

        Raises:
            AssertionError: one has, or there are fewer connections.
            UnknownWordError: a code is none.
        """
        __tracebackhide__ = True
        wanted = codes_named(codes)

        def at_fault(one: Connection) -> frozenset[str]:
            return codes_of(one) & wanted

        look, _ = self._watch(at_fault, lambda _: False, 0, stuck_after)
        return self._judge(look, at_least, f"with {_named(look, wanted)}")

    async def settled(self, within: float = 1.0) -> Self:
        """Wait until the connections are over, while the event loop goes on; raises nothing if they are not.

        Args:
            within: seconds to wait at most.
        """
        until = time.monotonic() + within
        while self._packets.grows and time.monotonic() < until:
            seen = self.connections()
            if seen and all(one.verdict.ended for one in seen):
                break
            await asyncio.sleep(LOOK_AGAIN)
        return self

    def _watch(
        self,
        at_fault: Callable[[Connection], frozenset[str]],
        goes_on: Callable[[Look], bool],
        within: float,
        stuck_after: float,
    ) -> tuple[Look, str]:
        """Look until there is no reason to go on, or the time is up.

        Args:
            at_fault: returns the codes for which a connection is at fault; none if it is not.
            goes_on: whether a later look may be another.
            within: seconds.
            stuck_after: seconds from which a wait counts as stuck.

        Returns:
            the last look, and how long it took, for a message.
        """
        began = time.monotonic()
        until = began + within
        while True:
            at = time.monotonic()
            look = self._look(at_fault, stuck_after)
            # A look shows the moment at which it began: the last one begins when the time is up.
            if not (goes_on(look) and at < until and self._packets.grows) or _in_event_loop():
                lasted = span(round((at - began) * 1e9))
                return look, f" (waited {lasted})" if within and goes_on(look) else ""
            now = time.monotonic()
            time.sleep(max(0.0, min(max(LOOK_AGAIN, now - at), until - now)))

    def _look(self, at_fault: Callable[[Connection], frozenset[str]], stuck_after: float) -> Look:
        analysis = self._analysis(stuck_after)
        seen = self._seen(analysis)
        found = [one for one in seen if at_fault(one)]
        # A verdict that is allowed excuses all, a finding what it stands for.
        known = [one for one in found if self._allowed & {one.verdict, *at_fault(one)}]
        return Look(analysis, seen, len(known), [one for one in found if one not in known])

    def _analysis(self, stuck_after: float) -> Analysis:
        hosts = [] if self._host is None else [self._host]
        return self._packets.analysis(self._ports, hosts, stuck_after)

    def _seen(self, analysis: Analysis) -> list[Connection]:
        return [one for one in analysis if one.opener is Opener.SEEN or not self._begun]

    def _judge(self, look: Look, at_least: int, said: str) -> Self:
        """Raise AssertionError if a connection is at fault, or there are too few."""
        __tracebackhide__ = True
        number = len(look.connections)
        if not look.faulty and number >= at_least:
            return self
        of = f"{len(look.faulty)} of {count(number, 'connection')}"
        if not look.faulty:
            of = count(number, "connection") if number else "no connection"
            said = f"seen, at least {at_least} expected"
        lines = [f"{of} at {self._where} {said}"]
        for one in look.faulty[:MOST_DRAWN]:
            lines += ["", _drawn(one).rstrip("\n")]
        lines += ["", *self._remarks(look)]
        raise AssertionError("\n".join(lines))

    def _remarks(self, look: Look) -> list[str]:
        """Return what else is to be known: how to see more, and what limits it."""
        path = printable(self._packets.path)
        ports = " ".join(f"-p {port}" for port in self._ports)
        lines = []
        rest = len(look.faulty) - MOST_DRAWN
        if rest > 0:
            lines.append(f"{rest:,} more: closeseq timeline {shlex.quote(path)} {ports}")
        if look.known:
            allowed = listed(sorted(self._allowed))
            lines.append(f"{count(look.known, 'connection')} not counted: {allowed} allowed")
        earlier = len(look.analysis) - len(look.connections)
        if earlier:
            lines.append(f"{count(earlier, 'connection')} not looked at: opened before the capture began")
        lines += losses(look.analysis)
        if self._packets.grows and _in_event_loop():
            lines.append(HOLD_UP.format(f"closes.on({', '.join(map(str, self._ports))})"))
        return [*lines, f"capture: {path}"]

    @property
    def _where(self) -> str:
        ports = listed([str(port) for port in self._ports], "or")
        host = "" if self._host is None else f" of {self._host}"
        return f"port {ports}{host}"


def codes_named(words: Iterable[str]) -> frozenset[str]:
    """Return the codes of verdicts and findings.

    Args:
        words: each in any spelling that `vocabulary.lookup` knows.

    Raises:
        UnknownWordError: one is not known, or is a state.
    """
    entries = [vocabulary.lookup(word) for word in words]
    for one in entries:
        if one.kind not in {EntryKind.VERDICT, EntryKind.FINDING}:
            raise UnknownWordError(f"{one.code.value!r} is a {one.kind}, not a verdict or a finding")
    return frozenset(one.code for one in entries)


def codes_of(connection: Connection) -> frozenset[str]:
    """Return the codes of a connection: its verdict, and its findings."""
    return frozenset([connection.verdict, *(finding.code for finding in connection.findings)])


def _named(look: Look, wanted: frozenset[str]) -> str:
    """Return those codes that were found, or else all that were looked for."""
    found = wanted & {code for one in look.faulty for code in codes_of(one)}
    return listed(sorted(found or wanted), "or")


def _drawn(connection: Connection) -> str:
    style = Style(WIDTH)
    return contained(
        connection,
        lambda one: format_timeline(one, width=WIDTH),
        lambda one: "\n".join(bare_lines(one, style)),
    )


def _in_event_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
