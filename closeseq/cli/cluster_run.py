"""`closeseq analyze --cluster`: the work is done by the workers of a Dask scheduler."""

from __future__ import annotations

import contextlib
import logging
import pickle
import secrets
import sys
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from closeseq.cli.analyze_run import Job, meant
from closeseq.cli.output import streamed
from closeseq.cli.terminal import Progress, Refusal, Status, complain, fault_in
from closeseq.cluster.digest import Digest
from closeseq.cluster.orders import FORMS, SUMMARY, Order, continued, digested, gathered, handed_on, part
from closeseq.cluster.spread import Spread, parts_for
from closeseq.cluster.totals import Totals
from closeseq.cluster.whole import summary_of
from closeseq.errors import CaptureError
from closeseq.report.text import Style, printable
from closeseq.shards.keys import file_system, put, write_whole
from closeseq.shards.plan import each, shared_out
from closeseq.shards.tasks import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from closeseq.capture.chains import Chain
    from closeseq.shards.plan import WholeCapture

INSTALL = "pip install 'closeseq[cluster]', here and where its workers run"
CONNECT_TIMEOUT = "10s"  # of the scheduler


class ClusterJob(Job):
    """One run of `analyze` on a cluster."""

    def run_on(self, address: str) -> Status:
        """Read and report; return the exit status.

        Args:
            address: of the Dask scheduler, such as tcp://10.0.0.1:8786.

        Raises:
            Refusal: the form is not for a cluster, no scheduler answers, or the output is not to be written.
            WorkerError: the cluster has lost its workers.
        """
        request = self.request
        if request.form not in FORMS:
            raise Refusal(f"--cluster writes {', '.join(FORMS[1:])} or a summary, not {request.form}")
        if request.population:
            raise Refusal("--population is not for --cluster; its summary has what it says")
        if request.form != "summary" and request.output is None:
            raise Refusal(
                f"-f {request.form} on a cluster is written in parts: name a directory or URL with -o"
            )
        named = meant(request.captures)
        with connected(address) as executor:
            folder = None if request.output is None else Folder(request.output, force=request.force)
            try:
                lines = list(self._summaries(executor, self.chains(named), folder))
            finally:
                if folder is not None:
                    folder.clear()
            lines += [f"not read: {printable(text)}" for text in self.broken]
            if folder is not None:
                write_whole(f"{folder.url}/{SUMMARY}", (line + "\n" for line in lines))
        streamed(sys.stdout).write(line + "\n" for line in lines)
        return self.status

    def _summaries(self, executor: Executor, chains: list[Chain], folder: Folder | None) -> Iterator[str]:
        """Yield the lines of the summaries of all captures, and write their parts."""
        between: list[str] = []
        for chain in chains:
            try:
                lines = self._summary(executor, chain, folder)
            except CaptureError as error:
                complain(str(error))
                self.broken.append(str(error))
                self.unread = True
                continue
            yield from [*between, *lines]
            between = [""]

    def _summary(self, executor: Executor, chain: Chain, folder: Folder | None) -> list[str]:
        request, settings = self.request, self.request.reading.settings
        progress, handed = Progress(chain.paths[0]), None if folder is None else folder.handed
        try:
            whole = shared_out(
                executor, chain, settings, folder=handed, count=request.reading.count, progress=progress
            )
        finally:
            progress.clear()
        order = Order(
            *(settings, whole.reading, request.wanted, Style(100, request.ascii), request.most, request.form),
            *(handed, _parts(whole, handed), secrets.randbits(64)),
        )
        totals, digest = _told(executor, order, whole, folder)
        for error in whole.reading.files.errors():
            complain(str(error))
            self.unread = True
        self.found |= any(
            code in totals.verdicts.of or code in totals.findings.of for code in request.fail_on
        )
        self.found |= bool(request.fail_on & digest.together)
        if len(totals.faults):
            complain(f"{chain.paths[0]}: {fault_in(totals.faults)}")
            self.failed = True
        return list(summary_of(totals, digest, order))


def _parts(whole: WholeCapture, handed: str | None) -> int:
    """Return into how many parts to divide what grows with the connections of a capture."""
    if handed is None:  # then all of it passes through this process anyway
        return 1
    return parts_for(sum(one.shard.connections for one in whole.shards))


