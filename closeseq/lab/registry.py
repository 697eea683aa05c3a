"""The experiments by name, with what each is expected to show, and the outcomes they can have."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from closeseq.settings import SECOND, EphemeralPorts, Limits, Settings, Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.lab.faults import PathSettings
    from closeseq.packets.segments import Segments

    Run = Callable[..., None]  # is given the experiment's Bench
    Keep = Callable[[Segments], NDArray[np.bool_]]


class ExperimentOutcome(IntEnum):
    """The outcome of an experiment, and the exit status of its process."""

    AGREED = 0  # inference and kernel agree, and the expectations hold
    DISAGREED = 1
    AGREED_WHERE_SHOWN = 3  # likewise, wherever packets can show the state
    NOT_PERMITTED = 5  # no network namespace can be made
    LEFT_OUT = 6  # a command that it needs is not installed
    FAILED = 70  # it did not run to its end

    @property
    def good(self) -> bool:
        """Whether inference and kernel agree."""
        return self in (ExperimentOutcome.AGREED, ExperimentOutcome.AGREED_WHERE_SHOWN)


@dataclass(frozen=True)
class Experiment:
    """One way of closing, or of failing to close: what to run, and what has to be found."""

    name: str  # with dashes
    run: Run  # carries it out
    verdicts: tuple[str, ...]  # in the order of the connections that first show them
    initiators: tuple[str, ...]  # likewise
    findings: frozenset[str]  # of all connections together, at the end of the experiment
    needs: tuple[str, ...] = ()  # commands that it calls
    device: str = "lo"  # on which is captured
    keep: Keep | None = None  # which of the captured segments are kept: all, if not said
    stuck_after: float | None = None  # seconds, as the option of `analyze`; here waits are short
    fin_timeout: float | None = None  # seconds, likewise: what the namespace's setting is
    path: PathSettings | None = None  # between client and server; None: loopback
    box: bool = False  # there is a box between client and server instead
    population: frozenset[str] = frozenset()  # what all connections together show at the end
    ephemeral_ports: int | None = None  # as the option of `analyze`: what the namespace's setting is

    @property
    def text(self) -> str:
        """What is done and what it shows, as paragraphs: the function's docstring."""
        return inspect.getdoc(self.run) or ""

    @property
    def summary(self) -> str:
        """The first line of that."""
        return self.text.partition("\n")[0]

    @property
    def explanation(self) -> str:
        """The rest of it; empty if there is none."""
        return self.text.partition("\n")[2].strip()

    @property
    def settings(self) -> Settings:
        """When a wait or a timer counts as over, and how many ports there are."""
        limits, timers = Limits(), Timers()
        if self.stuck_after is not None:
            limits = Limits(stuck_after_ns=round(self.stuck_after * SECOND))
        if self.fin_timeout is not None:
            timers = Timers(fin_timeout_ns=round(self.fin_timeout * SECOND))
        ports = EphemeralPorts()
        if self.ephemeral_ports is not None:
            ports = EphemeralPorts(self.ephemeral_ports)
        return Settings(limits=limits, timers=timers, ephemeral_ports=ports)

    @property
    def options(self) -> str:
        """The same, as options of `closeseq analyze`; empty if nothing is special."""
        given = {
            "--stuck-after": self.stuck_after,
            "--fin-timeout": self.fin_timeout,
            "--ephemeral-ports": self.ephemeral_ports,
        }
        return " ".join(f"{name} {value:g}" for name, value in given.items() if value is not None)


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(
    verdicts: str,
    initiators: str,
    findings: str = "",
    *,
    needs: str = "",
    device: str = "lo",
    keep: Keep | None = None,
    stuck_after: float | None = None,
    fin_timeout: float | None = None,
    path: PathSettings | None = None,
    box: bool = False,
    population: str = "",
    ephemeral_ports: int | None = None,
) -> Callable[[Run], Run]:
    """Register the function under its own name, with dashes. Lists are words with spaces between them.

    Args:
        verdicts: in the order of the connections that first show them.
        initiators: likewise.
        findings: of all connections together, at the end of the experiment.
        needs: commands that it calls.
        device: on which is captured.
        keep: which of the captured segments are kept; None: all.
        stuck_after: seconds from which a wait counts as stuck; None: as usual.
        fin_timeout: seconds that FIN_WAIT_2 lasts without an owner, as the namespace has it; None: as usual.
        path: between client and server; None: loopback.
        box: put a box between client and server instead.
        population: what all connections together show at the end.
        ephemeral_ports: how many local ports a client has, as the namespace has it; None: as usual.

    Returns:
        the decorator, which leaves the function as it is.
    """

    def register(run: Run) -> Run:
        name = run.__name__.replace("_", "-")
        assert name not in EXPERIMENTS, f"there are two experiments {name}"
        EXPERIMENTS[name] = Experiment(
            name,
            run,
            tuple(verdicts.split()),
            tuple(initiators.split()),
            frozenset(findings.split()),
            tuple(needs.split()),
            device,
            keep,
            stuck_after,
            fin_timeout,
            path,
            box,
            frozenset(population.split()),
            ephemeral_ports,
        )
        return run

    return register
