"""What this machine's kernel says of the RSTs that were captured: why it sent them, or that it did not.

The kernel's trace has no packets in it, and it is of all network namespaces. So a RST that was captured is
held against it by addresses and ports, and by time: within `NEAR_NS`, since a packet may wait between the
kernel's TCP and the interface, and a process between sending and being traced.

Nothing is said where that is not certain. Two network namespaces may use the same addresses: if more RSTs
were sent than captured, or by two sockets, it is not known which was ours. That the kernel sent none is
certain only while all of its trace is known, and

- the endpoint's socket still lives: an abort removes it before the RST is sent, and of an answer to a segment
  the trace comes first; or
- a second has passed, and nobody sent a RST near that moment who could be hidden by address translation.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from itertools import islice
from typing import TYPE_CHECKING

from closeseq.connections.conversation import Traffic
from closeseq.linux.reset_trace import pair, sent_at
from closeseq.packets.value import value
from closeseq.settings import SECOND

if TYPE_CHECKING:
    from closeseq.connections.conversation import Conversation, End
    from closeseq.linux.reset_trace import ResetTrace, SentReset
    from closeseq.linux.socket_table import Socket

NEAR_NS = SECOND  # that the trace and the capture may be apart about one RST
EXACT_NS = SECOND // 10_000  # by which their clocks differ at most
MOST_KEPT = 20_000  # RSTs
SHARE = 0.03  # of one processor that reading may take
MOST_SAVED = 0.05  # seconds of its time that may be taken at once after a calm time


@value
class KernelReset:
    """What the kernel says of the RSTs that have an endpoint as their sender."""

    sent: bool  # False: its TCP sent none of them
    reasons: tuple[str, ...]  # as the kernel names them, in their order; empty if it names none


class KernelResets:
    """Keeps the newest RSTs that the kernel sent, and says what is certain about single connections.

    Args:
        trace: what the kernel sends; not closed here.
    """

    def __init__(self, trace: ResetTrace) -> None:
        self._trace = trace
        self._resets: list[SentReset] = []  # in time order
        self._by_pair: dict[bytes, list[SentReset]] = {}  # likewise
        self._since_ns = time.time_ns()  # from then on, every RST is known that has been read
        self._lost = 0
        self._saved = MOST_SAVED
        self._then = time.monotonic()

    def look(self) -> bool:
        """Take in what was sent; return whether that is all until now.

        A storm of RSTs would take more than `SHARE`: then they wait, and in the end are lost, in the kernel.
        """
        now = time.monotonic()
        self._saved = min(MOST_SAVED, self._saved + (now - self._then) * SHARE)
        self._then = now
        if self._saved <= 0:
            return False
        began = time.thread_time()
        taken = self._trace.read(self._saved)
        lost = self._trace.lost
        if taken.clock_was_set:
            self._resets.clear()
            self._by_pair.clear()
        else:
            self._keep(taken.resets)
        if taken.clock_was_set or lost != self._lost:
            self._since_ns = time.time_ns()
            self._lost = lost
        self._saved -= time.thread_time() - began
        return taken.everything

    def _keep(self, resets: list[SentReset]) -> None:
        if not resets:
            return
        for one in resets:
            insort(self._by_pair.setdefault(one.pair, []), one, key=sent_at)
        self._resets = sorted(self._resets + resets, key=sent_at)
        if len(self._resets) > MOST_KEPT:
            surplus = len(self._resets) - MOST_KEPT * 3 // 4  # so that there is room for some time
            for one in self._resets[:surplus]:
                alike = self._by_pair[one.pair]
                alike.remove(one)
                if not alike:
                    del self._by_pair[one.pair]
            self._since_ns = max(self._since_ns, self._resets[surplus - 1].time_ns)
            del self._resets[:surplus]

    def about(self, conversation: Conversation, end: End, socket: Socket | None) -> KernelReset | None:
        """Return what is certain of the RSTs that have this endpoint as their sender; None if nothing is.

        Args:
            conversation: whose packets were captured; the endpoint has an address of this machine.
            end: the endpoint.
            socket: the endpoint's, as the kernel's table shows it now; None if there is none.
        """
        times_ns = sorted(event.time_ns for event in conversation.events if event.rst and event.sender is end)
        local, remote = conversation.address(end), conversation.address(end.peer)
        if not times_ns or local == remote:
            return None
        ends, most = pair(local, remote), _captured(conversation, end, len(times_ns))
        if not (found := self._near(ends, times_ns, conversation.first_ns, most + 1)):
            all_known = self.look()
            found = self._near(ends, times_ns, conversation.first_ns, most + 1)
            if not found:
                nothing = all_known and ends not in self._by_pair
                if nothing and self._sent_none(times_ns, pair(remote, local), lives=socket is not None):
                    return KernelReset(sent=False, reasons=())
                return None
        if len(found) > most or len({one.socket for one in found} - {0}) > 1:
            return None  # there may be another network namespace with these addresses
        reasons = dict.fromkeys(one.reason for one in found if one.reason is not None)
        return KernelReset(sent=True, reasons=tuple(reasons))

    def _near(self, ends: bytes, times_ns: list[int], first_ns: int, most: int) -> list[SentReset]:
        """Return the RSTs from one of these ends to the other near these times, in time order.

        Args:
            ends: the sender's first.
            times_ns: when they were captured, ascending.
            first_ns: when their connection was first seen.
            most: return at most so many.
        """
        # What was sent before was an earlier connection's, unless this one was captured from its RST only.
        begin_ns = first_ns - (NEAR_NS if first_ns in times_ns else EXACT_NS)
        begin_ns = max(begin_ns, times_ns[0] - NEAR_NS)
        among = _between(self._by_pair.get(ends, []), begin_ns, times_ns[-1] + NEAR_NS)
        return list(islice((one for one in among if _is_near(one.time_ns, times_ns)), most))

    def _sent_none(self, times_ns: list[int], back: bytes, *, lives: bool) -> bool:
        """Return whether the kernel sent none of the RSTs that were captured at these times.

        Args:
            times_ns: ascending; no RST with these ends is known.
            back: the ends the other way round.
            lives: the endpoint's socket is there still.
        """
        first_ns, last_ns = times_ns[0], times_ns[-1]
        if not self._trace.complete or first_ns - NEAR_NS < self._since_ns:
            return False
        near = _between(self._resets, first_ns - NEAR_NS, last_ns + NEAR_NS)
        if lives:
            return not any(one.listener for one in near)
        return time.time_ns() - last_ns >= NEAR_NS and all(one.pair == back for one in near)


def _between(resets: list[SentReset], first_ns: int, last_ns: int) -> list[SentReset]:
    """Return those of this time, of RSTs in time order."""
    first = bisect_left(resets, first_ns, key=sent_at)
    return resets[first : bisect_right(resets, last_ns, lo=first, key=sent_at)]


def _is_near(time_ns: int, times_ns: list[int]) -> bool:
    """Return whether one of these ascending times is near."""
    at = bisect_left(times_ns, time_ns)
    return any(abs(time_ns - other) <= NEAR_NS for other in times_ns[max(at - 1, 0) : at + 1])


def _captured(conversation: Conversation, end: End, events: int) -> int:
    """Return how many RSTs of an endpoint may have been captured at most; so many of them are events."""
    digests = (step.of(end).controls for step in conversation.steps if isinstance(step, Traffic))
    return events + conversation.duplicates.resets + sum(digests)