def _told(
    executor: Executor, order: Order, whole: WholeCapture, folder: Folder | None
) -> tuple[Totals, Digest]:
    """Have the records of all connections written; return what the summary says of them."""
    held = handed_on(order)
    given = [
        (held, shard, None if folder is None else folder.part(order.form))
        for shard in sorted(whole.shards, key=lambda one: -one.shard.connections)  # long tasks first
        if shard.shard.connections
    ]
    totals, digest, spreads = Totals(), Digest.of(Spread(), order.settings, order.most), []
    for one in each(executor, part, given):
        totals.merge(one.totals)
        if one.spread is not None:
            spreads.append(one.spread)
    stored = gathered(order, spreads)
    if folder is None:
        digest.merge(digested(held, stored, 0))
    else:
        for found in each(executor, digested, [(held, stored, number) for number in range(order.parts)]):
            digest.merge(found)
    if totals.suspects is not None and len(totals.suspects):
        suspects = put(order.folder, "suspects", pickle.dumps(totals.suspects))
        asked = [(held, shard, suspects) for _, shard, _ in given]
        digest.add_strays(one for some in each(executor, continued, asked) for one in some)
    return totals, digest


class Folder:
    """The directory or URL that the parts go to.

    Args:
        name: as the user named it.
        force: whether what an earlier run has left there may be overwritten.

    Raises:
        Refusal: something is there already, or it cannot be written to.
    """

    def __init__(self, name: str, *, force: bool) -> None:
        try:
            self._files, path = file_system(name)
            self.url = str(self._files.unstrip_protocol(path)).rstrip("/")
            present = self._files.exists(path) and [
                one for one in self._files.ls(path, detail=False) if not _is_hidden(one)
            ]
            if present and not force:
                raise Refusal(f"{name} is not empty; --force writes there nevertheless")
            for one in present or []:
                if _is_ours(one):
                    self._files.rm(one)
            self.handed = f"{self.url}/.closeseq-{secrets.token_hex(8)}"
            self._files.makedirs(file_system(self.handed)[1], exist_ok=True)
        except ImportError as error:
            raise Refusal(f"{name} cannot be written to: {error}; {INSTALL}") from error
        except OSError as error:
            raise Refusal(f"{name} cannot be written to: {error.strerror or error}") from error
        self._parts = 0

    def part(self, form: str) -> str:
        """Return a URL for the next part.

        Args:
            form: its format, which its name ends with.
        """
        self._parts += 1
        return f"{self.url}/part-{self._parts:05}.{form}"

    def clear(self) -> None:
        """Remove what tasks have handed on to one another."""
        with contextlib.suppress(OSError):
            self._files.rm(file_system(self.handed)[1], recursive=True)


def _is_hidden(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].startswith(".")


def _is_ours(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name == SUMMARY or (name.startswith("part-") and name.endswith(FORMS[1:]))


class Workers(Executor):
    """The workers of a Dask scheduler.

    As Dask's own executor, whose results stay with the workers until Python happens to look for garbage here.

    Args:
        client: a `distributed.Client`; closed by who made it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, task: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        """Have a task done, twice if need be; return its future.

        Args:
            task: works in another process, so that it must change nothing here.
            given: its arguments.
            named: its named arguments.
        """
        key = f"{task.__name__}-{secrets.token_hex(16)}"  # in Dask's dashboard it has the name of the task
        return self._client.submit(apart, task, *given, key=key, pure=False, **named)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Executor]:
    """Be connected with a Dask scheduler; yield what does its tasks.

    Raises:
        Refusal: none answers, this is no address of one, or Dask is not installed.
    """
    try:
        from distributed import Client

        plain: Any = Client  # which has no types
    except ImportError as error:
        raise Refusal(f"--cluster needs Dask, which is not installed; {INSTALL}") from error
    for name in ("distributed", "distributed.client"):  # they have levels of their own once it is loaded
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what went wrong is said once

    class Connection(plain):  # type: ignore[misc]
        """A client that is closed below, and not by Python, which would wait for one that never began."""

        def __del__(self) -> None:
            pass

    try:
        client = Connection(address or "''", timeout=CONNECT_TIMEOUT, set_as_default=False)
    except OSError as error:
        raise Refusal(f"no Dask scheduler answers at {address}: is it running there?") from error
    except (ValueError, TypeError) as error:
        wanted = "give it as the scheduler prints it, such as tcp://10.0.0.1:8786"
        raise Refusal(f"{address!r} is no address of a Dask scheduler: {error}; {wanted}") from error
    try:
        yield Workers(client)
    finally:
        client.close()
