"""One run of `live` or `follow`: report connections until there is a reason to stop, then sum up.

First how a signal asks it to stop.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.cli.terminal import Status, StatusLine, complain, fault_in, remark, status_text
from closeseq.errors import CaptureError, DeviceError
from closeseq.report.live_text import clock, closing, leftover, named, states
from closeseq.report.summary import asked_for
from closeseq.report.text import printable
from closeseq.units import count, span
from closeseq.verdict.fault import place
from closeseq.watch.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from closeseq.cli.live_output import UpdateWriter
    from closeseq.cli.metrics_output import MetricsOutput
    from closeseq.cli.requests import MonitorRequest
    from closeseq.report.problems import Group
    from closeseq.verdict.population.rules import PopulationFinding
    from closeseq.watch.kernel_view import KernelView
    from closeseq.watch.session import Session
    from closeseq.watch.updates import Updates

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass
class Stop:
    """Whether a signal asked to stop."""

    asked: bool = False


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Make the first SIGINT, SIGTERM or SIGHUP ask to stop, and a second one end the process at once."""
    stop = Stop()

    def first(number: int, _frame: FrameType | None) -> None:
        stop.asked = True
        for one in (number, signal.SIGINT):
            signal.signal(one, signal.default_int_handler)

    before = {}
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            before[number] = signal.signal(number, first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


LONG = 2.0  # seconds of writing at the end from which it is announced
AGAIN = "a second Ctrl-C ends it at once"
ASKING = 1.0  # seconds to ask the kernel about all groups of problems, of which fifteen may be shown
MOST_ASKED = 1000  # sockets of a group whose owners are asked for at the end
MOST_LEFTOVERS = 3  # services or programs whose sockets from before are named


class LiveRun:
    """A session that is reported until it is enough.

    Args:
        request: what was asked.
        session: packets and monitor; not closed here.
        writer: writes updates.
        stop: whether a signal came.
        kernel: the kernel's view; None if it is not asked.
        metrics: counts updates; None if nobody wants to know.
    """

    def __init__(
        self,
        request: MonitorRequest,
        session: Session,
        writer: UpdateWriter,
        stop: Stop,
        kernel: KernelView | None = None,
        *,
        metrics: MetricsOutput | None = None,
    ) -> None:
        self.request = request
        self.session = session
        self.writer = writer
        self.stop = stop
        self.kernel = kernel
        self.metrics = metrics
        self.status = StatusLine()
        self.asked = asked_for(session.monitor.settings)
        self.trouble = False  # the capture failed, or could not be saved
        self._began = time.monotonic()
        self._next_table = self._began + (request.every or 0.0)
        self._noticed = 0
        self._unsaved = False
        self._population: Sequence[PopulationFinding] = ()
        self._together = True  # closeseq has not failed at that
        self._ask_until = 0.0  # of the monotonic clock

    def run(self, hint: str = "") -> Status:
        """Report until it is enough, then what is left and a summary; return the exit status.

        Args:
            hint: for a person who waits for packets in vain.
        """
        asked = f", {self.asked}" if self.asked else ""
        path = self.session.monitor.reading.path
        complain(f"watching {'standard input' if path == '-' else path}{asked}{hint}; Ctrl-C ends it")
        try:
            self._say_leftovers()
            self._follow()
            self._finish()
        except BrokenPipeError:  # nobody reads any more; what was captured is still to be saved
            self.status.clear()
            self.session.end(hurried=True)
            raise
        finally:
            self.status.clear()
        if self._failed():
            return Status.BUG
        if self.trouble:
            return Status.CAPTURE
        return Status.FOUND if self._found() else Status.DONE

    def _follow(self) -> None:
        while not (self.stop.asked or self.session.over or self._enough()):
            try:
                updates = self.session.step(self.writer.most)
            except (DeviceError, CaptureError) as error:
                self._complain(str(error))
                self.trouble = True
                return
            self._count(updates)
            self._notice()
            if self.kernel is not None:
                self.kernel.look()
            if updates or self.writer.due:
                self.status.clear()
                self.writer.write(updates)
            self._look_at_all()
            if self.request.every is not None and time.monotonic() >= self._next_table:
                self._next_table += self.request.every
                self._table()
            if self.status.due:
                self.status.draw(self._status_text())

    def _finish(self) -> None:
        """Report the rest, and sum up."""
        self.status.clear()
        last = self.session.end(hurried=self.stop.asked)
        self._count(last, now=True)
        if self.session.unread is not None:
            self._complain(str(self.session.unread))
            self.trouble = True
        self._notice()
        self._look_at_all(last=True)
        self._announce(last)
        self.writer.write(last, last=True)
        if self.writer.form in {"timeline", "summary"}:
            unfinished = [one for one in last if one.kind is UpdateKind.OPEN]
            self._ask_until = time.monotonic() + ASKING
            lines = closing(
                self.session.monitor,
                unfinished,
                self.asked,
                self.writer.style,
                self._owners,
                population=self._population,
            )
            self.writer.output.write(f"{row}\n" for row in lines)

    def _look_at_all(self, *, last: bool = False) -> None:
        """Report what all connections show together, as soon as it shows."""
        monitor = self.session.monitor
        if self.request.wanted:  # these are only some of them
            return
        try:
            news = monitor.news(now=last)
        except Exception as fault:  # noqa: BLE001 - only this is affected
            if self._together:
                self._complain(f"closeseq failed to show what connections show together: {place(fault)}")
            self._together = False
            return
        self._population = monitor.population
        if news and not (last and self.writer.form == "timeline"):  # the summary has it
            self.status.clear()
            self.writer.write_news(news, monitor.reading.path)

    def _count(self, updates: list[Updates], *, now: bool = False) -> None:
        """Count updates, and show the counters; `now`: at once."""
        if self.metrics is not None:
            self.metrics.take(updates)
            self.metrics.renew(self.session.source.dropped, now=now)

    def _say_leftovers(self) -> None:
        """Say which sockets leaked before we began: nothing of them may be captured any more."""
        found = [] if self.kernel is None else self.kernel.leftovers(wait=ASKING)
        for one in found[:MOST_LEFTOVERS]:
            complain(leftover(one))
        if rest := sum(one.number for one in found[MOST_LEFTOVERS:]):
            complain(f"{count(rest, 'more socket')} {'is' if rest == 1 else 'are'} in CLOSE_WAIT already")

    def _announce(self, last: list[Updates]) -> None:
        """Announce what takes long or was left out."""
        if unjudged := self.session.monitor.unjudged:
            self._complain(f"{count(unjudged, 'connection')} seen but not judged: there was no time")
        number = sum(len(one) for one in last)
        if self.writer.seconds_for(number) > LONG:
            self._complain(f"writing {number:,} more records; {AGAIN}")

    def _owners(self, group: Group) -> Counter[str]:
        """Return the programs that own the sockets of a group of problems, with their number of sockets."""
        found: Counter[str] = Counter()
        if self.kernel is None or group.end is None:
            return found
        if group.address is not None and not self.kernel.is_here(group.address.address):
            return found
        for index in group.indices[:MOST_ASKED]:
            if time.monotonic() > self._ask_until:
                break
            seen = self.session.monitor.connection(index, UpdateKind.OPEN)
            one = self.kernel.answers(seen, wait=0.1).get(group.end)
            if one is not None and not one.remembered:
                found.update(named(owner) for owner in one.owners[:1])
        return found

    def _enough(self) -> bool:
        """Whether --duration or --until-close is reached."""
        duration, closes = self.request.duration, self.request.until_close
        return (duration is not None and time.monotonic() - self._began >= duration) or (
            closes is not None and self.writer.written[UpdateKind.CLOSED] >= closes
        )

    def _table(self) -> None:
        self.status.clear()
        now_ns = self.session.clock.now_ns()
        rows = [*states(self.session.monitor.counts(), now_ns, self.writer.style), ""]
        if self.writer.most is None:
            self.writer.output.write(f"{row}\n" for row in rows)
        else:  # not among records: a program that reads these could not parse it
            remark("\n".join(rows))

    def _status_text(self) -> str:
        """Return the status line, fitted to the terminal."""
        monitor = self.session.monitor
        counts = monitor.counts()
        return status_text(
            printable(monitor.reading.path),
            clock(time.time_ns())[:8],
            packets=monitor.reading.packets,
            lost=self.session.source.dropped,
            open_=counts.open,
            sockets=counts.client + counts.server,
            backlog=monitor.backlog,
            width=self.status.width,
        )

    def _notice(self) -> None:
        """Report what happened to the source, the file or the clock."""
        failed = self.session.unsaved
        if failed is not None and not self._unsaved:
            self._unsaved = self.trouble = True
            if failed.errno == errno.EPIPE:
                self.stop.asked = True  # the reader has closed the pipe
            else:
                self._complain(f"{failed}; continuing without saving")
        notices = self.session.source.notices
        for notice in notices[self._noticed :]:
            self._complain(notice)
        self._noticed = len(notices)
        jump_ns = self.session.clock.jump_ns()
        if jump_ns:
            way = "forward" if jump_ns > 0 else "back"
            self._complain(
                f"the clock jumped {span(abs(jump_ns))} {way}: it was set, or the machine slept; "
                "waits measured across that moment are wrong by that much"
            )
        if self.kernel is not None and self.kernel.problem is not None:
            self._complain(f"the kernel is no longer asked: {self.kernel.problem}")
            self.kernel = self.writer.kernel = None

    def _complain(self, text: str) -> None:
        self.status.clear()
        complain(text)

    def _failed(self) -> bool:
        """Report at how many connections closeseq itself failed; return whether it did at any."""
        faults = self.session.monitor.faults
        if faults:
            self._complain(fault_in(faults))
        return bool(faults)

    def _found(self) -> bool:
        counts, fail_on = self.session.monitor.counts(), self.request.fail_on
        return any(counts.verdicts[c] or counts.problems[c] or counts.notices[c] for c in fail_on) or any(
            one.code in fail_on for one in self._population
        )
