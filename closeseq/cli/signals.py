"""How a signal ends what goes on until someone has seen enough."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

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
