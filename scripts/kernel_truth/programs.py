"""What two applications and the network do to one connection, at random, and mostly about closing.

A program has two parts. In the first the applications talk. In the second each goes its own way to
an end (close, half-close first, abort, or nothing at all), and the two ways are shuffled together.
Where there is to be loss, packets of one sender are dropped for some steps, mostly around the end.
"""

import random
from dataclasses import dataclass, replace

SIDES = ("client", "server")

# What one application does at the end, and how often.
ENDINGS = {
    ("close",): 44,
    ("shutdown", "close"): 16,
    ("abort",): 13,
    ("shutdown", "abort"): 4,
    ("shutdown",): 8,
    (): 15,
}

SIZES = (1, 5, 5, 40, 200, 1400, 20000)  # bytes an application sends at once

# Where packets are dropped, by what the caller asks for: at netfilter's hooks on loopback, or on a path.
HOOKS = {"none": (), "after": ("input",), "before": ("output",), "mixed": ("input", "output")}
LEGS = ("before the tap", "after the tap")
PATHS = {"near": LEGS, "mid": LEGS, "far": LEGS, "clean": ()}
PLACES = HOOKS | PATHS

# In which share of the connections something is dropped. A path loses of its own accord besides.
LOSSES = 0.85
PATH_LOSSES = 0.42

# Of what is dropped singly on a path, and how often.
KINDS = {"FIN": 5, "RST": 2, "ACK of FIN": 4, "data": 1}


@dataclass(frozen=True)
class Step:
    """One thing that happens to a connection, and the pause after it."""

    action: str  # send recv shutdown close abort, or drop heal lose
    side: str  # who does it (client server both), or whose packets are dropped
    place: str = ""  # where they are dropped
    size: int = 0  # bytes to send
    pause: float = 0.0  # seconds
    kind: str = ""  # what the next segment is like that alone is dropped

    def __str__(self) -> str:
        """Tell the step as a program is printed."""
        if self.kind:
            return f"{self.action} {self.kind} {self.place} from {self.side}"
        return f"{self.action} {self.place} from {self.side}" if self.place else f"{self.side} {self.action}"


def random_program(dice: random.Random, loss: str, singly: float = 0.0) -> list[Step]:
    """Throw the dice for one connection.

    `loss` is a key of PLACES; of the losses on a path the share `singly` is a single segment each.
    """
    talk = _talk(dice)
    steps = talk + _ending(dice)
    on_path = loss in PATHS
    if PLACES[loss] and dice.random() < (PATH_LOSSES if on_path else LOSSES):
        for _ in range(dice.choice((1, 1, 1, 2) if on_path else (1, 1, 2, 2, 3))):
            _add_loss(dice, steps, len(talk), PLACES[loss], singly if on_path else 0.0)
    return [_with_pause(dice, step) for step in steps]


def _talk(dice: random.Random) -> list[Step]:
    """Send and, mostly, receive: what is not received makes a close an abort."""
    steps = []
    for _ in range(dice.choice((0, 0, 1, 2, 2, 3, 4))):
        sender, receiver = dice.sample(SIDES, 2)
        steps.append(_send(dice, sender))
        if dice.random() < 0.85:  # noqa: PLR2004
            steps.append(Step("recv", receiver))
    return steps


def _ending(dice: random.Random) -> list[Step]:
    """Shuffle the two sides' ways to their ends together."""
    ways = {side: list(dice.choices(list(ENDINGS), list(ENDINGS.values()))[0]) for side in SIDES}
    together = ways["client"][-1:] == ways["server"][-1:] == ["close"] and dice.random() < 0.2  # noqa: PLR2004
    if together:
        for way in ways.values():
            way.pop()
    order = [side for side in SIDES for _ in ways[side]]
    dice.shuffle(order)
    steps: list[Step] = []
    for side in order:
        steps += _chatter(dice)
        steps.append(Step(ways[side].pop(0), side))
    if together:
        steps.append(Step("close", "both"))
    return steps + _chatter(dice)


def _chatter(dice: random.Random) -> list[Step]:
    """Now and then somebody sends or receives amid the end; it may well fail by then."""
    chance, side = dice.random(), dice.choice(SIDES)
    if chance < 0.12:  # noqa: PLR2004
        return [_send(dice, side)]
    return [Step("recv", side)] if chance < 0.22 else []  # noqa: PLR2004


def _add_loss(
    dice: random.Random, steps: list[Step], end: int, places: tuple[str, ...], singly: float
) -> None:
    """Put a drop before some step of the end (from index `end` on), and mostly a heal some steps later.

    With the chance `singly` it is a single segment that is dropped.
    """
    side, place = dice.choice(SIDES), dice.choice(places)
    start = dice.randint(max(0, end - 1), len(steps))
    if singly and dice.random() < singly:
        kind = dice.choices(list(KINDS), list(KINDS.values()))[0]
        steps.insert(start, Step("lose", side, place, kind=kind))
        return
    if dice.random() < 0.85:  # noqa: PLR2004
        steps.insert(min(len(steps), start + dice.randint(1, 4)), Step("heal", side, place))
    steps.insert(start, Step("drop", side, place))


def _send(dice: random.Random, side: str) -> Step:
    return Step("send", side, size=dice.choice(SIZES))


def _with_pause(dice: random.Random, step: Step) -> Step:
    """Pause for 20 to 300 ms, mostly short, and sometimes long enough for a few retransmissions."""
    pause = min(0.3, 0.02 + dice.expovariate(1 / 0.06))
    if step.action in ("drop", "close", "shutdown") and dice.random() < 0.12:  # noqa: PLR2004
        pause = dice.uniform(0.3, 1.0)
    return replace(step, pause=pause)
