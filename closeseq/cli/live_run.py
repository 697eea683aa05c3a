"""How a signal ends what goes on until someone has seen enough.

One run of `live` or `follow`: watch until it is enough, say what there is to say, end in good order.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.cli.terminal import Status, complain, fault_in, picture, remark
from closeseq.errors import CaptureError, DeviceError
from closeseq.report.live_text import clock, closing, named, states
from closeseq.report.text import printable
from closeseq.units import count, span
from closeseq.watch.updates import UpdateKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from closeseq.cli.live_output import UpdateWriter
    from closeseq.cli.terminal import StatusLine
    from closeseq.report.summary import Group
    from closeseq.watch.kernel_view import KernelView
    from closeseq.watch.session import Session
    from closeseq.watch.updates import Updates

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@dataclass
class Stop:
    """Whether someone has seen enough."""

    asked: bool = False


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Let the first SIGINT, SIGTERM or SIGHUP ask to stop, and a second one end it at once."""
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


LONG = 2.0  # seconds of writing at the end, from which on it is said
ASKING = 1.0  # seconds for each of the groups of problems, of which there are five
MOST_ASKED = 1000  # sockets whose owners are looked for at the end


@dataclass(frozen=True)
class Until:
    """When it is enough, besides Ctrl-C."""

    duration: float | None = None  # seconds
    closes: int | None = None  # connections


class Watching:
    """A session being told about.

    Args:
        session: is closed at the end.
        writer: writes what there is to say.
        status: the line on the terminal.
        stop: tells when someone has seen enough.
        until: when it is enough.
        every: seconds between two tables of states; None for none.
        asked: the ports and hosts that were asked for, in words.
        kernel: the kernel's word; None if it is not asked.
        fail_on: codes of verdicts and findings that make the exit status.
    """

    def __init__(
        self,
        session: Session,
        writer: UpdateWriter,
        status: StatusLine,
        stop: Stop,
        until: Until,
        *,
        every: float | None = None,
        asked: str = "",
        kernel: KernelView | None = None,
        fail_on: frozenset[str] = frozenset(),
    ) -> None:
        self.session = session
        self.writer = writer
        self.status = status
        self.stop = stop
        self.until = until
        self.every = every
        self.asked = asked
        self.kernel = kernel
        self.fail_on = fail_on
        self.trouble = False  # the capture ended, or could not be saved, against our will
        self._began = time.monotonic()
        self._next_table = self._began + (every or 0.0)
        self._noticed = 0
        self._unsaved = False

    def run(self) -> Status:
        """Watch, then tell what is left and sum up; return the exit status."""
        asked = f", {self.asked}" if self.asked else ""
        path = self.session.monitor.reading.path
        complain(f"watching {'standard input' if path == '-' else path}{asked}; Ctrl-C ends it")
        try:
            self._watch()
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

    def _watch(self) -> None:
        while not (self.stop.asked or self.session.over or self._enough()):
            try:
                updates = self.session.step(self.writer.most)
            except (DeviceError, CaptureError) as error:
                self._complain(str(error))
                self.trouble = True
                return
            self._notice()
            if self.kernel is not None:
                self.kernel.look()
            if updates or self.writer.due:
                self.status.clear()
                self.writer.write(updates)
            if self.every is not None and time.monotonic() >= self._next_table:
                self._next_table += self.every
                self._table()
            if self.status.due:
                self.status.draw(self._picture())

    def _finish(self) -> None:
        """Tell what had not been told, and sum up."""
        self.status.clear()
        last = self.session.end(hurried=self.stop.asked)
        if self.session.unread is not None:
            self._complain(str(self.session.unread))
            self.trouble = True
        self._notice()
        self._announce(last)
        self.writer.write(last, last=True)
        if self.writer.form in {"timeline", "summary"}:
            unfinished = [one for one in last if one.kind is UpdateKind.OPEN]
            lines = closing(self.session.monitor, unfinished, self.asked, self.writer.style, self._owners)
            self.writer.output.write(f"{row}\n" for row in lines)

    def _announce(self, last: list[Updates]) -> None:
        """Say what takes so long, where it does."""
        if unjudged := self.session.monitor.unjudged:
            self._complain(f"{count(unjudged, 'connection')} seen and not judged, for lack of time")
        number = sum(len(one) for one in last)
        if self.writer.seconds_for(number) > LONG:
            self._complain(f"writing {number:,} more records; Ctrl-C once more ends it at once")

    def _owners(self, group: Group) -> Counter[str]:
        """Return which programs hold the sockets that a group of problems is about, and how many."""
        found: Counter[str] = Counter()
        if self.kernel is None or group.end is None:
            return found
        until = time.monotonic() + ASKING
        for index in group.indices[:MOST_ASKED]:
            if time.monotonic() > until:
                break
            seen = self.session.monitor.connection(index, UpdateKind.OPEN)
            one = self.kernel.answers(seen, wait=0.1).get(group.end)
            if one is not None and not one.remembered:
                found.update(named(owner) for owner in one.owners[:1])
        return found

    def _enough(self) -> bool:
        """Whether it has been long enough, or there were closes enough."""
        duration, closes = self.until.duration, self.until.closes
        return (duration is not None and time.monotonic() - self._began >= duration) or (
            closes is not None and self.writer.written[UpdateKind.CLOSED] >= closes
        )

    def _table(self) -> None:
        self.status.clear()
        now_ns = self.session.clock.now_ns()
        rows = [*states(self.session.monitor.counts(), now_ns, self.writer.style), ""]
        if self.writer.most is None:
            self.writer.output.write(f"{row}\n" for row in rows)
        else:  # no record: a program that reads these would stumble over it
            remark("\n".join(rows))

    def _picture(self) -> str:
        """Return the status line, for a terminal as wide as ours."""
        monitor = self.session.monitor
        counts = monitor.counts()
        return picture(
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
        """Say what happened to the source or the clock while it goes on."""
        failed = self.session.unsaved
        if failed is not None and not self._unsaved:
            self._unsaved = self.trouble = True
            if failed.errno == errno.EPIPE:
                self.stop.asked = True  # whoever reads has seen enough
            else:
                self._complain(f"{failed}; going on without saving")
        notices = self.session.source.notices
        for notice in notices[self._noticed :]:
            self._complain(notice)
        self._noticed = len(notices)
        jump_ns = self.session.clock.jump_ns()
        if jump_ns:
            way = "forward" if jump_ns > 0 else "back"
            self._complain(
                f"the clock went {span(abs(jump_ns))} {way} at once: it was set, or the machine slept; "
                "waits measured across that moment are wrong by as much"
            )
        if self.kernel is not None and self.kernel.problem is not None:
            self._complain(f"the kernel is not asked any more: {self.kernel.problem}")
            self.kernel = self.writer.kernel = None

    def _complain(self, text: str) -> None:
        self.status.clear()
        complain(text)

    def _failed(self) -> bool:
        """Say at how many connections closeseq itself failed, if at any; return whether it did."""
        faults = self.session.monitor.faults
        if faults:
            self._complain(fault_in(faults))
        return bool(faults)

    def _found(self) -> bool:
        counts = self.session.monitor.counts()
        return any(counts.verdicts[c] or counts.problems[c] or counts.notices[c] for c in self.fail_on)
