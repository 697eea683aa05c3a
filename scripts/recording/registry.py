"""The experiments by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from recording.bench import Bench

    Run = Callable[[Bench], None]


@dataclass(frozen=True)
class Experiment:
    """What to run, and how its capture is taken."""

    name: str
    run: Run
    filter: str  # what tcpdump captures, a BPF expression
    device: str

    @property
    def description(self) -> str:
        """The first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(*, capture: str = "tcp", device: str = "lo") -> Callable[[Run], Run]:
    """Register the function under its own name, with dashes, as an experiment."""

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        EXPERIMENTS[name] = Experiment(name, run, capture, device)
        return run

    return register
