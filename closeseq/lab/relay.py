"""The packets under way on a path, in the order in which they pass its capture point and arrive.

The clock and the seed of the random numbers are arguments, so that a test can let time go by as it likes.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from closeseq.lab.faults import Action, Fins, Header, Leg

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.connections.conversation import End
    from closeseq.lab.faults import Fault, PathSettings

MILLISECOND = 1_000_000  # in nanoseconds
# A packet that others overtake is delayed by this much, and by up to half a round trip more.
OVERTAKEN_NS = (MILLISECOND // 3, 3 * MILLISECOND)
DUPLICATED_NS = MILLISECOND  # the mean time after which a packet is delivered again
LEGS = tuple(Leg)


@dataclass(slots=True)
class Transit:
    """A packet under way, and what will happen to it."""

    sender: End
    packet: bytes  # IP
    header: Header | None  # None if it is not TCP
    times_ns: dict[Leg, int]  # how long it takes for each leg
    lost: Leg | None = None  # where it gets lost
    duplicated: Leg | None = None  # where a second one of it comes into being
    duplicated_ns: int = 0  # and how long after it that one goes on


@dataclass
class Injected:
    """A fault in place."""

    fault: Fault
    count: int = 0  # segments that it has met

    @property
    def over(self) -> bool:
        """Whether it has met as many segments as it is for."""
        return 0 < self.fault.times <= self.count


class Relay:
    """Carries packets from either end of a path to the other.

    A packet takes at least its nominal time for each leg: where the relay comes to it late, it goes on late.
    So nothing passes the tap, or arrives, sooner after another than it could on a real path, and packets
    overtake each other only where that was asked for.

    Args:
        settings: what the path is like. The nth packet of an end of a connection always meets the same.
        clock: returns the time in nanoseconds.
        record: is called with each TCP packet when it passes the tap.
        deliver: is called with the end at which a packet arrives, and the packet.
    """

    def __init__(
        self,
        settings: PathSettings,
        *,
        clock: Callable[[], int],
        record: Callable[[bytes], None],
        deliver: Callable[[End, bytes], None],
    ) -> None:
        self._settings = settings
        self._clock, self._record, self._deliver = clock, record, deliver
        self._dice: dict[tuple[int, End], random.Random] = {}
        self._fins = Fins()
        self._injected: dict[int, Injected] = {}
        self._numbers = count(1)
        self._queue: list[tuple[int, int, Leg, Transit]] = []  # by time, then in the order of coming

    # --------------------------------------------------------------------------------- faults

    def inject(self, fault: Fault) -> int:
        """Put a fault in place, for packets that begin their leg from now on; return its number."""
        number = next(self._numbers)
        self._injected[number] = Injected(fault)
        return number

    def count(self, number: int) -> int:
        """Return how many segments a fault has met."""
        return self._injected[number].count

    def remove(self, number: int) -> int:
        """Remove a fault, and return how many segments it has met."""
        return self._injected.pop(number).count

    # -------------------------------------------------------------------------------- packets

    def send(self, sender: End, packet: bytes) -> None:
        """Take in a packet that an end has sent just now.

        Args:
            sender: the end.
            packet: an IP packet.
        """
        header = Header.of(packet, sender)
        if header is not None:
            self._fins.note(sender, header)
        self._enter(Leg.BEFORE, self._transit(sender, packet, header))

    @property
    def next_ns(self) -> int | None:
        """When the next packet passes the tap or arrives; None if nothing is under way."""
        return self._queue[0][0] if self._queue else None

    def work(self) -> None:
        """Let everything that is due by now pass the tap or arrive."""
        while self._queue and self._queue[0][0] <= self._clock():
            _, _, leg, transit = heapq.heappop(self._queue)
            if leg is Leg.AFTER:
                self._deliver(transit.sender.peer, transit.packet)
                continue
            if transit.header is not None:
                self._record(transit.packet)
            self._enter(Leg.AFTER, transit)

    def _transit(self, sender: End, packet: bytes, header: Header | None) -> Transit:
        """Throw the dice for a packet, always as many, whatever comes of it."""
        port = header.server_port if header else 0
        conditions = self._settings.special.get(port, self._settings.usual)
        if (port, sender) not in self._dice:
            self._dice[port, sender] = random.Random(f"{self._settings.seed} {port} {sender}")  # noqa: S311
        dice = self._dice[port, sender]
        lost, overtaken, duplicated = ((dice.random(), dice.choice(LEGS)) for _ in range(3))
        overtaken_ns = round(dice.uniform(OVERTAKEN_NS[0], OVERTAKEN_NS[1] + conditions.round_trip_ns / 2))
        duplicated_ns = round(dice.expovariate(1 / DUPLICATED_NS))

        tap = self._settings.tap
        transit = Transit(
            sender,
            packet,
            header,
            {
                Leg.BEFORE: conditions.one_way_ns(sender, tap),
                Leg.AFTER: conditions.one_way_ns(sender.peer, tap),
            },
            lost[1] if lost[0] < conditions.loss else None,
            duplicated[1] if duplicated[0] < conditions.duplication else None,
            duplicated_ns,
        )
        if overtaken[0] < conditions.reordering:
            transit.times_ns[overtaken[1]] += overtaken_ns
        return transit

    def _enter(self, leg: Leg, transit: Transit) -> None:
        """Let a packet begin one of its two legs, unless it gets lost there."""
        time_ns, lost = transit.times_ns[leg], transit.lost is leg
        again_ns = transit.duplicated_ns if transit.duplicated is leg else None
        for one in self._meeting(leg, transit):
            one.count += 1
            match one.fault.action:
                case Action.LOSE:
                    lost = True
                case Action.DELAY:
                    time_ns += one.fault.delay_ns
                case Action.DUPLICATE:
                    again_ns = one.fault.delay_ns
        if lost:
            return
        due_ns = self._clock() + time_ns
        self._put(due_ns, leg, transit)
        if again_ns is not None:
            duplicate = Transit(transit.sender, transit.packet, transit.header, transit.times_ns)
            self._put(due_ns + again_ns, leg, duplicate)

    def _put(self, due_ns: int, leg: Leg, transit: Transit) -> None:
        heapq.heappush(self._queue, (due_ns, next(self._numbers), leg, transit))

    def _meeting(self, leg: Leg, transit: Transit) -> list[Injected]:
        """Return the faults that a packet meets on this leg."""
        sender, header = transit.sender, transit.header
        if header is None:
            return []
        return [
            one
            for one in self._injected.values()
            if (one.fault.leg, one.fault.sender) == (leg, sender)
            and one.fault.server_port in (0, header.server_port)
            and not one.over
            and self._fins.matches(one.fault.kind, sender, header)
        ]
