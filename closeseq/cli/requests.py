"""What each command is asked to do: made once of what click parsed, typed from there on.

Beside `closeseq.cli.options`, which declares the options, so that `--help` need not load this.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from closeseq.cli.terminal import Refusal
from closeseq.report.selection import Wanted
from closeseq.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from closeseq.cli.options import Moment
    from closeseq.lab.registry import Experiment
    from closeseq.settings import Settings

Given = dict[str, Any]  # click's parameters, by name


@dataclass(frozen=True)
class ReadOptions:
    """How captures are to be read and judged: the arguments of `closeseq.analyze`."""

    port: tuple[int, ...] = ()
    host: tuple[str, ...] = ()
    count: int | None = None  # packets; None for all
    stuck_after: float = 60.0  # seconds
    os: str = "linux"
    time_wait: float | None = None  # seconds; None: as the system has it
    fin_timeout: float | None = None  # likewise
    ephemeral_ports: int | None = None  # their number; None: as the system has it

    @classmethod
    def of(cls, given: Given) -> ReadOptions:
        """Return the options of READING.

        Args:
            given: click's parameters, by name; others are passed over.
        """
        return cls(**_fields(cls, given))

    @property
    def narrowed(self) -> bool:
        """Whether only some addresses or ports are asked for."""
        return bool(self.port or self.host)

    @property
    def settings(self) -> Settings:
        """The same as settings of an analysis."""
        return settings_of(
            port=self.port,
            host=self.host,
            stuck_after=self.stuck_after,
            os=self.os,
            time_wait=self.time_wait,
            fin_timeout=self.fin_timeout,
            ephemeral_ports=self.ephemeral_ports,
        )


@dataclass(frozen=True)
class AnalyzeRequest:
    """What `analyze` and `timeline` are asked."""

    captures: tuple[str, ...]
    form: str  # of options.FORMATS, or options.PARQUET
    reading: ReadOptions = field(default_factory=ReadOptions)
    wanted: Wanted = field(default_factory=Wanted)
    most: int | None = 20  # problem connections, or timelines, to show; None for all
    fail_on: frozenset[str] = frozenset()  # codes of verdicts and findings
    output: str | None = None  # file or directory; None or "-" for standard output
    force: bool = False  # overwrite it
    ascii: bool = False
    each: bool = False  # each file is a capture by itself
    population: bool = False  # whether JSON lines end with one about all connections
    jobs: int | None = None  # processes; None for as many as there are processors, if it is worth while

    @classmethod
    def of(cls, captures: tuple[str, ...], form: str, given: Given) -> AnalyzeRequest:
        """Return the request of a command line.

        Args:
            captures: as they were named.
            form: of options.FORMATS, or one of `analyze` that is no text.
            given: click's parameters, by name.

        Raises:
            Refusal: options that do not go together.
        """
        if captures.count("-") > 1:
            raise Refusal("standard input can be read only once")
        return cls(
            captures,
            form,
            ReadOptions.of(given),
            wanted(given),
            None if given["show_all"] else given["limit"],
            _codes(given["fail_on"]),
            given["output"],
            given["force"],
            given["ascii_only"],
            given["each"],
            _population(given, form),
            given["jobs"],
        )


@dataclass(frozen=True)
class StatesRequest:
    """What `states` is asked."""

    captures: tuple[str, ...]
    at: Moment
    form: str  # table or json
    reading: ReadOptions
    wanted: Wanted
    show_all: bool  # also endpoints without a socket
    output: str | None
    force: bool
    ascii: bool

    @classmethod
    def of(cls, captures: tuple[str, ...], given: Given) -> StatesRequest:
        """Return the request of a command line.

        Args:
            captures: as they were named.
            given: click's parameters, by name.
        """
        return cls(
            captures,
            given["at"],
            given["form"],
            ReadOptions.of(given),
            wanted(given),
            given["show_all"],
            given["output"],
            given["force"],
            given["ascii_only"],
        )


@dataclass(frozen=True)
class DiffRequest:
    """What `diff` is asked."""

    before: str  # captures, or a file of records
    after: str
    form: str  # text or json
    reading: ReadOptions
    chance: float  # as `compare` takes it
    fail_on_worse: bool
    jobs: int | None  # as AnalyzeRequest.jobs
    output: str | None
    force: bool
    ascii: bool

    @classmethod
    def of(cls, before: str, after: str, given: Given) -> DiffRequest:
        """Return the request of a command line.

        Args:
            before: the first side, as it was named.
            after: the second side.
            given: click's parameters, by name.

        Raises:
            Refusal: both sides are standard input.
        """
        if before == after == "-":
            raise Refusal("standard input can be read only once")
        return cls(
            before,
            after,
            given["form"],
            ReadOptions.of(given),
            given["chance"],
            given["fail_on_worse"],
            given["jobs"],
            given["output"],
            given["force"],
            given["ascii_only"],
        )


@dataclass(frozen=True)
class ReportRequest:
    """What `report` is asked."""

    captures: tuple[str, ...]
    ladders: int  # connections to show whole, at most
    reading: ReadOptions
    wanted: Wanted
    fail_on: frozenset[str]
    output: str | None
    force: bool
    jobs: int | None  # as AnalyzeRequest.jobs

    @classmethod
    def of(cls, captures: tuple[str, ...], ladders: int, given: Given) -> ReportRequest:
        """Return the request of a command line.

        Args:
            captures: as they were named.
            ladders: connections to show whole, at most.
            given: click's parameters, by name.
        """
        return cls(
            captures,
            ladders,
            ReadOptions.of(given),
            wanted(given),
            _codes(given["fail_on"]),
            given["output"],
            given["force"],
            given["jobs"],
        )


@dataclass(frozen=True)
class MonitorRequest:
    """What `live` and `follow` both are asked."""

    form: str  # of live.FORMATS
    reading: ReadOptions
    wanted: Wanted
    every: float | None  # seconds between two tables of states; None for no table
    duration: float | None  # seconds until it ends; None for no limit
    until_close: int | None  # connections that close until it ends; None for no limit
    max_connections: int  # that are kept
    fail_on: frozenset[str]
    ascii: bool
    population: bool = False  # whether JSON lines also tell what all connections show together

    @classmethod
    def of(cls, given: Given) -> MonitorRequest:
        """Return the options that both commands have.

        Args:
            given: click's parameters, by name.

        Raises:
            Refusal: options that do not go together.
        """
        return cls(
            given["form"],
            ReadOptions.of(given),
            wanted(given),
            given["every"] or None,
            given["duration"],
            given["until_close"],
            given["max_connections"],
            _codes(given["fail_on"]),
            given["ascii_only"],
            _population(given, given["form"]),
        )


@dataclass(frozen=True)
class LiveRequest:
    """What `live` is asked."""

    expression: str | None  # capture filter in tcpdump's syntax
    monitor: MonitorRequest
    interface: tuple[str, ...]
    write: str | None  # file, or - for standard output
    rotate: str | None  # as it was given: a size or a time
    force: bool
    kernel: bool | None  # None: the kernel is asked if that is possible
    netns: str | None  # network namespace to capture in, by name
    pid: int | None  # or by a process in it
    source: Literal["auto", "ring", "scapy"]
    user: str | None  # to become, when the capture is open
    no_drop: bool  # stay root
    metrics: tuple[str, int] | None = None  # address and port to serve them on
    metrics_file: str | None = None  # that is written again and again

    @classmethod
    def of(cls, expression: tuple[str, ...], given: Given) -> LiveRequest:
        """Return the request of a command line.

        Args:
            expression: the words of a capture filter; empty for none.
            given: click's parameters, by name.

        Raises:
            Refusal: options that do not go together.
        """
        if given["rotate"] and given["write"] in {None, "-"}:
            raise Refusal("--rotate needs -w with the name of a file")
        other = _fields(cls, given, without=("expression", "monitor"))
        return cls(" ".join(expression) or None, MonitorRequest.of(given), **other)


@dataclass(frozen=True)
class LabRequest:
    """What `lab run` is asked."""

    experiments: list[Experiment]
    keep: Path | None  # folder for captures and kernel answers
    force: bool
    jobs: int | None  # experiments at once; None for 6 a processor
    quiet: bool  # print outcomes only
    ascii_only: bool


def wanted(given: Given) -> Wanted:
    """Return the options of CHOOSING; only `analyze` has --why, and `live` has no --connection."""
    return Wanted(
        _codes(given["verdict"]),
        _codes(given["finding"]),
        frozenset(given.get("connection", ())),
        _codes(given.get("why", ())),
    )


def _population(given: Given, form: str) -> bool:
    """Return whether --population is given, which `timeline` does not have. Raises Refusal."""
    if given.get("population") and form != "jsonl":
        raise Refusal("--population is for -f jsonl; the other formats for a whole capture have it anyway")
    return bool(given.get("population"))


def _codes(several: tuple[frozenset[str], ...]) -> frozenset[str]:
    """Return the codes of an option that may be given more than once."""
    return frozenset().union(*several)


def _fields(cls: Any, given: Given, without: Collection[str] = ()) -> Given:
    """Return what was given for the fields of a dataclass that are named as click's parameters."""
    return {one.name: given[one.name] for one in fields(cls) if one.name not in without}
